"""The database is damaged while the agent is down, with a backlog in it: it starts at once, by itself, and says so.

What can be read is delivered. What was destroyed is named (``dropped_recorded``), never silent, and no key is used
twice. A write-ahead log may hold all that its damaged file did; then nothing is missing, and nothing need be noticed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge_agent.demo.processes import DemoError
from fault.rig import ANY, Rig, VolumeWorld
from fault.scenarios import scenario

Damage = Callable[[Rig, Path], None]


async def damaged(rig: Rig, damage: Damage, *, noticed: bool = True, dropped: int | bool | None = ANY) -> None:
    """A backlog, a kill, the damage, and everything that follows."""
    async with rig.volume(writer={"rate": 400}) as world:
        world.expect(dropped_recorded=dropped)
        await world.until(lambda: world.confirmed() > 200, "some delivered")
        world.broker.stop()
        await world.promised(world.accepted() + 6000)
        await world.kill_agent()
        damage(rig, world.buffer.path)
        world.broker.start()
        await started(rig, world)
    text = (rig.directory / "writer.log").read_text()
    rig.check(not noticed or "buffer damaged" in text, "the damage is noticed")


async def started(rig: Rig, world: VolumeWorld) -> None:
    """As systemd does: start it again when it ends over damage that it met, until salvage is at its end."""
    for _ in range(4):
        await world.start_agent()
        with contextlib.suppress(DemoError):
            await world.until(lambda: salvaged(world) or not world.agent.running, "salvage at its end", 60)
            await world.flow(3)
            return
        rig.notes["restarts"] = rig.notes.get("restarts", 0) + 1
    rig.check(False, "it starts at the fourth time")


def salvaged(world: VolumeWorld) -> bool:
    """Nothing is left to be taken over."""
    return not list(world.data_dir.glob("damaged-*/unsalvaged"))


@scenario(cost_s=20)
async def header_flipped(rig: Rig) -> None:
    """A byte of the file's header."""

    def damage(rig: Rig, path: Path) -> None:
        folded(path)
        flip(rig, path, 0, 16)

    await damaged(rig, damage)


@scenario(cost_s=20)
async def pages_flipped(rig: Rig) -> None:
    """Bytes all over the middle of the file; each is found when it is read, or by the ledger."""

    def damage(rig: Rig, path: Path) -> None:
        folded(path)
        size = path.stat().st_size
        for _ in range(40):
            flip(rig, path, size // 3, size)
        (path.parent / "suspect").write_text("a page cannot be read")

    await damaged(rig, damage)


@scenario(cost_s=20)
async def pages_zeroed(rig: Rig) -> None:
    """A run of pages reads as zeros."""

    def damage(rig: Rig, path: Path) -> None:
        folded(path)
        size = path.stat().st_size
        overwrite(path, (size * 2 // 3) & ~4095, bytes(16 * 4096))

    await damaged(rig, damage)


@scenario(cost_s=20)
async def file_truncated(rig: Rig) -> None:
    """Half of the file is gone."""

    def damage(rig: Rig, path: Path) -> None:
        folded(path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)

    await damaged(rig, damage)


@scenario(cost_s=20)
async def wal_flipped(rig: Rig) -> None:
    """A byte in the middle of the write-ahead log: SQLite ends there without a word."""
    await damaged(
        rig,
        lambda rig, path: flip(rig, wal(path), wal(path).stat().st_size // 3, wal(path).stat().st_size // 2),
        noticed=False,  # what had been folded into the database by then is not missed
    )


@scenario(cost_s=20)
async def wal_gone(rig: Rig) -> None:
    """The write-ahead log is deleted: committed records with it."""
    await damaged(rig, lambda rig, path: wal(path).unlink(), noticed=False)


@scenario(cost_s=20)
async def shm_gone(rig: Rig) -> None:
    """The shared-memory file is deleted, or full of nonsense: it is made anew, and nothing is lost."""

    def damage(rig: Rig, path: Path) -> None:
        shm = path.with_name("buffer.db-shm")
        if rig.chance.random() < 0.5:
            shm.unlink()
        else:
            shm.write_bytes(rig.chance.randbytes(32768))

    await damaged(rig, damage, noticed=False, dropped=0)


@scenario(cost_s=20)
async def text_in_its_place(rig: Rig) -> None:
    """Somebody saved a text file under the database's name."""
    await damaged(rig, lambda rig, path: path.write_text("this is no database\n" * 100) and None)


@scenario(cost_s=20)
async def database_gone(rig: Rig) -> None:
    """Database and write-ahead log are deleted; the second file knows how far they went."""

    def damage(rig: Rig, path: Path) -> None:
        for name in ("buffer.db", "buffer.db-wal", "buffer.db-shm"):
            path.with_name(name).unlink(missing_ok=True)

    await damaged(rig, damage, dropped=True)


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def folded(path: Path) -> None:
    """Put the write-ahead log into the file, as a checkpoint does: the damage then hits what was there for long."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def flip(rig: Rig, path: Path, first: int, end: int) -> None:
    """One bit of one byte in [first, end)."""
    at = rig.chance.randrange(first, end)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << rig.chance.randrange(8)]))


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
