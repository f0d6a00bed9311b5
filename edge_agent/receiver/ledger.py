"""The proof, at the receiver's side: is what we hold what the agent wrote, and is there one agent only?

An *anchor* is a hash that the agent itself told: a ``checkpoint`` says the hash of record ``upto``, a ``log_opened``
that of its predecessor's last record. From one anchor to the next the chain of docs/contracts.md §5 is computed again;
it can be where every record between them is here (a route that sends all kinds), and is left ``unproven`` where not.

A *fork* is two futures of one past: two logs that name one predecessor, or a log that goes on from before what we hold
of its predecessor. A cloned PC, a restored snapshot, or a tail that the agent lost and we have.

What is found is a row of the table ``finding``, once, and is told: ``fork``, ``chain`` (the records between two anchors
do not lead from one to the other: one of them was changed), ``anchor`` (the agent said two hashes for one record).

``verify`` does it all for a database, at once. Bounds: ``SLICE`` records at a time while receiving.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edge_agent.buffer.ledger import GENESIS, link
from edge_agent.model import Kind
from edge_agent.receiver.database import Database, open_database
from edge_agent.receiver.message import Row

SLICE = 5000
_NUMBERS = {kind.label: int(kind) for kind in Kind}
_COLUMNS = "by_log, by_seq, kind, log, seq, hash"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with the records themselves. ``about`` tells two of one code apart."""

    agent: str
    code: str
    about: str
    text: str


@dataclass(slots=True)
class Proof:
    """What ``verify`` found: anchors proven, anchors that cannot be as records between are not here, and findings."""

    proven: int = 0
    unproven: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchor:
    """``by`` said: the hash of record ``seq`` of ``log`` is ``hash``."""

    agent: str
    by_log: str
    by_seq: int
    kind: str
    log: str
    seq: int
    hash: str


