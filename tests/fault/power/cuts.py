"""Cut the power of a recorded run at many places, start the agent's buffer on each remains, and count.

What was accepted before the cut must be there, byte for byte; nothing may be there that was never written; the ledger
must hold; and a cut that lost nothing accepted must not be called damage. The same with SQLite's ``synchronous`` set
lower shows that this test can see a loss at all.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edge_agent.buffer import BufferSettings, open_buffer
from edge_agent.buffer.ledger import verify
from edge_agent.errors import EdgeAgentError
from edge_agent.model import Kind

sys.path.insert(0, str(Path(__file__).parent))
from disk import WRITE, Op, read_recording, replay

HERE = Path(__file__).parent
COMMITS = 400


@dataclass(slots=True)
class Result:
    """What came out of all cuts together."""

    cuts: int = 0
    accepted: int = 0
    confirmed: int = 0  # accepted, and there after the cut
    cuts_with_loss: int = 0
    refused: int = 0  # the buffer could not be opened at all
    invented: int = 0
    broken_ledgers: int = 0
    false_alarms: int = 0  # called damaged, though nothing accepted is missing
    first_bad: str = ""

    @property
    def lost(self) -> int:
        return self.accepted - self.confirmed


def build(directory: Path) -> Path:
    """Compile the recorder; returns the library."""
    library = directory / "recorder.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "recorder.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def record(directory: Path, synchronous: str, seed: int, commits: int = COMMITS) -> tuple[list[Op], str]:
    """Let the writer run under the recorder; returns the calls and the directory they were made in."""
    data_dir = directory / f"data-{synchronous}"
    data_dir.mkdir()
    log = directory / f"recording-{synchronous}"
    environment = os.environ | {
        "LD_PRELOAD": str(build(directory)), "POWER_DIR": str(data_dir), "POWER_LOG": str(log),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "writer.py"), str(data_dir), synchronous, str(seed), str(commits)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return read_recording(log), str(data_dir.resolve())


def cut_power(directory: Path, synchronous: str, *, cuts: int, seed: int, commits: int = COMMITS) -> Result:
    """Record a run, cut its power ``cuts`` times at random places, and count."""
    ops, root = record(directory, synchronous, seed, commits)
    accepted_file = f"{root}/accepted"
    disk_ops = [op for op in ops if op.path != accepted_file]
    accepted: list[tuple[int, int, str]] = []  # calls made before, seq, hash
    written = 0
    for op in ops:
        if op.path != accepted_file:
            written += 1
        elif op.op == WRITE:
            for line in op.data.decode().splitlines():
                seq, digest = line.split()
                accepted.append((written, int(seq), digest))
    places = sorted(random.Random(seed).sample(range(len(disk_ops)), min(cuts, len(disk_ops))))
    all_digests = {seq: digest for _, seq, digest in accepted}
    result = Result()
    for place, left in replay(disk_ops, root, places, seed):
        remains = directory / "remains"
        shutil.rmtree(remains, ignore_errors=True)
        remains.mkdir()
        for name, content in left.items():
            if not name.endswith("-shm"):
                (remains / name).parent.mkdir(parents=True, exist_ok=True)
                (remains / name).write_bytes(content)
        want = {seq: digest for made, seq, digest in accepted if made <= place}
        before = (result.lost, result.refused, result.invented, result.broken_ledgers, result.false_alarms)
        _judge(remains, want, all_digests, result)
        after = (result.lost, result.refused, result.invented, result.broken_ledgers, result.false_alarms)
        if after != before and not result.first_bad:
            result.first_bad = f"cut at call {place} of {len(disk_ops)}, seed {seed}: {before} -> {after}"
            shutil.copytree(remains, directory / f"bad-{synchronous}", dirs_exist_ok=True)
    return result


def _judge(remains: Path, want: dict[int, str], written: dict[int, str], result: Result) -> None:
    result.cuts += 1
    result.accepted += len(want)
    try:
        asyncio.run(_open_and_close(remains))
    except (EdgeAgentError, sqlite3.Error) as error:
        result.refused += 1
        result.cuts_with_loss += bool(want)
        result.first_bad = result.first_bad or f"refused: {error}"
        return
    with closing(sqlite3.connect(remains / "buffer.db")) as db:
        try:
            rows = db.execute("SELECT seq, kind, body FROM record").fetchall()
            result.broken_ledgers += not verify(db).intact
        except sqlite3.DatabaseError:
            rows = []
            result.broken_ledgers += 1
    there = {seq: sha256(body).hexdigest() for seq, _, body in rows}
    reasons = [body for _, kind, body in rows if kind == Kind.LOG_OPENED]
    found = sum(there.get(seq) == digest for seq, digest in want.items())
    result.confirmed += found
    result.cuts_with_loss += found < len(want)
    # a record that was being committed may be there; one with another content was never written
    result.invented += sum(seq in there and there[seq] != digest for seq, digest in written.items() if seq in want)
    alarmed = any(b'"reason":"damaged"' in body or b'"reason":"lost_tail"' in body for body in reasons)
    result.false_alarms += alarmed and found == len(want)


async def _open_and_close(remains: Path) -> None:
    buffer = open_buffer(remains, "l3-pc1", BufferSettings(ballast="4KiB", min_free="4KiB"))
    await buffer.close()
