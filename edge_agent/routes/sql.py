"""The sql sink: each message one transaction of a database, its commit the receiver's confirmation.

The driver blocks, so it is called in the sink's own thread, and every call has three ends: the server's own time-outs
(statement, lock), the driver's, and ours, after which the socket is shut under it. A hung server costs
``answer_timeout`` and never a thread.

What an error means is told by its SQLSTATE, where the driver gives one, else by its class::

    22, 23, 44, P0001   the row: it alone is refused (halving the message in savepoints), the rest is committed
    28, 3D, 42          the login, the database, the table: SinkRefused, somebody must change something
    all else            the connection, the disk, a lock: BrokerUnavailable, again later

A refused row leaves its n in the table of missing numbers, in the same transaction. A commit whose answer is lost is
sent again and finds its rows there.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from edge_agent.driver import SecretMissing
from edge_agent.errors import BrokerUnavailable
from edge_agent.routes.blocking import Blocking
from edge_agent.routes.flat import Flat, Missing, flatten
from edge_agent.routes.sink import Limits, Outgoing, RecordsRejected, SinkAway, SinkRefused
from edge_agent.routes.sql_settings import DIALECTS, SqlRouteSettings
from edge_agent.routes.sql_table import REASON_CHARS, StagingTable

IN_FLIGHT = 2  # the second is made while the first is in its transaction
PING_S = 15.0  # an idle connection is looked at this often
CONNECT_S = 10.0
CLOSE_S = 2.0
SLOWEST_BYTES_S = 5000.0  # of a transaction whose rows are a round trip each, over a slow line
_ROW_STATES = ("22", "23", "44", "P0001")
_REFUSED_STATES = ("28", "3D", "42", "3F")
_STATEMENT_TIMEOUT = "57014"  # perhaps smaller messages go through
_MYSQL_ROW = frozenset((1644, 3819, 4025))  # SIGNAL of a trigger; a check constraint of MySQL, of MariaDB
_MYSQL_REFUSED = frozenset((1044, 1045, 1049, 1142, 1143, 1146, 1227))
ODBC_DRIVER = "ODBC Driver 18 for SQL Server"


class SqlSink:
    """See :class:`edge_agent.routes.sink.Sink` for what each method promises."""

    commits = True
    confirm_topic = ""

    def __init__(self, name: str, settings: SqlRouteSettings) -> None:
        self._settings = settings
        self._blocking = Blocking(f"route-{name}-sql")
        self._one_at_a_time = asyncio.Lock()
        self._table = StagingTable(*settings.schema_and_name)
        self._put = self._table.put(settings.dialect)
        self._connection: Connection | None = None
        self._rows = 0

    async def open(self) -> Limits:
        await self.close()
        if self._blocking.busy:
            raise BrokerUnavailable(f"{self._settings.url} still does not answer", hint=self._hint)
        await self._call(lambda: self._connect(), CONNECT_S + self._settings.answer_timeout)
        return Limits(self._settings.message_size, IN_FLIGHT)

    async def send(self, message: Outgoing) -> None:
        timeout_s = self._settings.answer_timeout + len(message.payload) / SLOWEST_BYTES_S
        async with self._one_at_a_time:
            refused = await self._call(lambda: self._store(flatten(message.payload)), timeout_s)
        if refused:
            raise RecordsRejected(refused, hint="see the database's constraints; then: edge-agent deadletter retry")

    async def confirmed(self) -> NoReturn:
        """Never: the commit says it all."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def ended(self) -> NoReturn:
        while True:
            await asyncio.sleep(PING_S)
            async with self._one_at_a_time:
                await self._call(self._ping, self._settings.answer_timeout)

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(TimeoutError, BrokerUnavailable):
                await self._blocking.call(self._disconnect, CLOSE_S)
            self._cut()
        self._blocking.end()

    def status(self) -> dict[str, Any]:
        return {"rows": self._rows}

    # --- time-outs ---------------------------------------------------------------------------------------------

    @property
    def _hint(self) -> str:
        return f"is the database at {self._settings.url} running, and reachable from here?"

    async def _call(self, work: Any, timeout_s: float) -> Any:
        try:
            return await self._blocking.call(work, timeout_s)
        except TimeoutError as error:
            self._cut()
            why = f"{self._settings.url} does not answer within {timeout_s:g} s"
            raise BrokerUnavailable(why, hint=self._hint) from error

    def _cut(self) -> None:
        """Shut the socket under a call that hangs, so that its thread comes back. Other drivers have own time-outs."""
        connection, self._connection = self._connection, None
        if connection is None or self._settings.dialect != "postgresql" or not self._blocking.busy:
            return
        raw: Any = connection.connection.dbapi_connection
        with contextlib.suppress(OSError, AttributeError), socket.socket(fileno=os.dup(raw.fileno())) as its:
            its.shutdown(socket.SHUT_RDWR)

    # --- in the thread -----------------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            connection = self._engine().connect()
        except SQLAlchemyError as error:
            raise self._judged(error) from error
        except ImportError as error:  # the package is there, and what it needs of the system is not
            hint = "for SQL Server: apt-get install unixodbc, and Microsoft's msodbcsql18 or Debian's tdsodbc"
            raise SinkRefused(f"{self._settings.url}: {error}", hint=hint) from error
        try:
            if self._settings.create:
                self._table.metadata.create_all(connection)
                connection.commit()
            self._table.judge(connection)
            connection.rollback()
        except SQLAlchemyError as error:
            connection.invalidate()
            raise self._judged(error) from error
        except BrokerUnavailable:
            connection.close()
            raise
        self._connection = connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()

    def _ping(self) -> None:
        try:
            connection = self._alive()
            connection.exec_driver_sql("SELECT 1")
            connection.rollback()
        except SQLAlchemyError as error:
            raise self._judged(error) from error

    def _store(self, flat: Flat) -> dict[int, str]:
        """One transaction; returns what of it the database refuses, with its reason."""
        if self._settings.dialect != "postgresql":
            for row in flat.rows:
                row["at"] = row["at"].replace(tzinfo=None)  # UTC, in columns that know no zone
        try:
            connection = self._alive()
            refused: dict[int, str] = {}
            with connection.begin():
                self._put_rows(connection, flat.rows, refused)
                missing = [*flat.missing, *(Missing(n, 1, reason) for n, reason in refused.items())]
                self._note(connection, flat, missing)
        except SQLAlchemyError as error:
            raise self._judged(error) from error
        self._rows += len(flat.rows) - len(refused)
        return refused

    def _put_rows(self, connection: Connection, rows: Sequence[dict[str, Any]], refused: dict[int, str]) -> None:
        """Put what the database takes; what it does not is found by halving, each half in a savepoint."""
        if not rows:
            return
        try:
            with connection.begin_nested():
                connection.execute(self._put, rows)
        except DBAPIError as error:
            if not _is_about_a_row(error):
                raise
            if len(rows) == 1:
                refused[rows[0]["n"]] = _reason(error)
                return
            middle = len(rows) // 2
            self._put_rows(connection, rows[:middle], refused)
            self._put_rows(connection, rows[middle:], refused)

    def _note(self, connection: Connection, flat: Flat, missing: Sequence[Missing]) -> None:
        if not missing:
            return
        of = {"agent": flat.agent, "stream": flat.stream}
        notes = [of | {"n": one.n, "count": one.count, "reason": one.reason[:REASON_CHARS]} for one in missing]
        keys = [{f"_{key}": note[key] for key in ("agent", "stream", "n")} for note in notes]
        connection.execute(self._table.forget(), keys)
        connection.execute(self._table.note(), notes)

    def _alive(self) -> Connection:
        if self._connection is None:
            raise BrokerUnavailable("not connected")
        return self._connection

    def _engine(self) -> Engine:
        settings = self._settings
        try:
            password = None if settings.password is None else settings.password.reveal()
        except SecretMissing as error:
            raise SinkRefused(str(error.args[0]), hint=error.hint) from error
        url = make_url(settings.url).set(drivername=DIALECTS[settings.dialect][0])
        url = url.set(username=settings.username, password=password)
        return _engine(url, settings.dialect, settings.options, settings.answer_timeout)

    def _judged(self, error: SQLAlchemyError) -> BrokerUnavailable:
        """What an error that is not about a row means."""
        why = f"{self._settings.url}: {_reason(error)}"
        if isinstance(error, DBAPIError) and not error.connection_invalidated and _is_refusal(error):
            return SinkRefused(why, hint="check username, password, database, and what that user may do to the table")
        if isinstance(error, DBAPIError) and _is_told(error):
            return SinkAway(why, hint="the database itself is in trouble; see its log")
        return BrokerUnavailable(why, hint=self._hint)


