"""A disk that is full, as far as SQLite can tell: the batch waits, nothing is lost, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_agent.buffer import Buffer, open_readonly, witness
from edge_agent.errors import StorageError, StorageFull
from support.buffer_rig import ALL, asynchronous, opened, read_all, sample


async def allow_pages(buffer: Buffer, pages: int) -> None:
    """Let the database grow to so many pages: SQLite answers SQLITE_FULL beyond, as a full disk does."""
    work = buffer.writer.chore(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0], alone=True)
    await asyncio.wrap_future(work)


async def until_trouble(buffer: Buffer) -> None:
    for _ in range(1000):
        if buffer.writer.trouble is not None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the writer never said that it cannot write")


@asynchronous
async def test_full_then_room_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        await allow_pages(buffer, 1)  # SQLite takes it as: no larger than now
        (tmp_path / "ballast").write_bytes(b"x" * 1000)
        last = 0
        for number in range(2000):
            last = buffer.append([sample([number, True, "x" * 50])])
        await until_trouble(buffer)
        assert isinstance(buffer.writer.trouble, StorageFull)
        assert "free disk space" in buffer.stats()["trouble"]["hint"]
        assert not (tmp_path / "ballast").exists()  # given up, to have room to clean up in
        for number in range(4000):
            last = buffer.append([sample([number, True, 0])])
        waiting = asyncio.create_task(buffer.room())
        await asyncio.sleep(0.1)
        assert not waiting.done() and buffer.durable_seq < last and buffer.answers()
        await allow_pages(buffer, 2**30)
        async with asyncio.timeout(10):
            await waiting
            await buffer.committed(last)
        assert buffer.writer.trouble is None
        assert len(read_all(buffer, lane)) == last
    archive = open_readonly(tmp_path)
    assert archive.verify().intact
    archive.close()


@asynchronous
async def test_stopping_while_full_says_so_and_keeps_what_was_promised(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        async with opened(tmp_path) as buffer:
            seq = buffer.append([sample([1, True, 0])])
            await buffer.committed(seq)
            await allow_pages(buffer, 1)
            for number in range(2000):
                buffer.append([sample([number, True, "x" * 50])])
    async with opened(tmp_path) as buffer:
        assert buffer.next_seq > seq + 1


def test_a_witness_of_which_a_part_was_written_does_not_replace_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "witness.json"
    witness.write(path, witness.Witness(seq=1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))  # as a full disk does
    with pytest.raises(OSError, match="No space left"):
        witness.write(path, witness.Witness(seq=2))
    assert witness.read(path) == witness.Witness(seq=1)


@asynchronous
async def test_a_chore_that_fails_in_no_foreseen_way_ends_the_writer_and_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken(db: sqlite3.Connection) -> None:
        raise RuntimeError("nobody thought of this")

    with pytest.raises(StorageError, match="nobody thought of this"):
        async with opened(tmp_path) as buffer, asyncio.timeout(5):
            with pytest.raises(RuntimeError):
                await asyncio.wrap_future(buffer.writer.chore(broken))
            await buffer.committed(buffer.append([sample([1, True, 0])]))


def test_a_write_that_the_system_refuses(tmp_path: Path) -> None:
    """A file-size limit gives SQLITE_IOERR_WRITE; once lifted, the same process goes on."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], env=environment, capture_output=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr.decode()
    archive = open_readonly(tmp_path)
    verdict = archive.verify()
    archive.close()
    assert verdict.intact and verdict.records >= 3000


async def refused(data_dir: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with opened(data_dir) as buffer:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        for number in range(3000):
            buffer.append([sample([number, True, "x" * 100])])
        await until_trouble(buffer)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        async with asyncio.timeout(10):
            await buffer.committed(buffer.next_seq - 1)


if __name__ == "__main__":
    asyncio.run(refused(Path(sys.argv[1])))
