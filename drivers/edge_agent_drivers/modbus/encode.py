"""One value to the registers or bits that are written, and to what reading back must give. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from edge_agent.model import Value
from edge_agent_drivers.modbus.codec import CODE, Field, byte_swapped
from edge_agent_drivers.modbus.values import NOT_A_NUMBER

_NOISE = Decimal("1e-6")  # 0.1 + 0.2 is meant as 0.3
_NOISE_OF_DOUBLES = Decimal("1e-15")


def encode(field: Field, value: Value) -> list[int]:
    """The registers (or the bits) of a value to write; of a part of a register, see :func:`mask_of`, its bits in
    their place. Raises ValueError when the type cannot hold it."""
    values = _elements(field, value)
    if field.is_bit:
        bits = [_bit(each) for each in values]
        return (
            bits if field.bit is None else [sum(bit << place for bit, place in zip(bits, places(field), strict=True))]
        )
    if field.type == "string":
        return _registers(field, _text(field, value))
    if field.type == "bool":
        return _registers(field, struct.pack(f">{len(values)}H", *map(_bit, values)))
    packed = b"".join(_packed(field, each) for each in values)
    if field.half:
        return [packed[0] << 8 if field.half == "high" else packed[0]]
    return _registers(field, packed + b"\0" * (len(packed) % 2))


def places(field: Field) -> list[int]:
    """The bits of its register that these bits stand in, 0 the least significant."""
    first = field.bit or 0
    return [bit ^ (8 if field.swapped else 0) for bit in range(first, first + field.size)]


def mask_of(field: Field) -> int:
    """The bits of its register that belong to the tag."""
    if field.bit is not None:
        return sum(1 << place for place in places(field))
    return {"low": 0x00FF, "high": 0xFF00}.get(field.half, 0xFFFF)


def _elements(field: Field, value: Value) -> Sequence[Any]:
    """One value, or those of an array; codes for names."""
    if field.count is None:
        values: Sequence[Any] = [value]
    elif isinstance(value, list) and len(value) == field.count:
        values = value
    else:
        raise ValueError(f"{value!r} is no list of {field.count} values")
    if not field.enum:
        return values
    codes = {name: code for code, name in field.enum}
    unknown = [each for each in values if not isinstance(each, str) or each not in codes]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(codes)}: it does not fit the enum")
    return [codes[each] for each in values]


def _bit(value: Any) -> int:
    if not isinstance(value, bool) and value not in (0, 1):
        raise ValueError(f"{value!r} is neither true nor false")
    return int(bool(value))


def _text(field: Field, value: Value) -> bytes:
    if not isinstance(value, str) or "\0" in value or len(raw := value.encode("utf-8")) > field.length:
        raise ValueError(f"{value!r} is no text of at most {field.length} bytes")
    return raw.ljust(2 * field.words, b"\0")


def _packed(field: Field, value: Any) -> bytes:
    order = "<" if field.reversed else ">"
    try:
        number = Decimal(str(int(value) if isinstance(value, bool) else value))
        if not number.is_finite():
            raise ValueError(NOT_A_NUMBER)
        raw = (number - Decimal(repr(field.offset))) / Decimal(repr(field.scale))
        make: Callable[[Decimal], float] = _finite if field.type.startswith("float") else _whole
        made = _bcd(_whole(raw), field.words * 4 // field.size) if field.type.startswith("bcd") else make(raw)
        return struct.pack(order + CODE[field.type], made)
    except (ArithmeticError, ValueError, struct.error) as error:
        raise ValueError(f"{value!r} does not fit a {field.type}") from error


def _whole(number: Decimal) -> int:
    """The register's number: between two of them the device would show another value than was written."""
    whole = number.to_integral_value()
    if abs(number - whole) > max(_NOISE, abs(number) * _NOISE_OF_DOUBLES):
        raise ValueError(f"{number} is no whole number")
    return int(whole)


def _finite(number: Decimal) -> float:
    if math.isinf(made := float(number)):
        raise ValueError(NOT_A_NUMBER)
    return made


def _bcd(number: int, digits: int) -> int:
    if not 0 <= number < 10**digits:
        raise ValueError(f"{number} has more than {digits} digits")
    return int(str(number), 16)


def _registers(field: Field, packed: bytes) -> list[int]:
    if field.reversed != field.swapped:
        packed = byte_swapped(packed)
    return list(struct.unpack(f">{len(packed) // 2}H", packed))
