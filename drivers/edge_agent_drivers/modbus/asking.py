"""One question, one answer: the exchange of a scan, where nobody knows yet who is there and how the line is set.

The driver's own exchange takes a device as the config describes it, and gives a line up at the first nonsense. A scan
looks at the nonsense: whether nothing came, or bytes that are no frame (another baud rate, another protocol), or its
own question (an echo), or a good frame among noise. An exception is an answer.

What bounds it: an answer has ``timeout_s`` from its question to its end, plus the time its characters take on the line;
of what comes meanwhile at most HEARD_MAX bytes are looked at, and who sends more is no Modbus device.
"""

from __future__ import annotations

import asyncio

from edge_agent.errors import DeviceLost
from edge_agent_drivers.modbus.frames import Framing, NotFramed, Request
from edge_agent_drivers.stream.port import LineError, Port

HEARD_MAX = 2048  # the longest frame is one of ASCII, 513 bytes
OPEN_S = 1.0  # a port falls quiet within this
ANSWER_CHARACTERS = 16  # of a usual answer


class Asker:
    """Asks through one port, which it opens when need be. ``noise``, ``echo`` and ``other_unit`` say what came beside
    the answers."""

    def __init__(self, port: Port, framing: Framing, timeout_s: float, character_s: float = 0.0) -> None:
        self.noise = False  # bytes came that belong to no answer
        self.echo = False  # the line gives back what is sent
        self.other_unit: int | None = None  # who answered the last question instead of the unit asked
        self._port = port
        self._framing = framing
        self._timeout_s = timeout_s
        self._character_s = character_s
        self._number = 0

    async def open(self) -> None:
        """Open the port. Raises DeviceUnavailable and DeviceRefused as it does; TimeoutError when it took too long."""
        async with asyncio.timeout(self._timeout_s + OPEN_S):
            await self._port.open()

    async def ask(self, request: Request) -> bytes | None:
        """The PDU that answers, an exception included; None when none came. Raises as :meth:`open` does."""
        if not self._port.is_open:
            await self.open()
        self._number = self._number % 0xFFFF + 1
        question = self._framing.build(request, self._number)
        bound_s = self._timeout_s + (len(question) + ANSWER_CHARACTERS) * self._character_s
        heard = bytearray()
        self.other_unit = None
        try:
            async with asyncio.timeout(bound_s):
                await self._port.send(question)
                return await self._answer(request, heard)
        except TimeoutError:
            self.other_unit = self._framing.other_unit
            if self.other_unit is not None:
                return None
            beside = bytes(heard).removeprefix(question)
            self.echo = self.echo or len(beside) < len(heard)
            self.noise = self.noise or bool(beside)
        except NotFramed:
            self.noise = True
            self.close()
        except DeviceLost:
            self.close()  # it hung up, as some do on a unit id or a function that they do not have
        return None

    async def _answer(self, request: Request, heard: bytearray) -> bytes | None:
        while len(heard) <= HEARD_MAX:
            try:
                heard += await self._port.take()
            except LineError:
                self.noise = True
            answer, _ = self._framing.find(bytes(heard), request, self._number)
            if answer is not None:
                return answer if request.is_answered_by(answer) else None
        raise NotFramed

    def close(self) -> None:
        """Close the port. Idempotent."""
        self._port.close()
