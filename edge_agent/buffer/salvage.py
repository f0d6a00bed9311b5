"""Taking over what a database that was set aside still holds, while the agent runs on a new one.

::

    open:  begin()   one transaction: what a start needs (logs, routes, lanes, counters, open cycles), the witness's
                     knowledge, and a gap [1, bound] with reason ``salvage``: not here yet, not lost either
    run:   registry  every table in slices, by key; what the new run wrote wins
           records   what some lane still wants, upwards; then what was delivered, downwards, as far as ``keep`` and
                     ``max_size`` allow
    end:   a drop record for each lost range, a finding with the counts, the mark taken away

Reading and checking happen on a worker thread, inserting is a chore of the writer's, some ms each. A slice shrinks the
``salvage`` gap, stores its rows and names what is missing in one transaction: that gap *is* the progress, and a kill
goes on from it. A lane is withheld from its route while such a gap reaches into it, and renumbered before it is given
out if records of it are gone (numbers in use may have stood for those).

The registry of a large file takes minutes. So the binder's questions are answered from the old file as well until it
is here (``Former``), and what a new fact is about is taken over just before (``take``): no unit becomes a second one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from edge_agent.buffer import view
from edge_agent.buffer.chunks import complete_lane, source_names, withheld
from edge_agent.buffer.files import UNSALVAGED, sync_directory
from edge_agent.buffer.holes import Range, without
from edge_agent.buffer.ledger import GENESIS
from edge_agent.buffer.recovery import SALVAGE, Aside, Place, Row, plausible
from edge_agent.buffer.steps import step
from edge_agent.buffer.witness import Witness

SMALL = ("source", "log", "route", "lane", "station", "counter", "tagset", "tag", "claim", "hole", "pick", "doubt")
LARGE = (
    "hold", "material_load", "identifier", "unit", "cycle", "binding", "cycle_window", "genealogy", "consumption",
    "verdict", "unit_status", "gate", "dead_letter", "finding",
)  # fmt: skip
SMALL_ROWS = 20_000  # of a small table that are taken over before the start; the rest follows
OPEN_CYCLES = 10_000
OPEN = {"hold": "state = 'open'", "material_load": "ended_seq IS NULL"}  # what a start needs of these
OPEN_ROWS = 30_000
DOUBTED = "what was on hold cannot be known"
MARGIN = 1_000_000  # where the last seq cannot be known, numbering goes on so far above the last that is
FREE_ID = 1_000_000  # new rows begin here where the old ones' numbers cannot be known


@dataclass(frozen=True, slots=True)
class Head:
    """The last seq that is known to have been used, with its hash; numbering goes on above ``bound``."""

    seq: int
    hash: bytes
    bound: int


# --- before the start --------------------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, directories: Sequence[Path], seen: Witness | None) -> list[Path]:
    """Take over what a start needs from directories that are not begun yet; returns those still to be salvaged.

    One transaction; some 100 ms at most, whatever the size of the files.
    """
    execute = connection.execute
    ended = {place for (place,) in execute("SELECT place FROM salvage WHERE part = 'ended'")}
    for directory in (directory for directory in directories if directory.name in ended):
        finish(connection, [directory])
    left = [directory for directory in directories if directory.name not in ended]
    known = {place for (place,) in execute("SELECT DISTINCT place FROM salvage")}
    new = [directory for directory in left if directory.name not in known]
    if new:
        step("salvage_before_begin")
        execute("BEGIN IMMEDIATE")
        _begin(connection, [Aside(directory) for directory in reversed(new)], seen)
        execute("COMMIT")
        step("salvage_after_begin")
    return left


def _begin(connection: sqlite3.Connection, asides: Sequence[Aside], seen: Witness | None) -> None:
    execute, whole = connection.execute, True
    for aside in asides:
        for table in SMALL:
            place: Place | None = Place()
            taken = 0
            while place is not None and taken < SMALL_ROWS:
                whole = whole and (place.turn == 0 or table not in ("source", "lane"))
                more, place = copy(connection, aside, table, place, SMALL_ROWS)
                taken += more
            _store(connection, aside, table, place, taken)
        for table in LARGE:
            _store(connection, aside, table, Place(), 0)
        for (cycle,) in aside.query("SELECT cycle FROM cycle WHERE state <> 'closed' LIMIT ?", (OPEN_CYCLES,)):
            take_cycle(connection, aside, cycle)
        for table, where in OPEN.items():
            _take_where(connection, aside, f"{table} NOT INDEXED", f"{where} LIMIT {OPEN_ROWS}")
    if seen is not None:
        restore(connection, seen)
    if seen is None or not seen.knows_holds:
        doubt(connection, until_here=_is_whole(connection, asides, seen))
    if not whole:
        execute("INSERT OR IGNORE INTO source VALUES (?, 'unreadable')", (FREE_ID,))
    head = _head(connection, asides, seen)
    execute("INSERT OR REPLACE INTO salvage VALUES ('', 'head', ?, 0)", (orjson.dumps([head.seq, head.hash.hex()]),))
    (first,) = execute("SELECT min(seq) FROM record").fetchone()
    kept = execute("SELECT first_seq, last_seq FROM gap ORDER BY first_seq").fetchall()
    for start, end in without((1, head.bound if first is None else first - 1), kept):
        if start <= end:
            execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (start, end, head.hash, SALVAGE))
    for aside in asides:
        aside.close()


def _is_whole(connection: sqlite3.Connection, asides: Sequence[Aside], seen: Witness | None) -> bool:
    """The files go as far as anybody knows that they went."""
    names = source_names(connection)
    heads = [aside.head(names) for aside in asides]
    return all(sure for _, _, sure in heads) and (seen is None or seen.seq <= max(seq for seq, _, _ in heads))


def doubt(connection: sqlite3.Connection, *, until_here: bool = False) -> None:
    """It is not known what is on hold: until the registry is here, or until somebody confirms it (``tracing``)."""
    sql = "INSERT INTO doubt VALUES ('holds', ?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)"
    connection.execute(sql, (DOUBTED, 0 if until_here else 1))


def trust(connection: sqlite3.Connection) -> None:
    """The registry is here, and none of its holds was damaged."""
    connection.execute("DELETE FROM doubt WHERE what = 'holds' AND seq = 0")


def _head(connection: sqlite3.Connection, asides: Sequence[Aside], seen: Witness | None) -> Head:
    names = source_names(connection)
    found = [aside.head(names) for aside in asides]
    seq, digest = max(
        [(0, GENESIS), *((seq, digest) for seq, digest, sure in found if sure)]
        + ([(seen.seq, bytes.fromhex(seen.hash))] if seen is not None and seen.seq else [])
    )
    if all(sure for _, _, sure in found):
        return Head(seq, digest, seq)
    columns = (("lane", "seq"), ("lane", "to_seq"), ("lane", "from_seq"), ("log", "first_seq"), ("cycle", "seq"))
    sql = " UNION ALL ".join(f"SELECT max({name}) FROM {table}" for table, name in columns)
    used = [last for (last,) in connection.execute(sql) if last is not None]
    return Head(seq, digest, max([seq, *used]) + MARGIN)


def head(connection: sqlite3.Connection) -> tuple[int, bytes] | None:
    """(seq, hash) of the last record known of what was set aside; None if nothing is being salvaged."""
    row = connection.execute("SELECT state FROM salvage WHERE place = '' AND part = 'head'").fetchone()
    if row is None:
        return None
    seq, digest = orjson.loads(row[0])
    return seq, bytes.fromhex(digest)


def restore(connection: sqlite3.Connection, witness: Witness) -> None:
    """Let the database know what the witness knows, where that is more. In the caller's transaction."""
    execute = connection.execute
    for row in witness.sources:
        execute("INSERT OR IGNORE INTO source VALUES (?, ?)", row)
    for row in witness.logs:
        execute("INSERT OR IGNORE INTO log (id, first_seq, boot, agent, opened_at_ns) VALUES (?, ?, ?, ?, ?)", row)
    for row in witness.routes:
        execute("INSERT OR IGNORE INTO route VALUES (?, ?, ?, ?)", row)
    for lane in witness.lanes:
        purpose, request, id = lane[10:] or ("log", None, None)
        free = id is not None and execute("SELECT 1 FROM lane WHERE id = ?", (id,)).fetchone() is None
        execute(
            "INSERT INTO lane (route, number, log, boot, from_seq, to_seq, seq, n, kinds, stations, total, total_seq,"
            " purpose, request, id)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8, ?7, ?11, ?12, ?13)"
            " ON CONFLICT (route, log, number) DO UPDATE SET seq = max(seq, excluded.seq), n = max(n, excluded.n)",
            (*lane[:10], purpose, request, id if free else None),
        )
    for row in witness.holds:  # released since, or held again: the newer word
        execute(
            "INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " action = excluded.action, state = excluded.state, verdict_id = excluded.verdict_id,"
            " decision_seq = excluded.decision_seq, source = excluded.source, text = excluded.text,"
            " expires_at_ns = excluded.expires_at_ns, seq = excluded.seq, at_ns = excluded.at_ns"
            " WHERE excluded.seq > hold.seq",
            row,
        )
    for row in witness.counters:
        execute("INSERT OR IGNORE INTO counter VALUES (?, ?, ?, ?)", row)
    columns = {column[1] for column in execute("PRAGMA table_info(cycle)")}
    for cycle in witness.cycles:
        known = {name: value for name, value in cycle.items() if name in columns}
        marks = ", ".join("?" * len(known))
        execute(f"INSERT OR IGNORE INTO cycle ({', '.join(known)}) VALUES ({marks})", tuple(known.values()))
        if cycle.get("unit"):
            sql = "INSERT OR IGNORE INTO unit (unit, serial, seq, at_ns) VALUES (?, ?, 0, 0)"
            execute(sql, (cycle["unit"], cycle.get("serial")))


