"""A real pymodbus server in a process of its own, and a line between it and the client that can be bad.

::

    with ModbusPlc() as plc:                      # 127.0.0.1:plc.port
        async with line_to(plc.port) as line:     # 127.0.0.1:line.port
            line.mode = "silent"                      # what happens to replies from now on

The server has unit 1 with all four tables: coils and discrete inputs 0-2015 (every third is on; coil 10 and up are
off), holding and input registers 0-999 with ``register n == n`` and a hole at 500-509. Other units do not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from support.mosquitto import free_port

HOLE = range(500, 510)
REGISTERS = 1000
BITS = 2016


class ModbusPlc:
    """The server process. ``kill()`` and ``start()`` keep its port; what was written to it is then forgotten."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ModbusPlc:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start and wait until it listens."""
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


# --- replies, made bad ---------------------------------------------------------------------------------------


def shortened(reply: bytes) -> bytes:
    """A well-formed reply to a shorter request: one byte less than was asked for."""
    length = int.from_bytes(reply[4:6], "big") - 1
    return reply[:4] + length.to_bytes(2, "big") + reply[6:8] + bytes([reply[8] - 1 & 0xFF]) + reply[9:-1]


def undecodable(reply: bytes) -> bytes:
    """The right header and a function code that nobody asked for."""
    return reply[:7] + b"\x63" + reply[8:]


class Line:
    """A TCP line to a server on the loopback, whose replies are passed on as ``mode`` says.

    ``pass``; ``silent`` (swallowed); ``drip`` (one byte at a time); ``cut`` (half of it, then a reset);
    ``garbage`` (text instead); ``noise`` (as many random bytes); ``flood`` (64 KiB of zeros instead); ``short``;
    ``undecodable``; ``exception N`` (every request is answered so); ``late`` (held until ``release`` is called);
    ``forget`` (writes are confirmed and not done).
    """

    def __init__(self, server_port: int) -> None:
        self.mode = "pass"
        self.port = free_port()
        self.requests: list[bytes] = []
        self.refuses: Callable[[bytes], int] = lambda request: 0  # the exception that answers this request; 0: none
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end_connections(self) -> None:
        """As a server does with idle ones; it goes on listening."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # the other side sees it

    def release(self) -> None:
        """Send what ``late`` holds back."""
        self._released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
            with contextlib.closing(server_writer):
                while True:
                    request = await _frame(reader)
                    self.requests.append(request)
                    if self.mode == "forget" and request[7] in (5, 6, 16):
                        writer.write(request[:4] + b"\0\6" + request[6:12])
                        continue
                    if code := self.refuses(request):
                        writer.write(request[:4] + b"\0\3" + request[6:7] + bytes([request[7] | 0x80, code]))
                        continue
                    server_writer.write(request)
                    await self._answer(request, await _frame(server_reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the line is cut; asyncio would log a cancelled connection as an error
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, request: bytes, reply: bytes, writer: asyncio.StreamWriter) -> None:
        name, _, code = self.mode.partition(" ")
        match name:
            case "silent":
                return
            case "drip":
                for byte in reply:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.001)
                return
            case "cut":
                writer.write(reply[: len(reply) // 2])
                await writer.drain()
                await asyncio.sleep(0.02)  # so that the half arrives before the reset
                raise ConnectionResetError
            case "late":
                await self._released.wait()
            case "exception":
                reply = request[:4] + b"\0\3" + request[6:7] + bytes([request[7] | 0x80, int(code)])
        changes: dict[str, Callable[[bytes], bytes]] = {
            "garbage": lambda reply: b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "noise": lambda reply: os.urandom(len(reply)),
            "flood": lambda reply: bytes(65536),
            "short": shortened,
            "undecodable": undecodable,
        }
        writer.write(changes.get(name, bytes)(reply))
        await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(6)
    return header + await reader.readexactly(int.from_bytes(header[4:], "big"))


@contextlib.asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A started Line, stopped at the end."""
    line = Line(port)
    await line.start()
    try:
        yield line
    finally:
        await line.stop()


# --- the process ---------------------------------------------------------------------------------------------


def _registers() -> Iterator[tuple[int, int]]:
    yield 0, HOLE.start
    yield HOLE.stop, REGISTERS


async def _serve(port: int) -> None:
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    def bits(on: Callable[[int], bool]) -> list[SimData]:
        return [SimData(0, values=[on(place) for place in range(BITS)], datatype=DataType.BITS)]

    def registers() -> list[SimData]:
        return [
            SimData(start, values=list(range(start, stop)), datatype=DataType.REGISTERS) for start, stop in _registers()
        ]

    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL + 1)  # cut connections are its daily bread
    device = SimDevice(
        1,
        simdata=(
            bits(lambda place: place < 10 and place % 3 == 0),
            bits(lambda place: place % 3 == 0),
            registers(),
            registers(),
        ),
    )
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print("ready", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)  # ends with the test, however that ends


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    asyncio.run(_serve(int(sys.argv[1])))
