"""placeholder"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer


class Retention:
    def __init__(self, buffer: Buffer) -> None:
        self.dropped = 0
        self.shedding = False

    async def step(self) -> None:
        return
