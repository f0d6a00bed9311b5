"""Reading the buffer while the agent runs: a route's rows. ``registry`` answers the binder.

Every reader has a read-only connection of its own; in WAL mode it neither waits for the writer nor holds it up.
sqlite3 gives up the GIL at every row, so rows are fetched in few large steps.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from edge_agent.buffer.lanes import Lane
from edge_agent.errors import StorageCorrupt

TOMBSTONE = 0
"""``Row.kind`` of a place holder for dropped records; its body is ``{"count": …, "reason": …}``."""


DAMAGE_HINT = "restart the agent: it sets the file aside and salvages what is readable"


def is_damage(error: sqlite3.Error) -> bool:
    """SQLite says that the file's content is wrong."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def can_pass(error: sqlite3.Error) -> bool:
    """A full disk, a refused write or a lock: it may be over later."""
    passing = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in passing


class Row(NamedTuple):
    """A record of a lane, as stored. A tombstone's ``seq`` is the last one it stands for."""

    seq: int
    kind: int
    source: str
    at_ns: int
    mono_ns: int
    synced: int
    body: bytes


def connect(path: Path, *, query: str = "mode=ro") -> sqlite3.Connection:
    """A read-only connection to the buffer file at ``path``."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{query}", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA busy_timeout = 2000")
    return connection


class Passed:
    """How far each lane's rows were handed to its route in this run.

    Dropping undelivered records has to know: a number that was used must keep standing for the same record. The writer
    holds the lock during the (rare) transaction that drops undelivered records; a reader, while it replaces what became
    a hole since it fetched its rows, and says how far it has passed. Nobody holds it while records are scanned.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seq: dict[int, int] = {}


