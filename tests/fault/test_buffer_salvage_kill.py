"""SIGKILL at every step of a salvage and of a migration: the next start goes on, nothing is told or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge_agent.buffer import open_readonly, schema, steps
from edge_agent.buffer.files import Files, unsalvaged
from edge_agent.buffer.salvaging import Pace, Salvaging
from edge_agent.model import Kind
from support.buffer_rig import ALL, asynchronous, opened, opening, preamble, read_all, salvaged, sample

ROWS = 600
DONE = 150


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each test begins with."""
    data_dir = tmp_path_factory.mktemp("filled") / "d"
    asyncio.run(fill(data_dir))
    return data_dir


async def fill(data_dir: Path) -> None:
    """A buffer with two logs' records, some delivered."""
    for _ in range(2):
        async with opened(data_dir) as buffer:
            (*_, lane) = buffer.lanes("mes", "now", ALL)
            records, cycle, _ = opening(buffer, f"SN-{buffer.log}")
            buffer.append([*preamble(), *records])
            for number in range(ROWS // 2):
                buffer.append([sample([number, True, 0], cycle)])
                await buffer.room()
            await buffer.committed(buffer.next_seq - 1)
            if lane.from_seq == 1:
                buffer.progress(lane, DONE, DONE)


def copied(filled: Path, data_dir: Path) -> dict[int, bytes]:
    """Begin with a copy; returns what was written."""
    shutil.copytree(filled, data_dir, dirs_exist_ok=True)
    return written(data_dir / "buffer.db")


def written(path: Path, condition: str = "1") -> dict[int, bytes]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return dict(db.execute(f"SELECT seq, body FROM record WHERE {condition}").fetchall())


def findings(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT details FROM finding WHERE code = 'storage' ORDER BY seq").fetchall()
    return [orjson.loads(details) for (details,) in rows]


async def salvage(data_dir: Path) -> None:
    """What the child does until it is killed: small slices, so that there are many."""
    before = Salvaging.__init__

    def small(self: Salvaging, *arguments: Any) -> None:
        before(self, *arguments)
        self._rows, self._spans = Pace(20, 20, 20), Pace(50, 50, 50)

    Salvaging.__init__ = small  # type: ignore[method-assign]
    async with opened(data_dir) as buffer:
        buffer.lanes("mes", "now", ALL)
        await salvaged(buffer)


def killed(data_dir: Path, step: str) -> None:
    environment = os.environ | {"EDGE_AGENT_KILL_AT": step, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, __file__, str(data_dir)]
    child = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()


STEPS = sorted(name for name in steps.NAMES if name.startswith("salvage"))


@pytest.mark.parametrize(("name", "hit"), [*((name, 1) for name in STEPS), ("salvage_slice_after", 9)])
@asynchronous
async def test_a_killed_salvage_goes_on(tmp_path: Path, filled: Path, name: str, hit: int) -> None:
    truth = copied(filled, tmp_path)
    (tmp_path / "suspect").write_text("a page cannot be read")
    killed(tmp_path, f"{name}:{hit}")
    if hit > 1:
        killed(tmp_path, f"{name}:{hit}")  # and once more, further on
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        lanes = buffer.lanes("mes", "now", ALL)
        got = {row.seq: row.body for lane in lanes for row in read_all(buffer, lane) if row.seq in truth}
        assert got == {seq: body for seq, body in truth.items() if seq > DONE}
        assert (lanes[0].seq, lanes[0].n) == (DONE, DONE)
        ended = [told for told in findings(buffer.files.db) if "salvaged" in told]
        assert [(told["salvaged"], told["lost"]) for told in ended] == [(len(truth), 0)]
        assert len(buffer.restored().cycles) == 2
    assert truth.items() <= written(tmp_path / "buffer.db").items()
    with contextlib.closing(sqlite3.connect(tmp_path / "buffer.db")) as db:
        assert db.execute("SELECT count(*) FROM salvage").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM gap").fetchone() == (0,)
    assert not unsalvaged(Files(tmp_path))
    archive = open_readonly(tmp_path)
    verdict = archive.verify()
    archive.close()
    assert verdict.intact


# --- migration -----------------------------------------------------------------------------------------------------

DROPPED = {
    "lane": ("purpose", "request"), "dead_letter": ("retried_at_ns", "synced"), "unit": ("kind",),
    "identifier": ("position",), "finding": ("acknowledged_at_ns", "acknowledged_by", "acknowledged_reason"),
}  # fmt: skip


def as_version_1(path: Path) -> None:
    """Make the file what the first release wrote: without what versions 2 and 3 added."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for kind, thing in re.findall(r"CREATE (TABLE|INDEX) (\w+)", schema.TRACING):
            db.execute(f"DROP {kind} IF EXISTS {thing}")  # an index goes with its table
        for table, columns in DROPPED.items():
            for column in columns:
                db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for table in ("pick", "salvage"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 1")


def objects(path: Path) -> tuple[set[Any], dict[str, set[Any]]]:
    """The views, triggers and indexes with their text, and each table's columns."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        shapes = set(db.execute("SELECT type, name, sql FROM sqlite_master WHERE type <> 'table'"))
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {
            name: {(*row[1:4], str(row[4]).strip("'\""), row[5]) for row in db.execute(f"PRAGMA table_info({name})")}
            for name in names
        }
    return shapes, columns


@pytest.mark.parametrize("name", ["migration_before_commit", "migration_after_commit"])
@asynchronous
async def test_a_killed_migration_is_right_on_the_next_start(tmp_path: Path, filled: Path, name: str) -> None:
    truth = copied(filled, tmp_path)
    fresh = tmp_path / "fresh.db"
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        schema.create(db)
    as_version_1(tmp_path / "buffer.db")
    killed(tmp_path, f"{name}:1")
    async with opened(tmp_path) as buffer:
        lanes = buffer.lanes("mes", "now", ALL)
        assert (lanes[0].seq, lanes[0].n, lanes[0].purpose) == (DONE, DONE, "log")
        assert findings(buffer.files.db) == []
    assert truth.items() <= written(tmp_path / "buffer.db").items()
    assert objects(tmp_path / "buffer.db") == objects(fresh)


@asynchronous
async def test_a_damaged_file_of_version_1_is_salvaged(tmp_path: Path, filled: Path) -> None:
    truth = copied(filled, tmp_path)
    as_version_1(tmp_path / "buffer.db")
    (tmp_path / "suspect").write_text("a page cannot be read")
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        lanes = buffer.lanes("mes", "now", ALL)
        assert (lanes[0].seq, lanes[0].n) == (DONE, DONE)
        opened_kind = written(buffer.files.db, f"kind = {int(Kind.LOG_OPENED)}")
        assert len(opened_kind) == 3
    assert truth.items() <= written(tmp_path / "buffer.db").items()


if __name__ == "__main__":
    asyncio.run(salvage(Path(sys.argv[1])))
