"""The records of a salvage, chunk by chunk: which range is next, what of it is sound, what its transaction stores.

A chunk is a part of a ``salvage`` gap. It is read and checked on a worker thread, and applied on the writer's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from edge_agent.buffer import holes, lanes
from edge_agent.buffer.holes import Range, without
from edge_agent.buffer.recovery import SALVAGE, Aside, Row, confirmed, well_formed
from edge_agent.buffer.steps import step
from edge_agent.model import Kind


@dataclass(slots=True)
class Chunk:
    """A part of a ``salvage`` gap: the records found in it, and what is in its place where there is none."""

    gap: tuple[int, int, bytes]
    first: int
    last: int
    left_hash: bytes = b""
    rows: dict[int, Row] = field(default_factory=dict)
    pieces: list[tuple[int, int, bytes, str]] = field(default_factory=list)
    learned: dict[int, str] = field(default_factory=dict)  # names of sources that the ledger confirmed


def source_names(connection: sqlite3.Connection) -> dict[int, str]:
    """Names by their number."""
    return dict(connection.execute("SELECT id, name FROM source"))


def candidates(connection: sqlite3.Connection, names: Mapping[int, str]) -> list[str]:
    """Names that a source may have had whose number is known and whose name is not."""
    execute = connection.execute
    found = [f"{device}.{group}" for device, group in execute("SELECT device, name FROM tagset")]
    found += [device for (device,) in execute("SELECT DISTINCT device FROM tagset")]
    found += ["agent", *(name for (name,) in execute("SELECT name FROM station")), *names.values()]
    for (body,) in execute("SELECT body FROM record WHERE kind = ? ORDER BY seq DESC LIMIT 1", (int(Kind.CONFIG),)):
        found += orjson.loads(body).get("devices", {})
    return list(dict.fromkeys(found))


def bounds(asides: Sequence[Aside], gap: tuple[int, int, bytes], start: int, size: int, known_seq: int) -> Range:
    """The next range of a gap to look at: upwards from ``start``, else downwards; where there is nothing, all of it.

    What lies behind ``known_seq`` and cannot be reached is taken at once: mostly it never was.
    """
    low, high, _ = gap
    down = high < start
    first = max(low, high - size + 1) if down else max(low, start)
    last = high if down else min(high, first + size - 1)
    beside = [aside.beside(last if down else first, down=down) for aside in asides]
    if 0 in beside:
        return first, high if first > known_seq else last
    there = [seq for seq in beside if seq is not None]
    if down:
        edge = max(there, default=low - 1)
        return (max(low, edge + 1), last) if edge < first else (first, last)
    edge = min(there, default=high + 1)
    return (first, min(edge - 1, high)) if edge > last else (first, last)


def chunk(
    asides: Sequence[Aside],
    gap: tuple[int, int, bytes],
    span: Range,
    names: Mapping[int, str],
    candidates: Iterable[str],
    known_seq: int,
) -> Chunk:
    """What the files hold of ``span``, as far as the ledger confirms it, and what is missing of it.

    Where the table of names was hit, a source has the one of the ``candidates`` under which the ledger holds.
    """
    first, last = span
    result = Chunk(gap, first, last)
    anchors: dict[int, bytes] = {gap[1]: gap[2]}  # seq -> its hash, which the record after it confirms
    for aside in asides:
        rows = {row[0]: row for row in aside.records(max(1, first - 1), min(gap[1], last + 1)) if well_formed(row)}
        for seq, row in rows.items():
            if seq < first:
                continue
            anchor = rows[seq - 1][7] if seq - 1 in rows else aside.gap_hash(seq - 1)
            name = names.get(row[2]) or result.learned.get(row[2])
            if name is None:
                name = next((each for each in candidates if confirmed(row, anchor, each)), None)
                if name is None:
                    continue
                result.learned[row[2]] = name
            if confirmed(row, anchor, name):
                anchors[seq - 1] = anchor
                if seq <= last:
                    result.rows.setdefault(seq, row)
    result.left_hash = anchors.get(first - 1, b"")
    result.pieces = list(_pieces(asides, result, anchors, known_seq))
    return result


def _pieces(
    asides: Sequence[Aside], part: Chunk, anchors: Mapping[int, bytes], known_seq: int
) -> Iterable[tuple[int, int, bytes, str]]:
    """The ranges that no record has, with the hash of their end and the reason."""
    taken = [(seq, seq) for seq in sorted(part.rows)]
    told = [gap for aside in asides for gap in aside.gaps(part.first, part.last)]
    for whole in without((part.first, part.last), taken):
        rest = [whole]
        for first, last, digest, reason in sorted(told):
            for start, end in [(max(s, first), min(e, last)) for s, e in rest if s <= last and e >= first]:
                rest = [piece for run in rest for piece in without(run, [(start, end)])]
                yield start, end, anchors.get(end, digest if end == last else b""), reason
        for start, end in rest:
            if start <= known_seq:
                yield start, min(end, known_seq), anchors.get(min(end, known_seq), b""), "damaged"
            if end > known_seq:
                yield max(start, known_seq + 1), end, anchors.get(end, b""), "skipped"


def apply(db: sqlite3.Connection, part: Chunk) -> list[int]:
    """Store a chunk, on the writer's thread; returns the lanes that are complete by it, under their new ids."""
    step("salvage_slice_before")
    low, high, digest = part.gap
    waiting = withheld(db)
    db.execute("DELETE FROM gap WHERE first_seq = ? AND reason = ?", (low, SALVAGE))
    left = [(low, part.first - 1, part.left_hash, SALVAGE)] if part.first > low else []
    right = [(part.last + 1, high, digest, SALVAGE)] if part.last < high else []
    db.executemany("INSERT INTO gap VALUES (?, ?, ?, ?)", left + right)
    for old, name in part.learned.items():
        _name(db, part, old, name)
    db.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", part.rows.values())
    for piece in sorted(part.pieces):
        holes.extend_gap(db, *piece)
    db.execute("UPDATE salvage SET taken = taken + ? WHERE place = '' AND part = 'head'", (len(part.rows),))
    complete = [complete_lane(db, lane) for lane in sorted(waiting - withheld(db))]
    step("salvage_slice_after")
    return complete


