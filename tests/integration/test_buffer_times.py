"""From instants to seqs on real files: exact where the clock was sound, the widest range where it was not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_agent.buffer import open_readonly, schema
from edge_agent.buffer.times import seqs_between
from edge_agent.model import Instant, Kind, Record
from support.buffer_rig import asynchronous, opened

S = 10**9
T = 1_800_000_000 * S


def table(path: Path, *logs: list[tuple[int, int, int]]) -> sqlite3.Connection:
    """A buffer with these (seq, at_ns, mono_ns) in each log."""
    db = sqlite3.connect(path, isolation_level=None)
    schema.create(db)
    db.execute("BEGIN")
    for number, points in enumerate(logs):
        db.execute("INSERT INTO log VALUES (?, ?, 'b', 'a', 0)", (f"log{number}", points[0][0]))
        rows = [(seq, 4, 1, at, mono, 1, b"{}", b"") for seq, at, mono in points]
        db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.execute("COMMIT")
    return db


def steady(first: int, last: int, start: int = T) -> list[tuple[int, int, int]]:
    """A record a second."""
    return [(seq, start + (seq - first) * S, (seq - first + 5) * S) for seq in range(first, last + 1)]


def test_exactly_what_is_between(tmp_path: Path) -> None:
    db = table(tmp_path / "b", steady(1, 1000))
    assert seqs_between(db, T + 10 * S, T + 20 * S) == (11, 21)
    assert seqs_between(db, T - 10 * S, T + 20 * S) == (1, 21)
    assert seqs_between(db, T + 990 * S, T + 9999 * S) == (991, 1000)
    assert seqs_between(db, T + 10 * S + 1, T + 11 * S - 1) is None
    assert seqs_between(db, T + 2000 * S, T + 3000 * S) is None
    assert seqs_between(db, T - 20 * S, T - 10 * S) is None


def test_over_several_logs_and_across_what_was_deleted(tmp_path: Path) -> None:
    db = table(tmp_path / "b", steady(1, 100), steady(101, 200, T + 500 * S), steady(201, 300, T + 1000 * S))
    db.execute("DELETE FROM record WHERE seq BETWEEN 50 AND 130")
    assert seqs_between(db, T + 40 * S, T + 535 * S) == (41, 136)
    assert seqs_between(db, T + 60 * S, T + 520 * S) is None
    assert seqs_between(db, T + 60 * S, T + 1000 * S) == (131, 201)


def test_a_clock_that_fell_back_gives_both_passes(tmp_path: Path) -> None:
    first = steady(1, 100)  # T … T+99
    second = [(seq, T + (seq - 101) * S, (seq + 4) * S) for seq in range(101, 201)]  # T … T+99 once more
    db = table(tmp_path / "b", first + second)
    assert seqs_between(db, T + 90 * S, T + 95 * S) == (91, 196)


@pytest.mark.parametrize("since_s, until_s, found", [(-100, -50, (1, 51)), (0, 10, (101, 111)), (-3, 2, (98, 103))])
def test_what_was_recorded_in_1970_is_found_by_its_true_time(
    tmp_path: Path, since_s: int, until_s: int, found: tuple[int, int]
) -> None:
    first = [(seq, seq * S, seq * S) for seq in range(1, 101)]  # no battery: 1970
    second = [(seq, T + (seq - 101) * S, seq * S) for seq in range(101, 201)]  # then NTP answered
    db = table(tmp_path / "b", first + second)
    assert seqs_between(db, T + since_s * S, T + until_s * S) == found


def test_a_clock_that_is_stepped_all_the_time_ends_the_search_none_the_less(tmp_path: Path) -> None:
    points = [(seq, T - seq * 10 * S, seq * S) for seq in range(1, 500)]
    db = table(tmp_path / "b", points)
    last_offset = points[-1][1] - points[-1][2]
    assert seqs_between(db, last_offset + 100 * S, last_offset + 200 * S) is not None


def test_it_never_scans(tmp_path: Path) -> None:
    db = table(tmp_path / "b", steady(1, 50_000))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(count, 100)
    assert seqs_between(db, T + 10_000 * S, T + 20_000 * S) == (10_001, 20_001)
    assert steps < 100  # of 100 instructions each; a scan takes some thousand


@asynchronous
async def test_on_a_buffer_that_an_agent_is_writing(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        first = buffer.next_seq
        body = {"tagset": "t", "took_us": 1, "values": []}
        buffer.append([Record(Kind.SAMPLE, "a.b", Instant(T + n * S, n * S), body) for n in range(100)])
        await buffer.committed(buffer.next_seq - 1)
        archive = open_readonly(tmp_path)
        found = archive.seqs_between(T + 10 * S, T + 20 * S)
        archive.close()
    assert found is not None
    assert found[0] <= first + 10 and found[1] >= first + 20
