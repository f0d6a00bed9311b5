"""The tables, triggers and views of a receiver's SQLite file; plain SQL, so that any language can use it.

``schema_postgres`` holds the same ones for PostgreSQL. ``record`` is what came, once each, keyed (agent, log, seq).
``stream``, ``gap``, ``nack`` and ``rejected`` belong to delivery, ``anchor`` and ``finding`` to the proof that nothing
was changed. The rest is filled by triggers whatever the order of arrival: ``tag`` and ``claim`` say what samples mean,
``cycle`` holds one row a cycle with its newest binding (the highest seq wins), ``cycle_window`` which samples it owns.
``lineage`` says which earlier log a log goes on from: after a restored snapshot two logs may use one seq, and a window
means the samples of its own line only. The eight nearest ancestors are kept; no cycle outlives so many restarts.

What went into a unit, holds and findings: see ``traceability``. The view ``reading`` has the columns of
docs/contracts.md: a reading a row, with its serial.
"""

from __future__ import annotations

import sqlite3

from edge_agent.receiver import traceability

VERSION = 3
APPLICATION_ID = 0x45415231  # "EAR1"

_WATCHED = """
CREATE TABLE gap (
  agent TEXT NOT NULL, stream TEXT NOT NULL, first_n INTEGER NOT NULL, last_n INTEGER NOT NULL, lost INTEGER NOT NULL,
  state TEXT NOT NULL, log TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, held INTEGER NOT NULL,
  noticed_at_ns INTEGER NOT NULL, asked INTEGER NOT NULL DEFAULT 0, request TEXT, asked_at_ns INTEGER,
  heard_at_ns INTEGER, ended_at_ns INTEGER, reason TEXT, PRIMARY KEY (agent, stream, first_n)
) WITHOUT ROWID;
CREATE TABLE anchor (
  agent TEXT NOT NULL, by_log TEXT NOT NULL, by_seq INTEGER NOT NULL, kind TEXT NOT NULL, log TEXT NOT NULL,
  seq INTEGER NOT NULL, hash TEXT NOT NULL, verdict TEXT NOT NULL, PRIMARY KEY (agent, by_log, by_seq)
) WITHOUT ROWID;
CREATE INDEX anchor_place ON anchor (agent, log, seq);
CREATE INDEX anchor_new ON anchor (verdict) WHERE verdict = 'new';
CREATE TABLE finding (
  id INTEGER PRIMARY KEY, agent TEXT NOT NULL, code TEXT NOT NULL, about TEXT NOT NULL, text TEXT NOT NULL,
  noticed_at_ns INTEGER NOT NULL, UNIQUE (agent, code, about)
);
CREATE VIEW cycle_current AS SELECT * FROM cycle WHERE state <> 'unknown';
"""

_TABLES = """
CREATE TABLE record (
  agent TEXT NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, source TEXT NOT NULL,
  at_ns INTEGER NOT NULL, mono_ns INTEGER NOT NULL, synced INTEGER NOT NULL, body TEXT NOT NULL,
  UNIQUE (agent, log, seq)
);
CREATE INDEX record_sample ON record (agent, source, seq) WHERE kind = 'sample';
CREATE INDEX record_kind ON record (kind, at_ns) WHERE kind <> 'sample';

CREATE TABLE stream (
  agent TEXT NOT NULL, stream TEXT NOT NULL, upto INTEGER NOT NULL, highest INTEGER NOT NULL, ranges TEXT NOT NULL,
  heard_at_ns INTEGER NOT NULL, upto_seq INTEGER NOT NULL DEFAULT 0, log TEXT NOT NULL DEFAULT '',
  confirm TEXT NOT NULL DEFAULT '', PRIMARY KEY (agent, stream)
) WITHOUT ROWID;
CREATE TABLE nack (
  agent TEXT NOT NULL, stream TEXT NOT NULL, n INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (agent, stream, n)
) WITHOUT ROWID;
CREATE TABLE rejected (
  id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE agent (
  agent TEXT PRIMARY KEY, state TEXT NOT NULL, at_ns INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE lineage (
  agent TEXT NOT NULL, log TEXT NOT NULL, ancestor TEXT NOT NULL, upto_seq INTEGER NOT NULL,
  PRIMARY KEY (agent, log, ancestor)
) WITHOUT ROWID;
CREATE TABLE tag (
  agent TEXT NOT NULL, tagset TEXT NOT NULL, idx INTEGER NOT NULL, device TEXT NOT NULL, name TEXT NOT NULL, type TEXT,
  unit TEXT, PRIMARY KEY (agent, tagset, idx)
) WITHOUT ROWID;
CREATE TABLE claim (
  agent TEXT NOT NULL, config TEXT NOT NULL, station TEXT NOT NULL, position INTEGER NOT NULL, source TEXT NOT NULL,
  tag TEXT NOT NULL, PRIMARY KEY (agent, config, station, position, source, tag)
) WITHOUT ROWID;
CREATE TABLE cycle (
  agent TEXT NOT NULL, cycle TEXT NOT NULL, log TEXT, seq INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL, config TEXT,
  station TEXT, step TEXT, position INTEGER, attempt INTEGER, opened_at_ns INTEGER, opened_by TEXT, ended_at_ns INTEGER,
  closed_by TEXT, result TEXT, complete INTEGER,
  binding TEXT, binding_seq INTEGER NOT NULL DEFAULT 0, binding_state TEXT, rule TEXT, unit TEXT, serial TEXT,
  PRIMARY KEY (agent, cycle)
) WITHOUT ROWID;
CREATE INDEX cycle_serial ON cycle (serial);
CREATE TABLE cycle_window (
  agent TEXT NOT NULL, cycle TEXT NOT NULL, source TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  PRIMARY KEY (agent, cycle, source, first_seq)
) WITHOUT ROWID;
"""

