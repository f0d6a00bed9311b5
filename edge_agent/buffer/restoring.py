"""What a restart has to know: what the last run left open, and what is on hold. Read once, before the first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import orjson

from edge_agent.binding.state import (
    ActiveMaterial,
    KnownHold,
    KnownMessage,
    OpenCycle,
    PendingCycle,
    RecentCycle,
    Restored,
)
from edge_agent.model import Kind

PENDING = 1000  # closed cycles that wait for their unit, the newest; a late scan asks for one of minutes ago
MESSAGES = 256  # keyed messages of a position
MESSAGE_CYCLES = 10_000  # the newest cycles, in which they are looked for
RECENT = 256  # closed cycles, the newest; scans that belong to one of them may come after the restart
_BY_SCAN = (
    "('late_scan', 'late_read', 'gap', 'torn_read', 'sequence_gap', 'duplicate_serial')"  # rules after a late scan
)
USED_MAX = 1_000_000  # cycles of one package that are counted; no balance is worth reading more of the registry


def restored(connection: sqlite3.Connection) -> Restored:
    """Cycles that are open, or closed and wait for their unit, oldest first; counters, materials, holds."""
    rows = connection.execute(
        "SELECT c.cycle, c.station, c.position, c.opened_at_ns, c.opened_by, c.attempt, c.context, c.unit, u.serial,"
        " c.binding, c.binding_state FROM cycle c LEFT JOIN unit u ON u.unit = c.unit WHERE c.state <> 'closed'"
        " ORDER BY c.seq"
    ).fetchall()
    cycles, entered = [], let_in(connection)
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
                serial, binding, state if binding else None, entered.get(cycle),
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
    return Restored(
        tuple(cycles), counters, newest[0] if newest else None, pending(connection), materials(connection),
        tuple(holds(connection)), messages(connection), recent(connection),
    )  # fmt: skip


def let_in(connection: sqlite3.Connection) -> dict[str, bool]:
    """Of open cycles on which a gate decided: whether it ever let the unit in."""
    sql = (
        "SELECT cycle, max(verdict = 'permit') FROM gate WHERE seq > (SELECT min(seq) FROM cycle WHERE"
        " state <> 'closed') AND cycle IN (SELECT cycle FROM cycle WHERE state <> 'closed') GROUP BY cycle"
    )
    return {cycle: bool(permitted) for cycle, permitted in connection.execute(sql)}


def pending(connection: sqlite3.Connection) -> tuple[PendingCycle, ...]:
    """Closed cycles whose unit is still to come, oldest first."""
    sql = (
        "SELECT cycle, station, step, position, opened_at_ns, ended_at_ns, closed_by, result, complete, binding,"
        " attempt, seq FROM cycle INDEXED BY cycle_undecided WHERE binding_state IN ('pending', 'ambiguous', 'orphan')"
        " AND binding_state = 'pending' AND state = 'closed' ORDER BY seq DESC LIMIT ?"
    )
    rows = connection.execute(sql, (PENDING,)).fetchall()
    return tuple(replace(PendingCycle(*row), complete=bool(row[8])) for row in reversed(rows))


def messages(connection: sqlite3.Connection) -> dict[tuple[str, int], tuple[KnownMessage, ...]]:
    """The newest messages of testers, by station and position: one that is presented again is known."""
    sql = (
        "SELECT station, position, json_extract(outcome, '$.message.key'), json_extract(outcome, '$.message.hash'), seq"
        " FROM (SELECT station, position, outcome, seq FROM cycle ORDER BY seq DESC LIMIT ?)"
        """ WHERE outcome LIKE '%"message"%' AND json_type(outcome, '$.message.key') = 'text'"""
    )
    found: dict[tuple[str, int], tuple[KnownMessage, ...]] = {}
    for station, position, *message in connection.execute(sql, (MESSAGE_CYCLES,)):
        before = found.get((station, position), ())
        if len(before) < MESSAGES:
            found[station, position] = (*before, KnownMessage(*message))
    return found


def recent(connection: sqlite3.Connection) -> tuple[RecentCycle, ...]:
    """The newest closed cycles, oldest first."""
    sql = (
        "SELECT c.cycle, c.station, c.position, c.ended_at_ns, c.binding_state, b.rule, b.at_ns,"
        " iif(b.state = 'bound', b.serial, NULL),"
        f" (SELECT group_concat(s.evidence) FROM binding s WHERE s.cycle = c.cycle AND s.rule IN {_BY_SCAN})"
        " FROM cycle c INDEXED BY cycle_age LEFT JOIN binding b ON b.binding = c.binding"
        " WHERE c.state = 'closed' AND c.ended_at_ns IS NOT NULL ORDER BY c.seq DESC LIMIT ?"
    )
    rows = connection.execute(sql, (RECENT,)).fetchall()
    return tuple(replace(RecentCycle(*row[:-1]), scans=_scans(row[-1])) for row in reversed(rows))


def _scans(evidence: str | None) -> frozenset[int]:
    return frozenset(seq for one in orjson.loads(f"[{evidence or ''}]") for seq in one)


def materials(connection: sqlite3.Connection) -> tuple[ActiveMaterial, ...]:
    """What is loaded now, in the order of loading, and how many cycles used it since, as far as that matters."""
    sql = (
        "SELECT station, name, package, lot, part_number, supplier, expiry, quantity, state, at_ns, seq"
        " FROM material_load INDEXED BY material_load_now WHERE ended_seq IS NULL ORDER BY seq"
    )
    found = (ActiveMaterial(*row) for row in connection.execute(sql).fetchall())
    return tuple(replace(one, used=_used(connection, one)) for one in found)


def _used(connection: sqlite3.Connection, one: ActiveMaterial) -> int:
    """Finished cycles that certainly consumed it since it was loaded; a cycle may take less than one, or more."""
    column, value = ("package", one.package) if one.package is not None else ("lot", one.lot)
    if one.quantity is None or value is None:
        return 0
    sql = (
        "SELECT count(*) FROM (SELECT 1 FROM consumption m CROSS JOIN cycle c ON c.cycle = m.cycle"
        f" WHERE m.{column} = ? AND m.name = ? AND c.station = ? AND c.ended_at_ns >= ?"
        " AND m.certain AND c.result NOT IN ('Aborted', 'Skipped') LIMIT ?)"
    )
    (count,) = connection.execute(sql, (value, one.name, one.station, one.at_ns, USED_MAX)).fetchone()
    return int(count)


HOLD = (
    "SELECT hold, subject_kind, subject, action, verdict_id, decision_seq, source, text, expires_at_ns, at_ns"
    " FROM hold INDEXED BY hold_open WHERE state = 'open' ORDER BY seq"
)


def holds(connection: sqlite3.Connection) -> Iterator[KnownHold]:
    """Every open hold, oldest first."""
    return (KnownHold(*row) for row in connection.execute(HOLD).fetchall())
