"""The sql sink's statements in the words of databases that no test runs, and what their errors mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg.errors
import pymysql.err
import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from edge_agent.routes import sql
from edge_agent.routes.flat import COLUMNS
from edge_agent.routes.sql_table import StagingTable

PAGE = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text(encoding="utf-8")
DIALECTS: dict[str, Dialect] = {
    "postgresql": postgresql.dialect(),
    "mysql": mysql.dialect(),
    "mssql": mssql.dialect(),
    "sqlite": sqlite.dialect(),
}


@pytest.mark.parametrize(("title", "name"), [("PostgreSQL", "postgresql"), ("MySQL, MariaDB", "mysql"), ("SQL Server", "mssql")])  # fmt: skip  # noqa: E501
def test_the_page_has_the_statements_that_create_the_tables(title: str, name: str) -> None:
    (documented,) = re.findall(rf"^{title}\n\n```sql\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    statements = StagingTable(None, "edge_records").statements(DIALECTS[name])
    made = ";\n".join("\n".join(line.rstrip() for line in one.splitlines()) for one in statements) + ";\n"
    assert documented == made


def test_the_page_names_every_column() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE.partition("## sql")[2].partition("```sql")[0], re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows) + PAGE.partition("UTC (a time")[2].partition("\n")[0])
    assert set(named) == set(COLUMNS)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_row_that_is_there_is_left_alone_and_no_other_conflict_is_hidden(name: str) -> None:
    put = StagingTable("mes", "edge_records").put(name).compile(dialect=DIALECTS[name])
    text = re.sub(r"\s+", " ", str(put))
    assert text.startswith(f"INSERT INTO mes.edge_records ({', '.join(COLUMNS)}) ")
    if name in ("postgresql", "sqlite"):
        assert text.endswith("ON CONFLICT (agent, log, seq) DO NOTHING")
        return
    assert " WHERE NOT (EXISTS (SELECT 1 FROM mes.edge_records AS there " in text
    assert not re.search("IGNORE|ON DUPLICATE|MERGE", text)
    assert len(re.findall(r"%s|:\w+", text)) == len(COLUMNS) + 3
    if name == "mssql":
        assert "AS there WITH (UPDLOCK, HOLDLOCK) WHERE" in text
        assert "CAST(:serial AS NVARCHAR(max))" in text  # a cast to NVARCHAR(255) would cut it off unasked
    else:
        assert " FROM DUAL WHERE" in text


class Odbc:
    """What pyodbc raises, which cannot be imported where unixODBC is not installed."""

    class InterfaceError(Exception): ...

    class DataError(Exception): ...

    class OperationalError(Exception): ...

    class IntegrityError(Exception): ...

    class ProgrammingError(Exception): ...


def error(kind: type[Exception], *arguments: object) -> DBAPIError:
    made: Any = DBAPIError.instance("INSERT", {}, kind(*arguments), Exception, hide_parameters=True)
    assert isinstance(made, DBAPIError)
    return made


@pytest.mark.parametrize(
    ("raised", "meaning"),
    [
        (error(psycopg.errors.UniqueViolation, "x"), "row"),
        (error(psycopg.errors.StringDataRightTruncation, "x"), "row"),
        (error(psycopg.errors.RaiseException, "x"), "row"),
        (error(psycopg.DataError, "PostgreSQL text fields cannot contain NUL (0x00) bytes"), "row"),
        (error(psycopg.errors.UndefinedColumn, "x"), "refused"),
        (error(psycopg.errors.InsufficientPrivilege, "x"), "refused"),
        (error(psycopg.OperationalError, 'FATAL: password authentication failed for user "x"'), "refused"),
        (error(psycopg.errors.DiskFull, "x"), "told"),
        (error(psycopg.errors.LockNotAvailable, "x"), "told"),
        (error(psycopg.errors.QueryCanceled, "x"), "lost"),
        (error(psycopg.OperationalError, "server closed the connection unexpectedly"), "lost"),
        (error(pymysql.err.DataError, 1406, "Data too long for column 'serial'"), "row"),
        (error(pymysql.err.IntegrityError, 1062, "Duplicate entry"), "row"),
        (error(pymysql.err.OperationalError, 3819, "Check constraint 'x' is violated."), "row"),
        (error(pymysql.err.OperationalError, 1045, "Access denied"), "refused"),
        (error(pymysql.err.ProgrammingError, 1146, "Table doesn't exist"), "refused"),
        (error(pymysql.err.OperationalError, 1205, "Lock wait timeout exceeded"), "told"),
        (error(pymysql.err.OperationalError, 2013, "Lost connection to MySQL server during query"), "lost"),
        (error(Odbc.IntegrityError, "23000", "[23000] Cannot insert duplicate key"), "row"),
        (error(Odbc.DataError, "22001", "[22001] String or binary data would be truncated"), "row"),
        (error(Odbc.InterfaceError, "28000", "[28000] Login failed for user"), "refused"),
        (error(Odbc.ProgrammingError, "42S02", "[42S02] Invalid object name"), "refused"),
        (error(Odbc.OperationalError, "08S01", "[08S01] Communication link failure"), "lost"),
    ],
    ids=lambda value: f"{type(value.orig).__name__}" if isinstance(value, DBAPIError) else value,
)
def test_an_error_is_of_the_row_of_the_set_up_of_the_server_or_of_the_line(raised: DBAPIError, meaning: str) -> None:
    if sql._is_about_a_row(raised):
        found = "row"
    elif sql._is_refusal(raised):
        found = "refused"
    else:
        found = "told" if sql._is_told(raised) else "lost"
    assert found == meaning
