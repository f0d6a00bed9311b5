"""What outlives the records, but not for ever: the registry, lanes, logs. Some milliseconds a call.

A closed cycle goes, with its windows, bindings, materials and findings, when it ended longer ago than ``keep_units``
and none of its records is left; its unit with its last cycle. What is built into a unit stays, with its cycles, as long
as that has one; an install goes with the later of its two units. What was loaded, others' status, the gate's decisions,
verdicts and released holds go by age; open holds and active loads never, nor a source's last verdict, nor those of a
subject that has holds.

A lane goes when it is finished and none of its records is left, a replay as soon as it is finished, a log when nothing
of it is left. What a detached route was to be given once more ends: its receiver is gone, and it had it once; dead
letters that it was to be given once more are dead again. The numbers that name streams never come back: the newest lane
of a route in a log stays as long as the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent import clock
from edge_agent.buffer import holes
from edge_agent.buffer.lanes import UNFINISHED
from edge_agent.buffer.registry import DEPTH

SLICE = 50  # cycles or findings a call, of
LOOK = 200  # the oldest: they are in the order of seq, which is nearly that of time
ROWS = 500  # holes, or picks, a call


@dataclass(slots=True)
class Sweep:
    """How far the old cycles were looked through: those that have to stay are not to hide what is behind them."""

    after_seq: int = 0


def tidy(db: sqlite3.Connection, cutoff_ns: int, sweep: Sweep | None = None) -> bool:
    """Delete one slice of what ended before ``cutoff_ns``. False when nothing is left to do."""
    oldest, sweep = _oldest(db), sweep or Sweep()
    before = sweep.after_seq
    gone = _cycles(db, oldest, cutoff_ns, sweep) + _findings(db, oldest, cutoff_ns)
    gone += sum(db.execute(sql, (oldest, cutoff_ns, SLICE)).rowcount for sql in _AGED)
    return gone > 0 or sweep.after_seq > before


def tidy_lanes(db: sqlite3.Connection) -> bool:
    """Delete one slice of what no route needs any more: no clock is asked. False when nothing is left to do."""
    oldest = _oldest(db)
    _end(db)
    for table in ("hole", "pick"):
        if _behind(db, table):
            return True
    newest = "SELECT max(id) FROM lane WHERE purpose = 'log' GROUP BY route UNION ALL SELECT max(id) FROM lane"
    in_log = "SELECT max(l.id) FROM lane l JOIN log g ON g.id = l.log WHERE l.purpose = 'log' GROUP BY l.route, l.log"
    db.execute(
        "DELETE FROM lane WHERE to_seq IS NOT NULL AND seq >= to_seq AND (to_seq < ? OR purpose <> 'log')"
        f" AND id NOT IN ({newest})"
        " AND NOT EXISTS (SELECT 1 FROM dead_letter WHERE lane = lane.id)"
        f" AND (id NOT IN ({in_log}) OR to_seq < (SELECT coalesce(max(first_seq), 0) FROM log WHERE first_seq <= ?))",
        (oldest, oldest),
    )
    db.execute(
        "DELETE FROM log WHERE id NOT IN (SELECT log FROM lane) AND first_seq < (SELECT max(first_seq) FROM log"
        " WHERE first_seq <= ?)",
        (oldest,),
    )
    return False


def _oldest(db: sqlite3.Connection) -> int:
    """The oldest record, but for what only describes others and so stays longer."""
    sql = f"SELECT seq FROM record WHERE kind NOT IN {holes.DESCRIBING} ORDER BY seq LIMIT 1"
    (seq,) = db.execute(sql).fetchone() or (0,)
    return int(seq)


def trust_letters(db: sqlite3.Connection, letters: Sequence[tuple[int, int]]) -> None:
    """Date dead letters of an untrusted clock today: their time begins with the first one that is trusted."""
    now_ns = clock.now().at_ns
    db.executemany(f"UPDATE dead_letter SET at_ns = {now_ns}, synced = 1 WHERE lane = ? AND n = ?", letters)


def _end(db: sqlite3.Connection) -> None:
    """Finish what a detached route was to be given once more, and lanes of which only holes are left."""
    sql = (
        "SELECT l.id, l.seq, l.to_seq, l.purpose FROM lane l LEFT JOIN route r ON r.name = l.route"
        f" WHERE {UNFINISHED} AND to_seq IS NOT NULL AND NOT coalesce(r.attached, 0)"
    )
    for lane, seq, to_seq, purpose in db.execute(sql).fetchall():
        if purpose == "retry":  # it never had them: they are dead letters as before
            letters = "UPDATE dead_letter SET retried_at_ns = NULL WHERE route = (SELECT route FROM lane WHERE id = ?1)"
            db.execute(f"{letters} AND seq IN (SELECT seq FROM pick WHERE lane = ?1 AND seq > ?2)", (lane, seq))
        if purpose != "log" or holes.done(db, lane, seq) >= to_seq:
            db.execute("UPDATE lane SET seq = to_seq WHERE id = ?", (lane,))


def _behind(db: sqlite3.Connection, table: str) -> bool:
    """Delete one slice of holes, or picks, that their lane's cursor has passed."""
    at = "last_seq" if table == "hole" else "seq"
    for lane, seq in db.execute("SELECT id, seq FROM lane").fetchall():
        sql = f"DELETE FROM {table} WHERE lane = ?1 AND {at} IN"
        sql += f" (SELECT {at} FROM {table} WHERE lane = ?1 AND {at} <= ?2 ORDER BY {at} LIMIT ?3)"
        if db.execute(sql, (lane, seq, ROWS)).rowcount:
            return True
    return False


