"""How many records a lane holds, so that what is pending can be told without reading a record.

A growing lane is counted by the writer, as records come. What is older (an old log that a new route begins with, what
a crash left uncounted, a replay) is counted from the log, in slices, between commits; until that is done the lane's
``total`` reaches only up to ``total_seq``. Everything here runs on the writer's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_agent.buffer import lanes
from edge_agent.buffer.holes import without

NEAR = 1000  # records that are counted at once, without a slice of their own


@dataclass(slots=True)
class Tracked:
    """A growing lane: ``total`` records up to ``total_seq`` passed its filter."""

    filter: lanes.RouteFilter
    refused: frozenset[str]
    total: int
    total_seq: int
    since_seq: int | None = None  # not None: what lies between total_seq and it is not counted yet,
    fresh: int = 0  # and this is what came after it

    def add(self, passed: int, seq: int) -> None:
        """So many more, up to ``seq``."""
        if self.since_seq is None:
            self.total += passed
            self.total_seq = seq
        else:
            self.fresh += passed


def track(db: sqlite3.Connection, known: Mapping[int, Tracked], head_seq: int) -> dict[int, Tracked]:
    """The growing lanes, for the writer to count from now on."""
    stations = [name for (name,) in db.execute("SELECT name FROM station")]
    sql = "SELECT id, kinds, stations, total, total_seq, seq, n FROM lane WHERE to_seq IS NULL ORDER BY id"
    tracked: dict[int, Tracked] = {}
    for lane, kinds, names, total, total_seq, seq, n in db.execute(sql).fetchall():
        wanted = lanes.RouteFilter.of(kinds, names)
        refused = wanted.refused(stations)
        if lane in known and known[lane].filter == wanted:
            tracked[lane] = replace(known[lane], refused=refused)
            continue
        if total_seq < seq:
            total, total_seq = n, min(seq, head_seq)
        tracked[lane] = Tracked(wanted, refused, total, total_seq, head_seq)
        if head_seq - total_seq <= NEAR:
            _count(db, lane, tracked[lane], NEAR)
    return tracked


def is_behind(db: sqlite3.Connection, growing: Mapping[int, Tracked]) -> bool:
    """Whether ``count_on`` has something to do. Any connection."""
    return any(lane.since_seq is not None for lane in growing.values()) or _closed(db) is not None


def count_on(db: sqlite3.Connection, growing: Mapping[int, Tracked], rows: int) -> bool:
    """Count on over the next ``rows`` numbers. False when every lane is counted."""
    for lane, tracked in growing.items():
        if tracked.since_seq is not None:
            _count(db, lane, tracked, rows)
            return True
    row = _closed(db)
    if row is None:
        return False
    lane, to_seq, seq, n, total, total_seq, kinds, names = row
    if total_seq < seq:
        total, total_seq = n, seq
    wanted = lanes.RouteFilter.of(kinds, names)
    refused = wanted.refused(name for (name,) in db.execute("SELECT name FROM station"))
    end = min(to_seq, total_seq + rows)
    total += _passing(db, lane, total_seq + 1, end, wanted, refused)
    db.execute("UPDATE lane SET total = ?, total_seq = ? WHERE id = ?", (total, end, lane))
    return True


def _closed(db: sqlite3.Connection) -> tuple[int, int, int, int, int, int, str, str | None] | None:
    sql = (
        "SELECT id, to_seq, seq, n, total, total_seq, kinds, stations FROM lane"
        f" WHERE seq < to_seq AND total_seq < to_seq AND NOT {lanes.WITHHELD} LIMIT 1"
    )
    row: tuple[int, int, int, int, int, int, str, str | None] | None = db.execute(sql).fetchone()
    return row


def _count(db: sqlite3.Connection, lane: int, tracked: Tracked, rows: int) -> None:
    """One slice of what came before the writer began to count."""
    since_seq = tracked.since_seq or 0
    end = min(since_seq, tracked.total_seq + rows)
    if tracked.total_seq < end:
        tracked.total += _passing(db, lane, tracked.total_seq + 1, end, tracked.filter, tracked.refused)
        tracked.total_seq = end
    if end >= since_seq:
        (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
        tracked.total, tracked.total_seq, tracked.since_seq = tracked.total + tracked.fresh, max(head, end), None


def _passing(
    db: sqlite3.Connection, lane: int, first: int, last: int, wanted: lanes.RouteFilter, refused: frozenset[str]
) -> int:
    """Records of [first, last] that pass, with those that holes stand for."""
    sql = "SELECT first_seq, last_seq, count FROM hole WHERE lane = ? AND last_seq >= ? AND first_seq <= ? ORDER BY 2"
    holes = db.execute(sql, (lane, first, last)).fetchall()
    total = sum(number for _, end, number in holes if end <= last)
    for begin, finish in without((first, last), [(start, end) for start, end, _ in holes]):
        total += lanes.count(db, begin, finish, wanted, refused, lane)
    return int(total)
