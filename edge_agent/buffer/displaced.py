"""The buffer's files deleted, moved or replaced under the running agent.

SQLite never notices: it goes on in files that nobody will find again, and whatever is committed there is gone with the
process. So upkeep looks every second whether the paths still lead to the files that were opened. Where they do not,
the run ends before the next commit, with all that it can still read put where the next one finds it:

- the write-ahead log or the shared memory: the log is moved into the database, which then holds everything;
- the database: it is copied into a ``damaged-<time>`` directory, from which the next start takes it over, and what
  lies in its place is moved into ``stranger`` there. Without room for a copy, what is gone is counted by ``head``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edge_agent.buffer import witness
from edge_agent.buffer.files import MOVED, UNSALVAGED, Files, condemn, new_place, sync_directory
from edge_agent.buffer.stats import used_bytes
from edge_agent.errors import StorageDisplaced

PAGES = 2000  # that are copied between two signs of life
HINT = "see who did it: only the agent may touch these files. It starts again by itself and goes on"

Identity = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Home:
    """What the paths lead to, by device and inode."""

    data_dir: Identity
    db: Identity
    beside: tuple[Identity, Identity]

    @classmethod
    def of(cls, files: Files) -> Home:
        return cls(_identity(files.data_dir), _identity(files.db), (_identity(files.wal), _identity(files.shm)))


def _identity(path: Path) -> Identity:
    """None: nothing is there. Another OSError than that says nothing about the files, and goes up."""
    try:
        stat = os.stat(path)  # never opened: closing it would drop SQLite's locks
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def rescue(
    connection: sqlite3.Connection, files: Files, home: Home, agent: str, spare: int, beat: Callable[[], None]
) -> NoReturn:
    """End the run with everything kept that can be. Raises StorageDisplaced, always.

    On the writer's thread, outside a transaction. ``spare``: bytes that a copy has to leave free.
    """
    now = Home.of(files)
    if now.data_dir != home.data_dir:
        raise StorageDisplaced(f"{files.data_dir} was moved, deleted or replaced under the running agent", hint=HINT)
    if now.db == home.db:
        kept = "nothing is lost" if _moved(connection) else "the next start says what is lost"
        raise StorageDisplaced(
            f"the write-ahead log or the shared memory was deleted or replaced under the running agent; {kept}",
            hint=HINT,
        )
    try:
        place = _copy(connection, files, agent, spare, beat)
    except (sqlite3.Error, OSError) as error:
        if files.db.exists():
            condemn(files, "another file was in its place")
        raise StorageDisplaced(
            f"{files.db.name} was deleted or replaced under the running agent, and cannot be copied: {error}", hint=HINT
        ) from error
    text = f"{files.db.name} was deleted or replaced under the running agent; what it held is in {place.name}"
    raise StorageDisplaced(text, hint=HINT)


def _moved(connection: sqlite3.Connection) -> bool:
    """Whether all of the write-ahead log is in the database now."""
    try:
        busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    except sqlite3.Error:
        return False
    return not busy and frames == copied


def _copy(connection: sqlite3.Connection, files: Files, agent: str, spare: int, beat: Callable[[], None]) -> Path:
    """The directory that holds the database now. Only its mark makes it count, so a kill leaves it unused."""
    if files.free() - spare < used_bytes(connection):
        raise OSError("the disk has no room for a copy")
    place = new_place(files)
    try:
        copy = place / files.db.name
        with closing(sqlite3.connect(copy)) as target:
            connection.backup(target, pages=PAGES, progress=lambda *_: beat())
        witness.write(files.witness, witness.collect(connection, agent))
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    stranger = place / "stranger"
    stranger.mkdir()
    for path in (files.wal, files.shm, files.db):
        with contextlib.suppress(FileNotFoundError):
            path.rename(stranger / path.name)
    (place / UNSALVAGED).write_text(MOVED)
    sync_directory(place)
    files.suspect.unlink(missing_ok=True)  # by a reader that met the stranger
    sync_directory(files.data_dir)
    return place
