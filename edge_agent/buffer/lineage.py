"""What went into a unit, and what a unit or a lot went into: at any depth, in both directions. Read-only.

Each walk goes along the indexes of ``genealogy`` and ``consumption``: in one recursive statement or, for a lot that is
in thousands of units, level by level. It ends at ``DEPTH``, and a circle in the data ends it. What was taken out again
is not followed; ``components`` shows it, with when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from edge_agent.buffer.registry import DEPTH, INSIDE

LIMIT = 100_000  # rows of one answer; a lot that is in more units says how many


@dataclass(frozen=True, slots=True)
class Component:
    """One unit in another. ``removed``: it was taken out since."""

    parent: str
    parent_serial: str | None
    child: str
    child_serial: str | None
    name: str
    cycle: str | None
    at_ns: int
    removed: bool
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Material:
    """A lot or package that a cycle consumed. Not ``certain``: one of several."""

    unit: str | None
    cycle: str
    station: str
    name: str
    lot: str | None
    package: str | None
    part_number: str | None
    certain: bool
    at_ns: int


@dataclass(frozen=True, slots=True)
class Contains:
    """A unit that contains what was asked for: at depth 0 itself, deeper through ``via``."""

    unit: str
    serial: str | None
    depth: int
    via: str | None  # the serial of the component through which
    certain: bool
    at_ns: int | None


@dataclass(frozen=True, slots=True)
class Forward:
    """Where a lot, package or unit went."""

    units: tuple[Contains, ...]
    total: int  # of units, also those beyond the limit
    unbound: tuple[str, ...]  # cycles that consumed it, of which nobody knows whose they are


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold, scrap, rework or concession on a unit or on what is in it."""

    hold: str
    subject_kind: str
    subject: str
    action: str
    state: str
    source: str
    text: str | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate said."""

    gate: str
    station: str
    position: int
    cycle: str | None
    verdict: str
    code: int
    reasons: list[Any]
    basis: str
    by: str | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class Said:
    """What another agent or the MES says of a serial at a step."""

    step: str
    said_by: str
    result: str
    complete: bool | None
    attempt: int | None
    status_at_ns: int | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A unit backwards (what is in it, with the lots that each part consumed) and forwards (what it is in)."""

    inside: tuple[Component, ...]
    materials: tuple[Material, ...]
    around: tuple[Component, ...]


_COMPONENT = (
    "SELECT g.parent, p.serial, g.child, c.serial, g.name, g.cycle, g.at_ns, g.removed_seq IS NOT NULL"
    " FROM genealogy g LEFT JOIN unit p ON p.unit = g.parent LEFT JOIN unit c ON c.unit = g.child"
)


def _component(row: tuple[Any, ...]) -> Component:
    return replace(Component(*row), removed=bool(row[7]))


def _material(row: tuple[Any, ...]) -> Material:
    return replace(Material(*row), certain=bool(row[7]))


def components(connection: sqlite3.Connection, unit: str, end: str = "parent") -> tuple[Component, ...]:
    """What is or was built into this unit; with ``end`` "child", what this unit is or was built into."""
    rows = connection.execute(f"{_COMPONENT} WHERE g.{end} = ? ORDER BY g.seq LIMIT ?", (unit, LIMIT))
    return tuple(_component(row) for row in rows)


def inside(connection: sqlite3.Connection, unit: str) -> tuple[Component, ...]:
    """Everything that is in this unit now, parents before their children."""
    sql = (
        f"{INSIDE} SELECT g.parent, p.serial, g.child, c.serial, g.name, g.cycle, g.at_ns, 0, min(i.depth) + 1"
        " FROM inside i CROSS JOIN genealogy g ON g.parent = i.unit LEFT JOIN unit p ON p.unit = g.parent"
        " LEFT JOIN unit c ON c.unit = g.child WHERE g.removed_seq IS NULL GROUP BY g.parent, g.child, g.seq"
        " ORDER BY min(i.depth), g.seq LIMIT ?"
    )
    rows = connection.execute(sql, (orjson.dumps([unit]).decode(), LIMIT))
    return tuple(_component(row) for row in rows)