class Reader:
    """A route's rows. Use each one from a single thread at a time; close() when done."""

    def __init__(self, path: Path, passed: Passed, condemn: Callable[[str], None]) -> None:
        self._connection = connect(path)
        self._passed = passed
        self._condemn = condemn
        self._sources: dict[int, str] = {}
        self._row_bytes = 200.0  # of the rows read last; decides how many to ask for

    def close(self) -> None:
        self._connection.close()

    def dead(self, lane: Lane, after_n: int) -> dict[int, str]:
        """The lane's dead letters above ``after_n``, as an earlier run left them: n → reason."""
        sql = "SELECT n, reason FROM dead_letter WHERE lane = ? AND n > ?"
        return dict(self._connection.execute(sql, (lane.id, after_n)))

    def rows(self, lane: Lane, after_seq: int, max_seq: int, max_rows: int, max_bytes: int) -> list[Row]:
        """Rows of ``lane`` with ``after_seq < seq <= max_seq`` that pass its filter, oldest first.

        At most ``max_rows``, and as many as their bodies fit into ``max_bytes`` (at least one). An empty list says
        that there is nothing up to ``max_seq`` (or the lane's end): the route may then progress to it. Raises
        StorageCorrupt when the file is damaged there; the next start sets it aside.
        """
        try:
            return self._rows(lane, after_seq, max_seq, max_rows, max_bytes)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._condemn(str(error))
            raise StorageCorrupt(f"the buffer is damaged: {error}", hint=DAMAGE_HINT) from error

    def _rows(self, lane: Lane, after_seq: int, max_seq: int, max_rows: int, max_bytes: int) -> list[Row]:
        end = max_seq if lane.to_seq is None else min(max_seq, lane.to_seq)
        limit = max(1, min(max_rows, int(max_bytes / self._row_bytes) + 1))
        refused = self._refused(lane)
        while after_seq < end:
            rows = self._fetch(lane, self._covered_to(lane, after_seq, end), end, limit)
            scanned_to = rows[-1].seq if len(rows) >= limit else end
            if refused:
                passes = lane.filter.passes
                rows = [row for row in rows if passes(row.kind, row.source, refused)]
            with self._passed.lock:  # what was dropped since is a hole by now
                rows = self._merge_holes(lane, after_seq, scanned_to, rows)
                if rows:
                    rows = self._cut(rows[:max_rows], max_bytes)
                    passed = self._passed.seq  # after a reconnect what comes again is below what was used once
                    passed[lane.id] = max(rows[-1].seq, passed.get(lane.id, 0))
                    return rows
            after_seq = scanned_to
        return []

    def _fetch(self, lane: Lane, after_seq: int, end: int, limit: int) -> list[Row]:
        columns = "r.seq, r.kind, r.source, r.at_ns, r.mono_ns, r.synced, r.body"
        if lane.purpose == "retry":
            sql = (
                f"SELECT {columns} FROM pick p CROSS JOIN record r ON r.seq = p.seq WHERE p.lane = ?"
                " AND p.seq > ? AND p.seq <= ? ORDER BY p.seq LIMIT ?"
            )
            rows = self._connection.execute(sql, (lane.id, after_seq, end, limit)).fetchall()
        else:
            kinds = ",".join(str(int(kind)) for kind in lane.filter.kinds)
            sql = (
                f"SELECT {columns} FROM record r WHERE seq > ? AND seq <= ? AND kind IN ({kinds}) ORDER BY seq LIMIT ?"
            )
            rows = self._connection.execute(sql, (after_seq, end, limit)).fetchall()
        try:
            return _named(rows, self._sources)
        except KeyError:  # a source that came after this reader last looked
            self._sources = dict(self._connection.execute("SELECT id, name FROM source"))
            return _named(rows, self._sources)

    def _covered_to(self, lane: Lane, after_seq: int, end: int) -> int:
        """The end of the holes that begin right after ``after_seq``: whatever lies in them need not be read."""
        sql = "SELECT first_seq, last_seq FROM hole WHERE lane = ? AND last_seq > ? ORDER BY last_seq"
        for first, last in self._connection.execute(sql, (lane.id, after_seq)):
            if first > after_seq + 1 or after_seq >= end:
                break
            after_seq = last
        return after_seq

    def _merge_holes(self, lane: Lane, after_seq: int, end: int, rows: list[Row]) -> list[Row]:
        """Put each hole that begins here in its place, instead of whatever rows it still covers.

        However long it is: a cursor must never come to stand inside one, as its numbers would no longer fit the seqs.
        """
        sql = "SELECT first_seq, last_seq, count, reason FROM hole WHERE lane = ? AND last_seq > ? ORDER BY last_seq"
        found = self._connection.execute(sql, (lane.id, after_seq))
        holes = list(takewhile(lambda hole: hole[0] <= end, found))  # they do not overlap: the rest lies behind
        found.close()
        if not holes:
            return rows
        lasts = [last for _, last, _, _ in holes]  # holes do not overlap, so the first that ends at or after it decides
        firsts = [first for first, _, _, _ in holes] + [2**63]
        rows = [row for row in rows if row.seq < firsts[bisect_left(lasts, row.seq)]]
        for _, last, count, reason in holes:
            if count:
                rows.append(Row(last, TOMBSTONE, "", 0, 0, 1, orjson.dumps({"count": count, "reason": reason})))
        return sorted(rows)

    def _refused(self, lane: Lane) -> frozenset[str]:
        if lane.filter.stations is None:
            return frozenset()
        return lane.filter.refused(name for (name,) in self._connection.execute("SELECT name FROM station"))

    def _cut(self, rows: list[Row], max_bytes: int) -> list[Row]:
        total = sum([len(row.body) for row in rows])
        while total > max_bytes and len(rows) > 1:
            total -= len(rows.pop().body)
        self._row_bytes = max(16.0, total / len(rows))
        return rows


def _named(rows: list[tuple[Any, ...]], names: Mapping[int, str]) -> list[Row]:
    """Rows with their source's name. ``tuple.__new__`` is what Row() calls, without a Python frame a row."""
    new = tuple.__new__
    return [
        new(Row, (seq, kind, names[source], at_ns, mono_ns, synced, body))
        for seq, kind, source, at_ns, mono_ns, synced, body in rows
    ]
