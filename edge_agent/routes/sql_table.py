"""The two tables of ``sink: sql``, their statements in each database's own words, and whether they are as they must be.

``<table>`` holds a row a record, keyed by (agent, log, seq). A row that is there already is left as it is: records
never change, so a message that comes twice changes nothing, and neither columns that the reader added nor his triggers
notice. ``<table>_missing`` holds the numbers of a stream that will not come, keyed by (agent, stream, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Cast,
    Column,
    Connection,
    DateTime,
    Delete,
    Dialect,
    Index,
    Insert,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Select,
    String,
    Table,
    UnicodeText,
    and_,
    bindparam,
    cast,
    delete,
    insert,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy import Unicode as Text
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from edge_agent.routes.flat import COLUMNS, KEY
from edge_agent.routes.sink import SinkRefused

MISSING_KEY = ("agent", "stream", "n")
REASON_CHARS = 500

_AT = (
    DateTime(timezone=True)
    .with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    .with_variant(mssql.DATETIME2(precision=6), "mssql")  # type: ignore[no-untyped-call]
)
_BODY = UnicodeText().with_variant(mysql.LONGTEXT(), "mysql", "mariadb").with_variant(mssql.NVARCHAR(), "mssql")


class StagingTable:
    """What is known of the tables of one route."""

    def __init__(self, schema: str | None, name: str) -> None:
        self.metadata = MetaData()
        options: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
        options |= {key.replace("mysql", "mariadb"): value for key, value in options.items()}
        self.records = Table(
            name,
            self.metadata,
            Column("agent", Text(64), nullable=False),
            Column("log", Text(12), nullable=False),
            Column("seq", BigInteger, nullable=False),
            Column("stream", Text(100), nullable=False),
            Column("n", BigInteger, nullable=False),
            Column("kind", Text(20), nullable=False),
            Column("source", Text(200), nullable=False),
            Column("station", Text(64)),
            Column("position", Integer),
            Column("cycle", Text(40)),
            Column("serial", Text(255)),
            Column("unit", Text(40)),
            Column("result", Text(40)),
            Column("at", _AT, nullable=False),
            Column("at_ns", BigInteger, nullable=False),
            Column("mono_ns", BigInteger, nullable=False),
            Column("synced", Boolean, nullable=False),
            Column("body", _BODY, nullable=False),
            PrimaryKeyConstraint(*KEY),
            Index(f"{name}_serial", "serial"),
            schema=schema,
            **options,
        )
        assert tuple(column.name for column in self.records.columns) == COLUMNS
        self.missing = Table(
            f"{name}_missing",
            self.metadata,
            Column("agent", Text(64), nullable=False),
            Column("stream", Text(100), nullable=False),
            Column("n", BigInteger, nullable=False),
            Column("count", BigInteger, nullable=False),
            Column("reason", Text(REASON_CHARS), nullable=False),
            PrimaryKeyConstraint(*MISSING_KEY),
            schema=schema,
            **options,
        )

    def put(self, dialect: str) -> Insert:
        """The statement that takes a row, unless it is there."""
        if dialect == "postgresql":
            return postgresql.insert(self.records).on_conflict_do_nothing(index_elements=KEY)
        if dialect == "sqlite":
            return sqlite.insert(self.records).on_conflict_do_nothing(index_elements=KEY)
        # Not ON DUPLICATE KEY, which hides a conflict with any other unique index that the reader has, nor MERGE. Casts
        # name the types of parameters to SQL Server; to a text of any length, or it would cut them off unasked.
        there = self.records.alias("there")
        same = and_(*(there.c[name] == bindparam(name) for name in KEY))
        unless: Select[Any] = (
            select(literal_column("1")).select_from(there).with_hint(there, "WITH (UPDLOCK, HOLDLOCK)", "mssql")
        )
        values = [bindparam(column.name, type_=column.type) for column in self.records.columns]
        row = select(*(_cast(value) for value in values)) if dialect == "mssql" else select(*values)
        if dialect != "mssql":
            row = row.select_from(text("DUAL"))
        return insert(self.records).from_select(list(COLUMNS), row.where(~unless.where(same).exists()))

    def forget(self) -> Delete:
        """The statement before ``note``: a tombstone sent again may have grown."""
        return delete(self.missing).where(
            and_(*(self.missing.c[name] == bindparam(f"_{name}") for name in MISSING_KEY))
        )

    def note(self) -> Insert:
        """The statement that takes a range of numbers that will not come."""
        return insert(self.missing)

    def statements(self, dialect: Dialect) -> list[str]:
        """What creates the tables, for whoever may do so."""
        made: list[Any] = [CreateTable(self.records), *(CreateIndex(index) for index in self.records.indexes)]
        made.append(CreateTable(self.missing))
        return [str(one.compile(dialect=dialect)).strip().replace("\t", "  ") for one in made]

    def judge(self, connection: Connection) -> None:
        """Raise SinkRefused unless both tables are there, and are as they must be."""
        for table, key in ((self.records, KEY), (self.missing, MISSING_KEY)):
            found = inspect(connection)
            if not found.has_table(table.name, table.schema):
                raise SinkRefused(f"there is no table {table.fullname}", hint=CREATE_HINT)
            columns = {column["name"]: column for column in found.get_columns(table.name, table.schema)}
            if absent := [column.name for column in table.columns if column.name not in columns]:
                what = f"table {table.fullname} has no column {', '.join(absent)}"
                raise SinkRefused(what, hint="add what is missing; docs/sinks.md has the whole statement")
            if needy := [name for name, column in columns.items() if name not in table.columns and _needs(column)]:
                what = f"table {table.fullname} demands a value for {', '.join(needy)}, which no record has"
                raise SinkRefused(what, hint="give that column a default, or let it be null")
            if not _is_key(key, found, table):
                what = f"table {table.fullname} has no primary key or unique index over {', '.join(key)}"
                raise SinkRefused(
                    what, hint=f"a record that is sent again would be doubled: add unique ({', '.join(key)})"
                )


CREATE_HINT = "write create: true into the route, or have it created by the statement in docs/sinks.md"


def _cast(value: BindParameter[Any]) -> Cast[Any]:
    return cast(value, mssql.NVARCHAR() if isinstance(value.type, String) else value.type)


def _needs(column: Any) -> bool:
    given = column.get("default") is not None or column.get("computed") or column.get("identity")
    return not (column["nullable"] or given or column.get("autoincrement") is True)


def _is_key(key: Sequence[str], found: Any, table: Table) -> bool:
    where = (table.name, table.schema)
    keys = [found.get_pk_constraint(*where)["constrained_columns"]]
    keys += [one["column_names"] for one in found.get_unique_constraints(*where)] if _has_unique(found) else []
    keys += [one["column_names"] for one in found.get_indexes(*where) if one["unique"]]
    return any(set(one) == set(key) for one in keys)


def _has_unique(found: Any) -> bool:
    return bool(found.dialect.name != "mssql")  # there they are among the indexes
