"""The instrument's peer: a scale that prints by itself and is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.peers.peer import Peer
from support.pty_device import PtyDevice

ANSWERS = {b"SI\r\n": b"S S      12.50 g\r\n", b"T\r\n": b"T S      12.50 g\r\n", b"Z\r\n": b"Z A\r\n"}


class InstrumentPeer(Peer):
    """A pseudo terminal."""

    line = b"S S     100.00 g\r\n"

    def __init__(self, folder: Path) -> None:
        self._port = folder / "scale"
        self._device: PtyDevice | None = None
        self.settings = {
            "port": str(self._port),
            "baud": 115200,
            "protocol": "mt-sics",
            "groups": {
                "printed": {"tags": {"weight": {"unit": "g"}, "stable": {}}},
                "asked": {"on_trigger": True, "tags": {"now": {"unit": "g"}}},
            },
            "tags": {"tare": {"command": "tare"}, "zero": {"command": "zero"}},
        }

    async def start(self) -> None:
        self._device = PtyDevice(self._port, ANSWERS)

    async def stop(self) -> None:
        if self._device is not None:
            self._device.unplug()

    async def send(self, data: bytes) -> None:
        assert self._device is not None
        await asyncio.to_thread(self._device.send, data)

    async def speak(self) -> None:
        await self.send(self.line)

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        found = [(each.tagset.group, each.values, each.status) for each in answer if isinstance(each, Sample)]
        assert found == [("printed", (100.0, True), None)]

    async def speak_half_and_vanish(self) -> None:
        await self.send(self.line[:12])
        await asyncio.sleep(0.05)
        await self.stop()

    async def drip(self) -> None:
        for byte in self.line:
            await self.send(bytes([byte]))
            await asyncio.sleep(0.001)

    async def rave(self) -> None:
        await self.send(b"\xff\x00\xfe" * 20)

    async def flood(self) -> None:
        await self.send(b"\xff\x00\xfe" * 350_000)

    async def fall_silent(self) -> None:
        assert self._device is not None
        self._device.silent = True

    async def behave(self) -> None:
        assert self._device is not None
        self._device.silent = False