_AGED = (
    "DELETE FROM material_load WHERE seq IN (SELECT seq FROM material_load WHERE seq < ?1 AND at_ns < ?2"
    " AND ended_seq IS NOT NULL ORDER BY seq LIMIT ?3)",
    "DELETE FROM unit_status WHERE (serial, step, said_by) IN (SELECT serial, step, said_by FROM unit_status"
    " WHERE seq < ?1 AND at_ns < ?2 ORDER BY seq LIMIT ?3)",
    "DELETE FROM gate WHERE gate IN (SELECT gate FROM gate WHERE seq < ?1 AND at_ns < ?2 ORDER BY seq LIMIT ?3)",
    "DELETE FROM hold WHERE (hold, subject_kind, subject) IN (SELECT hold, subject_kind, subject FROM hold"
    " WHERE seq < ?1 AND at_ns < ?2 AND state <> 'open' LIMIT ?3)",
    "DELETE FROM verdict WHERE verdict_id IN (SELECT verdict_id FROM verdict v WHERE seq < ?1 AND at_ns < ?2"
    " AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.subject = v.subject AND h.subject_kind = v.subject_kind)"
    " AND coalesce(decision_seq < (SELECT max(decision_seq) FROM verdict WHERE source = v.source), TRUE)"
    " ORDER BY seq LIMIT ?3)",
)
"""What goes by its age alone; ?1 the oldest record, ?2 the cutoff, ?3 how many."""

_BUILT_IN = f"""
WITH RECURSIVE above(unit, depth) AS (
  SELECT ?1, 0
  UNION SELECT g.parent, a.depth + 1 FROM above a CROSS JOIN genealogy g ON g.child = a.unit
  WHERE g.removed_seq IS NULL AND a.depth < {DEPTH}
)
SELECT 1 FROM above a CROSS JOIN cycle c ON c.unit = a.unit WHERE a.unit <> ?1 LIMIT 1
"""


def _cycles(db: sqlite3.Connection, oldest: int, cutoff_ns: int, sweep: Sweep) -> int:
    sql = (
        "SELECT seq, cycle, unit, state = 'closed' AND ended_at_ns < ?1, EXISTS"
        " (SELECT 1 FROM cycle_window w WHERE w.cycle = c.cycle AND w.last_seq >= ?2)"  # its samples may be pending yet
        " FROM cycle c WHERE seq < ?2 AND seq > ?4 ORDER BY seq LIMIT ?3"
    )
    looked_at = db.execute(sql, (cutoff_ns, oldest, LOOK, sweep.after_seq)).fetchall()
    done = 0
    for seq, cycle, unit, is_old, is_wanted in looked_at:
        if not is_old or is_wanted:
            continue
        if done == SLICE:
            return done
        if unit is not None and db.execute(_BUILT_IN, (unit,)).fetchone():
            sweep.after_seq = seq
            continue
        done += 1
        for table in ("cycle_window", "binding", "consumption", "finding", "cycle"):
            db.execute(f"DELETE FROM {table} WHERE cycle = ?", (cycle,))
        if unit is not None:
            _forget(db, unit)
    if not any(is_old for _, _, _, is_old, _ in looked_at):
        sweep.after_seq = 0  # what is behind is younger still; the next sweep looks again
    return done


def _forget(db: sqlite3.Connection, unit: str) -> None:
    """A unit goes with its last cycle, and what was built into it and never had one."""
    waiting = [unit]
    while waiting:
        unit = waiting.pop()
        if db.execute("SELECT 1 FROM binding WHERE unit = ? LIMIT 1", (unit,)).fetchone():
            continue
        if db.execute(_BUILT_IN, (unit,)).fetchone():
            continue
        db.execute("DELETE FROM identifier WHERE unit = ?", (unit,))
        if not db.execute("DELETE FROM unit WHERE unit = ?", (unit,)).rowcount:
            continue  # a circle in the data
        waiting += [child for (child,) in db.execute("SELECT child FROM genealogy WHERE parent = ?", (unit,))]
        for end, other in (("parent", "child"), ("child", "parent")):
            sql = f"DELETE FROM genealogy WHERE {end} = ? AND NOT EXISTS (SELECT 1 FROM unit u WHERE u.unit = {other})"
            db.execute(sql, (unit,))


def _findings(db: sqlite3.Connection, oldest: int, cutoff_ns: int) -> int:
    """Those of no cycle; the others go with theirs."""
    sql = "SELECT finding, cycle IS NULL AND at_ns < ? FROM finding WHERE seq < ? ORDER BY seq LIMIT ?"
    looked_at = db.execute(sql, (cutoff_ns, oldest, LOOK)).fetchall()
    old = [(finding,) for finding, is_old in looked_at if is_old][:SLICE]
    db.executemany("DELETE FROM finding WHERE finding = ?", old)
    return len(old)
