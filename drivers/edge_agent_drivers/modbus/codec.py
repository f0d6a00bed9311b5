"""Registers and bits to values and back. Pure: no I/O, no clock.

A block's reply is decoded by a few C calls for all of its tags, not by a Python loop over them: ``compile_layers``
sorts the tags into *layers*, each one ``struct`` pass over the whole payload with pad bytes where other tags lie.
The four byte orders cost no more than that: swapping the bytes of every word first turns CDAB into a little-endian
and BADC into a big-endian value. Bits are one pass over the payload as one large integer.

What a value may be (edge_agent.model.Value):

- NaN and infinity are None with status "not a number";
- text ends at its first NUL and loses trailing spaces; what is not UTF-8 is None with status "not text";
- integers beyond 2**53 are decimal strings;
- a float32 is the double with the fewest of 7, 8 or 9 significant digits that give the same float32 back, so 0.1
  stays 0.1;
- scaled integers are exact: the scale counts as the decimal it was written as, and the one division rounds once, so
  123 * 0.1 is 12.3. A scaled float32 keeps 9 significant digits, a scaled float64 keeps 15.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import compress
from operator import itemgetter, ne
from typing import Any, NamedTuple

import orjson

from edge_agent.model import Value
from edge_agent_drivers.modbus.config import ModbusTag, Table

EXACT = 2**53  # integers up to here are exact in every JSON reader
NOT_A_NUMBER = "not a number"
NOT_TEXT = "not text"

_CODE = {"bool": "H", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q"} | {
    "float32": "f", "float64": "d"
}  # fmt: skip

Status = dict[int, str]
"""The sample's index of each value that is not good, and why."""
Finish = Callable[[Sequence[Any], Sequence[int], Status], Sequence[Value]]
"""Raw values of a layer, the sample's indexes they belong to, the status to add to → values."""


@dataclass(frozen=True, slots=True)
class Field:
    """A tag as the codec sees it. ``index`` is its place in the group's sample."""

    index: int
    table: Table
    start: int  # register, or the bit in a bit table
    words: int  # registers; 1 in a bit table
    bit: int | None
    type: str
    reversed: bool  # low word first
    swapped: bool  # bytes swapped in each word
    length: int  # string: bytes
    scale: float
    offset: float

    @property
    def end(self) -> int:
        """One past the last register."""
        return self.start + self.words

    @property
    def is_bit(self) -> bool:
        return self.bit is not None or self.table in ("coil", "discrete")

    @property
    def is_scaled(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)


