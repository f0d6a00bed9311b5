"""Deleting from the log, and what that leaves behind: gaps in the ledger, holes in the lanes.

A *gap* is a range of seq that is no longer in the log, with the hash at its end. A *hole* is a range of a lane whose
records will not be sent; it counts them, so that the numbers after it stay what they were. Everything here runs on
the writer's thread, inside its transaction.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

from edge_agent.buffer import lanes
from edge_agent.model import Kind

DEAD_LETTER_NS = 30 * 86400 * 10**9  # refused records stay for a retry this long
ROW_BYTES = 60  # what a record takes on disk beside its body
DESCRIBING = f"({int(Kind.CONFIG)}, {int(Kind.TAGSET)})"  # kinds without which samples cannot be read
SHORT = 10_000  # windows of a longer span are looked for one by one

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


def existing(db: sqlite3.Connection, start: int, limit: int, rows: int) -> Range | None:
    """The next range of existing records from ``start`` up to ``limit``, at most ``rows`` of them."""
    sql = "SELECT min(seq), max(seq) FROM (SELECT seq FROM record WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?)"
    first, last = db.execute(sql, (start, limit, rows)).fetchone()
    if first is None:
        return None
    sql = "SELECT min(first_seq) FROM gap WHERE reason = 'salvage' AND first_seq BETWEEN ? AND ?"
    (unread,) = db.execute(sql, (first, last)).fetchone()  # a run ends before what is still being taken over
    return first, last if unread is None else unread - 1


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


def floor(db: sqlite3.Connection, *, first_time: bool = False) -> int:
    """The seq up to which every lane is done; a hole counts as done.

    ``first_time``: only lanes of attached routes that deliver their records for the first time. What a detached route
    or a replay still wants lies below that.
    """
    (head,) = db.execute("SELECT max(seq) FROM record").fetchone()
    lowest = (head or 1) - 1  # the last record stays: the next log continues from its hash
    sql = f"SELECT l.id, l.seq FROM lane l LEFT JOIN route r ON r.name = l.route WHERE {lanes.UNFINISHED}"
    for lane, seq in db.execute(sql + (" AND r.attached AND l.purpose = 'log'" if first_time else "")).fetchall():
        lowest = min(lowest, done(db, lane, seq))
    return int(lowest)


def done(db: sqlite3.Connection, lane: int, seq: int) -> int:
    """Where a lane really stands: its cursor, moved over the holes that follow it."""
    sql = "SELECT first_seq, last_seq FROM hole WHERE lane = ? AND last_seq > ? ORDER BY last_seq"
    for first, last in db.execute(sql, (lane, seq)):
        if first > seq + 1:
            break
        seq = last
    return seq


def protected(db: sqlite3.Connection, first: int, last: int) -> list[Range]:
    """Ranges that must stay: windows of cycles that are not closed, and dead letters, until they expire.

    And what describes the records of a log, while there are some above ``last``: who is sent them once more may never
    have seen it, and a log lasts for months.
    """
    windows = db.execute(
        "SELECT w.first_seq, w.last_seq FROM cycle c JOIN cycle_window w ON w.cycle = c.cycle"
        " WHERE c.state <> 'closed' AND w.last_seq >= ? AND w.first_seq <= ?",
        (first, last),
    ).fetchall()
    letters = db.execute("SELECT seq, seq FROM dead_letter WHERE seq BETWEEN ? AND ?", (first, last)).fetchall()
    describing = db.execute(
        f"SELECT seq, seq FROM record WHERE seq BETWEEN ?1 AND ?2 AND kind IN {DESCRIBING}"
        " AND ?2 + 1 < coalesce((SELECT min(first_seq) FROM log WHERE first_seq > record.seq), ?2 + 2)",
        (first, last),
    ).fetchall()
    return sorted(windows + letters + describing)


def in_hand(db: sqlite3.Connection, passed: Mapping[int, int]) -> list[Range]:
    """Ranges that a route was given and has not settled: what is in flight is not given up."""
    unfinished = db.execute(f"SELECT id, seq FROM lane WHERE {lanes.UNFINISHED}").fetchall()
    return [(seq + 1, passed[lane]) for lane, seq in unfinished if passed.get(lane, 0) > seq]


def loose_runs(db: sqlite3.Connection, first: int, last: int) -> list[Range]:
    """Runs of seq inside [first, last] that are samples of no cycle. Takes its time where windows are long."""
    windows: dict[int, list[Range]] = {}
    short = "last_seq - first_seq <= ? AND last_seq BETWEEN ? AND ? AND first_seq <= ?"
    long = "last_seq - first_seq > ? AND last_seq >= ? AND first_seq <= ?"
    for where, numbers in ((short, (SHORT, first, last + SHORT, last)), (long, (SHORT, first, last))):
        for source, start, end in db.execute(
            f"SELECT source, first_seq, last_seq FROM cycle_window WHERE {where}", numbers
        ):
            windows.setdefault(source, []).append((start, end))
    owned = {source: _joined(ranges) for source, ranges in windows.items()}
    runs: list[Range] = []
    sql = "SELECT seq, source FROM record WHERE seq BETWEEN ? AND ? AND kind = ? ORDER BY seq"
    for seq, source in db.execute(sql, (first, last, int(Kind.SAMPLE))):
        mine = owned.get(source, ())
        place = bisect_left(mine, (seq + 1,)) - 1  # the last window that begins at or before seq
        if place >= 0 and mine[place][1] >= seq:
            continue
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return runs


def _joined(ranges: list[Range]) -> list[Range]:
    """The same seqs in ranges that are sorted and do not overlap."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def give_up(
    db: sqlite3.Connection, first: int, last: int, passed: Mapping[int, int], reason: str, only: int | None = None
) -> list[tuple[int, int]]:
    """Give each lane that still wants records of [first, last] (or lane ``only``) a hole that counts them.

    Returns (kind, bytes) of each record that some lane wanted. What a lane's route has in its hands (up to
    ``passed``) is left alone: a cursor must never come to stand inside a hole.
    """
    sql = (
        "SELECT r.seq, r.kind, s.name, length(r.body) FROM record r JOIN source s ON s.id = r.source"
        " WHERE r.seq BETWEEN ? AND ? ORDER BY r.seq"
    )
    rows = db.execute(sql, (first, last)).fetchall()
    stations = [name for (name,) in db.execute("SELECT name FROM station")]
    sql = (
        "SELECT id, from_seq, coalesce(to_seq, ?1), seq, kinds, stations, purpose FROM lane"
        f" WHERE {lanes.UNFINISHED} AND seq < ?1 AND from_seq <= ?1 AND coalesce(to_seq, ?1) >= ?2"
    )
    wanted: set[int] = set()
    for lane, from_seq, to_seq, seq, kinds, names, purpose in db.execute(sql, (last, first)).fetchall():
        if only is not None and lane != only:
            continue
        if purpose == "retry":
            picks = "SELECT seq FROM pick WHERE lane = ? AND seq BETWEEN ? AND ? AND seq IN (SELECT seq FROM record)"
            passing = [pick for (pick,) in db.execute(picks + " ORDER BY seq", (lane, first, last))]
        else:
            filter = lanes.RouteFilter.of(kinds, names)
            refused = filter.refused(stations)
            passing = [row[0] for row in rows if filter.passes(row[1], row[2], refused)]
        border = max(seq, passed.get(lane, 0))  # after a start no route has passed anything yet, but its cursor stands
        whole = (max(first, from_seq, border + 1), min(last, to_seq))
        parts = without(whole, holes_in(db, lane, *whole)) if whole[0] <= whole[1] else []
        swallowed = _swallow(db, lane, *whole) if only is not None and parts else 0
        for start, end in parts:
            inside = passing[bisect_left(passing, start) : bisect_right(passing, end)]
            wanted.update(inside)
            if not swallowed:
                _add_hole(db, lane, start, end, len(inside), reason, border)
            else:
                swallowed += len(inside)
        if swallowed:
            _add_hole(db, lane, whole[0], whole[1], swallowed, reason, border)
    return [(kind, size + ROW_BYTES) for seq, kind, _, size in rows if seq in wanted]