def around(connection: sqlite3.Connection, unit: str) -> tuple[Component, ...]:
    """Everything that this unit is in now, the nearest first."""
    sql = (
        f"{_ABOVE.format(seeds='SELECT ?1, 1')} SELECT g.parent, p.serial, g.child, c.serial, g.name, g.cycle, g.at_ns,"
        " 0, min(a.depth) + 1 FROM above a CROSS JOIN genealogy g ON g.child = a.unit"
        " LEFT JOIN unit p ON p.unit = g.parent LEFT JOIN unit c ON c.unit = g.child"
        " WHERE g.removed_seq IS NULL GROUP BY g.parent, g.child, g.seq ORDER BY min(a.depth), g.seq LIMIT ?2"
    )
    rows = connection.execute(sql, (unit, LIMIT))
    return tuple(_component(row) for row in rows)


def subjects(connection: sqlite3.Connection, unit: str) -> list[tuple[str, str]]:
    """Everything under which a unit may be on hold: its identifiers, and the lots and packages in it at any depth."""
    sql = "SELECT kind, value FROM identifier WHERE unit = ? AND removed_seq IS NULL"
    found = set(connection.execute(sql, (unit,)))
    sql = f"{INSIDE} SELECT DISTINCT unit FROM inside"
    units = [one for (one,) in connection.execute(sql, (orjson.dumps([unit]).decode(),))]
    for one in materials(connection, units):
        found |= {("lot", one.lot), ("package", one.package)}
    sql = (
        "SELECT n.kind, n.value FROM json_each(?) i CROSS JOIN identifier n ON n.unit = i.value"
        " WHERE n.kind IN ('lot', 'package') AND n.removed_seq IS NULL"
    )
    found |= set(connection.execute(sql, (orjson.dumps(units).decode(),)))
    return sorted((kind, value) for kind, value in found if value)


def tree(connection: sqlite3.Connection, unit: str) -> Tree:
    """Both directions at once."""
    parts = inside(connection, unit)
    units = list(dict.fromkeys([unit, *(part.child for part in parts)]))
    return Tree(parts, materials(connection, units), around(connection, unit))


def materials_of(connection: sqlite3.Connection, cycle: str) -> tuple[Material, ...]:
    """What one cycle consumed."""
    sql = (
        "SELECT c.unit, c.cycle, c.station, m.name, m.lot, m.package, m.part_number, m.certain, c.opened_at_ns"
        " FROM consumption m CROSS JOIN cycle c ON c.cycle = m.cycle WHERE m.cycle = ? ORDER BY m.idx"
    )
    return tuple(_material(row) for row in connection.execute(sql, (cycle,)))


def materials(connection: sqlite3.Connection, units: Sequence[str]) -> tuple[Material, ...]:
    """The lots and packages that cycles of these units consumed."""
    sql = (
        "SELECT c.unit, c.cycle, c.station, m.name, m.lot, m.package, m.part_number, m.certain, c.opened_at_ns"
        " FROM json_each(?) i CROSS JOIN cycle c ON c.unit = i.value CROSS JOIN consumption m ON m.cycle = c.cycle"
        " ORDER BY c.seq, m.idx LIMIT ?"
    )
    rows = connection.execute(sql, (orjson.dumps(list(units)).decode(), LIMIT))
    return tuple(_material(row) for row in rows)


_ABOVE = f"""
WITH RECURSIVE seed(unit, certain) AS ({{seeds}}),
above(unit, via, depth, certain) AS (
  SELECT unit, NULL, 0, certain FROM seed
  UNION SELECT g.parent, g.child, a.depth + 1, a.certain FROM above a CROSS JOIN genealogy g ON g.child = a.unit
  WHERE g.removed_seq IS NULL AND a.depth < {DEPTH}
)
"""
_CONSUMED = (
    "SELECT c.unit, max(m.certain) FROM consumption m CROSS JOIN cycle c ON c.cycle = m.cycle"
    " WHERE m.{kind} = ?1 AND c.unit IS NOT NULL GROUP BY c.unit"
    " UNION ALL SELECT unit, 1 FROM identifier WHERE value = ?1 AND kind = '{kind}' AND removed_seq IS NULL"
    " UNION ALL SELECT unit, 1 FROM unit WHERE serial = ?1 AND kind = '{kind}'"
)


