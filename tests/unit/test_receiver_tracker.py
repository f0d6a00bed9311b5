"""The tracker against the obvious model: a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.receiver import tracker as module
from edge_agent.receiver.tracker import TooManyHoles, Tracker

RANGE = st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(RANGE | st.integers(0, 60), max_size=40))
def test_it_knows_exactly_what_came(steps: list[tuple[int, int] | int]) -> None:
    tracker, here, lost = Tracker(), {0}, set()
    for step in steps:
        if isinstance(step, int):
            gone = {n for first, last in tracker.settled(step) for n in range(first, last + 1)}
            assert gone == set(range(1, step + 1)) - here, "what is settled and not here is lost, and said once"
            lost |= gone
            here |= set(range(step + 1))
        else:
            tracker.add([step])
            here |= set(range(step[0], step[1] + 1))
        missing = [n for n in range(1, 100) if n not in here]
        assert tracker.upto == missing[0] - 1
        assert {n for first, last in tracker.ranges for n in range(first, last + 1)} == {
            n for n in here if n > tracker.upto
        }
        assert tracker.highest == max(here)
        if tracker.hole is not None:
            first, last = tracker.hole
            assert not here & set(range(first, last + 1))
            assert last + 1 in here


def test_an_unknown_stream_begins_where_its_sender_is() -> None:
    tracker = Tracker(known=False)
    assert tracker.settled(5000) == [], "what was before our time is not lost to us"
    assert tracker.upto == 5000


def test_holes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RANGES", 3)
    tracker = Tracker()
    tracker.add([(2, 2), (4, 4), (6, 6)])
    with pytest.raises(TooManyHoles):
        tracker.add([(8, 8)])
    assert tracker.highest == 6, "a message that is not taken leaves no trace"
    tracker.add([(1, 1), (8, 8)])
    assert (tracker.upto, tracker.ranges) == (2, [(4, 4), (6, 6), (8, 8)])
