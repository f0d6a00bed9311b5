"""`buffer verify`: is this buffer what was written? Structure, ledger, lanes, witness; and against what a receiver has.

An offline tool's work, in a process of its own; it writes nothing. Beside a running agent it costs the disk, and while
SQLite checks the structure (seconds a gigabyte) the write-ahead log cannot be emptied. What cannot be read is named and
passed over. Memory is bounded: slices of records, and at most ``ledger.DAMAGES`` damages are listed.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge_agent.buffer import compare, schema, witness
from edge_agent.buffer.files import Files
from edge_agent.buffer.holes import DEAD_LETTER_NS
from edge_agent.buffer.ledger import Progress, Verdict, Walk, hash_at
from edge_agent.buffer.queries import connect
from edge_agent.errors import StorageError

LINES = 50  # of what SQLite finds wrong


def verify_dir(data_dir: Path, against: Path | None = None, progress: Progress | None = None) -> Verdict:
    """Verify the buffer in ``data_dir``, which may be one that was set aside (``damaged-…``).

    Raises StorageError if there is none, if it may not be read, or if ``against`` cannot be.
    """
    files = Files(data_dir)
    try:
        if not files.db.exists():
            hint = "is this the agent.data_dir of its config, or a damaged-… directory below it? see --data-dir"
            raise StorageError(f"there is no buffer in {data_dir}", hint=hint)
        with files.db.open("rb"):
            pass
    except PermissionError as error:
        raise StorageError(f"{data_dir} may not be read by you", hint="try with sudo, or as user edge-agent") from error
    with closing(connect(files.db, query="mode=ro" if files.wal.exists() else "mode=ro&immutable=1")) as connection:
        return verify_all(connection, files, against, progress)


def verify_all(
    connection: sqlite3.Connection, files: Files, against: Path | None, progress: Progress | None
) -> Verdict:
    """Every part, each as far as the others' damage lets it."""
    connection.text_factory = _text
    seen = witness.read(files.witness)  # before the records: what it knows is committed
    structure = Verdict()
    tell = progress or _quiet
    tell("structure", 0, 0)
    if not _check_structure(connection, structure):
        return structure  # nothing can be read
    try:
        walk = Walk(connection)
        walk.run(progress)
    except sqlite3.DatabaseError as error:
        structure.add("unreadable", f"the records cannot be read: {error}")
        return structure
    verdict = walk.verdict
    verdict.damages[:0], verdict.counts = structure.damages, verdict.counts + structure.counts
    for part in (_check_gaps, _check_lanes, _check_dead_letters):
        try:
            part(connection, verdict)
        except sqlite3.DatabaseError as error:
            verdict.add("structure", f"{part.__name__.removeprefix('_check_')} cannot be read: {error}")
    _check_witness(connection, files, seen, verdict)
    if against is not None:
        try:
            compare.compare(connection, against, verdict, tell)
        except StorageError as error:
            if verdict.intact:
                raise
            verdict.add("unreadable", f"the comparison ended early: {error.args[0]}")
    return verdict


def _text(content: bytes) -> str:
    """Text as far as it is some; damaged bytes must not end the verification."""
    return content.decode(errors="replace")


def _quiet(part: str, done: int, total: int) -> None:
    """Nobody watches."""


