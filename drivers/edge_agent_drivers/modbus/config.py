"""What a Modbus device's section of the config may say, and the shape that follows from it.

Addresses are 0-based and name their table: ``coil:10``, ``discrete:10``, ``input:5``, ``holding:100``. A manual
that says 40101 (or 4x101) means ``holding:100``; one that says 30006 means ``input:5``. ``holding:100.3`` is
bit 3 of a register, bit 0 being the least significant; ``holding:100.high`` is a register's upper byte.

``order`` names the bytes of a value as they stand on the wire, A being the most significant of the value:

======  =========  ==================  ================================================
order   32 bits    64 bits             in words
======  =========  ==================  ================================================
ABCD    A B C D    A B C D E F G H     as Modbus means it
CDAB    C D A B    G H E F C D A B     low word first
BADC    B A D C    B A D C F E H G     bytes swapped in each word
DCBA    D C B A    H G F E D C B A     low word first and bytes swapped
======  =========  ==================  ================================================

So an order is two switches, words reversed and bytes swapped. 16-bit values, strings and arrays of bytes have no word
order: for them CDAB reads as ABCD and DCBA as BADC. In an array it is the order of each element.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, GroupSettings, Settings, Shape, TagName, TagSettings, poll_shape
from edge_agent_drivers.modbus.connection import (
    CONNECTION,
    Connection,
    SerialSettings,
    TlsSettings,
    parse_connection,
)

Table = Literal["coil", "discrete", "holding", "input"]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
TypeName = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16",
    "bcd32", "string",
]  # fmt: skip

MAX_REGISTERS = 125  # of one request, by the protocol
MAX_BITS = 2000
MAX_WRITE_REGISTERS = 123
MAX_WRITE_BITS = 1968
MAX_PDU = 253  # function code and data, in bytes
MAX_ADDRESS = 65535

WORDS = {"bool": 1, "int8": 1, "uint8": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "int64": 4} | {
    "uint64": 4, "float32": 2, "float64": 4, "bcd16": 1, "bcd32": 2
}  # fmt: skip
_RECORDED = {"bcd16": "uint16", "bcd32": "uint32"}

_ADDRESS = re.compile(
    r"(?P<table>coil|discrete|holding|input):(?P<number>\d{1,5})(?:\.(?:(?P<bit>\d{1,2})|(?P<half>low|high)))?"
)
_CODE = re.compile(r"-?\d{1,20}")


class Address(NamedTuple):
    """Where a tag is: a table, a 0-based number, and the bit or the byte of a register (None, "": the whole of it)."""

    table: Table
    number: int
    bit: int | None
    half: str = ""  # "low" or "high"


def parse_address(text: str) -> Address:
    """The parts of ``holding:100.3``. Raises ValueError with what to write instead."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no address; write coil:10, discrete:10, input:5, holding:100 or holding:100.3 "
            "(0-based: 40101 in a manual is holding:100)"
        )
    number, bit, half = int(match["number"]), None if match["bit"] is None else int(match["bit"]), match["half"] or ""
    table: Table = match["table"]  # type: ignore[assignment]  # the pattern allows only these four
    if number > MAX_ADDRESS:
        raise ValueError(f"{text!r} is beyond the last address, {MAX_ADDRESS}")
    if (bit is not None or half) and (table in ("coil", "discrete") or (bit or 0) > 15):
        raise ValueError(f"{text!r}: only registers have bits, 0 to 15, and a .low and a .high byte")
    return Address(table, number, bit, half)


