"""The tracker against the obvious model: a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.receiver import tracker as module
from edge_agent.receiver.tracker import Range, TooManyHoles, Tracker

RANGE = st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(RANGE | st.integers(0, 60), max_size=40))
def test_it_knows_exactly_what_came(steps: list[tuple[int, int] | int]) -> None:
    tracker, here, lost = Tracker(), {0}, set()
    for step in steps:
        if isinstance(step, int):
            gone = {n for hole in tracker.settled(step) for n in range(hole.first, hole.last + 1)}
            assert gone == set(range(1, step + 1)) - here, "what is settled and not here is lost, and said once"
            lost |= gone
            here |= set(range(step + 1))
        else:
            tracker.add([Range(*step)])
            here |= set(range(step[0], step[1] + 1))
        missing = [n for n in range(1, 100) if n not in here]
        assert tracker.upto == missing[0] - 1
        assert {n for each in tracker.ranges for n in range(each.first, each.last + 1)} == {
            n for n in here if n > tracker.upto
        }
        assert tracker.highest == max(here)
        assert {n for hole in tracker.holes() for n in range(hole.first, hole.last + 1)} == set(
            range(1, tracker.highest)
        ) - here


def test_an_unknown_stream_begins_where_its_sender_is() -> None:
    tracker = Tracker(known=False)
    assert tracker.settled(5000) == [], "what was before our time is not lost to us"
    assert tracker.upto == 5000


def test_holes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RANGES", 3)
    tracker = Tracker()
    tracker.add([Range(2, 2), Range(4, 4), Range(6, 6)])
    with pytest.raises(TooManyHoles):
        tracker.add([Range(8, 8)])
    assert tracker.highest == 6, "a message that is not taken leaves no trace"
    tracker.add([Range(1, 1), Range(8, 8)])
    assert (tracker.upto, tracker.ranges) == (2, [Range(4, 4), Range(6, 6), Range(8, 8)])


SEQS = {n: 10 * n + n % 3 for n in range(1, 80)}  # ascends, with room between for what a route does not send


@given(st.lists(RANGE, max_size=12), st.integers(0, 60), st.sets(st.integers(1, 79), max_size=20))
def test_the_seqs_of_a_hole_lie_between_those_of_its_neighbours(
    steps: list[tuple[int, int]], after: int, stones: set[int]
) -> None:
    tracker, here = Tracker(), set()
    for first, last in steps:
        known = [SEQS[n] for n in range(first, last + 1) if n not in stones]
        tracker.add([Range(first, last, min(known, default=0), max(known, default=0))])
        here |= set(range(first, last + 1))
    holes = tracker.holes()
    for hole in [*holes, *tracker.settled(after, SEQS[max({after, *here}) + 1])]:
        inside = [SEQS[n] for n in range(hole.first, hole.last + 1)]
        assert hole.low_seq <= inside[0]
        assert hole.high_seq == 0 or hole.high_seq >= inside[-1]
        neighbours = {hole.first - 1, hole.last + 1} & here
        if len(neighbours) == 2 and not neighbours & stones:
            assert (hole.low_seq, hole.high_seq) == (SEQS[hole.first - 1] + 1, SEQS[hole.last + 1] - 1)
