"""While a damaged file is being taken over: units stay the same, lanes wait until they are whole, newer facts win."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from edge_agent.buffer import Buffer
from edge_agent.model import Kind
from support.buffer_rig import (
    ALL,
    asynchronous,
    binding,
    closing,
    opened,
    opening,
    preamble,
    read_all,
    record,
    salvaged,
    sample,
)

UNITS = 40


async def fill(data_dir: Path) -> tuple[str, dict[str, str]]:
    """Closed cycles of many units, none of it delivered; then the file is condemned. Returns (log, serial -> unit)."""
    units = {}
    async with opened(data_dir) as buffer:
        buffer.lanes("mes", "now", ALL)
        buffer.append(preamble())
        for number in range(UNITS):
            records, cycle, units[f"SN{number}"] = opening(buffer, f"SN{number}")
            buffer.append([*records, sample([number, True, 0], cycle), closing(cycle, {})])
        await buffer.committed(buffer.next_seq - 1)
        log = buffer.log
    (data_dir / "suspect").write_text("a page cannot be read")
    return log, units


def rows(buffer: Buffer, sql: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
        return db.execute(sql, values).fetchall()


@asynchronous
async def test_a_unit_stays_the_same_and_its_attempts_are_counted_on(tmp_path: Path) -> None:
    _, units = await fill(tmp_path)
    async with opened(tmp_path) as buffer:
        assert buffer.salvaging is not None and buffer.salvaging["phase"] == "registry" and not buffer.holds_known
        assert rows(buffer, "SELECT count(*) FROM identifier") == [(0,)]
        known = buffer.lookup.unit("serial", "SN7")  # before anything of it is here
        assert known is not None and known.unit == units["SN7"] and known.attempts == {"press-fit": 1}
        assert buffer.lookup.unit("serial", "SN999") is None
        seq = buffer.next_seq
        cycle = f"{buffer.log}-{seq}"
        body = {
            "cycle": cycle, "config": "c0ffee", "station": "OP20", "step": "press-fit", "position": 1,
            "opened_by": "scan", "attempt": 2, "evidence": [seq], "context": {},
        }  # fmt: skip
        bound = binding(f"{buffer.log}-{seq + 1}", cycle, units["SN7"], "SN7")
        buffer.append([record(Kind.CYCLE_OPENED, "OP20", body), record(Kind.BINDING, "OP20", bound)])
        await buffer.committed(buffer.next_seq - 1)
        again = buffer.lookup.unit("serial", "SN7")
        assert again is not None and again.unit == units["SN7"] and again.attempts == {"press-fit": 2}
        await salvaged(buffer)
        assert buffer.salvaging is None and buffer.holds_known
        began, ended = buffer.stats()["damage"]
        assert "is set aside" in began and "were taken over" in ended
        assert buffer.lookup.unit("serial", "SN7") == again
        assert len(rows(buffer, "SELECT unit FROM unit")) == UNITS
        assert {serial: unit for unit, serial in rows(buffer, "SELECT unit, serial FROM unit")} == units


@asynchronous
async def test_what_the_new_run_says_wins_over_what_is_salvaged(tmp_path: Path) -> None:
    _, units = await fill(tmp_path)
    async with opened(tmp_path) as buffer:
        for op, value in (("replace", "LASER-3"), ("remove", "SN4")):
            unit = units["SN3" if op == "replace" else "SN4"]
            body = {"unit": unit, "op": op, "kind": "serial", "value": value, "evidence": []}
            buffer.append([record(Kind.IDENTIFIER, "OP20", body)])
        (cycle,) = rows_of(tmp_path, "SELECT cycle FROM cycle WHERE unit = ?", units["SN5"])
        voided = binding(f"{buffer.log}-{buffer.next_seq}", cycle, None, None, state="orphan", rule="manual")
        buffer.append([record(Kind.BINDING, "OP20", voided)])
        await buffer.committed(buffer.next_seq - 1)
        await salvaged(buffer)
        assert buffer.lookup.unit("serial", "SN3") is None and buffer.lookup.unit("serial", "SN4") is None
        replaced = buffer.lookup.unit("serial", "LASER-3")
        assert replaced is not None and replaced.unit == units["SN3"]
        assert rows(buffer, "SELECT binding_state, unit FROM cycle WHERE cycle = ?", cycle) == [("orphan", None)]
        states = rows(buffer, "SELECT state FROM binding WHERE cycle = ? ORDER BY seq", cycle)
        assert states == [("superseded",), ("orphan",)]


def rows_of(data_dir: Path, sql: str, *values: Any) -> list[Any]:
    """What the file that was set aside says."""
    (path,) = data_dir.glob("damaged-*/buffer.db")
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute(sql, values)]


@asynchronous
async def test_a_lane_is_given_out_when_it_is_whole(tmp_path: Path) -> None:
    log, _ = await fill(tmp_path)
    async with opened(tmp_path) as buffer:
        lanes = await asyncio.to_thread(buffer.lanes, "mes", "now", ALL)
        assert [lane.log for lane in lanes] == [buffer.log]  # the old one is withheld
        assert buffer.stats()["pending"]["mes"] > UNITS  # but not forgotten
        offered = asyncio.create_task(buffer.offered("mes"))
        maintaining = asyncio.create_task(buffer.maintain())
        (lane,) = await asyncio.wait_for(offered, 10)
        assert (lane.log, lane.number, lane.seq, lane.n) == (log, 1, 0, 0)
        last = max(row.seq for row in read_all(buffer, lane))
        assert [row.seq for row in read_all(buffer, lane)] == list(range(1, last + 1))
        assert lane.to_seq == last
        maintaining.cancel()
        await asyncio.gather(maintaining, return_exceptions=True)


@asynchronous
async def test_retention_takes_nothing_that_is_still_to_come(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path) as buffer:
        await asyncio.to_thread(buffer.lanes, "mes", "now", ALL)
        buffer.settings = buffer.settings.model_copy(update={"keep": 0.0})
        for _ in range(3):
            await buffer.upkeep.retention.step()
        assert [reason for (reason,) in rows(buffer, "SELECT reason FROM gap")] == ["salvage"]
        await salvaged(buffer)
        assert rows(buffer, "SELECT min(seq) FROM record") == [(1,)]


@asynchronous
async def test_the_commits_beside_a_salvage_do_not_move_its_pages(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path) as buffer:

        async def pages() -> int:
            ask = buffer.writer.chore(lambda db: db.execute("PRAGMA wal_autocheckpoint").fetchone())
            return int((await asyncio.wrap_future(ask))[0])

        before, during = await pages(), []
        take_over = buffer.salvage._slice  # type: ignore[union-attr]

        async def watched(*arguments: Any) -> bool:
            during.append(await pages())
            return await take_over(*arguments)

        buffer.salvage._slice = watched  # type: ignore[union-attr,method-assign]
        await salvaged(buffer)
        assert during and min(during) > before == await pages()


@asynchronous
async def test_tags_whose_set_was_not_readable_stop_no_writer(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.append(preamble())
        await buffer.committed(buffer.next_seq - 1)
        db = buffer.files.db
    for lost in ("tagset", "tag"):
        with contextlib.closing(sqlite3.connect(db)) as connection, connection:
            connection.execute(f"DELETE FROM {lost}")
        async with opened(tmp_path) as buffer:
            buffer.append(preamble())
            await buffer.committed(buffer.next_seq - 1)
            assert rows(buffer, "SELECT count(*) FROM tag JOIN tagset USING (tagset)") == [(3,)]