# --- the registry ------------------------------------------------------------------------------------------------


def copy(
    connection: sqlite3.Connection, aside: Aside, table: str, place: Place, limit: int
) -> tuple[int, Place | None]:
    """Take over the next rows of a table; what is there already wins. Returns the rows added and where to go on."""
    rows, after, names = read(connection, aside, table, place, limit)
    return insert(connection, table, names, rows), after


def read(
    connection: sqlite3.Connection, aside: Aside, table: str, place: Place, limit: int
) -> tuple[list[Row], Place | None, list[str]]:
    """The next believable rows of a table, where to go on, and their columns."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    keys = [column[1] for column in sorted(columns, key=lambda column: column[5]) if column[5]]
    names = aside.columns(table, [column[1] for column in columns])
    if not set(keys) <= set(names):
        return [], None, names
    types = [column[2] for column in columns if column[1] in names]
    rows, after = aside.slice(table, names, keys, place, limit)
    return [row for row in rows if plausible(row, types)], after, names


def insert(connection: sqlite3.Connection, table: str, names: Sequence[str], rows: Iterable[Row]) -> int:
    """Add what is not there yet. Of a lane that is not known, progress and dead letters stand for nothing."""
    rows = list(rows)
    if not rows:
        return 0
    marks = ", ".join("?" * len(names))
    sql = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})"
    if table in ("hole", "pick", "dead_letter"):
        ids = {id for (id,) in connection.execute("SELECT id FROM lane")}
        lane = list(names).index("lane")
        rows = [row for row in rows if row[lane] in ids]
    before = connection.total_changes
    connection.executemany(sql, rows)
    return connection.total_changes - before


def take_rows(
    db: sqlite3.Connection, aside: Aside, table: str, names: Sequence[str], rows: Iterable[Row], after: Place | None
) -> None:
    """A slice of a table, and where to go on."""
    step("salvage_slice_before")
    if table == "hold" and after is not None and after.turn:  # damage was met: what is missing may be a hold
        db.execute("UPDATE doubt SET seq = 1 WHERE what = 'holds'")
    _store(db, aside, table, after, insert(db, table, names, rows))
    step("salvage_slice_after")


def take_cycle(connection: sqlite3.Connection, aside: Aside, cycle: str) -> None:
    """A cycle with its windows, bindings and materials, and the units those name."""
    for table in ("cycle", "cycle_window", "binding", "consumption"):
        _take(connection, aside, table, "cycle", cycle)
    for (unit,) in connection.execute("SELECT unit FROM binding WHERE cycle = ? AND unit IS NOT NULL", (cycle,)):
        take_unit(connection, aside, unit)


def take_unit(connection: sqlite3.Connection, aside: Aside, unit: str) -> None:
    """A unit with its identifiers, and what is or was in it, or it in."""
    for table in ("unit", "identifier"):
        _take(connection, aside, table, "unit", unit)
    for end in ("parent", "child"):
        _take(connection, aside, "genealogy", end, unit)


def take(connection: sqlite3.Connection, aside: Aside, table: str, key: str) -> None:
    """What a new fact is about: a unit, a cycle, the rows of a hold, a finding."""
    if table == "unit":
        take_unit(connection, aside, key)
    elif table == "cycle":
        take_cycle(connection, aside, key)
    else:
        _take(connection, aside, table, table, key)


def _take(connection: sqlite3.Connection, aside: Aside, table: str, column: str, value: str) -> None:
    _take_where(connection, aside, table, f"{column} = ?", value)


def _take_where(connection: sqlite3.Connection, aside: Aside, source: str, where: str, *values: str) -> None:
    table = source.split()[0]
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    names = aside.columns(table, [row[1] for row in columns])
    types = [row[2] for row in columns if row[1] in names]
    rows = aside.query(f"SELECT {', '.join(names)} FROM {source} WHERE {where}", values) if names else []
    insert(connection, table, names, [row for row in rows if plausible(row, types)])


def _store(connection: sqlite3.Connection, aside: Aside, table: str, place: Place | None, taken: int) -> None:
    """Where a table's taking over stands; an empty state: done."""
    connection.execute(
        "INSERT INTO salvage VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT DO UPDATE SET state = excluded.state, taken = taken + excluded.taken",
        (aside.directory.name, table, "" if place is None else place.encoded(), taken),
    )


