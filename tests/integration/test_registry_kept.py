"""What the registry must not lose: by a migration, by age, by damage. And where it may have lost a hold, it says so."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.buffer import Buffer, open_readonly, schema, witness
from edge_agent.buffer.tidy import Sweep, tidy
from edge_agent.model import Kind
from support.buffer_rig import asynchronous, opened, record, salvaged
from support.registry_line import Line, lot

VERSION_2 = Path(__file__).parents[1] / "support" / "version2.sql"
NEVER = 2**62


def old_file(path: Path) -> None:
    """A buffer as version 2 wrote it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.executescript(VERSION_2.read_text(encoding="utf-8"))
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 2")


def shape(db: sqlite3.Connection) -> set[tuple[str, str, tuple[Any, ...]]]:
    """Every table, index, view and trigger, tables with their columns."""
    found = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'").fetchall()
    return {
        (kind, name, tuple(row[1:4] for row in db.execute(f"PRAGMA table_info({name})") if kind == "table"))
        for kind, name in found
    }


@asynchronous
async def test_a_file_of_version_2_is_brought_up_to_date_and_goes_on(tmp_path: Path) -> None:
    old_file(tmp_path / "buffer.db")
    with closing(sqlite3.connect(tmp_path / "buffer.db")) as db:
        bodies = db.execute("SELECT seq, body, hash FROM record ORDER BY seq").fetchall()
    async with opened(tmp_path) as buffer:
        known = buffer.lookup.unit("serial", "SN01")
        assert known is not None and known.kind == "serial" and known.attempts == {"press-fit": 1}
        assert known.results["press-fit"].result == "Passed" and known.lots == frozenset()
        (carried,) = buffer.lookup.on_carrier("P17")[1:]
        assert (carried.serial, carried.position) == ("SN12", None)
        restored = buffer.restored()
        assert [cycle.serial for cycle in restored.cycles] == ["SN12"] and not restored.holds and buffer.holds_known
        line = Line(buffer)
        line.units["SN01"] = known.unit
        line.cycle("SN01", lot("L1"))
        await line.agrees(lambda lookup: lookup.unit("serial", "SN01").attempts, {"press-fit": 2})
        with closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
            assert db.execute("SELECT seq, body, hash FROM record ORDER BY seq").fetchall()[: len(bodies)] == bodies
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
                schema.create(fresh)
                assert shape(db) == shape(fresh)
    with closing(open_readonly(tmp_path)) as archive:
        verdict = archive.verify()
        assert not verdict.damages, verdict.damages


# --- age ---------------------------------------------------------------------------------------------------------


