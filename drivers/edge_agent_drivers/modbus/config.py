"""What a Modbus device's section of the config may say, and the shape that follows from it.

Addresses are 0-based and name their table: ``coil:10``, ``discrete:10``, ``input:5``, ``holding:100``. A manual
that says 40101 (or 4x101) means ``holding:100``; one that says 30006 means ``input:5``. ``holding:100.3`` is
bit 3 of a register, bit 0 being the least significant.

``order`` names the bytes of a value as they stand on the wire, A being the most significant of the value:

======  =========  ==================  ================================================
order   32 bits    64 bits             in words
======  =========  ==================  ================================================
ABCD    A B C D    A B C D E F G H     as Modbus means it
CDAB    C D A B    G H E F C D A B     low word first
BADC    B A D C    B A D C F E H G     bytes swapped in each word
DCBA    D C B A    H G F E D C B A     low word first and bytes swapped
======  =========  ==================  ================================================

So an order is two switches, words reversed and bytes swapped. 16-bit values and strings have no word order: for
them CDAB reads as ABCD and DCBA as BADC.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, GroupSettings, Settings, Shape, TagName, TagSettings, poll_shape

Table = Literal["coil", "discrete", "holding", "input"]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
TypeName = Literal[
    "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string"
]  # fmt: skip

MAX_REGISTERS = 125  # of one request, by the protocol
MAX_BITS = 2000
MAX_ADDRESS = 65535

WORDS = {"bool": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "int64": 4, "uint64": 4} | {
    "float32": 2, "float64": 4
}  # fmt: skip

_ADDRESS = re.compile(r"(?P<table>coil|discrete|holding|input):(?P<number>\d{1,5})(?:\.(?P<bit>\d{1,2}))?")


class Address(NamedTuple):
    """Where a tag is: a table, a 0-based number, and the bit in a register (None: the whole of it)."""

    table: Table
    number: int
    bit: int | None


def parse_address(text: str) -> Address:
    """The parts of ``holding:100.3``. Raises ValueError with what to write instead."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no address; write coil:10, discrete:10, input:5, holding:100 or holding:100.3 "
            "(0-based: 40101 in a manual is holding:100)"
        )
    number, bit = int(match["number"]), None if match["bit"] is None else int(match["bit"])
    table: Table = match["table"]  # type: ignore[assignment]  # the pattern allows only these four
    if number > MAX_ADDRESS:
        raise ValueError(f"{text!r} is beyond the last address, {MAX_ADDRESS}")
    if bit is not None and (table in ("coil", "discrete") or bit > 15):
        raise ValueError(f"{text!r}: only registers have bits, 0 to 15")
    return Address(table, number, bit)


