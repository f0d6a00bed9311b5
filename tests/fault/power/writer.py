"""The process whose disk loses its power: the real buffer, written by several runs one after the other.

    python writer.py DATA_DIR FULL|NORMAL|OFF SEED COMMITS

After each commit it writes ``<seq> <sha256 of the body>`` of what is now accepted into DATA_DIR/accepted, which the
recorder puts into the same order as everything else.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from hashlib import sha256
from pathlib import Path

import orjson

from edge_agent import clock
from edge_agent.buffer import BufferSettings, RouteFilter, open_buffer, opening
from edge_agent.model import Kind, Record

RUNS = 4


async def write(data_dir: Path, chance: random.Random, commits: int, accepted: int) -> None:
    """One run: append, wait for acceptance, say so; a route's progress and the witness between."""
    buffer = open_buffer(data_dir, "l3-pc1", BufferSettings(ballast="4KiB", min_free="4KiB"))
    lane = buffer.lanes("mes", "oldest", RouteFilter(frozenset(Kind)))[-1]
    for number in range(commits):
        bodies = [{"number": number, "text": chance.randbytes(chance.randint(10, 3000)).hex()} for _ in range(3)]
        first = buffer.next_seq
        last = buffer.append([Record(Kind.FINDING, "agent", clock.now(), _finding(body)) for body in bodies])
        await buffer.committed(last)
        lines = [
            f"{seq} {sha256(orjson.dumps(_finding(body))).hexdigest()}\n" for seq, body in enumerate(bodies, first)
        ]
        os.write(accepted, "".join(lines).encode())
        if number % 7 == 0:
            buffer.progress(lane, last, last - lane.from_seq + 1)
        if number % 20 == 0:
            await asyncio.to_thread(buffer.upkeep.write_witness)
    await buffer.close()


def _finding(body: dict[str, object]) -> dict[str, object]:
    return {"finding": "f", "code": "storage", "severity": "info", "text": "", "evidence": [], "details": body}


def relax(synchronous: str) -> None:
    """The controls: let SQLite sync less than the buffer demands."""
    strict = opening.open_writing

    def relaxed(path: Path) -> sqlite3.Connection:
        connection = strict(path)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    opening.open_writing = relaxed


def main() -> None:
    """See the module's docstring."""
    data_dir, synchronous, seed, commits = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if synchronous != "FULL":
        relax(synchronous)
    accepted = os.open(data_dir / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance = random.Random(seed)
    for _ in range(RUNS):
        asyncio.run(write(data_dir, chance, commits // RUNS, accepted))


if __name__ == "__main__":
    main()
