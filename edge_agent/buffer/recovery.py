"""Taking over what can be read from a database that was set aside, and from the witness.

Taken over: the registry, and every record that some route has not done yet, with its key, time and hash. Delivered
records stay where they were set aside. A salvage that was interrupted begins again: a mark in the directory says so.

What is missing afterwards is named: a gap in the ledger for each range that is gone, a new number for each lane that
misses records (numbers in use may have stood for what is gone), and the counts, for the finding.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from edge_agent.buffer import lanes
from edge_agent.buffer.files import UNSALVAGED, Files, sync_directory
from edge_agent.buffer.holes import Range, without
from edge_agent.buffer.ledger import link
from edge_agent.buffer.queries import can_pass, connect
from edge_agent.buffer.witness import Witness
from edge_agent.errors import StorageCorrupt

Row = tuple[Any, ...]
"""A row of the table ``record``."""

SLICE_ROWS = 5000
BEYOND_ROWS = 20_000  # how far past the last known seq to look where the newest page is damaged

REGISTRY = (
    *("source", "log", "gap", "route", "lane", "pick", "hole", "dead_letter", "tagset", "tag", "claim", "station"),
    *("unit", "identifier", "cycle", "cycle_window", "binding", "finding", "counter"),
)
"""Every table but the records."""


@dataclass(slots=True)
class Salvaged:
    """What could be taken over, and which ranges of undelivered seqs are gone."""

    records: int = 0
    registry_rows: int = 0
    unreadable: list[Range] = field(default_factory=list)


def check(connection: sqlite3.Connection, files: Files) -> int:
    """Read what a start needs; returns how many frames of the write-ahead log SQLite took.

    Raises sqlite3.DatabaseError or StorageCorrupt for damage that shows without reading the whole file.
    """
    execute = connection.execute
    execute("SELECT hash FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    _, frames, copied = execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    (pages,), (page_size,) = execute("PRAGMA page_count").fetchone(), execute("PRAGMA page_size").fetchone()
    if frames == copied and files.db.stat().st_size < pages * page_size:
        raise StorageCorrupt(f"{files.db.name} is shorter than it says")
    for table in ("log", "route", "lane", "counter", "source", "station", "tagset"):
        execute(f"SELECT count(*) FROM {table}").fetchone()
    execute("SELECT * FROM cycle_current WHERE state <> 'closed'").fetchall()
    return int(frames)


def salvage(connection: sqlite3.Connection, place: Path, witness: Witness | None) -> Salvaged:
    """Take over what is readable in ``place`` into the new database, then take the mark away."""
    result = Salvaged()
    damaged = place / "buffer.db"
    if damaged.exists():
        with contextlib.closing(_connect(damaged)) as old, _until_damage():
            for table in REGISTRY:
                result.registry_rows += _take_table(connection, old, table)
    if witness is not None:
        restore(connection, witness)
    if damaged.exists():
        with contextlib.closing(_connect(damaged)) as old, _until_damage():
            _take_records(connection, old, result)
    result.unreadable = close_ranks(connection)
    (place / UNSALVAGED).unlink(missing_ok=True)
    sync_directory(place)
    return result


def _connect(damaged: Path) -> sqlite3.Connection:
    """Read-only, and lenient: only so does SQLite read a file that is shorter than its header says."""
    connection = connect(damaged)
    connection.execute("PRAGMA writable_schema = ON")
    return connection


@contextlib.contextmanager
def _until_damage() -> Iterator[None]:
    """End where the old file cannot be read; trouble with the new one goes up."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if can_pass(error):
            raise


