"""The Modbus peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.modbus_plc import Line, ModbusPlc
from support.peers.peer import Peer


class ModbusPeer(Peer):
    """A pymodbus server in its own process, behind a line that can be bad."""

    def __init__(self, folder: Path) -> None:
        self._plc = ModbusPlc()
        self._line = Line(self._plc.port)
        tags = {"first": {"address": "holding:100"}, "second": {"address": "input:301", "type": "uint32"}}
        self.settings = {
            "connection": f"tcp://127.0.0.1:{self._line.port}",
            "timeout": "300ms",
            "groups": {"state": {"poll": "100ms", "tags": tags}},
            "tags": {"ack": {"address": "coil:20", "write": True}},
        }

    async def start(self) -> None:
        self._line.mode = "pass"
        self._plc.start()
        await self._line.start()

    async def stop(self) -> None:
        await self._line.stop()
        self._plc.kill()

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        (sample,) = answer
        assert isinstance(sample, Sample)
        assert sample.values == (100, 301 << 16 | 302)
        assert sample.status is None

    async def speak_half_and_vanish(self) -> None:
        self._line.mode = "cut"

    async def drip(self) -> None:
        self._line.mode = "drip"

    async def rave(self) -> None:
        self._line.mode = "garbage"

    async def flood(self) -> None:
        self._line.mode = "flood"

    async def fall_silent(self) -> None:
        self._line.mode = "silent"

    async def behave(self) -> None:
        self._line.mode = "pass"
