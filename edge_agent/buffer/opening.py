"""Opening a data_dir: own it, open or make the database, begin a new log. Blocking; under 2 s whatever its size.

Each start begins a new *log*, durable before its first record. Its ``log_opened`` names the log before it with its
last seq and hash, so a copy, a restored snapshot or a lost tail shows as a fork and no key is ever used twice.

Damage is noticed here without reading the whole file: a header that is not SQLite's, a file shorter than its own page
count, a registry that cannot be read, a write-ahead log that breaks off before its end, a witness or a ``head`` that
knows more than the database. Damage inside data pages shows when they are read; that run leaves the mark ``suspect``
and ends, and the next start goes on from here. A flipped byte in a body passes all this; the ledger shows it.
A damaged database is set aside, the agent goes on at once with a new one (see ``salvage``), and ``storage`` findings
say so and, at the end, what is missing. What a start found is told in the transaction that begins the log: once, and
whenever a kill comes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edge_agent import __version__, clock
from edge_agent.buffer import lanes, recovery, salvage, schema, wal, witness
from edge_agent.buffer.files import Files, complete_move, copy_aside, prepare, set_aside, take_lock, unsalvaged
from edge_agent.buffer.ledger import GENESIS, link
from edge_agent.buffer.log import Buffer
from edge_agent.buffer.projection import Entry, Projection, Sources
from edge_agent.buffer.queries import connect, is_damage
from edge_agent.buffer.settings import BufferSettings
from edge_agent.buffer.steps import step
from edge_agent.buffer.writer import open_writing
from edge_agent.errors import StorageCorrupt, StorageError, StorageFull
from edge_agent.logs import Log
from edge_agent.model import Kind, Record

log = Log(__name__)


@dataclass(slots=True)
class Loss:
    """What a start found wrong, for the log's reason and for the finding."""

    reason: str = "start"  # start, lost_tail, damaged
    text: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    places: list[Path] = field(default_factory=list)  # set aside, and not taken over yet


def open_buffer(data_dir: Path, agent: str, settings: BufferSettings) -> Buffer:
    """Own ``data_dir`` and begin a new log in its buffer. Blocking.

    Raises StorageBusy if another agent owns it, StorageFull if there is no room for the first record, StorageError
    if it cannot be used; a damaged buffer is set aside and salvaged instead.
    """
    files = prepare(data_dir)
    lock = take_lock(files)
    connection: sqlite3.Connection | None = None
    try:
        seen = witness.known(files)
        connection, loss = _make_ready(files, seen)
        name, boot, head = _open_log(connection, agent, loss, seen)
        buffer = Buffer(files, lock, connection, settings, agent, name, boot, head)
        buffer.damage += loss.text
        if loss.places:
            buffer.begin_salvage(loss.places)
    except BaseException as error:
        if connection is not None:
            connection.close()
        os.close(lock)
        if isinstance(error, sqlite3.Error):
            raise _translated(files, error) from error
        raise
    return buffer


def _translated(files: Files, error: sqlite3.Error) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        hint = f"free disk space; see df -h {files.data_dir}"
        return StorageFull(f"{files.db} cannot be written: {error}", hint=hint)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(f"{files.db} is locked by another program", hint=f"see who has it open: fuser {files.db}")
    if code == sqlite3.SQLITE_READONLY:
        hint = f"check owner and mode: ls -l {files.data_dir}; and the disk: sudo dmesg | tail"
        return StorageError(f"{files.db} may not be written: {error}", hint=hint)
    return StorageError(f"{files.db} cannot be used: {error}", hint=f"check owner and mode: ls -l {files.data_dir}")


# --- the database ------------------------------------------------------------------------------------------------


def _make_ready(files: Files, seen: witness.Witness | None) -> tuple[sqlite3.Connection, Loss]:
    """An open database that holds all that can be had, and what cannot."""
    loss = Loss()
    complete_move(files)
    found = wal.look(files.wal) if files.wal.is_file() else None
    connection, frames = _open_checked(files, loss)
    loss.places = salvage.begin(connection, unsalvaged(files), seen)
    if loss.text:  # of damage; a salvage that goes on is not told again
        loss.reason = "damaged"
        loss.details["set_aside"] = [place.name for place in loss.places]
    elif found is not None and found.lost(frames):
        place = copy_aside(files)
        loss.reason = "lost_tail"
        loss.text.append("the write-ahead log is damaged: the last records are lost")
        loss.details |= {"set_aside": [place.name], "wal_frames_read": frames, "wal_bytes": found.size}
    _notice_lost_tail(connection, seen, loss)
    if seen is not None and seen.host not in ("", socket.gethostname()):
        loss.text.append(
            f"this data_dir was written by host {seen.host}; if that still runs, give each its own agent.id"
        )
        loss.details["previous_host"] = seen.host
    return connection, loss


def _open_checked(files: Files, loss: Loss) -> tuple[sqlite3.Connection, int]:
    """Open the database and look at it; set it aside and make a new one if it is damaged."""
    why = _condemned(files)
    if not why:
        connection: sqlite3.Connection | None = None
        try:
            connection = _open_database(files)
            return connection, recovery.check(connection, files)
        except (sqlite3.DatabaseError, StorageCorrupt) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error) and not is_damage(error):
                raise
            why = str(error.args[0])
    place = set_aside(files)
    loss.text.append(f"the buffer was damaged ({why}) and is set aside in {place.name}; what is readable is taken over")
    return _open_database(files), 0


