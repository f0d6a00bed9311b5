"""The agent's buffer as anybody can read it: plain SQL on ``buffer.db``, none of the agent's code.

What is pending is worked out from the lanes' cursors and the records themselves, not from the agent's own counts.
Works while the agent runs (a reader of its write-ahead log) and after it was killed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.demo.counting import ReceivedRecord

KINDS = {
    1: "log_opened", 2: "tagset", 3: "config", 4: "sample", 5: "scan", 6: "cycle_opened", 7: "cycle_closed",
    8: "binding", 9: "identifier",
}  # fmt: skip
_DROP = 16
Key = tuple[str, int]
"""(log, seq)"""


@dataclass(slots=True)
class Owed:
    """What a route has not delivered, by key, and the last seq there is."""

    pending: set[Key] = field(default_factory=set)
    dead: set[Key] = field(default_factory=set)
    head: int = 0


class BufferFile:
    """``buffer.db`` of one data_dir."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "buffer.db"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)) as db:
            db.execute("BEGIN")
            yield db

    def pending(self, route: str) -> int:
        """How many records ``route`` has still to deliver; a log being opened, or a salvage, counts as one more."""
        try:
            with self._open() as db:
                (salvages,) = db.execute("SELECT count(*) FROM salvage").fetchone()
            return len(self.owed(route).pending) + int(salvages)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "unable to open" in str(error):
                return 1
            raise

    def owed(self, route: str) -> Owed:
        """All of it, by key. A lane that repeats (replay, retry) owes nothing new but is not done before it ends."""
        owed = Owed()
        with self._open() as db:
            logs = db.execute("SELECT first_seq, id FROM log ORDER BY first_seq").fetchall()
            (owed.head,) = db.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
            sql = "SELECT id, log, seq, min(?, coalesce(to_seq, ?)), kinds, purpose FROM lane WHERE route = ?"
            lanes = db.execute(sql, (owed.head, owed.head, route)).fetchall()
            for lane, log, seq, last, kinds, purpose in lanes:
                holes = _holes(db, lane)
                for number in _wanted(db, lane, seq, last, kinds, purpose):
                    if not any(first <= number <= end for first, end in holes):
                        owed.pending.add((log, number))
            for (seq,) in db.execute("SELECT seq FROM dead_letter WHERE route = ?", (route,)):
                owed.dead.add((_log_of(logs, seq), seq))
        owed.pending -= owed.dead
        return owed

    def rows(self, keys: set[Key]) -> list[tuple[Any, ...]]:
        """(log, seq, kind, source, at_ns, body) of these records, as far as they are here."""
        with self._open() as db:
            sql = (
                "SELECT r.seq, r.kind, s.name, r.at_ns, r.body FROM record r JOIN source s ON s.id = r.source"
                " WHERE r.seq = ?"
            )
            found = [(log, *row) for log, seq in sorted(keys) for row in db.execute(sql, (seq,))]
        return [
            (log, seq, KINDS.get(kind, "other"), name, at, json.loads(body)) for log, seq, kind, name, at, body in found
        ]

    def readings(self, columns: str) -> list[tuple[Any, ...]]:
        """The buffer's own view ``reading``."""
        with self._open() as db:
            return db.execute(f"SELECT {columns} FROM reading").fetchall()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Anything else."""
        with self._open() as db:
            return db.execute(sql).fetchall()

    def drops(self) -> list[ReceivedRecord]:
        """The drop records in the log: one may itself be given up for a route, whose tombstones then tell of both."""
        with self._open() as db:
            keys = [("", seq) for (seq,) in db.execute("SELECT seq FROM record WHERE kind = ?", (_DROP,))]
        return [ReceivedRecord("", log, seq, "drop", *rest) for log, seq, _, *rest in self.rows(set(keys))]

    def damaged(self) -> list[tuple[int, int]]:
        """Ranges that the ledger says are damaged or lost."""
        with self._open() as db:
            sql = "SELECT first_seq, last_seq FROM gap WHERE reason IN ('damaged', 'lost')"
            return db.execute(sql).fetchall()


def _holes(db: sqlite3.Connection, lane: int) -> list[tuple[int, int]]:
    return db.execute("SELECT first_seq, last_seq FROM hole WHERE lane = ?", (lane,)).fetchall()


def _wanted(db: sqlite3.Connection, lane: int, seq: int, last: int, kinds: str, purpose: str) -> list[int]:
    marks = ",".join(str(int(kind)) for kind in json.loads(kinds))
    sql = f"SELECT seq FROM record WHERE seq > ? AND seq <= ? AND kind IN ({marks})"
    if purpose == "retry":
        sql += f" AND seq IN (SELECT seq FROM pick WHERE lane = {lane})"
    return [seq for (seq,) in db.execute(sql, (seq, last))]


def _log_of(logs: list[tuple[int, str]], seq: int) -> str:
    return next((log for first, log in reversed(logs) if first <= seq), "")
