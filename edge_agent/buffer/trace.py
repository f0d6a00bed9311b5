"""A unit's whole history, and the figures of a data_dir, read beside a running agent or from a stopped one.

``open_readonly`` never writes, not even SQLite's side files: without a write-ahead log nobody has the file open, and
it is read as immutable, which works from a directory that the reader may not write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from edge_agent.buffer import found, letters, lineage, schema, shift, times
from edge_agent.buffer.files import Files
from edge_agent.buffer.ledger import Progress, Verdict
from edge_agent.buffer.queries import connect
from edge_agent.buffer.settings import BufferSettings
from edge_agent.buffer.standing import RouteStanding, standings
from edge_agent.buffer.stats import measure
from edge_agent.errors import StorageError


@dataclass(frozen=True, slots=True)
class Identifier:
    """One name of a unit. ``removed``: it was replaced or taken away since."""

    kind: str
    value: str
    at_ns: int
    removed: bool
    position: int | None = None  # of a carrier: the place on it


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the data said is wrong."""

    finding: str
    code: str
    severity: str
    text: str
    source: str
    at_ns: int
    cycle: str | None
    details: Any
    acknowledged_at_ns: int | None = None
    acknowledged_by: str | None = None
    acknowledged_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """One decision about whose cycle it is; the newest stands, the others are superseded."""

    binding: str
    state: str
    unit: str | None
    serial: str | None
    rule: str | None
    reason: str | None
    candidates: list[Any]
    evidence: list[Any]
    by: str | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class TagSummary:
    """A tag's readings in one cycle: how many, the first and last value, the extremes of numbers."""

    tag: str
    unit: str
    count: int
    first: Any
    last: Any
    low: Any
    high: Any


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one tag in a cycle."""

    tag: str
    value: Any
    unit: str
    status: str | None
    at_ns: int
    seq: int


@dataclass(frozen=True, slots=True)
class Cycle:
    """One visit to a position. ``current``: its newest binding names this unit (else an earlier one did)."""

    cycle: str
    station: str
    step: str
    position: int
    state: str  # open, interrupted, closed
    opened_at_ns: int
    opened_by: str
    ended_at_ns: int | None
    closed_by: str | None
    result: str | None
    complete: bool | None
    attempt: int | None
    context: Mapping[str, Any]
    collected: list[Any]
    missing: list[Any]
    binding_state: str
    current: bool
    bindings: tuple[Binding, ...]
    findings: tuple[Finding, ...]
    tags: tuple[TagSummary, ...]
    readings: tuple[Reading, ...]
    materials: tuple[lineage.Material, ...] = ()
    defects: list[Any] = field(default_factory=list)
    suspect: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unit:
    """All that is known of one unit, its cycles oldest first."""

    unit: str
    serial: str | None
    seen_at_ns: int
    identifiers: tuple[Identifier, ...]
    cycles: tuple[Cycle, ...]
    findings: tuple[Finding, ...]  # that name its serial but no cycle of it
    kind: str = "serial"
    components: tuple[lineage.Component, ...] = ()  # built into it, also what was taken out
    parents: tuple[lineage.Component, ...] = ()  # what it is or was built into
    holds: tuple[lineage.Hold, ...] = ()  # on it, and on what is in it
    gate: tuple[lineage.Decision, ...] = ()
    said: tuple[lineage.Said, ...] = ()  # by others


NEWEST_SCANNED = 200_000  # records; some tenths of a second


class Archive:
    """A data_dir opened for reading. Use from one thread; close() when done."""

    def __init__(self, files: Files, connection: sqlite3.Connection) -> None:
        self._files = files
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def trace(self, serial: str, *, readings: bool = False) -> list[Unit]:
        """Every unit that carries or carried ``serial`` (or any other identifier spelt so); usually one or none.

        ``readings`` also lists each value; the summaries by tag are always there.
        """
        sql = "SELECT unit FROM unit WHERE serial = ?1 UNION SELECT unit FROM identifier WHERE value = ?1"
        return [self._unit(unit, readings) for (unit,) in self._connection.execute(sql, (serial,)).fetchall()]

    def forward(self, kind: str, value: str, limit: int) -> lineage.Forward:
        """Which units contain a ``lot`` or ``package``, at any depth."""
        return lineage.forward(self._connection, kind, value, limit)

    def tree(self, unit: str) -> lineage.Tree:
        """All that is in a unit, and all that it is in, at any depth."""
        return lineage.tree(self._connection, unit)

    def shift(self, since_ns: int, until_ns: int) -> shift.Shift:
        """What each station did between two instants."""
        return shift.shift(self._connection, since_ns, until_ns)

    def findings(self, *, since_ns: int, code: str | None, all_: bool, limit: int) -> tuple[list[found.Found], int]:
        """The newest findings that nobody acknowledged, or ``all_`` of them, and how many there are."""
        return found.findings(self._connection, since_ns=since_ns, code=code, all_=all_, limit=limit)

    def unbound(self, *, since_ns: int, station: str | None, limit: int) -> tuple[list[found.Unbound], int]:
        """The newest cycles that are bound to no unit, and how many there are."""
        return found.unbound(self._connection, since_ns=since_ns, station=station, limit=limit)

    def stations(self) -> list[str]:
        """Every station that ever was in the configuration."""
        return [name for (name,) in self._connection.execute("SELECT name FROM station ORDER BY name")]

    def newest(self, kind: int, count: int) -> list[tuple[int, bytes]]:
        """(seq, body) of the newest records of a kind, among the last ``NEWEST_SCANNED`` of the log; newest first."""
        sql = (
            "SELECT seq, body FROM record WHERE kind = ?1 AND seq > (SELECT max(seq) FROM record) - ?2"
            " ORDER BY seq DESC LIMIT ?3"
        )
        return [(seq, bytes(body)) for seq, body in self._connection.execute(sql, (kind, NEWEST_SCANNED, count))]

    def stats(self, settings: BufferSettings | None = None) -> dict[str, Any]:
        """The figures of ``Buffer.stats`` that can be known from outside."""
        return measure(self._connection, self._files, settings, {}, None)

    def routes(
        self, totals: Mapping[int, tuple[int, int]] | None = None, head_seq: int | None = None
    ) -> list[RouteStanding]:
        """How each route stands; see ``standings``."""
        return standings(self._connection, totals, head_seq)

    def dead_letters(
        self, route: str | None = None, *, seq: int | None = None, reason: str = "", retried: bool = False
    ) -> list[letters.DeadLetter]:
        """The dead letters that stand, oldest first; ``retried`` ones, too. ``reason``: a part of it."""
        return list(self.each_dead_letter(route, seq=seq, reason=reason, retried=retried))

    def each_dead_letter(
        self, route: str | None = None, *, seq: int | None = None, reason: str = "", retried: bool = False
    ) -> Iterator[letters.DeadLetter]:
        """The same, one by one."""
        return letters.letters(self._connection, route, seq=seq, reason=reason, retried=retried)

    def standing_letters(
        self, route: str, *, ids: frozenset[str] | None, reason: str, limit: int
    ) -> tuple[dict[str, int], int, int]:
        """What a retry would take; see ``letters.standing``."""
        return letters.standing(self._connection, route, ids=ids, reason=reason, limit=limit)

    def seqs_between(self, since_ns: int, until_ns: int) -> tuple[int, int] | None:
        """The first and last seq of what was recorded between two instants; see ``times``."""
        return times.seqs_between(self._connection, since_ns, until_ns)

    def verify(self, against: Path | None = None, progress: Progress | None = None) -> Verdict:
        """Structure, ledger, lanes and witness; and ``against`` a receiver's database or JSON Lines. Reads all."""
        from edge_agent.buffer.verify import verify_all

        return verify_all(self._connection, self._files, against, progress)

    # --- one unit --------------------------------------------------------------------------------------------

    def _unit(self, unit: str, readings: bool) -> Unit:
        execute = self._connection.execute
        row = execute("SELECT serial, at_ns, kind FROM unit WHERE unit = ?", (unit,)).fetchone()
        serial, seen_at_ns, what = row or (None, 0, "serial")
        sql = "SELECT kind, value, at_ns, removed_seq IS NOT NULL, position FROM identifier WHERE unit = ? ORDER BY seq"
        identifiers = tuple(
            Identifier(kind, value, at_ns, bool(gone), place)
            for kind, value, at_ns, gone, place in execute(sql, (unit,))
        )
        db = self._connection
        sql = (
            "SELECT cycle FROM (SELECT cycle, seq FROM cycle WHERE unit = ?1 UNION SELECT c.cycle, c.seq FROM binding b"
            " JOIN cycle c ON c.cycle = b.cycle WHERE b.unit = ?1) ORDER BY seq"
        )
        cycles = tuple(self._cycle(cycle, unit, readings) for (cycle,) in execute(sql, (unit,)).fetchall())
        own = {cycle.cycle for cycle in cycles}
        others = (one for one in self._findings("serial", serial) if one.cycle not in own)
        return Unit(
            unit, serial, seen_at_ns, identifiers, cycles, tuple(others), what, lineage.components(db, unit),
            lineage.components(db, unit, "child"), tuple(lineage.holds(db, lineage.subjects(db, unit))),
            tuple(lineage.decisions(db, unit)), tuple(lineage.said(db, serial)),
        )  # fmt: skip

    def _cycle(self, cycle: str, unit: str, readings: bool) -> Cycle:
        sql = (
            "SELECT cycle, station, step, position, state, opened_at_ns, opened_by, ended_at_ns, closed_by, result,"
            " complete, attempt, context, outcome, binding_state, unit FROM cycle WHERE cycle = ?"
        )
        row = self._connection.execute(sql, (cycle,)).fetchone()
        outcome = orjson.loads(row[13]) if row[13] else {}
        return Cycle(
            cycle=row[0], station=row[1], step=row[2], position=row[3], state=row[4], opened_at_ns=row[5],
            opened_by=row[6], ended_at_ns=row[7], closed_by=row[8], result=row[9],
            complete=None if row[10] is None else bool(row[10]),
            attempt=row[11],
            context=orjson.loads(row[12]),
            collected=outcome.get("collected") or [],
            missing=outcome.get("missing") or [],
            binding_state=row[14],
            current=row[15] == unit,
            bindings=tuple(self._bindings(cycle)),
            findings=tuple(self._findings("cycle", cycle)),
            tags=tuple(self._tags(cycle)),
            readings=tuple(self._readings(cycle)) if readings else (),
            materials=lineage.materials_of(self._connection, cycle),
            defects=outcome.get("defects") or [],
            suspect=outcome.get("suspect") or [],
        )  # fmt: skip

    def _bindings(self, cycle: str) -> Iterator[Binding]:
        sql = (
            "SELECT binding, state, unit, serial, rule, reason, candidates, evidence, by, at_ns FROM binding"
            " WHERE cycle = ? ORDER BY seq"
        )
        for binding, state, unit, serial, rule, reason, candidates, evidence, by, at_ns in self._connection.execute(
            sql, (cycle,)
        ):
            named, seen = orjson.loads(candidates or "[]"), orjson.loads(evidence or "[]")
            yield Binding(binding, state, unit, serial, rule, reason, named, seen, by, at_ns)

    def _findings(self, column: str, value: str | None) -> Iterator[Finding]:
        sql = (
            "SELECT finding, code, severity, text, source, at_ns, cycle, details, acknowledged_at_ns, acknowledged_by,"
            f" acknowledged_reason FROM finding WHERE {column} = ? ORDER BY seq"
        )
        for row in self._connection.execute(sql, (value,)):
            yield replace(Finding(*row), details=None if row[7] is None else orjson.loads(row[7]))

    def _tags(self, cycle: str) -> Iterator[TagSummary]:
        """SQLite gives a bare column the value of the row that min() or max() chose; hence two queries."""
        ends: dict[str, dict[str, Any]] = {}
        for end in ("min", "max"):
            sql = f"SELECT tag, value, {end}(seq) FROM reading WHERE cycle = ? GROUP BY tag"
            ends[end] = {tag: value for tag, value, _ in self._connection.execute(sql, (cycle,))}
        numbers = "CASE WHEN typeof(value) IN ('integer', 'real') THEN value END"
        sql = (
            f"SELECT tag, tag_unit, count(*), min({numbers}), max({numbers}) FROM reading WHERE cycle = ?"
            " GROUP BY tag ORDER BY tag"
        )
        for tag, tag_unit, count, low, high in self._connection.execute(sql, (cycle,)):
            yield TagSummary(tag, tag_unit, count, ends["min"][tag], ends["max"][tag], low, high)

    def _readings(self, cycle: str) -> Iterator[Reading]:
        sql = "SELECT tag, value, tag_unit, status, at_ns, seq FROM reading WHERE cycle = ? ORDER BY seq"
        for row in self._connection.execute(sql, (cycle,)):
            yield Reading(*row)


def open_readonly(data_dir: Path) -> Archive:
    """Open a data_dir beside whoever owns it. Raises StorageError with what to do."""
    files = Files(data_dir)
    try:
        if not files.db.exists():
            hint = "has the agent been started? If so, is this the agent.data_dir of its config? see --config"
            raise StorageError(f"there is no buffer in {data_dir}", hint=hint)
        query = "mode=ro" if files.wal.exists() else "mode=ro&immutable=1"
        connection = connect(files.db, query=query)
        connection.execute("SELECT seq FROM record ORDER BY seq LIMIT 1").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < schema.VERSION:
            hint = "start the agent once: it brings the file up to date"
            raise StorageError(f"the buffer in {data_dir} is of an older edge-agent", hint=hint)
    except PermissionError as error:
        raise StorageError(f"{data_dir} may not be read by you", hint="try with sudo, or as user edge-agent") from error
    except sqlite3.Error as error:
        raise StorageError(
            f"{files.db} cannot be read: {error}", hint="try with sudo; if it is damaged, the agent repairs it at start"
        ) from error
    return Archive(files, connection)
