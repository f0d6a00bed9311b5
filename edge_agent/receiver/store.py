"""What one batch of messages changes in the database, in one transaction, and what may then be confirmed.

A confirmation tells the agent that it may forget, so the commit must have reached the disk (``synchronous=FULL``,
``synchronous_commit``). Duplicates fall on the key (agent, log, seq). A message whose records cannot be stored (a body
that makes no sense to the tables) is set aside in ``rejected`` and its records are refused by number, so one bad record
stops nobody.

Several receivers may share the database. Each sees a part of a stream's numbers; ``upto`` is what is there without a
hole in the *database*, read and written under the agent's lock, and whoever commits last says so.

Bounds: ``REJECTED_ROWS`` messages set aside, cut to ``REJECTED_BYTES`` each; the trackers of ``STREAMS`` streams in
memory; ``NACKS`` refusals a confirmation (it then confirms no further than those); ``TRIES`` of a batch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edge_agent.errors import EdgeAgentError
from edge_agent.receiver import ledger
from edge_agent.receiver.database import DatabaseBusy, RowRefused, open_database
from edge_agent.receiver.gaps import Gap, Gaps, Watch
from edge_agent.receiver.ledger import Finding
from edge_agent.receiver.message import TOMBSTONE, BadMessage, Message, Received, Row, route_of, rows
from edge_agent.receiver.tracker import TooManyHoles, Tracker

REJECTED_ROWS = 1000
REJECTED_BYTES = 4096
STREAMS = 1000
NACKS = 1000
TRIES = 5

OnRecord = Callable[[Any, Received], None]
"""Called with the library's own connection (sqlite3, psycopg) and one record."""


class RecordRejected(EdgeAgentError):
    """Raised by ``on_record`` to refuse one record for good; the agent keeps it as a dead letter, with this reason."""


