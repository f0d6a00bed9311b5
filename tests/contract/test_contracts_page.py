"""docs/contracts.md and the code say the same: every kind, field, state and code named there exists, and no other."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from edge_agent.binding.findings import SEVERITY
from edge_agent.binding.handshake import State
from edge_agent.model import BindingState, Kind
from edge_agent.records import ClosedBy, OpenedBy
from support.contract import PAGE, body_fields, listed

ELSEWHERE = {"storage"}
"""The buffer's own code."""


def test_the_page_lists_exactly_the_record_kinds() -> None:
    assert set(body_fields()) == {kind.label for kind in Kind}


def test_the_page_lists_exactly_the_finding_codes() -> None:
    assert set(listed("Finding codes:")) == set(SEVERITY) | ELSEWHERE


def test_the_page_lists_exactly_the_binding_states() -> None:
    table = PAGE.partition("| binding state | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [str(state) for state in BindingState]


def test_the_page_lists_exactly_the_handshake_states() -> None:
    table = PAGE.partition("| state | leaves when | does |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [str(state) for state in State]


@pytest.mark.parametrize(
    ("heading", "literal"),
    [("| opened_by | when |", OpenedBy), ("| closed_by | when | result |", ClosedBy)],
)
def test_the_page_says_of_each_way_in_which_a_cycle_begins_and_ends_when(heading: str, literal: object) -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE.partition(heading)[2].partition("\n\n")[0], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(get_args(literal))