def _check_structure(connection: sqlite3.Connection, verdict: Verdict) -> bool:
    """What SQLite says of its pages, and whether our tables are there. False when no record can be read at all."""
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite's message may hold the damaged bytes
        verdict.add("unreadable", f"the file cannot be read as a database: {error}")
        return False
    if application != schema.APPLICATION_ID:
        verdict.add("structure", "this file is not marked as a buffer of edge-agent")
    try:
        for (line,) in connection.execute(f"PRAGMA quick_check({LINES})"):
            if line != "ok":
                verdict.add("structure", f"SQLite finds: {line}")
    except (
        sqlite3.DatabaseError,
        UnicodeDecodeError,
    ) as error:  # it goes through the rows, too
        verdict.add("structure", f"SQLite finds: {error}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for name in _tables() if version == schema.VERSION else ():
        if name not in there:
            verdict.add("structure", f"table, view or trigger {name} is not there")
    return {"record", "source", "gap"} <= there


def _tables() -> Iterator[str]:
    yield from re.findall(r"CREATE TABLE (\w+)", schema.TABLES)
    yield from (*schema.VIEWS, *schema.TRIGGERS)


def _check_gaps(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """No record stands where one is noted as deleted; the walk sees only where a gap hides one after it."""
    sql = (
        "SELECT first_seq, last_seq, (SELECT min(seq) FROM record WHERE seq BETWEEN first_seq AND last_seq) AS inside"
        " FROM gap WHERE inside IS NOT NULL ORDER BY first_seq LIMIT 100"
    )
    named = {damage.seq for damage in verdict.damages if damage.code == "overlap"}
    for first, last, inside in connection.execute(sql):
        if inside not in named:
            text = f"record {inside} stands in a range that is noted as deleted ({first} to {last})"
            verdict.add("overlap", text, inside)


def _check_lanes(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """Every lane lies in the log, and its cursor in the lane."""
    (head,) = connection.execute(
        "SELECT max((SELECT coalesce(max(seq), 0) FROM record), (SELECT coalesce(max(last_seq), 0) FROM gap))"
    ).fetchone()
    (newest,) = connection.execute("SELECT max(first_seq) FROM log").fetchone()
    sql = (
        "SELECT l.route, l.number, l.log, l.from_seq, l.to_seq, l.seq, l.n, g.first_seq"
        " FROM lane l LEFT JOIN log g ON g.id = l.log ORDER BY l.id"
    )
    for route, number, log, first, last, seq, n, log_first in connection.execute(sql):
        stream, end = f"{log}.{route}.{number}", head if last is None else last
        if log_first is None:
            verdict.add("lane", f"lane {stream} is of a log that is not known")
        if not first - 1 <= seq <= max(end, first - 1):
            verdict.add("lane", f"lane {stream} has done up to {seq}, but it holds {first} to {end}", log=log)
        elif not 0 <= n <= seq - first + 1:
            verdict.add("lane", f"lane {stream} has used {n} numbers for {seq - first + 1} records", log=log)
        if end > head:
            verdict.add("lane", f"lane {stream} ends at {end}, the log at {head}", log=log)
        if last is None and log_first is not None and log_first != newest:
            verdict.add("lane", f"lane {stream} still grows, but its log has ended", log=log)


def _check_dead_letters(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """The record of a dead letter is kept for 30 days, unless it went with a damage that is noted."""
    sql = (
        "SELECT d.route, l.log, d.seq, l.id IS NULL FROM dead_letter d LEFT JOIN lane l ON l.id = d.lane"
        " LEFT JOIN record r ON r.seq = d.seq WHERE l.id IS NULL OR (r.seq IS NULL AND d.at_ns >"
        " (SELECT coalesce(max(at_ns), 0) FROM dead_letter) - ? AND NOT EXISTS (SELECT 1 FROM gap g WHERE d.seq BETWEEN"
        " g.first_seq AND g.last_seq AND g.reason NOT IN ('delivered', 'dropped'))) ORDER BY d.seq"
    )
    for route, log, seq, laneless in connection.execute(sql, (DEAD_LETTER_NS,)):
        if laneless:
            verdict.add("dead_letter", f"dead letter {seq} of route {route} belongs to no lane", seq)
        else:
            verdict.add("dead_letter", f"the record of dead letter {log}-{seq} of route {route} is not there", seq)


def _check_witness(
    connection: sqlite3.Connection, files: Files, seen: witness.Witness | None, verdict: Verdict
) -> None:
    """What was last published outside the database is in it."""
    if seen is None:
        if files.witness.exists():
            verdict.add("witness", "witness.json cannot be read, or is not what was written")
        return
    known = max(verdict.head_seq, _last_gap(connection))
    if seen.seq > known:
        text = f"records {known + 1} to {seen.seq} were committed (witness.json) and are not there"
        verdict.add("witness", text, known + 1, seen.seq, log=seen.log)
        return
    stored = hash_at(connection, seen.seq)
    if stored is not None and seen.hash and stored.hex() != seen.hash:
        text = f"witness.json saw another hash at record {seen.seq}: something up to there was changed"
        verdict.add("witness", text, seen.seq, log=seen.log)


def _last_gap(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(last_seq), 0) FROM gap").fetchone()[0])
