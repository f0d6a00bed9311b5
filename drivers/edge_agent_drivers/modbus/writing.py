"""Which request writes a tag, and what reading it back must then give. Pure.

=======================  =============================  =================
what                     function                       with write_multiple
=======================  =============================  =================
a coil                   5, write single coil           15
an array of coils        15, write multiple coils       15
one register             6, write single register       16
more than one            16, write multiple registers   16
bits or a byte of one    22, mask write: atomic in the device, so it does not race with the PLC's program
=======================  =============================  =================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pymodbus.pdu.bit_message import WriteMultipleCoilsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    MaskWriteRegisterRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from edge_agent.model import Value
from edge_agent_drivers.modbus.codec import Field
from edge_agent_drivers.modbus.encode import encode, mask_of
from edge_agent_drivers.modbus.frames import Request, read_request, write_request

_NO_FUNCTION = {
    5: "this device has no function 5: write quirks: {write_multiple: true}",
    6: "this device has no function 6: write quirks: {write_multiple: true}",
    15: "this device does not write several coils: without count: and write_multiple: it is function 5",
    16: "this device does not write several registers: one at a time, without write_multiple:, it is function 6",
    22: "this device has no mask write (function 22): let the PLC offer a coil, or write the whole register",
}


class Write(NamedTuple):
    """One write. ``back`` reads what was written; ``kept`` judges its answer."""

    request: Request
    back: Request
    size: int  # bytes of its payload
    wanted: int
    mask: int  # the bits that count

    def kept(self, payload: bytes) -> bool:
        """Whether the device shows what was written."""
        return int.from_bytes(payload, "big") & self.mask == self.wanted & self.mask


def write_of(field: Field, value: Value, unit_id: int, *, multiple: bool) -> Write:
    """What writes this value. Raises ValueError when the type cannot hold it."""
    data = encode(field, value)
    back = read_request(field.table, field.start, len(data), unit_id)
    if field.table == "coil":
        size = (len(data) + 7) // 8
        wanted = int.from_bytes(_packed(data, size), "big")
        mask = int.from_bytes(_packed([1] * len(data), size), "big")
        return Write(_coils(field, data, unit_id, multiple=multiple), back, size, wanted, mask)
    if field.is_part:
        mask = mask_of(field)
        pdu = MaskWriteRegisterRequest(field.start, ~mask & 0xFFFF, data[0], dev_id=unit_id)
        return Write(write_request(pdu), back, 2, data[0], mask)
    wanted = int.from_bytes(b"".join(word.to_bytes(2, "big") for word in data), "big")
    request = _registers(field, data, unit_id, multiple=multiple)
    return Write(request, back, 2 * len(data), wanted, (1 << 16 * len(data)) - 1)


def refused_write_hint(code: int, request: Request) -> str:
    """What to do about an exception that is about the function, not the address; "" for others."""
    return _NO_FUNCTION.get(request.function, "") if code == 1 else ""


def unanswered_write_hint(request: Request) -> str:
    """Of a function that not every device has: some answer nothing to one that they do not know."""
    return f"is it always so, and reading goes on? Then {_NO_FUNCTION[22]}" if request.function == 22 else ""


def _coils(field: Field, data: Sequence[int], unit_id: int, *, multiple: bool) -> Request:
    bits = [bool(bit) for bit in data]
    if multiple or field.count is not None:
        return write_request(WriteMultipleCoilsRequest(dev_id=unit_id, address=field.start, bits=bits))
    return write_request(WriteSingleCoilRequest(dev_id=unit_id, address=field.start, bits=bits))


def _registers(field: Field, data: Sequence[int], unit_id: int, *, multiple: bool) -> Request:
    if multiple or len(data) > 1:
        return write_request(WriteMultipleRegistersRequest(dev_id=unit_id, address=field.start, registers=data))
    return write_request(WriteSingleRegisterRequest(dev_id=unit_id, address=field.start, registers=data))


def _packed(bits: Sequence[int], size: int) -> bytes:
    """Bits as they stand in a reply: the lowest address is the lowest bit of the first byte."""
    return sum(bit << place for place, bit in enumerate(bits)).to_bytes(size, "little")
