"""What the truth test found: one history each, so that it stays found."""

from __future__ import annotations

import random

import pytest

from truth.floor import FLOOR
from truth.score import Tally, total
from truth.shift import Floor


def played(strategy: str, deck: list[str], seed: int) -> Tally:
    """One station, these disturbances."""
    with Floor(FLOOR[strategy][:1], random.Random(seed)) as floor:
        (station,) = floor.stations
        station.deck = deck
        floor.line.run(station.script())
        score = floor.score()
    assert score.cases == []
    return total(score.cells.values())


@pytest.mark.parametrize("seed", range(4))
def test_a_lot_with_the_number_of_the_loaded_one_and_another_date_is_a_copy(seed: int) -> None:
    assert played("lot_consumption", ["none", "copied_lot", "none"], seed).raised == 1


@pytest.mark.parametrize("seed", range(4))
def test_who_was_in_the_oven_over_a_restart_and_never_came_out_is_in_doubt(seed: int) -> None:
    sum_ = played("time_window", ["none", "no_exit", "none", "restart", "none"], seed)
    assert sum_.misbound == 0 and sum_.bound == sum_.bindable > 0


@pytest.mark.parametrize("seed", range(4))
def test_the_scan_of_what_waited_over_a_restart_makes_nobody_else_doubtful(seed: int) -> None:
    sum_ = played("late_scan", ["none", "restart_pending", "none", "none"], seed)
    assert sum_.misbound == 0 and sum_.bound == sum_.bindable > 0
