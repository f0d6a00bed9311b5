-- The tables of a buffer of format version 1, as the first release made them. Never to be changed.
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
  UNIQUE (route, log, number)
);
CREATE TABLE hole (
  lane INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, count INTEGER NOT NULL,
  reason TEXT NOT NULL, PRIMARY KEY (lane, last_seq)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
  route TEXT NOT NULL, lane INTEGER NOT NULL, n INTEGER NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL,
  at_ns INTEGER NOT NULL, PRIMARY KEY (lane, n)
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

CREATE TABLE unit (unit TEXT PRIMARY KEY, serial TEXT, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX unit_serial ON unit (serial);
CREATE TABLE identifier (
  unit TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  removed_seq INTEGER, PRIMARY KEY (unit, kind, value, seq)
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
  cycle TEXT, position INTEGER, serial TEXT, details TEXT, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX finding_cycle ON finding (cycle) WHERE cycle IS NOT NULL;
CREATE INDEX finding_serial ON finding (serial) WHERE serial IS NOT NULL;
CREATE INDEX finding_age ON finding (seq);
CREATE TABLE counter (
  station TEXT NOT NULL, position INTEGER NOT NULL, counter INTEGER NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY (station, position)
) WITHOUT ROWID;
