"""A TCP line to a server on the loopback that can be bad, whatever the protocol: only bytes are known to it."""

from __future__ import annotations

import asyncio
import contextlib

from support.mosquitto import free_port

CHUNK = 65_536


class TcpLine:
    """What the server sends is passed on as ``mode`` says, what the client sends always.

    ``pass``; ``silent`` (swallowed); ``drip`` (one byte at a time); ``cut`` (half of the next piece, then a reset);
    ``garbage`` (text instead of the next piece); ``flood`` (64 KiB of zeros for each piece).
    """

    def __init__(self, server_port: int) -> None:
        self.mode = "pass"
        self.port = free_port()
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        if self._server is None:
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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upward: asyncio.Task[None] | None = None
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
            with contextlib.closing(server_writer):
                upward = asyncio.create_task(self._pass_on(reader, server_writer))
                while data := await server_reader.read(CHUNK):
                    await self._answer(data, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the line is cut; asyncio would log a cancelled connection as an error
        finally:
            self._tasks.discard(task)
            if upward is not None:
                upward.cancel()
            writer.transport.abort()

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        match self.mode:
            case "silent":
                return
            case "drip":
                for byte in data:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0)
                return
            case "cut":
                writer.write(data[: len(data) // 2])
                await writer.drain()
                await asyncio.sleep(0.02)  # so that the half arrives before the reset
                raise ConnectionResetError
            case "garbage":
                data = b"HTTP/1.1 400 Bad Request\r\n\r\n"
            case "flood":
                data = bytes(65_536)
        writer.write(data)
        await writer.drain()
