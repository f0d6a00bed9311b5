"""Blocks of a transponder's user memory as values, and values as blocks. Pure: no I/O, no clock."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from edge_agent.model import Value

MemoryType = Literal["string", "bytes", "uint"]
Order = Literal["msb", "lsb"]
LARGEST = 2**53  # beyond it JSON readers do not agree on integers: they travel as decimal strings


def turned(data: bytes, size: int) -> bytes:
    """Each block of ``size`` bytes, its last byte first."""
    return b"".join(data[place : place + size][::-1] for place in range(0, len(data), size))


def decode(data: bytes, type_name: MemoryType, order: Order) -> Value:
    """What these bytes say. Raises ValueError if they are none of this type."""
    if type_name == "bytes":
        return base64.b64encode(data).decode("ascii")
    if type_name == "uint":
        if len(data) > 8:
            raise ValueError(f"{len(data)} bytes are no uint64")
        number = int.from_bytes(data, "big" if order == "msb" else "little")
        return number if number <= LARGEST else str(number)
    text = data.rstrip(b"\x00 ")
    if b"\x00" in text:
        raise ValueError("a zero byte stands inside the text")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("the bytes are no text") from error


def encode(value: Value, type_name: MemoryType, order: Order, size: int) -> bytes:
    """``size`` bytes that ``decode`` gives back as this value. Raises ValueError."""
    if type_name == "uint":
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2 ** (8 * min(size, 8)):
            raise ValueError(f"{value!r:.60} is no whole number of {min(size, 8)} bytes")
        return number.to_bytes(size, "big" if order == "msb" else "little")
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    if type_name == "bytes":
        try:
            data = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{value!r:.60} is no base64") from error
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes, where the blocks have {size}")
        return data
    data = value.encode("utf-8", "surrogatepass")
    if len(data) > size:
        raise ValueError(f"{len(data)} bytes of text, where the blocks have {size}")
    padded = data.ljust(size, b"\x00")
    if decode(padded, "string", order) != value:
        raise ValueError(f"{value!r:.60} ends with a blank or holds a zero byte: it would be read back otherwise")
    return padded
