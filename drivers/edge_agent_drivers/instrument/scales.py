"""Scales: MT-SICS, in which they answer (and may repeat by themselves), and the Toledo continuous format. Pure.

MT-SICS, one line a message: ``S S     100.00 g`` is a stable weight, ``S D`` one that still moves; ``S I`` is busy,
``S +`` above the range, ``S -`` below it. ``ES``, ``ET``, ``EL`` are errors of the request. ``T S``/``TI D`` ... and
``Z A``/``ZI S`` ... say that tare or zero was done, the same with I, + and - that it was not. ``I4 A`` comes unasked
when the scale was switched on.

Toledo continuous: STX, status A B C, six digits, six digits of tare (left out in the short form), CR, and a check byte
if it is set so (two's complement of the sum of the low seven bits of all before it).

==  =============================================================================================
A   bits 0-2: where the decimal point is, 0 x100, 1 x10, 2 x1, 3 x0.1 ... 7 x0.00001
B   bit 0 net, 1 negative, 2 out of range, 3 motion, 4 kg (0: lb), 6 no zero since it was switched on
C   bits 0-2: unit (0: as B says), 3 print key, 4 the display shows more digits than the format says
==  =============================================================================================
"""

from __future__ import annotations

import re

from edge_agent_drivers.instrument.message import Message
from edge_agent_drivers.stream.frames import Frame

_WEIGHT = re.compile(r"(S|T|TI|TA)\x20([SDA])\x20+([+-]?\x20*\d+(?:\.\d*)?)(?:\x20+(\S{1,8}))?", re.ASCII)
_STATE = re.compile(r"(S|T|TI|TA|TAC|Z|ZI)\x20([A-Z+-])", re.ASCII)
_NEWS = re.compile(r"(I4|@) A(?: .*)?", re.ASCII)
_ERRORS = {
    "ES": "the scale does not know the command",
    "ET": "the scale received the command damaged",
    "EL": "the scale cannot carry out the command",
}
_PROBLEMS = {"I": "busy", "+": "overload", "-": "underload", "L": "the scale does not understand"}


def sics(frame: bytes) -> Message | None:
    """What one line of MT-SICS says; None for what is none."""
    text = frame.decode("latin-1").strip()
    if text in _ERRORS:
        return Message(text, problem=_ERRORS[text], answers="E", good=False)
    if _NEWS.fullmatch(text):
        return Message(text, answers="on")
    if match := _WEIGHT.fullmatch(text):
        command, state, digits, unit = match.groups()
        if command != "S":
            return Message(text, answers=command)
        if state == "A":
            return None
        return Message(text, {"value": digits.replace(" ", "")}, unit=unit or "", stable=state == "S")
    if match := _STATE.fullmatch(text):
        command, state = match.groups()
        problem = _PROBLEMS.get(state, "")
        if command == "S":
            return Message(text, problem=problem) if problem else None
        if not problem and state not in "ASD":
            return None
        return Message(text, problem=problem, answers=command, good=not problem)
    return None


_UNITS = {1: "g", 2: "t", 3: "oz", 4: "ozt", 5: "dwt", 6: "ton", 7: ""}
_STX, _CR = 0x02, 0x0D


def toledo(frame: bytes) -> Message | None:
    """What one frame of the continuous format says, without STX, CR and check byte; None for what is none."""
    if len(frame) not in (9, 15):
        return None
    a, b, c = frame[:3]
    text = frame.decode("latin-1")
    unit_code = c & 7
    unit = _UNITS[unit_code] if unit_code else "kg" if b & 0x10 else "lb"
    told = {"net": bool(b & 1), "print": bool(c & 8)}
    problem = ""
    if b & 4:
        problem = "underload" if b & 2 else "overload"
    elif b & 0x40:
        problem = "no zero since it was switched on"
    elif c & 0x10:
        problem = "expanded display"
    measured = {}
    for name, digits, negative in (("value", frame[3:9], bool(b & 2)), ("tare", frame[9:15], False)):
        if number := _placed(digits, a & 7, negative):
            measured[name] = number
    if not problem and "value" not in measured:
        return None
    return Message(text, measured, told, unit, stable=not b & 8, problem=problem)


def _placed(digits: bytes, point: int, negative: bool) -> str:
    """Six digits, blanks before them, with the decimal point that status A says; "" if they are none."""
    text = digits.decode("latin-1").lstrip(" ")
    if not re.fullmatch(r"[0-9]{1,6}", text):
        return ""
    if point < 2:
        text += "0" * (2 - point)
    elif point > 2:
        text = text.rjust(point - 1, "0")
        text = f"{text[: 2 - point]}.{text[2 - point :]}"
    return f"-{text}" if negative else text


class ToledoFramer:
    """Feed it what arrived; call ``gap`` when nothing did. Frames are without STX, CR and check byte.

    A frame is believed only whole: its length, its CR, its digits and no byte above 7F; with ``checksum`` that too.
    Between frames nothing may stand. Garbage is told once a burst, up to the next good frame or the gap.
    """

    def __init__(self, checksum: bool) -> None:
        self._checksum = checksum
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
        """Join a stream under way: what precedes the next whole frame is not told."""
        self.reset()
        self._swallowing = True

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, in their order."""
        frames: list[Frame] = []
        for byte in data:
            self._held.append(byte)
            while self._held:
                size = self._size()
                if size and len(self._held) < size:
                    break
                if size and self._good(size):
                    frame = bytes(self._held[1 : size - 1 - self._checksum])
                    self._held.clear()
                    self._tell(frames)
                    self._swallowing = False
                    frames.append(Frame(frame))
                else:
                    self._lose()
        return frames

    def gap(self) -> list[Frame]:
        """The idle time has passed: what is held never was a frame."""
        frames: list[Frame] = []
        while self._held:
            self._lose()
        self._tell(frames)
        self.reset()
        return frames

    def _size(self) -> int:
        """Bytes of the frame that is held in part, check byte included; 0: it is none."""
        held = self._held
        if held[0] != _STX or held[-1] >= 0x80 or any(byte < 0x20 for byte in held[1:10]):
            return 0
        size = 11 if len(held) > 10 and held[10] == _CR else 17
        if any(byte < 0x20 for byte in held[10 : size - 1]) or (len(held) >= size and held[size - 1] != _CR):
            return 0
        return size + self._checksum

    def _good(self, size: int) -> bool:
        return not self._checksum or sum(byte & 0x7F for byte in self._held[:size]) & 0x7F == 0

    def _lose(self) -> None:
        if not self._swallowing and len(self._lost) < 32:
            self._lost.append(self._held[0])
        del self._held[0]

    def _tell(self, frames: list[Frame]) -> None:
        if self._lost:
            frames.append(Frame(bytes(self._lost), garbage=True))
            self._lost.clear()
            self._swallowing = True
