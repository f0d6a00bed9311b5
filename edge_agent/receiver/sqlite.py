"""The receiver's SQLite file. ``synchronous=FULL``: what was confirmed has reached the disk.

A transaction takes the write lock at its beginning (``BEGIN IMMEDIATE``), so several receivers on one file take turns;
each waits at most ``BUSY_S`` for the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.errors import StorageError
from edge_agent.receiver import schema
from edge_agent.receiver.database import DatabaseBusy, RowRefused
from edge_agent.receiver.message import Row

BUSY_S = 30.0
_RECORDS_FAULT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}

# not "INSERT OR IGNORE": that would decide conflicts inside the triggers as well
_INSERT = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


class SqliteDatabase:
    """One open file. ``path`` None keeps everything in memory."""

    def __init__(self, path: Path | None) -> None:
        where = "a new file" if path is None else str(path)
        try:
            self.connection = sqlite3.connect(path or ":memory:", timeout=BUSY_S, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute("PRAGMA cache_size = -16000")
            schema.prepare(self.connection)
        except sqlite3.Error as error:
            hint = "name another file, or remove this one if nobody needs it"
            raise StorageError(f"{where}: {error}", hint=hint) from error

    def close(self) -> None:
        """Give the file back."""
        self.connection.close()

    @contextmanager
    def transaction(self, agents: Iterable[str] = ()) -> Iterator[None]:
        """The whole file is locked, whoever the agents are."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _translated(error) from error
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what happened in here if it fails; a full disk has undone the whole transaction already."""
        self.connection.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO step")
                self.connection.execute("RELEASE step")
            raise
        self.connection.execute("RELEASE step")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement."""
        try:
            return self.connection.execute(sql, values)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def insert(self, rows: Sequence[Row]) -> int:
        """Store rows. Raises RowRefused."""
        with self._refusing():
            return self.connection.executemany(_INSERT, rows).rowcount

    def insert_new(self, rows: Sequence[Row]) -> list[Row]:
        """Store rows and say which were new. Raises RowRefused."""
        with self._refusing():
            return [row for row in rows if self.connection.execute(_INSERT, row).rowcount]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in _RECORDS_FAULT and self.connection.in_transaction:
                raise RowRefused(str(error)) from error
            raise


def _translated(error: sqlite3.Error) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy(f"the database is locked: {error}", hint="which other program writes to it, for so long?")
    return StorageError(f"cannot store: {error}", hint="is the disk full, or another program writing?")