def forget_records(buffer: Buffer) -> None:
    """As retention does, when all was delivered: only the last record is left."""

    def delete(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM record WHERE seq < (SELECT max(seq) FROM record)")

    buffer.writer.chore(delete).result(10)


def tidied(buffer: Buffer, cutoff_ns: int = NEVER) -> None:
    sweep = Sweep()
    while buffer.writer.chore(lambda db: tidy(db, cutoff_ns, sweep)).result(10):
        pass


def count(buffer: Buffer, table: str) -> int:
    with closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@asynchronous
async def test_a_component_stays_as_long_as_its_parent_and_then_goes(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        for number in range(210):  # more than one look of the sweep, all to be kept
            line.cycle(f"C{number}", lot("L1"))
        line.cycle("ALONE", lot("L2"))
        cutoff_ns = line.now_ns() + 1
        line.cycle("PARENT", ended_at_ns=str(cutoff_ns + 10**9))
        for number in range(210):
            line.build_in("PARENT", f"C{number}")
        await buffer.committed(buffer.next_seq - 1)
        await asyncio.to_thread(forget_records, buffer)
        await asyncio.to_thread(tidied, buffer, cutoff_ns)
        assert buffer.lookup.unit("serial", "ALONE") is None, "what has to stay does not hide what is behind it"
        parent = buffer.lookup.unit("serial", "PARENT")
        assert parent is not None and parent.lots == {"L1"} and count(buffer, "genealogy") == 210
        await asyncio.to_thread(tidied, buffer)  # the parent
        await asyncio.to_thread(tidied, buffer)  # what nothing keeps any more
        for table in ("unit", "identifier", "cycle", "genealogy", "consumption", "binding"):
            assert count(buffer, table) == 0, table


@asynchronous
async def test_open_holds_and_active_loads_have_no_age(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        line.load("load", "L1", "R1")
        line.load("load", "L2", "R2", name="flux")
        line.load("unload", "L2", "R2", name="flux")
        line.verdict("hold", "H1", ("serial", "SN1"), 1)
        line.verdict("hold", "H2", ("serial", "SN2"), 2)
        line.verdict("release", "H2", ("serial", "SN2"), 3)
        line.add(Kind.UNIT_STATUS, "agent", serial="SN1", step="weld", result="Passed", said_by="mes")
        line.add(Kind.GATE, "OP20", gate=line.id(), station="OP20", position=1, verdict="block", code=3, reasons=[],
                 basis="live")  # fmt: skip
        await buffer.committed(buffer.append([buffer.checkpoint()]))
        await asyncio.to_thread(forget_records, buffer)
        await asyncio.to_thread(tidied, buffer)
        restored = buffer.restored()
        assert [one.lot for one in restored.materials] == ["L1"] and [one.hold for one in restored.holds] == ["H1"]
        assert [count(buffer, table) for table in ("material_load", "hold", "unit_status", "gate")] == [1, 1, 0, 0]
        first = buffer.lookup.verdict("v1")
        assert first is not None and first.state == "applied"
        assert buffer.lookup.verdict("v2") is None
        assert buffer.lookup.last_decision("qms") == 3, "or an old decision could come again"


# --- damage ------------------------------------------------------------------------------------------------------


async def held(data_dir: Path, holds: int = 3) -> None:
    """Units, components, lots, loads, and open holds."""
    async with opened(data_dir) as buffer:
        line = Line(buffer)
        line.cycle("SN1", lot("L1"))
        line.cycle("SN2", lot("L2", "R2"))
        line.build_in("SN1", "SN2")
        line.load("load", "L2", "R2")
        for number in range(1, holds + 1):
            line.verdict("hold", f"H{number}", ("serial", f"SN{number}"), number)
        await buffer.committed(buffer.next_seq - 1)


@asynchronous
async def test_a_damaged_file_gives_back_what_is_in_a_unit_and_what_holds_it(tmp_path: Path) -> None:
    await held(tmp_path)
    (tmp_path / "suspect").write_text("a page cannot be read")
    async with opened(tmp_path) as buffer:
        assert [one.hold for one in buffer.restored().holds] == ["H1", "H2", "H3"], "before anything is salvaged"
        assert [one.lot for one in buffer.restored().materials] == ["L2"] and not buffer.holds_known
        line = Line(buffer)
        line.verdict("release", "H2", ("serial", "SN2"), 7)
        await salvaged(buffer)
        assert buffer.holds_known
        await line.agrees(lambda lookup: set(lookup.unit("serial", "SN1").lots), {"L1", "L2"})
        await line.agrees(lambda lookup: lookup.verdict("v3").state, "applied")
        assert [one.hold for one in buffer.restored().holds] == ["H1", "H3"]


def spoil_holds(data_dir: Path) -> None:
    """Overwrite the pages of the table hold and of its indexes."""
    path = data_dir / "buffer.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        roots = [
            root for (root,) in db.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'hold' AND rootpage")
        ]
    with path.open("r+b") as file:
        for root in roots:
            file.seek((root - 1) * 4096)
            file.write(b"\xa5" * 4096)


@asynchronous
async def test_holds_whose_table_is_gone_come_from_the_witness(tmp_path: Path) -> None:
    await held(tmp_path)
    spoil_holds(tmp_path)
    async with opened(tmp_path) as buffer:
        assert sorted(one.hold for one in buffer.restored().holds) == ["H1", "H2", "H3"]
        await salvaged(buffer)
        assert buffer.holds_known, "the witness is as new as the log's end, and has them all"


@pytest.mark.parametrize("why", ["none", "older", "no room"])
def test_where_a_hold_may_be_lost_it_is_said_until_somebody_confirms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    async def main() -> None:
        if why == "no room":
            monkeypatch.setattr(witness, "HOLDS", 2)
        await held(tmp_path)
        if why == "none":
            (tmp_path / "witness.json").unlink()
        elif why == "older":
            shutil.copy(tmp_path / "witness.json", tmp_path / "older.json")
            async with opened(tmp_path) as buffer:
                Line(buffer).verdict("hold", "H9", ("serial", "SN9"), 9)
                await buffer.committed(buffer.next_seq - 1)
            shutil.move(tmp_path / "older.json", tmp_path / "witness.json")
        spoil_holds(tmp_path)
        async with opened(tmp_path) as buffer:
            await salvaged(buffer)
            assert not buffer.holds_known
        async with opened(tmp_path) as buffer:
            assert not buffer.holds_known, "a restart knows no more"
            body = {"who": "qms", "action": "holds_confirmed", "reason": "snapshot 17"}
            seq = buffer.append([record(Kind.AUDIT, "agent", body)])
            assert buffer.holds_known
            await buffer.committed(seq)
            assert buffer.holds_known

    asyncio.run(main())


@asynchronous
async def test_a_database_that_is_gone_leaves_the_holds(tmp_path: Path) -> None:
    await held(tmp_path)
    for name in ("buffer.db", "buffer.db-wal", "buffer.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    async with opened(tmp_path) as buffer:
        assert [one.hold for one in buffer.restored().holds] == ["H1", "H2", "H3"]
        assert buffer.holds_known
