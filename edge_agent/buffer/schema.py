"""The tables of ``buffer.db``, its views, and the numbered migrations that bring an older file up to date.

A new file is made by running ``TABLES`` and ``VIEWS``. An older one goes through ``MIGRATIONS``, one step a version,
with sqlite-utils, which is imported only then (it costs 100 ms and 36 MB). sqlite-utils' ``transform()`` silently
drops triggers, so views and triggers are dropped before and made anew after every migration.

``record`` is the log. ``gap`` holds the ranges of seq that are no longer (or never were) in it, with the hash at
each range's end, so that the chain can be verified across them. Everything else is a projection, or progress. A
lane's ``purpose`` is ``log`` (what is new), ``replay`` (a range once more) or ``retry`` (dead letters once more:
``pick`` lists the only seqs that such a lane holds). ``salvage`` says how far the taking over of a damaged file has
come; it is empty otherwise. ``doubt`` says what damage made uncertain for good (``holds``), until somebody settles it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_agent.buffer.steps import step
from edge_agent.errors import StorageError

if TYPE_CHECKING:
    import sqlite_utils

VERSION = 3
APPLICATION_ID = 0x45414231  # "EAB1": tells `file` and us that this is an edge-agent buffer

TRACING = """
CREATE INDEX identifier_carrier ON identifier (value) WHERE kind = 'carrier' AND removed_seq IS NULL;
CREATE INDEX cycle_undecided ON cycle (seq)
  WHERE state = 'closed' AND binding_state IN ('pending', 'ambiguous', 'orphan');
