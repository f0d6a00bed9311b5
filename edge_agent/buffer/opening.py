"""Opening a data_dir: own it, open or make the database, begin a new log. Blocking; under 2 s whatever its size.

Each start begins a new *log*, durable before its first record. Its ``log_opened`` names the log before it with its
last seq and hash, so a copy, a restored snapshot or a lost tail shows as a fork and no key is ever used twice.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from edge_agent import __version__, clock
from edge_agent.buffer import lanes, schema
from edge_agent.buffer.files import Files, prepare, take_lock
from edge_agent.buffer.ledger import GENESIS, link
from edge_agent.buffer.log import Buffer
from edge_agent.buffer.settings import BufferSettings
from edge_agent.buffer.steps import step
from edge_agent.buffer.writer import open_writing
from edge_agent.errors import StorageError, StorageFull
from edge_agent.model import Kind

__all__ = ["open_buffer"]


def open_buffer(data_dir: Path, agent: str, settings: BufferSettings) -> Buffer:
    """Own ``data_dir`` and begin a new log in its buffer. Blocking.

    Raises StorageBusy if another agent owns it, StorageFull if there is no room for the first record, StorageError
    if it cannot be used; a damaged buffer is set aside and salvaged instead.
    """
    files = prepare(data_dir)
    lock = take_lock(files)
    connection: sqlite3.Connection | None = None
    try:
        connection = _open_database(files)
        opened = _open_log(connection, agent, "start")
        return Buffer(files, lock, connection, settings, agent, opened.log, opened.boot, opened.head)
    except BaseException as error:
        if connection is not None:
            connection.close()
        os.close(lock)
        if isinstance(error, sqlite3.Error):
            raise _translated(files, error) from error
        raise


def _translated(files: Files, error: sqlite3.Error) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StorageFull(
            f"{files.db} cannot be written: {error}", hint=f"free disk space; see df -h {files.data_dir}"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(f"{files.db} is locked by another program", hint=f"see who has it open: fuser {files.db}")
    return StorageError(f"{files.db} cannot be used: {error}", hint=f"check owner and mode: ls -l {files.data_dir}")


def _open_database(files: Files) -> sqlite3.Connection:
    fresh = not files.db.exists() or files.db.stat().st_size == 0
    connection = open_writing(files.db)
    try:
        if fresh:
            schema.create(connection)
        else:
            schema.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass(frozen=True, slots=True)
class Opened:
    log: str
    boot: str
    head: tuple[int, bytes]


def _open_log(connection: sqlite3.Connection, agent: str, reason: str) -> Opened:
    """Begin a log: its row, its ``log_opened`` record and the routes' new lanes, in one transaction."""
    step("log_open_before")
    log, boot, at = secrets.token_hex(6), clock.boot_id(), clock.now()
    connection.execute("BEGIN IMMEDIATE")
    row = connection.execute("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    last_seq, last_hash = row or (0, GENESIS)
    body: dict[str, Any] = {
        "log": log, "agent": agent, "boot": boot, "host": socket.gethostname(), "version": __version__,
        "reason": reason,
    }  # fmt: skip
    before = connection.execute("SELECT id FROM log ORDER BY first_seq DESC LIMIT 1").fetchone()
    if before is not None:
        body["previous"] = {"log": before[0], "seq": last_seq, "hash": last_hash.hex()}
    seq, encoded, synced = last_seq + 1, orjson.dumps(body), int(clock.synchronised())
    digest = link(last_hash, seq, Kind.LOG_OPENED, "agent", at.at_ns, at.mono_ns, synced, encoded)
    connection.execute("INSERT OR IGNORE INTO source (name) VALUES ('agent')")
    connection.execute(
        "INSERT INTO record SELECT ?, ?, id, ?, ?, ?, ?, ? FROM source WHERE name = 'agent'",
        (seq, int(Kind.LOG_OPENED), at.at_ns, at.mono_ns, synced, encoded, digest),
    )
    connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", (log, seq, boot, agent, at.at_ns))
    lanes.open_log(connection, log, boot, seq, last_seq)
    connection.execute("COMMIT")
    step("log_open_after")
    return Opened(log, boot, (seq, digest))
