"""Findings, and cycles that no rule could decide, as people look for them: what waits for somebody.

Both are read newest first and bounded by a limit; whoever wants more names a time.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import orjson

UNDECIDED = ("pending", "ambiguous", "orphan", "voided")


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and who acknowledged it."""

    id: str
    code: str
    severity: str
    text: str
    source: str
    cycle: str | None
    position: int | None
    serial: str | None
    at_ns: int
    acknowledged_at_ns: int | None
    acknowledged_by: str | None
    acknowledged_reason: str | None


@dataclass(frozen=True, slots=True)
class Unbound:
    """A cycle of which it is not known whose it is. ``candidates``: {unit, serial} each."""

    cycle: str
    station: str
    step: str
    position: int
    open: bool
    opened_at_ns: int
    ended_at_ns: int | None
    result: str | None
    binding_state: str
    rule: str | None
    reason: str | None
    candidates: list[Any]


def findings(
    connection: sqlite3.Connection, *, since_ns: int, code: str | None, all_: bool, limit: int
) -> tuple[list[Found], int]:
    """(The newest that were not acknowledged, or ``all_`` of them; how many there are)."""
    where = "FROM finding WHERE at_ns >= ?1 AND (?2 IS NULL OR code = ?2) AND (?3 OR acknowledged_at_ns IS NULL)"
    (count,) = connection.execute(f"SELECT count(*) {where}", (since_ns, code, all_)).fetchone()
    columns = (
        "finding, code, severity, text, source, cycle, position, serial, at_ns, acknowledged_at_ns, acknowledged_by,"
        " acknowledged_reason"
    )
    rows = connection.execute(f"SELECT {columns} {where} ORDER BY seq DESC LIMIT ?4", (since_ns, code, all_, limit))
    return [Found(*row) for row in rows], count


def unbound(
    connection: sqlite3.Connection, *, since_ns: int, station: str | None, limit: int
) -> tuple[list[Unbound], int]:
    """(The newest cycles without a unit; how many there are)."""
    states = ", ".join(f"'{state}'" for state in UNDECIDED)
    where = (
        "FROM cycle c LEFT JOIN binding b ON b.binding = c.binding"
        f" WHERE c.binding_state IN ({states}) AND c.opened_at_ns >= ?1 AND (?2 IS NULL OR c.station = ?2)"
    )
    (count,) = connection.execute(f"SELECT count(*) {where}", (since_ns, station)).fetchone()
    columns = (
        "c.cycle, c.station, c.step, c.position, c.state <> 'closed', c.opened_at_ns, c.ended_at_ns, c.result,"
        " c.binding_state, b.rule, b.reason, b.candidates"
    )
    rows = connection.execute(f"SELECT {columns} {where} ORDER BY c.seq DESC LIMIT ?3", (since_ns, station, limit))
    found = []
    for cycle, where, step, position, is_open, opened_ns, ended_ns, result, state, rule, reason, candidates in rows:
        known = orjson.loads(candidates or b"[]")
        one = (cycle, where, step, position, bool(is_open), opened_ns, ended_ns, result, state, rule, reason, known)
        found.append(Unbound(*one))
    return found, count
