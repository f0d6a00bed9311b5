"""Frames to codes: what the reader says of a product, and what it answers to our commands. Pure.

A frame is, in this order: garbage; an answer to a command, never a code; a frame of one code or, with ``separator``,
of several. A piece is the ``no_read`` text, a reason why nothing was read, or a code, its AIM identifier and what was
appended to it taken off. What does not fit ``code:`` is garbage: nobody knows which part of it is the code.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.model import ScanStatus
from edge_agent_drivers.scanner.config import ScannerSettings
from edge_agent_drivers.stream.frames import Frame, Framer

_AIM = re.compile(rb"\][A-Za-z][0-9A-Za-z]")
_CONTROL = re.compile(rb"[\x00-\x1f]+")
_DMCC = re.compile(rb"\|\|[01]?(?::\d*)?\[(\d+)\](.*)", re.DOTALL)  # ||checksum:command-id[status]data
_DMCC_TAKEN, _DMCC_READ = b"0", b"1"


@dataclass(frozen=True, slots=True)
class Code:
    """One piece of a frame, for a Scan."""

    raw: bytes
    status: ScanStatus
    symbology: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reader says to a command; ``refused`` is empty when it took it. ``command`` is None for any."""

    command: bytes | None
    refused: str = ""


class Reading:
    """The rules of one reader."""

    def __init__(self, settings: ScannerSettings) -> None:
        family = settings.family
        no_read = family.no_read if settings.no_read is None else settings.no_read
        failed = family.failed if settings.no_read is None else ""
        self._no_read = frozenset(text.encode("latin-1").strip() for text in no_read)
        self._failed = re.compile(failed.encode("latin-1")) if failed else None
        self._separator = settings.separator.encode("latin-1")
        self._code = re.compile(settings.code.encode("latin-1"), re.DOTALL) if settings.code else None
        self._aim = settings.aim
        self._dmcc = family.dmcc
        self._reasons = family.reasons
        self._answers = [
            (command, _pattern(family.taken, command), _pattern(family.refused, command))
            for command in map(spoken, (settings.command_on, settings.command_off))
            if command and family.taken
        ]

    def judge(self, frame: Frame) -> Iterator[Code | Answer]:
        """What a frame holds."""
        raw = frame.raw
        if frame.garbage:
            yield Code(raw, ScanStatus.GARBAGE)
        elif (answer := self._answer(raw)) is not None:
            yield answer
        elif self._dmcc and (wrapped := _DMCC.fullmatch(raw)):
            yield from self._unwrapped(raw, wrapped)
        else:
            yield from self._codes(raw)

    def _answer(self, raw: bytes) -> Answer | None:
        for command, taken, refused in self._answers:
            if taken.fullmatch(raw):
                return Answer(command)
            if match := refused.fullmatch(raw):
                return Answer(command, self._reason(match[1]))
        return None

    def _unwrapped(self, raw: bytes, wrapped: re.Match[bytes]) -> Iterator[Code | Answer]:
        status, data = wrapped.groups()
        if status == _DMCC_READ:
            try:
                yield from self._codes(base64.b64decode(data.strip(), validate=True))
            except binascii.Error:
                yield Code(raw, ScanStatus.GARBAGE)
        elif status != _DMCC_TAKEN:
            yield Answer(None, self._reason(status))
        elif data.strip():
            yield Code(raw, ScanStatus.GARBAGE)  # an answer to a question that we did not ask
        else:
            yield Answer(None)

    def _reason(self, code: bytes) -> str:
        text = code.decode("latin-1")
        known = self._reasons.get(text)
        return f"{text}, {known}" if known else text

    def _codes(self, raw: bytes) -> Iterator[Code]:
        for piece in raw.split(self._separator) if self._separator else [raw]:
            if piece:
                yield self._one(piece)

    def _one(self, raw: bytes) -> Code:
        symbology = ""
        if self._aim and _AIM.match(raw):
            raw, symbology = raw[3:], raw[:3].decode("ascii")
        text = raw.strip()
        if text in self._no_read or (self._failed is not None and self._failed.fullmatch(text)):
            return Code(raw, ScanStatus.NO_READ, symbology)
        if self._code is not None:
            match = self._code.fullmatch(raw)
            if match is None or not match[1]:
                return Code(raw, ScanStatus.GARBAGE, symbology)
            raw = match[1]
        return Code(raw, ScanStatus.READ, symbology)


def framer_of(settings: ScannerSettings) -> Framer:
    """The framer that the config, or else the profile, asks for."""
    frame = settings.frame
    if frame is None:
        family = settings.family
        return Framer(family.end.encode("latin-1"), skip=family.skip.encode("latin-1"))
    end = None if frame.end is None else frame.end.encode("latin-1")
    return Framer(end, frame.start.encode("latin-1"), frame.max_length)


def spoken(command: bytes) -> bytes:
    """A command without its control characters, as answers and messages name it."""
    return _CONTROL.sub(b"", command)


def _pattern(text: str, command: bytes) -> re.Pattern[bytes]:
    return re.compile(text.encode("latin-1").replace(b"{command}", re.escape(command)))