@dataclass(slots=True)
class Outcome:
    """What a committed batch means: what to confirm (topic, payload), and what it brought to light."""

    confirmations: list[tuple[str, bytes]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Work:
    """A message with its rows, made ready before anything is locked. ``wrong``: why they cannot be made."""

    message: Message
    numbers: list[int]
    rows: list[Row]
    wrong: str = ""

    @classmethod
    def of(cls, message: Message) -> _Work:
        if message.kind == TOMBSTONE:
            return cls(message, [], [])
        numbers = [record["n"] for record in message.records]
        try:
            return cls(message, numbers, rows(message))
        except BadMessage as error:
            return cls(message, numbers, [], str(error))


class Store:
    """One open database. Not to be shared between threads. ``where``: a path, an address, or None for memory."""

    def __init__(self, where: str | Path | None, on_record: OnRecord | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.database = open_database(where)
        self.gaps = Gaps(self.database, self.tracker)
        self.ledger = ledger.Ledger(self.database)
        self._on_record = on_record
        self._trackers: dict[tuple[str, str], tuple[str, Tracker]] = {}  # with the text that it was read from
        self._open: dict[tuple[str, str], Tracker] = {}  # of this transaction
        streams = self.database.execute("SELECT agent, stream FROM stream").fetchall()
        self._followed = {(agent, route_of(stream)) for agent, stream in streams}  # before this run

    @property
    def connection(self) -> Any:
        """The library's own connection."""
        return self.database.connection

    def close(self) -> None:
        """Give the database back."""
        self.database.close()

    def take(
        self,
        messages: Sequence[Message],
        bad: Sequence[tuple[str, str, bytes]] = (),
        states: Iterable[tuple[str, str, bytes]] = (),
    ) -> Outcome:
        """Commit a batch; ``bad`` are (topic, reason, payload) to set aside, ``states`` (agent, state, body).

        What it returns is true once it returns. Raises StorageError when the database cannot be written, away
        or not; whatever else ``on_record`` raises passes through. In all cases nothing of the batch was stored.
        """
        work = [_Work.of(message) for message in messages]
        states = list(states)
        for left in range(TRIES - 1, -1, -1):
            try:
                return self._take(work, bad, states)
            except DatabaseBusy:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _take(
        self,
        work: Sequence[_Work],
        bad: Sequence[tuple[str, str, bytes]],
        states: Iterable[tuple[str, str, bytes]],
    ) -> Outcome:
        outcome, counts = Outcome(), self.counts.copy()
        touched: dict[tuple[str, str], Message] = {}
        confirming: set[tuple[str, str]] = set()
        self._open = {}
        try:
            with self.database.transaction(each.message.agent for each in work):
                for each in work:
                    key = (each.message.agent, each.message.stream)
                    touched[key] = each.message
                    if self._take_one(each, outcome):
                        confirming.add(key)
                        self.gaps.heard(each.message)
                        outcome.findings += self.ledger.notice(each.rows)
                for topic, reason, payload in bad:
                    self._set_aside(topic, reason, payload)
                for state in states:
                    self._note_state(*state)
                for key, message in touched.items():
                    self._save(message)
                    if message.confirm and key in confirming:
                        outcome.confirmations.append((message.confirm, self._confirmation(message)))
        except BaseException:
            self.counts = counts
            self._trackers.clear()  # they may be ahead of what is stored
            raise
        finally:
            self._open = {}
        return outcome

    def look_at_gaps(self, gap_after_s: float, ask_after_s: float, *, ask: bool) -> Watch:
        """Notice gaps, see which have ended, ask for what is due. Raises StorageError."""
        try:
            return self.gaps.look(gap_after_s=gap_after_s, ask_after_s=ask_after_s, ask=ask)
        except DatabaseBusy:
            return Watch()  # the next look will see it

    def tracker(self, agent: str, stream: str) -> Tracker:
        """The numbers of a stream that are in the database."""
        if (agent, stream) in self._open:
            return self._open[agent, stream]
        sql = "SELECT upto, ranges, upto_seq FROM stream WHERE agent = ? AND stream = ?"
        row = self.database.execute(sql, (agent, stream)).fetchone()
        if row is None:  # of a route that we know, an unknown stream that has got on without us is a loss
            return Tracker(known=(agent, route_of(stream)) in self._followed)
        upto, text, upto_seq = row
        before, known = self._trackers.get((agent, stream), ("", None))
        if known is None or before != text or known.upto != upto:
            known = Tracker(upto, orjson.loads(text), upto_seq=upto_seq)
        return known

    # --- one message -------------------------------------------------------------------------------------------

    def _take_one(self, work: _Work, outcome: Outcome) -> bool:
        """Store one message inside the batch. False if it was not taken at all and must come again."""
        message = work.message
        key = (message.agent, message.stream)
        tracker = self._open[key] = self.tracker(*key)
        for lost in tracker.settled(message.after, message.low_seq):
            outcome.gaps.append(self.gaps.note_lost(message, lost))
        try:
            tracker.add(message.ranges)
        except TooManyHoles:
            self.counts["deferred"] += 1
            return False
        sql = "DELETE FROM nack WHERE agent = ? AND stream = ? AND n <= ?"
        self.database.execute(sql, (message.agent, message.stream, message.after))
        self.counts["messages"] += 1
        if message.kind == TOMBSTONE:
            self.counts["tombstones"] += sum(each.last - each.first + 1 for each in message.ranges)
            return True
        if work.wrong:
            self._refuse(work, work.wrong)
        else:
            self._store_records(work)
        return True

    def _store_records(self, work: _Work) -> None:
        try:
            with self.database.savepoint():
                stored = self.database.insert(work.rows) if self._on_record is None else self._offer_all(work)
        except RecordRejected:  # now one by one: who is refused?
            stored = sum(self._offer(work.message, n, row) for n, row in zip(work.numbers, work.rows, strict=True))
        except RowRefused as error:
            self._refuse(work, str(error))
            return
        self.counts["records"] += stored
        self.counts["duplicates"] += len(work.rows) - stored

    def _offer_all(self, work: _Work) -> int:
        """Store the records of a message, and let the callback see each new one. Raises RecordRejected."""
        new = self.database.insert_new(work.rows)
        number = dict(zip((row.seq for row in work.rows), work.numbers, strict=True))
        for row in new:
            self._call(work.message, number[row.seq], row)
        return len(new)

    def _offer(self, message: Message, n: int, row: Row) -> bool:
        """Store one record and let the callback see it, both or neither. False for a duplicate or a refusal."""
        try:
            with self.database.savepoint():
                if not self.database.insert_new([row]):
                    return False
                self._call(message, n, row)
        except RecordRejected as refusal:
            self._nack(message, n, str(refusal.args[0]))
            return False
        return True

    def _call(self, message: Message, n: int, row: Row) -> None:
        assert self._on_record is not None
        agent, log, seq, kind, source, at_ns, mono_ns, synced, body = row
        loaded = orjson.loads(body)
        received = Received(agent, log, seq, kind, source, at_ns, mono_ns, synced, loaded, message.stream, n)
        self._on_record(self.connection, received)

    def _refuse(self, work: _Work, reason: str) -> None:
        message = work.message
        for n in work.numbers:
            self._nack(message, n, reason)
        payload = orjson.dumps(message.records)[:REJECTED_BYTES]
        self._set_aside(f"{message.source}/{message.kind}", reason, payload)

    def _nack(self, message: Message, n: int, reason: str) -> None:
        self.counts["refused"] += 1
        self.database.execute(
            "INSERT INTO nack VALUES (?, ?, ?, ?)"
            " ON CONFLICT (agent, stream, n) DO UPDATE SET reason = excluded.reason",
            (message.agent, message.stream, n, _short(reason)),
        )

    def _set_aside(self, topic: str, reason: str, payload: bytes) -> None:
        self.counts["bad_messages"] += 1
        self.database.execute(
            "INSERT INTO rejected (at_ns, topic, reason, payload) VALUES (?, ?, ?, ?)",
            (time.time_ns(), _short(topic), _short(reason), payload[:REJECTED_BYTES]),
        )
        self.database.execute("DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?", (REJECTED_ROWS,))

    def _note_state(self, agent: str, state: str, body: bytes) -> None:
        """Store what an agent says of itself."""
        self.database.execute(
            "INSERT INTO agent VALUES (?, ?, ?, ?) ON CONFLICT (agent)"
            " DO UPDATE SET state = excluded.state, at_ns = excluded.at_ns, body = excluded.body",
            (agent, state, time.time_ns(), body.decode()),
        )

    # --- streams -----------------------------------------------------------------------------------------------

    def _save(self, message: Message) -> None:
        key = (message.agent, message.stream)
        tracker = self._open[key]
        text = orjson.dumps(tracker.ranges, default=tuple).decode()
        self.database.execute(
            "INSERT INTO stream (agent, stream, upto, highest, ranges, heard_at_ns, upto_seq, log, confirm)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, stream) DO UPDATE SET upto = excluded.upto,"
            " highest = excluded.highest, ranges = excluded.ranges, heard_at_ns = excluded.heard_at_ns,"
            " upto_seq = excluded.upto_seq, confirm = excluded.confirm",
            (*key, tracker.upto, tracker.highest, text, time.time_ns(), tracker.upto_seq, message.log, message.confirm),
        )
        if len(self._trackers) > STREAMS:
            self._trackers.clear()
        self._trackers[key] = (text, tracker)

    def _confirmation(self, message: Message) -> bytes:
        agent, stream = message.agent, message.stream
        upto = self._open[agent, stream].upto
        sql = "SELECT n, reason FROM nack WHERE agent = ? AND stream = ? ORDER BY n LIMIT ?"
        nacks = self.database.execute(sql, (agent, stream, NACKS + 1)).fetchall()
        if len(nacks) > NACKS:
            upto = min(upto, nacks[NACKS][0] - 1)
        said = {"v": 1, "agent": agent, "stream": stream, "upto": upto}
        return orjson.dumps(said | {"nack": [{"n": n, "reason": reason} for n, reason in nacks[:NACKS]]})


def _short(text: str) -> str:
    return text.replace("\0", "�")[:500]