def _engine(url: URL, dialect: str, options: dict[str, str | int], answer_s: float) -> Engine:
    """An engine that keeps nothing, with the time-outs that this driver and this server know."""
    arguments: dict[str, Any] = dict(options)
    connect_s, answer_ms = math.ceil(min(CONNECT_S, answer_s)), int(answer_s * 1000)
    say: tuple[str, ...] = ()
    match dialect:
        case "postgresql":
            arguments = {"connect_timeout": connect_s, "application_name": "edge-agent"} | arguments
            say = (
                f"SET statement_timeout = {answer_ms}",
                f"SET lock_timeout = {answer_ms * 4 // 5}",
                "SET timezone = 'UTC'",
            )
        case "mysql" | "mariadb":
            answers = {"connect_timeout": connect_s, "read_timeout": answer_s, "write_timeout": answer_s}
            arguments = answers | {"charset": "utf8mb4"} | arguments
            # without it a text that is too long would be cut off, and a warning be all there is
            say = ("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",)
            say += (f"SET SESSION innodb_lock_wait_timeout = {max(1, int(answer_s))}",)
        case "mssql":
            query = {"driver": ODBC_DRIVER} | dict(url.query) | {key: str(value) for key, value in options.items()}
            url, arguments = url.set(query=query), {"timeout": connect_s}
            say = (f"SET LOCK_TIMEOUT {answer_ms}",)
        case _:
            arguments = {"timeout": answer_s} | arguments
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connected(raw: Any, _record: object) -> None:
        if dialect == "sqlite":
            raw.isolation_level = None  # the driver would not begin a transaction before a savepoint
        if dialect == "mssql":
            raw.timeout = math.ceil(answer_s)
        cursor = raw.cursor()
        for statement in say:
            cursor.execute(statement)
        cursor.close()
        if say:
            raw.commit()

    if dialect == "sqlite":
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


