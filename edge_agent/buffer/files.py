"""The agent's directory: what is in it, who owns it, how much room there is.

::

    buffer.db (+ -wal, -shm)   the log and the registry
    witness.json               the state last published outside the database: notices a lost tail
    head                       the last commit's log, seq and hash: notices it exactly after a kill
    lock                       held (flock) by the running agent; holds its process id
    ballast                    room to clean up in when the disk is full
    suspect                    a run met damage in the database: the next start sets it aside
    damaged-<time>/            files that were set aside; never deleted by the agent
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from edge_agent.buffer.steps import step
from edge_agent.errors import StorageBusy, StorageError

MOVED = "moved\n"
UNSALVAGED = "unsalvaged"  # stands in a damaged-<time> directory until its records were taken over


@dataclass(frozen=True, slots=True)
class Files:
    """Paths below one data_dir."""

    data_dir: Path

    @property
    def db(self) -> Path:
        return self.data_dir / "buffer.db"

    @property
    def wal(self) -> Path:
        return self.data_dir / "buffer.db-wal"

    @property
    def shm(self) -> Path:
        return self.data_dir / "buffer.db-shm"

    @property
    def witness(self) -> Path:
        return self.data_dir / "witness.json"

    @property
    def head(self) -> Path:
        return self.data_dir / "head"

    @property
    def ballast(self) -> Path:
        return self.data_dir / "ballast"

    @property
    def suspect(self) -> Path:
        """There when a run met damage: the next start sets the database aside."""
        return self.data_dir / "suspect"

    @property
    def lock(self) -> Path:
        return self.data_dir / "lock"

    def size(self) -> int:
        """Bytes of the database with its write-ahead log."""
        return sum(_size(path) for path in (self.db, self.wal))

    def db_size(self) -> int:
        """Bytes of the database without its write-ahead log."""
        return _size(self.db)

    def wal_size(self) -> int:
        """Bytes of the write-ahead log."""
        return _size(self.wal)

    def ballast_size(self) -> int:
        """Bytes that are given up when the disk is full."""
        return _size(self.ballast)

    def free(self) -> int:
        """Bytes of the disk that are left for us."""
        info = os.statvfs(self.data_dir)
        return info.f_bavail * info.f_frsize


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def prepare(data_dir: Path) -> Files:
    """Make the directory if need be and see that it can be written. Raises StorageError with what to type."""
    try:
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    files = Files(data_dir)
    for path in (data_dir, files.db, files.wal, files.shm, files.lock):
        if path.exists() and not os.access(path, os.W_OK):
            if os.statvfs(data_dir).f_flag & os.ST_RDONLY:
                raise _unusable(data_dir, OSError(errno.EROFS, os.strerror(errno.EROFS)))
            if path is data_dir:
                raise _unusable(data_dir, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            user = os.environ.get("USER") or str(os.getuid())
            hint = f"sudo chown {user} {path} && sudo chmod u+rw {path}"
            raise StorageError(f"{path} may not be written by {user}", hint=hint)
    return files


def _unusable(data_dir: Path, error: OSError) -> StorageError:
    user = os.environ.get("USER") or str(os.getuid())
    if isinstance(error, PermissionError):
        hint = f"sudo install -d -m 750 -o {user} {data_dir}, or set agent.data_dir to a directory of yours"
    elif isinstance(error, FileExistsError | NotADirectoryError):
        hint = f"{data_dir} is not a directory; set agent.data_dir to another path"
    elif error.errno == errno.EROFS:
        hint = (
            f"the disk is read-only, mostly after an error: sudo dmesg | tail; then sudo mount -o remount,rw {data_dir}"
        )
    else:
        hint = "check the disk, or set agent.data_dir to another path"
    return StorageError(f"data_dir {data_dir} cannot be used: {error.strerror}", hint=hint)


def take_lock(files: Files) -> int:
    """Own the directory until the returned descriptor is closed. Raises StorageBusy naming the owner's pid."""
    try:
        descriptor = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise _unusable(files.data_dir, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageBusy(
            f"{files.data_dir} is in use by another edge-agent, process {owner}",
            hint=f"stop it first (systemctl stop edge-agent, or kill {owner}), or give this one a data_dir of its own",
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        pass  # a full disk: the lock itself holds without the number in it
    return descriptor


def keep_ballast(files: Files, size: int, min_free: int) -> bool:
    """Have a ballast file of ``size`` bytes if the disk has room for it above the floor. True if it is there."""
    try:
        if _size(files.ballast) >= size:
            return True
        if files.free() < min_free + size:
            return False
        descriptor = os.open(files.ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    except OSError:
        give_up_ballast(files)
        return False
    return True


def give_up_ballast(files: Files) -> None:
    """Make room, now. Any thread."""
    with contextlib.suppress(OSError):
        files.ballast.unlink(missing_ok=True)


def new_place(files: Files) -> Path:
    """A new ``damaged-<time>`` directory."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in itertools.count():
        place = files.data_dir / (f"damaged-{stamp}" if not number else f"damaged-{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o750)
            return place
    raise AssertionError("unreachable: the count has no end")


def condemn(files: Files, why: str) -> None:
    """Let the next start set the database aside. Any thread."""
    with contextlib.suppress(OSError):
        files.suspect.write_text(f"{why}\n", encoding="utf-8")


def set_aside(files: Files) -> Path:
    """Move the database's files into a new ``damaged-<time>`` directory; returns it. Nothing is deleted."""
    place = new_place(files)
    (place / UNSALVAGED).touch()
    sync_directory(place)
    step("salvage_before_move")
    _move(files, place)
    step("salvage_after_move")
    return place


def _move(files: Files, place: Path) -> None:
    """The database goes last: while it is not there, the move is not complete."""
    for path in (files.wal, files.shm, files.db):
        if path.exists():
            path.rename(place / path.name)
    (place / UNSALVAGED).write_text(MOVED)  # from now on a buffer.db in data_dir is a new one
    sync_directory(place)
    files.suspect.unlink(missing_ok=True)
    sync_directory(files.data_dir)


def complete_move(files: Files) -> None:
    """Set aside what a crash left of the files that were to be set aside."""
    for place in unsalvaged(files)[-1:]:
        if (place / UNSALVAGED).read_text() != MOVED:
            if (place / files.db.name).exists():
                (place / UNSALVAGED).write_text(MOVED)
            else:
                _move(files, place)


def unsalvaged(files: Files) -> list[Path]:
    """Directories that were set aside and not (wholly) salvaged, oldest first."""
    return sorted(mark.parent for mark in files.data_dir.glob(f"damaged-*/{UNSALVAGED}"))


def copy_aside(files: Files) -> Path:
    """Copy a damaged write-ahead log into a directory of its own; the database itself stays in use."""
    place = new_place(files)
    shutil.copy2(files.wal, place / files.wal.name)
    sync_directory(place)
    return place


def sync_directory(path: Path) -> None:
    """Make renames in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
