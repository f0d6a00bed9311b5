"""The registry's own retention: it outlives the records, but not for ever. Some milliseconds a call.

A closed cycle goes, with its windows, bindings and findings, when it ended longer ago than ``keep_units`` and none of
its records is left; its unit with its last cycle. Lanes and logs go when nothing of theirs is left.
"""

from __future__ import annotations

import sqlite3

SLICE = 100  # cycles, or findings, a call


def tidy(db: sqlite3.Connection, cutoff_ns: int) -> bool:
    """Delete one slice of what ended before ``cutoff_ns``. False when nothing is left to do."""
    (oldest,) = db.execute("SELECT coalesce(min(seq), 0) FROM record").fetchone()
    _lanes(db, oldest)
    return _cycles(db, oldest, cutoff_ns) + _findings(db, oldest, cutoff_ns) > 0


def _lanes(db: sqlite3.Connection, oldest: int) -> None:
    """Holes behind the cursors; finished lanes (but each route's newest) and logs without records."""
    db.execute("DELETE FROM hole WHERE last_seq <= (SELECT seq FROM lane WHERE id = hole.lane)")
    db.execute(
        "DELETE FROM lane WHERE to_seq < ? AND seq >= to_seq AND id NOT IN (SELECT max(id) FROM lane GROUP BY route)"
        " AND id NOT IN (SELECT lane FROM dead_letter)",
        (oldest,),
    )
    db.execute(
        "DELETE FROM log WHERE id NOT IN (SELECT log FROM lane) AND first_seq < (SELECT max(first_seq) FROM log"
        " WHERE first_seq <= ?)",
        (oldest,),
    )


def _cycles(db: sqlite3.Connection, oldest: int, cutoff_ns: int) -> int:
    sql = "SELECT cycle, unit FROM cycle WHERE seq < ? AND state = 'closed' AND ended_at_ns < ? ORDER BY seq LIMIT ?"
    cycles = db.execute(sql, (oldest, cutoff_ns, SLICE)).fetchall()
    for cycle, unit in cycles:
        for table in ("cycle_window", "binding", "finding", "cycle"):
            db.execute(f"DELETE FROM {table} WHERE cycle = ?", (cycle,))
        if unit is None or db.execute("SELECT 1 FROM binding WHERE unit = ? LIMIT 1", (unit,)).fetchone():
            continue
        db.execute("DELETE FROM identifier WHERE unit = ?", (unit,))
        db.execute("DELETE FROM unit WHERE unit = ?", (unit,))
    return len(cycles)


def _findings(db: sqlite3.Connection, oldest: int, cutoff_ns: int) -> int:
    return db.execute(
        "DELETE FROM finding WHERE finding IN (SELECT finding FROM finding WHERE seq < ? AND at_ns < ?"
        " AND cycle IS NULL ORDER BY seq LIMIT ?)",
        (oldest, cutoff_ns, SLICE),
    ).rowcount
