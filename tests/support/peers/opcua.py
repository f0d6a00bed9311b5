"""The OPC UA peer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.opcua_server import OpcuaServer
from support.peers.peer import Peer
from support.tcp_line import TcpLine


class OpcuaPeer(Peer):
    """An asyncua server in its own process, behind a line that can be bad."""

    tells_level = True

    def __init__(self, folder: Path) -> None:
        self._server = OpcuaServer()
        self._line = TcpLine(self._server.port)
        self._turns = itertools.count(2)  # 1 is what it has at first
        tags = {
            "force": {"node": "ns=2;s=force", "type": "float64"},
            "unchanging": {"node": "ns=2;s=string", "type": "string"},
        }
        self.settings = {
            "connection": f"opc.tcp://127.0.0.1:{self._line.port}/plant",
            "timeout": "500ms",
            "groups": {"state": {"subscribe": "20ms", "tags": tags}},
            "tags": {"ack": {"node": "ns=2;s=ack", "type": "bool", "write": True}},
        }

    async def start(self) -> None:
        self._line.mode = "pass"
        await asyncio.to_thread(self._server.start)
        await self._line.start()

    async def stop(self) -> None:
        await self._line.stop()
        await asyncio.to_thread(self._server.kill)

    async def speak(self) -> None:
        await asyncio.to_thread(self._server.set, "force", float(next(self._turns)))

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        for sample in answer:
            assert isinstance(sample, Sample)
            assert isinstance(sample.values[0], float)
            assert sample.values[1] == "Gehäuse 5"
            assert sample.status is None

    async def speak_half_and_vanish(self) -> None:
        self._line.mode = "cut"
        await self.speak()

    async def drip(self) -> None:
        self._line.mode = "drip"
        await self.speak()

    async def rave(self) -> None:
        self._line.mode = "garbage"

    async def flood(self) -> None:
        self._line.mode = "flood"

    # falling silent is nothing: no value changes. A server that hangs is lost, see test_opcua_device.

    async def behave(self) -> None:
        self._line.mode = "pass"