def holes_in(db: sqlite3.Connection, lane: int, first: int, last: int) -> list[Range]:
    """The lane's holes that reach into [first, last], in order."""
    found = []
    sql = "SELECT first_seq, last_seq FROM hole WHERE lane = ? AND last_seq >= ? ORDER BY last_seq"
    for start, end in db.execute(sql, (lane, first)):
        if start > last:
            break
        found.append((start, end))
    return found


def _swallow(db: sqlite3.Connection, lane: int, first: int, last: int) -> int:
    """Take away the holes in [first, last], for one that covers it all; returns their count, 0 if any reaches out.

    A chain of small holes would be walked along each time that somebody asks where the lane stands.
    """
    ends = holes_in(db, lane, first, last)
    if not ends or ends[0][0] < first or ends[-1][1] > last:
        return 0
    sql = "SELECT coalesce(sum(count), 0) FROM hole WHERE lane = ? AND last_seq BETWEEN ? AND ?"
    (count,) = db.execute(sql, (lane, first, last)).fetchone()
    if count:
        db.execute("DELETE FROM hole WHERE lane = ? AND last_seq BETWEEN ? AND ?", (lane, first, last))
    return int(count)


def _add_hole(db: sqlite3.Connection, lane: int, first: int, last: int, count: int, reason: str, border: int) -> None:
    """Insert a hole, joined with the one before it if that lies beyond the ``border``: no route has seen it."""
    sql = "SELECT first_seq, count FROM hole WHERE lane = ? AND last_seq = ? AND first_seq > ? AND reason = ?"
    before = db.execute(sql, (lane, first - 1, border, reason)).fetchone()
    if before is not None:
        db.execute("DELETE FROM hole WHERE lane = ? AND last_seq = ?", (lane, first - 1))
        first, count = before[0], before[1] + count
    db.execute("INSERT INTO hole VALUES (?, ?, ?, ?, ?)", (lane, first, last, count, reason))
