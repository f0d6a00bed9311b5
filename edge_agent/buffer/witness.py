"""The state last published outside the database: ``witness.json``, small, checksummed, replaced atomically.

It notices what SQLite cannot: damage in the write-ahead log, or a missing one, makes committed rows vanish while every
check passes. A witness that knows a later seq than the database holds is the proof. It also carries what must
survive a lost database: each route's progress, the open cycles, the last counters, the open holds. Of those it has room
for ``HOLDS``; with more of them open it says so, and after a damage the gate stays closed until somebody confirms what
is on hold (``Buffer.holds_known``).

It is written behind the commits (some seconds late at most) and never decides alone: what is newer in
the database wins.

Those seconds matter when the write-ahead log is deleted after a kill. So ``head`` says after every commit, before
anybody is told of it, how far the log reaches: one small write in place, never synced. A kill leaves it exact; a power
cut leaves it as it was at some earlier commit, never at a later one, so it raises no false alarm. Nor does whoever
opens the database meanwhile and folds its write-ahead log in: nothing is missing then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import sqlite3
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from edge_agent.buffer.files import Files, sync_directory
from edge_agent.buffer.steps import step

HOLDS = 2000
_HOLD = "hold, subject_kind, subject, action, state, verdict_id, decision_seq, source, text, expires_at_ns, seq, at_ns"


@dataclass(frozen=True, slots=True)
class Witness:
    """A consistent picture of the database at ``seq``."""

    agent: str = ""
    log: str = ""
    seq: int = 0
    hash: str = ""
    logs: list[list[Any]] = field(
        default_factory=list
    )  # [id, first_seq, boot, agent, opened_at_ns] of logs with open lanes
    lanes: list[list[Any]] = field(
        default_factory=list
    )  # [route, number, log, boot, from, to, seq, n, kinds, stations, purpose, request, id]
    routes: list[list[Any]] = field(default_factory=list)  # [name, attached, kinds, stations]
    counters: list[list[Any]] = field(default_factory=list)  # [station, position, counter, epoch]
    cycles: list[dict[str, Any]] = field(default_factory=list)  # rows of cycle_current that are not closed
    sources: list[list[Any]] = field(default_factory=list)  # [id, name]: without its name no record can be confirmed
    host: str = ""
    holds: list[list[Any]] = field(default_factory=list)  # rows of hold that are open
    holds_whole: bool = True  # all of them; a witness of before holds were kept knew none
    holds_seq: int = 0  # as of this seq

    @property
    def knows_holds(self) -> bool:
        """Whatever was on hold at the last seq that is known is in it."""
        return self.holds_whole and self.holds_seq >= self.seq


def collect(connection: sqlite3.Connection, agent: str) -> Witness:
    """The witness of what ``connection`` sees now; one read transaction, some 100 µs."""
    execute = connection.execute
    execute("BEGIN")
    try:
        seq, digest = execute("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1").fetchone() or (0, b"")
        logs = execute(
            "SELECT id, first_seq, boot, agent, opened_at_ns FROM log WHERE id IN (SELECT log FROM lane WHERE to_seq IS"
            " NULL OR seq < to_seq) OR first_seq = (SELECT max(first_seq) FROM log) ORDER BY first_seq"
        ).fetchall()
        lanes = execute(
            "SELECT route, number, log, boot, from_seq, to_seq, seq, n, kinds, stations, purpose,"
            " request, id FROM lane WHERE to_seq IS NULL OR seq < to_seq"
        ).fetchall()
        routes = execute("SELECT name, attached, kinds, stations FROM route").fetchall()
        sources = execute("SELECT id, name FROM source").fetchall()
        counters = execute("SELECT station, position, counter, epoch FROM counter").fetchall()
        cursor = execute("SELECT * FROM cycle_current WHERE state <> 'closed'")
        names = [column[0] for column in cursor.description]
        cycles = [dict(zip(names, row, strict=True)) for row in cursor]
        sql = f"SELECT {_HOLD} FROM hold INDEXED BY hold_open WHERE state = 'open' ORDER BY seq LIMIT ?"
        holds = execute(sql, (HOLDS + 1,)).fetchall()
        doubted = execute("SELECT 1 FROM doubt WHERE what = 'holds'").fetchone() is not None
    finally:
        execute("ROLLBACK")
    log = logs[-1][0] if logs else ""
    return Witness(
        agent, log, seq, digest.hex(), _lists(logs), _lists(lanes), _lists(routes), _lists(counters), cycles,
        _lists(sources), socket.gethostname(), _lists(holds[:HOLDS]), len(holds) <= HOLDS and not doubted, seq,
    )  # fmt: skip


def _lists(rows: list[Any]) -> list[list[Any]]:
    return [list(row) for row in rows]


def write(path: Path, witness: Witness) -> None:
    """Replace the file atomically and durably. Blocking; raises OSError."""
    payload = orjson.dumps(asdict(witness))
    digest = hashlib.sha256(payload).hexdigest().encode()
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        document = b'{"sha256":"%b","state":%b}\n' % (digest, payload)
        if os.write(descriptor, document) != len(document):  # a full disk takes a part, without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    step("witness_before_replace")
    os.replace(new, path)
    sync_directory(path.parent)
    step("witness_after_replace")


def read(path: Path) -> Witness | None:
    """The last witness; None if there is none or its checksum is wrong."""
    try:
        document = orjson.loads(path.read_bytes())
        payload = orjson.dumps(document["state"])
        if hashlib.sha256(payload).hexdigest() != document["sha256"]:
            return None
        return Witness(**document["state"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


class Head:
    """``head``, to be written by one thread. A disk that refuses it leaves an older one, which still stands."""

    def __init__(self, path: Path, log: str) -> None:
        self._log = log
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def note(self, seq: int, digest: bytes) -> None:
        """The log is durable up to ``seq``, whose hash is ``digest``. Always the same length, within one sector."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, f"{self._log} {seq:020d} {digest.hex()}\n".encode(), 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def known(files: Files) -> Witness | None:
    """What the witness knows, with the log's end from ``head`` where that is later."""
    seen = read(files.witness)
    try:
        log, seq, digest = files.head.read_text(encoding="ascii").split()
        last, whole = int(seq), len(bytes.fromhex(digest)) == hashlib.sha256().digest_size
    except (OSError, ValueError):  # none, or what a power cut left of the first one
        return seen
    if not whole or last <= (seen.seq if seen is not None else 0):
        return seen
    return replace(seen or Witness(holds_whole=False), log=log, seq=last, hash=digest)
