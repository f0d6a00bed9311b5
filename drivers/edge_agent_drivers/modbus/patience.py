"""What a shared line knows of those that do not answer. Pure: the time is handed in.

:class:`Patience` keeps a dead device from starving the rest. The time that the line spent waiting for nothing is a
debt, paid off at SHARE of the time that passes. A device that did not answer is asked again at once while the debt is
small (a disturbed frame is no death); then it waits until the debt is paid down, and longer each time, up to a minute.
The first answer ends all that.

:class:`Owed` keeps a late answer from being taken for the next one's, where answers carry no number (RTU, ASCII). A
device answers in order. So after a request without an answer, a request of the same function is not sent before
another question, of another function, was answered: what comes late comes before that.
"""

from __future__ import annotations

from collections.abc import Iterator

SHARE = 0.08  # of the line's time, for all who do not answer together
AT_ONCE = 2  # time-outs that may be owed before anybody waits
PAUSE_FIRST_S = 2.0
PAUSE_MAX_S = 60.0
OWED_TIMEOUTS = 10  # an answer that is later than this many time-outs never comes


class Patience:
    """See the module docstring."""

    def __init__(self) -> None:
        self._missed: dict[int, tuple[int, float]] = {}  # unit id → how often in a row, when it may be asked again
        self._debt_s = 0.0
        self._counted_at_s = 0.0

    def missed(self, unit_id: int, spent_s: float, now_s: float) -> None:
        """It did not answer, and that took so long."""
        self._debt_s = self._owing_s(now_s) + spent_s
        self._counted_at_s = now_s
        times = self._missed.get(unit_id, (0, 0.0))[0] + 1
        pause_s = 0.0 if times == 1 else min(PAUSE_FIRST_S * 2 ** min(times - 2, 10), PAUSE_MAX_S)
        self._missed[unit_id] = (times, now_s + pause_s)

    def answered(self, unit_id: int) -> None:
        """It is there."""
        if self._missed:
            self._missed.pop(unit_id, None)

    def times(self, unit_id: int) -> int:
        """How often in a row it did not answer."""
        return self._missed.get(unit_id, (0, 0.0))[0]

    def wait_s(self, unit_id: int, timeout_s: float, now_s: float) -> float:
        """How long the line has no time for this one; 0 or less: none."""
        if unit_id not in self._missed:
            return 0.0
        paid_s = (self._owing_s(now_s) - AT_ONCE * timeout_s) / SHARE
        return max(self._missed[unit_id][1] - now_s, paid_s)

    def _owing_s(self, now_s: float) -> float:
        return max(0.0, self._debt_s - SHARE * (now_s - self._counted_at_s))


class Owed:
    """See the module docstring."""

    def __init__(self) -> None:
        self._until: dict[int, dict[int, list[float]]] = {}  # unit id → function → until when each may still come

    def asked(self, unit_id: int, function: int, until_s: float, now_s: float) -> None:
        """A request goes out; its answer may come until then."""
        functions = self._until.setdefault(unit_id, {})
        functions[function] = [*_left(functions.get(function, []), now_s), until_s]

    def answered(self, unit_id: int, function: int) -> None:
        """An answer came: the one to the last such request if no other is owed, and then to all before it."""
        asked = self._until.get(unit_id, {}).get(function, [])
        if asked:
            asked.pop()
        if not asked:
            self._until.pop(unit_id, None)

    def is_unsure(self, unit_id: int, function: int, now_s: float) -> bool:
        """Whether the answer to such a request could be that of an earlier one."""
        functions = self._until.get(unit_id)
        if not functions:
            return False
        functions[function] = list(_left(functions.get(function, []), now_s))
        return bool(functions[function])


def _left(until_s: list[float], now_s: float) -> Iterator[float]:
    return (each for each in until_s if each > now_s)
