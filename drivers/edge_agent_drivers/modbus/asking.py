"""One question, one answer: the raw exchange of a scan, where nobody knows yet who is there and how the line is set.

The driver's link takes a device as the config describes it, and gives a line up at the first nonsense. A scan looks at
the nonsense: whether nothing came, or bytes that are no frame (another baud rate), or its own question (an echo), or a
good frame among noise. So this reads bytes off a :class:`Port` and looks in them for one frame that answers: same
unit id, same function (or its exception), and a good CRC, LRC or header. An exception is an answer.

What bounds it: an answer has ``timeout_s`` from its question to its end, plus the time its characters take on the line;
of what comes meanwhile at most HEARD_MAX bytes are looked at, and a host that sends more is no Modbus device.
"""

from __future__ import annotations

import asyncio

from edge_agent.errors import DeviceLost
from edge_agent_drivers.modbus.connection import Framing
from edge_agent_drivers.stream.port import LineError, Port

HEARD_MAX = 2048  # the longest frame is one of ASCII, 513 bytes
_LONGEST = 260  # of an MBAP frame
_MEI = 0x2B
_HEAD = 7  # of MBAP: transaction, protocol, length, unit id


class Asker:
    """Asks through one port, which it opens when need be. ``noise`` and ``echo`` say what came beside the answers."""

    def __init__(self, port: Port, framing: Framing, timeout_s: float, character_s: float = 0.0) -> None:
        self.noise = False  # bytes came that belong to no frame
        self.echo = False  # the line gives back what is sent
        self._port = port
        self._framing: Framing = framing
        self._timeout_s = timeout_s
        self._character_s = character_s
        self._number = 0

    async def open(self) -> None:
        """Open the port. Raises DeviceUnavailable and DeviceRefused as it does; TimeoutError when it took too long."""
        async with asyncio.timeout(self._timeout_s + 1.0):  # a second: to fall quiet
            await self._port.open()

    async def ask(self, unit_id: int, pdu: bytes) -> bytes | None:
        """The PDU that answers, an exception included; None when none came. Raises as :meth:`open` does."""
        if not self._port.is_open:
            await self.open()
        self._number = self._number % 0xFFFF + 1
        question = framed(self._framing, unit_id, pdu, self._number)
        heard = b""
        seconds = self._timeout_s + (len(question) + 16) * self._character_s
        try:
            async with asyncio.timeout(seconds):
                await self._port.send(question)
                while len(heard) <= HEARD_MAX:
                    heard += await self._heard()
                    answer = answer_in(self._framing, heard, unit_id, pdu[0], self._number)
                    if answer is not None:
                        return answer
        except TimeoutError:
            self.echo = self.echo or heard.startswith(question)
            self.noise = self.noise or bool(heard.removeprefix(question))
            return None
        except DeviceLost:
            self.close()
            return None
        self.noise = True
        self.close()
        return None

    async def _heard(self) -> bytes:
        try:
            return await self._port.take()
        except LineError:
            self.noise = True
            return b""

    def close(self) -> None:
        """Close the port. Idempotent."""
        self._port.close()


# --- frames, pure --------------------------------------------------------------------------------------------------


def framed(framing: Framing, unit_id: int, pdu: bytes, number: int) -> bytes:
    """The PDU as it goes out. ``number``: the transaction, which only MBAP carries."""
    body = bytes([unit_id]) + pdu
    if framing == "mbap":
        return number.to_bytes(2, "big") + b"\0\0" + len(body).to_bytes(2, "big") + body
    if framing == "rtu":
        return body + crc16(body)
    return b":" + (body + lrc(body)).hex().upper().encode() + b"\r\n"


def answer_in(framing: Framing, heard: bytes, unit_id: int, function: int, number: int) -> bytes | None:
    """The first complete and good frame in ``heard`` that answers: its PDU."""
    if framing == "mbap":
        return _mbap_answer(heard, unit_id, function, number)
    return (_rtu_answer if framing == "rtu" else _ascii_answer)(heard, unit_id, function)


def _answers(body: bytes, unit_id: int, function: int) -> bool:
    """Whether unit id and PDU are an answer in full: an exception, or as long as its own count says."""
    if len(body) < 3 or body[0] != unit_id:
        return False
    if body[1] == function | 0x80:
        return len(body) == 3
    return body[1] == function and len(body) == _length(body)


def _length(body: bytes) -> int:
    """How long a good answer that begins so is, with its unit id; 0 while that is not known, -1: it is none."""
    if body[1] != _MEI:
        return 3 + body[2]
    if len(body) < 8:
        return 0
    at, left = 8, body[7]
    while left:
        if len(body) < at + 2:
            return 0
        at, left = at + 2 + body[at + 1], left - 1
    return at


def _mbap_answer(heard: bytes, unit_id: int, function: int, number: int) -> bytes | None:
    while len(heard) > _HEAD:
        length = int.from_bytes(heard[4:6], "big")
        if heard[2:4] != b"\0\0" or not 3 <= length <= _LONGEST:
            return None  # out of step, for good: what follows is not looked at
        body = heard[6 : 6 + length]
        if len(body) < length:
            return None
        if int.from_bytes(heard[:2], "big") == number and _answers(body, unit_id, function):
            return body[1:]
        heard = heard[6 + length :]
    return None


def _rtu_answer(heard: bytes, unit_id: int, function: int) -> bytes | None:
    for at in range(len(heard) - 4):
        rest = heard[at:]
        if rest[0] != unit_id or rest[1] & 0x7F != function:
            continue
        length = 3 if rest[1] & 0x80 else _length(rest)
        body, check = rest[:length], rest[length : length + 2]
        if length and len(check) == 2 and check == crc16(body) and _answers(body, unit_id, function):
            return body[1:]
    return None


def _ascii_answer(heard: bytes, unit_id: int, function: int) -> bytes | None:
    for line in heard.split(b"\r\n")[:-1]:
        _, colon, digits = line.rpartition(b":")
        try:
            body = bytes.fromhex(digits.decode("ascii"))
        except ValueError:
            continue
        if colon and len(body) > 3 and lrc(body[:-1]) == body[-1:] and _answers(body[:-1], unit_id, function):
            return body[1:-1]
    return None


def crc16(data: bytes) -> bytes:
    """The CRC of an RTU frame, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def lrc(data: bytes) -> bytes:
    """The check byte of an ASCII frame."""
    return bytes([-sum(data) & 0xFF])
