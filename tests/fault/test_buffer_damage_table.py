"""A table of damages over one real data_dir, as a crash leaves it, each held against what was written.

Whatever happens to the files: the agent starts, every record is there as it was written or is named as gone, what is
gone and was not delivered is told, nothing is invented, and no number is used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge_agent.buffer import Buffer, BufferSettings, open_buffer, open_readonly
from edge_agent.errors import StorageCorrupt
from support.buffer_rig import ALL, asynchronous, closing, opened, opening, preamble, read_all, salvaged, sample

PAGE = 4096
DONE = 400
STARTS = 4  # in so many starts every damage has come out


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: an orderly one, and one that was copied in mid-run."""
    root = tmp_path_factory.mktemp("damage")
    asyncio.run(_two_runs(root / "running", root / "crashed"))
    return root / "crashed"


async def _two_runs(data_dir: Path, target: Path) -> None:
    async with opened(data_dir) as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        buffer.append(preamble())
        for unit in range(8):
            records, cycle, _ = opening(buffer, f"SN{unit}")
            buffer.append(records)
            for number in range(150):
                buffer.append([sample([number, True, unit], cycle)])
            buffer.append([closing(cycle, {})])
            await buffer.room()
        await buffer.committed(buffer.next_seq - 1)
        buffer.progress(lane, DONE, DONE)
    async with opened(data_dir) as buffer:
        buffer.lanes("mes", "now", ALL)
        records, cycle, _ = opening(buffer, "SN8")
        buffer.append(records)
        for number in range(60):
            await buffer.committed(buffer.append([sample([number, False, 8], cycle)]))
        await asyncio.to_thread(buffer.upkeep.write_witness)
        shutil.copytree(data_dir, target, ignore=shutil.ignore_patterns("ballast", "lock"))


def written(path: Path) -> dict[int, bytes]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT seq, body FROM record ORDER BY seq").fetchall())


# --- the damages -----------------------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x5A]))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign_wal(data_dir: Path) -> None:
    other = data_dir / "other.db"
    db = sqlite3.connect(other, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x)")
    for number in range(300):
        db.execute("INSERT INTO t VALUES (?)", (f"{number:0500}",))
    shutil.copy(data_dir / "other.db-wal", data_dir / "buffer.db-wal")
    db.close()
    for path in data_dir.glob("other.db*"):
        path.unlink()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "header": lambda d: flip(d / "buffer.db", 3),
    "page_size": lambda d: overwrite(d / "buffer.db", 16, b"\x02\x00"),
    "header_zeroed": lambda d: overwrite(d / "buffer.db", 0, bytes(100)),
    "first_page_zeroed": lambda d: overwrite(d / "buffer.db", 0, bytes(PAGE)),
    "text": lambda d: (d / "buffer.db").write_text("this is no database\n" * 999),
    "empty": lambda d: (d / "buffer.db").write_bytes(b""),
    "gone": lambda d: (d / "buffer.db").unlink(),
    "directory": lambda d: directory(d / "buffer.db"),
    "wal_gone": lambda d: (d / "buffer.db-wal").unlink(),
    "wal_zeroed": lambda d: (d / "buffer.db-wal").write_bytes(bytes((d / "buffer.db-wal").stat().st_size)),
    "wal_directory": lambda d: directory(d / "buffer.db-wal"),
    "wal_header": lambda d: flip(d / "buffer.db-wal", 17),
    "wal_frame": lambda d: flip(d / "buffer.db-wal", (d / "buffer.db-wal").stat().st_size // 2),
    "wal_foreign": foreign_wal,
    "shm_gone": lambda d: (d / "buffer.db-shm").unlink(),
    "shm_zeroed": lambda d: (d / "buffer.db-shm").write_bytes(bytes(32768)),
    "witness_text": lambda d: (d / "witness.json").write_text("{"),
}


