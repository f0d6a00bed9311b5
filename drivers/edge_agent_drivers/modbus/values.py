"""Raw numbers, bits and bytes to the values that samples carry. Pure.

What a value may be (edge_agent.model.Value):

- NaN and infinity are None with status "not a number";
- text ends at its first NUL and loses trailing spaces; what is not UTF-8 is None with status "not text";
- BCD with a nibble above 9 is None with status "not BCD";
- a code that the enum does not name is None with status "code 7 has no name";
- integers beyond 2**53 are decimal strings;
- a float32 is the double with the fewest significant digits that give the same float32 back, so 0.1 stays 0.1;
- scaled integers are exact: the scale counts as the decimal it was written as, and the one division rounds once, so
  123 * 0.1 is 12.3. A scaled float32 keeps 9 significant digits, a scaled float64 keeps 15;
- an array is a list. An element without a value is None in it, and the status names the first of them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import compress
from operator import ne
from typing import Any

import orjson

from edge_agent.model import Value

EXACT = 2**53  # integers up to here are exact in every JSON reader
NOT_A_NUMBER = "not a number"
NOT_TEXT = "not text"
NOT_BCD = "not BCD"

Status = dict[int, str]
"""The sample's index of each value that is not good, and why."""
Finish = Callable[[Sequence[Any], Sequence[int], Status], Sequence[Value]]
"""Raw values of a layer, the sample's indexes they belong to, the status to add to → values."""
Kept = tuple[str, float, float, int]
"""Type, scale, offset and length of one value."""

_OWN_WAY = ("bool", "string", "float32", "float64", "int64", "uint64")


def kind_of(kind: str, is_scaled: bool) -> str:
    """What values have in common that one Finish serves."""
    if kind.startswith("bcd"):
        return "scaled bcd" if is_scaled else "bcd"
    if is_scaled:
        return "scaled floats" if kind.startswith("float") else "scaled integers"
    return kind if kind in _OWN_WAY else "plain"


def finish_of(kind: str, run: Sequence[Kept]) -> Finish | None:
    """What makes values of the raw ones of this run; None: they are it."""
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
            return _strings([length for _, _, _, length in run])
        case "bcd":
            return _bcd
        case "scaled bcd":
            return _scaled_bcd(_scaled_integers(run))
        case "scaled integers":
            return _scaled_integers(run)
        case _:
            return _scaled_floats(run)


