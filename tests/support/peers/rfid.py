"""The RFID reader's peer: it repeats what is in its field."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan, ScanStatus
from support.peers.peer import Peer
from support.pty_reader import PtyReader


class RfidPeer(Peer):
    """A pseudo terminal."""

    telegram = b"\x02010063E9AE25\x03"

    def __init__(self, folder: Path) -> None:
        self._port = folder / "pallets"
        self._reader: PtyReader | None = None
        self.settings = {
            "port": str(self._port),
            "baud": 115200,
            "protocol": "em4100",
            "absent_after": "10s",
            "groups": {"field": {"tags": {"present": {}, "count": {}, "transponder": {}, "transponders": {}}}},
        }

    async def start(self) -> None:
        self._reader = PtyReader(self._port)

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.unplug()

    async def send(self, data: bytes) -> None:
        assert self._reader is not None
        await asyncio.to_thread(self._reader.send, data)

    async def speak(self) -> None:
        await self.send(self.telegram)

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        scan, sample = answer
        assert isinstance(scan, Scan)
        assert (scan.raw, scan.status) == (self.telegram[1:-1], ScanStatus.READ)
        assert isinstance(sample, Sample)
        assert (sample.values, sample.status) == ((True, 1, "0006547886", ["0006547886"]), None)

    async def speak_half_and_vanish(self) -> None:
        await self.send(self.telegram[:7])
        await asyncio.sleep(0.05)
        await self.stop()

    async def drip(self) -> None:
        for byte in self.telegram:
            await self.send(bytes([byte]))
            await asyncio.sleep(0.001)

    async def rave(self) -> None:
        await self.send(b"\xff\x00\xfe" * 20)

    async def flood(self) -> None:
        await self.send(b"\xff\x00\xfe" * 350_000)