def field_of(index: int, tag: ModbusTag) -> Field:
    """The tag at this place of its group."""
    table, start, bit = tag.place
    low_word_first = tag.order in ("CDAB", "DCBA") and tag.words > 1 and tag.value_type != "string"
    swapped = tag.order in ("BADC", "DCBA")
    length = tag.length or 0
    return Field(
        index, table, start, tag.words, bit, tag.value_type, low_word_first, swapped, length, tag.scale, tag.offset
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
    runs: dict[tuple[str, bool, bool], list[list[Field]]] = {}
    for field in sorted(fields, key=lambda each: (each.start, each.end, each.index)):
        if field.is_bit:
            bits.append(field)
            continue
        swap = field.reversed != field.swapped  # CDAB and BADC: then little-endian and big-endian, see above
        layers = runs.setdefault((_kind(field), swap, field.reversed), [[]])
        run = next((each for each in layers if not each or each[-1].end <= field.start), None)
        if run is None:  # overlaps another tag of its kind
            layers.append(run := [])
        run.append(field)
    compiled = [
        _struct_layer(kind, run, swap, little, start, count)
        for (kind, swap, little), layers in runs.items()
        for run in layers
    ]
    return (*compiled, _bit_layer(bits, start)) if bits else tuple(compiled)


def decode(layers: Sequence[Layer], payload: bytes, status: Status) -> Sequence[Value]:
    """The values of all layers, one layer after the other."""
    swapped = byte_swapped(payload) if any(layer.swap for layer in layers) else b""
    parts: list[Sequence[Value]] = []
    for indexes, swap, read, finish in layers:
        values = read(swapped if swap else payload)
        parts.append(values if finish is None else finish(values, indexes, status))
    return parts[0] if len(parts) == 1 else [value for part in parts for value in part]


def _kind(field: Field) -> str:
    if field.is_scaled:
        return "scaled " + ("floats" if field.type.startswith("float") else "integers")
    return field.type if field.type in ("bool", "string", "float32", "float64", "int64", "uint64") else "plain"


def _struct_layer(kind: str, run: Sequence[Field], swap: bool, little: bool, start: int, count: int) -> Layer:
    code, at = "", start
    for field in run:
        gap = f"{2 * (field.start - at)}x" if field.start > at else ""
        code += gap + (_CODE[field.type] if field.type != "string" else f"{2 * field.words}s")
        at = field.end
    code += f"{2 * (start + count - at)}x"
    unpack = struct.Struct(("<" if little else ">") + code).unpack
    return Layer(tuple(field.index for field in run), swap, unpack, _finish_of(kind, run))


def _bit_layer(bits: Sequence[Field], start: int) -> Layer:
    """Bits of registers are counted in the byte-swapped payload, where bit 0 of each word comes first."""
    registers = bits[0].table in ("holding", "input")
    places = [
        (field.start - start) * 16 + ((field.bit or 0) ^ (8 if field.swapped else 0))
        if registers
        else field.start - start
        for field in bits
    ]
    pick = picker([-1 - place for place in places])
    guard = 1 << max(places) + 1  # keeps the leading zeros of the text

    def read(payload: bytes) -> tuple[bool, ...]:
        text = format(int.from_bytes(payload, "little") | guard, "b")
        return tuple(map("1".__eq__, pick(text)))

    return Layer(tuple(field.index for field in bits), registers, read, None)


def picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """An itemgetter that gives a sequence for one place too."""
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places)


# --- raw values to values ------------------------------------------------------------------------------------


def _finish_of(kind: str, run: Sequence[Field]) -> Finish | None:
    match kind:
        case "plain":
            return None
        case "bool":
            return lambda values, indexes, status: tuple(map(bool, values))
        case "float32":
            return _float32
        case "float64":
            return _float64
        case "int64" | "uint64":
            return _wide
        case "string":
            return _strings([field.length for field in run])
        case "scaled integers":
            return _scaled_integers(run)
        case _:
            return _scaled_floats(run)


def _wide(values: Sequence[int], indexes: Sequence[int], status: Status) -> Sequence[Value]:
    if min(values) >= -EXACT and max(values) <= EXACT:
        return values
    return [value if -EXACT <= value <= EXACT else str(value) for value in values]


def _float64(values: Sequence[float], indexes: Sequence[int], status: Status) -> Sequence[Value]:
    if all(map(math.isfinite, values)):
        return values
    return [
        value if math.isfinite(value) else _bad(index, NOT_A_NUMBER, status)
        for index, value in zip(indexes, values, strict=True)
    ]


def _float32(values: Sequence[float], indexes: Sequence[int], status: Status) -> Sequence[Value]:
    if all(map(math.isfinite, values)):
        return shortest(values)
    finite = iter(shortest([value for value in values if math.isfinite(value)]))
    return [
        next(finite) if math.isfinite(value) else _bad(index, NOT_A_NUMBER, status)
        for index, value in zip(indexes, values, strict=True)
    ]


def _bad(index: int, reason: str, status: Status) -> Value:
    status[index] = reason
    return None


def shortest(values: Sequence[float], digits: int = 7) -> Sequence[float]:
    """For finite float32 values: the doubles with the fewest of ``digits`` to 9 digits that give the same float32."""
    short = _rounded(values, digits)
    if digits == 9:  # nine always suffice
        return short
    code = f"{len(values)}f"
    packed = struct.pack(code, *short)
    if packed == struct.pack(code, *values):
        return short
    wrong = list(map(ne, struct.unpack(code, packed), values))
    longer = iter(shortest(list(compress(values, wrong)), digits + 1))
    return [next(longer) if bad else value for bad, value in zip(wrong, short, strict=True)]


