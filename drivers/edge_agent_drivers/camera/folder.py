"""Pictures that somebody drops into a folder: each complete new file once, oldest first.

When is a file complete? When it is as large and as old as it was a look ago, and its format's end is there (JPEG's end
marker, PNG's last chunk and checksums); no lock and no rename is asked of the camera. One that stays incomplete for
``settle`` is rejected, once. A file written again under its old name is a new picture: many cameras have one name only.
So what became another file while it was read is not believed, nor cleared away unread. A picture is as old as the look
that found it as it is, however long it then waited for its turn.

What bounds it: at most MAX_FILES names are remembered (a folder with more that stay is refused, with what to do; of a
backlog that is cleared it is the oldest), a file above ``max_file`` is not read, and one picture at a time is in
memory; the others wait on the disk.
"""

from __future__ import annotations

import errno
import heapq
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_agent import clock
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Instant
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

    @classmethod
    def of(cls, stat: os.stat_result) -> _Mark:
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass(slots=True)
class _Seen:
    """A file of the folder at the last look."""

    mark: _Mark
    since: Instant  # it is as it is now
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
        skip = self._settings.existing == "skip"
        try:
            listed = self._list(every=skip or self._settings.after == "leave")
            if self._settings.after != "leave":
                for name in (DONE, REJECTED):
                    (self._path / name).mkdir(exist_ok=True)
        except OSError as error:
            self._refuse(error)
        now = clock.now()
        self._seen = {name: _Seen(mark, now, skip) for name, mark in listed.items()}

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

    def _list(self, *, every: bool) -> dict[str, _Mark]:
        """The pictures in the folder; of too many OSError (``every``), or the oldest. Raises OSError."""
        found: dict[str, _Mark] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES):
                    continue
                try:
                    stat = entry.stat()
                    is_file = entry.is_file()
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ELOOP):  # renamed meanwhile; a link to itself
                        raise
                    continue
                if is_file:
                    found[entry.name] = _Mark.of(stat)
                if len(found) > MAX_FILES and every:
                    raise OSError(errno.EFBIG, f"holds more than {MAX_FILES} pictures")
                if len(found) > 2 * MAX_FILES:
                    found = dict(heapq.nsmallest(MAX_FILES, found.items(), key=self._turn))
        return found

    def _turn(self, listed: tuple[str, _Mark]) -> tuple[bool, int, str]:
        """Order of a backlog: what stays, so that it stays known; then the oldest."""
        name, mark = listed
        seen = self._seen.get(name)
        return not (seen and seen.dealt_with), mark.modified_ns, name

    def _look(self) -> Frame | None:
        """The oldest picture that is complete and new. Raises DeviceLost or ReadingRejected."""
        try:
            listed = self._list(every=self._settings.after == "leave")
        except OSError as error:
            raise DeviceLost(self._device, f"{self._path}: {_text(error)}", hint=_hint(self._path, error)) from error
        now = clock.now()
        for name in self._seen.keys() - listed.keys():
            del self._seen[name]
        ready = []
        for name, mark in listed.items():
            seen = self._seen.get(name)
            if seen is None or seen.mark != mark:
                self._seen[name] = _Seen(mark, now)
            elif not seen.dealt_with and now.mono_ns > seen.since.mono_ns:
                ready.append((mark.modified_ns, name))
        for _modified, name in sorted(ready):
            frame = self._read(name, self._seen[name], now.mono_ns)
            if frame is not None:
                return frame
        return None

    def _read(self, name: str, seen: _Seen, now_mono_ns: int) -> Frame | None:
        """The picture in a file; None while it is incomplete. Raises ReadingRejected when it will not be one."""
        path = self._path / name
        settled = now_mono_ns - seen.since.mono_ns >= self._settings.settle * 1e9
        if seen.tried and not settled:
            return None
        seen.tried = True
        if seen.mark.size > self._settings.max_file:
            raise self._reject(name, f"is larger than folder.max_file ({seen.mark.size} bytes)")
        try:
            with path.open("rb") as file:
                data = file.read(seen.mark.size + 1)
                mark = _Mark.of(os.fstat(file.fileno()))
        except FileNotFoundError:
            return None
        except OSError as error:
            if settled:
                raise self._reject(name, f"cannot be read: {_text(error)}") from error
            return None
        if len(data) != seen.mark.size or mark != seen.mark:
            return None  # it grows, or was written again meanwhile
        image = picture_of(data) if whole(data) else None
        if image is None:
            if settled:
                raise self._reject(name, "is half a picture, damaged, or none at all")
            return None
        return Frame(image, seen.since, data, path.suffix.lower(), name)

    # --- afterwards -------------------------------------------------------------------------------------------

    def _reject(self, name: str, why: str) -> ReadingRejected:
        self._deal_with(name, REJECTED)
        return ReadingRejected(self._device, f"{_shown(name)} {why}", hint=f"look at it: ls -l {self._path}")

    def _deal_with(self, name: str, into: str) -> None:
        """Leave, move or delete a file; what cannot be read is never deleted, nor what is another file by now. Raises
        DeviceLost."""
        seen, path = self._seen.get(name), self._path / name
        if seen is not None:
            seen.dealt_with = True
        try:
            if self._settings.after == "leave" or seen is None or _Mark.of(path.stat()) != seen.mark:
                return
            if self._settings.after == "delete" and into == DONE:
                path.unlink()
                return
            there = self._path / into / name
            if there.exists():  # many cameras have one name only
                there = there.with_name(f"{path.stem}.{seen.mark.modified_ns}{path.suffix}")
            path.replace(there)
        except FileNotFoundError:
            return
        except OSError as error:
            what = f"{_shown(str(path))}: cannot be moved or deleted: {_text(error)}"
            raise DeviceLost(self._device, what, hint=_hint(self._path, error)) from error

    def _refuse(self, error: OSError) -> None:
        what, hint = f"{self._path}: {_text(error)}", _hint(self._path, error)
        kind = DeviceUnavailable if isinstance(error, FileNotFoundError) else DeviceRefused
        raise kind(self._device, what, hint=hint) from error


def _text(error: OSError) -> str:
    return error.strerror or str(error)


def _shown(name: str) -> str:
    """A name as text that any log takes: it may be no UTF-8, or move the cursor."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def _hint(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"make it, and let the camera write there: mkdir -p {path}"
    if error.errno == errno.EFBIG:
        return "move away what is there; the agent clears new ones itself: folder: {after: move} or {after: delete}"
    if error.errno == errno.ENOTDIR:
        return "source must name the folder, not a file in it"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        unit = f"systemctl edit edge-agent: [Service] ReadWritePaths={path}"
        return f"the agent's user must be able to read it, and for move and delete to write: ls -ld {path}; {unit}"
    return f"look at it: ls -l {path}"
