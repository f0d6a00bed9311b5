"""Version 3 of a receiver's tables: what went into which unit, what is on hold, what others say,
  who acknowledged what.

In the SQL of SQLite and of PostgreSQL, with the same names and columns; filled by triggers, whatever the order of
arrival: of two records about one thing the higher seq wins. A binding made after its cycle closed may name the
attempt; it then stands against what ``cycle_closed`` says (``bound_attempt``), whichever comes first. Units are joined
by their *serial*, as each agent has ids of its own for them: a component made on one PC and built in on another is one.

``AGAIN`` lets what arrived before these tables were there come by the triggers once more.
"""

from __future__ import annotations

from typing import LiteralString

TABLES: LiteralString = """
CREATE TABLE genealogy (
  agent text NOT NULL, parent text NOT NULL, child text NOT NULL, parent_serial text NOT NULL,
  child_serial text NOT NULL, name text NOT NULL, cycle text, at_ns bigint NOT NULL, removed_at_ns bigint,
  reason text, seq bigint NOT NULL, PRIMARY KEY (agent, parent, child)
);
CREATE INDEX genealogy_child ON genealogy (child_serial);
CREATE INDEX genealogy_parent ON genealogy (parent_serial);
CREATE TABLE consumption (
  agent text NOT NULL, cycle text NOT NULL, idx int NOT NULL, name text NOT NULL, lot text, package text,
  part_number text, certain boolean NOT NULL, PRIMARY KEY (agent, cycle, idx)
);
CREATE INDEX consumption_lot ON consumption (lot) WHERE lot IS NOT NULL;
CREATE INDEX consumption_package ON consumption (package) WHERE package IS NOT NULL;
CREATE TABLE material (
  agent text NOT NULL, material text NOT NULL, station text NOT NULL, op text NOT NULL, name text NOT NULL, lot text,
  package text, part_number text, supplier text, quantity double precision, expiry text, at_ns bigint NOT NULL,
  seq bigint NOT NULL, PRIMARY KEY (agent, material)
);
CREATE INDEX material_lot ON material (lot) WHERE lot IS NOT NULL;
CREATE TABLE hold (
  agent text NOT NULL, hold text NOT NULL, subject_kind text NOT NULL, subject text NOT NULL, action text NOT NULL,
  state text NOT NULL, source text NOT NULL, text text, at_ns bigint NOT NULL, seq bigint NOT NULL,
  PRIMARY KEY (agent, hold, subject_kind, subject)
);
CREATE INDEX hold_subject ON hold (subject, subject_kind);
CREATE TABLE unit_status (
  agent text NOT NULL, serial text NOT NULL, step text NOT NULL, said_by text NOT NULL, result text NOT NULL,
  complete boolean, attempt int, status_at_ns bigint, state text, at_ns bigint NOT NULL, seq bigint NOT NULL,
  PRIMARY KEY (agent, serial, step, said_by)
);
CREATE TABLE line_finding (
  agent text NOT NULL, finding text NOT NULL, code text, severity text, text text, source text, cycle text,
  position int, serial text, at_ns bigint, acknowledged_at_ns bigint, acknowledged_by text, acknowledged_reason text,
  PRIMARY KEY (agent, finding)
);
CREATE INDEX line_finding_serial ON line_finding (serial) WHERE serial IS NOT NULL;
ALTER TABLE cycle ADD COLUMN completeness text;
ALTER TABLE cycle ADD COLUMN bound_attempt int;
ALTER TABLE cycle ADD COLUMN attempt_seq bigint NOT NULL DEFAULT 0;
"""
"""Of both databases: to SQLite a type is what the first letters of its name say."""

