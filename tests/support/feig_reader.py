"""A Feig reader on a pseudo terminal: transponders in its field, their memory, and its ways to go wrong.

It makes and takes its frames by itself, without the driver's codec.
"""

from __future__ import annotations

import asyncio
import binascii
from pathlib import Path

from support.pty_device import PtyDevice


def crc16(data: bytes) -> bytes:
    """X.25's CRC16 without its final inversion, by way of its mirror image in binascii."""
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    crc = binascii.crc_hqx(mirrored, 0xFFFF)
    return int(f"{crc:016b}"[::-1], 2).to_bytes(2, "little")


class FeigReaderPty(PtyDevice):
    """``memory``: by UID the bytes of blocks of ``size``. ``damage``: so many answers come with a wrong bit."""

    def __init__(self, port: Path, size: int = 4) -> None:
        self.memory: dict[bytes, bytearray] = {}
        self.size = size
        self.damage = 0
        self.status: int | None = None  # what it answers to everything
        self.kept = True  # what is written stays
        self.asked = 0
        super().__init__(port)

    def put(self, uid: str, memory: bytes = b"") -> bytes:
        """A transponder arrives."""
        number = bytes.fromhex(uid)
        self.memory[number] = bytearray(memory.ljust(16 * self.size, b"\x00"))
        return number

    def _understand(self) -> None:
        while len(self._asked) >= 5 and len(self._asked) >= self._asked[0] >= 5:
            request, self._asked = self._asked[: self._asked[0]], self._asked[self._asked[0] :]
            if crc16(request[:-2]) != request[-2:]:
                continue  # as the manuals say: no answer to a damaged frame
            self.requests.append(request)
            if not self.silent:
                self.send(self._answer(request[2], request[3:-2]))

    def _answer(self, command: int, data: bytes) -> bytes:
        status, body = (self.status, b"") if self.status is not None else self._carry_out(command, data)
        size = 6 + len(body)
        frame = bytes([size]) if size <= 255 else b"\x02" + (size + 2).to_bytes(2, "big")
        frame += bytes([0x00, command, status]) + body
        frame += crc16(frame)
        if self.damage:
            self.damage -= 1
            frame = frame[:4] + bytes([frame[4] ^ 0x10]) + frame[5:]
        return frame

    def _carry_out(self, command: int, data: bytes) -> tuple[int, bytes]:
        if command == 0x69:
            return 0, b""
        if command != 0xB0:
            return 0x80, b""
        if data[0] == 0x01:
            return self._inventory(more=bool(data[1] & 0x80))
        uid, first, count = data[2:10], data[10], data[11]
        if data[1] != 1 or uid not in self.memory:
            return 1, b""
        memory, start = self.memory[uid], first * self.size
        if (first + count) * self.size > len(memory):
            return 0x95, b"\x10"
        if data[0] == 0x23:
            blocks = [memory[start + n * self.size : start + (n + 1) * self.size] for n in range(count)]
            return 0, bytes([count, self.size]) + b"".join(b"\x00" + block for block in blocks)
        if data[0] == 0x24 and data[12] == self.size and len(data) == 13 + count * self.size:
            if self.kept:
                memory[start : start + count * self.size] = data[13:]
            return 0, b""
        return 0x81, b""

    def _inventory(self, more: bool) -> tuple[int, bytes]:
        """At most thirty at once, the rest when asked for more."""
        self.asked += 1
        every = list(self.memory)
        uids = every[30:60] if more else every[:30]
        if not uids:
            return 1, b""
        body = bytes([len(uids)]) + b"".join(b"\x03\x00" + uid for uid in uids)
        return (0x94 if not more and len(every) > 30 else 0), body


async def until(reader: FeigReaderPty, polls: int) -> None:
    """It was asked so many times more."""
    goal = reader.asked + polls
    while reader.asked < goal:  # noqa: ASYNC110  it counts in a callback of the loop
        await asyncio.sleep(0.005)
