"""A damaged database as it would read with its first page put right. The file itself is neither changed nor copied.

SQLite takes a page from the write-ahead log where that has it. So a *view* is a directory beside the damaged file with
a hard link to it and a write-ahead log that ends in the pages put right: the header (what is in it is known but for
the file's length), or, where all of the first page is gone, the list of tables. Where a table begins is known too:
with ``auto_vacuum`` all roots are at the front of the file, in the order in which ``schema.TABLES`` makes them. A file
that came to be otherwise (by a migration) shows by rows that have another number of columns; then there is no view.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from edge_agent.buffer import schema, wal
from edge_agent.buffer.files import sync_directory

ATTEMPTS = 4
DIRECTORY = "view"
PAGE = 4096
HEADER = 100
_MAGIC, _FORMAT, _SALTS = b"\x37\x7f\x06\x82", (3_007_000).to_bytes(4, "big"), b"edgeview"
_TREE = {b"\x05": 12, b"\x0d": 8, b"\x02": 12, b"\x0a": 8}  # kind of b-tree page -> bytes of its header


def database(directory: Path) -> Path:
    """Where the view of what is in ``directory`` has its database."""
    return directory / DIRECTORY / "buffer.db"


def opened(directory: Path) -> bool:
    """Whether there is a view. Then only it is to be opened: SQLite has one log's index for all links to a file."""
    return database(directory).exists()


def build(directory: Path, attempt: int) -> Path | None:
    """Make the view: attempt 0 with the header put right, 1 with the whole first page; 2, 3: without the old log.

    Returns its database; None where that cannot help.
    """
    source, view = directory / "buffer.db", directory / DIRECTORY
    remove(directory)
    pages = source.stat().st_size // PAGE if source.is_file() else 0
    if pages < 2:
        return None
    fresh = _fresh()
    with source.open("rb") as file:
        if attempt % 2 == 0:
            right = {1: fresh[1][:HEADER] + file.read(PAGE)[HEADER:]}
        else:
            right = fresh if _fits(file.fileno()) else {}
    new = directory / f"{DIRECTORY}.new"
    old = directory / "buffer.db-wal" if attempt < 2 else None
    with contextlib.suppress(OSError):  # a file system without hard links: the damage stays
        if right:
            new.mkdir()
            os.link(source, new / source.name)
            _write_log(new / "buffer.db-wal", old, pages, right)
            sync_directory(new)
            new.rename(view)
            return view / source.name
    return None


def remove(directory: Path) -> None:
    """Take the view of what is in ``directory`` away, if there is one."""
    for name in (DIRECTORY, f"{DIRECTORY}.new"):
        shutil.rmtree(directory / name, ignore_errors=True)


def _fresh() -> dict[int, bytes]:
    """The header and the list of tables of a new file: its pages that are no table's."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.create(db)
        roots = {root for (root,) in db.execute("SELECT rootpage FROM sqlite_master")}
        image = bytearray(db.serialize())
    image[18:20] = b"\x02\x02"  # it has a write-ahead log
    return {
        number: bytes(image[(number - 1) * PAGE : number * PAGE])
        for number in range(1, len(image) // PAGE + 1)
        if number not in roots and number != 2  # 2 says where pages are to be moved to: nobody who reads asks it
    }


def _fits(descriptor: int) -> bool:
    """Whether the tables' roots lie where a new file has them: pages of trees, with rows as wide as theirs."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.create(db)
        columns = "(SELECT count(*) FROM pragma_table_info(t.name))"
        tables = db.execute(
            f"SELECT name, rootpage, sql, {columns} FROM sqlite_master t WHERE type = 'table'"
        ).fetchall()
    for name, root, text, width in tables:
        page = os.pread(descriptor, PAGE, (root - 1) * PAGE)
        kind = page[:1]
        if kind not in (b"\x02\x0a" if "WITHOUT ROWID" in text else b"\x05\x0d") or not kind:
            return False
        if kind == b"\x05" or not any(page[3:5]):
            continue  # nothing of a row is in it
        at = int.from_bytes(page[_TREE[kind] : _TREE[kind] + 2], "big") + (4 if kind == b"\x02" else 0)
        for _ in range(2 if kind == b"\x0d" else 1):  # the length, the rowid
            _, at = _number(page, at)
        end, after = _number(page, at)
        end, found = at + end, 0
        while after < end <= PAGE:
            _, after = _number(page, after)
            found += 1
        if not width - schema.ADDED.get(name, 0) <= found <= width:
            return False
    return True


def _number(page: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = 0
    for byte in page[at : at + 8]:
        value, at = value << 7 | byte & 0x7F, at + 1
        if not byte & 0x80:
            break
    return value, at


def _write_log(path: Path, old: Path | None, pages: int, right: Mapping[int, bytes]) -> None:
    """The write-ahead log of the view: what ``old`` has of whole commits, then the pages put right as one more."""
    found = wal.look(old) if old is not None else None
    start = (_MAGIC + _FORMAT + PAGE.to_bytes(4, "big") + bytes(4)) + _SALTS
    sums = wal.checksum(start, "little")
    content = start + wal.packed(sums)
    if old is not None and found is not None and True in found.commits:
        frames = len(found.commits) - found.commits[::-1].index(True)
        with old.open("rb") as file:
            content = file.read(wal.HEADER + frames * (wal.FRAME_HEADER + PAGE))
        last = content[-(wal.FRAME_HEADER + PAGE) :]
        pages = max(pages, int.from_bytes(last[4:8], "big"))
        sums = int.from_bytes(last[16:20], "big"), int.from_bytes(last[20:24], "big")
    order, salts, pages = wal.order_of(content), content[16:24], max(pages, *right)
    with path.open("wb") as file:
        file.write(content)
        for number, page in sorted(right.items()):
            if number == 1:
                page = page[:28] + pages.to_bytes(4, "big") + bytes(8) + page[40:]  # its length, and no free pages
            head = number.to_bytes(4, "big") + (pages if number == max(right) else 0).to_bytes(4, "big")
            sums = wal.checksum(head + page, order, sums)
            file.write(head + salts + wal.packed(sums) + page)
        file.flush()
        os.fsync(file.fileno())
