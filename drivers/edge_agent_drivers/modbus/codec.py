"""A reply's bytes to values. Pure: no I/O, no clock. ``values`` says what a value may be, ``encode`` goes back.

A block's reply is decoded by a few C calls for all of its tags, not by a Python loop over them: ``compile_layers``
sorts the tags into *layers*, each one ``struct`` pass over the whole payload with pad bytes where other tags lie.
The four byte orders cost no more than that: swapping the bytes of every word first turns CDAB into a little-endian
and BADC into a big-endian value. Bits are one pass over the payload as one large integer. An array is a layer of its
own, whose values become one list.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from edge_agent.model import Value
from edge_agent_drivers.modbus.config import ModbusTag, Table
from edge_agent_drivers.modbus.values import Finish, Status, finish_of, gathered, kind_of, named

CODE = {"bool": "H", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"} | {
    "int64": "q", "uint64": "Q", "float32": "f", "float64": "d", "bcd16": "H", "bcd32": "I"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """A tag as the codec sees it. ``index`` is its place in the group's sample."""

    index: int
    table: Table
    start: int  # register, or the bit in a bit table
    words: int  # registers; bits in a bit table
    bit: int | None
    type: str
    reversed: bool  # low word first
    swapped: bool  # bytes swapped in each word
    length: int  # string: bytes
    scale: float
    offset: float
    half: str = ""  # which byte of its register: "low", "high"; "" for the whole
    count: int | None = None  # elements of an array
    enum: tuple[tuple[int, str], ...] = ()

    @property
    def end(self) -> int:
        """One past the last register."""
        return self.start + self.words

    @property
    def is_bit(self) -> bool:
        return self.bit is not None or self.table in ("coil", "discrete")

    @property
    def is_byte(self) -> bool:
        """8 bits wide: one of a register's two, or packed two a register in an array."""
        return self.type in ("int8", "uint8")

    @property
    def is_part(self) -> bool:
        """Less than a register of its own: a bit, some bits, or a byte."""
        return self.table == "holding" and (self.bit is not None or bool(self.half))

    @property
    def is_scaled(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)

    @property
    def size(self) -> int:
        """Values: 1, or the elements of an array."""
        return self.count or 1


def field_of(index: int, tag: ModbusTag) -> Field:
    """The tag at this place of its group."""
    table, start, bit, half = tag.place
    kind = tag.value_type
    one_byte = kind in ("int8", "uint8")
    wide = kind.endswith(("32", "64"))
    return Field(
        index,
        table,
        start,
        tag.words,
        bit,
        kind,
        reversed=wide and tag.order in ("CDAB", "DCBA"),
        swapped=tag.order in ("BADC", "DCBA"),
        length=tag.length or 0,
        scale=tag.scale,
        offset=tag.offset,
        half=half or ("low" if one_byte and tag.count is None else ""),
        count=tag.count,
        enum=tuple((tag.enum or {}).items()),
    )


# --- a whole payload at once ---------------------------------------------------------------------------------


class Layer(NamedTuple):
    """One pass over a payload: the sample's indexes it fills, and how."""

    indexes: tuple[int, ...]
    swap: bool  # wants the payload with the bytes of each word exchanged
    read: Callable[[bytes], Sequence[Any]]
    finish: Finish | None  # None: what was read are the values


def byte_swapped(payload: bytes) -> bytes:
    """The two bytes of every word exchanged."""
    words = array("H", payload)
    words.byteswap()
    return words.tobytes()


def compile_layers(fields: Iterable[Field], start: int, count: int) -> tuple[Layer, ...]:
    """The passes that decode a block of ``count`` registers (or bits) from ``start`` on."""
    bits: list[Field] = []
    alone: list[Layer] = []
    runs: dict[tuple[str, bool, bool], list[list[Field]]] = {}
    for field in sorted(fields, key=lambda each: (each.start, each.end, each.index)):
        if field.count is not None or field.enum:
            alone.append(_own_layer(field, start, count))
            continue
        if field.is_bit:
            bits.append(field)
            continue
        swap = field.reversed != field.swapped  # CDAB and BADC: then little-endian and big-endian, see above
        layers = runs.setdefault((kind_of(field.type, field.is_scaled), swap, field.reversed), [[]])
        run = next((each for each in layers if not each or each[-1].end <= field.start), None)
        if run is None:  # overlaps another tag of its kind
            layers.append(run := [])
        run.append(field)
    compiled = [
        Layer(tuple(field.index for field in run), swap, _unpacking(run, little, start, count), _finish(kind, run))
        for (kind, swap, little), layers in runs.items()
        for run in layers
    ]
    if bits:
        compiled.append(Layer(tuple(field.index for field in bits), _in_registers(bits[0]), _bits(bits, start), None))
    return (*compiled, *alone)


def decode(layers: Sequence[Layer], payload: bytes, status: Status) -> Sequence[Value]:
    """The values of all layers, one layer after the other."""
    swapped = byte_swapped(payload) if any(layer.swap for layer in layers) else b""
    parts: list[Sequence[Value]] = []
    for indexes, swap, read, finish in layers:
        values = read(swapped if swap else payload)
        parts.append(values if finish is None else finish(values, indexes, status))
    return parts[0] if len(parts) == 1 else [value for part in parts for value in part]


def _own_layer(field: Field, start: int, count: int) -> Layer:
    """Of an array, or of codes with names."""
    if field.is_bit:
        swap, read, finish = _in_registers(field), _bits([field], start), None
    else:
        swap = field.reversed != field.swapped
        read = _unpacking([field], field.reversed, start, count)
        finish = _finish(kind_of(field.type, field.is_scaled), [field] * field.size)
    if field.enum:
        finish = named(dict(field.enum), finish)
    if field.count is not None:
        finish = gathered(finish)
    return Layer((field.index,), swap, read, finish)


def _finish(kind: str, run: Sequence[Field]) -> Finish | None:
    return finish_of(kind, [(each.type, each.scale, each.offset, each.length) for each in run])


def _unpacking(run: Sequence[Field], little: bool, start: int, count: int) -> Callable[[bytes], Sequence[Any]]:
    code, at = "", start
    for field in run:
        code += f"{2 * (field.start - at)}x" if field.start > at else ""
        code += _code(field)
        at = field.end
    code += f"{2 * (start + count - at)}x"
    return struct.Struct(("<" if little else ">") + code).unpack


def _code(field: Field) -> str:
    if field.type == "string":
        return f"{2 * field.words}s"
    code = CODE[field.type]
    if field.half:
        return "x" + code if field.half == "low" else code + "x"
    if field.count is None:
        return code
    return f"{field.count}{code}" + ("x" if field.is_byte and field.count % 2 else "")


def _in_registers(field: Field) -> bool:
    """Bits of registers are counted in the byte-swapped payload, where bit 0 of each word comes first."""
    return field.table in ("holding", "input")


def _bits(fields: Sequence[Field], start: int) -> Callable[[bytes], Sequence[Any]]:
    places = []
    for field in fields:
        for bit in range(field.bit or 0, (field.bit or 0) + field.size):
            place = (field.start - start) * 16 + (bit ^ (8 if field.swapped else 0))
            places.append(place if _in_registers(field) else field.start - start + bit)
    pick = picker([-1 - place for place in places])
    guard = 1 << max(places) + 1  # keeps the leading zeros of the text

    def read(payload: bytes) -> tuple[bool, ...]:
        text = format(int.from_bytes(payload, "little") | guard, "b")
        return tuple(map("1".__eq__, pick(text)))

    return read


def picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """An itemgetter that gives a sequence for one place too."""
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places)
