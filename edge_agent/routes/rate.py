"""How fast a route sends: the bound that the config sets, and the figure that the status shows. Pure.

The bound is a bucket that may go into debt: whoever finds it not empty may send one message of any size, and the next
one waits until that is paid. So a message larger than a second's worth still passes, and over time no more goes out
than ``max_rate`` and one message.
"""

from __future__ import annotations

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

    def wait_s(self, now_s: float) -> float:
        """For how long nothing may be sent yet; 0 when one message may."""
        if self.limit is None:
            return 0.0
        self._pass(now_s)
        return max(0.0, -self._has / self.limit)

    def spend(self, size: int, now_s: float) -> None:
        """One message of ``size`` bytes goes out now."""
        self._pass(now_s)
        self._has -= size
        self._average += size / AVERAGE_S

    def average(self, now_s: float) -> int:
        """Bytes a second, over the last ten seconds or so."""
        self._pass(now_s)
        return round(self._average)

    def _pass(self, now_s: float) -> None:
        passed_s = now_s - self._then_s
        self._then_s = now_s
        self._average *= exp(-passed_s / AVERAGE_S)
        if self.limit is not None:
            self._has = min(self._has + passed_s * self.limit, self.limit * BURST_S)
