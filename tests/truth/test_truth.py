"""The truth test with fewer units, in the suite: `make truth` is the whole of it."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from truth import mutants, oracle
from truth.floor import FLOOR
from truth.run import judge, run
from truth.score import total
from truth.shift import Floor
from truth.visits import BLIND, LEAVES_OPEN

UNITS = 500  # about 2,000 come: every cell has to


@pytest.fixture(scope="module")
def played() -> list:
    return run(UNITS, 1, list(FLOOR), 1)


def test_nothing_is_misbound_and_all_that_can_be_known_is(played: list) -> None:
    good, sum_, _, lines = judge(played, list(FLOOR))
    assert good, "\n".join([str(sum_), *lines])
    assert sum_.units >= 1500
    assert sum_.injected > 200


def test_every_cell_of_the_oracle_came(played: list) -> None:
    came = {key for one in played for key, tally in one.cells.items() if tally.units}
    assert [cell for cell in oracle.cells() if cell not in came] == []


def test_every_disturbance_is_described_and_stands_somewhere() -> None:
    assert {disturbance for _, disturbance in oracle.cells()} == set(oracle.DISTURBANCES)


def test_the_oracle_imports_nothing_of_the_agent() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert sorted(str(name) for name in imported) == ["__future__", "dataclasses", "typing"]


@pytest.mark.parametrize("mutant", mutants.MUTANTS + mutants.MORE, ids=lambda mutant: mutant.name)
def test_a_mutant_still_fits_the_source(mutant: mutants.Mutant) -> None:
    source = (mutants.ROOT / "edge_agent" / "binding" / mutant.file).read_text()
    assert source.count(mutant.old) == 1


class Shop(RuleBasedStateMachine):
    """One station; whatever comes after whatever, the records say of each unit what the oracle says."""

    floor: Floor | None = None

    @initialize(
        strategy=st.sampled_from(["scan_in_out", "late_scan", "lot_consumption", "gate"]), seed=st.integers(0, 99)
    )
    def begin(self, strategy: str, seed: int) -> None:
        self.floor = Floor(FLOOR[strategy][:1], random.Random(seed))
        (self.station,) = self.floor.stations
        self.last = ""
        self.come("none")

    def come(self, disturbance: str) -> None:
        self.station.deck = [disturbance]
        self.floor.line.run(self.station.play())
        self.last = disturbance

    @precondition(lambda self: self.floor is not None)
    @rule(data=st.data())
    def a_unit_comes(self, data: st.DataObject) -> None:
        row = oracle.ORACLE[self.station.strategy]
        after = self.last in LEAVES_OPEN
        self.come(data.draw(st.sampled_from([name for name in row if not (after and name in BLIND)])))

    @precondition(lambda self: self.floor is not None)
    @rule(seconds=st.sampled_from([1.0, 15.0, 90.0]))
    def nothing_happens(self, seconds: float) -> None:
        self.floor.line.run(iter([seconds]))

    def teardown(self) -> None:
        if self.floor is None:
            return
        self.station.deck = ["none", "none"]
        self.floor.line.run(self.station.script())
        score = self.floor.score()
        self.floor.line.close()
        sum_ = total(score.cells.values())
        assert score.cases == []
        assert (sum_.misbound, sum_.false, sum_.differs) == (0, 0, 0)
        assert (sum_.bound, sum_.raised) == (sum_.bindable, sum_.injected)


Shop.TestCase.settings = settings(
    max_examples=20, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestShop = Shop.TestCase
