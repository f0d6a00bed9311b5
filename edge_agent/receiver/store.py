"""The receiver's SQLite file: what one batch of messages changes, in one transaction, and what may then be confirmed.

``synchronous=FULL``: a confirmation tells the agent that it may forget, so the commit must have reached the disk.
Duplicates fall on the key (agent, log, seq). A message whose records cannot be stored (a body that makes no sense to
the tables) is set aside in ``rejected`` and its records are refused by number, so one bad record stops nobody.

Bounds: ``REJECTED_ROWS`` messages set aside, cut to ``REJECTED_BYTES`` each; the trackers of ``STREAMS`` streams in
memory; ``NACKS`` refusals a confirmation (it then confirms no further than those).
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from edge_agent.errors import EdgeAgentError, StorageError
from edge_agent.receiver import schema
from edge_agent.receiver.message import TOMBSTONE, BadMessage, Message, Received, rows
from edge_agent.receiver.tracker import TooManyHoles, Tracker

REJECTED_ROWS = 1000
REJECTED_BYTES = 4096
STREAMS = 1000
NACKS = 1000
_OUR_FAULT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}

# not "INSERT OR IGNORE": that would decide conflicts inside the triggers as well
_INSERT = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"

OnRecord = Callable[[sqlite3.Connection, Received], None]


class RecordRejected(EdgeAgentError):
    """Raised by ``on_record`` to refuse one record for good; the agent keeps it as a dead letter, with this reason."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers of a stream that did not come although later ones did. ``lost``: they will not come any more."""

    agent: str
    stream: str
    first_n: int
    last_n: int
    lost: bool


