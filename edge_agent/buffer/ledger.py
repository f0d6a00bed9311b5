"""The hash chain over the log, and its verification. Pure but for reading the table.

Each record keeps ``SHA-256(previous hash ‖ "seq|kind|source|at_ns|mono_ns|synced|" ‖ body)``, with the kind's number
and the source's name. Where records were deleted, or were lost with a file's tail, a ``gap`` keeps the hash at the
end of the range: what remains stays verifiable, and a gap that nobody recorded breaks the chain.

The promise: a change of anything before the last checkpoint that a receiver holds is evident. A chain alone cannot
show that its own tail was cut, or that all of it was computed anew; the checkpoints at the receiver (``compare``) and
``witness.json`` can.

``Walk`` names everything it finds: every seq that is neither a record nor in a gap, every record that does not follow
from the one before it, every checkpoint that names another hash. It reads slices of ``SLICE`` seqs, each in a
transaction of its own, so that it may run for minutes beside an agent that writes and deletes.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from edge_agent.model import Kind

GENESIS = bytes(32)
"""What stands for the previous hash of the very first record."""

SLICE = 2000  # seqs
DAMAGES = 1000  # that are listed; more are counted

_ROWS = """
SELECT r.seq, r.kind, s.name, r.at_ns, r.mono_ns, r.synced, r.body, r.hash
FROM record r LEFT JOIN source s ON s.id = r.source WHERE r.seq BETWEEN ? AND ? ORDER BY r.seq
"""
_GAPS = "SELECT first_seq, last_seq, hash FROM gap WHERE last_seq >= ? AND first_seq <= ? ORDER BY first_seq"

Progress = Callable[[str, int, int], None]
"""Told now and then: the part of the work, what is done of it, of how much."""


def link(
    previous: bytes, seq: int, kind: int, source: str, at_ns: int, mono_ns: int, synced: int, body: bytes
) -> bytes:
    """The hash of one record, 32 bytes."""
    return sha256(
        previous + b"%d|%d|%b|%d|%d|%d|" % (seq, kind, source.encode(), at_ns, mono_ns, synced) + body
    ).digest()


def label(kind: int) -> str:
    """The kind's name, also of a number that is none."""
    return Kind(kind).label if kind in set(Kind) else f"kind {kind}"


