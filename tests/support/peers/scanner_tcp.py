"""A Keyence reader on a TCP port: says codes by itself, and answers the commands that begin and end a read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan, ScanStatus
from support.peers.peer import Peer


class ScannerTcpPeer(Peer):
    """One client or several; each hears every code."""

    code = b"SN00000001"

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._met = asyncio.Event()
        self.commands: list[bytes] = []
        self.answers = {b"LON": b"OK,LON", b"LOFF": b"OK,LOFF"}
        self.settings = {"port": f"tcp://127.0.0.1:{self._port}", "profile": "keyence"}

    async def start(self) -> None:
        self._met.clear()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for client in self._clients:
                client.transport.abort()
            self._clients.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        self._met.set()
        try:
            while command := await reader.readuntil(b"\r"):
                self.commands.append(command[:-1])
                if answer := self.answers.get(command[:-1]):
                    writer.write(answer + b"\r")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    async def send(self, data: bytes) -> None:
        """To all who are connected."""
        await self._met.wait()
        for client in list(self._clients):
            client.write(data)
            await client.drain()

    async def speak(self) -> None:
        await self.send(self.code + b"\r")

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        assert [(scan.raw, scan.status) for scan in answer if isinstance(scan, Scan)] == [(self.code, ScanStatus.READ)]

    async def speak_half_and_vanish(self) -> None:
        await self.send(self.code[:5])
        await asyncio.sleep(0.05)
        await self.stop()

    async def drip(self) -> None:
        for byte in self.code + b"\r":
            await self.send(bytes([byte]))
            await asyncio.sleep(0.001)

    async def rave(self) -> None:
        await self.send(b"\xff\x00\xfe" * 20)

    async def flood(self) -> None:
        await self.send(b"\xff\x00\xfe" * 350_000)
