"""What comes over the network is checked before it is believed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.receiver.message import BadMessage, parse, rows

RECORD = {"n": 118, "seq": 90211, "at_ns": "1795293977820854877", "mono_ns": "773254142335", "tagset": "t"}
GOOD: dict[str, Any] = {
    "v": 1, "agent": "l3-pc1", "stream": "9f2c41d07ab3.mes.1", "log": "9f2c41d07ab3", "boot": "b",
    "source": "press.state", "kind": "sample", "n": 118, "after": 90, "confirm": "a/b/c/d/_agent/l3-pc1/confirm",
    "records": [RECORD],
}  # fmt: skip


def read(message: Any) -> Any:
    found = parse(json.dumps(message).encode())
    return found, rows(found)


def test_a_good_one_is_read() -> None:
    message, (row,) = read(GOOD)
    assert (message.ranges, message.after, message.confirm) == ([(118, 118, 90211, 90211)], 90, GOOD["confirm"])
    assert row == (
        "l3-pc1", "9f2c41d07ab3", 90211, "sample", "press.state", 1795293977820854877, 773254142335, True,
        '{"tagset":"t"}',
    )  # fmt: skip


def test_numbers_that_are_not_neighbours_become_ranges() -> None:
    records = [RECORD | {"n": n, "seq": 10 * n} for n in (1, 2, 3, 7, 9, 10)]
    assert read(GOOD | {"records": records})[0].ranges == [(1, 3, 10, 30), (7, 7, 70, 70), (9, 10, 90, 100)]


def test_a_tombstone_covers_its_count() -> None:
    records = [{"n": 5, "count": 3, "reason": "x"}, {"n": 8, "count": 1, "reason": "x"}, {"n": 20, "count": 2}]
    assert parse(json.dumps(GOOD | {"kind": "tombstone", "records": records}).encode()).ranges == [
        (5, 8, 0, 0),
        (20, 21, 0, 0),
    ]


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"v": True}, {"agent": ""}, {"agent": "x" * 300}, {"agent": "a\nb"}, {"stream": 5}, {"log": "../../etc"},
     {"kind": "Sample"}, {"source": None}, {"after": -1}, {"after": True}, {"after": "5"},
     {"confirm": "acme/PLC/write"}, {"confirm": "a/_agent/other/confirm"}, {"confirm": "+/_agent/l3-pc1/confirm"},
     {"confirm": 5}, {"replay": 5}, {"replay": "x" * 300},
     {"records": []}, {"records": {}}, {"records": [5]}, {"records": None},
     {"records": [RECORD | {"n": 0}]}, {"records": [RECORD | {"n": 1.0}]}, {"records": [RECORD | {"n": True}]},
     {"records": [RECORD | {"n": 2**63}]}, {"records": [RECORD, RECORD]},
     {"records": [RECORD | {"n": 2}, RECORD | {"n": 1}]},
     {"records": [RECORD | {"seq": "5"}]}, {"records": [RECORD | {"seq": 2**63}]}, {"records": [RECORD | {"seq": -1}]},
     {"records": [RECORD | {"at_ns": 5}]}, {"records": [RECORD | {"at_ns": "tomorrow"}]},
     {"records": [RECORD | {"at_ns": "9" * 30}]}, {"records": [{"n": 1}]},
     {"kind": "tombstone", "records": [{"n": 1}]}, {"kind": "tombstone", "records": [{"n": 1, "count": 2**63}]},
     {"kind": "tombstone", "records": [5]}],
)  # fmt: skip
def test_a_wrong_one_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read(GOOD | change)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GOOD)), JSON, st.sampled_from(sorted(RECORD)), JSON, st.booleans())
def test_nothing_but_bad_message_is_ever_raised(key: str, value: Any, inner: str, other: Any, whole: bool) -> None:
    message = GOOD | ({key: value} if whole else {"records": [RECORD | {inner: other}]})
    with contextlib.suppress(BadMessage):
        read(message)


@given(st.binary(max_size=100))
def test_noise_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        parse(payload)