_TRIGGERS = """
CREATE TRIGGER on_log_opened AFTER INSERT ON record WHEN new.kind = 'log_opened' BEGIN
  INSERT OR IGNORE INTO lineage VALUES (new.agent, new.log, new.log, 9223372036854775807);
  INSERT OR IGNORE INTO lineage
    SELECT new.agent, new.log, p.log, p.seq FROM (
      SELECT json_extract(new.body, '$.previous.log') AS log, json_extract(new.body, '$.previous.seq') AS seq) p
    WHERE p.log IS NOT NULL AND p.seq IS NOT NULL;
  INSERT OR IGNORE INTO lineage
    SELECT new.agent, new.log, a.ancestor, min(a.upto_seq, json_extract(new.body, '$.previous.seq')) FROM lineage a
    WHERE a.agent = new.agent AND a.log = json_extract(new.body, '$.previous.log') AND a.ancestor <> a.log
    ORDER BY a.upto_seq DESC LIMIT 7;
  INSERT OR IGNORE INTO lineage
    SELECT new.agent, d.log, a.ancestor, min(a.upto_seq, d.upto_seq) FROM lineage d JOIN lineage a
    ON a.agent = new.agent AND a.log = new.log AND a.ancestor <> new.log
    WHERE d.agent = new.agent AND d.ancestor = new.log AND d.log <> new.log;
END;
CREATE TRIGGER on_tagset AFTER INSERT ON record WHEN new.kind = 'tagset' BEGIN
  INSERT OR IGNORE INTO tag
    SELECT new.agent, json_extract(new.body, '$.tagset'), t.key, json_extract(new.body, '$.device'),
           json_extract(t.value, '$.name'), json_extract(t.value, '$.type'), json_extract(t.value, '$.unit')
    FROM json_each(new.body, '$.tags') t;
END;
CREATE TRIGGER on_config AFTER INSERT ON record WHEN new.kind = 'config' BEGIN
  INSERT OR IGNORE INTO claim
    SELECT new.agent, json_extract(new.body, '$.config'), s.key, p.key, g.key, t.value
    FROM json_each(new.body, '$.stations') s, json_each(s.value, '$.positions') p,
         json_each(p.value, '$.claims') g, json_each(g.value) t;
END;
CREATE TRIGGER on_cycle_opened AFTER INSERT ON record WHEN new.kind = 'cycle_opened' BEGIN
  INSERT INTO cycle (agent, cycle, log, seq, state, config, station, step, position, attempt, opened_at_ns, opened_by)
    SELECT new.agent, json_extract(new.body, '$.cycle'), new.log, new.seq, 'open', json_extract(new.body, '$.config'),
           json_extract(new.body, '$.station'), json_extract(new.body, '$.step'), json_extract(new.body, '$.position'),
           json_extract(new.body, '$.attempt'), new.at_ns, json_extract(new.body, '$.opened_by')
    WHERE json_extract(new.body, '$.cycle') IS NOT NULL
    ON CONFLICT DO UPDATE SET opened_by = excluded.opened_by;
  UPDATE cycle SET log = new.log, seq = new.seq, state = 'open', config = json_extract(new.body, '$.config'),
      station = json_extract(new.body, '$.station'), step = json_extract(new.body, '$.step'),
      position = json_extract(new.body, '$.position'), attempt = json_extract(new.body, '$.attempt'),
      opened_at_ns = new.at_ns
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle') AND state = 'unknown';
END;
CREATE TRIGGER on_cycle_closed AFTER INSERT ON record WHEN new.kind = 'cycle_closed' BEGIN
  INSERT OR IGNORE INTO lineage VALUES (new.agent, new.log, new.log, 9223372036854775807);
  INSERT OR IGNORE INTO cycle (agent, cycle, state)
    SELECT new.agent, json_extract(new.body, '$.cycle'), 'unknown' WHERE json_extract(new.body, '$.cycle') IS NOT NULL;
  UPDATE cycle SET log = new.log, seq = new.seq, state = 'closed', config = json_extract(new.body, '$.config'),
      station = json_extract(new.body, '$.station'), step = json_extract(new.body, '$.step'),
      position = json_extract(new.body, '$.position'), attempt = json_extract(new.body, '$.attempt'),
      opened_at_ns = CAST(json_extract(new.body, '$.opened_at_ns') AS INTEGER),
      ended_at_ns = CAST(json_extract(new.body, '$.ended_at_ns') AS INTEGER),
      closed_by = json_extract(new.body, '$.closed_by'), result = json_extract(new.body, '$.result'),
      complete = json_extract(new.body, '$.complete')
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle') AND (state <> 'closed' OR seq < new.seq);
  UPDATE cycle SET binding_seq = new.seq, binding_state = json_extract(new.body, '$.binding.state'),
      unit = json_extract(new.body, '$.binding.unit'), serial = json_extract(new.body, '$.binding.serial')
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle') AND binding_seq < new.seq
      AND json_extract(new.body, '$.binding.state') IS NOT NULL;
  DELETE FROM cycle_window WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle')
    AND new.seq = (SELECT c.seq FROM cycle c WHERE c.agent = new.agent AND c.cycle = json_extract(new.body, '$.cycle'));
  INSERT OR IGNORE INTO cycle_window
    SELECT new.agent, c.cycle, g.key, json_extract(w.value, '$[0]'), json_extract(w.value, '$[1]')
    FROM cycle c, json_each(new.body, '$.windows') g, json_each(g.value) w
    WHERE c.agent = new.agent AND c.cycle = json_extract(new.body, '$.cycle') AND c.seq = new.seq AND c.log = new.log;
END;
CREATE TRIGGER on_binding AFTER INSERT ON record
WHEN new.kind = 'binding' AND json_extract(new.body, '$.state') <> 'superseded' BEGIN
  INSERT OR IGNORE INTO cycle (agent, cycle, state)
    SELECT new.agent, json_extract(new.body, '$.cycle'), 'unknown' WHERE json_extract(new.body, '$.cycle') IS NOT NULL;
  UPDATE cycle SET binding_seq = new.seq, binding = json_extract(new.body, '$.binding'),
      binding_state = json_extract(new.body, '$.state'), rule = json_extract(new.body, '$.rule'),
      unit = json_extract(new.body, '$.unit'), serial = json_extract(new.body, '$.serial')
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle') AND binding_seq < new.seq;
  UPDATE cycle SET binding = json_extract(new.body, '$.binding'), rule = json_extract(new.body, '$.rule')
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle') AND binding IS NULL;
END;
"""

