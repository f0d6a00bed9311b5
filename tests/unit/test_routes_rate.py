"""``max_rate``: over any time no more than the rate, a burst and one message; and one message always passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.routes.rate import BURST_S, Rate


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 200_000)), min_size=1, max_size=60))
def test_no_more_goes_out_than_the_rate_allows(steps: list[tuple[float, int]]) -> None:
    rate, now_s, sent, largest = Rate(10_000), 100.0, 0, 0
    for pause_s, size in steps:
        now_s += pause_s
        now_s += rate.wait_s(now_s)
        assert rate.wait_s(now_s) < 1e-6, "who has waited may send"
        rate.spend(size, now_s)
        sent, largest = sent + size, max(largest, size)
        assert sent <= 10_000 * (now_s - 100.0 + BURST_S) + largest + 1


def test_a_message_larger_than_a_second_passes_and_is_paid_for() -> None:
    rate = Rate(1000)
    assert rate.wait_s(5.0) == 0
    rate.spend(10_250, 5.0)
    assert rate.wait_s(5.0) == pytest.approx(10.0)
    assert rate.wait_s(12.0) == pytest.approx(3.0)


def test_the_average_shows_what_is_sent_and_fades() -> None:
    rate = Rate(None)
    for second in range(100):
        assert rate.wait_s(float(second)) == 0
        rate.spend(5000, float(second))
    assert rate.average(100.0) == pytest.approx(5000, rel=0.1)
    assert rate.average(200.0) == pytest.approx(0, abs=1)
