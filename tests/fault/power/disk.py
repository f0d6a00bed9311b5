"""What a disk may hold after the power went: the synced state, and of the rest whatever chance leaves.

A recording (see recorder.c) is replayed up to the cut. A write or truncation of a file is certain once that file was
synced; a new name, a rename or a removal once anything was (so journalling file systems do it, ext4 among them). Of
what is not certain a disk may keep any part in any order: each write is kept, dropped, or torn at a sector's border.
Names change in order only, so of their changes some first ones are kept.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CREATE, WRITE, TRUNCATE, SYNC, RENAME, UNLINK = range(1, 7)
SECTOR = 512
_HEAD, _TAIL = struct.Struct("<BI"), struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded call; ``a`` is an offset or a size."""

    op: int
    path: str
    a: int
    data: bytes


def read_recording(path: Path) -> list[Op]:
    """All calls, in the kernel's order."""
    return list(_ops(path.read_bytes()))


def _ops(raw: bytes) -> Iterator[Op]:
    at = 0
    while at < len(raw):
        op, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        path = raw[at : at + length].decode()
        at += length
        a, _, size = _TAIL.unpack_from(raw, at)
        at += _TAIL.size
        yield Op(op, path, a, raw[at : at + size])
        at += size


@dataclass(slots=True)
class _File:
    """One inode: what is certain of it, and what was done to it since."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)

    def sync(self) -> None:
        for op in self.pending:
            _apply(self.certain, op, len(op.data))
        self.pending.clear()


def _apply(content: bytearray, op: Op, size: int) -> None:
    if op.op == TRUNCATE:
        del content[op.a :]
        content.extend(bytes(op.a - len(content)))
    else:
        content.extend(bytes(max(0, op.a + size - len(content))))
        content[op.a : op.a + size] = op.data[:size]


class Disk:
    """The files below ``root`` while a recording is replayed; ``cut`` says what a power cut leaves of them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, _File] = {}  # as the running process sees them
        self._certain: dict[str, _File] = {}  # as a power cut cannot take away
        self._changes: list[Op] = []  # of names, not certain yet
        self._made: dict[int, _File] = {}

    def apply(self, op: Op) -> None:
        """The next recorded call."""
        if op.op == SYNC:
            if op.path in self._names:
                self._names[op.path].sync()
            self._settle_names()  # a sync of a file or a directory writes the journal
        elif op.op in (WRITE, TRUNCATE):
            self._names[op.path].pending.append(op)
        else:
            if op.op == CREATE:
                self._made[id(op)] = _File()
            self._change(self._names, op)
            self._changes.append(op)

    def _change(self, names: dict[str, _File], op: Op) -> None:
        if op.op == CREATE:
            names[op.path] = self._made[id(op)]
        elif op.op == RENAME and op.path in names:
            names[op.data.decode()] = names.pop(op.path)
        elif op.op == UNLINK:
            names.pop(op.path, None)

    def _settle_names(self) -> None:
        for op in self._changes:
            self._change(self._certain, op)
        self._changes.clear()

    def cut(self, chance: random.Random) -> Mapping[str, bytes]:
        """Path below the root -> content, as one unlucky disk shows it after the power is back."""
        names = dict(self._certain)
        for op in self._changes[: chance.randint(0, len(self._changes))]:
            self._change(names, op)
        kept = chance.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        return {path[len(self._root) + 1 :]: self._left(file, kept, chance) for path, file in names.items()}

    @staticmethod
    def _left(file: _File, kept: float, chance: random.Random) -> bytes:
        content = bytearray(file.certain)
        for op in file.pending:
            if chance.random() < kept:
                _apply(content, op, len(op.data))
            elif op.op == WRITE and chance.random() < 0.5:
                _apply(content, op, SECTOR * chance.randint(0, len(op.data) // SECTOR))
        return bytes(content)


def replay(ops: Sequence[Op], root: str, cuts: Sequence[int], seed: int) -> Iterator[tuple[int, Mapping[str, bytes]]]:
    """(how many calls were made, what is left) for each place in ``cuts``, ascending."""
    disk, done = Disk(root), 0
    for cut in cuts:
        while done < cut:
            disk.apply(ops[done])
            done += 1
        yield cut, disk.cut(random.Random(seed * 1_000_003 + cut))
