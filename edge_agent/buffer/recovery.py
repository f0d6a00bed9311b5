"""Reading a database that was set aside. Read-only and lenient; what cannot be read is left out, never guessed.

Records are believed only where the ledger confirms them: a record's hash has to follow from the stored hash of the one
before (or of the gap before), whether or not that one can be read itself. So a page that is half there, or another
program's, gives nothing; the record after a damaged range cannot be confirmed and counts as gone with it.

Rows of the registry have no such proof. They are believed where they have the types of their columns; a table is read
from its beginning to the damage, then from its end, then along its index, which lies on other pages. Where the first
page was hit, nothing of a file opens: then it is read through a ``view``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from edge_agent.buffer import view
from edge_agent.buffer.files import Files
from edge_agent.buffer.ledger import GENESIS, link
from edge_agent.buffer.queries import can_pass, connect
from edge_agent.errors import StorageCorrupt

Row = tuple[Any, ...]
"""A row of a table; of ``record``, in the order of its columns."""

SALVAGE = "salvage"  # the reason of a gap that is still to be taken over
WIDE = 20_000  # of ranges no wider than this, each record is tried
_TYPES = {"INTEGER": int, "TEXT": str, "BLOB": bytes, "REAL": float}
_COLUMNS = "seq, kind, source, at_ns, mono_ns, synced, body, hash"
_RECORD = f"SELECT {_COLUMNS} FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq"

INDEXES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "identifier": ("identifier_value", ("value", "kind", "unit", "seq")),
    "unit": ("unit_serial", ("serial", "unit")),
    "cycle": ("cycle_age", ("seq", "cycle")),
    "binding": ("binding_cycle", ("cycle", "binding")),
    "cycle_window": ("cycle_window_seq", ("last_seq", "first_seq", "source", "cycle")),
    "dead_letter": ("dead_letter_seq", ("seq", "lane", "n")),
    "finding": ("finding_age", ("seq", "finding")),
    "genealogy": ("genealogy_child", ("child", "parent", "seq")),
    "consumption": ("consumption_lot", ("lot", "cycle", "idx")),
    "hold": ("hold_subject", ("subject", "subject_kind", "hold")),
    "verdict": ("verdict_age", ("seq", "verdict_id")),
    "gate": ("gate_age", ("seq", "gate")),
    "unit_status": ("unit_status_age", ("seq", "serial", "step", "said_by")),
}
"""Table -> an index that covers its key, and the index's columns with what is left of the key."""