class ModbusTag(TagSettings):
    """One value, or an array of them, in one of the four tables."""

    address: str = Field(
        description="table and 0-based address: coil:10, discrete:10, input:5, holding:100; bit 3 of it: "
        "holding:100.3; its upper byte: holding:100.high",
        json_schema_extra={"pattern": r"^(coil|discrete|input|holding):\d{1,5}(\.(\d{1,2}|low|high))?$"},
    )
    type: TypeName | None = Field(
        default=None, description="default: bool for coils and bits, uint8 for .low and .high, else uint16"
    )
    order: Order = Field(default="ABCD", description="byte order on the wire, A the most significant")
    count: int | None = Field(
        default=None, ge=1, le=MAX_BITS, description="an array of so many values, one after the other"
    )
    length: int | None = Field(default=None, ge=1, le=2 * MAX_REGISTERS, description="string: its characters")
    scale: float = Field(default=1.0, description="value = raw * scale + offset")
    offset: float = Field(default=0.0, ge=-1e15, le=1e15, description="see scale")
    enum: dict[int, str] | None = Field(
        default=None, min_length=1, description="names of the codes, which are recorded instead: {0: idle, 1: running}"
    )
    read_back: bool = Field(
        default=True, description="false: written without reading back, for an address that cannot be read"
    )

    @field_validator("address", mode="before")
    @classmethod
    def _is_address(cls, given: object) -> object:
        if isinstance(given, str | int | float) and not isinstance(given, bool):
            parse_address(str(given))  # a bare number too: that it were no text would be told first, and help nobody
        return given

    @field_validator("enum", mode="before")
    @classmethod
    def _codes(cls, names: object) -> object:
        """Keys of YAML reach us as text."""
        if not isinstance(names, dict):
            return names
        return {int(key) if isinstance(key, str) and _CODE.fullmatch(key) else key: its for key, its in names.items()}

    @field_validator("scale")
    @classmethod
    def _scales(cls, scale: float) -> float:
        if not 1e-12 <= abs(scale) <= 1e12:
            raise ValueError("scale must be a number other than 0, between 1e-12 and 1e12")
        return scale

    @model_validator(mode="after")
    def _consistent(self) -> ModbusTag:
        if problem := self._problem() or self._cannot_be_written():
            raise ValueError(problem)
        return self

    def _problem(self) -> str:
        place, kind = self.place, self.value_type
        one_byte = kind in ("int8", "uint8")
        if self.is_bit and kind != "bool":
            return f"{self.address} is one bit: its type can only be bool"
        if place.half and (not one_byte or self.count is not None):
            return f"{self.address} is one byte: its type can only be uint8 or int8, without count"
        if one_byte and self.count is None and self.order != "ABCD":
            return f"one byte has no order: write {place.table}:{place.number}.high for the upper one"
        if (kind == "string") != (self.length is not None):
            return "a string needs its length, e.g. length: 16; nothing else has one"
        if kind == "string" and self.count is not None:
            return "there are no arrays of strings: write a tag for each"
        if kind in ("bool", "string") and self.is_scaled:
            return f"a {kind} has no scale and no offset"
        if self.enum is not None and (kind in ("string", "float32", "float64") or self.is_scaled):
            return "only whole numbers and bits have an enum, and it takes the place of scale and offset"
        if self.enum is not None and len(set(self.enum.values())) < len(self.enum):
            return "two codes of the enum have the same name"
        if place.number + self.words - 1 > MAX_ADDRESS:
            return f"{self.address} and its {self.words} registers reach beyond address {MAX_ADDRESS}"
        if self.words > self._longest:
            return f"{self.words} at a time are more than one request reads, {self._longest}: split the array"
        return ""

    def _cannot_be_written(self) -> str:
        place = self.place
        if not self.write:
            return "" if self.read_back else "read_back: false says how to write; add write: true"
        if place.table in ("discrete", "input"):
            return f"{place.table} can only be read; writable are coil and holding"
        if place.bit is not None and self.words > 1:
            return "bits that are written together must lie in one register"
        if self.words > (most := MAX_WRITE_BITS if place.table == "coil" else MAX_WRITE_REGISTERS):
            return f"{self.words} at a time are more than one request writes, {most}: split the array"
        return ""

    @property
    def _longest(self) -> int:
        return MAX_BITS if self.place.table in ("coil", "discrete") else MAX_REGISTERS

    @property
    def place(self) -> Address:
        """The parsed address."""
        return parse_address(self.address)

    @property
    def is_bit(self) -> bool:
        """A coil, a discrete input or a bit of a register."""
        return self.place.bit is not None or self.place.table in ("coil", "discrete")

    @property
    def is_scaled(self) -> bool:
        """Whether ``scale`` or ``offset`` say anything."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @property
    def value_type(self) -> TypeName:
        """The type on the wire, its default applied."""
        if self.type is not None:
            return self.type
        return "bool" if self.is_bit else "uint8" if self.place.half else "uint16"

    @property
    def words(self) -> int:
        """Registers (or bits, in the bit tables) that the value occupies."""
        place, count, kind = self.place, self.count or 1, self.value_type
        if place.table in ("coil", "discrete"):
            return count
        if place.bit is not None:
            return (place.bit + count + 15) // 16
        if kind in ("int8", "uint8"):
            return (count + 1) // 2
        return (self.length + 1) // 2 if self.length else count * WORDS[kind]

    @property
    def recorded_type(self) -> str:
        """The type of the value as samples carry it: a scaled one is an int64 (whole numbers) or a float64."""
        kind: str = _RECORDED.get(self.value_type, self.value_type)
        if self.enum is not None:
            kind = "string"
        elif self.is_scaled:
            whole = self.scale.is_integer() and self.offset.is_integer() and not kind.startswith("float")
            kind = "int64" if whole else "float64"
        return kind if self.count is None else f"{kind}[]"


class TableQuirks(Settings):
    """What one table bears; a key that is left out is as for the device."""

    max_registers: int | None = Field(default=None, ge=4, le=MAX_REGISTERS, description="largest request for registers")
    max_bits: int | None = Field(default=None, ge=1, le=MAX_BITS, description="largest request for coils or discretes")
    max_gap: int | None = Field(default=None, ge=0, lt=MAX_REGISTERS, description="as for the device")


class Limits(NamedTuple):
    """Of one request for a table: how much, and across how much that no tag needs. Registers, or bits in bit tables."""

    most: int
    gap: int


class Quirks(Settings):
    """What this device does not bear, though the protocol allows it."""

    max_registers: int = Field(default=MAX_REGISTERS, ge=4, le=MAX_REGISTERS, description="largest request")
    max_bits: int = Field(default=MAX_BITS, ge=1, le=MAX_BITS, description="largest request for coils or discretes")
    max_gap: int = Field(
        default=MAX_REGISTERS - 1,
        ge=0,
        lt=MAX_REGISTERS,
        description="registers (or times 16 bits) that no tag needs but one request may read across; 0: never",
    )
    max_pdu: int = Field(
        default=MAX_PDU, ge=10, le=MAX_PDU, description="largest message, function code and data, in bytes"
    )
    tables: dict[Table, TableQuirks] = Field(
        default={}, description="other limits for one table: {input: {max_registers: 32, max_gap: 0}}"
    )
    pause: Duration = Field(default=0.0, le=10, description="the line stays quiet so long before each request")
    single_connection: bool = Field(
        default=False,
        description="it takes one TCP connection: all devices with the same connection: share it, one at a time",
    )
    closes_idle: bool = Field(
        default=False,
        description="it ends a connection that is idle, by design: the next request connects anew, and nothing is lost",
    )
    write_multiple: bool = Field(
        default=False, description="it does not take single writes (functions 5 and 6): write with 15 and 16"
    )

    def limits(self, table: Table) -> Limits:
        """What one request for this table may read."""
        own = self.tables.get(table, TableQuirks())
        registers = min(own.max_registers or self.max_registers, (self.max_pdu - 2) // 2)
        gap = self.max_gap if own.max_gap is None else own.max_gap
        if table in ("holding", "input"):
            return Limits(registers, gap)
        return Limits(min(own.max_bits or self.max_bits, 16 * registers), 16 * gap)

    @property
    def most_written(self) -> int:
        """Registers of one write."""
        return min(MAX_WRITE_REGISTERS, (self.max_pdu - 6) // 2)


class ModbusSettings(Settings):
    """A device that speaks Modbus."""

    driver: Literal["modbus"] = "modbus"
    connection: str = Field(
        pattern=CONNECTION,
        description="tcp://host:port, tls://host:port, rtu+tcp://host:port, ascii+tcp://host:port, "
        "rtu:///dev/serial/by-id/…, ascii:///dev/…, rtu://usb:VID:PID[:SERIAL]; default ports: 502, with TLS 802",
    )
    unit_id: int = Field(default=1, ge=0, le=255, description="Modbus unit (slave) id")
    timeout: Duration = Field(default=1.0, gt=0, le=10, description="for connecting, and for each answer to begin")
    serial: SerialSettings = Field(default=SerialSettings(), description="how a serial line is set")
    tls: TlsSettings = Field(default=TlsSettings(), description="certificates of a tls:// connection")
    quirks: Quirks = Quirks()
    groups: dict[TagName, GroupSettings[ModbusTag]] = Field(default={}, description="tags that are read together")
    tags: dict[TagName, ModbusTag] = Field(default={}, description="tags that are only written")

    @field_validator("connection")
    @classmethod
    def _is_connection(cls, text: str) -> str:
        parse_connection(text)
        return text

    @model_validator(mode="after")
    def _fitting(self) -> ModbusSettings:
        at, said = self.parsed, self.model_fields_set
        if at.is_line and self.unit_id == 0:
            raise ValueError("unit_id 0 is the broadcast, which nobody answers; write the device's own, 1 to 247")
        if "serial" in said and not at.tty:
            raise ValueError("serial: says how a serial port is set; this connection has none")
        if self.quirks.closes_idle and at.tty:
            raise ValueError("nobody ends a serial port when it is idle: leave closes_idle out")
        if "tls" in said and not at.tls:
            raise ValueError("tls: needs a connection that is encrypted: write tls://host instead")
        return self

    @property
    def parsed(self) -> Connection:
        """The connection, taken apart."""
        return parse_connection(self.connection)

    @property
    def host(self) -> str:
        """Of a connection over the network."""
        return self.parsed.host

    @property
    def port(self) -> int:
        """Of a connection over the network."""
        return self.parsed.port

    @property
    def is_shared(self) -> bool:
        """Whether all devices with this connection take turns on one."""
        return self.parsed.is_line or self.quirks.single_connection


def describe(device: str, settings: ModbusSettings) -> Shape:
    """The groups and writable tags of this device. Raises ValueError, see :func:`poll_shape`."""
    quirks, at = settings.quirks, settings.parsed
    for name, group in settings.groups.items():
        for tag, its in group.tags.items():
            if its.words > quirks.limits(its.place.table).most:
                raise ValueError(
                    f"tag {tag!r} of group {name!r} is longer than one request: quirks.max_registers, max_bits, max_pdu"
                )
            _judge_write(tag, its, quirks)
    for tag, its in settings.tags.items():
        _judge_write(tag, its, quirks)
    shape = poll_shape(device, settings.groups, settings.tags, lambda tag: tag.recorded_type)
    if at.tty:
        return replace(shape, port=(at.tty, f"modbus {at.framing} {settings.serial.terms}"))
    if at.is_line:
        return shape
    host = f"[{at.host}]" if ":" in at.host else at.host
    terms = "modbus-single" if quirks.single_connection else "modbus"  # of the host, not of one unit
    return replace(shape, port=(f"{'tls' if at.tls else 'tcp'}://{host}:{at.port}", terms))


def _judge_write(name: str, tag: ModbusTag, quirks: Quirks) -> None:
    if tag.write and tag.place.table == "holding" and tag.words > quirks.most_written:
        raise ValueError(f"tag {name!r} is longer than one write of quirks.max_pdu: {quirks.most_written} registers")
