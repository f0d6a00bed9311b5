"""What people ask of an archive beyond one unit's history: what a binding rests on, which serials are spelled nearly
so, which cycles of nobody may be this unit's, and how the last run ended. Read-only.
"""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from edge_agent.buffer.trace import Archive
from edge_agent.model import Kind

NEAR_POOL = 5_000  # newest units among which a misspelled serial is looked for


@dataclass(frozen=True, slots=True)
class Evidence:
    """A record that a binding or finding names. ``kind`` None: it is no longer kept."""

    seq: int
    kind: str | None = None
    source: str = ""
    at_ns: int = 0
    text: str = ""  # of a scan: what the label said


@dataclass(frozen=True, slots=True)
class LastRun:
    """The run that wrote the newest records of a data_dir."""

    agent: str
    log: str
    started_at_ns: int
    last_at_ns: int
    orderly: bool  # its last record is the checkpoint that a stop writes
    open_cycles: int


def records(archive: Archive, seqs: Iterable[int]) -> list[Evidence]:
    """The records with these numbers, in this order."""
    return [_record(_connection(archive), seq) for seq in seqs]


def similar_serials(archive: Archive, serial: str, limit: int = 5) -> list[str]:
    """Known serials that are like ``serial``: those that contain it first, then those spelled nearly so."""
    connection = _connection(archive)
    pattern = "%" + "".join(f"\\{sign}" if sign in "%_\\" else sign for sign in serial) + "%"
    sql = "SELECT serial FROM unit WHERE serial LIKE ? ESCAPE '\\' ORDER BY serial LIMIT ?"
    found = [value for (value,) in connection.execute(sql, (pattern, limit))]
    newest = connection.execute("SELECT serial FROM unit ORDER BY at_ns DESC LIMIT ?", (NEAR_POOL,))
    found += difflib.get_close_matches(serial, [value for (value,) in newest if value], n=limit, cutoff=0.75)
    return list(dict.fromkeys(found))[:limit]


def undecided_cycles(archive: Archive, unit: str) -> list[tuple[str, str, int, int, str, str]]:
    """Cycles that no rule could bind and for which ``unit`` is a candidate: (cycle, station, position,
    opened_at_ns, binding state, reason), oldest first."""
    found: list[tuple[str, str, int, int, str, str]] = []
    for index, state in (("cycle_undecided", "= 'closed'"), ("cycle_open", "<> 'closed'")):
        sql = (
            "SELECT c.cycle, c.station, c.position, c.opened_at_ns, b.state, coalesce(b.reason, '')"
            f" FROM cycle c INDEXED BY {index} CROSS JOIN binding b ON b.binding = c.binding WHERE c.state {state}"
            " AND c.binding_state IN ('pending', 'ambiguous', 'orphan') AND b.candidates LIKE ?"
        )
        found += _connection(archive).execute(sql, (f'%"{unit}"%',))
    return sorted(found, key=lambda row: row[3])


def last_run(archive: Archive) -> LastRun | None:
    """Which run wrote last, and whether it ended in order; None for a buffer without a log."""
    connection = _connection(archive)
    row = connection.execute("SELECT agent, id, opened_at_ns FROM log ORDER BY first_seq DESC LIMIT 1").fetchone()
    if row is None:
        return None
    last = connection.execute("SELECT kind, at_ns FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    kind, at_ns = last or (0, row[2])
    (open_cycles,) = connection.execute("SELECT count(*) FROM cycle WHERE state <> 'closed'").fetchone()
    agent, log, started_at_ns = row
    return LastRun(agent, log, started_at_ns, at_ns, kind == Kind.CHECKPOINT, open_cycles)


def _record(connection: sqlite3.Connection, seq: int) -> Evidence:
    sql = "SELECT r.kind, s.name, r.at_ns, r.body FROM record r JOIN source s ON s.id = r.source WHERE r.seq = ?"
    row = connection.execute(sql, (seq,)).fetchone()
    if row is None:
        return Evidence(seq)
    kind, source, at_ns, body = row
    text = (orjson.loads(body).get("text") or "") if kind == Kind.SCAN else ""
    return Evidence(seq, Kind(kind).label, source, at_ns, text)


def _connection(archive: Archive) -> sqlite3.Connection:
    return archive._connection  # one room: the archive keeps it from everybody else
