"""The barcode reader's peer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan, ScanStatus
from support.peers.peer import Peer
from support.pty_reader import PtyReader


class ScannerPeer(Peer):
    """A pseudo terminal."""

    code = b"SN00000001"

    def __init__(self, folder: Path) -> None:
        self._port = folder / "gate"
        self._reader: PtyReader | None = None
        self.settings = {"port": str(self._port), "baud": 115200, "frame": {"end": "\r\n", "idle": "200ms"}}

    async def start(self) -> None:
        self._reader = PtyReader(self._port)

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.unplug()

    async def send(self, data: bytes) -> None:
        assert self._reader is not None
        await asyncio.to_thread(self._reader.send, data)

    async def speak(self) -> None:
        await self.send(self.code + b"\r\n")

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        assert [(scan.raw, scan.status) for scan in answer if isinstance(scan, Scan)] == [(self.code, ScanStatus.READ)]

    async def speak_half_and_vanish(self) -> None:
        await self.send(self.code[:5])
        await asyncio.sleep(0.05)
        await self.stop()

    async def drip(self) -> None:
        for byte in self.code + b"\r\n":
            await self.send(bytes([byte]))
            await asyncio.sleep(0.001)

    async def rave(self) -> None:
        await self.send(b"\xff\x00\xfe" * 20)

    async def flood(self) -> None:
        await self.send(b"\xff\x00\xfe" * 350_000)