def _rounded(values: Sequence[float], digits: int) -> Sequence[float]:
    """All values to so many significant digits: one format and one parse for all, three times as fast as one by one."""
    text = ",".join([f"%.{digits - 1}e"] * len(values)) % tuple(values)  # e: an integer would not come back as a float
    rounded: list[float] = orjson.loads(f"[{text}]")
    return rounded


def _strings(lengths: Sequence[int]) -> Finish:
    def finish(values: Sequence[bytes], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        return [_text(raw[:length], index, status) for raw, length, index in zip(values, lengths, indexes, strict=True)]

    return finish


def _text(raw: bytes, index: int, status: Status) -> Value:
    try:
        return raw.split(b"\0", 1)[0].decode("utf-8").rstrip(" ")
    except UnicodeDecodeError:
        return _bad(index, NOT_TEXT, status)


def _ratio(field: Field) -> tuple[int, int, int]:
    """(N, P, D) with raw * scale + offset == (raw * N + P) / D, exactly in the decimals that were configured."""
    scale, offset = Fraction(Decimal(repr(field.scale))), Fraction(Decimal(repr(field.offset)))
    below = math.lcm(scale.denominator, offset.denominator)
    return int(scale * below), int(offset * below), below


def _scaled_integers(run: Sequence[Field]) -> Finish:
    ratios = [_ratio(field) for field in run]

    def finish(values: Sequence[int], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        return [
            (value * n + p) / d if d != 1 else _exact(value * n + p)
            for value, (n, p, d) in zip(values, ratios, strict=True)
        ]

    return finish


def _exact(value: int) -> int | str:
    return value if -EXACT <= value <= EXACT else str(value)


def _scaled_floats(run: Sequence[Field]) -> Finish:
    scales = [(field.scale, field.offset, "%.9g" if field.type == "float32" else "%.15g") for field in run]
    first = [_float32 if field.type == "float32" else _float64 for field in run]

    def finish(values: Sequence[float], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        found: list[Value] = []
        for value, index, (scale, offset, digits), plain in zip(values, indexes, scales, first, strict=True):
            (good,) = plain((value,), (index,), status)
            scaled = math.nan if good is None else float(digits % (float(good) * scale + offset))  # type: ignore[arg-type]
            found.append(scaled if math.isfinite(scaled) else _bad(index, NOT_A_NUMBER, status))
        return found

    return finish


# --- one value to its registers ------------------------------------------------------------------------------


def encode(field: Field, value: Value) -> list[int]:
    """The registers (or the one bit) of a value to write. Raises ValueError when the type cannot hold it."""
    if field.is_bit or field.type == "bool":
        if not isinstance(value, bool) and value not in (0, 1):
            raise ValueError(f"{value!r} is neither true nor false")
        return [int(bool(value))]
    if field.type == "string":
        if not isinstance(value, str) or len(raw := value.encode("utf-8")) > field.length:
            raise ValueError(f"{value!r} is no text of at most {field.length} bytes")
        return _registers(field, raw.ljust(2 * field.words, b"\0"))
    try:
        number = Decimal(str(int(value) if isinstance(value, bool) else value))
        if not number.is_finite():
            raise ValueError(NOT_A_NUMBER)
        raw_value = (number - Decimal(repr(field.offset))) / Decimal(repr(field.scale))
        packed = struct.pack(
            ("<" if field.reversed else ">") + _CODE[field.type],
            float(raw_value) if field.type.startswith("float") else int(raw_value.to_integral_value()),
        )
    except (ArithmeticError, ValueError, struct.error) as error:
        raise ValueError(f"{value!r} does not fit a {field.type}") from error
    return _registers(field, packed)


def _registers(field: Field, packed: bytes) -> list[int]:
    if field.reversed != field.swapped:
        packed = byte_swapped(packed)
    return list(struct.unpack(f">{len(packed) // 2}H", packed))
