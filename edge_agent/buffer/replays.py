"""Lanes beside the log's own: a range once more, dead letters once more, a growing lane cut in two, a route renamed.

A *replay* is a lane over a range that is (partly) done; a *retry* holds only its picks, whatever the route's filter
says by now, since they passed it once. Each has a stream of its own, so a number never stands for two records. What
of the range is no longer kept is a hole of one number that names it. Before it comes what the log says of itself at
its beginning, the config and the tagsets: whoever asks may never have seen them. An unfinished replay holds its
records like any lane does.

A *split* ends the growing lane at the durable head: what is pending there drains beside its successor, which begins
with whatever comes next. Everything here runs on the writer's thread, inside its transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import orjson

from edge_agent import clock
from edge_agent.buffer.holes import DESCRIBING, without
from edge_agent.buffer.lanes import UNFINISHED, WITHHELD, Lane, RouteFilter, insert, lane
from edge_agent.model import Kind

Range = tuple[int, int]
"""An inclusive range of seq."""

BEGINNING = 5000  # records: behind its first one a log tells the config and every tagset
ASKED_OPEN = 4  # ranges that receivers asked for: so many of a route at once

_EVERYTHING = RouteFilter(frozenset(Kind)).columns()


def replay(
    db: sqlite3.Connection,
    route: str,
    purpose: str,
    span: Range,
    seqs: Sequence[int] | None,
    request: str | None,
    log: str | None,
) -> list[Lane]:
    """See ``Buffer.replay``; ``span`` ends at the durable head at most. Raises LookupError, before it writes."""
    row = db.execute("SELECT kinds, stations FROM route WHERE name = ? AND attached", (route,)).fetchone()
    if row is None:
        raise LookupError(f"no route is named {route}")
    parts = [(id, boot, first, last) for id, boot, first, last in _logs(db, span) if log in (None, id)]
    if log is not None and not parts:
        raise LookupError(f"nothing of seq {span[0]}-{span[1]} is in log {log}")
    if request is not None and _waits(db, route, request):
        return []
    _forget(db, route)
    made = []
    for id, boot, first, last in parts:
        if purpose == "retry":
            wanted = sorted({seq for seq in seqs or () if first <= seq <= last})
            if not wanted:
                continue
            made.append(insert(db, route, id, boot, wanted[0], wanted[-1], _EVERYTHING, purpose, request))
            _pick(db, made[-1], route, wanted)
        else:
            before = _describing(db, id, first, row[0])
            made.append(insert(db, route, id, boot, min([first, *before]), last, row, purpose, request))
            _skip(db, made[-1], before, first)
            _holes(db, made[-1], missing(db, first, last))
    return [lane(db, id) for id in made]


def _waits(db: sqlite3.Connection, route: str, request: str) -> bool:
    """Whether a request waits for its range to be salvaged: its route does not know of it.

    Raises LookupError if as many do as may be open.
    """
    sql = f"SELECT request FROM lane WHERE route = ? AND request IS NOT NULL AND {UNFINISHED} AND {WITHHELD}"
    asked = {id for (id,) in db.execute(sql, (route,))}
    if request not in asked and len(asked) >= ASKED_OPEN:
        raise LookupError(f"{ASKED_OPEN} ranges wait to be salvaged already")
    return request in asked


def _forget(db: sqlite3.Connection, route: str) -> None:
    """Let earlier replays that are done go: who asks and asks shall not fill the file."""
    sql = (
        "SELECT id FROM lane WHERE route = ? AND purpose <> 'log' AND seq >= to_seq"
        " AND id NOT IN (SELECT lane FROM dead_letter) AND id < (SELECT max(id) FROM lane)"
    )
    for (id,) in db.execute(sql, (route,)).fetchall():
        for table, column in (("hole", "lane"), ("pick", "lane"), ("lane", "id")):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (id,))


def _logs(db: sqlite3.Connection, span: Range) -> list[tuple[str, str, int, int]]:
    """(log, boot, first, last) of the parts that ``span`` has in each log, oldest first."""
    logs = db.execute("SELECT id, boot, first_seq FROM log ORDER BY first_seq").fetchall()
    ends = [first - 1 for _, _, first in logs[1:]] + [span[1]]
    cut = [
        (id, boot, max(first, span[0]), min(end, span[1])) for (id, boot, first), end in zip(logs, ends, strict=True)
    ]
    return [part for part in cut if part[2] <= part[3]]


def missing(db: sqlite3.Connection, first: int, last: int) -> list[Range]:
    """The ranges of [first, last] that no record has: deleted, or never stored."""
    sql = "SELECT max(first_seq, ?1), min(last_seq, ?2) FROM gap WHERE first_seq <= ?2 AND last_seq >= ?1"
    sql += " AND reason <> 'salvage' ORDER BY 1"  # what is being salvaged is not lost: the lane waits for it
    found = [(int(start), int(end)) for start, end in db.execute(sql, (first, last))]
    joined: list[Range] = []
    for start, end in found:
        if joined and joined[-1][1] == start - 1:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _describing(db: sqlite3.Connection, log: str, first: int, kinds: str) -> list[int]:
    """What the log says of itself at its beginning and a replay from ``first`` on would lack, if the route sends it."""
    if int(Kind.TAGSET) not in orjson.loads(kinds):
        return []
    sql = (
        "SELECT r.seq FROM log JOIN record r ON r.seq BETWEEN first_seq AND min(first_seq + ?, ?)"
        f" WHERE id = ? AND kind IN {DESCRIBING} ORDER BY r.seq"
    )
    return [seq for (seq,) in db.execute(sql, (BEGINNING, first - 1, log))]


def _skip(db: sqlite3.Connection, lane: int, seqs: Sequence[int], first: int) -> None:
    """Let a lane go on at ``first`` after ``seqs``: what lies between is in holes that count nothing."""
    if not seqs:
        return
    between = without((seqs[0], first - 1), [(seq, seq) for seq in seqs])
    rows = [(lane, start, end, "not asked for") for start, end in between]
    db.executemany("INSERT INTO hole (lane, first_seq, last_seq, count, reason) VALUES (?, ?, ?, 0, ?)", rows)
    db.execute("UPDATE lane SET total = ?, total_seq = ? WHERE id = ?", (len(seqs), first - 1, lane))


def _holes(db: sqlite3.Connection, lane: int, ranges: Iterable[Range]) -> None:
    rows = [(lane, first, last, f"seq {first}-{last} is no longer kept") for first, last in ranges]
    db.executemany("INSERT INTO hole (lane, first_seq, last_seq, count, reason) VALUES (?, ?, ?, 1, ?)", rows)


def _pick(db: sqlite3.Connection, lane: int, route: str, wanted: Sequence[int]) -> None:
    """The picks of a retry lane, exactly counted; they are noted as retried."""
    kept = {seq for seq in wanted if db.execute("SELECT 1 FROM record WHERE seq = ?", (seq,)).fetchone()}
    db.executemany("INSERT INTO pick (lane, seq) VALUES (?, ?)", [(lane, seq) for seq in sorted(kept)])
    gone = [seq for seq in wanted if seq not in kept]
    _holes(db, lane, [(seq, seq) for seq in gone])
    now_ns = clock.now().at_ns
    db.executemany(
        "UPDATE dead_letter SET retried_at_ns = ? WHERE route = ? AND seq = ? AND lane <> ?",
        [(now_ns, route, seq, lane) for seq in wanted],
    )
    db.execute("UPDATE lane SET total = ?, total_seq = to_seq WHERE id = ?", (len(wanted), lane))


def split(db: sqlite3.Connection, id: int, total: int, head_seq: int, least: int) -> Lane | None:
    """Cut a growing lane at ``head_seq``, if at least ``least`` records of its ``total`` are pending; the new one."""
    sql = "SELECT route, log, boot, seq, n, kinds, stations FROM lane WHERE id = ? AND to_seq IS NULL"
    row = db.execute(sql, (id,)).fetchone()
    if row is None or total - row[4] < least or row[3] >= head_seq:
        return None
    route, log, boot, _, _, *columns = row
    db.execute("UPDATE lane SET to_seq = ?1, total = ?2, total_seq = ?1 WHERE id = ?3", (head_seq, total, id))
    return lane(db, insert(db, route, log, boot, head_seq + 1, None, (columns[0], columns[1])))


def can_rename(db: sqlite3.Connection, old: str, new: str) -> bool:
    """``new`` was never seen and ``old`` was."""
    known = {name for (name,) in db.execute("SELECT name FROM route WHERE name IN (?, ?)", (old, new))}
    return known == {old}


def rename(db: sqlite3.Connection, old: str, new: str) -> None:
    """Give a route another name; its lanes go on, in streams of that name, which no lane of it ever had."""
    if not can_rename(db, old, new):
        return
    taken = dict(db.execute("SELECT log, max(number) FROM lane WHERE route = ? GROUP BY log", (new,)).fetchall())
    for id, log, number in db.execute("SELECT id, log, number FROM lane WHERE route = ?", (old,)).fetchall():
        number += max(0, taken.get(log, 0)) if number > 0 else 0
        db.execute("UPDATE lane SET route = ?, number = ? WHERE id = ?", (new, number, id))
    db.execute("UPDATE dead_letter SET route = ? WHERE route = ?", (new, old))
    db.execute("UPDATE route SET name = ? WHERE name = ?", (new, old))


def pending(db: sqlite3.Connection, route: str, head_seq: int, totals: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Records that are not done, by lane id; the span of seq where they are not counted yet."""
    sql = f"SELECT id, seq, n, coalesce(to_seq, ?), total, total_seq FROM lane WHERE route = ? AND {UNFINISHED}"
    found = {}
    for id, seq, n, end, *counted in db.execute(sql, (head_seq, route)):
        total, total_seq = totals.get(id, counted)
        left = end - seq if total_seq < seq else total - n + end - total_seq
        found[id] = max(0, min(left, end - seq))
    return found
