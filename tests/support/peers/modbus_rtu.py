"""The Modbus peer on a serial line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.modbus_units import ModbusUnits, register
from support.peers.peer import Peer
from support.serial_line import SerialLine


class ModbusRtuPeer(Peer):
    """Three units of a pymodbus server in its own process, behind a line that can be bad."""

    def __init__(self, folder: Path) -> None:
        self._line = SerialLine(folder / "line")
        self._units = ModbusUnits("rtu")
        tags = {"first": {"address": "holding:100"}, "second": {"address": "input:200", "type": "uint32"}}
        self.settings = {
            "connection": f"rtu://{self._line.port}",
            "serial": {"baud": 115200},
            "unit_id": 2,
            "timeout": "300ms",
            "groups": {"state": {"poll": "100ms", "tags": tags}},
            "tags": {"ack": {"address": "coil:20", "write": True}},
        }

    async def start(self) -> None:
        await self.stop()
        self._line.mode = "pass"
        await self._line.plug()
        self._units.start(self._line.far)

    async def stop(self) -> None:
        self._line.unplug()
        self._units.kill()

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        (sample,) = answer
        assert isinstance(sample, Sample)
        assert sample.values == (register(2, 100), register(2, 200) << 16 | register(2, 201))
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
