"""A Modbus TCP server that costs next to nothing, so that a benchmark measures the client beside it.

Serves function 3 only. Register 0 and 1 hold a 32-bit counter that goes up each ``--change-ms`` (0: at every
request), the rest hold values that differ from request to request. With ``--log`` each change is written with its
CLOCK_MONOTONIC time, for latency from outside.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import time
from pathlib import Path
from typing import TextIO

BLOCKS = 64  # prepared register images; successive requests see different ones
REGISTERS = 2500


class Registers:
    """The process image: prepared blocks of random float32-friendly registers and the counter."""

    def __init__(self, change_ms: int, log: TextIO | None, seed: int) -> None:
        chance = random.Random(seed)
        self._blocks = [self._block(chance) for _ in range(BLOCKS)]
        self._every_request = change_ms == 0
        self._log = log
        self._counter = 0
        self._turn = 0

    @staticmethod
    def _block(chance: random.Random) -> bytes:
        return b"".join(struct.pack(">f", round(chance.uniform(10, 90), 2)) for _ in range(REGISTERS // 2))

    def change(self) -> None:
        """Count up, and write down when."""
        self._counter += 1
        if self._log is not None:
            self._log.write(f"{self._counter} {time.monotonic_ns()}\n")
            self._log.flush()

    def read(self, address: int, count: int) -> bytes:
        """``count`` registers from ``address`` on, big-endian."""
        if self._every_request:
            self._counter += 1
        self._turn += 1
        image = self._blocks[self._turn % BLOCKS][2 * address : 2 * (address + count)]
        if address == 0 and count >= 2:
            return struct.pack(">I", self._counter) + image[4:]
        return image


class Connection(asyncio.Protocol):
    """One client; answers each complete request at once."""

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 12:
            transaction, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", self._received[:12])
            self._received = self._received[12:]
            assert function == 3, function
            body = self._registers.read(address, count)
            head = struct.pack(">HHHBBB", transaction, 0, 3 + len(body), unit, 3, len(body))
            self._transport.write(head + body)


async def serve(port: int, change_ms: int, log: TextIO | None, seed: int) -> None:
    """Serve for ever on loopback."""
    registers = Registers(change_ms, log, seed)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Connection(registers), "127.0.0.1", port)
    print("ready", flush=True)
    chance = random.Random(seed)
    while True:
        # At random instants, or a poll of the same period would always meet the change at the same phase.
        await asyncio.sleep(chance.uniform(0.5, 1.5) * (change_ms or 1000) / 1000)
        if change_ms:
            registers.change()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--change-ms", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    log = options.log.open("w") if options.log else None
    asyncio.run(serve(options.port, options.change_ms, log, options.seed))


if __name__ == "__main__":
    main()