@dataclass(slots=True)
class Outcome:
    """What a committed batch means: what to confirm (topic → payloads), and the gaps that became certain."""

    confirmations: list[tuple[str, bytes]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class Store:
    """One open database. Not to be shared between threads. ``path`` None keeps everything in memory."""

    def __init__(self, path: Path | None, on_record: OnRecord | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._on_record = on_record
        self._trackers: dict[tuple[str, str], Tracker] = {}
        where = "a new file" if path is None else str(path)
        try:
            self.connection = sqlite3.connect(path or ":memory:", isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute("PRAGMA cache_size = -16000")
            schema.prepare(self.connection)
        except sqlite3.Error as error:
            hint = "name another file, or remove this one if nobody needs it"
            raise StorageError(f"{where}: {error}", hint=hint) from error

    def close(self) -> None:
        self.connection.close()

    def take(self, messages: Sequence[Message], bad: Sequence[tuple[str, str, bytes]] = ()) -> Outcome:
        """Commit a batch; ``bad`` are (topic, reason, payload) to set aside. What it returns is true once it returns.

        Raises StorageError when the file cannot be written; whatever else ``on_record`` raises passes through. In
        both cases nothing of the batch was stored.
        """
        if len(self._trackers) > STREAMS:
            self._trackers.clear()
        outcome = Outcome()
        touched: dict[tuple[str, str], str] = {}
        execute = self.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            for message in messages:
                if self._take_one(message, outcome):
                    touched[message.agent, message.stream] = message.confirm
            for topic, reason, payload in bad:
                self._set_aside(topic, reason, payload)
            for (agent, stream), topic in touched.items():
                self._save(agent, stream)
                if topic:
                    outcome.confirmations.append((topic, self._confirmation(agent, stream)))
            execute("COMMIT")
        except BaseException as error:
            self._trackers.clear()  # they may be ahead of what is stored
            if self.connection.in_transaction:
                execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StorageError(
                    f"cannot store: {error}", hint="is the disk full, or another program writing?"
                ) from error
            raise
        return outcome

    def holes(self) -> list[tuple[str, str, int, int]]:
        """(agent, stream, first n, last n) of the first hole of each stream that has one."""
        found = []
        for (agent, stream), tracker in self._trackers.items():
            if tracker.hole is not None:
                found.append((agent, stream, *tracker.hole))
        return found

    def note_gap(self, gap: Gap) -> None:
        """Store a gap, on its own or inside a batch."""
        self.connection.execute(
            "INSERT OR REPLACE INTO gap VALUES (?, ?, ?, ?, ?, ?)",
            (gap.agent, gap.stream, gap.first_n, gap.last_n, gap.lost, time.time_ns()),
        )

    def forget_gap(self, agent: str, stream: str, first_n: int) -> None:
        """The gap has been filled, or has become another one."""
        sql = "DELETE FROM gap WHERE agent = ? AND stream = ? AND first_n = ? AND NOT lost"
        self.connection.execute(sql, (agent, stream, first_n))

    def note_state(self, agent: str, state: str, body: bytes) -> None:
        """Store what an agent says of itself."""
        row = (agent, state, time.time_ns(), body.decode())
        self.connection.execute("INSERT OR REPLACE INTO agent VALUES (?, ?, ?, ?)", row)

    # --- one message -------------------------------------------------------------------------------------------

    def _take_one(self, message: Message, outcome: Outcome) -> bool:
        """Store one message inside the batch. False if it was not taken at all and must come again."""
        tracker = self._tracker(message.agent, message.stream)
        for first, last in tracker.settled(message.after):
            gap = Gap(message.agent, message.stream, first, last, True)
            self.note_gap(gap)
            outcome.gaps.append(gap)
        try:
            tracker.add(message.ranges)
        except TooManyHoles:
            self.counts["deferred"] += 1
            return False
        self.connection.execute(
            "DELETE FROM nack WHERE agent = ? AND stream = ? AND n <= ?", (message.agent, message.stream, message.after)
        )
        self.counts["messages"] += 1
        if message.kind == TOMBSTONE:
            self.counts["tombstones"] += sum(last - first + 1 for first, last in message.ranges)
            return True
        self._store_records(message)
        return True

    def _store_records(self, message: Message) -> None:
        execute = self.connection.execute
        numbers = [record["n"] for record in message.records]
        execute("SAVEPOINT message")
        try:
            found = rows(message)
            if self._on_record is None:
                stored = self.connection.executemany(_INSERT, found).rowcount
            else:
                stored = sum(self._offer(message, n, row) for n, row in zip(numbers, found, strict=True))
        except (BadMessage, sqlite3.Error) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code not in _OUR_FAULT or not self.connection.in_transaction:
                raise
            execute("ROLLBACK TO message")
            self._refuse(message, numbers, str(error))
        else:
            self.counts["records"] += stored
            self.counts["duplicates"] += len(found) - stored
        execute("RELEASE message")

    def _offer(self, message: Message, n: int, row: tuple[str, str, int, str, str, int, int, int, str]) -> bool:
        """Store one record and let the callback see it, both or neither. False for a duplicate or a refusal."""
        assert self._on_record is not None
        execute = self.connection.execute
        execute("SAVEPOINT record")
        try:
            if execute(_INSERT, row).rowcount == 0:
                return False
            agent, log, seq, kind, source, at_ns, mono_ns, synced, body = row
            received = Received(
                agent, log, seq, kind, source, at_ns, mono_ns, bool(synced), orjson.loads(body), message.stream, n
            )
            self._on_record(self.connection, received)
        except RecordRejected as refusal:
            execute("ROLLBACK TO record")
            self._nack(message, n, str(refusal.args[0]))
            return False
        finally:
            if self.connection.in_transaction:
                execute("RELEASE record")
        return True

    def _refuse(self, message: Message, numbers: Sequence[int], reason: str) -> None:
        for n in numbers:
            self._nack(message, n, reason)
        payload = orjson.dumps(message.records)[:REJECTED_BYTES]
        self._set_aside(f"{message.source}/{message.kind}", reason, payload)

    def _nack(self, message: Message, n: int, reason: str) -> None:
        self.counts["refused"] += 1
        self.connection.execute(
            "INSERT OR REPLACE INTO nack VALUES (?, ?, ?, ?)", (message.agent, message.stream, n, reason[:500])
        )

    def _set_aside(self, topic: str, reason: str, payload: bytes) -> None:
        self.counts["bad_messages"] += 1
        self.connection.execute(
            "INSERT INTO rejected (at_ns, topic, reason, payload) VALUES (?, ?, ?, ?)",
            (time.time_ns(), topic[:500], reason[:500], payload[:REJECTED_BYTES]),
        )
        self.connection.execute(f"DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - {REJECTED_ROWS}")

    # --- streams -----------------------------------------------------------------------------------------------

    def _tracker(self, agent: str, stream: str) -> Tracker:
        known = self._trackers.get((agent, stream))
        if known is None:
            sql = "SELECT upto, ranges FROM stream WHERE agent = ? AND stream = ?"
            row = self.connection.execute(sql, (agent, stream)).fetchone()
            known = Tracker(known=False) if row is None else Tracker(row[0], orjson.loads(row[1]))
            self._trackers[agent, stream] = known
        return known

    def _save(self, agent: str, stream: str) -> None:
        tracker = self._trackers[agent, stream]
        self.connection.execute(
            "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?, ?)",
            (agent, stream, tracker.upto, tracker.highest, orjson.dumps(tracker.ranges).decode(), time.time_ns()),
        )

    def _confirmation(self, agent: str, stream: str) -> bytes:
        upto = self._trackers[agent, stream].upto
        sql = "SELECT n, reason FROM nack WHERE agent = ? AND stream = ? ORDER BY n LIMIT ?"
        nacks = self.connection.execute(sql, (agent, stream, NACKS + 1)).fetchall()
        if len(nacks) > NACKS:
            upto = min(upto, nacks[NACKS][0] - 1)
        said = {"v": 1, "agent": agent, "stream": stream, "upto": upto}
        return orjson.dumps(said | {"nack": [{"n": n, "reason": reason} for n, reason in nacks[:NACKS]]})
