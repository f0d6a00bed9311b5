"""From records to the registry: which rows a record changes. Runs inside the transaction that stores the record.

The registry is a projection: everything in it follows from records, and it outlives them. A cycle's windows are
folded: however many samples of a cycle a commit holds, each (cycle, group) is written once. Their ends while the
cycle is open are what was seen; ``cycle_closed`` then says what they are.

Only a binding in state ``bound`` gives a cycle its unit, so that the view ``reading`` never shows a serial that a
rule did not decide. What is in a unit, holds it or is said of it: see ``tracing``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from edge_agent.buffer.tracing import consume, tracing
from edge_agent.model import Kind, Record

Entry = tuple[int, Record, bytes]
"""A numbered record and its encoded body; an empty body: the number is used, the record is not stored."""

_SAMPLE = Kind.SAMPLE
_OUTCOME = ("collected", "missing", "counter", "epoch", "completeness", "suspect", "defects", "message")


class Sources:
    """Names of sources and their numbers; new ones are stored as they come. One per writing connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}
        self.reload()

    def reload(self) -> None:
        """Forget what a rolled-back transaction had added."""
        self._ids = dict(self._connection.execute("SELECT name, id FROM source"))

    def id(self, name: str) -> int:
        """The number of ``name``, inside the current transaction."""
        found = self._ids.get(name)
        if found is None:
            cursor = self._connection.execute("INSERT INTO source (name) VALUES (?)", (name,))
            found = self._ids[name] = int(cursor.lastrowid or 0)
        return found