# --- what an error means ---------------------------------------------------------------------------------------


def _state(error: DBAPIError) -> str | int | None:
    """The SQLSTATE, or MySQL's number."""
    raw: Any = error.orig
    state = getattr(raw, "sqlstate", None)  # psycopg
    if state is None and raw is not None and raw.args and isinstance(raw.args[0], str | int):
        state = raw.args[0]
        if isinstance(state, str) and not (len(state) == 5 and state.isalnum()):
            return None
    return state


def _is_about_a_row(error: DBAPIError) -> bool:
    state = _state(error)
    if error.connection_invalidated:
        return False
    if isinstance(state, int):
        return state in _MYSQL_ROW or type(error).__name__ in ("DataError", "IntegrityError")
    if state is not None:
        return state.startswith(_ROW_STATES)
    return type(error).__name__ in ("DataError", "IntegrityError")


def _is_told(error: DBAPIError) -> bool:
    """Whether the server said so, rather than that the connection ended."""
    state = _state(error)
    if isinstance(state, int):
        return not 2000 <= state < 3000
    return state is not None and state != _STATEMENT_TIMEOUT and not state.startswith("08")


def _is_refusal(error: DBAPIError) -> bool:
    state = _state(error)
    if isinstance(state, int):
        return state in _MYSQL_REFUSED or type(error).__name__ == "ProgrammingError"
    if state is not None:
        return state.startswith(_REFUSED_STATES)
    # of a connection that failed libpq gives words only
    words = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
    text = str(error.orig)
    return type(error).__name__ == "ProgrammingError" or any(word in text for word in words)


def _reason(error: SQLAlchemyError) -> str:
    """The first line of what the driver says: those that follow quote the row."""
    text = str(error.orig) if isinstance(error, DBAPIError) and error.orig is not None else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