_PARENTS = (
    "SELECT g.parent, g.child FROM json_each(?) a CROSS JOIN genealogy g ON g.child = a.value"
    " WHERE g.removed_seq IS NULL"
)
_NAMES = "SELECT u.unit, u.serial, u.at_ns, u.seq FROM json_each(?) a CROSS JOIN unit u ON u.unit = a.value"


def forward(connection: sqlite3.Connection, kind: str, value: str, limit: int = LIMIT) -> Forward:
    """Which units contain this lot or package, at any depth; those that consumed it themselves first.

    Level by level, and each unit at most twice (once more if it turns out to be certain): SQL's recursion would carry
    every way to it along.
    """
    certain: dict[str, int] = {}
    for unit, sure in connection.execute(_CONSUMED.format(kind=kind), (value,)):
        certain[unit] = max(sure, certain.get(unit, 0))
    places: dict[str, tuple[int, str | None]] = dict.fromkeys(certain, (0, None))  # unit -> depth, via
    level = list(certain)
    for depth in range(1, DEPTH + 1):
        above: dict[str, None] = {}
        for parent, child in connection.execute(_PARENTS, (orjson.dumps(level).decode(),)) if level else ():
            if parent not in places or certain[child] > certain[parent]:
                places.setdefault(parent, (depth, child))
                certain[parent] = certain[child]
                above[parent] = None
        level = list(above)
    rows = connection.execute(_NAMES, (orjson.dumps(list(places)).decode(),))
    names = {unit: (serial, at_ns, seq) for unit, serial, at_ns, seq in rows}
    nobody = (None, None, 0)
    order = sorted(places, key=lambda unit: (places[unit][0], names.get(unit, nobody)[2]))
    found = []
    for unit in order[:limit]:
        (depth, via), (serial, at_ns, _) = places[unit], names.get(unit, nobody)
        through = None if via is None else names.get(via, nobody)[0]
        found.append(Contains(unit, serial, depth, through, bool(certain[unit]), at_ns))
    sql = (
        "SELECT DISTINCT c.cycle FROM consumption m CROSS JOIN cycle c ON c.cycle = m.cycle"
        f" WHERE m.{kind} = ? AND c.unit IS NULL LIMIT ?"
    )
    unbound = tuple(cycle for (cycle,) in connection.execute(sql, (value, limit)))
    return Forward(tuple(found), len(places), unbound)


def holds(connection: sqlite3.Connection, subjects: Sequence[tuple[str, str]]) -> Iterator[Hold]:
    """Every hold on these (kind, value), released ones too, oldest first."""
    sql = (
        "SELECT h.hold, h.subject_kind, h.subject, h.action, h.state, h.source, h.text, h.at_ns FROM json_each(?) s"
        " CROSS JOIN hold h ON h.subject = json_extract(s.value, '$[1]')"
        " AND h.subject_kind = json_extract(s.value, '$[0]') ORDER BY h.at_ns"
    )
    return (Hold(*row) for row in connection.execute(sql, (orjson.dumps(subjects).decode(),)).fetchall())


def decisions(connection: sqlite3.Connection, unit: str) -> Iterator[Decision]:
    """What the gate said of this unit, oldest first."""
    sql = (
        "SELECT gate, station, position, cycle, verdict, code, reasons, basis, by, at_ns FROM gate WHERE unit = ?"
        " ORDER BY seq"
    )
    for row in connection.execute(sql, (unit,)).fetchall():
        yield replace(Decision(*row), reasons=orjson.loads(row[6]))


def said(connection: sqlite3.Connection, serial: str | None) -> Iterator[Said]:
    """What others say of this serial, oldest first."""
    sql = (
        "SELECT step, said_by, result, complete, attempt, status_at_ns, at_ns FROM unit_status WHERE serial = ?"
        " ORDER BY seq"
    )
    for step, by, result, complete, *rest in connection.execute(sql, (serial,)).fetchall():
        yield Said(step, by, result, None if complete is None else bool(complete), *rest)
