"""Reading the buffer while the agent runs: a route's rows, the binder's questions, what a restart has to know.

Every reader has a read-only connection of its own; in WAL mode it neither waits for the writer nor holds it up.
sqlite3 gives up the GIL at every row, so rows are fetched in few large steps.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from edge_agent.binding.state import KnownUnit, OpenCycle, Restored
from edge_agent.buffer.lanes import Lane
from edge_agent.errors import StorageCorrupt
from edge_agent.model import Kind, Record

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


class Former(Protocol):
    """The registry of a file that is being salvaged."""

    def unit(self, kind: str, value: str) -> str | None:
        """The unit that carried this identifier."""
        ...

    def cycles(self, unit: str) -> dict[str, tuple[str, int]]:
        """cycle → (step, attempt)."""
        ...


class Registry:
    """The binder's questions about units, answered from the registry and from facts that are not committed yet.

    The binder asks on the event loop, one step after it appended; the writer may not have committed that. So
    identifiers and cycles of appended facts are remembered here until they are durable.
    """

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self.former: Callable[[], Former | None] = lambda: None  # a damaged file's, until it is taken over
        self._units: dict[tuple[str, str], tuple[int, str | None]] = {}  # (kind, value) -> (seq, unit or removed)
        self._bound: dict[str, list[tuple[int, str, int]]] = {}  # unit -> (seq, step, attempt) of new cycles
        self._steps: dict[str, tuple[int, str, int]] = {}  # cycle -> the same, until its binding names a unit

    def close(self) -> None:
        self._connection.close()

    def _find(self, kind: str, value: str) -> str | None:
        """The unit by the registry; while that is being salvaged, by the damaged file's where it knows nothing."""
        sql = (
            "SELECT unit, removed_seq FROM identifier WHERE kind = ? AND value = ?"
            " ORDER BY removed_seq IS NOT NULL, seq DESC LIMIT 1"
        )
        row = self._connection.execute(sql, (kind, value)).fetchone()
        former = self.former()
        if row is None and former is not None:
            return former.unit(kind, value)
        return row[0] if row is not None and row[1] is None else None

    def _attempts(self, unit: str) -> dict[str, int]:
        former = self.former()
        if former is None:
            sql = "SELECT step, max(count(*), max(coalesce(attempt, 1))) FROM cycle WHERE unit = ? GROUP BY step"
            return dict(self._connection.execute(sql, (unit,)))
        sql = "SELECT cycle, step, coalesce(attempt, 1) FROM cycle WHERE unit = ?"
        rows = self._connection.execute(sql, (unit,))
        cycles = former.cycles(unit) | {cycle: (step, attempt) for cycle, step, attempt in rows}
        counts = Counter(step for step, _ in cycles.values())
        highest = dict(sorted(cycles.values()))
        return {step: max(number, highest[step]) for step, number in counts.items()}

    def unit(self, kind: str, value: str) -> KnownUnit | None:
        """The unit that carries this identifier now, with its highest attempt number by step."""
        unit = self._units[kind, value][1] if (kind, value) in self._units else self._find(kind, value)
        if unit is None:
            return None
        attempts = self._attempts(unit)
        for _, step, attempt in self._bound.get(unit, ()):
            attempts[step] = max(attempt, attempts.get(step, 0))
        return KnownUnit(unit, attempts)

    def appended(self, seq: int, record: Record) -> None:
        """Remember a fact that the writer has not committed yet."""
        body = record.body
        if record.kind is Kind.IDENTIFIER:
            self._units[body["kind"], body["value"]] = (seq, None if body["op"] == "remove" else body["unit"])
        elif record.kind is Kind.CYCLE_OPENED:
            self._steps[body["cycle"]] = (seq, body["step"], body.get("attempt") or 1)
        elif record.kind is Kind.BINDING and body.get("unit") and body["cycle"] in self._steps:
            self._bound.setdefault(body["unit"], []).append((seq, *self._steps[body["cycle"]][1:]))

    def committed(self, seq: int) -> None:
        """Forget what is in the registry by now."""
        if self._units:
            self._units = {key: entry for key, entry in self._units.items() if entry[0] > seq}
        if self._steps:
            self._steps = {cycle: entry for cycle, entry in self._steps.items() if entry[0] > seq}
        if self._bound:
            kept = {unit: [entry for entry in entries if entry[0] > seq] for unit, entries in self._bound.items()}
            self._bound = {unit: entries for unit, entries in kept.items() if entries}


def restored(connection: sqlite3.Connection) -> Restored:
    """Cycles that are not closed, oldest first, and the last counters."""
    rows = connection.execute(
        "SELECT c.cycle, c.station, c.position, c.opened_at_ns, c.opened_by, c.attempt, c.context, c.unit, u.serial,"
        " c.binding, c.binding_state FROM cycle c LEFT JOIN unit u ON u.unit = c.unit WHERE c.state <> 'closed'"
        " ORDER BY c.seq"
    ).fetchall()
    cycles = []
    for cycle, station, position, opened_at_ns, opened_by, attempt, context, unit, serial, binding, state in rows:
        windows: dict[str, tuple[tuple[int, int], ...]] = {}
        sql = (
            "SELECT s.name, w.first_seq, w.last_seq FROM cycle_window w JOIN source s ON s.id = w.source"
            " WHERE w.cycle = ? ORDER BY w.first_seq"
        )
        for group, first, last in connection.execute(sql, (cycle,)):
            windows[group] = (*windows.get(group, ()), (first, last))
        cycles.append(
            OpenCycle(
                cycle, station, position, opened_at_ns, opened_by, attempt, orjson.loads(context), windows, unit,
                serial, binding, state if binding else None,
            )
        )  # fmt: skip
    counters = {
        (station, position): (counter, epoch)
        for station, position, counter, epoch in connection.execute(
            "SELECT station, position, counter, epoch FROM counter"
        )
    }
    before_this_log = (
        "SELECT at_ns FROM record WHERE seq < (SELECT seq FROM record WHERE kind = ? ORDER BY seq DESC LIMIT 1)"
        " ORDER BY seq DESC LIMIT 1"
    )
    newest = connection.execute(before_this_log, (int(Kind.LOG_OPENED),)).fetchone()
    return Restored(tuple(cycles), counters, newest[0] if newest else None)