# --- the end -----------------------------------------------------------------------------------------------------


def lost_ranges(db: sqlite3.Connection, *, told: bool = True) -> list[Range]:
    """What undelivered records are gone, oldest first; without ``told``, only what no drop record names yet."""
    sql = "SELECT state, taken FROM salvage WHERE place = '' AND part GLOB 'lost *'"
    found = sorted(tuple(orjson.loads(state)) for state, left in db.execute(sql) if told or left)
    joined: list[Range] = []
    for first, last in found:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def tell(db: sqlite3.Connection, span: Range) -> None:
    """A drop record names what is lost in ``span``: with its transaction."""
    db.execute(
        "UPDATE salvage SET taken = 0 WHERE place = '' AND part GLOB 'lost *'"
        " AND json_extract(state, '$[0]') BETWEEN ? AND ?",
        span,
    )


def counts(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Records taken over, rows of the registry taken over, and seqs that are gone, delivered ones too."""
    (taken,) = db.execute("SELECT taken FROM salvage WHERE place = '' AND part = 'head'").fetchone()
    (rows,) = db.execute("SELECT coalesce(sum(taken), 0) FROM salvage WHERE place <> ''").fetchone()
    (gone,) = db.execute(
        "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM gap WHERE reason = 'damaged'"
    ).fetchone()
    return int(taken), int(rows), int(gone)


def end(db: sqlite3.Connection, directories: Sequence[Path]) -> list[int]:
    """What is still not here stays aside; returns lanes that are complete by that. With the finding's transaction."""
    step("salvage_before_end")
    waiting = withheld(db)
    db.execute("UPDATE gap SET reason = 'aside' WHERE reason = ?", (SALVAGE,))
    complete = [complete_lane(db, lane) for lane in sorted(waiting)]
    db.execute("DELETE FROM salvage")
    db.executemany("INSERT INTO salvage VALUES (?, 'ended', '', 0)", [(each.name,) for each in directories])
    return complete


def finish(connection: sqlite3.Connection, directories: Sequence[Path]) -> None:
    """Take the marks away, then the note that they may be."""
    step("salvage_after_end")
    for directory in directories:
        view.remove(directory)
        (directory / UNSALVAGED).unlink(missing_ok=True)
        sync_directory(directory)
        connection.execute("DELETE FROM salvage WHERE place = ?", (directory.name,))
