"""The PLC's side of the gate at a station: ask by a new number, honour nothing but an answer that carries it.

::

    PLC    request = 17 ───────────────────────────── reads verdict, reason ── request = 0
    agent               └► verdict, reason, answer = 17 ───────────────────────────────── answer = 0

An answer that stands there from before has another number, so it lets nobody in. While nobody answers, nobody enters.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edge_agent.demo.plc import SCAN_S, Image

PERMIT = 1
ON_HOLD = frozenset({20, 21, 22})  # reason codes: hold, scrap, rework ordered by the QMS
STEP_BEFORE = frozenset({4, 10, 11, 12})  # unknown unit; no, failed or incomplete result of the step before
_NUMBERS = 65535


@dataclass(frozen=True, slots=True)
class GateRegisters:
    """Where the exchange stands in the image: ``request`` is an input register, the others are holding registers."""

    request: int
    answer: int
    verdict: int
    reason: int


class PlcGate:
    """One position's gate."""

    def __init__(self, image: Image, registers: GateRegisters) -> None:
        self._image, self._at = image, registers
        self.number = 0  # of the last request

    async def ask(self) -> int:
        """May the unit in the position enter? 0, or the reason's code why not. Waits for ever."""
        image, at = self._image, self._at
        self.number = self.number % _NUMBERS + 1
        image.inputs[at.request] = self.number
        while image.holding[at.answer] != self.number:  # noqa: ASYNC110  as a PLC does
            await asyncio.sleep(SCAN_S)
        permitted, code = image.holding[at.verdict] == PERMIT, image.holding[at.reason]
        image.inputs[at.request] = 0
        return 0 if permitted else code
