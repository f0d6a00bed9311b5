"""What each station did in a shift, from the registry alone: the same figures however often they are asked for.

A cycle counts in the shift in which it ended. *First pass*: the first closed cycle of a unit at the station's step; of
those the share that passed. Cycles of no unit are in no yield, they are counted beside it. A visit that the gate
turned away is no cycle here: the gate's decisions are counted on their own.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

EARLIER_NS = 24 * 3600 * 10**9  # no cycle that ended in the shift opened longer before it than this


@dataclass(slots=True)
class StationShift:
    """The figures of one station. Of what is none (a device, a route) there are only gaps and findings."""

    station: str
    units: int = 0
    cycles: int = 0
    first: int = 0  # units whose first cycle at this step it was
    first_passed: int = 0
    results: dict[str, int] = field(default_factory=dict)
    undecided: dict[str, int] = field(default_factory=dict)  # binding state -> cycles
    incomplete: int = 0
    suspect: int = 0
    gaps: int = 0
    gap_s: float = 0.0
    blocked: int = 0  # at the gate
    permitted: int = 0
    overridden: int = 0
    findings: dict[str, int] = field(default_factory=dict)  # code -> how many
    unacknowledged: dict[str, int] = field(default_factory=dict)

    @property
    def first_pass_yield(self) -> float | None:
        """In percent; None without a first pass."""
        return round(100 * self.first_passed / self.first, 2) if self.first else None


@dataclass(frozen=True, slots=True)
class Shift:
    """All of it. ``newest``: the serial of the unit that was seen last."""

    since_ns: int
    until_ns: int
    stations: tuple[StationShift, ...]
    others: tuple[StationShift, ...]  # devices and whoever else told findings that are no station's
    newest: str | None


def shift(connection: sqlite3.Connection, since_ns: int, until_ns: int) -> Shift:
    """The figures of what ended between two instants, the second not included."""
    found: dict[str, StationShift] = {}
    span = (since_ns, until_ns)

    def at(station: str) -> StationShift:
        return found.setdefault(station, StationShift(station))

    connection.execute("BEGIN")  # one picture, whatever is written meanwhile
    try:
        from_seq = _seq_at(connection, since_ns - EARLIER_NS)
        for row in connection.execute(_CYCLES, (*span, from_seq)):
            _count_cycle(at(row[0]), *row[1:])
        for station, units in connection.execute(_UNITS, (*span, from_seq)):
            at(station).units = units
        for station, verdict, basis, count in connection.execute(_GATE, span):
            one = at(station)
            one.blocked += count if verdict == "block" else 0
            one.permitted += count if verdict == "permit" else 0
            one.overridden += count if basis == "override" else 0
        worked = set(found)
        _count_findings(connection.execute(_FINDINGS, span), at)
        newest = connection.execute(
            "SELECT u.serial FROM cycle c JOIN unit u ON u.unit = c.unit ORDER BY c.seq DESC LIMIT 1"
        ).fetchone()
        known = {name for (name,) in connection.execute("SELECT name FROM station")}
    finally:
        connection.execute("COMMIT")
    stations = tuple(found[name] for name in sorted(found) if name in known | worked)
    others = tuple(found[name] for name in sorted(found) if name not in known | worked)
    return Shift(since_ns, until_ns, stations, others, newest[0] if newest else None)


_ENDED = (
    "FROM cycle c WHERE c.state = 'closed' AND c.closed_by IS NOT 'blocked'"
    " AND c.ended_at_ns >= ?1 AND c.ended_at_ns < ?2 AND c.seq >= ?3"
)
_CYCLES = (
    "SELECT c.station, c.result, c.complete, c.binding_state,"
    " coalesce(json_array_length(c.outcome, '$.suspect'), 0) > 0,"
    " c.unit IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cycle e WHERE e.unit = c.unit AND e.step = c.step"
    " AND e.seq < c.seq AND e.state = 'closed' AND e.closed_by IS NOT 'blocked') AS first,"
    f" count(*) {_ENDED} GROUP BY 1, 2, 3, 4, 5, 6"
)
_UNITS = f"SELECT c.station, count(DISTINCT c.unit) {_ENDED} GROUP BY 1"
_GATE = "SELECT station, verdict, basis, count(*) FROM gate WHERE at_ns >= ? AND at_ns < ? GROUP BY 1, 2, 3"
_FINDINGS = (
    "SELECT coalesce(c.station, f.source), f.code, f.acknowledged_at_ns IS NULL, f.at_ns,"
    " iif(f.code = 'observation_gap', f.details, NULL) FROM finding f LEFT JOIN cycle c ON c.cycle = f.cycle"
    " WHERE f.at_ns >= ? AND f.at_ns < ?"
)


def _seq_at(connection: sqlite3.Connection, at_ns: int) -> int:
    """The seq from which on cycles opened after ``at_ns``: halved, as seqs and times rise together, but for clocks."""
    low, high = connection.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM cycle").fetchone()
    while low < high:
        middle = (low + high) // 2
        sql = "SELECT opened_at_ns FROM cycle WHERE seq >= ? ORDER BY seq LIMIT 1"
        (opened_at_ns,) = connection.execute(sql, (middle,)).fetchone()
        if opened_at_ns < at_ns:
            low = middle + 1
        else:
            high = middle
    return int(low)


def _count_cycle(
    one: StationShift, result: str, complete: int, state: str, is_suspect: int, is_first: int, count: int
) -> None:
    one.cycles += count
    one.results[result] = one.results.get(result, 0) + count
    one.incomplete += 0 if complete else count
    one.suspect += count if is_suspect else 0
    if state != "bound":
        one.undecided[state] = one.undecided.get(state, 0) + count
    if is_first:
        one.first += count
        one.first_passed += count if result == "Passed" else 0


def _count_findings(rows: Iterable[tuple[Any, ...]], at: Any) -> None:
    codes: dict[str, Counter[str]] = {}
    waiting: dict[str, Counter[str]] = {}
    for station, code, is_waiting, at_ns, details in rows:
        codes.setdefault(station, Counter())[code] += 1
        waiting.setdefault(station, Counter())[code] += bool(is_waiting)
        if details is not None:
            since_ns = orjson.loads(details).get("since_ns")
            at(station).gaps += 1
            at(station).gap_s += max(0.0, (at_ns - int(since_ns)) / 1e9) if since_ns is not None else 0.0
    for station, counts in codes.items():
        at(station).findings = dict(counts.most_common())
        at(station).unacknowledged = {code: count for code, count in waiting[station].items() if count}
