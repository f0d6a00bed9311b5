"""Bytes of a stream to frames: one frame, one message of the device. Pure: no I/O, no clock.

A frame is what stands before ``end`` (after ``start``, where one is configured), or between two idle gaps. The codec
holds at most ``max_length`` bytes, whatever comes. What cannot be a frame is garbage: a frame longer than
``max_length``, one that the idle gap cuts off before its end, one without its start. Garbage is told once a burst, cut
to ``max_length``, and all that follows is swallowed up to the next ``end`` or gap, where the codec is in step again.
What is completed soon after a frame was cut off may be its late rest ("12345", a pause, "678": no serial 678), so for
DOUBTED_GAPS idle times the next frame is garbage too, unless a ``start`` shows where it begins.

Empty frames (a terminator alone) are none. Bytes in ``skip`` are dropped where a frame begins: with ``end`` CR and
``skip`` LF, lines that end with CR and lines that end with CR LF both are whole at their CR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DOUBTED_GAPS = 6  # 3 s by default: what a serial server holds back comes with TCP's next retransmissions


class Frame(NamedTuple):
    """One frame without its frame characters, or one burst of garbage."""

    raw: bytes
    garbage: bool = False


MOST_WITHOUT_END = 64 * 1024  # bytes; a pause ends the count
ENDLESS = f"{MOST_WITHOUT_END // 1024} KiB came without the end of one message"
ENDLESS_HINT = "look at baud and end; see what comes: edge-agent listen-serial"


class Endless:
    """Notices a stream that never ends a frame: a line at the wrong baud, the wrong ``end``, a sender gone wild."""

    def __init__(self) -> None:
        self._count = 0

    def came(self, count: int, frames: Sequence[Frame]) -> bool:
        """So many bytes came and gave these frames. True once a burst."""
        before = self._count
        self._count = 0 if frames else before + count
        return before <= MOST_WITHOUT_END < self._count


class Framer:
    """Feed it what arrived; call ``gap`` when nothing did for the idle time."""

    def __init__(self, end: bytes | None, start: bytes = b"", max_length: int = 4096, skip: bytes = b"") -> None:
        self._end = end
        self._skip = skip
        self._start = start
        self._max_length = max_length
        self._held = bytearray()
        self._swallowing = False
        self._doubted = 0  # idle gaps to pass until what comes cannot be the rest of what was cut off

    @property
    def pending(self) -> bool:
        """Bytes of an unfinished frame, or the rest of garbage, are held or awaited: the idle gap means something."""
        return bool(self._held) or self._swallowing or self._doubted > 0

    def reset(self) -> None:
        """Forget what is unfinished: it belongs to a connection that is gone."""
        self._held.clear()
        self._swallowing = False
        self._doubted = 0

    def swallow(self) -> None:
        """Join a stream under way: all up to the next ``end`` or gap is a frame whose beginning is lost."""
        self._held.clear()
        self._swallowing = True

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, in their order."""
        frames: list[Frame] = []
        if self._end is None:
            self._hold(data, frames)
            return frames
        self._held += data
        *complete, rest = self._held.split(self._end)
        self._held = bytearray()
        for piece in complete:
            if self._swallowing:
                self._swallowing = False
            elif len(piece) > self._max_length + len(self._start):
                frames.append(Frame(bytes(piece[: self._max_length]), garbage=True))
            elif self._doubted:
                if piece := piece.lstrip(self._skip):
                    frames.append(Frame(bytes(piece), garbage=True))
            else:
                self._finish(bytes(piece).lstrip(self._skip), frames)
            self._doubted = 0
        self._hold(bytes(rest).lstrip(self._skip), frames)
        return frames

    def gap(self) -> list[Frame]:
        """The idle time has passed: it ends a frame where no ``end`` is configured, and garbage everywhere."""
        held, swallowed, doubted = bytes(self._held), self._swallowing, self._doubted
        self.reset()
        if self._end is not None and not self._start:
            self._doubted = DOUBTED_GAPS if held or swallowed else max(0, doubted - 1)
        frames: list[Frame] = []
        if held and not swallowed:
            if self._end is None:
                self._finish(held, frames)
            else:
                frames.append(Frame(held, garbage=True))
        return frames

    def _hold(self, rest: bytes, frames: list[Frame]) -> None:
        """Keep the beginning of the next frame, or of garbage what may be the beginning of its end."""
        self._held += rest
        if not self._swallowing and len(self._held) > self._max_length + len(self._start) + len(self._end or b""):
            frames.append(Frame(bytes(self._held[: self._max_length]), garbage=True))
            self._swallowing = True
        if self._swallowing:
            keep = len(self._end) - 1 if self._end else 0
            del self._held[: max(0, len(self._held) - keep)]

    def _finish(self, piece: bytes, frames: list[Frame]) -> None:
        if not self._start:
            if piece:
                frames.append(Frame(piece))
            return
        noise, start, code = piece.partition(self._start)
        if start and code:
            frames.append(Frame(code))  # noise before the start is no part of it
        elif noise:
            frames.append(Frame(noise, garbage=True))
