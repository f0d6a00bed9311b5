"""Deleting from the log, and what that leaves behind: gaps in the ledger, holes in the lanes.

A *gap* is a range of seq that is no longer in the log, with the hash at its end. A *hole* is a range of a lane whose
records will not be sent; it counts them, so that the numbers after it stay what they were. Everything here runs on
the writer's thread, inside its transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from edge_agent import clock
from edge_agent.buffer import lanes
from edge_agent.model import Kind

DEAD_LETTER_NS = 30 * 86400 * 10**9  # refused records stay for a retry this long

Range = tuple[int, int]
"""An inclusive range of seq."""


def without(whole: Range, holes: Iterable[Range]) -> list[Range]:
    """``whole`` minus ``holes``, which are sorted by their first seq."""
    first, last = whole
    rest = []
    for start, end in holes:
        if start > first:
            rest.append((first, min(start - 1, last)))
        first = max(first, end + 1)
        if first > last:
            return rest
    return [*rest, (first, last)]


def delete(db: sqlite3.Connection, first: int, last: int, reason: str) -> None:
    """Delete a run of records (gaps inside are swallowed), keeping the hash at its end."""
    sql = "SELECT seq, hash FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT 1"
    row = db.execute(sql, (first, last)).fetchone()
    if row is None:
        return
    end, digest = row
    db.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, end))
    db.execute("DELETE FROM gap WHERE first_seq BETWEEN ? AND ?", (first, end))
    extend_gap(db, first, end, digest, reason)


def extend_gap(db: sqlite3.Connection, first: int, last: int, digest: bytes, reason: str) -> None:
    """Note that [first, last] is not in the log; ``digest`` is the hash that the next record is chained to."""
    sql = "UPDATE gap SET last_seq = ?, hash = ? WHERE first_seq = (SELECT max(first_seq) FROM gap WHERE first_seq < ?)"
    joined = db.execute(sql + " AND last_seq = ? AND reason = ?", (last, digest, first, first - 1, reason)).rowcount
    if not joined:
        db.execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (first, last, digest, reason))


def floor(db: sqlite3.Connection, *, attached_only: bool) -> int:
    """The seq up to which every route is done. A hole counts as done."""
    (head,) = db.execute("SELECT max(seq) FROM record").fetchone()
    lowest = (head or 1) - 1  # the last record stays: the next log continues from its hash
    sql = f"SELECT l.id, l.seq FROM lane l JOIN route r ON r.name = l.route WHERE {lanes.UNFINISHED}"
    for lane, seq in db.execute(sql + (" AND r.attached" if attached_only else "")).fetchall():
        lowest = min(lowest, done(db, lane, seq))
    return int(lowest)


def done(db: sqlite3.Connection, lane: int, seq: int) -> int:
    """Where a lane really stands: its cursor, moved over the holes that follow it."""
    for first, last in db.execute("SELECT first_seq, last_seq FROM hole WHERE lane = ? ORDER BY last_seq", (lane,)):
        if first > seq + 1:
            break
        seq = max(seq, last)
    return seq


def protected(db: sqlite3.Connection, first: int, last: int) -> list[Range]:
    """Ranges that must stay: windows of cycles that are not closed, and recent dead letters."""
    windows = db.execute(
        "SELECT w.first_seq, w.last_seq FROM cycle c JOIN cycle_window w ON w.cycle = c.cycle"
        " WHERE c.state <> 'closed' AND w.last_seq >= ? AND w.first_seq <= ?",
        (first, last),
    ).fetchall()
    letters = db.execute(
        "SELECT seq, seq FROM dead_letter WHERE seq BETWEEN ? AND ? AND at_ns > ?",
        (first, last, clock.now().at_ns - DEAD_LETTER_NS),
    ).fetchall()
    return sorted(windows + letters)


def loose_runs(db: sqlite3.Connection, first: int, last: int) -> list[Range]:
    """Runs of seq inside [first, last] that are samples of no cycle and may go."""
    (span,) = db.execute("SELECT coalesce(max(last_seq - first_seq), 0) FROM cycle_window").fetchone()
    windows: dict[int, list[Range]] = {}
    sql = "SELECT source, first_seq, last_seq FROM cycle_window WHERE last_seq BETWEEN ? AND ? AND first_seq <= ?"
    for source, start, end in db.execute(sql + " ORDER BY first_seq", (first, last + span, last)):
        windows.setdefault(source, []).append((start, end))
    runs: list[Range] = []
    sql = "SELECT seq, source FROM record WHERE seq BETWEEN ? AND ? AND kind = ? ORDER BY seq"
    for seq, source in db.execute(sql, (first, last, int(Kind.SAMPLE))):
        if any(start <= seq <= end for start, end in windows.get(source, ())):
            continue
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    spared = protected(db, first, last)
    return [part for run in runs for part in without(run, spared)]


def overdue(db: sqlite3.Connection, route: str, limit_bytes: int, used_bytes: int) -> tuple[int, int, int] | None:
    """(lane, first_seq, last_seq) of the oldest that a route has pending beyond ``limit_bytes``; None if within."""
    first, last = db.execute("SELECT min(seq), max(seq) FROM record").fetchone()
    if first is None:
        return None
    sql = f"SELECT id, seq, coalesce(to_seq, ?) FROM lane WHERE route = ? AND {lanes.UNFINISHED} ORDER BY from_seq"
    pending = [(lane, done(db, lane, seq), end) for lane, seq, end in db.execute(sql, (last, route)).fetchall()]
    rows_within = int(limit_bytes / (used_bytes / (last - first + 1)))
    excess = sum(max(0, end - seq) for _, seq, end in pending) - rows_within
    for lane, seq, end in pending:
        if excess > 0 and seq < end:
            return lane, seq + 1, min(end, seq + excess)
    return None


def make_holes(
    db: sqlite3.Connection, first: int, last: int, passed: Mapping[int, int], reason: str, only: int | None = None
) -> None:
    """Give each lane that still wants records of [first, last] (or lane ``only``) a hole that counts them.

    Split where a lane's rows were already handed out (``passed``): numbers in use keep standing for the same records.
    """
    stations = [name for (name,) in db.execute("SELECT name FROM station")]
    sql = (
        "SELECT id, from_seq, coalesce(to_seq, ?1), seq, kinds, stations FROM lane"
        f" WHERE {lanes.UNFINISHED} AND seq < ?1 AND from_seq <= ?1 AND coalesce(to_seq, ?1) >= ?2"
    )
    for lane, from_seq, to_seq, seq, kinds, names in db.execute(sql, (last, first)).fetchall():
        if only is not None and lane != only:
            continue
        wanted = lanes.RouteFilter.of(kinds, names)
        whole = (max(first, from_seq, seq + 1), min(last, to_seq))
        known = db.execute("SELECT first_seq, last_seq FROM hole WHERE lane = ? ORDER BY first_seq", (lane,)).fetchall()
        border = passed.get(lane, 0)
        for start, end in without(whole, known):
            for begin, finish in ((start, min(end, border)), (max(start, border + 1), end)):
                if begin <= finish:
                    count = lanes.count(db, begin, finish, wanted, wanted.refused(stations), lane)
                    _add_hole(db, lane, begin, finish, count, reason, border)


def _add_hole(db: sqlite3.Connection, lane: int, first: int, last: int, count: int, reason: str, border: int) -> None:
    """Insert a hole, joined with the one before it while no route has seen that one."""
    sql = "SELECT first_seq, count FROM hole WHERE lane = ? AND last_seq = ? AND first_seq > ? AND reason = ?"
    before = db.execute(sql, (lane, first - 1, border, reason)).fetchone()
    if before is not None:
        db.execute("DELETE FROM hole WHERE lane = ? AND last_seq = ?", (lane, first - 1))
        first, count = before[0], before[1] + count
    db.execute("INSERT INTO hole VALUES (?, ?, ?, ?, ?)", (lane, first, last, count, reason))


def count_on(connection: sqlite3.Connection, rows: int) -> bool:
    """Count on, over the next ``rows`` records, what passes a lane that no longer grows. False when all are counted.

    Growing lanes are counted by the writer as records come; what a crash or an old log left uncounted is done here.
    """
    sql = (
        "SELECT id, from_seq, to_seq, seq, n, total, total_seq, kinds, stations FROM lane"
        " WHERE seq < to_seq AND total_seq < to_seq LIMIT 1"
    )
    row = connection.execute(sql).fetchone()
    if row is None:
        return False
    lane, _, to_seq, seq, n, total, total_seq, kinds, stations = row
    if total_seq < seq:
        total, total_seq = n, seq
    wanted = lanes.RouteFilter.of(kinds, stations)
    refused = wanted.refused(name for (name,) in connection.execute("SELECT name FROM station"))
    end = min(to_seq, total_seq + rows)
    sql = "SELECT first_seq, last_seq, count FROM hole WHERE lane = ? AND last_seq > ? AND first_seq <= ?"
    inside = sorted(connection.execute(sql, (lane, total_seq, end)).fetchall())
    total += sum(number for _, last, number in inside if last <= end)
    for first, last in without((total_seq + 1, end), [(first, last) for first, last, _ in inside]):
        total += lanes.count(connection, first, last, wanted, refused, lane)
    connection.execute("UPDATE lane SET total = ?, total_seq = ? WHERE id = ?", (total, end, lane))
    return True
