"""Transponder numbers of any reader that frames and checks what it sends, as the config describes it. Pure.

A frame begins with ``start`` and ends by one of: ``length`` (so many bytes in all), ``length_at`` (the byte at this
place says how many bytes of the frame follow those that ``length_adds`` counts), or ``end`` (frame characters). Places
count from 0, the first byte of ``start``; negative ones count from the end, as in Python: -1 is the last byte.

What does not begin with ``start``, ends elsewhere, or has a wrong check sum is garbage: told once a burst, swallowed
up to the next good frame or the idle gap, never more than MAX_LENGTH bytes held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor

from edge_agent_drivers.stream.frames import Frame

MAX_LENGTH = 512


def _crc(data: bytes, polynomial: int) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ polynomial if crc & 1 else crc >> 1
    return crc


def _ccitt(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


CHECKS: Mapping[str, Callable[[bytes], bytes]] = {
    "xor": lambda data: bytes([reduce(xor, data, 0)]),
    "sum": lambda data: bytes([sum(data) & 0xFF]),
    "crc16-8408": lambda data: _crc(data, 0x8408).to_bytes(2, "little"),
    "crc16-modbus": lambda data: _crc(data, 0xA001).to_bytes(2, "little"),
    "crc16-ccitt": lambda data: _ccitt(data).to_bytes(2, "big"),
}
"""Check sums by the names that the config has for them, with the order of their bytes that is usual for each."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a frame is made; see the module docstring."""

    start: bytes
    end: bytes = b""
    length: int = 0
    length_at: int | None = None
    length_adds: int = 0
    check: str = ""  # one of CHECKS
    check_hex: bool = False  # it is sent as hex digits
    check_at: int = -1  # where the check sum begins
    check_from: int = 0  # it is over the bytes from here up to itself
    id_from: int = 0
    id_to: int = 0  # up to, not including; 0: up to the end

    def number(self, frame: bytes) -> bytes:
        """The bytes of the transponder's number. Empty where the frame is too short for it."""
        return frame[self.id_from : self.id_to or None]

    def good(self, frame: bytes) -> bool:
        """It ends as it should, its check sum is right, and it holds a number."""
        if not frame.endswith(self.end) or not self.number(frame):
            return False
        if not self.check:
            return True
        at = self.check_at if self.check_at >= 0 else len(frame) + self.check_at
        wanted = CHECKS[self.check](frame[self.check_from : at]) if 0 <= self.check_from < at else b""
        if self.check_hex:
            return bool(wanted) and frame[at : at + 2 * len(wanted)].upper() == wanted.hex().upper().encode()
        return bool(wanted) and frame[at : at + len(wanted)] == wanted


class GenericFramer:
    """Feed it what arrived; call ``gap`` when nothing did. Frames are the transponders' numbers, nothing else."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._held = bytearray()
        self._lost = bytearray()
        self._swallowing = False

    @property
    def pending(self) -> bool:
        """An unfinished frame or garbage is held: the idle gap means something."""
        return bool(self._held or self._lost) or self._swallowing

    def reset(self) -> None:
        """Forget what is unfinished."""
        self._held.clear()
        self._lost.clear()
        self._swallowing = False

    def swallow(self) -> None:
        """Join a stream under way: what precedes the next good frame is not told."""
        self.reset()
        self._swallowing = True

    def feed(self, data: bytes) -> list[Frame]:
        """The numbers of the frames that these bytes complete, in their order."""
        frames: list[Frame] = []
        for byte in data:  # one by one: what is held is never longer than one frame, whatever comes
            self._held.append(byte)
            self._step(frames)
        return frames

    def _step(self, frames: list[Frame]) -> None:
        while self._held:
            size = self._size()
            if size is not None and 0 < len(self._held) < size:
                return
            frame = bytes(self._held)
            if size is not None and size > 0 and self._form.good(frame):
                self._held.clear()
                self._tell(frames)
                self._swallowing = False
                frames.append(Frame(self._form.number(frame)))
            else:
                self._lose()

    def gap(self) -> list[Frame]:
        """The idle time has passed: what is held never was a frame."""
        frames: list[Frame] = []
        while self._held:
            self._lose()
        self._tell(frames)
        self.reset()
        return frames

    def _size(self) -> int | None:
        """Bytes of the frame that is held in part, at least one more than held while unknown; None: it is none."""
        form, held = self._form, self._held
        begun = min(len(held), len(form.start))
        if held[:begun] != form.start[:begun] or len(held) > MAX_LENGTH:
            return None
        if begun < len(form.start):
            return len(held) + 1
        if form.length:
            return form.length
        if form.length_at is not None:
            if len(held) <= form.length_at:
                return len(held) + 1
            size = held[form.length_at] + form.length_adds
            return size if size >= len(held) else None
        return len(held) if held.endswith(form.end) and len(held) > len(form.start) else len(held) + 1

    def _lose(self) -> None:
        if not self._swallowing and len(self._lost) < MAX_LENGTH:
            self._lost.append(self._held[0])
        del self._held[0]

    def _tell(self, frames: list[Frame]) -> None:
        if self._lost:
            frames.append(Frame(bytes(self._lost), garbage=True))
            self._lost.clear()
            self._swallowing = True
