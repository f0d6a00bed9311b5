"""What the receiver asks of a database: a small contract, kept by SQLite (``sqlite``) and PostgreSQL (``postgres``).

Statements are written once, in the SQL that both speak, with ``?`` for values. What differs is here: how a transaction
begins and who waits for whom, how many rows are inserted at once, and which errors are the record's own fault.

Several receivers may share one database. ``transaction(agents)`` lets only one of them at a time work on an agent's
records and streams: what it then reads is what all of them have committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from edge_agent.errors import StorageError
from edge_agent.receiver.message import Row


class DatabaseUnavailable(StorageError):
    """The server does not answer or has dropped us: nothing of the transaction was stored. Try again later."""


class DatabaseBusy(StorageError):
    """Two receivers stood in each other's way and this one had to yield. Nothing was stored; repeat it."""


class RowRefused(ValueError):
    """The tables refuse these records: what they say makes no sense. The text says why."""


class Rows(Protocol):
    """What a statement gives: rows, or how many it touched."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Database(Protocol):
    """One open database. Not to be shared between threads. Every failure of it is a StorageError."""

    connection: Any  # what ``on_record`` is given: the library's own connection

    def transaction(self, agents: Iterable[str] = ()) -> AbstractContextManager[None]:
        """Commit durably at the end, or leave nothing. Alone on these agents, whoever else uses the database.

        Raises DatabaseUnavailable, DatabaseBusy, StorageError.
        """

    def savepoint(self) -> AbstractContextManager[None]:
        """Inside a transaction: what an exception leaves behind in here is undone."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """One statement. Outside a transaction it stands alone."""

    def insert(self, rows: Sequence[Row]) -> int:
        """Store the rows of one message but for those that are there; returns how many. Raises RowRefused."""

    def insert_new(self, rows: Sequence[Row]) -> list[Row]:
        """The same; returns those that were not there."""

    def close(self) -> None:
        """Give it back. Closing twice is harmless."""


def open_database(where: str | Path | None) -> Database:
    """A PostgreSQL server (postgresql://user@host/database), or an SQLite file; None: in memory.

    Raises StorageError, DatabaseUnavailable.
    """
    if isinstance(where, str) and where.startswith(("postgresql://", "postgres://")):
        from edge_agent.receiver.postgres import PostgresDatabase

        return PostgresDatabase(where)
    from edge_agent.receiver.sqlite import SqliteDatabase

    return SqliteDatabase(None if where is None else Path(where))
