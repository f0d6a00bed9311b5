"""SIGKILL at every named step of the writer, of progress, of the witness, of retention and of opening a log.

A child works on a buffer and tells, over a pipe, what it was promised: seqs that were committed, cursors it reported.
It is killed at a step; whoever opens the directory next must find every promise kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from edge_agent.buffer import open_readonly, steps
from edge_agent.model import Kind
from support.buffer_rig import ALL, asynchronous, opened, opening, preamble, read_all, salvaged, sample

SALVAGE = {name for name in steps.NAMES if name.startswith("salvage")}
OPENING = {"log_open_before", "log_open_after", "migration_before_commit", "migration_after_commit"} | SALVAGE


async def work(data_dir: Path) -> None:
    """What the child does until it is killed; each promise is one line on stdout."""
    from edge_agent import clock

    clock.synchronised = lambda: True
    async with opened(data_dir) as buffer:
        buffer.settings = buffer.settings.model_copy(update={"keep": 0.0, "max_size": 10**9})
        (*_, lane) = buffer.lanes("mes", "now", ALL)
        records, cycle, _ = opening(buffer, f"SN-{buffer.log}")
        buffer.append([*preamble(), *records])
        for number in range(2000):
            seq = buffer.append([sample([number, True, 0], cycle if number % 3 else "")])
            await buffer.committed(seq)
            promise(f"committed {seq}")
            if number % 20 == 0:
                done = buffer.durable_seq - 10
                buffer.progress(lane, done, done - lane.from_seq + 1)
            if number % 50 == 49:
                await asyncio.sleep(0.25)  # until the progress is durable
                await asyncio.to_thread(buffer.upkeep.write_witness)
                await buffer.upkeep.retention.step()


def promise(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def run_child(data_dir: Path, step: str) -> tuple[int, list[int]]:
    """Run ``work`` until it dies at ``step``; returns its exit code and the seqs it was promised."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"EDGE_AGENT_KILL_AT": step, "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, str(data_dir)]
    child = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    lines = child.stdout.decode().split("\n")[:-1]
    return child.returncode, [int(line.split()[1]) for line in lines]


@pytest.mark.parametrize("name", [name for name in steps.NAMES if name not in OPENING])
def test_a_kill_breaks_no_promise(tmp_path: Path, name: str) -> None:
    hit = 30 if name.startswith(("before_", "after_")) else 2 if name.startswith("witness") else 1
    _, promised = run_child(tmp_path, f"{name}:{hit}")
    assert promised
    check(tmp_path, promised)


@pytest.mark.parametrize("name", ["log_open_before", "log_open_after"])
def test_a_kill_while_a_log_opens(tmp_path: Path, name: str) -> None:
    run_child(tmp_path, f"{name}:1")
    run_child(tmp_path, f"{name}:1")
    check(tmp_path, [])


@asynchronous
async def test_a_kill_as_a_log_opens_does_not_lose_the_news_of_a_lost_tail(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    _, promised = run_child(tmp_path, "after_commit:30")
    (tmp_path / "buffer.db-wal").unlink()
    run_child(tmp_path, "log_open_after:1")
    async with opened(tmp_path) as buffer, contextlib.AsyncExitStack() as stack:
        db = stack.enter_context(contextlib.closing(sqlite3.connect(buffer.files.db)))
        found = db.execute("SELECT details FROM finding WHERE code = 'storage'").fetchall()
        drops = db.execute("SELECT body FROM record WHERE kind = ?", (int(Kind.DROP),)).fetchall()
    (told,) = (orjson.loads(details) for (details,) in found)
    (drop,) = (orjson.loads(body) for (body,) in drops)
    assert told["lost_last_seq"] == drop["last_seq"] == max(promised)
    assert told["lost_first_seq"] == drop["first_seq"] <= min(promised)


@pytest.mark.parametrize("name", ["salvage_before_move", "salvage_after_move"])
def test_a_kill_while_a_damaged_buffer_is_set_aside(tmp_path: Path, name: str) -> None:
    _, promised = run_child(tmp_path, "after_commit:30")
    (tmp_path / "suspect").write_text("a page cannot be read")
    run_child(tmp_path, f"{name}:1")
    check(tmp_path, promised, renewed=True)


@asynchronous
async def check(data_dir: Path, promised: list[int], *, renewed: bool = False) -> None:
    """The next start keeps what was promised, in order, under the old keys, and the chain holds."""
    async with opened(data_dir) as buffer:
        await salvaged(buffer)
        lanes = buffer.lanes("mes", "now", ALL)
        with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
            rows = [seq for (seq,) in db.execute("SELECT seq FROM record ORDER BY seq")]
            (broken,) = db.execute("PRAGMA quick_check").fetchone()
            gone = db.execute("SELECT first_seq, last_seq FROM gap WHERE reason IN ('delivered', 'damaged')").fetchall()
            (lost,) = db.execute("SELECT count(*) FROM gap WHERE reason = 'lost'").fetchone()
        assert broken == "ok" and not lost
        delivered = {seq for first, last in gone for seq in range(first, last + 1)}
        assert all(last <= lanes[0].seq for _, last in gone)
        assert set(promised) <= set(rows) | delivered
        for lane in lanes:
            seqs = [row.seq for row in read_all(buffer, lane)]
            end = buffer.durable_seq if lane.to_seq is None else lane.to_seq
            assert seqs == list(range(lane.seq + 1, end + 1))  # nothing pending is missing, the numbers go on
            assert lane.n == lane.seq - lane.from_seq + 1
        serials = {cycle.serial for cycle in buffer.restored().cycles}
        assert not promised or serials == {f"SN-{lane.log}" for lane in lanes if lane.to_seq}
    archive = open_readonly(data_dir)
    verdict = archive.verify()
    archive.close()
    assert verdict.intact and (renewed or not verdict.unlinked)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