_FROM_1 = """
DROP TABLE gap;
ALTER TABLE stream ADD COLUMN upto_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stream ADD COLUMN log TEXT NOT NULL DEFAULT '';
ALTER TABLE stream ADD COLUMN confirm TEXT NOT NULL DEFAULT '';
UPDATE stream SET log = substr(stream, 1, instr(stream, '.') - 1);
"""

_VIEWS = """
CREATE VIEW reading AS
SELECT c.serial AS serial, c.unit AS unit, c.station AS station, c.step AS step, c.position AS position,
       c.cycle AS cycle, c.binding_state AS binding_state, t.device || '.' || t.name AS tag, v.value AS value,
       t.unit AS tag_unit, json_extract(s.body, '$.status."' || v.key || '"') AS status, s.at_ns AS at_ns,
       s.seq AS seq, c.agent AS agent
FROM cycle c
CROSS JOIN cycle_window w ON w.agent = c.agent AND w.cycle = c.cycle
CROSS JOIN record s ON s.kind = 'sample' AND s.agent = c.agent AND s.source = w.source
                   AND s.seq BETWEEN w.first_seq AND w.last_seq
CROSS JOIN lineage l ON l.agent = c.agent AND l.log = c.log AND l.ancestor = s.log AND s.seq <= l.upto_seq
CROSS JOIN json_each(s.body, '$.values') v
CROSS JOIN tag t ON t.agent = c.agent AND t.tagset = json_extract(s.body, '$.tagset') AND t.idx = v.key
CROSS JOIN claim k ON k.agent = c.agent AND k.config = c.config AND k.station = c.station
                  AND k.position = c.position AND k.source = w.source AND k.tag = t.name;
CREATE VIEW binding_current AS
SELECT agent, cycle, binding, binding_state AS state, rule, unit, serial, station, position FROM cycle
WHERE binding_state IS NOT NULL;
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables if this is a new file. Raises sqlite3.DatabaseError if it is somebody else's."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")  # another receiver may be making them at this moment
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version == 0 and not tables:
            _run(connection, _TABLES + _TRIGGERS + _VIEWS + _WATCHED + traceability.TABLES + traceability.SQLITE)
        elif version in (1, 2):
            _run(connection, _FROM_1 + _WATCHED if version == 1 else "")
            _run(connection, traceability.TABLES + traceability.SQLITE + traceability.AGAIN_SQLITE)
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"holds other tables (version {version}), not those of a receiver")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Statement by statement: executescript would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
