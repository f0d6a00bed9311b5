"""A folder into which files are put whole and once, though the process may be killed between any two steps.

::

    1  each new file is written as .edge-agent/<agent>-<route>/<number>.part, and synced    file_written
    2  state.json names the numbers of records in them, and each part with its final name   file_intended
    3  each part is renamed into the folder, and the folder synced                          file_renamed

Before 2 nothing has happened: parts that no state names are deleted when the folder is opened. After 2 everything has:
a part that is still there is renamed at the next opening, one that is gone was renamed, wherever the importer has
taken it since. ``state.json`` is replaced atomically, remembers by stream which n are in a file, and so leaves out
what comes a second time. Part numbers only grow, so no later part can be taken for an earlier one.

Files are never overwritten, and never touched again: importers may take them at any moment. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edge_agent.buffer.steps import step
from edge_agent.routes.sink import SinkAway, SinkRefused

STEPS = ("file_written", "file_intended", "file_renamed")
STREAMS = 200  # whose numbers are remembered, the last ones used
MAX_NAME_BYTES = 200
_NOT_SYNCABLE = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # folders of some network file systems
_NOT_LOCKABLE = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class Numbers:
    """A set of numbers, kept as ranges. What is written is dense sooner or later, so it stays small."""

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self.ranges = [(first, last) for first, last in ranges]

    def __contains__(self, n: int) -> bool:
        return any(first <= n <= last for first, last in self.ranges)

    def add(self, ranges: Iterable[Sequence[int]]) -> None:
        """Take them in."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted([*self.ranges, *((first, last) for first, last in ranges)]):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        self.ranges = joined


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is to become a file; ``numbers`` are the ranges of its stream that it settles."""

    name: str
    data: bytes
    stream: str
    numbers: Sequence[tuple[int, int]]


class Folder:
    """One route's view of its folder. Raises SinkAway and SinkRefused."""

    def __init__(self, path: str, mount: str | None, who: str) -> None:
        self.path = Path(path)
        self._mount = mount
        self._own = self.path / ".edge-agent" / re.sub(r"[^\w.-]", "_", who)
        self._state = self._own / "state.json"
        self._lock: int | None = None
        self._done: dict[str, Numbers] = {}
        self._part = 0

    def open(self) -> None:
        """Look whether it is there, and finish what was begun."""
        self.look()
        with self._failing():
            self._own.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            publishing = self._read_state()
            self._rename(publishing)
            for part in self._own.glob("*.part"):
                part.unlink()

    def look(self) -> None:
        """Raise SinkAway while the folder is not there."""
        with self._failing():
            if self._mount is not None and not os.path.ismount(self._mount):
                raise SinkAway(f"nothing is mounted on {self._mount}", hint=f"mount it: mount {self._mount}")
            if not self.path.is_dir():
                hint = f"is the share mounted? If it is new: mkdir {self.path}, writable for the agent's user"
                raise SinkAway(f"{self.path} is no folder", hint=hint)

    def close(self) -> None:
        """Let another agent have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has(self, stream: str, n: int) -> bool:
        """Whether this record is in a file already."""
        return stream in self._done and n in self._done[stream]

    def publish(self, files: Sequence[NewFile]) -> None:
        """Make them appear. Once this has raised, only ``open`` knows how far it came."""
        self.look()
        parts: list[tuple[str, str]] = []
        with self._failing():
            mode = self.path.stat().st_mode & 0o666  # who may use the folder may use its files
            try:
                for file in files:
                    self._part += 1
                    parts.append((f"{self._part}.part", self._free(file.name, [final for _, final in parts])))
                    _write(self._own / parts[-1][0], file.data, mode)
                    step("file_written")
                for file in files:
                    numbers = self._done.pop(file.stream, Numbers())
                    numbers.add(file.numbers)
                    self._done[file.stream] = numbers  # the last one used stands last
                self._prepare_state(parts)
            except OSError:
                for part, _ in parts:  # a full disk needs their room
                    with contextlib.suppress(OSError):
                        (self._own / part).unlink(missing_ok=True)
                raise
            self._take_state()  # if this fails it may have happened all the same: the parts stay, ``open`` sees
            step("file_intended")
            self._rename(parts)

    # --- steps -------------------------------------------------------------------------------------------------

    def _rename(self, parts: Iterable[Sequence[str]]) -> None:
        renamed = False
        for part, final in parts:
            if (self._own / part).exists():
                os.rename(self._own / part, self.path / self._free(final, ()))
                renamed = True
                step("file_renamed")
        if renamed:
            _sync(self.path)
            _sync(self._own)

    def _free(self, name: str, taken: Sequence[str]) -> str:
        """``name``, with a number in it if a file has it: somebody emptied our state, or put it there."""
        stem, dot, ending = name.rpartition(".")
        tries = (name, *(f"{stem}-again{number}{dot}{ending}" for number in range(1, 1000)))
        return next(one for one in tries if one not in taken and not (self.path / one).exists())

    def _read_state(self) -> list[Sequence[str]]:
        """Know again what is done; returns the parts that were about to be renamed."""
        try:
            text = self._state.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._done, self._part = {}, 0
            return []
        try:
            state = json.loads(text)
            self._done = {stream: Numbers(ranges) for stream, ranges in state["done"].items()}
            self._part = int(state["part"])
            return [(str(part), str(final)) for part, final in state["publishing"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = f"move it away; what is not settled yet then appears a second time: mv {self._state} /tmp/"
            raise SinkRefused(f"{self._state} is damaged", hint=hint) from error

    def _prepare_state(self, publishing: Sequence[Sequence[str]]) -> None:
        while len(self._done) > STREAMS:
            del self._done[next(iter(self._done))]
        done = {stream: numbers.ranges for stream, numbers in self._done.items()}
        state = {"v": 1, "part": self._part, "publishing": publishing, "done": done}
        _write(self._state.with_name("state.new"), json.dumps(state).encode(), 0o600)

    def _take_state(self) -> None:
        os.replace(self._state.with_name("state.new"), self._state)
        _sync(self._own)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self._own / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NOT_LOCKABLE:
                os.close(lock)
                hint = "give each agent its own agent.id, and each route a folder of its own"
                raise SinkRefused(f"another agent with this id writes into {self.path}", hint=hint) from error
        self._lock = lock

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What the file system says, in our words."""
        try:
            yield
        except PermissionError as error:
            hint = (
                f"the agent's user must be able to write there: ls -ld {self.path}; for the service see docs/sinks.md"
            )
            raise SinkRefused(f"{self.path}: {error.strerror}", hint=hint) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = f"free some space: df -h {self.path}" if full else f"is the share there? ls {self.path}"
            raise SinkAway(f"{self.path}: {error.strerror}", hint=hint) from error


def file_name(template: str, ending: str, **parts: str | int) -> str:
    """A name that every file system takes, and that no other file has."""
    plain = {key: re.sub(r"[^\w.-]", "_", str(value)) for key, value in parts.items()}
    name = template.format(**plain)
    if len(name.encode()) > MAX_NAME_BYTES:
        start = name.encode()[: MAX_NAME_BYTES - 13].decode(errors="ignore")
        name = f"{start}-{sha256(name.encode()).hexdigest()[:12]}"
    return f"{name}.{ending}"


def _write(path: Path, data: bytes, mode: int) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SYNCABLE:
            raise
    finally:
        os.close(handle)