SQLITE: LiteralString = """
CREATE TRIGGER on_genealogy AFTER INSERT ON record WHEN new.kind = 'genealogy' BEGIN
  INSERT INTO genealogy
    SELECT new.agent, json_extract(b, '$.parent'), json_extract(b, '$.child'), json_extract(b, '$.parent_serial'),
      json_extract(b, '$.child_serial'), json_extract(b, '$.name'),
      json_extract(b, '$.cycle'), new.at_ns, iif(json_extract(b, '$.op') = 'uninstall', new.at_ns, NULL),
      json_extract(b, '$.reason'), new.seq
    FROM (SELECT new.body AS b) WHERE TRUE
    ON CONFLICT DO UPDATE SET name = excluded.name, cycle = coalesce(excluded.cycle, cycle),
      at_ns = iif(excluded.removed_at_ns IS NULL, excluded.at_ns, at_ns), removed_at_ns = excluded.removed_at_ns,
      reason = excluded.reason, seq = excluded.seq WHERE excluded.seq > seq;
END;
CREATE TRIGGER on_consumption AFTER INSERT ON record
WHEN new.kind = 'cycle_closed' AND json_type(new.body, '$.materials') = 'array' BEGIN
  INSERT OR REPLACE INTO consumption
    SELECT new.agent, json_extract(new.body, '$.cycle'), m.key, json_extract(m.value, '$.name'),
      json_extract(m.value, '$.lot'), json_extract(m.value, '$.package'),
      json_extract(m.value, '$.part_number'),
      json_extract(m.value, '$.certain') FROM json_each(new.body, '$.materials') m;
END;
CREATE TRIGGER on_completeness AFTER INSERT ON record
WHEN new.kind = 'cycle_closed' AND json_extract(new.body, '$.completeness') IS NOT NULL BEGIN
  INSERT OR IGNORE INTO cycle (agent, cycle, state) VALUES (new.agent, json_extract(new.body, '$.cycle'), 'unknown');
  UPDATE cycle SET completeness = json_extract(new.body, '$.completeness')
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle');
END;
CREATE TRIGGER on_attempt AFTER INSERT ON record
WHEN new.kind = 'binding' AND json_type(new.body, '$.attempt') IS NOT NULL BEGIN
  INSERT OR IGNORE INTO cycle (agent, cycle, state) VALUES (new.agent, json_extract(new.body, '$.cycle'), 'unknown');
  UPDATE cycle SET attempt_seq = new.seq, bound_attempt = json_extract(new.body, '$.attempt'),
      attempt = json_extract(new.body, '$.attempt')
    WHERE agent = new.agent AND cycle = json_extract(new.body, '$.cycle') AND attempt_seq < new.seq;
END;
CREATE TRIGGER on_attempt_kept AFTER UPDATE OF attempt ON cycle
WHEN new.attempt_seq > 0 AND new.attempt IS NOT new.bound_attempt BEGIN
  UPDATE cycle SET attempt = bound_attempt WHERE agent = new.agent AND cycle = new.cycle;
END;
CREATE TRIGGER on_material AFTER INSERT ON record WHEN new.kind = 'material' BEGIN
  INSERT OR IGNORE INTO material
    SELECT new.agent, json_extract(b, '$.material'), new.source, json_extract(b, '$.op'), json_extract(b, '$.name'),
      json_extract(b, '$.lot'), json_extract(b, '$.package'),
      json_extract(b, '$.part_number'), json_extract(b, '$.supplier'), json_extract(b, '$.quantity'),
      json_extract(b, '$.expiry'), new.at_ns, new.seq
    FROM (SELECT new.body AS b);
END;
CREATE TRIGGER on_hold_ack AFTER INSERT ON record
WHEN new.kind = 'hold_ack' AND json_extract(new.body, '$.state') = 'applied' BEGIN
  INSERT INTO hold
    SELECT new.agent, coalesce(json_extract(b, '$.hold'), json_extract(b, '$.verdict_id')),
      json_extract(b, '$.subject.kind'),
      json_extract(b, '$.subject.value'), json_extract(b, '$.action'),
      iif(json_extract(b, '$.action') = 'release', 'released', 'open'),
      json_extract(b, '$.source'), json_extract(b, '$.text'), new.at_ns, new.seq
    FROM (SELECT new.body AS b) WHERE TRUE
    ON CONFLICT DO UPDATE SET action = excluded.action, state = excluded.state, source = excluded.source,
      text = coalesce(excluded.text, text), at_ns = excluded.at_ns, seq = excluded.seq WHERE excluded.seq > seq;
END;
CREATE TRIGGER on_unit_status AFTER INSERT ON record WHEN new.kind = 'unit_status' BEGIN
  INSERT INTO unit_status
    SELECT new.agent, json_extract(b, '$.serial'), json_extract(b, '$.step'), json_extract(b, '$.said_by'),
      json_extract(b, '$.result'), json_extract(b, '$.complete'), json_extract(b, '$.attempt'),
      CAST(json_extract(b, '$.status_at_ns') AS INTEGER), json_extract(b, '$.state'), new.at_ns, new.seq
    FROM (SELECT new.body AS b) WHERE TRUE
    ON CONFLICT DO UPDATE SET result = excluded.result, complete = excluded.complete, attempt = excluded.attempt,
      status_at_ns = excluded.status_at_ns, state = excluded.state, at_ns = excluded.at_ns, seq = excluded.seq
    WHERE (coalesce(excluded.status_at_ns, excluded.at_ns), excluded.seq) > (coalesce(status_at_ns, at_ns), seq);
END;
CREATE TRIGGER on_finding AFTER INSERT ON record WHEN new.kind = 'finding' BEGIN
  INSERT INTO line_finding (agent, finding, code, severity, text, source, cycle, position, serial, at_ns)
    SELECT new.agent, json_extract(b, '$.finding'), json_extract(b, '$.code'), json_extract(b, '$.severity'),
      json_extract(b, '$.text'), new.source, json_extract(b, '$.cycle'),
      json_extract(b, '$.position'), json_extract(b, '$.serial'), new.at_ns
    FROM (SELECT new.body AS b) WHERE json_extract(b, '$.finding') IS NOT NULL
    ON CONFLICT DO UPDATE SET code = excluded.code, severity = excluded.severity, text = excluded.text,
      source = excluded.source, cycle = excluded.cycle, position = excluded.position, serial = excluded.serial,
      at_ns = excluded.at_ns;
END;
CREATE TRIGGER on_finding_ack AFTER INSERT ON record
WHEN new.kind = 'audit' AND json_extract(new.body, '$.action') = 'finding_ack' BEGIN
  INSERT INTO line_finding (agent, finding, acknowledged_at_ns, acknowledged_by, acknowledged_reason)
    SELECT new.agent, json_extract(b, '$.new.finding'), new.at_ns, json_extract(b, '$.who'),
      json_extract(b, '$.reason')
    FROM (SELECT new.body AS b) WHERE json_extract(b, '$.new.finding') IS NOT NULL
    ON CONFLICT DO UPDATE SET acknowledged_at_ns = excluded.acknowledged_at_ns,
      acknowledged_by = excluded.acknowledged_by, acknowledged_reason = excluded.acknowledged_reason;
END;
"""

