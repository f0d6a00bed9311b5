"""The hash chain over the log, and its verification. Pure but for reading the table.

Each record keeps ``SHA-256(previous hash ‖ "seq|kind|source|at_ns|mono_ns|synced|" ‖ body)``, with the kind's number
and the source's name. Where records were deleted, or were lost with a file's tail, a ``gap`` keeps the hash at the
end of the range: what remains stays verifiable, and a gap that nobody recorded breaks the chain.

The promise: a change of anything before the last checkpoint that a receiver holds is evident. A chain alone cannot
show that its own tail was cut; the checkpoints at the receiver and ``witness.json`` can.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from hashlib import sha256

GENESIS = bytes(32)
"""What stands for the previous hash of the very first record."""

_ROWS = """
SELECT r.seq, r.kind, s.name, r.at_ns, r.mono_ns, r.synced, r.body, r.hash
FROM record r LEFT JOIN source s ON s.id = r.source WHERE r.seq > ? ORDER BY r.seq
"""


def link(
    previous: bytes, seq: int, kind: int, source: str, at_ns: int, mono_ns: int, synced: int, body: bytes
) -> bytes:
    """The hash of one record, 32 bytes."""
    return sha256(
        previous + b"%d|%d|%b|%d|%d|%d|" % (seq, kind, source.encode(), at_ns, mono_ns, synced) + body
    ).digest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found. ``broken_seq`` is the first record that does not follow from the one before."""

    records: int
    head_seq: int
    head_hash: bytes
    broken_seq: int | None = None
    unlinked: int = 0  # gaps left by damage: what comes after them cannot be tied to what was before

    @property
    def intact(self) -> bool:
        return self.broken_seq is None


def verify(connection: sqlite3.Connection, after_seq: int = 0) -> Verdict:
    """Recompute the chain above ``after_seq``. Reads everything there: an offline tool's, not the agent's, work."""
    gaps = {
        first: (last, digest) for first, last, digest in connection.execute("SELECT first_seq, last_seq, hash FROM gap")
    }
    head, digest = _anchor(connection, after_seq)
    records = unlinked = 0
    for seq, kind, source, at_ns, mono_ns, synced, body, stored in connection.execute(_ROWS, (head,)):
        while head + 1 != seq:
            if head + 1 not in gaps:
                return Verdict(records, head, digest, broken_seq=head + 1, unlinked=unlinked)
            head, digest = gaps[head + 1]
        if not digest:
            unlinked += 1
        elif link(digest, seq, kind, source or "", at_ns, mono_ns, synced, body) != stored:
            return Verdict(records, head, digest, broken_seq=seq, unlinked=unlinked)
        head, digest, records = seq, stored, records + 1
    return Verdict(records, head, digest, unlinked=unlinked)


def _anchor(connection: sqlite3.Connection, after_seq: int) -> tuple[int, bytes]:
    if after_seq > 0:
        row = connection.execute("SELECT hash FROM record WHERE seq = ?", (after_seq,)).fetchone()
        if row is not None:
            return after_seq, row[0]
        row = connection.execute("SELECT last_seq, hash FROM gap WHERE ? BETWEEN first_seq AND last_seq", (after_seq,))
        found = row.fetchone()
        if found is not None:
            return int(found[0]), found[1]
    return 0, GENESIS