class ModbusTag(TagSettings):
    """One value in one of the four tables."""

    address: str = Field(
        description="table and 0-based address: coil:10, discrete:10, input:5, holding:100, bit 3 of it: holding:100.3",
        json_schema_extra={"pattern": r"^(coil|discrete|input|holding):\d{1,5}(\.\d{1,2})?$"},
    )
    type: TypeName | None = Field(default=None, description="default: bool for coils and bits, uint16 for registers")
    order: Order = Field(default="ABCD", description="byte order on the wire, A the most significant")
    length: int | None = Field(default=None, ge=1, le=2 * MAX_REGISTERS, description="string: its characters")
    scale: float = Field(default=1.0, description="value = raw * scale + offset")
    offset: float = Field(default=0.0, ge=-1e15, le=1e15, description="see scale")

    @field_validator("address")
    @classmethod
    def _is_address(cls, text: str) -> str:
        parse_address(text)
        return text

    @field_validator("scale")
    @classmethod
    def _scales(cls, scale: float) -> float:
        if not 1e-12 <= abs(scale) <= 1e12:
            raise ValueError("scale must be a number other than 0, between 1e-12 and 1e12")
        return scale

    @model_validator(mode="after")
    def _consistent(self) -> ModbusTag:
        if problem := self._problem():
            raise ValueError(problem)
        return self

    def _problem(self) -> str:
        table, number, bit = self.place
        one_bit = bit is not None or table in ("coil", "discrete")
        if one_bit and self.value_type != "bool":
            return f"{self.address} is one bit: its type can only be bool"
        if (self.value_type == "string") != (self.length is not None):
            return "a string needs its length, e.g. length: 16; nothing else has one"
        if self.value_type in ("bool", "string") and (self.scale, self.offset) != (1.0, 0.0):
            return f"a {self.value_type} has no scale and no offset"
        if number + self.words - 1 > MAX_ADDRESS:
            return f"{self.address} and its {self.words} registers reach beyond address {MAX_ADDRESS}"
        if self.write and table in ("discrete", "input"):
            return f"{table} can only be read; writable are coil and holding"
        if self.write and bit is not None:
            return "writing one bit of a register would race with the PLC; use a coil, or write the whole register"
        return ""

    @property
    def place(self) -> Address:
        """The parsed address."""
        return parse_address(self.address)

    @property
    def value_type(self) -> TypeName:
        """The type on the wire, its default applied."""
        if self.type is not None:
            return self.type
        return "bool" if self.address.startswith(("coil", "discrete")) or "." in self.address else "uint16"

    @property
    def words(self) -> int:
        """Registers (or bits, in the bit tables) that the value occupies."""
        return (self.length + 1) // 2 if self.length else WORDS[self.value_type]

    @property
    def recorded_type(self) -> str:
        """The type of the value as samples carry it: a scaled one is an int64 (whole numbers) or a float64."""
        if (self.scale, self.offset) == (1.0, 0.0):
            return self.value_type
        whole = self.scale.is_integer() and self.offset.is_integer() and not self.value_type.startswith("float")
        return "int64" if whole else "float64"


class Quirks(Settings):
    """What this device does not bear, though the protocol allows it."""

    max_registers: int = Field(default=MAX_REGISTERS, ge=4, le=MAX_REGISTERS, description="largest request")
    max_gap: int = Field(
        default=MAX_REGISTERS - 1,
        ge=0,
        lt=MAX_REGISTERS,
        description="registers that no tag needs but one request may read across; 0: never",
    )
    pause: Duration = Field(default=0.0, le=10, description="wait between two requests")


class ModbusSettings(Settings):
    """A device that speaks Modbus TCP."""

    driver: Literal["modbus"] = "modbus"
    connection: str = Field(pattern=r"^tcp://[^/@\s]+$", description="tcp://host:port; the port is 502 by default")
    unit_id: int = Field(default=1, ge=0, le=255, description="Modbus unit (slave) id")
    timeout: Duration = Field(default=1.0, gt=0, le=10, description="for connecting, and for each answer")
    quirks: Quirks = Quirks()
    groups: dict[TagName, GroupSettings[ModbusTag]] = Field(default={}, description="tags that are read together")
    tags: dict[TagName, ModbusTag] = Field(default={}, description="tags that are only written")

    @field_validator("connection")
    @classmethod
    def _is_host(cls, text: str) -> str:
        try:
            parts = urlsplit(text)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"{text!r} is no connection; write tcp://192.168.1.20:502")
        return text

    @property
    def host(self) -> str:
        return urlsplit(self.connection).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.connection).port or 502


def describe(device: str, settings: ModbusSettings) -> Shape:
    """The groups and writable tags of this device. Raises ValueError, see :func:`poll_shape`."""
    for name, group in settings.groups.items():
        for tag, its in group.tags.items():
            if its.place.bit is None and its.words > settings.quirks.max_registers:
                raise ValueError(f"tag {tag!r} of group {name!r} is longer than quirks.max_registers")
    return poll_shape(device, settings.groups, settings.tags, lambda tag: tag.recorded_type)
