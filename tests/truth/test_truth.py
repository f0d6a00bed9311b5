"""The truth test with fewer units, in the suite: `make truth` is the whole of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from truth import mutants, oracle
from truth.floor import FLOOR
from truth.run import judge, run

UNITS = 1500


@pytest.fixture(scope="module")
def played() -> list:
    return run(UNITS, 1, list(FLOOR), 1)


def test_nothing_is_misbound_and_all_that_can_be_known_is(played: list) -> None:
    good, sum_, _, lines = judge(played, list(FLOOR))
    assert good, "\n".join([str(sum_), *lines])
    assert sum_.units >= UNITS * 0.9
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


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_still_fits_the_source(mutant: mutants.Mutant) -> None:
    source = (mutants.ROOT / "edge_agent" / "binding" / mutant.file).read_text()
    assert source.count(mutant.old) == 1