CREATE TABLE genealogy (
  parent TEXT NOT NULL, child TEXT NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, cycle TEXT,
  at_ns INTEGER NOT NULL, removed_seq INTEGER, PRIMARY KEY (parent, child, seq)
) WITHOUT ROWID;
CREATE INDEX genealogy_child ON genealogy (child);
CREATE TABLE consumption (
  cycle TEXT NOT NULL, idx INTEGER NOT NULL, name TEXT NOT NULL, lot TEXT, package TEXT, part_number TEXT,
  certain INTEGER NOT NULL, PRIMARY KEY (cycle, idx)
) WITHOUT ROWID;
CREATE INDEX consumption_lot ON consumption (lot) WHERE lot IS NOT NULL;
CREATE INDEX consumption_package ON consumption (package) WHERE package IS NOT NULL;
CREATE TABLE material_load (
  seq INTEGER PRIMARY KEY, station TEXT NOT NULL, name TEXT NOT NULL, package TEXT, lot TEXT, part_number TEXT,
  supplier TEXT, expiry TEXT, quantity REAL, state TEXT NOT NULL, at_ns INTEGER NOT NULL, ended_seq INTEGER
);
CREATE INDEX material_load_lot ON material_load (lot) WHERE lot IS NOT NULL;
CREATE INDEX material_load_package ON material_load (package) WHERE package IS NOT NULL;
CREATE INDEX material_load_now ON material_load (station, name) WHERE ended_seq IS NULL;
CREATE TABLE hold (
  hold TEXT NOT NULL, subject_kind TEXT NOT NULL, subject TEXT NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL,
  verdict_id TEXT NOT NULL, decision_seq INTEGER, source TEXT NOT NULL, text TEXT, expires_at_ns INTEGER,
  seq INTEGER NOT NULL, at_ns INTEGER NOT NULL, PRIMARY KEY (hold, subject_kind, subject)
) WITHOUT ROWID;
CREATE INDEX hold_subject ON hold (subject, subject_kind);
CREATE INDEX hold_open ON hold (seq) WHERE state = 'open';
CREATE TABLE verdict (
  verdict_id TEXT PRIMARY KEY, source TEXT NOT NULL, decision_seq INTEGER, state TEXT NOT NULL, action TEXT NOT NULL,
  subject_kind TEXT NOT NULL, subject TEXT NOT NULL, hold TEXT, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX verdict_subject ON verdict (subject, subject_kind);
CREATE INDEX verdict_source ON verdict (source, decision_seq);
CREATE INDEX verdict_age ON verdict (seq);
CREATE TABLE unit_status (
  serial TEXT NOT NULL, step TEXT NOT NULL, said_by TEXT NOT NULL, result TEXT NOT NULL, complete INTEGER,
  attempt INTEGER, status_at_ns INTEGER, station TEXT, cycle TEXT, state TEXT, seq INTEGER NOT NULL,
  at_ns INTEGER NOT NULL, PRIMARY KEY (serial, step, said_by)
) WITHOUT ROWID;
CREATE INDEX unit_status_age ON unit_status (seq);
CREATE INDEX unit_status_cycle ON unit_status (cycle) WHERE cycle IS NOT NULL;
CREATE TABLE gate (
  gate TEXT PRIMARY KEY, station TEXT NOT NULL, position INTEGER NOT NULL, cycle TEXT, unit TEXT, serial TEXT,
  verdict TEXT NOT NULL, code INTEGER NOT NULL, reasons TEXT NOT NULL, basis TEXT NOT NULL, by TEXT,
  seq INTEGER NOT NULL, at_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX gate_unit ON gate (unit) WHERE unit IS NOT NULL;
CREATE INDEX gate_age ON gate (seq);
CREATE TABLE doubt (what TEXT PRIMARY KEY, text TEXT NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
"""
"""What version 3 added beside columns. Last of all, so that an older file has its roots where a new one has them."""

TABLES = """
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE record (
  seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, source INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  mono_ns INTEGER NOT NULL, synced INTEGER NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE gap (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, hash BLOB NOT NULL, reason TEXT NOT NULL);
CREATE TABLE log (
  id TEXT NOT NULL UNIQUE, first_seq INTEGER PRIMARY KEY, boot TEXT NOT NULL, agent TEXT NOT NULL,
  opened_at_ns INTEGER NOT NULL
);

CREATE TABLE route (name TEXT PRIMARY KEY, attached INTEGER NOT NULL, kinds TEXT NOT NULL, stations TEXT) WITHOUT ROWID;
CREATE TABLE lane (
  id INTEGER PRIMARY KEY, route TEXT NOT NULL, number INTEGER NOT NULL, log TEXT NOT NULL, boot TEXT NOT NULL,
  from_seq INTEGER NOT NULL, to_seq INTEGER, seq INTEGER NOT NULL, n INTEGER NOT NULL,
  kinds TEXT NOT NULL, stations TEXT, total INTEGER NOT NULL, total_seq INTEGER NOT NULL,
  purpose TEXT NOT NULL DEFAULT 'log', request TEXT,
  UNIQUE (route, log, number)
);
CREATE TABLE pick (lane INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (lane, seq)) WITHOUT ROWID;
CREATE TABLE hole (
  lane INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, count INTEGER NOT NULL,
  reason TEXT NOT NULL, PRIMARY KEY (lane, last_seq)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
  route TEXT NOT NULL, lane INTEGER NOT NULL, n INTEGER NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL,
  at_ns INTEGER NOT NULL, retried_at_ns INTEGER, synced INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (lane, n)
) WITHOUT ROWID;
CREATE INDEX dead_letter_seq ON dead_letter (seq);

CREATE TABLE tagset (tagset TEXT PRIMARY KEY, device TEXT NOT NULL, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tag (
  tagset TEXT NOT NULL, idx INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, unit TEXT NOT NULL,
  PRIMARY KEY (tagset, idx)
) WITHOUT ROWID;
CREATE TABLE claim (
  config TEXT NOT NULL, station TEXT NOT NULL, position INTEGER NOT NULL, source INTEGER NOT NULL, tag TEXT NOT NULL,
  PRIMARY KEY (config, station, position, source, tag)
) WITHOUT ROWID;
CREATE TABLE station (name TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE unit (
  unit TEXT PRIMARY KEY, serial TEXT, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  kind TEXT NOT NULL DEFAULT 'serial'
) WITHOUT ROWID;
CREATE INDEX unit_serial ON unit (serial);
CREATE TABLE identifier (
  unit TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  removed_seq INTEGER, position INTEGER, PRIMARY KEY (unit, kind, value, seq)
) WITHOUT ROWID;
CREATE INDEX identifier_value ON identifier (value, kind);

CREATE TABLE cycle (
  cycle TEXT PRIMARY KEY, config TEXT NOT NULL, station TEXT NOT NULL, step TEXT NOT NULL, position INTEGER NOT NULL,
  seq INTEGER NOT NULL, opened_at_ns INTEGER NOT NULL, opened_by TEXT NOT NULL, attempt INTEGER, context TEXT NOT NULL,
  state TEXT NOT NULL, ended_at_ns INTEGER, closed_by TEXT, result TEXT, complete INTEGER, outcome TEXT,
  binding TEXT, binding_state TEXT NOT NULL, unit TEXT
) WITHOUT ROWID;
CREATE INDEX cycle_unit ON cycle (unit);
CREATE INDEX cycle_open ON cycle (state) WHERE state <> 'closed';
CREATE INDEX cycle_age ON cycle (seq);
CREATE TABLE cycle_window (
  cycle TEXT NOT NULL, source INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  PRIMARY KEY (cycle, source, first_seq)
) WITHOUT ROWID;
CREATE INDEX cycle_window_seq ON cycle_window (last_seq, first_seq, source);
CREATE INDEX cycle_window_span ON cycle_window (last_seq - first_seq);
CREATE TABLE binding (
  binding TEXT PRIMARY KEY, cycle TEXT NOT NULL, state TEXT NOT NULL, unit TEXT, serial TEXT, rule TEXT, reason TEXT,
  candidates TEXT, evidence TEXT, supersedes TEXT, by TEXT, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX binding_cycle ON binding (cycle);
CREATE INDEX binding_unit ON binding (unit);
CREATE TABLE finding (
  finding TEXT PRIMARY KEY, code TEXT NOT NULL, severity TEXT NOT NULL, text TEXT NOT NULL, source TEXT NOT NULL,
  cycle TEXT, position INTEGER, serial TEXT, details TEXT, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  acknowledged_at_ns INTEGER, acknowledged_by TEXT, acknowledged_reason TEXT
) WITHOUT ROWID;
CREATE INDEX finding_cycle ON finding (cycle) WHERE cycle IS NOT NULL;
CREATE INDEX finding_serial ON finding (serial) WHERE serial IS NOT NULL;
CREATE INDEX finding_age ON finding (seq);
CREATE TABLE counter (
  station TEXT NOT NULL, position INTEGER NOT NULL, counter INTEGER NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY (station, position)
) WITHOUT ROWID;
CREATE TABLE salvage (
  place TEXT NOT NULL, part TEXT NOT NULL, state TEXT NOT NULL, taken INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (place, part)
) WITHOUT ROWID;
""" + TRACING.lstrip()

# The JSON functions of SQLite before 3.45 refuse a BLOB, hence the casts. CROSS JOIN keeps the order of the tables: a
# planner without statistics would rather scan the records. Only the unit may move to the front, for `WHERE serial =`.
VIEWS = {
    "reading": """
CREATE VIEW reading AS
SELECT u.serial AS serial, c.unit AS unit, c.station AS station, c.step AS step, c.position AS position,
       c.cycle AS cycle, c.binding_state AS binding_state, s.device || '.' || t.name AS tag, v.value AS value,
       t.unit AS tag_unit, json_extract(CAST(r.body AS TEXT), '$.status."' || v.key || '"') AS status,
       r.at_ns AS at_ns, r.seq AS seq
FROM cycle c
CROSS JOIN cycle_window w ON w.cycle = c.cycle
CROSS JOIN record r ON r.seq BETWEEN w.first_seq AND w.last_seq AND r.source = w.source AND r.kind = 4
CROSS JOIN tagset s ON s.tagset = json_extract(CAST(r.body AS TEXT), '$.tagset')
CROSS JOIN json_each(CAST(r.body AS TEXT), '$.values') v
CROSS JOIN tag t ON t.tagset = s.tagset AND t.idx = v.key
CROSS JOIN claim k ON k.config = c.config AND k.station = c.station AND k.position = c.position
            AND k.source = w.source AND k.tag = t.name
LEFT JOIN unit u ON u.unit = c.unit
""",
    "cycle_current": """
CREATE VIEW cycle_current AS
SELECT c.*, u.serial AS serial, b.rule AS rule, b.reason AS reason
FROM cycle c LEFT JOIN unit u ON u.unit = c.unit LEFT JOIN binding b ON b.binding = c.binding
""",
}

TRIGGERS = {
    "record_append_only": """
CREATE TRIGGER record_append_only BEFORE UPDATE ON record
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END
""",
}


def _lanes_with_a_purpose(database: sqlite_utils.Database) -> None:
    """Version 2: lanes that repeat what a route already had (replay, retry), and which dead letters were retried."""
    database.table("lane").add_column("purpose", str, not_null_default="log")
    database.table("lane").add_column("request", str)
    database.table("dead_letter").add_column("retried_at_ns", int)
    database.table("dead_letter").add_column("synced", int, not_null_default=1)
    for table in ("pick", "salvage"):
        database.execute(_table(table))


def _traceability(database: sqlite_utils.Database) -> None:
    """Version 3: what went into a unit, on which carrier it is, what holds it, and who acknowledged a finding."""
    database.table("unit").add_column("kind", str, not_null_default="serial")
    database.table("identifier").add_column("position", int)
    for column, kind in (("at_ns", int), ("by", str), ("reason", str)):
        database.table("finding").add_column(f"acknowledged_{column}", kind)
    for statement in TRACING.split(";\n"):
        if statement.strip():
            database.execute(statement)


def _table(name: str) -> str:
    """The statement that makes one of ``TABLES``; right as long as no later version changes that table."""
    return next(part for part in TABLES.split(";\n") if f"CREATE TABLE {name} (" in part)


ADDED = {"unit": 1, "identifier": 1, "finding": 3}
"""Columns that rows of an older file may lack at their end."""

MIGRATIONS: Mapping[int, Callable[[sqlite_utils.Database], None]] = {
    2: _lanes_with_a_purpose,
    3: _traceability,
}
"""Version reached -> the step that reaches it from the one before. Never change one that was released."""


def create(connection: sqlite3.Connection) -> None:
    """Lay out an empty file. Must be the first thing that happens to it: auto_vacuum is set before any table."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in TABLES.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    _create_views(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def migrate(
    connection: sqlite3.Connection,
    migrations: Mapping[int, Callable[[sqlite_utils.Database], None]] = MIGRATIONS,
    version: int = VERSION,
) -> None:
    """Bring an existing file to ``version``, each step in a transaction of its own. Raises StorageError."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > version:
        raise StorageError(
            f"the buffer was written by a newer edge-agent (format {found}, this one knows {version})",
            hint="install the newer edge-agent again, or give this one a data_dir of its own",
        )
    if found == version:
        return
    import sqlite_utils

    for number in range(found + 1, version + 1):
        database = sqlite_utils.Database(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            _drop_views(connection)
            migrations[number](database)
            _create_views(connection)
            connection.execute(f"PRAGMA user_version = {number}")
            step("migration_before_commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        step("migration_after_commit")


def _create_views(connection: sqlite3.Connection) -> None:
    for statement in (*VIEWS.values(), *TRIGGERS.values()):
        connection.execute(statement)


def _drop_views(connection: sqlite3.Connection) -> None:
    for name in VIEWS:
        connection.execute(f"DROP VIEW IF EXISTS {name}")
    for name in TRIGGERS:
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
