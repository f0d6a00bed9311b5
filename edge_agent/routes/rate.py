"""How fast a route sends: the bound that the config sets, and the figure that the status shows.

The bound is a bucket that may go into debt: whoever finds it not empty may send one message of any size, and the next
one waits until that is paid. So a message larger than a second's worth still passes, and over time no more goes out
than ``max_rate`` and one message. Who waits chooses its message only when it may send: live records pass the rest.
"""

from __future__ import annotations

import asyncio
from math import exp

BURST_S = 0.25  # what the bucket holds while nothing is sent
AVERAGE_S = 10.0


class Rate:
    """Of one route, over its connections. ``limit``: bytes a second, None for as fast as it goes."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._has = 0.0 if limit is None else limit * BURST_S
        self._average = 0.0
        self._then_s = float("-inf")
        self._next = asyncio.Lock()

    async def allowed(self) -> None:
        """Wait until a message may be sent. The caller then spends it without waiting for anything else."""
        if self.limit is None:
            return
        async with self._next:
            while self._refill(asyncio.get_running_loop().time()) <= 0:  # noqa: ASYNC110  only time pays
                await asyncio.sleep(-self._has / self.limit + 0.001)

    def spend(self, size: int) -> None:
        """One message of ``size`` bytes goes out now."""
        self._refill(asyncio.get_running_loop().time())
        self._has -= size
        self._average += size / AVERAGE_S

    def now(self) -> int:
        """Bytes a second, over the last ten seconds or so."""
        self._refill(asyncio.get_running_loop().time())
        return round(self._average)

    def _refill(self, now_s: float) -> float:
        passed_s = now_s - self._then_s
        self._then_s = now_s
        self._average *= exp(-passed_s / AVERAGE_S)
        if self.limit is not None:
            self._has = min(self._has + passed_s * self.limit, self.limit * BURST_S)
        return self._has