def chance(data_dir: Path, seed: int) -> None:
    """Some flips, a zeroed run of pages or a cut, wherever the seed says, in the database or its log."""
    dice = random.Random(seed)
    path = data_dir / dice.choice(["buffer.db", "buffer.db", "buffer.db", "buffer.db-wal"])
    size = path.stat().st_size
    what = dice.choice(["flips", "flips", "pages", "cut"])
    if what == "cut":
        os.truncate(path, dice.randrange(1, size))
    elif what == "pages":
        first = dice.randrange(size // PAGE)
        overwrite(path, first * PAGE, bytes(PAGE * dice.randint(1, min(12, size // PAGE - first))))
    else:
        for _ in range(dice.choice([1, 8, 64])):
            flip(path, dice.randrange(size))


# --- what has to hold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_loses_nothing_in_silence(tmp_path: Path, crashed: Path, name: str) -> None:
    shutil.copytree(crashed, tmp_path / "d")
    truth = truth_of(crashed, tmp_path)
    DAMAGES[name](tmp_path / "d")
    judge(tmp_path / "d", truth)


@pytest.mark.parametrize("seed", range(1, 17))
def test_a_random_damage_loses_nothing_in_silence(tmp_path: Path, crashed: Path, seed: int) -> None:
    shutil.copytree(crashed, tmp_path / "d")
    truth = truth_of(crashed, tmp_path)
    chance(tmp_path / "d", seed)
    judge(tmp_path / "d", truth)


def truth_of(crashed: Path, tmp_path: Path) -> dict[int, bytes]:
    shutil.copytree(crashed, tmp_path / "truth")
    return written(tmp_path / "truth/buffer.db")


@asynchronous
async def judge(data_dir: Path, truth: dict[int, bytes]) -> None:
    got: dict[int, bytes] = {}
    path = data_dir / "buffer.db"
    for _ in range(STARTS):
        async with opened(data_dir) as buffer:
            assert buffer.next_seq > max(truth)
            await salvaged(buffer)
            try:
                got = {
                    row.seq: row.body
                    for lane in buffer.lanes("mes", "now", ALL)
                    for row in read_all(buffer, lane)
                    if row.seq <= max(truth) and row.kind
                }
                stored, gaps, told = (
                    written(path),
                    ranges(path),
                    findings(path),
                )  # all of it: somebody reads it some day
            except StorageCorrupt:
                continue
            except sqlite3.DatabaseError as error:
                (data_dir / "suspect").write_text(str(error))
                continue
            break
    else:
        pytest.fail(f"still damaged after {STARTS} starts")
    archive = open_readonly(data_dir)
    intact = archive.verify().intact
    archive.close()
    changed = {seq for seq, body in stored.items() if seq in truth and body != truth[seq]}
    assert not changed or not intact, "changed, and nobody can tell"
    assert not set(stored) - set(truth) or min(set(stored) - set(truth)) > max(truth), "invented"
    gone = set(truth) - set(stored)
    named = {seq for first, last, _ in gaps for seq in truth if first <= seq <= last}
    assert gone <= named, f"gone, and not named: {sorted(gone - named)[:5]}"
    # what no route had yet is delivered, or it is told
    lost = {seq for told_range in told for seq in truth if told_range[0] <= seq <= told_range[1]}
    missing = {seq for seq in truth if seq > DONE and got.get(seq) != truth[seq]} - changed
    assert missing <= lost, f"lost in silence: {sorted(missing - lost)[:5]}"


def ranges(path: Path) -> list[tuple[int, int, str]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT first_seq, last_seq, reason FROM gap").fetchall()


def findings(path: Path) -> list[tuple[int, int]]:
    """The ranges that findings say are lost."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT details FROM finding WHERE code = 'storage'").fetchall()
    told: list[tuple[int, int]] = []
    for (text,) in rows:
        details = orjson.loads(text)
        told += [(first, last) for first, last in details.get("unreadable", [])]
        if "lost_first_seq" in details:
            told.append((details["lost_first_seq"], details["lost_last_seq"]))
    return told


# --- what a start refuses, with what to type -----------------------------------------------------------------------

REFUSED = """
import os, sys
from pathlib import Path
from edge_agent.buffer import BufferSettings, open_buffer
from edge_agent.errors import StorageError
os.setgid(65534)
os.setuid(65534)
try:
    open_buffer(Path(sys.argv[1]), "l3-pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
except StorageError as error:
    print(error.args[0], "|", error.hint)
    sys.exit(3)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_read_only_file_or_directory_is_refused_with_what_to_type(tmp_path: Path, crashed: Path, what: str) -> None:
    data_dir = tmp_path / "d"
    shutil.copytree(crashed, data_dir)
    for path in (data_dir, *data_dir.iterdir()):
        os.chown(path, 65534, 65534)
    (data_dir / "buffer.db").chmod(0o444)
    if what == "directory":
        data_dir.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    before = {path.name: path.read_bytes() for path in data_dir.iterdir() if path.name != "buffer.db-shm"}
    command = [sys.executable, "-c", REFUSED, str(data_dir)]
    child = subprocess.run(command, capture_output=True, check=False, text=True)
    assert child.returncode == 3, child.stderr
    assert "sudo " in child.stdout.partition("|")[2], child.stdout
    after = {path.name: path.read_bytes() for path in data_dir.iterdir() if path.name in before}
    assert after == before  # nothing was set aside for it


def test_another_host_is_noticed(tmp_path: Path, crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(crashed, tmp_path / "d")
    monkeypatch.setattr("socket.gethostname", lambda: "the-second-pc")
    told: list[str] = []

    async def start() -> None:
        buffer: Buffer = open_buffer(tmp_path / "d", "l3-pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
        await buffer.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "d/buffer.db")) as db:
            told.extend(text for (text,) in db.execute("SELECT text FROM finding WHERE code = 'storage'"))

    asyncio.run(start())
    asyncio.run(start())
    assert len(told) == 2 and "written by host" in told[0] and told[0] == told[1]  # told once, shown by both looks
