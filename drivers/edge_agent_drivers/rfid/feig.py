"""Feig OBID readers in ISO host mode: frames, inventory, blocks of user memory. Pure: no I/O, no clock.

A frame is LEN, COM-ADR, command, (status, in an answer), data, CRC16 low byte first; LEN counts all of it. A long one
begins with 02 and two bytes of length, high byte first; a reader uses it by itself for what is longer than 255 bytes.
CRC16 is 0x8408 from 0xFFFF. The ISO host command is B0 and names what it wants in its first byte of data:

==  ====================  ========================  =============================================================
01  inventory             mode (80: the rest)       number, then each: type, DSFID, UID of 8 bytes, E0 first
23  read multiple blocks  mode, UID, first, count   count, size, then each: its lock, ``size`` bytes
24  write ditto           ..., count, size, bytes   nothing
==  ====================  ========================  =============================================================

Blocks are always read and written by UID, so a transponder that takes another's place gives no answer in its name.
Nothing but the CRC tells where a frame begins: after a wrong one all is garbage up to the idle gap.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_agent_drivers.stream.frames import Frame

ISO_HOST = 0xB0
ANY_ADDRESS = 0xFF
OK, NO_TRANSPONDER, MORE, ISO_ERROR = 0x00, 0x01, 0x94, 0x95
ISO15693 = 0x03
_STX = 0x02
_LONGEST = 4096  # far above any answer that is asked for

STATUS = {
    0x01: "no transponder",
    0x02: "data error on the air",
    0x03: "write error",
    0x04: "no such block",
    0x05: "wrong type of transponder",
    0x08: "authentication error",
    0x0E: "general error",
    0x0F: "RF communication error",
    0x10: "the reader's EEPROM failed",
    0x11: "parameter out of range",
    0x12: "login needed",
    0x13: "login error",
    0x14: "read protected",
    0x15: "write protected",
    0x16: "firmware activation needed",
    0x80: "unknown command",
    0x81: "length error",
    0x82: "command not available",
    0x83: "RF communication error",
    0x84: "RF warning",
    0x93: "data buffer overflow",
    0x94: "more data",
}
"""What a status says, in words; where the manuals of several readers differ, the plainer ones."""

ISO_ERRORS = {
    0x01: "command not supported",
    0x02: "command not recognised",
    0x03: "option not supported",
    0x0F: "unknown error",
    0x10: "no such block",
    0x11: "block is already locked",
    0x12: "block is locked",
    0x13: "block was not programmed",
    0x14: "block was not locked",
}


class Answer(NamedTuple):
    """What a frame from a reader holds."""

    address: int
    command: int
    status: int
    data: bytes


class NotUnderstood(ValueError):
    """The frame is whole, and its data are not of the form that the command has."""


def crc16(data: bytes) -> int:
    """CRC16 with polynomial 0x8408 (reversed) from 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return crc


def framed(content: bytes) -> bytes:
    """``content`` (COM-ADR, command, ...) in the short frame, or in the long one if it does not fit."""
    size = len(content) + 3
    head = bytes([size]) if size <= 255 else bytes([_STX]) + (size + 2).to_bytes(2, "big")
    return head + content + crc16(head + content).to_bytes(2, "little")


def inventory(address: int, more: bool = False) -> bytes:
    """Ask who is in the field; ``more``: the rest of an answer that did not fit."""
    return framed(bytes([address, ISO_HOST, 0x01, 0x80 if more else 0x00]))


def read_blocks(address: int, uid: bytes, first: int, count: int) -> bytes:
    """Ask this transponder for blocks of its memory."""
    return framed(bytes([address, ISO_HOST, 0x23, 0x01]) + uid + bytes([first, count]))


def write_blocks(address: int, uid: bytes, first: int, size: int, data: bytes) -> bytes:
    """Have this transponder write blocks of ``size`` bytes."""
    return framed(bytes([address, ISO_HOST, 0x24, 0x01]) + uid + bytes([first, len(data) // size, size]) + data)


def answer_of(raw: bytes) -> Answer:
    """The parts of a frame that a FeigFramer gave. Raises NotUnderstood."""
    body = raw[3:-2] if raw[0] == _STX else raw[1:-2]
    if len(body) < 3:
        raise NotUnderstood("an answer without a status")
    return Answer(body[0], body[1], body[2], body[3:])


def uids_of(data: bytes) -> list[bytes]:
    """The ISO 15693 numbers of an inventory's answer. Raises NotUnderstood, also for transponders of other kinds."""
    if not data:
        raise NotUnderstood("an inventory without its number of transponders")
    count, sets = data[0], data[1:]
    other = next((kind for kind in sets[::10] if kind != ISO15693), None)  # what follows it stands elsewhere
    if other is not None:
        raise NotUnderstood(f"a transponder of type {other:02X}, which is not ISO 15693")
    if len(sets) != 10 * count:
        raise NotUnderstood(f"an inventory of {count} transponders in {len(data)} bytes")
    return [sets[place + 2 : place + 10] for place in range(0, len(sets), 10)]


def blocks_of(data: bytes, count: int) -> tuple[int, bytes]:
    """(size of a block, the blocks' bytes) of an answer to ``read_blocks``. Raises NotUnderstood."""
    if len(data) < 2 or data[0] != count or data[1] == 0 or len(data) != 2 + count * (1 + data[1]):
        raise NotUnderstood(f"{len(data)} bytes where {count} blocks were asked for")
    size = data[1]
    places = range(3, len(data), 1 + size)
    return size, b"".join(data[place : place + size] for place in places)


def words_of(answer: Answer) -> str:
    """What a status that is not OK says, with its code."""
    if answer.status == ISO_ERROR and answer.data:
        code = answer.data[0]
        return f"{ISO_ERRORS.get(code, 'error of the transponder')} (95 {code:02X})"
    return f"{STATUS.get(answer.status, 'error of the reader')} ({answer.status:02X})"


class FeigFramer:
    """Bytes of a reader to its frames, CRC checked. Feed it what arrived; call ``gap`` when nothing did."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._swallowing = False

    @property
    def pending(self) -> bool:
        """Bytes of an unfinished frame, or the rest of garbage, are held: the idle gap means something."""
        return bool(self._held) or self._swallowing

    def reset(self) -> None:
        """Forget what is unfinished."""
        self._held.clear()
        self._swallowing = False

    def swallow(self) -> None:
        """Join a stream under way: nothing is a frame before the next gap."""
        self.reset()
        self._swallowing = True

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, in their order."""
        frames: list[Frame] = []
        if self._swallowing:
            return frames
        self._held += data
        while self._held:
            size = self._size()
            if size == 0 or (size and len(self._held) >= size and not _whole(self._held[:size])):
                frames.append(Frame(bytes(self._held[:_LONGEST]), garbage=True))
                self.swallow()
            elif size is None or len(self._held) < size:
                break
            else:
                frames.append(Frame(bytes(self._held[:size])))
                del self._held[:size]
        return frames

    def gap(self) -> list[Frame]:
        """The idle time has passed: what is held never was a frame."""
        held = bytes(self._held)
        self.reset()
        return [Frame(held, garbage=True)] if held else []

    def _size(self) -> int | None:
        """Bytes of the frame that is held in part; None: not known yet, 0: it is none."""
        if self._held[0] != _STX:
            return self._held[0] if self._held[0] >= 6 else 0
        if len(self._held) < 3:
            return None
        size = int.from_bytes(self._held[1:3])
        return size if 8 <= size <= _LONGEST else 0


def _whole(frame: bytearray) -> bool:
    return crc16(bytes(frame[:-2])) == int.from_bytes(frame[-2:], "little")
