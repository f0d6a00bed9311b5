"""How many bytes a route has pending: what its ``max_backlog`` is held against.

A record counts with the length of its body and ``ROW_BYTES``, if it passes the lane's filter and is not in flight.
Only lanes that deliver for the first time count: a replay holds nothing back that would be lost with it. The sums go
on from one look to the next (what came is added, what was done is taken off), read on a connection of their own in a
worker thread, so the writer is never held up by them. What is deleted in between makes a sum too large; so before
anything is given up on its strength it is made anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from edge_agent.buffer import holes, lanes
from edge_agent.buffer.lanes import STATION_KINDS, RouteFilter
from edge_agent.buffer.queries import connect

STRETCH = 100_000  # numbers that are summed in one go; between them a stop is noticed


class Backlog:
    """One route's pending bytes. ``look`` and ``stretch`` are for a worker thread, one call at a time."""

    def __init__(self, path: Path, route: str, passed: Mapping[int, int]) -> None:
        self._path, self._route, self._passed = path, route, passed
        self._sums: dict[int, list[int]] = {}  # lane -> [done seq, seq that is summed up to, bytes between]
        self.is_exact = True  # False: what was looked at last goes on from an earlier sum
        self._is_new = True

    def forget(self) -> None:
        """Sum from the beginning at the next look."""
        self._sums.clear()
        self._is_new = True

    def look(self) -> int | None:
        """The bytes that are pending; None: not known yet, call again for the next stretch."""
        with closing(connect(self._path)) as db:
            (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
            sql = (
                f"SELECT id, seq, coalesce(to_seq, ?), kinds, stations FROM lane WHERE route = ? AND {lanes.UNFINISHED}"
                f" AND purpose = 'log' AND NOT {lanes.WITHHELD}"
            )
            seen, total, left = set(), 0, STRETCH
            for lane, seq, end, kinds, names in db.execute(sql, (head, self._route)).fetchall():
                done = min(holes.done(db, lane, max(seq, self._passed.get(lane, 0))), end)
                seen.add(lane)
                left -= self._advance(db, lane, done, end, RouteFilter.of(kinds, names), left)
                total += self._sums[lane][2]
                if left <= 0:
                    return None
            self._sums = {lane: sums for lane, sums in self._sums.items() if lane in seen}
            self.is_exact, self._is_new = self._is_new, False
            return total

    def _advance(self, db: sqlite3.Connection, lane: int, done: int, end: int, wanted: RouteFilter, most: int) -> int:
        """Move a lane's sum to (done, end], at most so many numbers; returns how many it took."""
        known = self._sums.get(lane)
        if known is None or not known[0] <= done <= known[1]:
            known = self._sums[lane] = [done, done, 0]
        passed = done - known[0]
        if passed:
            known[2] = max(0, known[2] - _sum(db, lane, known[0] + 1, done, wanted))
            known[0] = done
            self._is_new = False
        upto = min(end, known[1] + most)
        if upto > known[1]:
            known[2] += _sum(db, lane, known[1] + 1, upto, wanted)
            passed += upto - known[1]
            known[1] = upto
        return passed


def _sum(db: sqlite3.Connection, lane: int, first: int, last: int, wanted: RouteFilter) -> int:
    """Bytes in [first, last] that the lane wants; its holes may lie over records that others want."""
    kinds = ",".join(str(int(kind)) for kind in wanted.kinds)
    sql = f"SELECT coalesce(sum(length(body) + ?), 0) FROM record WHERE seq BETWEEN ? AND ? AND kind IN ({kinds})"
    refused = wanted.refused(name for (name,) in db.execute("SELECT name FROM station"))
    if refused:
        marks, of_stations = ",".join("?" * len(refused)), ",".join(str(int(kind)) for kind in STATION_KINDS)
        sql += f" AND NOT (kind IN ({of_stations}) AND source IN (SELECT id FROM source WHERE name IN ({marks})))"
    parts = holes.without((first, last), holes.holes_in(db, lane, first, last))
    return sum(int(db.execute(sql, (holes.ROW_BYTES, *part, *sorted(refused))).fetchone()[0]) for part in parts)
