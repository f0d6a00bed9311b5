"""What a technician may type for a time, and what is told when it is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from edge_agent.cli import UsageProblem
from edge_agent.cli.instants import instant_ns


@pytest.fixture(autouse=True)
def in_suzhou(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("text, ago_s", [("2h", 7200), ("90min", 5400), ("3d", 259200), ("0s", 0), ("2h ago", 7200)])
def test_a_time_ago(text: str, ago_s: int) -> None:
    before = time.time_ns()
    assert before - ago_s * 10**9 <= instant_ns(text, "--since") <= time.time_ns() - ago_s * 10**9


@pytest.mark.parametrize(
    "text, utc",
    [
        ("2025-11-03 06:00", "2025-11-02T22:00:00+00:00"),
        ("2025-11-03T06:00:30.250", "2025-11-02T22:00:30.250+00:00"),
        ("2025-11-03T06:00+01:00", "2025-11-03T05:00:00+00:00"),
        ("2025-11-03T06:00Z", "2025-11-03T06:00:00+00:00"),
        ("2025-11-03", "2025-11-02T16:00:00+00:00"),
    ],
)
def test_a_local_time_or_one_with_its_offset(text: str, utc: str) -> None:
    assert instant_ns(text, "--since") == round(datetime.fromisoformat(utc).timestamp() * 1000) * 1_000_000


def test_a_time_of_today_and_nanoseconds_as_json_prints_them() -> None:
    at = datetime.fromtimestamp(instant_ns("6:05", "--since") / 1e9)
    assert (at.date(), at.hour, at.minute) == (datetime.now().date(), 6, 5)
    assert instant_ns("1795293977820854877", "--since") == 1795293977820854877


@pytest.mark.parametrize("text", ["", "yesterday", "2 hours", "25:00", "2025-13-01", "12", "-2h", "9" * 30])
def test_what_is_no_time_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"--since .* is no time") as caught:
        instant_ns(text, "--since")
    assert "2h" in caught.value.hint
