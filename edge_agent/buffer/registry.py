"""The binder's questions, answered from the registry and from facts that are not committed yet.

The binder asks on the event loop, one step after it appended; the writer may not have committed that. So what the
registry will say of appended facts is remembered until they are durable (``unwritten``), and laid over its answers: one
that is in both by now changes nothing, as the newest fact wins either way.

Every statement follows an index, in an order of tables that is spelt out (CROSS JOIN): the planner has no statistics.
While a damaged file is being taken over, units and their cycles are asked from it too where the registry knows nothing;
the rest is known when ``Buffer.holds_known`` says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import orjson

from edge_agent.binding.state import (
    BLOCKED,
    Installed,
    KnownCycle,
    KnownLot,
    KnownUnit,
    KnownVerdict,
    Loaded,
    StepResult,
    StepStatus,
    opened_seq,
)
from edge_agent.buffer.unwritten import Unwritten
from edge_agent.model import Record

DEPTH = 32  # of components in components: what is deeper is no product, but a mistake in the data

_CYCLE = (
    "SELECT c.cycle, c.station, c.step, c.position, c.state, c.binding, c.binding_state, c.unit, u.serial, c.result,"
    " c.complete, c.attempt, c.opened_at_ns, c.ended_at_ns, c.closed_by"
    " FROM cycle c LEFT JOIN unit u ON u.unit = c.unit"
)
_INSTALLED = (
    "SELECT g.parent, p.serial, g.child, c.serial, g.name, g.cycle FROM genealogy g"
    " LEFT JOIN unit p ON p.unit = g.parent LEFT JOIN unit c ON c.unit = g.child"
    " WHERE g.{end} = ? AND g.removed_seq IS NULL ORDER BY g.seq"
)
_STATUS = "step, result, complete, attempt, status_at_ns, at_ns, said_by, cycle, state, station"
INSIDE = f"""
WITH RECURSIVE inside(unit, depth) AS (
  SELECT value, 0 FROM json_each(?)
  UNION SELECT g.child, i.depth + 1 FROM inside i CROSS JOIN genealogy g ON g.parent = i.unit
  WHERE g.removed_seq IS NULL AND i.depth < {DEPTH}
)
"""
"""What is in these units (a JSON list), at any depth, themselves included. UNION: a circle in the data ends it."""


CameTo = tuple[str, str | None, int | None, int | None, str | None]
"""Of a cycle: step, result, complete, ended_at_ns, closed_by."""


class Former(Protocol):
    """The registry of a file that is being salvaged."""

    def unit(self, kind: str, value: str) -> str | None:
        """The unit that carried this identifier."""
        ...

    def identifiers(self, unit: str) -> list[tuple[int, str, str, int | None]]:
        """(seq, kind, value, removed_seq) of each."""
        ...

    def cycles(self, unit: str) -> dict[str, CameTo]:
        """What each came to."""
        ...


class Registry:
    """Implements ``binding.state.Lookup``. The event loop's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._new = Unwritten()
        self.former: Callable[[], Former | None] = lambda: None  # a damaged file's, until it is taken over
        self.appended: Callable[[int, Record], None] = self._new.appended
        self.committed: Callable[[int], None] = self._new.committed

    def close(self) -> None:
        self._connection.close()

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: Any) -> Any:
        return self._connection.execute(sql, values).fetchone()

    # --- units -----------------------------------------------------------------------------------------------

    def unit(self, kind: str, value: str) -> KnownUnit | None:
        """The unit that carries this identifier now; of kind ``lot`` the unit that *is* that lot."""
        unit = self._find(kind, value)
        if unit is None:
            return None
        row = self._row("SELECT serial, kind FROM unit WHERE unit = ?", unit) or (None, None)
        names = self._identifiers(unit)
        what = row[1] or self._new.kinds.get(unit, (0, "serial"))[1]
        serial = names.get(what, row[0])
        contents = self._contents(unit)
        lots, packages, own_lots, own_packages = (
            frozenset(one for owner, *of in contents if (one := of[i]) and (owner == unit or not own))
            for own in (False, True)
            for i in (0, 1)
        )
        attempts, results = self._history(unit) if what == "serial" else ({}, {})  # a lot is not told apart
        return KnownUnit(
            unit, attempts, serial, what, results, names, self.parent_of(unit), lots, packages, own_lots, own_packages
        )

    def _find(self, kind: str, value: str) -> str | None:
        """The unit by the registry; while that is being salvaged, by the damaged file's where it knows nothing."""
        found = self._new.named(kind, value)
        if found is not None:
            return found[0]
        if kind == "unit":
            row = self._row("SELECT unit, NULL FROM unit WHERE unit = ?", value)
        elif kind == "lot":
            row = self._row("SELECT unit, NULL FROM unit WHERE serial = ? AND kind = 'lot'", value)
        else:
            row = self._row(
                "SELECT unit, removed_seq FROM identifier WHERE kind = ? AND value = ?"
                " ORDER BY removed_seq IS NOT NULL, seq DESC LIMIT 1",
                kind, value,
            )  # fmt: skip
        former = self.former()
        if row is None and former is not None:
            return former.unit(kind, value)
        if row is None or row[1] is not None or self._new.lost_name(row[0], kind, value):
            return None
        return str(row[0])

    def _identifiers(self, unit: str) -> dict[str, str]:
        sql = "SELECT seq, kind, value, removed_seq FROM identifier WHERE unit = ?"
        former = self.former()
        rows = {row[:3]: row for row in (former.identifiers(unit) if former is not None else [])}
        rows |= {row[:3]: row for row in self._rows(sql, unit)}
        return self._new.identifiers(unit, [key[1:] for key, row in sorted(rows.items()) if row[3] is None])

    def _history(self, unit: str) -> tuple[dict[str, int], dict[str, StepResult]]:
        """Attempts and newest results by step, of the cycles that are bound to the unit; not those the gate blocked."""
        former = self.former()
        cycles = {} if former is None else dict(former.cycles(unit))
        sql = "SELECT cycle, step, result, complete, ended_at_ns, closed_by FROM cycle WHERE unit = ?"
        cycles |= {cycle: tuple(rest) for cycle, *rest in self._rows(sql, unit)}
        for cycle, owner in self._new.owners():
            if owner == unit:
                known = self.cycle(cycle)
                if known is not None:
                    cycles[cycle] = _came_to(known)
            else:
                cycles.pop(cycle, None)
        for cycle in self._new.closed & cycles.keys():
            known = self.cycle(cycle)
            if known is not None:
                cycles[cycle] = _came_to(known)
        attempts: dict[str, int] = {}
        results: dict[str, StepResult] = {}
        for cycle, (step, result, complete, at_ns, closed_by) in cycles.items():
            if closed_by == BLOCKED:
                continue
            attempts[step] = attempts.get(step, 0) + 1
            newest = results.get(step)
            if result is None or at_ns is None:
                continue
            if newest is None or (opened_seq(newest.cycle), newest.at_ns) <= (opened_seq(cycle), at_ns):
                results[step] = StepResult(result, bool(complete), at_ns, cycle)
        return attempts, results

    def _contents(self, unit: str) -> list[tuple[str, str | None, str | None]]:
        """(unit, lot, package) of what is in a unit, at any depth, and in which of the units inside."""
        inside = self._inside(unit)
        owners = dict(self._new.owners())  # cycles that were bound or withdrawn just now
        sql = (
            "SELECT i.value, m.lot, m.package, m.cycle FROM json_each(?1) i CROSS JOIN cycle c ON c.unit = i.value"
            " CROSS JOIN consumption m ON m.cycle = c.cycle"
            " UNION SELECT i.value, iif(n.kind = 'lot', n.value, NULL), iif(n.kind = 'package', n.value, NULL), NULL"
            " FROM json_each(?1) i CROSS JOIN identifier n ON n.unit = i.value AND n.kind IN ('lot', 'package')"
            " AND n.removed_seq IS NULL"
        )
        rows = [row[:3] for row in self._rows(sql, orjson.dumps(list(inside)).decode()) if row[3] not in owners]
        for cycle, owner in owners.items():
            if owner in inside:
                rows += self._rows("SELECT ?, lot, package FROM consumption WHERE cycle = ?", owner, cycle)
        return rows + self._new.contents(inside, self.cycle)

    def _inside(self, unit: str) -> set[str]:
        """A unit and everything in it."""
        if not self._new.assembles:
            sql = f"{INSIDE} SELECT DISTINCT unit FROM inside"
            return {one for (one,) in self._rows(sql, orjson.dumps([unit]).decode())}
        inside, edge = {unit}, {unit}
        for _ in range(DEPTH):
            edge = {one.child for parent in edge for one in self.children_of(parent)} - inside
            inside |= edge
        return inside

    # --- carriers, components --------------------------------------------------------------------------------

    def on_carrier(self, carrier: str) -> tuple[Loaded, ...]:
        """What is on a carrier now, by position."""
        sql = (
            "SELECT n.unit, n.position FROM identifier n INDEXED BY identifier_carrier"
            " WHERE n.value = ? AND n.kind = 'carrier' AND n.removed_seq IS NULL ORDER BY n.seq"
        )
        there = self._new.on_carrier(carrier, dict(self._rows(sql, carrier)))
        found = [Loaded(position, unit, self._serial(unit)) for unit, position in there.items()]
        return tuple(sorted(found, key=lambda one: (one.position is None, one.position or 0)))

    def _serial(self, unit: str) -> str:
        new = self._new.serials.get(unit)
        if new is not None:
            return new[1]
        row = self._row("SELECT serial FROM unit WHERE unit = ?", unit)
        return str(row[0] or "") if row else ""

    def parent_of(self, unit: str) -> Installed | None:
        """The unit that this one is installed in now; the newest, if it is said to be in several."""
        found = self._new.installed("child", unit, self._installed("child", unit))
        return found[-1] if found else None

    def children_of(self, unit: str) -> tuple[Installed, ...]:
        """What is installed in this unit now, oldest first."""
        return tuple(self._new.installed("parent", unit, self._installed("parent", unit)))

    def installed_in(self, cycle: str) -> tuple[Installed, ...]:
        """What was installed in this cycle and is still there: its parents are the units that it was ever bound to."""
        rows = self._rows("SELECT DISTINCT unit FROM binding WHERE cycle = ? AND unit IS NOT NULL", cycle)
        parents = {unit for (unit,) in rows} | self._new.parents(cycle)
        return tuple(one for unit in sorted(parents) for one in self.children_of(unit) if one.cycle == cycle)

    def _installed(self, end: str, unit: str) -> Iterable[Installed]:
        for parent, parent_serial, child, child_serial, name, cycle in self._rows(_INSTALLED.format(end=end), unit):
            yield Installed(parent, parent_serial or "", child, child_serial or "", name, cycle)

    # --- cycles ----------------------------------------------------------------------------------------------

    def cycle(self, cycle_id: str) -> KnownCycle | None:
        """A cycle by its id."""
        row = self._row(f"{_CYCLE} WHERE c.cycle = ?", cycle_id)
        known = None
        if row is not None:
            cycle, station, step, position, state, binding, decided, unit, serial, result, complete, *rest = row
            known = KnownCycle(
                cycle, station, step, position, state, binding, decided, unit, serial, state == "closed", result,
                None if complete is None else bool(complete), *rest,
            )  # fmt: skip
        return self._new.cycle(cycle_id, known)

    # --- materials, others, verdicts -------------------------------------------------------------------------

    def lot(self, lot: str) -> KnownLot | None:
        """A lot, or a package, as it was last loaded here, and where it is now."""
        columns = "seq, station, name, package, lot, part_number, supplier, expiry, ended_seq IS NULL"
        rows = self._rows(
            f"SELECT {columns} FROM material_load WHERE seq IN ("
            "SELECT seq FROM (SELECT max(seq) AS seq FROM material_load WHERE lot = ?1"
            " UNION SELECT max(seq) FROM material_load WHERE package = ?1"
            " UNION SELECT seq FROM material_load WHERE lot = ?1 AND ended_seq IS NULL"
            " UNION SELECT seq FROM material_load WHERE package = ?1 AND ended_seq IS NULL)) ORDER BY seq",
            lot,
        )
        rows = self._new.loads(lot, rows)
        if not rows:
            return None
        _, station, name, _, _, part_number, supplier, expiry, _ = rows[-1]
        active = tuple((row[1], row[2], row[3]) for row in rows if row[8])
        return KnownLot(lot, part_number, supplier, expiry, station, name, active)

    def status(self, serial: str) -> tuple[StepStatus, ...]:
        """What others said of this serial, newest last."""
        rows = self._rows(
            f"SELECT {_STATUS} FROM unit_status WHERE serial = ? ORDER BY seq",
            serial,
        )
        return tuple(self._new.status(serial, [_status(*row) for row in rows]))

    def status_of_cycle(self, said_by: str, cycle: str) -> tuple[str, StepStatus] | None:
        """Which serial has the result of another agent's cycle now, and what it is."""
        sql = "SELECT serial FROM unit_status WHERE cycle = ? AND said_by = ?"
        serials = {serial for (serial,) in self._rows(sql, cycle, said_by)} | self._new.serials_of(said_by, cycle)
        found = [(serial, one) for serial in serials for one in self.status(serial)]
        of_it = [(serial, one) for serial, one in found if one.cycle == cycle and one.source == said_by]
        return max(of_it, key=lambda pair: (pair[1].state == "bound", pair[1].received_at_ns), default=None)

    def finding(self, finding: str) -> str | None:
        """The code of a finding by its id; None: there is none."""
        row = self._row("SELECT code FROM finding WHERE finding = ?", finding)
        return str(row[0]) if row else self._new.finding(finding)

    def doubts(self, what: str) -> bool:
        """Damage made this uncertain, and nobody confirmed it since."""
        return self._row("SELECT 1 FROM doubt WHERE what = ?", what) is not None and not self._new.confirmed(what)

    def verdict(self, verdict_id: str) -> KnownVerdict | None:
        """What this verdict was when it came first, and what became of it; None: it is new."""
        row = self._row(
            "SELECT state, source, decision_seq, action, subject_kind, subject, hold FROM verdict WHERE verdict_id = ?",
            verdict_id,
        )
        return KnownVerdict(*row) if row else self._new.verdict(verdict_id)

    def decision_seq(self, subject_kind: str, subject: str, hold: str | None, source: str) -> int | None:
        """The highest decision_seq of this source that was applied to this subject and hold."""
        (known,) = self._row(
            "SELECT max(seq) FROM (SELECT max(decision_seq) AS seq FROM verdict"
            " WHERE subject = ?1 AND subject_kind = ?2 AND hold IS ?3 AND state = 'applied' AND source = ?4"
            " UNION ALL SELECT max(decision_seq) FROM hold"
            " WHERE hold = ?3 AND subject_kind = ?2 AND subject = ?1 AND source = ?4)",
            subject, subject_kind, hold, source,
        )  # fmt: skip
        new = self._new.decision_seq(subject_kind, subject, hold, source)
        return max((seq for seq in (known, new) if seq is not None), default=None)

    def last_decision(self, source: str) -> int | None:
        """The highest decision_seq ever heard from this source."""
        (known,) = self._row("SELECT max(decision_seq) FROM verdict WHERE source = ?", source)
        new = self._new.last_decision(source)
        return max((seq for seq in (known, new) if seq is not None), default=None)


def _came_to(known: KnownCycle) -> CameTo:
    return known.step, known.result, known.complete, known.ended_at_ns, known.closed_by


def _status(step: str, result: str, complete: int | None, *rest: Any) -> StepStatus:
    return StepStatus(step, result, None if complete is None else bool(complete), *rest)