class Ledger:
    """Anchors and findings of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._work: Iterator[Finding | None] | None = None

    def notice(self, rows: Sequence[Row]) -> list[Finding]:
        """Inside a batch: keep the anchors of one message's records, and see forks."""
        if not rows:
            return []
        found: list[Finding] = []
        if rows[0].kind in ("checkpoint", "log_opened"):
            for row in rows:
                anchor = _anchor(row)
                if anchor is not None and self._keep(anchor):
                    found += self._contradictions(anchor)
                    if anchor.kind == "log_opened":
                        found += self._forks(anchor)
        first = rows[0]
        found += self._outlived(first.agent, first.log, rows[-1].seq)
        return [finding for finding in found if self._note(finding)]

    def step(self) -> list[Finding]:
        """While nothing else is to do: a slice of the proof of the oldest anchor that waits and is complete."""
        if self._work is None:
            anchor = self._next()
            if anchor is None:
                return []
            self._work = self._prove(anchor)
        finding = next(self._work, False)
        if finding is False:
            self._work = None
            return []
        return [finding] if isinstance(finding, Finding) and self._note(finding) else []

    def proofs(self) -> Proof:
        """Prove every anchor again, whatever was said of it before."""
        proof = Proof()
        sql = f"SELECT agent, {_COLUMNS} FROM anchor ORDER BY agent, by_seq, by_log"
        for anchor in [_Anchor(*row) for row in self._database.execute(sql).fetchall()]:
            broken = [found for found in self._prove(anchor) if found is not None]
            for finding in broken:
                self._note(finding)
            if not broken:
                sql = "SELECT verdict FROM anchor WHERE agent = ? AND by_log = ? AND by_seq = ?"
                (verdict,) = self._database.execute(sql, (anchor.agent, anchor.by_log, anchor.by_seq)).fetchone()
                proof.proven += verdict == "proven"
                proof.unproven += verdict != "proven"
        rows = self._database.execute("SELECT agent, code, about, text FROM finding ORDER BY id").fetchall()
        proof.findings = [Finding(*row) for row in rows]
        return proof

    # --- forks -------------------------------------------------------------------------------------------------

    def _keep(self, anchor: _Anchor) -> bool:
        """Store an anchor. False if it was there."""
        sql = "INSERT INTO anchor VALUES (?, ?, ?, ?, ?, ?, ?, 'new') ON CONFLICT DO NOTHING"
        said = (anchor.agent, anchor.by_log, anchor.by_seq, anchor.kind, anchor.log, anchor.seq, anchor.hash)
        return self._database.execute(sql, said).rowcount > 0

    def _contradictions(self, anchor: _Anchor) -> Iterator[Finding]:
        sql = "SELECT count(*) FROM anchor WHERE agent = ? AND log = ? AND seq = ? AND hash <> ?"
        row = self._database.execute(sql, (anchor.agent, anchor.log, anchor.seq, anchor.hash)).fetchone()
        if row[0]:
            place = f"{anchor.log}-{anchor.seq}"
            text = f"the agent has said two hashes for record {place}"
            yield Finding(anchor.agent, "anchor", place, text)

    def _forks(self, anchor: _Anchor) -> Iterator[Finding]:
        """Two logs that name one predecessor; a log that begins before the end of what we hold of it."""
        sql = "SELECT by_log FROM anchor WHERE agent = ? AND log = ? AND kind = 'log_opened' ORDER BY by_log"
        logs = [row[0] for row in self._database.execute(sql, (anchor.agent, anchor.log)).fetchall()]
        if len(logs) > 1:
            text = f"logs {' and '.join(logs)} both go on from log {anchor.log}: a cloned PC or a restored snapshot"
            yield Finding(anchor.agent, "fork", f"{anchor.log} {' '.join(logs)}"[:500], text)
        sql = "SELECT max(seq) FROM record WHERE agent = ? AND log = ?"
        (last_seq,) = self._database.execute(sql, (anchor.agent, anchor.log)).fetchone()
        yield from self._outlived(anchor.agent, anchor.log, last_seq or 0)

    def _outlived(self, agent: str, log: str, last_seq: int) -> Iterator[Finding]:
        """Records of a log beyond where another log says that it ended."""
        sql = (
            "SELECT by_log, seq FROM anchor WHERE agent = ? AND log = ? AND kind = 'log_opened' AND seq < ?"
            " ORDER BY seq LIMIT 1"
        )
        for by_log, seq in self._database.execute(sql, (agent, log, last_seq)).fetchall():
            text = (
                f"log {by_log} goes on from record {seq} of log {log}, of which later ones are here:"
                " a restored snapshot, a cloned PC, or a tail that the agent lost"
            )
            yield Finding(agent, "fork", f"{log}-{seq} {by_log}", text)

    def _note(self, finding: Finding) -> bool:
        """Store a finding. False if it was there."""
        sql = (
            "INSERT INTO finding (agent, code, about, text, noticed_at_ns) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING"
        )
        values = (finding.agent, finding.code, finding.about, finding.text, time.time_ns())
        return self._database.execute(sql, values).rowcount > 0

    # --- the chain ---------------------------------------------------------------------------------------------

    def _next(self) -> _Anchor | None:
        """The oldest anchor not looked at whose stream has no hole below the record that told it."""
        sql = (
            f"SELECT a.agent, {_COLUMNS} FROM anchor a WHERE a.verdict = 'new' AND EXISTS ("
            "SELECT 1 FROM stream s WHERE s.agent = a.agent AND s.log = a.by_log AND s.upto_seq >= a.by_seq)"
            " ORDER BY a.by_seq LIMIT 1"
        ).replace("by_log, by_seq, kind, log, seq, hash", "a.by_log, a.by_seq, a.kind, a.log, a.seq, a.hash")
        row = self._database.execute(sql).fetchone()
        return None if row is None else _Anchor(*row)

    def _prove(self, anchor: _Anchor) -> Iterator[Finding | None]:
        """Compute the chain up to an anchor; yields None after each slice, and a finding if it does not hold."""
        start = self._start(anchor)
        if start is None or not self._is_dense(anchor, start[0]):
            self._judge(anchor, "unproven")
            return
        first_seq, digest = start
        seq = first_seq
        sql = (
            "SELECT seq, kind, source, at_ns, mono_ns, synced, CAST(body AS text) FROM record"
            " WHERE agent = ? AND log = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        )
        while seq < anchor.seq:
            rows = self._database.execute(sql, (anchor.agent, anchor.log, seq, anchor.seq, SLICE)).fetchall()
            if not rows or any(row[1] not in _NUMBERS for row in rows):
                self._judge(anchor, "unproven")
                return
            for seq, kind, source, at_ns, mono_ns, synced, body in rows:
                digest = link(digest, seq, _NUMBERS[kind], source, at_ns, mono_ns, int(synced), body.encode())
            yield None
        if digest.hex() == anchor.hash:
            self._judge(anchor, "proven")
            return
        self._judge(anchor, "broken")
        text = (
            f"records {first_seq + 1} to {anchor.seq} of log {anchor.log} do not lead to the hash that the agent told:"
            " one of them was changed, here or there"
        )
        yield Finding(anchor.agent, "chain", f"{anchor.log} {first_seq + 1}-{anchor.seq}", text)

    def _start(self, anchor: _Anchor) -> tuple[int, bytes] | None:
        """The nearest place below in the same log whose hash is known: (seq, hash)."""
        sql = "SELECT seq, hash FROM anchor WHERE agent = ? AND log = ? AND seq < ? ORDER BY seq DESC LIMIT 1"
        row = self._database.execute(sql, (anchor.agent, anchor.log, anchor.seq)).fetchone()
        if row is None:  # then the log's own beginning
            sql = "SELECT seq, hash FROM anchor WHERE agent = ? AND by_log = ? AND kind = 'log_opened'"
            row = self._database.execute(sql, (anchor.agent, anchor.log)).fetchone()
        if row is None:
            return (0, GENESIS)
        return row[0], bytes.fromhex(row[1])

    def _is_dense(self, anchor: _Anchor, first_seq: int) -> bool:
        sql = "SELECT count(*) FROM record WHERE agent = ? AND log = ? AND seq > ? AND seq <= ?"
        row = self._database.execute(sql, (anchor.agent, anchor.log, first_seq, anchor.seq)).fetchone()
        return bool(row[0] == anchor.seq - first_seq)

    def _judge(self, anchor: _Anchor, verdict: str) -> None:
        sql = "UPDATE anchor SET verdict = ? WHERE agent = ? AND by_log = ? AND by_seq = ?"
        self._database.execute(sql, (verdict, anchor.agent, anchor.by_log, anchor.by_seq))


def verify(where: str | Path) -> Proof:
    """Prove all that can be proven in a receiver's database. Reads every record: minutes for many millions."""
    database = open_database(where)
    try:
        return Ledger(database).proofs()
    finally:
        database.close()


def _anchor(row: Row) -> _Anchor | None:
    """What a checkpoint or a log_opened says; None if it says none."""
    body = orjson.loads(row.body)
    if row.kind == "checkpoint":
        said: Any = {"log": row.log, "seq": body.get("upto"), "hash": body.get("hash")}
    else:
        said = body.get("previous")
    if not isinstance(said, dict):
        return None
    log, seq, digest = said.get("log"), said.get("seq"), said.get("hash")
    if not isinstance(log, str) or type(seq) is not int or not 0 <= seq < 2**63 or not _is_hash(digest):
        return None
    return _Anchor(row.agent, row.log, row.seq, row.kind, log, seq, str(digest))


def _is_hash(value: Any) -> bool:
    if not isinstance(value, str) or len(value) != 64:
        return False
    try:
        bytes.fromhex(value)
    except ValueError:
        return False
    return True
