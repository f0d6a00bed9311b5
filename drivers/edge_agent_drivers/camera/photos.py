"""Photos kept on this PC by the hash of their content: ``<folder>/ab/abcdef….jpg``. Called from the camera's thread.

The name is the SHA-256 of the file's bytes, so whoever has the hash (a scan, a sample) finds the file and can see that
it is still what it was; the same picture twice is one file. A photo is written beside its place, synced and renamed:
whatever happens, a valid name leads to a whole picture, or to none.

Room: ``keep`` (while the clock can be trusted), ``max_size`` and ``min_free``. What is too old is found by walking the
folder in passes, one of its 256 subfolders a step: a step takes milliseconds, and its memory does not grow with the
number of photos. A pass counts how much was stored per minute; where that is above ``max_size`` the next pass deletes
the oldest that are too much. Where a photo finds no room it is not stored, and the reading says so. All
state is in the folder itself: a restart, a second camera on the same folder or a photo deleted by hand need no repair.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edge_agent import clock
from edge_agent.errors import EdgeAgentError
from edge_agent_drivers.camera.config import PhotoSettings
from edge_agent_drivers.camera.opencv import SUFFIXES

PASS_EVERY_S = 3600.0
AGAIN_S = 5.0  # while there is too much
HASTE_S = 0.25  # how long storing one photo may spend on making room for it
AIM = 0.9  # of max_size, so that making room is not needed again at once
_SLOT_NS = 60 * 10**9
_STALE_NS = 3600 * 10**9  # a half written file of a run that was killed
_PARTS = 256


@dataclass(slots=True)
class _Slot:
    """The photos of one minute."""

    size: int
    first_ns: int
    last_ns: int


class NotStored(EdgeAgentError):
    """This photo could not be kept; the text says why, in few words."""


class Photos:
    """One folder of photos. ``store`` and ``tidy`` are called from one thread."""

    def __init__(self, settings: PhotoSettings) -> None:
        self._settings = settings
        self._folder = Path(settings.folder)
        self._size: int | None = None  # of all photos; None until a first pass has counted them
        self._counted = 0  # in the pass under way, or since the last one
        self._by_slot: dict[int, _Slot] = {}
        self._delete_before_ns = 0
        self._part = _PARTS  # the next subfolder of the pass; _PARTS: none is under way
        self._pass_due_s = 0.0  # monotonic

    def prepare(self) -> None:
        """Make the folder. Raises OSError for what only another setting or permission can mend; a full or damaged disk
        is no reason to read no codes."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._folder))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
                raise

    def path_of(self, digest: str, suffix: str) -> Path:
        """Where the photo with this hash stands."""
        return self._folder / digest[:2] / f"{digest}{suffix}"

    def store(self, data: bytes, suffix: str) -> str:
        """Keep a picture; its SHA-256. It is on the disk when this returns. Raises NotStored."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path_of(digest, suffix)
        try:
            if path.exists():
                os.utime(path)  # it counts from its last use
                return digest
            self._make_room(len(data))
            _write(path, data)
        except OSError as error:
            raise NotStored(os.strerror(error.errno) if error.errno else str(error)) from error
        self._size = None if self._size is None else self._size + len(data)
        if int(digest[:2], 16) < self._part:  # the pass under way has been there already
            self._count(clock.now().at_ns, len(data))
        return digest

    def tidy(self) -> bool:
        """One step of a pass, if one is due. True while there is more to do."""
        if self._part >= _PARTS:
            if time.monotonic() < self._pass_due_s:
                return False
            self._begin_pass()
        self._walk(self._folder / f"{self._part:02x}")
        self._part += 1
        if self._part >= _PARTS:
            return self._end_pass()
        return True

    # --- room -------------------------------------------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        """Raises NotStored when there is no room for ``size`` bytes, and none can be made in HASTE_S."""
        settings = self._settings
        until_s = time.monotonic() + HASTE_S
        if size > AIM * settings.max_size:
            raise NotStored("the photo is larger than photos.max_size")
        while self._size is not None and self._size + size > settings.max_size:
            if self._part >= _PARTS:
                self._pass_due_s = 0.0
            self.tidy()
            if time.monotonic() > until_s:
                raise NotStored("photos.max_size is reached, and making room takes time")
        self._folder.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize - size < settings.min_free:
            self._pass_due_s = min(self._pass_due_s, time.monotonic() + 60)
            raise NotStored("less than photos.min_free is left on the disk")

    def _begin_pass(self) -> None:
        now_ns = clock.now().at_ns
        settings = self._settings
        if clock.synchronised():  # else a photo's age is not known
            self._delete_before_ns = max(self._delete_before_ns, now_ns - int(settings.keep * 1e9))
        surplus = (self._size or 0) - int(AIM * settings.max_size)
        for _minute, slot in sorted(self._by_slot.items()):
            if surplus <= 0:
                break
            share = min(1.0, surplus / slot.size)  # as if they had come evenly; the next pass knows better
            cut_ns = slot.first_ns + 1 + int(share * (slot.last_ns - slot.first_ns))
            self._delete_before_ns = max(self._delete_before_ns, cut_ns)
            surplus -= slot.size
        self._part, self._counted = 0, 0
        self._by_slot.clear()

    def _end_pass(self) -> bool:
        self._size = self._counted
        self._delete_before_ns = 0
        full = self._size > AIM * self._settings.max_size
        self._pass_due_s = time.monotonic() + (AGAIN_S if full else PASS_EVERY_S)
        return full

    def _walk(self, part: Path) -> None:
        """Count the photos of one subfolder and delete those that are too old."""
        try:
            entries = list(os.scandir(part))
        except OSError:
            return  # not there, mostly: no photo's hash begins so
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
                if entry.name.endswith(SUFFIXES):
                    if found.st_mtime_ns >= self._delete_before_ns:
                        self._count(found.st_mtime_ns, found.st_size)
                        continue
                elif not entry.name.endswith(".part") or clock.now().at_ns - found.st_mtime_ns < _STALE_NS:
                    continue
                os.unlink(entry.path)
            except OSError:
                continue  # gone meanwhile, or not ours to delete: it counts again in the next pass

    def _count(self, at_ns: int, size: int) -> None:
        self._counted += size
        slot = self._by_slot.setdefault(at_ns // _SLOT_NS, _Slot(0, at_ns, at_ns))
        slot.size += size
        slot.first_ns, slot.last_ns = min(slot.first_ns, at_ns), max(slot.last_ns, at_ns)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all. Raises OSError."""
    path.parent.mkdir(exist_ok=True)
    # of this thread's own: two cameras that share folders keep one picture at once
    part = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
