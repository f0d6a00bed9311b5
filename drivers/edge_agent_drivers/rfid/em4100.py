"""EM4100 readers (125 kHz: RDM6300, ID-12 and their kin): bytes to transponder numbers. Pure: no I/O, no clock.

Two telegrams are in use, told apart by what follows the 02:

- text:   02, 10 hex digits, 2 hex digits that are the XOR of the five bytes, 03; some send CR LF before the 03;
- binary: 02, 0A (length), 02 (type), 5 bytes, XOR of the seven bytes before it, 03. The bytes may be 02 or 03 too.

A telegram counts only when its length, its frame characters and its check byte are right. All else is garbage, told
once a burst and swallowed up to the next good telegram or the idle gap; it never holds more than one telegram's bytes.
"""

from __future__ import annotations

from functools import reduce
from operator import xor

from edge_agent_drivers.stream.frames import Frame

START, END = 0x02, 0x03
_HEX = frozenset(b"0123456789ABCDEFabcdef")
_TEXT, _LONG_TEXT, _BINARY = 14, 16, 10  # bytes of a whole telegram, frame characters included


def number_of(raw: bytes) -> str:
    """A good telegram's number as it is printed on the transponder: the lower four bytes, ten decimal digits."""
    number = raw[2:7] if raw[:2] == b"\x0a\x02" else bytes.fromhex(raw[:10].decode("ascii"))
    return f"{int.from_bytes(number[1:]):010d}"


class Em4100Framer:
    """Feed it what arrived; call ``gap`` when nothing did for the idle time. Frames are telegrams without 02 and 03."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._lost = bytearray()  # garbage not yet told
        self._swallowing = False

    @property
    def pending(self) -> bool:
        """An unfinished telegram or garbage is held: the idle gap means something."""
        return bool(self._held or self._lost) or self._swallowing

    def reset(self) -> None:
        """Forget what is unfinished: it belongs to a connection that is gone."""
        self._held.clear()
        self._lost.clear()
        self._swallowing = False

    def swallow(self) -> None:
        """Join a stream under way: what precedes the next telegram is not told."""
        self.reset()
        self._swallowing = True

    def feed(self, data: bytes) -> list[Frame]:
        """The telegrams that these bytes complete, in their order."""
        frames: list[Frame] = []
        for byte in data:
            self._held.append(byte)
            while self._held:
                size = _size_of(self._held)
                if size is None:
                    self._lose()
                elif len(self._held) < size:
                    break
                elif raw := _telegram(bytes(self._held)):
                    self._held.clear()
                    self._tell(frames)
                    self._swallowing = False
                    frames.append(Frame(raw))
                else:
                    self._lose()
        return frames

    def gap(self) -> list[Frame]:
        """The idle time has passed: what is held never was a telegram."""
        frames: list[Frame] = []
        while self._held:
            self._lose()
        self._tell(frames)
        self.reset()
        return frames

    def _lose(self) -> None:
        """The first byte held begins no telegram."""
        if not self._swallowing and len(self._lost) < _LONG_TEXT:
            self._lost.append(self._held[0])
        del self._held[0]

    def _tell(self, frames: list[Frame]) -> None:
        if self._lost:
            frames.append(Frame(bytes(self._lost), garbage=True))
            self._lost.clear()
            self._swallowing = True


def _size_of(held: bytearray) -> int | None:
    """How long the telegram is that these bytes begin; None if they begin none."""
    if held[0] != START:
        return None
    if len(held) == 1:
        return _TEXT
    if held[1] == 0x0A:
        return _BINARY if len(held) < 3 or held[2] == START else None
    if any(byte not in _HEX for byte in held[1:13]):
        return None
    return _LONG_TEXT if len(held) > 13 and held[13] != END else _TEXT


def _telegram(held: bytes) -> bytes:
    """What stands between 02 and 03, if its check byte is right; else nothing."""
    if held[-1] != END:
        return b""
    if held[1] == 0x0A:
        return held[1:9] if reduce(xor, held[1:9]) == 0 else b""
    if len(held) == _LONG_TEXT and held[13:15] != b"\r\n":
        return b""
    return held[1:13] if reduce(xor, bytes.fromhex(held[1:13].decode("ascii"))) == 0 else b""
