"""Pictures that somebody drops into a folder: each complete new file once, oldest first.

When is a file complete? When it is as large and as old as it was a look ago, and its format's end is there (JPEG's end
marker, PNG's last chunk and checksums); no lock and no rename is asked of the camera. One that stays incomplete for
``settle`` is rejected, once. A file written again under its old name is a new picture: many cameras have one name only.

What bounds it: at most MAX_FILES names are remembered (``after: leave``; a fuller folder is refused, with what to do),
a file above ``max_file`` is not read, and one picture at a time is in memory; the others wait on the disk.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_agent import clock
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent_drivers.camera.config import CameraSettings, FolderSettings
from edge_agent_drivers.camera.frame import Frame
from edge_agent_drivers.camera.opencv import SUFFIXES, picture_of, whole

MAX_FILES = 5000
LOOK_EVERY_S = 0.05
DONE, REJECTED = "done", "rejected"


class _Mark(NamedTuple):
    """What tells one state of a file from another."""

    size: int
    modified_ns: int
    inode: int


@dataclass(slots=True)
class _Seen:
    """A file of the folder at the last look."""

    mark: _Mark
    since_s: float  # monotonic: as it is now
    dealt_with: bool = False
    tried: bool = False  # in this state it is no picture yet: it is tried once more when it has settled


class Folder:
    """See :class:`edge_agent_drivers.camera.frame.Source`."""

    def __init__(self, device: str, settings: CameraSettings) -> None:
        self._device = device
        self._path = Path(settings.source)
        self._settings = settings.folder or FolderSettings()
        self._stopped = threading.Event()
        self._seen: dict[str, _Seen] = {}

    def open(self) -> None:
        try:
            listed = self._list()
            if self._settings.after != "leave":
                for name in (DONE, REJECTED):
                    (self._path / name).mkdir(exist_ok=True)
        except OSError as error:
            self._refuse(error)
        skip = self._settings.existing == "skip"
        self._seen = {name: _Seen(mark, time.monotonic(), skip) for name, mark in listed.items()}

    def next(self, since_mono_ns: int, timeout_s: float) -> Frame | None:
        until_s = time.monotonic() + timeout_s
        while not self._stopped.is_set():
            began_s = time.monotonic()
            frame = self._look()
            if frame is not None:
                return frame
            now_s = time.monotonic()
            if now_s >= until_s:
                break
            pause_s = max(LOOK_EVERY_S, 5 * (now_s - began_s))  # a full folder takes long to list
            self._stopped.wait(min(pause_s, until_s - now_s))
        return None

    def done(self, frame: Frame) -> None:
        self._deal_with(frame.name, DONE)

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._seen.clear()

    # --- looking ----------------------------------------------------------------------------------------------

    def _list(self) -> dict[str, _Mark]:
        """The pictures in the folder. Raises OSError."""
        found: dict[str, _Mark] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES):
                    continue
                try:
                    stat = entry.stat()
                    is_file = entry.is_file()
                except FileNotFoundError:
                    continue  # renamed or taken away in this moment
                if is_file:
                    found[entry.name] = _Mark(stat.st_size, stat.st_mtime_ns, stat.st_ino)
                if len(found) > MAX_FILES:
                    raise OSError(errno.EFBIG, f"holds more than {MAX_FILES} pictures")
        return found

    def _look(self) -> Frame | None:
        """The oldest picture that is complete and new. Raises DeviceLost or ReadingRejected."""
        try:
            listed = self._list()
        except OSError as error:
            raise DeviceLost(self._device, f"{self._path}: {_text(error)}", hint=_hint(self._path, error)) from error
        now_s = time.monotonic()
        for name in self._seen.keys() - listed.keys():
            del self._seen[name]
        ready = []
        for name, mark in listed.items():
            seen = self._seen.get(name)
            if seen is None or seen.mark != mark:
                self._seen[name] = _Seen(mark, now_s)
            elif not seen.dealt_with and now_s > seen.since_s:
                ready.append((mark.modified_ns, name))
        for _modified, name in sorted(ready):
            frame = self._read(name, self._seen[name], now_s)
            if frame is not None:
                return frame
        return None

    def _read(self, name: str, seen: _Seen, now_s: float) -> Frame | None:
        """The picture in a file; None while it is incomplete. Raises ReadingRejected when it will not be one."""
        path, settled = self._path / name, now_s - seen.since_s >= self._settings.settle
        if seen.tried and not settled:
            return None
        seen.tried = True
        if seen.mark.size > self._settings.max_file:
            raise self._reject(name, f"is larger than folder.max_file ({seen.mark.size} bytes)")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            if settled:
                raise self._reject(name, f"cannot be read: {_text(error)}") from error
            return None
        if len(data) != seen.mark.size:
            return None  # it grows
        image = picture_of(data) if whole(data) else None
        if image is None:
            if settled:
                raise self._reject(name, "is half a picture, damaged, or none at all")
            return None
        return Frame(image, clock.now(), data, path.suffix.lower(), name)

    # --- afterwards -------------------------------------------------------------------------------------------

    def _reject(self, name: str, why: str) -> ReadingRejected:
        self._deal_with(name, REJECTED)
        return ReadingRejected(self._device, f"{name} {why}", hint=f"look at it: ls -l {self._path}")

    def _deal_with(self, name: str, into: str) -> None:
        """Leave, move or delete a file; what cannot be read is never deleted. Raises DeviceLost."""
        seen, path = self._seen.get(name), self._path / name
        if seen is not None:
            seen.dealt_with = True
        try:
            if self._settings.after == "delete" and into == DONE:
                path.unlink(missing_ok=True)
            elif self._settings.after != "leave":
                path.replace(self._path / into / name)
        except FileNotFoundError:
            return
        except OSError as error:
            what = f"{path}: cannot be moved or deleted: {_text(error)}"
            raise DeviceLost(self._device, what, hint=_hint(self._path, error)) from error

    def _refuse(self, error: OSError) -> None:
        what, hint = f"{self._path}: {_text(error)}", _hint(self._path, error)
        kind = DeviceUnavailable if isinstance(error, FileNotFoundError) else DeviceRefused
        raise kind(self._device, what, hint=hint) from error


def _text(error: OSError) -> str:
    return error.strerror or str(error)


def _hint(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"make it, and let the camera write there: mkdir -p {path}"
    if error.errno == errno.EFBIG:
        return "let the agent clear it: folder: {after: move} or {after: delete}"
    if error.errno == errno.ENOTDIR:
        return "source must name the folder, not a file in it"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        unit = f"systemctl edit edge-agent: [Service] ReadWritePaths={path}"
        return f"the agent's user must be able to read it, and for move and delete to write: ls -ld {path}; {unit}"
    return f"look at it: ls -l {path}"
