"""Real damage to real files: what a start notices, sets aside, takes over and says."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge_agent.buffer import Buffer, BufferSettings, open_buffer, open_readonly
from edge_agent.buffer.files import Files
from edge_agent.buffer.recovery import Aside
from edge_agent.errors import StorageCorrupt, StorageDisplaced, StorageError
from edge_agent.model import Kind
from support.buffer_rig import ALL, asynchronous, closing, opened, opening, preamble, read_all, salvaged, sample

SAMPLES = 3000


async def fill(data_dir: Path, *, delivered: int = 1000) -> tuple[str, int]:
    """A buffer whose route has done ``delivered`` records; a closed and an open cycle. Returns (log, last seq)."""
    async with opened(data_dir) as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN1")
        buffer.append([*records, closing(cycle, {})])
        records, cycle, _ = opening(buffer, "SN2")
        buffer.append(records)
        for number in range(SAMPLES):
            buffer.append([sample([number, True, 0], cycle)])
            await buffer.room()
        await buffer.committed(buffer.next_seq - 1)
        if delivered:
            buffer.progress(lane, delivered, delivered)
        log = buffer.log
    return log, last_seq(data_dir)


def last_seq(data_dir: Path) -> int:
    with contextlib.closing(sqlite3.connect(data_dir / "buffer.db")) as db:
        return int(db.execute("SELECT max(seq) FROM record").fetchone()[0])


def finding(buffer: Buffer) -> dict[str, Any] | None:
    with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
        row = db.execute("SELECT text, details FROM finding WHERE code = 'storage' ORDER BY seq DESC").fetchone()
    return None if row is None else {"text": row[0], **orjson.loads(row[1])}


def page_of(data_dir: Path, seq: int) -> int:
    """The file offset of the page that holds this record, found by its body."""
    data = (data_dir / "buffer.db").read_bytes()
    place = data.index(b'"values":[%d,true,0]' % seq)
    return place // 4096 * 4096


@asynchronous
async def test_a_clean_restart_reports_nothing(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path) as buffer:
        await buffer.committed(buffer.next_seq - 1)
        assert finding(buffer) is None


def text_file(path: Path) -> None:
    path.write_text("this is no database\n" * 1000)


def zeroed_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [text_file, zeroed_header, emptied, deleted])
@asynchronous
async def test_a_lost_database_starts_anew_above_what_was_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    log, last = await fill(tmp_path)
    damage(tmp_path / "buffer.db")
    async with opened(tmp_path) as buffer:
        await buffer.committed(buffer.next_seq - 1)
        assert buffer.log != log
        set_aside = buffer.salvaging is not None
        await salvaged(buffer)
        told = finding(buffer)
        assert told is not None
        if damage is zeroed_header:  # what is in it is known: the rest is read as it stands
            assert set_aside and told["lost"] == 0
        elif set_aside:
            assert told["lost"] == last - 1000 and told["unreadable"] == [[1001, last]]
        else:
            assert told["lost_last_seq"] == last and told["lost_log"] == log
        lanes = buffer.lanes("mes", "now", ALL)
        assert lanes[0].log == log and lanes[0].seq == 1000  # the witness knew
        assert lanes[-1].from_seq > last
        restored = buffer.restored()
        assert [cycle.serial for cycle in restored.cycles] == ["SN2"]  # and the open cycle, and the counter
        assert restored.counters == {("OP20", 1): (17, 0)}
        assert read_all(buffer, lanes[-1])[0].kind == Kind.LOG_OPENED
    assert open_verified(tmp_path)


def open_verified(data_dir: Path) -> bool:
    archive = open_readonly(data_dir)
    try:
        return archive.verify().intact
    finally:
        archive.close()


@asynchronous
async def test_a_truncated_database_is_set_aside_and_salvaged(tmp_path: Path) -> None:
    log, last = await fill(tmp_path)
    path = tmp_path / "buffer.db"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 3 // 4)
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        told = finding(buffer)
        assert told is not None and told["salvaged"] > 0 and told["set_aside"]
        lanes = buffer.lanes("mes", "now", ALL)
        assert lanes[0].log == log and lanes[0].seq == 1000
        rows = read_all(buffer, lanes[0])
        assert rows and all(1000 < row.seq <= last for row in rows)
        assert buffer.next_seq > last
    assert (tmp_path / told["set_aside"][0] / "buffer.db").exists()  # the evidence stays
    assert open_verified(tmp_path)


@asynchronous
async def test_a_zeroed_page_is_met_while_running_and_salvaged_at_the_next_start(tmp_path: Path) -> None:
    log, _ = await fill(tmp_path)
    offset = page_of(tmp_path, 2000)
    with (tmp_path / "buffer.db").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(4096))
    async with opened(tmp_path) as buffer:
        lanes = buffer.lanes("mes", "now", ALL)
        with pytest.raises(StorageCorrupt, match="damaged"):
            read_all(buffer, lanes[0])
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        told = finding(buffer)
        assert told is not None
        first, last = told["unreadable"][0]
        assert 0 < told["lost"] < 60 and last - first + 1 == told["lost"]
        lanes = buffer.lanes("mes", "now", ALL)
        old = [lane for lane in lanes if lane.log == log]
        assert [(lane.number, lane.from_seq, lane.n) for lane in old] == [(2, 1001, 0)]  # renumbered: some are gone
        seqs = {row.seq for row in read_all(buffer, old[0])}
        assert seqs == set(range(1001, (old[0].to_seq or 0) + 1)) - set(range(first, last + 1))
        (unit,) = await asyncio.to_thread(trace, tmp_path, "SN2")
        assert unit.cycles[0].state == "open"
    archive = open_readonly(tmp_path)
    verdict = archive.verify()
    archive.close()
    assert verdict.intact and verdict.unlinked == 0


def trace(data_dir: Path, serial: str) -> Any:
    archive = open_readonly(data_dir)
    try:
        return archive.trace(serial)
    finally:
        archive.close()


@asynchronous
async def test_a_killed_salvage_is_completed(tmp_path: Path) -> None:
    log, _ = await fill(tmp_path)
    place = tmp_path / "damaged-20260101T000000Z"  # as a crash in the middle of the move leaves it
    place.mkdir()
    (place / "unsalvaged").touch()
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        told = finding(buffer)
        assert told is not None and told["salvaged"] > SAMPLES and told["lost"] == 0
        lanes = buffer.lanes("mes", "now", ALL)
        assert [(lane.log, lane.number, lane.seq, lane.n) for lane in lanes[:1]] == [(log, 1, 1000, 1000)]
    assert not (place / "unsalvaged").exists() and (place / "buffer.db").exists()


FIRST_PAGE: dict[str, tuple[int, bytes]] = {
    "magic": (3, b"x"), "page size": (16, b"\x02\x00"), "header": (0, bytes(100)), "page": (0, bytes(4096)),
    "noise": (0, bytes(range(256)) * 16),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST_PAGE)
@asynchronous
async def test_what_lies_behind_a_damaged_first_page_is_all_taken_over(tmp_path: Path, name: str) -> None:
    log, last = await fill(tmp_path)
    at, data = FIRST_PAGE[name]
    with (tmp_path / "buffer.db").open("r+b") as file:
        file.seek(at)
        file.write(data)
    damaged = (tmp_path / "buffer.db").read_bytes()
    for _ in range(2):  # it goes on after a restart
        async with opened(tmp_path) as buffer:
            buffer.lanes("mes", "now", ALL)
            assert buffer.salvage is not None
            place = tmp_path / buffer.salvage.status()["place"]
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        told = finding(buffer)
        assert told is not None and (told["salvaged"], told["lost"]) == (last, 0)
        lanes = buffer.lanes("mes", "now", ALL)
        assert (lanes[0].log, lanes[0].seq, lanes[0].n) == (log, 1000, 1000)
        assert [row.seq for row in read_all(buffer, lanes[0])] == list(range(1001, last + 1))
        assert buffer.lookup.unit("serial", "SN1") is not None
    assert (place / "buffer.db").read_bytes() == damaged  # as it was
    assert {path.name for path in place.iterdir()} <= {"buffer.db", "buffer.db-wal", "buffer.db-shm"}
    assert open_verified(tmp_path)


@asynchronous
async def test_the_header_is_put_right_behind_what_a_write_ahead_log_holds(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as buffer:
        await buffer.committed(buffer.append([sample([number, True, 0]) for number in range(200)]))
    with contextlib.closing(sqlite3.connect(tmp_path / "a/buffer.db", isolation_level=None)) as db:
        db.execute("UPDATE source SET name = name")  # a page that is not the first
        db.execute("UPDATE counter SET epoch = 0")
        db.execute("INSERT INTO station VALUES ('of the log')")
        shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("*-shm"))
    with (tmp_path / "b/buffer.db").open("r+b") as file:
        file.write(bytes(100))
    aside = Aside(tmp_path / "b")
    assert aside.query("SELECT name FROM station") == [("of the log",)]
    assert aside.query("SELECT count(*) FROM record") == [(202,)]
    assert aside.query("PRAGMA quick_check") == [("ok",)]
    aside.close()


@asynchronous
async def test_a_first_page_is_not_made_up_where_the_tables_lie_elsewhere(tmp_path: Path) -> None:
    await fill(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "buffer.db", isolation_level=None)) as db:
        db.execute("DROP TABLE pick")
        db.execute("CREATE TABLE pick (lane INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (lane, seq))")
    with (tmp_path / "buffer.db").open("r+b") as file:
        file.write(bytes(4096))
    aside = Aside(tmp_path)
    assert aside.query("SELECT * FROM record") == []
    aside.close()
    assert not (tmp_path / "view").exists()


# --- the write-ahead log -------------------------------------------------------------------------------------------


async def crashed_copy(source: Path, target: Path) -> tuple[str, int]:
    """A data_dir as a crash leaves it: copied while the agent runs, with frames in the write-ahead log."""
    async with opened(source) as buffer:
        buffer.lanes("mes", "now", ALL)
        for number in range(40):
            await buffer.committed(buffer.append([sample([number, True, 0])]))
        await asyncio.to_thread(buffer.upkeep.write_witness)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("ballast", "*.db-shm"))
        return buffer.log, buffer.durable_seq


@asynchronous
async def test_a_kill_is_no_damage(tmp_path: Path) -> None:
    _, last = await crashed_copy(tmp_path / "a", tmp_path / "b")
    async with opened(tmp_path / "b") as buffer:
        await buffer.committed(buffer.next_seq - 1)
        assert finding(buffer) is None
        assert buffer.lanes("mes", "now", ALL)[-1].from_seq == last + 1


@asynchronous
async def test_a_torn_last_commit_is_no_damage(tmp_path: Path) -> None:
    await crashed_copy(tmp_path / "a", tmp_path / "b")
    for name in ("witness.json", "head"):  # nobody was told of that commit
        (tmp_path / "b" / name).unlink()
    with (tmp_path / "b/buffer.db-wal").open("r+b") as file:
        file.truncate((tmp_path / "b/buffer.db-wal").stat().st_size - 100)
    async with opened(tmp_path / "b") as buffer:
        await buffer.committed(buffer.next_seq - 1)
        assert finding(buffer) is None


@pytest.mark.parametrize("how", ["kill", "power"])
@asynchronous
async def test_a_deleted_write_ahead_log_is_noticed_whatever_the_witness_knows(tmp_path: Path, how: str) -> None:
    """The witness may be older than the last checkpoint; ``head`` is exact, or older after a power cut."""
    async with opened(tmp_path / "a"):
        pass
    log, last = await crashed_copy(tmp_path / "a", tmp_path / "b")
    for name in ("buffer.db-wal", "witness.json"):
        (tmp_path / "b" / name).unlink()
    if how == "power":
        last -= 3
        with contextlib.closing(sqlite3.connect(tmp_path / "a/buffer.db")) as db:
            (digest,) = db.execute("SELECT hash FROM record WHERE seq = ?", (last,)).fetchone()
        (tmp_path / "b/head").write_text(f"{log} {last:020d} {digest.hex()}\n")
    async with opened(tmp_path / "b") as buffer:
        told = finding(buffer)
        assert told is not None and (told["lost_last_seq"], told["lost_log"]) == (last, log)
        assert buffer.lanes("mes", "now", ALL)[-1].from_seq == last + 1
        with contextlib.closing(sqlite3.connect(buffer.files.db)) as db:
            (opened_as,) = db.execute("SELECT body FROM record WHERE seq = ?", (last + 1,)).fetchone()
        assert orjson.loads(opened_as)["reason"] == "lost_tail"
    assert open_verified(tmp_path / "b")


@pytest.mark.parametrize("spoiled", [None, b"", b"\0" * 100, b"0123456789ab 00000000000000000099 abcd\n"])
@asynchronous
async def test_a_write_ahead_log_that_somebody_folded_in_is_no_damage(tmp_path: Path, spoiled: bytes | None) -> None:
    await crashed_copy(tmp_path / "a", tmp_path / "b")
    with contextlib.closing(sqlite3.connect(tmp_path / "b/buffer.db")) as db:  # as a technician's sqlite3 does
        db.execute("SELECT count(*) FROM record").fetchone()
    assert not (tmp_path / "b/buffer.db-wal").exists()
    if spoiled is not None:  # what a power cut may leave of the first one
        (tmp_path / "b/head").write_bytes(spoiled)
    async with opened(tmp_path / "b") as buffer:
        assert finding(buffer) is None


@pytest.mark.parametrize("where", ["frame", "header", "gone"])
@asynchronous
async def test_damage_in_the_write_ahead_log_is_noticed(tmp_path: Path, where: str) -> None:
    log, last = await crashed_copy(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "b/buffer.db-wal"
    if where == "gone":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2 if where == "frame" else 8)
            file.write(b"\xde\xad\xbe\xef")
    async with opened(tmp_path / "b") as buffer:
        await buffer.committed(buffer.next_seq - 1)
        told = finding(buffer)
        assert told is not None
        assert told["lost_last_seq"] == last
        lanes = buffer.lanes("mes", "now", ALL)
        assert lanes[-1].from_seq == last + 1  # no number of the old log is used again
        assert buffer.log != log
    assert open_verified(tmp_path / "b")


@asynchronous
async def test_damage_in_the_write_ahead_log_is_noticed_without_a_witness(tmp_path: Path) -> None:
    await crashed_copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/witness.json").unlink()
    path = tmp_path / "b/buffer.db-wal"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xde\xad\xbe\xef")
    async with opened(tmp_path / "b") as buffer:
        await buffer.committed(buffer.next_seq - 1)
        told = finding(buffer)
        assert told is not None and "write-ahead log is damaged" in told["text"]
        assert (tmp_path / "b" / told["set_aside"][0] / "buffer.db-wal").exists()


# --- under the running agent -------------------------------------------------------------------------------------


def log_deleted(path: Path) -> None:
    path.with_name("buffer.db-wal").unlink()


def memory_deleted(path: Path) -> None:
    path.with_name("buffer.db-shm").unlink()


def text_in_its_place(path: Path) -> None:
    path.unlink()
    path.write_text("hello\n")


def moved_away(path: Path) -> None:
    path.rename(path.with_name("buffer.old"))


def older_copy(path: Path) -> None:
    shutil.copy(path, path.with_name("new"))
    path.with_name("new").rename(path)


@pytest.mark.parametrize("damage", [log_deleted, memory_deleted, text_in_its_place, deleted, moved_away, older_copy])
@asynchronous
async def test_files_taken_away_under_the_run_end_it_and_nothing_is_lost(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    buffer = open_buffer(tmp_path, "l3-pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
    (first,) = buffer.lanes("mes", "now", ALL)
    buffer.append(preamble())
    maintaining = asyncio.create_task(buffer.maintain())
    await asyncio.sleep(0.05)
    for number in range(SAMPLES):
        if number == SAMPLES // 2:
            damage(tmp_path / "buffer.db")
        with contextlib.suppress(StorageError):
            await buffer.room()
            buffer.append([sample([number, True, 0])])
    with pytest.raises(StorageDisplaced, match="under the running agent"):
        await asyncio.wait_for(maintaining, 10)
    accepted = buffer.durable_seq
    with pytest.raises(StorageDisplaced):
        await buffer.close()
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        told = finding(buffer)
        assert told is None or told["lost"] == 0, told
        lanes = buffer.lanes("mes", "now", ALL)
        rows = [row.seq for lane in lanes for row in read_all(buffer, lane)]
        assert rows[: accepted - first.seq] == list(range(first.seq + 1, accepted + 1))
    assert not (tmp_path / "suspect").exists()
    assert open_verified(tmp_path)


@asynchronous
async def test_a_stop_before_anybody_looked_takes_them_home_too(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, "l3-pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
    last = buffer.append([sample([number, True, 0]) for number in range(100)])
    await buffer.committed(last)
    text_in_its_place(tmp_path / "buffer.db")
    with pytest.raises(StorageDisplaced, match=r"what it held is in damaged-"):
        await buffer.close()
    async with opened(tmp_path) as buffer:
        await salvaged(buffer)
        assert buffer.next_seq > last and open_verified(tmp_path)
    assert [path.read_text() for path in tmp_path.glob("damaged-*/stranger/buffer.db")] == ["hello\n"]  # noqa: ASYNC240


@asynchronous
async def test_without_room_for_a_copy_what_is_gone_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = open_buffer(tmp_path, "l3-pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
    last = buffer.append([sample([number, True, 0]) for number in range(100)])
    await buffer.committed(last)
    text_in_its_place(tmp_path / "buffer.db")
    with monkeypatch.context() as patch:
        patch.setattr(Files, "free", lambda self: 0)
        with pytest.raises(StorageDisplaced, match="no room for a copy"):
            await buffer.close()
    async with opened(tmp_path) as buffer:
        assert buffer.next_seq > last
        await salvaged(buffer)
        told = finding(buffer)
        assert told is not None and "set_aside" in told
    assert open_verified(tmp_path)
