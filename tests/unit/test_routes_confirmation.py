"""A confirmation comes from a network: whatever is not one is refused with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.routes.confirmation import MAX_BYTES, Ask, BadConfirmation, parse

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


ASK = {"id": "ask-1", "route": "mes", "log": "9f2c41d07ab3", "first_seq": 1001, "last_seq": 1399}


def test_a_request_for_a_range_is_read() -> None:
    said = parse(json.dumps({"v": 1, "agent": "a", "replay": ASK}).encode())
    assert said == Ask("a", "ask-1", "mes", "9f2c41d07ab3", 1001, 1399)


@pytest.mark.parametrize(
    "change",
    [{"id": ""}, {"id": "x" * 65}, {"id": 5}, {"id": "a\n"}, {"route": None}, {"log": "x" * 100}, {"first_seq": 0},
     {"first_seq": -1}, {"first_seq": 1400}, {"first_seq": True}, {"last_seq": "1399"}, {"last_seq": 2**63}],
)  # fmt: skip
def test_a_wrong_request_is_refused(change: dict) -> None:
    with pytest.raises(BadConfirmation):
        parse(json.dumps({"v": 1, "agent": "a", "replay": ASK | change}).encode())
    for replay in (None, [], "all", 5):
        with pytest.raises(BadConfirmation):
            parse(json.dumps({"v": 1, "agent": "a", "replay": replay}).encode())


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_nothing_but_bad_confirmation_is_ever_raised(payload: bytes) -> None:
    with pytest.raises(BadConfirmation):
        parse(payload)
