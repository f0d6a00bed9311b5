"""A confirmation comes from a network: whatever is not one is refused with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.routes.confirmation import MAX_BYTES, BadConfirmation, parse

GOOD = {"v": 1, "agent": "a", "stream": "s", "upto": 118, "nack": [{"n": 97, "reason": "unknown part"}]}


def test_a_good_one_is_read() -> None:
    said = parse(json.dumps(GOOD).encode())
    assert (said.agent, said.stream, said.upto, said.nack) == ("a", "s", 118, {97: "unknown part"})
    assert parse(json.dumps({key: GOOD[key] for key in ("v", "agent", "stream", "upto")}).encode()).nack == {}


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"v": True}, {"v": "1"}, {"agent": 5}, {"stream": None}, {"upto": -1}, {"upto": True}, {"upto": "118"},
     {"upto": 1.5}, {"upto": 2**63}, {"nack": {}}, {"nack": [5]}, {"nack": [{"n": 1}]},
     {"nack": [{"n": "1", "reason": "x"}]}, {"nack": [{"n": 1, "reason": None}]},
     {"nack": [{"n": 1, "reason": "x"}] * 10_001}],
)  # fmt: skip
def test_a_wrong_one_is_refused(change: dict) -> None:
    with pytest.raises(BadConfirmation):
        parse(json.dumps(GOOD | change).encode())


def test_a_huge_one_is_refused_unread() -> None:
    with pytest.raises(BadConfirmation):
        parse(b" " * (MAX_BYTES + 1))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_nothing_but_bad_confirmation_is_ever_raised(payload: bytes) -> None:
    with pytest.raises(BadConfirmation):
        parse(payload)