POSTGRES: LiteralString = """
CREATE FUNCTION on_genealogy() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE b json := new.body;
BEGIN
  INSERT INTO genealogy AS there VALUES (new.agent, b ->> 'parent', b ->> 'child', b ->> 'parent_serial',
      b ->> 'child_serial', b ->> 'name', b ->> 'cycle', new.at_ns,
      CASE WHEN b ->> 'op' = 'uninstall' THEN new.at_ns END, b ->> 'reason', new.seq)
    ON CONFLICT (agent, parent, child) DO UPDATE SET name = excluded.name,
      cycle = coalesce(excluded.cycle, there.cycle),
      at_ns = CASE WHEN excluded.removed_at_ns IS NULL THEN excluded.at_ns ELSE there.at_ns END,
      removed_at_ns = excluded.removed_at_ns, reason = excluded.reason, seq = excluded.seq
    WHERE excluded.seq > there.seq;
  RETURN NULL;
END $$;
CREATE FUNCTION on_consumption() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF json_typeof(new.body -> 'materials') = 'array' THEN
    INSERT INTO consumption SELECT new.agent, new.body ->> 'cycle', m.nr - 1, m.value ->> 'name', m.value ->> 'lot',
        m.value ->> 'package', m.value ->> 'part_number', (m.value ->> 'certain')::boolean
      FROM json_array_elements(new.body -> 'materials') WITH ORDINALITY AS m (value, nr) ON CONFLICT DO NOTHING;
  END IF;
  IF new.body ->> 'completeness' IS NOT NULL THEN
    INSERT INTO cycle (agent, cycle, state) VALUES (new.agent, new.body ->> 'cycle', 'unknown') ON CONFLICT DO NOTHING;
    UPDATE cycle SET completeness = new.body ->> 'completeness'
      WHERE agent = new.agent AND cycle = new.body ->> 'cycle';
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION on_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO cycle (agent, cycle, state) VALUES (new.agent, new.body ->> 'cycle', 'unknown') ON CONFLICT DO NOTHING;
  UPDATE cycle SET attempt_seq = new.seq, bound_attempt = (new.body ->> 'attempt')::int
    WHERE agent = new.agent AND cycle = new.body ->> 'cycle' AND attempt_seq < new.seq;
  RETURN NULL;
END $$;
CREATE FUNCTION on_attempt_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  new.attempt := new.bound_attempt;
  RETURN new;
END $$;
CREATE FUNCTION on_material() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE b json := new.body;
BEGIN
  INSERT INTO material VALUES (new.agent, b ->> 'material', new.source, b ->> 'op', b ->> 'name', b ->> 'lot',
      b ->> 'package', b ->> 'part_number', b ->> 'supplier', (b ->> 'quantity')::float8, b ->> 'expiry', new.at_ns,
      new.seq) ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE FUNCTION on_hold_ack() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE b json := new.body;
BEGIN
  INSERT INTO hold AS there VALUES (new.agent, coalesce(b ->> 'hold', b ->> 'verdict_id'), b #>> '{subject,kind}',
      b #>> '{subject,value}', b ->> 'action',
      CASE WHEN b ->> 'action' = 'release' THEN 'released' ELSE 'open' END, b ->> 'source', b ->> 'text', new.at_ns,
      new.seq)
    ON CONFLICT (agent, hold, subject_kind, subject) DO UPDATE SET action = excluded.action, state = excluded.state,
      source = excluded.source, text = coalesce(excluded.text, there.text), at_ns = excluded.at_ns, seq = excluded.seq
    WHERE excluded.seq > there.seq;
  RETURN NULL;
END $$;
CREATE FUNCTION on_unit_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE b json := new.body;
BEGIN
  INSERT INTO unit_status AS there VALUES (new.agent, b ->> 'serial', b ->> 'step', b ->> 'said_by', b ->> 'result',
      (b ->> 'complete')::boolean, (b ->> 'attempt')::int, (b ->> 'status_at_ns')::bigint, b ->> 'state', new.at_ns,
      new.seq)
    ON CONFLICT (agent, serial, step, said_by) DO UPDATE SET result = excluded.result, complete = excluded.complete,
      attempt = excluded.attempt, status_at_ns = excluded.status_at_ns, state = excluded.state,
      at_ns = excluded.at_ns, seq = excluded.seq
    WHERE (coalesce(excluded.status_at_ns, excluded.at_ns), excluded.seq)
        > (coalesce(there.status_at_ns, there.at_ns), there.seq);
  RETURN NULL;
END $$;
CREATE FUNCTION on_finding() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE b json := new.body;
BEGIN
  IF b ->> 'finding' IS NULL THEN RETURN NULL; END IF;
  INSERT INTO line_finding (agent, finding, code, severity, text, source, cycle, position, serial, at_ns)
    VALUES (new.agent, b ->> 'finding', b ->> 'code', b ->> 'severity', b ->> 'text', new.source, b ->> 'cycle',
      (b ->> 'position')::int, b ->> 'serial', new.at_ns)
    ON CONFLICT (agent, finding) DO UPDATE SET code = excluded.code, severity = excluded.severity,
      text = excluded.text, source = excluded.source, cycle = excluded.cycle, position = excluded.position,
      serial = excluded.serial, at_ns = excluded.at_ns;
  RETURN NULL;
END $$;
CREATE FUNCTION on_finding_ack() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE about text := new.body #>> '{new,finding}';
BEGIN
  IF about IS NULL THEN RETURN NULL; END IF;
  INSERT INTO line_finding (agent, finding, acknowledged_at_ns, acknowledged_by, acknowledged_reason)
    VALUES (new.agent, about, new.at_ns, new.body ->> 'who', new.body ->> 'reason')
    ON CONFLICT (agent, finding) DO UPDATE SET acknowledged_at_ns = excluded.acknowledged_at_ns,
      acknowledged_by = excluded.acknowledged_by, acknowledged_reason = excluded.acknowledged_reason;
  RETURN NULL;
END $$;
CREATE TRIGGER on_genealogy AFTER INSERT ON record FOR EACH ROW WHEN (new.kind = 'genealogy')
  EXECUTE FUNCTION on_genealogy();
CREATE TRIGGER on_consumption AFTER INSERT ON record FOR EACH ROW WHEN (new.kind = 'cycle_closed')
  EXECUTE FUNCTION on_consumption();
CREATE TRIGGER on_attempt AFTER INSERT ON record FOR EACH ROW
  WHEN (new.kind = 'binding' AND new.body -> 'attempt' IS NOT NULL) EXECUTE FUNCTION on_attempt();
CREATE TRIGGER on_attempt_kept BEFORE UPDATE ON cycle FOR EACH ROW WHEN (new.attempt_seq > 0)
  EXECUTE FUNCTION on_attempt_kept();
CREATE TRIGGER on_material AFTER INSERT ON record FOR EACH ROW WHEN (new.kind = 'material')
  EXECUTE FUNCTION on_material();
CREATE TRIGGER on_hold_ack AFTER INSERT ON record FOR EACH ROW
  WHEN (new.kind = 'hold_ack' AND new.body ->> 'state' = 'applied') EXECUTE FUNCTION on_hold_ack();
CREATE TRIGGER on_unit_status AFTER INSERT ON record FOR EACH ROW WHEN (new.kind = 'unit_status')
  EXECUTE FUNCTION on_unit_status();
CREATE TRIGGER on_finding AFTER INSERT ON record FOR EACH ROW WHEN (new.kind = 'finding')
  EXECUTE FUNCTION on_finding();
CREATE TRIGGER on_finding_ack AFTER INSERT ON record FOR EACH ROW
  WHEN (new.kind = 'audit' AND new.body ->> 'action' = 'finding_ack') EXECUTE FUNCTION on_finding_ack();
CREATE OR REPLACE VIEW cycle_current AS SELECT * FROM cycle WHERE state <> 'unknown';
"""

_WANTED: LiteralString = """
kind IN ('material', 'genealogy', 'hold_ack', 'unit_status', 'finding', 'audit')
"""
AGAIN_SQLITE: LiteralString = f"""
CREATE TEMP TABLE again AS SELECT * FROM record WHERE {_WANTED}
  OR (kind = 'cycle_closed' AND (body LIKE '%"materials"%' OR body LIKE '%"completeness"%'));
DELETE FROM record WHERE rowid IN (SELECT r.rowid FROM temp.again a JOIN record r USING (agent, log, seq));
INSERT INTO record SELECT * FROM temp.again;
DROP TABLE temp.again;
"""
AGAIN_POSTGRES: LiteralString = f"""
CREATE TEMP TABLE again ON COMMIT DROP AS SELECT * FROM record WHERE {_WANTED}
  OR (kind = 'cycle_closed' AND (body -> 'materials' IS NOT NULL OR body -> 'completeness' IS NOT NULL));
DELETE FROM record r USING again a WHERE r.agent = a.agent AND r.log = a.log AND r.seq = a.seq;
INSERT INTO record SELECT * FROM again;
"""
