"""Transponders: the unique number of an RFID tag, as readers send it, to one spelling.

EM4100 (125 kHz): 5 bytes, sent as 10 hex digits and 2 of their XOR, or as a binary telegram (length, type, 5 bytes,
XOR); written as it is printed on the tag, the 10 decimal digits of the lower 4 bytes. The first byte (the maker's) is
not in there: two tags that differ in nothing else are one to us.

ISO 15693 (13.56 MHz): 8 bytes that begin with E0; written as 16 hex digits. The air carries the lowest byte first, and
some readers pass it on so: ``order: lsb`` says it, since a number that begins and ends with E0 does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import xor

from edge_agent.identify.label import Label, Printed, Unread

_HEX = frozenset("0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Em4100Rule:
    """``format: em4100``. ``kind``: what the transponder identifies, e.g. carrier."""

    name: str
    kind: str = "carrier"

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        return frozenset({self.kind})

    def read(self, printed: Printed) -> Label | Unread:
        """Only with the right check byte: 12 hex digits may be many things."""
        raw = printed.raw.removeprefix(b"\x02")
        telegram = raw if raw[:2] == b"\x0a\x02" else b"\x0a" + raw
        if telegram[:2] == b"\x0a\x02":
            telegram = telegram.removesuffix(b"\x03") if len(telegram) == 9 else telegram
            if len(telegram) != 8 or reduce(xor, telegram):
                return Unread("it is no EM4100 telegram, or its check byte is wrong")
            return self._label(telegram[2:7])
        digits = _hex_digits(raw.removesuffix(b"\x03"))
        if len(digits) != 12:
            return Unread("it is not the 10 hex digits of an EM4100 and 2 of its check byte")
        number = bytes.fromhex(digits)
        if reduce(xor, number):
            return Unread("the EM4100's check byte is wrong")
        return self._label(number[:5])

    def _label(self, number: bytes) -> Label:
        return Label(self.name, {self.kind: f"{int.from_bytes(number[1:]):010d}"})

    def examples(self) -> tuple[bytes, ...]:
        """One transponder."""
        return (b"010063E9AE25", b"4A00B1C2D3EA")


@dataclass(frozen=True, slots=True)
class Iso15693Rule:
    """``format: iso15693``. ``low_first``: the reader sends the lowest byte first."""

    name: str
    kind: str = "carrier"
    low_first: bool = False

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        return frozenset({self.kind})

    def read(self, printed: Printed) -> Label | Unread:
        """8 bytes, or their 16 hex digits, in the order that is configured."""
        digits = _hex_digits(printed.raw)
        number = bytes.fromhex(digits) if len(digits) == 16 else printed.raw
        if len(number) != 8:
            return Unread("it is not the 16 hex digits (or 8 bytes) of an ISO 15693 number")
        if self.low_first:
            number = number[::-1]
        if number[0] != 0xE0:
            other = number[-1] == 0xE0
            return Unread("its bytes come in the other order: change order:" if other else "it does not begin with E0")
        return Label(self.name, {self.kind: number.hex().upper()})

    def examples(self) -> tuple[bytes, ...]:
        """One transponder."""
        number = bytes.fromhex("E004015012345678")
        return ((number[::-1] if self.low_first else number).hex().upper().encode(),)


def _hex_digits(raw: bytes) -> str:
    """``raw`` if it is hex digits only; else ""."""
    text = raw.decode("ascii", "replace")
    return text if text and all(sign in _HEX for sign in text) else ""