def _condemned(files: Files) -> str:
    """Why the database is not to be opened at all; empty: it may be."""
    if files.suspect.is_file() and files.db.exists():
        return files.suspect.read_text(encoding="utf-8", errors="replace").strip() or "a run met damage"
    for path in (files.db, files.wal, files.shm):
        if path.exists() and not path.is_file():
            return f"{path.name} is no file"
    if not (files.db.exists() and files.db.stat().st_size) and wal.look(files.wal) is not None:
        return f"{files.db.name} is gone or empty beside a write-ahead log"  # which SQLite would delete
    return _look(files) if files.db.exists() else ""


def _look(files: Files) -> str:
    """Whose database it is, seen read-only: an open for writing would move another one's write-ahead log into it."""
    try:
        with contextlib.closing(connect(files.db)) as connection:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.Error as error:
        return str(error) if is_damage(error) else ""
    return f"{files.db.name} is another program's" if tables and application != schema.APPLICATION_ID else ""


def _open_database(files: Files) -> sqlite3.Connection:
    """Open, make or migrate. Raises sqlite3.Error, StorageError."""
    connection = open_writing(files.db)
    try:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            schema.migrate(connection)
        else:
            schema.create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _notice_lost_tail(connection: sqlite3.Connection, seen: witness.Witness | None, loss: Loss) -> None:
    """The witness knows of later records than there are: say how many, and take over what it knows."""
    head = _head_seq(connection)
    if seen is None or seen.seq <= head:
        return
    connection.execute("BEGIN IMMEDIATE")
    salvage.restore(connection, seen)
    if not seen.knows_holds:
        salvage.doubt(connection)
    connection.execute("COMMIT")
    if loss.reason == "start":
        loss.reason = "lost_tail"
    loss.text.append(f"records {head + 1} to {seen.seq} at least were committed and are not there")
    loss.details |= {"lost_first_seq": head + 1, "lost_last_seq": seen.seq, "lost_log": seen.log}


def _head_seq(connection: sqlite3.Connection) -> int:
    """The last seq that is in the log or in a gap."""
    sql = "SELECT max((SELECT coalesce(max(seq), 0) FROM record), (SELECT coalesce(max(last_seq), 0) FROM gap))"
    return int(connection.execute(sql).fetchone()[0])


# --- the log -----------------------------------------------------------------------------------------------------


def _open_log(
    connection: sqlite3.Connection, agent: str, loss: Loss, seen: witness.Witness | None
) -> tuple[str, str, tuple[int, bytes]]:
    """Begin a log: its row, its ``log_opened`` record and the routes' new lanes, in one transaction.

    With what was found wrong. Returns (log, boot, (seq, hash) of the head). Numbering goes on above whatever was ever
    known to be used.
    """
    step("log_open_before")
    name, boot = secrets.token_hex(6), clock.boot_id()
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    row = execute("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    before = execute("SELECT id FROM log ORDER BY first_seq DESC LIMIT 1").fetchone()
    known_seq = seen.seq if seen is not None else 0
    known_hash = bytes.fromhex(seen.hash) if seen is not None and known_seq else GENESIS
    last_seq, last_hash = row or salvage.head(connection) or (known_seq, known_hash)
    there = _head_seq(connection)
    head_seq = max(there, known_seq)
    if head_seq > there:
        execute("INSERT INTO gap VALUES (?, ?, ?, 'lost')", (there + 1, head_seq, last_hash))
    body: dict[str, Any] = {
        "log": name, "agent": agent, "boot": boot, "host": socket.gethostname(), "version": __version__,
        "reason": loss.reason,
    }  # fmt: skip
    if before is not None:
        body["previous"] = {"log": before[0], "seq": last_seq, "hash": last_hash.hex()}
    seq, opened = head_seq + 1, Record(Kind.LOG_OPENED, "agent", clock.now(), body)
    execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", (name, seq, boot, agent, opened.at.at_ns))
    lanes.open_log(connection, name, boot, seq, head_seq)
    head = _store(connection, (head_seq, last_hash), [opened, *_report(loss, name, seq + 1)])
    execute("COMMIT")
    step("log_open_after")
    if loss.text:
        details = {key: str(value) for key, value in loss.details.items()}
        log.error("buffer damaged", what="; ".join(loss.text), **details)
    return name, boot, head


def _report(loss: Loss, name: str, seq: int) -> Iterator[Record]:
    """The finding, and a drop where it is known what is missing."""
    if not loss.text:
        return
    body = {
        "finding": f"{name}-{seq}", "code": "storage", "severity": "error", "text": "; ".join(loss.text),
        "evidence": [], "details": loss.details,
    }  # fmt: skip
    yield Record(Kind.FINDING, "agent", clock.now(), body)
    if "lost_first_seq" in loss.details:
        first, last = loss.details["lost_first_seq"], loss.details["lost_last_seq"]
        drop = {"reason": "lost", "first_seq": first, "last_seq": last, "kinds": {}}
        yield Record(Kind.DROP, "agent", clock.now(), drop)


def _store(connection: sqlite3.Connection, head: tuple[int, bytes], records: Sequence[Record]) -> tuple[int, bytes]:
    """Insert and project the first records of a log behind ``head``; returns the new one. In a transaction."""
    sources, synced = Sources(connection), int(clock.synchronised())
    seq, digest = head
    entries: list[Entry] = []
    for record in records:
        kind, name, at, encoded = record.kind, record.source, record.at, orjson.dumps(record.body)
        seq += 1
        entries.append((seq, record, encoded))
        digest = link(digest, seq, kind, name, at.at_ns, at.mono_ns, synced, encoded)
        row = (seq, int(kind), sources.id(name), at.at_ns, at.mono_ns, synced, encoded, digest)
        connection.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    Projection(connection, sources).apply(entries)
    return seq, digest
