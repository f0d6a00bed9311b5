"""Who is asked when on a shared line, and whose late answer may still come. With a clock of the test's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent_drivers.modbus.patience import PAUSE_MAX_S, SHARE, Owed, Patience


def spent(units: int, timeout_s: float, until_s: float) -> tuple[float, dict[int, list[float]]]:
    """What so many dead units cost a line, each of which is asked as soon as it may be."""
    patience, now_s, cost_s = Patience(), 0.0, 0.0
    asked: dict[int, list[float]] = {unit: [] for unit in range(units)}
    while now_s < until_s:
        unit = min(asked, key=lambda each: (patience.wait_s(each, timeout_s, now_s) > 0, asked[each][-1:]))
        if patience.wait_s(unit, timeout_s, now_s) > 0:
            now_s += 0.25
            continue
        asked[unit].append(now_s)
        now_s += timeout_s
        cost_s += timeout_s
        patience.missed(unit, timeout_s, now_s)
    return cost_s, asked


@pytest.mark.parametrize("units", [1, 3, 6])
@pytest.mark.parametrize("timeout_s", [0.1, 1.0, 3.0])
def test_the_dead_take_their_share_of_the_line_and_no_more(units: int, timeout_s: float) -> None:
    cost_s, asked = spent(units, timeout_s, 3600.0)
    assert cost_s <= 3600 * SHARE + (units + 3) * timeout_s  # each is asked once at first
    for times in asked.values():
        assert len(times) >= 10  # none is forgotten


def test_one_that_is_dead_alone_is_asked_once_a_minute_in_the_end() -> None:
    _, asked = spent(1, 0.1, 3600.0)
    pauses = [after - before for before, after in zip(asked[0], asked[0][1:], strict=False)]
    assert pauses[0] < 1  # a disturbed frame is no death
    assert PAUSE_MAX_S <= pauses[-1] < PAUSE_MAX_S + 1


def test_an_answer_ends_the_waiting() -> None:
    patience = Patience()
    for now_s in range(5):
        patience.missed(7, 1.0, float(now_s))
    assert patience.wait_s(7, 1.0, 5.0) > 0
    assert patience.wait_s(8, 1.0, 5.0) == 0  # nobody has said anything bad of it
    patience.answered(7)
    assert patience.wait_s(7, 1.0, 5.0) == 0
    assert patience.times(7) == 0


def test_a_unit_that_answers_now_and_then_does_not_starve_the_rest_either() -> None:
    patience, now_s, cost_s = Patience(), 0.0, 0.0
    while now_s < 600:
        if patience.wait_s(1, 1.0, now_s) > 0:
            now_s += 0.1
            continue
        patience.answered(1)  # it opens
        now_s += 1.0
        cost_s += 1.0
        patience.missed(1, 1.0, now_s)  # and fails at the first read
    assert cost_s <= 600 * SHARE + 4


def test_an_answer_of_another_function_clears_what_is_owed() -> None:
    owed = Owed()
    owed.asked(1, 3, 10.0, 0.0)
    assert owed.is_unsure(1, 3, 1.0)
    assert not owed.is_unsure(1, 4, 1.0)
    assert not owed.is_unsure(2, 3, 1.0)
    owed.asked(1, 4, 11.0, 1.0)
    owed.answered(1, 4)
    assert not owed.is_unsure(1, 3, 1.0)


def test_an_answer_that_may_be_an_older_one_clears_nothing() -> None:
    owed = Owed()
    owed.asked(1, 3, 10.0, 0.0)
    owed.asked(1, 3, 12.0, 2.0)
    owed.answered(1, 3)
    assert owed.is_unsure(1, 3, 3.0)
    assert not owed.is_unsure(1, 3, 10.5)  # it never came, and never will


class Late:
    """A device that answers in order, some time; and a master that goes by what is owed."""

    def __init__(self) -> None:
        self._owed = Owed()
        self._waiting: list[tuple[int, int]] = []
        self._number = 0

    def ask(self, function: int, aside_comes: int, comes: int) -> bool | None:
        """True: the own answer was taken, False: another's, None: none. So many answers come while it listens."""
        if self._owed.is_unsure(1, function, 0.0):
            asides = [each for each in (3, 4, 1, 2) if each != function]
            aside = next((each for each in asides if not self._owed.is_unsure(1, each, 0.0)), asides[0])
            self._exchange(aside, aside_comes)
            if self._owed.is_unsure(1, function, 0.0):
                return None
        return self._exchange(function, comes)

    def _exchange(self, function: int, comes: int) -> bool | None:
        self._number += 1
        self._owed.asked(1, function, 1.0, 0.0)
        self._waiting.append((function, self._number))
        said, self._waiting = self._waiting[:comes], self._waiting[comes:]
        for its, number in said:
            if its == function:
                self._owed.answered(1, function)
                return number == self._number
        return None


@given(st.lists(st.tuples(st.sampled_from([3, 4]), st.integers(0, 4), st.integers(0, 4)), max_size=60))
def test_no_late_answer_is_ever_taken_for_the_next_ones(asks: list[tuple[int, int, int]]) -> None:
    device = Late()
    assert not [ask for ask in asks if device.ask(*ask) is False]