def gathered(finish: Finish | None) -> Finish:
    """The values of an array as one list."""

    def gather(values: Sequence[Any], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        if finish is None:
            return [list(values)]
        bad: Status = {}
        found = list(finish(values, range(len(values)), bad))
        if bad:
            first = min(bad)
            status[indexes[0]] = f"element {first}: {bad[first]}"
        return [found]

    return gather


def named(names: Mapping[int, str], finish: Finish | None) -> Finish:
    """Codes as the texts they stand for."""

    def name(values: Sequence[Any], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        codes = values if finish is None else finish(values, indexes, status)
        return [
            None if code is None else _bad(index, f"code {int(code)} has no name", status) if text is None else text
            for code, index, text in zip(codes, indexes, map(names.get, map(_code, codes)), strict=True)
        ]

    return name


def _code(code: Any) -> Any:
    return int(code) if isinstance(code, str) else code  # beyond 2**53


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


_FLOAT32 = struct.Struct("f")
_COARSE = {f"e-{exponent}" for exponent in range(38, 46)} | {
    text[-4:] for text in (f"{2.0**power:.17e}" for power in range(-126, 128)) if text > "8.388609"
}
"""Decimal exponents where two float32 can lie further apart than two numbers of seven digits: subnormals, and above
each power of two that begins with more than 2**23 does. There seven digits may be too many: 8.6e9 is not 8.600001e9."""
_MAYBE_COARSE = re.compile(r"e(?:-0[47]|\+09|[+-][1-4])")  # 0.03 µs a value, where the set costs seven times as much


def shortest(values: Sequence[float], digits: int = 7) -> Sequence[float]:
    """For finite float32 values: the doubles with the fewest digits that give the same float32. ``digits`` is where the
    search begins: nine always suffice, and but for a few magnitudes seven are never too many."""
    text = _written(values, digits)
    short: Sequence[float] = orjson.loads(f"[{text}]")
    if digits == 9:
        return short
    if digits == 7 and _MAYBE_COARSE.search(text):
        written = text.split(",")
        short = [
            _fewest(value, one) if its[-4:] in _COARSE else one
            for value, one, its in zip(values, short, written, strict=True)
        ]
    code = f"{len(values)}f"
    packed = struct.pack(code, *short)
    if packed == struct.pack(code, *values):
        return short
    wrong = list(map(ne, struct.unpack(code, packed), values))
    longer = iter(shortest(list(compress(values, wrong)), digits + 1))
    return [next(longer) if bad else value for bad, value in zip(wrong, short, strict=True)]


def _written(values: Sequence[float], digits: int) -> str:
    """All values with so many significant digits: one format for all, three times as fast as one by one."""
    return ",".join([f"%.{digits - 1}e"] * len(values)) % tuple(values)  # e: an integer would not come back as a float


def _fewest(value: float, found: float) -> float:
    """With fewer than seven digits, as long as they name the same float32."""
    packed = _FLOAT32.pack(value)
    for pattern in ("%.5e", "%.4e", "%.3e", "%.2e", "%.1e", "%.0e"):
        short = float(pattern % value)
        if _FLOAT32.pack(short) != packed:
            break
        found = short
    return found


def _bcd(values: Sequence[int], indexes: Sequence[int], status: Status) -> Sequence[Value]:
    return [
        int(digits) if (digits := f"{value:x}").isdecimal() else _bad(index, NOT_BCD, status)
        for value, index in zip(values, indexes, strict=True)
    ]


def _scaled_bcd(scaled: Finish) -> Finish:
    def finish(values: Sequence[int], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        found = _bcd(values, indexes, status)
        numbers = scaled([0 if value is None else value for value in found], indexes, status)
        return [None if value is None else number for value, number in zip(found, numbers, strict=True)]

    return finish


def _strings(lengths: Sequence[int]) -> Finish:
    def finish(values: Sequence[bytes], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        return [_text(raw[:length], index, status) for raw, length, index in zip(values, lengths, indexes, strict=True)]

    return finish


def _text(raw: bytes, index: int, status: Status) -> Value:
    try:
        return raw.split(b"\0", 1)[0].decode("utf-8").rstrip(" ")
    except UnicodeDecodeError:
        return _bad(index, NOT_TEXT, status)


def _ratio(scale_as_written: float, offset_as_written: float) -> tuple[int, int, int]:
    """(N, P, D) with raw * scale + offset == (raw * N + P) / D, exactly in the decimals that were configured."""
    scale, offset = Fraction(Decimal(repr(scale_as_written))), Fraction(Decimal(repr(offset_as_written)))
    below = math.lcm(scale.denominator, offset.denominator)
    return int(scale * below), int(offset * below), below


def _scaled_integers(run: Sequence[Kept]) -> Finish:
    ratios = [_ratio(scale, offset) for _, scale, offset, _ in run]

    def finish(values: Sequence[int], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        return [
            (value * n + p) / d if d != 1 else _exact(value * n + p)
            for value, (n, p, d) in zip(values, ratios, strict=True)
        ]

    return finish


def _exact(value: int) -> int | str:
    return value if -EXACT <= value <= EXACT else str(value)


def _scaled_floats(run: Sequence[Kept]) -> Finish:
    scales = [(scale, offset, "%.9g" if kind == "float32" else "%.15g") for kind, scale, offset, _ in run]
    first = [_float32 if kind == "float32" else _float64 for kind, _, _, _ in run]

    def finish(values: Sequence[float], indexes: Sequence[int], status: Status) -> Sequence[Value]:
        found: list[Value] = []
        for value, index, (scale, offset, digits), plain in zip(values, indexes, scales, first, strict=True):
            (good,) = plain((value,), (index,), status)
            scaled = math.nan if good is None else float(digits % (float(good) * scale + offset))  # type: ignore[arg-type]
            found.append(scaled if math.isfinite(scaled) else _bad(index, NOT_A_NUMBER, status))
        return found

    return finish
