"""A broker that gives the answers which a real one gives too rarely for a test: as much MQTT 5 as that needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Scripted:
    """A broker that acknowledges each publish with what ``answer(count)`` says. ``connack``: its properties."""

    def __init__(self, answer: Callable[[int], int], connack: bytes = b"") -> None:
        self._answer, self._connack = answer, connack
        self.published = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.close()

    def disconnect(self, code: int) -> None:
        """End every connection, and say why."""
        for writer in self.writers:
            writer.write(bytes([0xE0, 2, code, 0]))
            writer.close()
        self.writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                self._reply(first, await reader.readexactly(length), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _reply(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = first >> 4
        if kind == 1:
            writer.write(bytes([0x20, 3 + len(self._connack), 0, 0, len(self._connack)]) + self._connack)
        elif kind == 8:
            writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
        elif kind == 12:
            writer.write(b"\xd0\x00")
        elif kind == 3:
            end = 2 + int.from_bytes(body[:2])
            code = 0
            if not body[2:end].endswith(b"/state"):
                self.published += 1
                code = self._answer(self.published)
            writer.write(b"\x40\x04" + body[end : end + 2] + bytes([code, 0]))