def _take_table(connection: sqlite3.Connection, old: sqlite3.Connection, table: str) -> int:
    """Copy a table from its beginning up to the damage, then from its end; returns the rows copied."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    names, marks = ", ".join(column[1] for column in columns), ", ".join("?" * len(columns))
    keys = [column[1] for column in sorted(columns, key=lambda column: column[5]) if column[5]]
    copied, whole = 0, False
    for order in ("ASC", "DESC"):
        if whole:
            break
        by = ", ".join(f"{key} {order}" for key in keys)
        connection.execute("BEGIN IMMEDIATE")
        with _until_damage():
            for row in old.execute(f"SELECT {names} FROM {table} ORDER BY {by}"):
                copied += connection.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row).rowcount
            whole = True
        connection.execute("COMMIT")
    return copied


def restore(connection: sqlite3.Connection, witness: Witness) -> None:
    """Let the database know what the witness knows, where that is more."""
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    for row in witness.logs:
        execute("INSERT OR IGNORE INTO log (id, first_seq, boot, agent, opened_at_ns) VALUES (?, ?, ?, ?, ?)", row)
    for row in witness.routes:
        execute("INSERT OR IGNORE INTO route VALUES (?, ?, ?, ?)", row)
    for lane in witness.lanes:
        execute(
            "INSERT INTO lane (route, number, log, boot, from_seq, to_seq, seq, n, kinds, stations, total, total_seq)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8, ?7) ON CONFLICT (route, log, number) DO UPDATE SET"
            " seq = max(seq, excluded.seq), n = max(n, excluded.n)",
            lane,
        )
    for row in witness.counters:
        execute("INSERT OR IGNORE INTO counter VALUES (?, ?, ?, ?)", row)
    columns = {column[1] for column in execute("PRAGMA table_info(cycle)")}
    for cycle in witness.cycles:
        known = {name: value for name, value in cycle.items() if name in columns}
        marks = ", ".join("?" * len(known))
        execute(f"INSERT OR IGNORE INTO cycle ({', '.join(known)}) VALUES ({marks})", tuple(known.values()))
        if cycle.get("unit"):
            execute("INSERT OR IGNORE INTO unit VALUES (?, ?, 0, 0)", (cycle["unit"], cycle.get("serial")))
    execute("COMMIT")


# --- records -----------------------------------------------------------------------------------------------------


def _take_records(connection: sqlite3.Connection, old: sqlite3.Connection, result: Salvaged) -> None:
    """Copy the records that some lane has not done, as far as they are what was written."""
    start = connection.execute(f"SELECT min(seq) + 1 FROM lane WHERE {lanes.UNFINISHED}").fetchone()[0]
    last = _last_seq(connection, old)
    start = last if start is None else min(start, last)  # the head at least: the ledger goes on from it
    names = dict(connection.execute("SELECT id, name FROM source"))
    rows = _sound(_readable_rows(old, start, last), names)
    while taken := list(islice(rows, SLICE_ROWS)):
        connection.execute("BEGIN IMMEDIATE")
        for source in {row[2] for row in taken} - names.keys():  # the table of names was hit: keep the record
            names[source] = f"unknown-{source}"
            connection.execute("INSERT INTO source VALUES (?, ?)", (source, names[source]))
        connection.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", taken)
        connection.execute("COMMIT")
        result.records += len(taken)


def _sound(rows: Iterable[Row], names: Mapping[int, str]) -> Iterator[Row]:
    """Only rows that the ledger confirms: by the one before, or after a gap by the one that follows.

    A page that is half there reads without an error; what is delivered must be what was written. Rows of a source
    whose name is lost cannot be confirmed, and are taken as they are.
    """
    before: Row | None = None
    held: Row | None = None  # the first after a gap: waits for its successor
    for row in rows:
        if row[2] not in names:
            before = held = None
            yield row
            continue
        if held is not None and row[0] == held[0] + 1 and _follows(held, row, names):
            yield held
            before = held
        held = None
        if before is not None and row[0] == before[0] + 1:
            sound = _follows(before, row, names)
            before = row if sound else None
            if sound:
                yield row
        else:
            before, held = None, row
    if held is not None and len(held[7]) == 32 and any(held[7]):  # the head alone: nothing can confirm it
        yield held


def _follows(before: Row, row: Row, names: Mapping[int, str]) -> bool:
    seq, kind, source, at_ns, mono_ns, synced, body, digest = row
    return bool(link(before[7], seq, kind, names[source], at_ns, mono_ns, synced, body) == digest)


def _last_seq(connection: sqlite3.Connection, old: sqlite3.Connection) -> int:
    """The highest seq; where its page is damaged, a bound above whatever the registry knows of."""
    try:
        return int(old.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()[0])
    except sqlite3.DatabaseError:
        known = [
            connection.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0]
            for table, column in (("cycle", "seq"), ("finding", "seq"), ("lane", "seq"), ("log", "first_seq"))
        ]
        return int(max(known)) + BEYOND_ROWS


def _readable_rows(old: sqlite3.Connection, first: int, last: int) -> Iterator[Row]:
    for start in range(first, last + 1, SLICE_ROWS):
        yield from _readable(old, start, min(last, start + SLICE_ROWS - 1))


def _readable(old: sqlite3.Connection, first: int, last: int) -> Iterator[Row]:
    """The rows of [first, last], halving ranges that cannot be read until single records are left out."""
    sql = (
        "SELECT seq, kind, source, at_ns, mono_ns, synced, body, hash FROM record"
        " WHERE seq BETWEEN ? AND ? ORDER BY seq"
    )
    try:
        yield from old.execute(sql, (first, last)).fetchall()
    except sqlite3.DatabaseError as error:
        if can_pass(error):
            raise
        if first < last:
            middle = (first + last) // 2
            yield from _readable(old, first, middle)
            yield from _readable(old, middle + 1, last)


def close_ranks(connection: sqlite3.Connection) -> list[Range]:
    """Name every missing range in the ledger and renumber the lanes that miss records; returns what they miss."""
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    rows = execute(
        "SELECT before + 1, seq - 1 FROM (SELECT seq, lag(seq, 1, 0) OVER (ORDER BY seq) AS before FROM record)"
        " WHERE before <> seq - 1"
    ).fetchall()
    known = execute("SELECT first_seq, last_seq FROM gap ORDER BY first_seq").fetchall()
    missing = [part for row in rows for part in without(row, known)]
    execute("DELETE FROM gap WHERE first_seq > (SELECT coalesce(max(seq), 0) FROM record)")
    for first, last in missing:
        execute("INSERT OR REPLACE INTO gap VALUES (?, ?, x'', 'damaged')", (first, last))
    lost: set[Range] = set()
    for lane, seq, to_seq in execute(f"SELECT id, seq, to_seq FROM lane WHERE {lanes.UNFINISHED}").fetchall():
        sql = "SELECT first_seq, last_seq FROM hole WHERE lane = ? ORDER BY first_seq"
        holes = execute(sql, (lane,)).fetchall()
        end = missing[-1][1] if missing and to_seq is None else to_seq or 0
        wanted = [(max(first, seq + 1), min(last, end)) for first, last in missing if last > seq and first <= end]
        gone = [part for whole in wanted for part in without(whole, holes)]
        lost.update(gone)
        if gone:
            lanes.renumber(connection, lane)
    execute("UPDATE lane SET total = n, total_seq = seq")
    execute("COMMIT")
    return sorted(lost)
