"""The receiver's tables in PostgreSQL, in a schema of their own: ``edge_agent`` (psycopg 3, the extra ``sql``).

A transaction begins by locking the agents that it is about (advisory locks, in one order): receivers that share the
load take turns on an agent and work side by side on different ones. A deadlock, which only an ``on_record`` of yours
can make, or a lost serialisation is repeated. A commit is durable: ``synchronous_commit`` off is turned on for us.

A message's records go in by one statement, as arrays, where single inserts would cost a round trip each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, LiteralString

from edge_agent.errors import StorageError
from edge_agent.receiver import schema_postgres as schema
from edge_agent.receiver.database import DatabaseBusy, DatabaseUnavailable, RowRefused
from edge_agent.receiver.message import Row

try:
    import psycopg
    from psycopg import errors
    from psycopg.sql import SQL
except ImportError as error:  # the extra is not installed
    raise StorageError(
        "PostgreSQL needs the package psycopg", hint='install it: pip install "edge-agent[sql]"'
    ) from error

CONNECT_S = 10
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_INSERT: LiteralString = """
INSERT INTO record (agent, log, seq, kind, source, at_ns, mono_ns, synced, body)
SELECT %s, %s, seq, %s, %s, at_ns, mono_ns, synced, body::json
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[], %s::text[])
  AS r (seq, at_ns, mono_ns, synced, body)
ON CONFLICT DO NOTHING
"""


class PostgresDatabase:
    """One connection to one server."""

    def __init__(self, url: str) -> None:
        try:
            self.connection = psycopg.connect(
                url, autocommit=True, application_name="edge-agent receiver", **_not_in(url)
            )
        except psycopg.Error as error:
            raise _unreachable(url, error) from error
        try:
            schema.prepare(self.connection)
        except psycopg.Error as error:
            self.connection.close()
            if isinstance(error, psycopg.OperationalError):
                raise self._translated(error) from error
            hint = f"let this user make the schema once: CREATE SCHEMA {schema.NAME} AUTHORIZATION <user>"
            raise StorageError(f"the tables cannot be made: {_text(error)}", hint=hint) from error

    def close(self) -> None:
        """End the session."""
        self.connection.close()

    @contextmanager
    def transaction(self, agents: Iterable[str] = ()) -> Iterator[None]:
        """Waits until no other receiver works on these agents."""
        try:
            with self.connection.transaction():
                for agent in sorted(set(agents)):
                    self.connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (agent,))
                yield
        except psycopg.Error as error:
            raise self._translated(error) from error

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A nested transaction of psycopg is one."""
        with self.connection.transaction():
            yield

    def execute(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """One statement."""
        try:
            return self.connection.execute(_with_percents(sql), values)
        except psycopg.Error as error:
            raise self._translated(error) from error

    def insert(self, rows: Sequence[Row]) -> int:
        """Store rows. Raises RowRefused."""
        with _refusing():
            return self.connection.execute(_INSERT, _columns(rows)).rowcount

    def insert_new(self, rows: Sequence[Row]) -> list[Row]:
        """Store rows and say which were new. Raises RowRefused."""
        with _refusing():
            found = self.connection.execute(_INSERT + " RETURNING seq", _columns(rows)).fetchall()
        new = {seq for (seq,) in found}
        return [row for row in rows if row.seq in new]

    def _translated(self, error: psycopg.Error) -> StorageError:
        if self.connection.closed or self.connection.broken or isinstance(error, _AWAY):
            return DatabaseUnavailable(f"the database is away: {_text(error)}", hint="is the server running?")
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable):
            return DatabaseBusy(f"the database had to choose: {_text(error)}")
        return StorageError(f"cannot store: {_text(error)}", hint="is the disk full, may this user write?")


_AWAY = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.TooManyConnections)
_RECORDS_FAULT = (psycopg.DataError, psycopg.IntegrityError, errors.RaiseException, errors.UntranslatableCharacter)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except _RECORDS_FAULT as error:
        raise RowRefused(_text(error)) from error


def _columns(rows: Sequence[Row]) -> list[Any]:
    first = rows[0]
    one = [first.agent, first.log, first.kind, first.source]
    return [*one, *([row[index] for row in rows] for index in (2, 5, 6, 7, 8))]


@lru_cache(maxsize=100)
def _with_percents(statement: str) -> SQL:
    return SQL(statement.replace("?", "%s"))  # all of them are this package's own


def _not_in(url: str) -> dict[str, Any]:
    """Bounds that the address does not set itself."""
    bounds: dict[str, Any] = {"connect_timeout": CONNECT_S, **_KEEPALIVE}
    return {name: value for name, value in bounds.items() if name not in url}


def _unreachable(url: str, error: psycopg.Error) -> StorageError:
    where = url.rpartition("@")[2].partition("?")[0].removeprefix("postgresql://")
    text = f"{where}: {_text(error)}"
    if isinstance(error, psycopg.OperationalError):
        return DatabaseUnavailable(text, hint="is the server running; are user, password and database right?")
    return StorageError(text, hint="write postgresql://user:password@host:5432/database")


def _text(error: psycopg.Error) -> str:
    return " ".join(str(error).split())[:300]