def check(connection: sqlite3.Connection, files: Files) -> int:
    """Read what a start needs; returns how many frames of the write-ahead log SQLite took.

    Raises sqlite3.DatabaseError or StorageCorrupt for damage that shows without reading the whole file.
    """
    execute = connection.execute
    execute("SELECT hash FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    _, frames, copied = execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    (pages,), (page_size,) = execute("PRAGMA page_count").fetchone(), execute("PRAGMA page_size").fetchone()
    if frames == copied and files.db.stat().st_size < pages * page_size:
        raise StorageCorrupt(f"{files.db.name} is shorter than it says")
    for table in ("log", "route", "lane", "counter", "source", "station", "tagset", "hold", "material_load", "doubt"):
        execute(f"SELECT count(*) FROM {table}").fetchone()
    execute("SELECT * FROM cycle_current WHERE state <> 'closed'").fetchall()
    return int(frames)


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading a table stands: in which pass, behind which key."""

    turn: int = 0  # 0 up the table, 1 down it, 2 up the index, 3 down it
    key: tuple[Any, ...] | None = None

    def encoded(self) -> str:
        return orjson.dumps([self.turn, self.key]).decode()

    @classmethod
    def decoded(cls, text: str) -> Place:
        turn, key = orjson.loads(text)
        return cls(turn, None if key is None else tuple(key))


class Aside:
    """A damaged database in its directory. Use from one thread at a time; nothing here raises for its damage."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connection: sqlite3.Connection | None = None
        if not (view.opened(directory) and self._opens(view.database(directory), "mode=ro")):
            for query in ("mode=ro", "mode=ro&immutable=1"):  # the second without a write-ahead log that spoils it
                if self._opens(directory / "buffer.db", query):
                    return
            for attempt in range(view.ATTEMPTS):
                path = view.build(directory, attempt)
                if path is not None and self._opens(path, "mode=ro"):
                    return
            view.remove(directory)

    def _opens(self, path: Path, query: str) -> bool:
        self._open(path, query)
        if self._connection is not None and self.query("PRAGMA table_info(record)"):
            return True
        self.close()
        return False

    def _open(self, path: Path, query: str) -> None:
        if path.is_file():
            with self._until_damage():
                self._connection = connect(path, query=query)
                self._connection.execute("PRAGMA writable_schema = ON")  # to read a file too short for its header

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _until_damage(self) -> Iterator[None]:
        """End where the file cannot be read. A lock or a failing disk may pass: that goes up."""
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError) as error:
            if isinstance(error, sqlite3.Error) and can_pass(error):
                raise

    def answer(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[Row], bool]:
        """The rows up to the damage, and whether there was none."""
        rows: list[Row] = []
        if self._connection is None:
            return rows, True  # nothing is there to be read
        with self._until_damage():
            rows.extend(self._connection.execute(sql, values).fetchall())
            return rows, True
        with self._until_damage():  # once more, row by row, to have those before it
            for row in self._connection.execute(sql, values):
                rows.append(row)
        return rows, False

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """What can be read of an answer."""
        return self.answer(sql, values)[0]

    # --- tables --------------------------------------------------------------------------------------------------

    def columns(self, table: str, wanted: Iterable[str]) -> list[str]:
        """Which of the ``wanted`` columns the table has; an older version has fewer."""
        there = {row[1] for row in self.query(f"PRAGMA table_info({table})")}
        return [name for name in wanted if name in there]

    def slice(
        self, table: str, names: Sequence[str], keys: Sequence[str], place: Place, limit: int
    ) -> tuple[list[Row], Place | None]:
        """The next rows of a table, and where to go on; None when all of it that can be read was read."""
        if place.turn < 2:
            found, whole = self._keyed(table, names, keys, keys, place, limit)
            rows = [row[: len(names)] for row in found]
        else:
            index, order = INDEXES[table]
            found, whole = self._keyed(f"{table} INDEXED BY {index}", keys, keys, order, place, limit)
            where = " AND ".join(f"{key} = ?" for key in keys)
            point = f"SELECT {', '.join(names)} FROM {table} WHERE {where}"
            rows = [row for keyed in found for row in self.query(point, keyed[: len(keys)])]
        if whole and len(found) == limit:
            return rows, Place(place.turn, found[-1][-len(keys if place.turn < 2 else INDEXES[table][1]) :])
        if whole and place.turn in (0, 2):
            return rows, None
        last = 3 if table in INDEXES else 1
        return rows, Place(place.turn + 1) if place.turn < last else None

    def _keyed(
        self, source: str, names: Sequence[str], keys: Sequence[str], order: Sequence[str], place: Place, limit: int
    ) -> tuple[list[Row], bool]:
        """Rows of ``names`` and the ``order`` columns behind them, in that order, behind the place's key."""
        down = place.turn % 2 == 1
        by, sign = ", ".join(f"{key}{' DESC' if down else ''}" for key in order), "<" if down else ">"
        where, values = f" WHERE {order[0]} IS NOT NULL", []
        if place.key is not None:
            where += f" AND ({', '.join(order)}) {sign} ({', '.join('?' * len(order))})"
            values = list(place.key)
        sql = f"SELECT {', '.join([*names, *order])} FROM {source}{where} ORDER BY {by} LIMIT ?"
        found, whole = self.answer(sql, [*values, limit])
        if found and found[-1][-len(order) :] == place.key:  # a damaged tree that leads in a circle
            return [], False
        return found, whole

    # --- records -------------------------------------------------------------------------------------------------

    def head(self, names: Mapping[int, str]) -> tuple[int, bytes, bool]:
        """(seq, hash) of the newest record, and whether the one before confirms it. (0, b"", False): unreadable."""
        found = self.query("SELECT max(seq) FROM record")
        rows = self.records(found[0][0] - 1, found[0][0]) if found and type(found[0][0]) is int else []
        if not rows or not well_formed(rows[-1]):
            return 0, b"", False
        anchor = rows[0][7] if len(rows) == 2 and well_formed(rows[0]) else self.gap_hash(rows[-1][0] - 1)
        return rows[-1][0], rows[-1][7], confirmed(rows[-1], anchor, names.get(rows[-1][2], ""))

    def gap_hash(self, seq: int) -> bytes:
        """The hash kept of the end of the gap that ends at ``seq``."""
        if seq == 0:
            return GENESIS
        found = self.query("SELECT hash FROM gap WHERE last_seq = ? AND reason <> ?", (seq, SALVAGE))
        return found[0][0] if found and isinstance(found[0][0], bytes) else b""

    def gaps(self, first: int, last: int) -> list[tuple[int, int, bytes, str]]:
        """What the file itself says is not in [first, last]: deleted, dropped, not stored."""
        sql = "SELECT first_seq, last_seq, hash, reason FROM gap WHERE first_seq <= ? AND last_seq >= ? AND reason <> ?"
        found = self.query(sql + " ORDER BY first_seq", (last, first, SALVAGE))
        return [row for row in found if _typed(row, (int, int, bytes, str))]

    def beside(self, seq: int, *, down: bool) -> int | None:
        """The next record from ``seq`` up (or down), itself included; None: no more, 0: that cannot be read."""
        order = "<= ? ORDER BY seq DESC" if down else ">= ? ORDER BY seq"
        rows, whole = self.answer(f"SELECT seq FROM record WHERE seq {order} LIMIT 1", (seq,))
        return rows[0][0] if rows else None if whole else 0

    def records(self, first: int, last: int) -> list[Row]:
        """The rows of [first, last], halving ranges that cannot be read until single records are left out."""
        rows, whole = self.answer(_RECORD, (first, last)) if first <= last else ([], True)
        if whole or first >= last or (last - first > WIDE and not self._reachable(first, last)):
            return rows
        middle = (first + last) // 2
        return [*self.records(first, middle), *self.records(middle + 1, last)]

    def _reachable(self, first: int, last: int) -> bool:
        """Whether anything of a range too wide to be halved down to each record answers."""
        steps = (2**power for power in range((last - first).bit_length()))
        return any(self.beside(first + step, down=False) != 0 for step in steps)


def well_formed(row: Row) -> bool:
    """The columns of a record have their types."""
    return _typed(row, (int, int, int, int, int, int, bytes, bytes)) and len(row[7]) == 32


def _typed(row: Row, types: Sequence[type]) -> bool:
    return all(type(value) is wanted for value, wanted in zip(row, types, strict=True))


def plausible(row: Row, types: Sequence[str]) -> bool:
    """The values have the types that their columns declare, or are null."""
    return all(value is None or type(value) is _TYPES[kind] for value, kind in zip(row, types, strict=True))


def confirmed(row: Row, anchor: bytes, name: str) -> bool:
    """The record's hash follows from the hash before it, under the name of its source."""
    seq, kind, _, at_ns, mono_ns, synced, body, digest = row
    return bool(link(anchor, seq, kind, name, at_ns, mono_ns, synced, body) == digest)
