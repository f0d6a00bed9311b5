"""Requests and the frames that carry them: Modbus TCP, RTU, ASCII. Pure: no I/O, no clock.

pymodbus builds the frames and their checksums. What it does with an answer is not strict enough for a line that many
share: a short reply passes, in TLS a chunk counts as a frame, RTU takes the first frame of any function. So here
``find`` looks for *the* answer: of this unit, to this function, with as many bytes as were asked for, whole and with
a good checksum. What stands around it is skipped:

- Modbus TCP numbers its requests: frames with another number are somebody else's, or late. Bytes that cannot be a
  frame mean that the stream is lost (:class:`NotFramed`), as nobody knows where the next frame begins.
- RTU and ASCII have no numbers. An answer is looked for at every byte, as a line's turn-around often gives a stray
  byte in front of it; a beginning that fits is waited for. Two-wire adapters may echo the request; it does not fit.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pymodbus.framer import FramerAscii, FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU

from edge_agent_drivers.modbus.config import Table

_READ: dict[Table, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_ASIDE: tuple[Table, ...] = ("holding", "input", "coil", "discrete")
_MBAP = 8  # bytes of the header and the function code
_LENGTHS = range(3, 255)  # unit id, function code and at least one byte more
_EXCEPTION = 0x80
_OBJECTS = 6  # where a device identification says how many objects follow
_DECODER = DecodePDU(False)


class NotFramed(Exception):
    """These bytes are no Modbus TCP."""


class Request(NamedTuple):
    """A request, and what its answer must look like. It can be sent again and again."""

    unit_id: int
    pdu: bytes  # function code and data
    begins: bytes  # what a good answer's pdu begins with
    length: int  # how long that is; 0: as long as it says itself, see objects_length

    @property
    def function(self) -> int:
        return self.pdu[0]

    @property
    def is_read(self) -> bool:
        return self.pdu[0] <= 4

    def __str__(self) -> str:
        count = f"{int.from_bytes(self.pdu[3:5], 'big')} " if self.is_read else ""
        return f"{count}at {int.from_bytes(self.pdu[1:3], 'big')} of function {self.function}"

    def asides(self) -> list[Request]:
        """Questions to the same unit whose answers, be it an exception, cannot be taken for this one's."""
        address = int.from_bytes(self.pdu[1:3], "big")
        asked = [read_request(table, address, 1, self.unit_id) for table in _ASIDE]
        return [each for each in asked if each.function != self.function]

    @property
    def is_own_answer(self) -> bool:
        """A good answer looks like the request: so does an echo."""
        return self.function in (5, 6, 22)

    def sound(self) -> Request:
        """A question for the sake of its echo: one value where this is written."""
        table: Table = "coil" if self.function == 5 else "holding"
        return read_request(table, int.from_bytes(self.pdu[1:3], "big"), 1, self.unit_id)

    def is_answered_by(self, pdu: bytes) -> bool:
        """A good answer, or an exception."""
        if pdu[0] == self.function | _EXCEPTION:
            return len(pdu) >= 2
        return pdu.startswith(self.begins) and len(pdu) == (self.length or objects_length(pdu))


def read_request(table: Table, start: int, count: int, unit_id: int) -> Request:
    """Registers or bits of one table."""
    function = _READ[table]
    size = (count + 7) // 8 if function in (1, 2) else 2 * count
    pdu = bytes([function]) + start.to_bytes(2, "big") + count.to_bytes(2, "big")
    return Request(unit_id, pdu, bytes([function, size]), 2 + size)


def identify_request(unit_id: int) -> Request:
    """Who it is: the basic objects of the device identification, function 43/14."""
    return Request(unit_id, b"\x2b\x0e\x01\x00", b"\x2b\x0e\x01", 0)


def objects_length(pdu: bytes) -> int:
    """How long the answer to :func:`identify_request` is that begins so; 0 when too little of it is there."""
    if len(pdu) <= _OBJECTS:
        return 0
    length = _OBJECTS + 1
    for _ in range(pdu[_OBJECTS]):
        if len(pdu) < length + 2:
            return 0
        length += 2 + pdu[length + 1]
    return length


def write_request(pdu: ModbusPDU) -> Request:
    """What pymodbus encodes. The answer names the address again."""
    data = bytes([pdu.function_code]) + pdu.encode()
    length = {5: 5, 6: 5, 15: 5, 16: 5, 22: 7}[pdu.function_code]
    return Request(pdu.dev_id, data, data[:3], length)


