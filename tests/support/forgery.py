"""A buffer with a day's records, a receiver that has them, and a hand that changes what was written.

The receiver is the real one: messages as a route builds them, through its parser into its database. The forger works on
a copy of the data_dir with plain SQL, and can compute all hashes anew, as whoever reads our source could.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from edge_agent.buffer import Buffer, RouteFilter
from edge_agent.buffer.ledger import GENESIS, link
from edge_agent.model import Kind
from edge_agent.receiver.message import parse
from edge_agent.receiver.store import Store
from edge_agent.routes.message import Stream, build
from support.buffer_rig import ALL, closing, opened, opening, preamble, read_all, sample

NO_SAMPLES = RouteFilter(frozenset(Kind) - {Kind.SAMPLE})


async def _work(buffer: Buffer, units: int, lane_filter: RouteFilter, database: Path, first: int) -> None:
    lane = buffer.lanes("mes", "now", lane_filter)[-1]
    buffer.append(preamble())
    for number in range(units):
        records, cycle, _unit = opening(buffer, f"SN{first + number:04}")
        buffer.append(records)
        start = buffer.next_seq
        seq = buffer.append([sample([12.5 + number, True, 21], cycle) for _ in range(6)])
        buffer.append([closing(cycle, {"press.result": [[start, seq]]})])
        if number % 5 == 4:
            await buffer.committed(buffer.next_seq - 1)
            buffer.append([buffer.checkpoint()])
    await buffer.committed(buffer.next_seq - 1)
    deliver(buffer, database, lane)


def deliver(buffer: Buffer, database: Path, lane: object) -> None:
    """Everything of ``lane`` into the receiver's database; the lane is then done."""
    rows = read_all(buffer, lane)
    stream = Stream(buffer.agent, lane.stream, lane.log, lane.boot, f"e/s/a/l/_agent/{buffer.agent}/confirm")  # type: ignore[attr-defined]
    batch = build(rows, lane.n, rows[-1].seq, 2**20, 1000)  # type: ignore[attr-defined]
    store = Store(str(database))
    store.take([parse(message.payload(stream, 0)) for message in batch.messages])
    store.close()
    buffer.progress(lane, rows[-1].seq, batch.last_n)  # type: ignore[arg-type]


def produce(data_dir: Path, database: Path, *, runs: int = 2, units: int = 12, wanted: RouteFilter = ALL) -> None:
    """Some runs of an agent, each with a log of its own; the receiver has everything that ``wanted`` lets pass."""

    async def work() -> None:
        for run in range(runs):
            async with opened(data_dir) as buffer:
                await _work(buffer, units, wanted, database, 100 * run)
            await asyncio.sleep(0)

    asyncio.run(work())


@contextlib.contextmanager
def forged(data_dir: Path, copy: Path) -> Iterator[sqlite3.Connection]:
    """A copy of a data_dir under the knife; ``copy`` is what the forger leaves behind."""
    shutil.copytree(data_dir, copy)
    (copy / "witness.json").unlink(missing_ok=True)  # whoever can change the one can remove the other
    db = sqlite3.connect(copy / "buffer.db", isolation_level=None)
    (trigger,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'record_append_only'").fetchone()
    db.execute("DROP TRIGGER record_append_only")
    db.execute("PRAGMA journal_mode = DELETE")
    try:
        yield db
        db.execute(trigger)  # the forger is tidy
    finally:
        db.close()


def seqs_of(db: sqlite3.Connection, kind: Kind) -> list[int]:
    return [seq for (seq,) in db.execute("SELECT seq FROM record WHERE kind = ? ORDER BY seq", (int(kind),))]


def edit(db: sqlite3.Connection, seq: int, change: Callable[[dict[str, object]], None]) -> None:
    (body,) = db.execute("SELECT body FROM record WHERE seq = ?", (seq,)).fetchone()
    said = orjson.loads(body)
    change(said)
    db.execute("UPDATE record SET body = ? WHERE seq = ?", (orjson.dumps(said), seq))


def swap(db: sqlite3.Connection, one: int, other: int) -> None:
    """Exchange two records, hashes included; only their numbers stay."""
    for old, new in ((one, -1), (other, one), (-1, other)):
        db.execute("UPDATE record SET seq = ? WHERE seq = ?", (new, old))


def shift(db: sqlite3.Connection, after: int, step: int) -> None:
    """Number everything after ``after`` anew, logs and lanes too."""
    for table, column in (("record", "seq"), ("log", "first_seq"), ("gap", "first_seq"), ("gap", "last_seq")):
        db.execute(f"UPDATE {table} SET {column} = -({column} + ?) WHERE {column} > ?", (step, after))
        db.execute(f"UPDATE {table} SET {column} = -{column} WHERE {column} < 0")
    db.execute("UPDATE lane SET n = n + ? WHERE from_seq <= ? AND seq > ?", (step, after, after))
    for column in ("from_seq", "to_seq", "seq"):
        db.execute(f"UPDATE lane SET {column} = {column} + ? WHERE {column} > ?", (step, after))


def rehash(db: sqlite3.Connection, step: int = 0, after: int = 0) -> None:
    """Compute every hash anew, and what the log says of its own hashes: the chain is whole again."""
    digest, hashes = GENESIS, {0: GENESIS}
    sql = (
        "SELECT r.seq, r.kind, s.name, r.at_ns, r.mono_ns, r.synced, r.body FROM record r"
        " JOIN source s ON s.id = r.source ORDER BY r.seq"
    )
    for seq, kind, source, at_ns, mono_ns, synced, body in db.execute(sql).fetchall():
        said = orjson.loads(body)
        place = said if kind == Kind.CHECKPOINT else said.get("previous") if kind == Kind.LOG_OPENED else None
        if place:
            key = "upto" if kind == Kind.CHECKPOINT else "seq"
            place[key] += step if place[key] > after else 0
            place["hash"] = hashes[place[key]].hex()
            body = orjson.dumps(said)
        digest = hashes[seq] = link(digest, seq, kind, source, at_ns, mono_ns, synced, body)
        db.execute("UPDATE record SET body = ?, hash = ? WHERE seq = ?", (body, digest, seq))