def _name(db: sqlite3.Connection, part: Chunk, old: int, name: str) -> None:
    """Give a source its name back; if the new run gave that name another number, use this one."""
    db.execute("INSERT OR IGNORE INTO source VALUES (?, ?)", (old, name))
    (new,) = db.execute("SELECT id FROM source WHERE name = ?", (name,)).fetchone()
    if new != old:
        part.rows = {seq: (*row[:2], new if row[2] == old else row[2], *row[3:]) for seq, row in part.rows.items()}
        for table in ("cycle_window", "claim"):
            db.execute(f"UPDATE OR IGNORE {table} SET source = ? WHERE source = ?", (new, old))


def withheld(db: sqlite3.Connection) -> set[int]:
    """Lanes of which some is not here yet."""
    return {id for (id,) in db.execute(f"SELECT id FROM lane WHERE {lanes.UNFINISHED} AND {lanes.WITHHELD}")}


def complete_lane(db: sqlite3.Connection, id: int) -> int:
    """All of a lane's range is here or known to be gone: number it anew if something is. Returns its (new) id."""
    seq, to_seq, purpose = db.execute("SELECT seq, to_seq, purpose FROM lane WHERE id = ?", (id,)).fetchone()
    sql = "SELECT first_seq, last_seq FROM hole WHERE lane = ? ORDER BY first_seq"
    gone = db.execute(
        "SELECT max(first_seq, ?1), min(last_seq, ?2) FROM gap WHERE last_seq >= ?1 AND first_seq <= ?2"
        " AND (reason = 'damaged' OR ?3 = 'replay') ORDER BY first_seq",
        (seq + 1, to_seq, purpose),
    ).fetchall()
    lost = [part for whole in gone for part in without(whole, db.execute(sql, (id,)).fetchall())]
    if lost and purpose == "replay":  # it counts ranges that are not kept, not records
        rows = [(id, first, last, f"seq {first}-{last} is no longer kept") for first, last in lost]
        db.executemany("INSERT OR IGNORE INTO hole VALUES (?, ?, ?, 1, ?)", rows)
    elif lost:
        lanes.renumber(db, id)
        (id,) = db.execute("SELECT max(id) FROM lane").fetchone()
        noted = [(f"lost {first}", orjson.dumps([first, last]).decode()) for first, last in lost]
        db.executemany("INSERT OR IGNORE INTO salvage VALUES ('', ?, ?, 1)", noted)
    if purpose != "retry":
        db.execute("UPDATE lane SET total = n, total_seq = seq WHERE id = ?", (id,))
    return int(id)