def span(first: int, last: int) -> str:
    """A range of seq as people read it."""
    return str(first) if first == last else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was written. ``differs``: what of a record does."""

    code: str  # unreadable, structure, missing, overlap, broken_link, bad_checkpoint, lane, dead_letter, witness;
    # against a receiver: edited, removed, inserted, moved, lost, checkpoint, fork
    text: str
    seq: int | None = None
    last_seq: int | None = None
    kind: str | None = None
    log: str | None = None
    differs: tuple[str, ...] = ()


@dataclass(slots=True)
class Verdict:
    """What a verification found. ``unlinked``: gaps left by damage, which nothing can tie to what was before."""

    records: int = 0
    first_seq: int = 0
    head_seq: int = 0
    head_hash: bytes = GENESIS
    unlinked: int = 0
    checkpoints: int = 0  # of the log, whose hash was compared
    gaps: dict[str, list[int]] = field(default_factory=dict)  # reason -> [ranges, seqs]
    damages: list[Damage] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # damages by code, all of them
    against: dict[str, Any] | None = None

    @property
    def intact(self) -> bool:
        return not self.counts

    @property
    def broken_seq(self) -> int | None:
        """The first seq that is known to be damaged."""
        return min((damage.seq for damage in self.damages if damage.seq is not None), default=None)

    def add(self, code: str, text: str, seq: int | None = None, last_seq: int | None = None, **more: Any) -> None:
        """Note one damage; of very many, only how many."""
        self.counts[code] += 1
        if len(self.damages) < DAMAGES:
            self.damages.append(Damage(code, text, seq, seq if last_seq is None else last_seq, **more))


def verify(connection: sqlite3.Connection, after_seq: int = 0, progress: Progress | None = None) -> Verdict:
    """Recompute the chain above ``after_seq``. Reads everything there: an offline tool's, not the agent's, work."""
    walk = Walk(connection, after_seq)
    walk.run(progress)
    return walk.verdict


class Walk:
    """One pass over the log. ``_digest``: the hash that the next record is chained to; None while it is unknown."""

    def __init__(self, connection: sqlite3.Connection, after_seq: int = 0) -> None:
        self.verdict = Verdict()
        self._connection = connection
        self._head, self._digest = _anchor(connection, after_seq)
        self._unreadable: list[tuple[int, int]] = []  # of this slice
        self._why = ""

    def run(self, progress: Progress | None = None) -> None:
        """Walk to what is the log's end now."""
        last = self._end()
        while (start := self._next(last)) is not None:
            end = min(last, start + SLICE - 1)
            self._unreadable = []
            gaps, rows = self._fetch(start, end)
            for row in rows:
                self._take(row, gaps)
            for first, last_ in self._unreadable:
                self.verdict.add("unreadable", f"seq {span(first, last_)} cannot be read: {self._why}", first, last_)
            self._leave_behind(self._unreadable[-1][1] if self._unreadable else 0, gaps)
            if self._head < start:  # nothing there, though what follows cannot be looked up
                self._leave_behind(end, gaps)
            if progress is not None:
                progress("ledger", end, last)
        sql = "SELECT reason, count(*), sum(last_seq - first_seq + 1) FROM gap GROUP BY reason ORDER BY reason"
        self.verdict.gaps = {reason: [ranges, seqs] for reason, ranges, seqs in self._connection.execute(sql)}
        self.verdict.head_seq = self._head
        self.verdict.head_hash = self._digest or b""

    def _end(self) -> int:
        """The highest seq; where its page cannot be read, the highest that another table knows of."""
        known = 0
        for query in ("SELECT max(seq) FROM record", "SELECT max(seq) FROM finding", "SELECT max(seq) FROM lane"):
            try:
                known = max(known, self._connection.execute(query).fetchone()[0] or 0)
            except sqlite3.DatabaseError:
                continue
            if "record" in query:
                break
        return known

    def _next(self, last: int) -> int | None:
        """Where the next slice begins: at the next record, as far as that can be known."""
        start = self._head + 1
        if start > last:
            return None
        try:
            sql = "SELECT seq FROM record WHERE seq >= ? ORDER BY seq LIMIT 1"
            row = self._connection.execute(sql, (start,)).fetchone()
        except sqlite3.DatabaseError:
            return start
        return None if row is None or row[0] > last else max(start, int(row[0]))

    def _fetch(self, start: int, end: int) -> tuple[list[Any], list[Any]]:
        """The gaps since the last record and the rows of a slice, as of one moment."""
        execute = self._connection.execute
        execute("BEGIN")
        try:
            rows = list(self._readable(start, end))
            return execute(_GAPS, (self._head + 1, end)).fetchall(), rows
        finally:
            execute("ROLLBACK")

    def _readable(self, first: int, last: int) -> Iterator[Any]:
        """The rows of [first, last], halving what cannot be read until it is named."""
        try:
            yield from self._connection.execute(_ROWS, (first, last)).fetchall()
        except sqlite3.DatabaseError as error:
            if first == last:
                joined = self._unreadable and self._unreadable[-1][1] == first - 1
                start = self._unreadable.pop()[0] if joined else first
                self._unreadable.append((start, last))
                self._why = str(error)
                return
            middle = (first + last) // 2
            yield from self._readable(first, middle)
            yield from self._readable(middle + 1, last)

    def _take(self, row: tuple[Any, ...], gaps: Sequence[Any]) -> None:
        seq, kind, body, stored = row[0], row[1], row[6], row[7]
        if seq != self._head + 1:
            self._leave_behind(seq - 1, gaps)
        verdict = self.verdict
        if self._digest is not None and not _follows(self._digest, row):
            text = f"record {seq} ({label(kind)}) does not follow from the one before it: one of the two was changed"
            verdict.add("broken_link", text, seq, kind=label(kind))
        if kind == Kind.CHECKPOINT:
            self._compare_checkpoint(seq, body)
        verdict.first_seq = verdict.first_seq or seq
        verdict.records += 1
        self._head, self._digest = seq, stored

    def _leave_behind(self, last: int, gaps: Sequence[Any]) -> None:
        """Go on behind ``last``: what is not a record up to there is in a gap, unreadable, or missing."""
        beside = [*gaps, *((first, end, None) for first, end in self._unreadable)]
        for first, end, digest in sorted(beside, key=lambda item: item[0]):
            if self._head >= last:
                return
            if end <= self._head or first > last:
                continue
            if first > self._head + 1:
                self._missing(first - 1)
            if end > last:
                text = f"record {last + 1} stands in a range that is noted as deleted ({first} to {end})"
                self.verdict.add("overlap", text, last + 1)
            self.verdict.unlinked += digest == b""
            self._head, self._digest = min(end, last), digest or None
        if self._head < last:
            self._missing(last)

    def _missing(self, last: int) -> None:
        first = self._head + 1
        text = f"seq {span(first, last)} is missing: neither there nor noted as deleted"
        self.verdict.add("missing", text, first, last)
        self._head, self._digest = last, None

    def _compare_checkpoint(self, seq: int, body: bytes) -> None:
        try:
            said = orjson.loads(body)
            upto, digest = int(said["upto"]), bytes.fromhex(said["hash"])
        except (ValueError, KeyError, TypeError):
            self.verdict.add("bad_checkpoint", f"checkpoint {seq} cannot be read", seq, kind=Kind.CHECKPOINT.label)
            return
        stored = hash_at(self._connection, upto)
        if stored is None:
            return  # deleted since, or the hash of a range's inside
        self.verdict.checkpoints += 1
        if stored != digest:
            text = f"checkpoint {seq} saw another hash at record {upto}: something up to there was changed"
            self.verdict.add("bad_checkpoint", text, seq, kind=Kind.CHECKPOINT.label)


def _follows(digest: bytes, row: tuple[Any, ...]) -> bool:
    """Whether a row is chained to ``digest``; one whose columns have other types was not written by us."""
    seq, kind, source, at_ns, mono_ns, synced, body, stored = row
    try:
        return bool(link(digest, seq, kind, source or "", at_ns, mono_ns, synced, body) == stored)
    except TypeError:
        return False


def hash_at(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """The hash at ``seq``, of the record or of a range that was deleted up to it; None where none is kept."""
    sql = "SELECT hash FROM record WHERE seq = ?1 UNION ALL SELECT hash FROM gap WHERE last_seq = ?1 LIMIT 1"
    try:
        row = connection.execute(sql, (seq,)).fetchone()
    except sqlite3.DatabaseError:
        return None  # named as unreadable where its turn is
    return bytes(row[0]) if row is not None and row[0] else None


def _anchor(connection: sqlite3.Connection, after_seq: int) -> tuple[int, bytes | None]:
    if after_seq > 0:
        row = connection.execute("SELECT hash FROM record WHERE seq = ?", (after_seq,)).fetchone()
        if row is not None:
            return after_seq, row[0]
        row = connection.execute("SELECT last_seq, hash FROM gap WHERE ? BETWEEN first_seq AND last_seq", (after_seq,))
        found = row.fetchone()
        if found is not None:
            return int(found[0]), found[1] or None
    return 0, GENESIS
