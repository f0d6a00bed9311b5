"""The PLC of the simulated line: process images behind a real Modbus TCP server.

One server, several unit ids, each with an *image*: coils, input and holding registers in plain lists. The cell
programs of :mod:`edge_agent.demo.cells` change an image between two awaits, so a request sees all of a change or
nothing of it, as with a PLC that serves communication at the end of its scan. A program notices what the agent wrote
at its next scan of ``SCAN_S``.

Input registers 0-1 hold the number of the reply that carries them: it goes up with every request that reads them, so
each polled sample says which of the replies it is, and a missing one cannot hide.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

SCAN_S = 0.01
COILS = 32
INPUTS = 16
HOLDING = 320
REPLY_ADDRESS = 0  # input registers 0-1, uint32, high word first
_READ_INPUTS = 4
_READ_HOLDING = 3
_READ_COILS = 1
_WRITE_COILS = (5, 15)
_WRITE_HOLDING = (6, 16)


class Image:
    """The memory of one unit id. ``on_reply`` is told the number of each reply that carries one.

    ``on_touch`` is told at once, before the client has its answer, that it read results or raised a coil.
    """

    def __init__(self, on_reply: Callable[[int], None], on_touch: Callable[[str], None] = lambda what: None) -> None:
        self.coils = [False] * COILS
        self.inputs = [0] * INPUTS
        self.holding = [0] * HOLDING
        self._replies = 0
        self._on_reply = on_reply
        self._on_touch = on_touch

    def put_float(self, address: int, value: float) -> None:
        """Two holding registers, float32, high word first (ABCD)."""
        self.holding[address], self.holding[address + 1] = struct.unpack(">HH", struct.pack(">f", value))

    def put_text(self, address: int, text: str) -> None:
        """Input registers with two ASCII characters each; ``text`` must have an even number of them."""
        words = struct.unpack(f">{len(text) // 2}H", text.encode())
        self.inputs[address : address + len(words)] = words

    async def until(self, coil: int, level: bool, timeout_s: float | None = None) -> bool:
        """Scan until the coil has this level. False when ``timeout_s`` passed first."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while self.coils[coil] is not level:
            if deadline is not None and loop.time() >= deadline:
                return False
            await asyncio.sleep(SCAN_S)
        return True

    async def serve(
        self, function: int, start: int, address: int, count: int, memory: list[int], wanted: list[int] | None
    ) -> ExcCodes | None:
        """The server's hook: bring its memory up to date before it answers, take over what a client writes."""
        if wanted is not None and function in _WRITE_COILS:
            self.coils[address : address + len(wanted)] = [bool(bit) for bit in wanted]
            if any(wanted):
                self._on_touch("ack")
        elif wanted is not None and function in _WRITE_HOLDING:
            self.holding[address : address + len(wanted)] = wanted
        elif function == _READ_COILS:
            for word in range(COILS // 16):
                memory[word] = sum(1 << bit for bit in range(16) if self.coils[16 * word + bit])
        elif function == _READ_HOLDING:
            memory[:HOLDING] = self.holding
            self._on_touch("result")
        elif function == _READ_INPUTS:
            if address <= REPLY_ADDRESS < address + count:
                self._replies += 1
                self.inputs[REPLY_ADDRESS : REPLY_ADDRESS + 2] = divmod(self._replies, 1 << 16)
                self._on_reply(self._replies)
            memory[:INPUTS] = self.inputs
        return None


def _device(unit_id: int, image: Image) -> SimDevice:
    async def action(
        function: int, start: int, address: int, count: int, memory: list[int], wanted: list[int] | list[bool] | None
    ) -> ExcCodes | None:
        return await image.serve(function, start, address, count, memory, wanted)  # type: ignore[arg-type]

    return SimDevice(
        unit_id,
        simdata=(
            [SimData(0, values=[False] * COILS, datatype=DataType.BITS)],
            [SimData(0, values=[False] * 16, datatype=DataType.BITS)],
            [SimData(0, count=HOLDING, datatype=DataType.REGISTERS)],
            [SimData(0, count=INPUTS, datatype=DataType.REGISTERS)],
        ),
        action=action,
    )


async def start_plc(port: int, images: Mapping[int, Image]) -> ModbusTcpServer:
    """Serve the images, by unit id, on 127.0.0.1. Raises RuntimeError when the port is taken."""
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # killed clients are its daily bread
    server = ModbusTcpServer(
        [_device(unit_id, image) for unit_id, image in images.items()], address=("127.0.0.1", port)
    )
    await server.serve_forever(background=True)
    return server