class Framing(Protocol):
    """How a frame looks on the wire."""

    numbered: bool  # an answer carries its request's number
    other_unit: int | None  # who answered the last request instead of its unit; only numbers tell that

    def build(self, request: Request, number: int) -> bytes:
        """The request's frame."""

    def length(self, request: Request) -> int:
        """Of the answer's frame, at most."""

    def find(self, stream: bytes, request: Request, number: int) -> tuple[bytes | None, bytes]:
        """The answer's pdu, if it is there, and what of the stream is to be kept. Raises NotFramed."""


class Mbap:
    """Modbus TCP. ``lenient``: a device alone on its connection may answer with the number 0."""

    numbered = True

    def __init__(self, *, lenient: bool) -> None:
        self.other_unit: int | None = None
        self._lenient = lenient
        self._framer = FramerSocket(_DECODER)

    def build(self, request: Request, number: int) -> bytes:
        self.other_unit = None
        return self._framer.encode(request.pdu, request.unit_id, number)

    def length(self, request: Request) -> int:
        return request.length + 7

    def find(self, stream: bytes, request: Request, number: int) -> tuple[bytes | None, bytes]:
        while len(stream) >= _MBAP:
            length, its = int.from_bytes(stream[4:6], "big"), int.from_bytes(stream[:2], "big")
            if stream[2:4] != b"\0\0" or length not in _LENGTHS:
                raise NotFramed
            mine = its == number or (self._lenient and its == 0)
            if mine and (stream[7] & 0x7F != request.function or not self._fits(request, stream[7], length - 1)):
                raise NotFramed
            if len(stream) < 6 + length:
                break
            unit_id, pdu, stream = stream[6], stream[7 : 6 + length], stream[6 + length :]
            if mine and unit_id == (request.unit_id or unit_id):
                return pdu, stream
            if mine:
                self.other_unit = unit_id
        return None, stream

    @staticmethod
    def _fits(request: Request, function: int, length: int) -> bool:
        """A reply to a read may be too short, which is told apart; others have one length."""
        return request.is_read or function >= _EXCEPTION or length == request.length or not request.length


class Rtu:
    """Unit, pdu, CRC."""

    numbered = False
    other_unit: int | None = None

    def __init__(self) -> None:
        self._framer = FramerRTU(_DECODER)

    def build(self, request: Request, number: int) -> bytes:
        return self._framer.encode(request.pdu, request.unit_id, 0)

    def length(self, request: Request) -> int:
        return request.length + 3

    def find(self, stream: bytes, request: Request, number: int) -> tuple[bytes | None, bytes]:
        for start in range(len(stream) - 1):
            length = _plausible(stream[start:], request)
            if not length:
                continue
            frame = stream[start : start + length + 3]
            if len(frame) < length + 3:
                break  # wait for the rest
            if FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big")):
                return frame[1:-2], b""
        return None, stream


def _plausible(stream: bytes, request: Request) -> int:
    """The length of the pdu that begins so; 0 when it cannot answer the request."""
    if stream[0] != request.unit_id:
        return 0
    if stream[1] == request.function | _EXCEPTION:
        return 2
    fits = request.begins.startswith(stream[1 : 1 + max(1, len(request.begins))])
    return (request.length or objects_length(stream[1:])) if fits else 0


class Ascii:
    """Colon, hexadecimal digits, LRC, CR LF."""

    numbered = False
    other_unit: int | None = None

    def __init__(self) -> None:
        self._framer = FramerAscii(_DECODER)

    def build(self, request: Request, number: int) -> bytes:
        return self._framer.encode(request.pdu, request.unit_id, 0)

    def length(self, request: Request) -> int:
        return 2 * request.length + 7

    def find(self, stream: bytes, request: Request, number: int) -> tuple[bytes | None, bytes]:
        for line in stream.split(b"\r\n")[:-1]:
            try:
                frame = binascii.unhexlify(line[line.rfind(b":") + 1 :])
            except ValueError:
                continue
            good = len(frame) > 3 and FramerAscii.check_LRC(frame[:-1], frame[-1]) and frame[0] == request.unit_id
            if good and request.is_answered_by(frame[1:-1]):
                return frame[1:-1], b""
        return None, stream


FRAMINGS: dict[str, Callable[[], Framing]] = {"rtu": Rtu, "ascii": Ascii}