class Projection:
    """Applies records to the registry, in order. ``begin`` before each attempt, ``undo`` after a failed one."""

    def __init__(self, connection: sqlite3.Connection, sources: Sources) -> None:
        self._connection = connection
        self._sources = sources
        self._windows: dict[tuple[str, int], list[int]] = {}  # of open cycles: [first_seq, last_seq, changed]
        self._before: dict[tuple[str, int], list[int]] = {}
        self.recall: Callable[[sqlite3.Connection, str, str], None] | None = None  # during a salvage; see Writer.recall
        self._facts: Mapping[int, Callable[[int, Record, Mapping[str, Any]], None]] = {
            Kind.CONFIG: self._config,
            Kind.TAGSET: self._tagset,
            Kind.CYCLE_OPENED: self._cycle_opened,
            Kind.CYCLE_CLOSED: self._cycle_closed,
            Kind.BINDING: self._binding,
            Kind.IDENTIFIER: self._identifier,
            Kind.FINDING: self._finding,
            **tracing(connection, lambda table, key: self.recall and self.recall(connection, table, key)),
        }

    def begin(self) -> None:
        """Remember the state, for ``undo``."""
        self._before = {key: list(window) for key, window in self._windows.items()}

    def undo(self) -> None:
        """Return to the state at ``begin``: the transaction did not happen."""
        self._windows = self._before

    def apply(self, entries: Iterable[Entry]) -> None:
        """Project the records of one transaction."""
        windows, source_id = self._windows, self._sources.id
        for seq, record, _ in entries:
            if record.kind is _SAMPLE:
                for cycle in record.cycles:
                    key = (cycle, source_id(record.source))
                    window = windows.get(key)
                    if window is None:
                        windows[key] = [seq, seq, 1]
                    else:
                        window[1] = seq
                        window[2] = 1
                if "counted" in record.body:
                    for one in record.body["counted"]:
                        self._count(one)
            else:
                fact = self._facts.get(record.kind)
                if fact is not None:
                    fact(seq, record, record.body)
        self._flush()

    def _flush(self, cycle: str | None = None) -> None:
        rows = []
        for (owner, source), window in self._windows.items():
            if window[2] and (cycle is None or cycle == owner):
                rows.append((owner, source, window[0], window[1]))
                window[2] = 0
        if rows:
            self._connection.executemany(
                "INSERT INTO cycle_window (cycle, source, first_seq, last_seq) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_seq = excluded.last_seq",
                rows,
            )

    def _forget(self, cycle: str) -> None:
        for key in [key for key in self._windows if key[0] == cycle]:
            del self._windows[key]

    # --- one method a kind -----------------------------------------------------------------------------------

    def _config(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        claims = []
        for station, description in body.get("stations", {}).items():
            self._connection.execute("INSERT OR IGNORE INTO station (name) VALUES (?)", (station,))
            for position, part in description.get("positions", {}).items():
                for group, tags in part.get("claims", {}).items():
                    source = self._sources.id(group)
                    claims += [(body["config"], station, int(position), source, tag) for tag in tags]
        self._connection.executemany("INSERT OR IGNORE INTO claim VALUES (?, ?, ?, ?, ?)", claims)

    def _tagset(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        row = (body["tagset"], body["device"], body["group"])
        self._connection.execute("INSERT OR IGNORE INTO tagset VALUES (?, ?, ?)", row)
        tags = [(body["tagset"], i, t["name"], t["type"], t["unit"]) for i, t in enumerate(body["tags"])]
        # of a damaged file perhaps only the one or the other was readable
        self._connection.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?, ?, ?, ?)", tags)

    def _cycle_opened(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO cycle (cycle, config, station, step, position, seq, opened_at_ns, opened_by,"
            " attempt, context, state, binding_state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', 'pending')",
            (
                body["cycle"], body["config"], body["station"], body["step"], body["position"], seq,
                record.at.at_ns, body["opened_by"], body.get("attempt"), _text(body.get("context", {})),
            ),
        )  # fmt: skip

    def _cycle_closed(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        cycle, binding = body["cycle"], body.get("binding", {})
        outcome = {key: body[key] for key in _OUTCOME if key in body}
        self._connection.execute(
            "INSERT INTO cycle (cycle, config, station, step, position, seq, opened_at_ns, opened_by, attempt, context,"
            " state, ended_at_ns, closed_by, result, complete, outcome, binding_state, unit)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'closed', ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cycle) DO UPDATE SET"
            " state = 'closed', attempt = excluded.attempt, context = excluded.context,"
            " ended_at_ns = excluded.ended_at_ns, closed_by = excluded.closed_by, result = excluded.result,"
            " complete = excluded.complete, outcome = excluded.outcome,"
            " binding_state = iif(binding IS NULL, excluded.binding_state, binding_state),"
            " unit = iif(binding IS NULL, excluded.unit, unit)",
            (
                cycle, body["config"], body["station"], body["step"], body["position"], seq,
                int(body["opened_at_ns"]), body.get("opened_by", ""), body.get("attempt"),
                _text(body.get("context", {})), int(body["ended_at_ns"]), body["closed_by"], body["result"],
                body["complete"], _text(outcome),
                binding.get("state", "pending"), _bound_unit(binding),
            ),
        )  # fmt: skip
        self._forget(cycle)
        if body.get("windows") is not None:
            self._replace_windows(cycle, body["windows"])
        if body.get("materials"):
            consume(self._connection, cycle, body["materials"])
        if body.get("counter") is not None:
            self._count(body)

    def _count(self, body: Mapping[str, Any]) -> None:
        """The newest counter of a position."""
        self._connection.execute(
            "INSERT OR REPLACE INTO counter VALUES (?, ?, ?, ?)",
            (body["station"], body["position"], body["counter"], body.get("epoch") or 0),
        )

    def _replace_windows(self, cycle: str, windows: Mapping[str, Any]) -> None:
        """What the binder says a cycle owns, instead of what its samples suggested."""
        self._connection.execute("DELETE FROM cycle_window WHERE cycle = ?", (cycle,))
        rows = [
            (cycle, self._sources.id(group), first, last) for group, ranges in windows.items() for first, last in ranges
        ]
        self._connection.executemany("INSERT OR REPLACE INTO cycle_window VALUES (?, ?, ?, ?)", rows)

    def _binding(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        execute = self._connection.execute
        if self.recall is not None:
            self.recall(self._connection, "cycle", body["cycle"])
        unit, serial = body.get("unit"), body.get("serial")
        if unit is not None:
            sql = "INSERT OR IGNORE INTO unit (unit, serial, seq, at_ns) VALUES (?, ?, ?, ?)"
            execute(sql, (unit, serial, seq, record.at.at_ns))
        execute(
            "INSERT OR REPLACE INTO binding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                body["binding"], body["cycle"], body["state"], unit, serial, body.get("rule"), body.get("reason"),
                _text(body.get("candidates", [])), _text(body.get("evidence", [])), body.get("supersedes"),
                body.get("by"), seq, record.at.at_ns,
            ),
        )  # fmt: skip
        execute(
            "UPDATE binding SET state = 'superseded' WHERE cycle = ? AND binding <> ? AND state <> 'voided'",
            (body["cycle"], body["binding"]),
        )
        execute(
            "UPDATE cycle SET binding = ?, binding_state = ?, unit = ? WHERE cycle = ?",
            (body["binding"], body["state"], _bound_unit(body), body["cycle"]),
        )
        if "attempt" in body:
            execute("UPDATE cycle SET attempt = ? WHERE cycle = ?", (body["attempt"], body["cycle"]))
        if (body.get("rule") or "").startswith("resume:"):
            execute("UPDATE cycle SET state = 'open' WHERE cycle = ? AND state = 'interrupted'", (body["cycle"],))
            self._forget(body["cycle"])  # the next sample begins a new window

    def _identifier(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        execute = self._connection.execute
        unit, op, kind, value = body["unit"], body["op"], body["kind"], body["value"]
        if self.recall is not None:
            self.recall(self._connection, "unit", unit)
        sql = "INSERT OR IGNORE INTO unit (unit, seq, at_ns, kind) VALUES (?, ?, ?, ?)"
        execute(sql, (unit, seq, record.at.at_ns, "lot" if kind == "lot" else "serial"))  # by what names it first
        if op == "replace":
            execute(
                "UPDATE identifier SET removed_seq = ? WHERE unit = ? AND kind = ? AND removed_seq IS NULL",
                (seq, unit, kind),
            )
        if op == "remove":
            execute(
                "UPDATE identifier SET removed_seq = ? WHERE unit = ? AND kind = ? AND value = ?"
                " AND removed_seq IS NULL",
                (seq, unit, kind, value),
            )
        else:
            row = (unit, kind, value, seq, record.at.at_ns, body.get("position"))
            execute("INSERT OR REPLACE INTO identifier VALUES (?, ?, ?, ?, ?, NULL, ?)", row)
        if kind in ("serial", "lot"):
            sql = "UPDATE unit SET serial = ? WHERE unit = ? AND kind = ?"
            execute(sql, (None if op == "remove" else value, unit, kind))

    def _finding(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        details = body.get("details")
        self._connection.execute(
            "INSERT OR REPLACE INTO finding (finding, code, severity, text, source, cycle, position, serial, details,"
            " seq, at_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                body["finding"], body["code"], body["severity"], body["text"], record.source, body.get("cycle"),
                body.get("position"), body.get("serial"), None if details is None else _text(details), seq,
                record.at.at_ns,
            ),
        )  # fmt: skip
        if body["code"] == "observation_gap":
            known: Mapping[str, Any] = details or {}
            for cycle in known.get("cycles", ()):
                self._flush(cycle)
                self._forget(cycle)
                if "windows" in known:  # a gap is noticed later than it began: what came since is taken back
                    self._replace_windows(cycle, known["windows"])
                self._connection.execute(
                    "UPDATE cycle SET state = 'interrupted' WHERE cycle = ? AND state = 'open'", (cycle,)
                )


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def _bound_unit(body: Mapping[str, Any]) -> str | None:
    unit: str | None = body.get("unit")
    return unit if body.get("state") == "bound" else None
