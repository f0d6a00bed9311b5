"""The log end to end on a real file: append, commit, read back, restart, lanes, the registry, trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.buffer import BufferSettings, RouteFilter, open_buffer, open_readonly
from edge_agent.errors import StorageError
from edge_agent.model import Kind
from support.buffer_rig import (
    ALL,
    PRESS,
    asynchronous,
    binding,
    closing,
    opened,
    opening,
    preamble,
    read_all,
    record,
    sample,
)


@asynchronous
async def test_what_is_committed_reads_back_in_order_and_survives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        first = buffer.next_seq
        for number in range(500):
            seq = buffer.append([sample([number, True, -4])])
        assert seq == first + 499
        await buffer.committed(seq)
        assert buffer.durable_seq == seq
        log = buffer.log
    async with opened(tmp_path) as buffer:
        assert buffer.log != log
        lane = buffer.lanes("mes", "oldest", ALL)[0]
        reader = buffer.reader()
        rows = reader.rows(lane, 0, buffer.durable_seq, 10_000, 2**20)
        reader.close()
    samples = [row for row in rows if row.kind == Kind.SAMPLE]
    assert [row.body for row in samples] == [
        b'{"tagset":"%b","took_us":812,"values":[%d,true,-4]}' % (PRESS.id.encode(), number) for number in range(500)
    ]
    assert {row.source for row in samples} == {"press.result"}
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    archive = open_readonly(tmp_path)
    assert archive.verify().intact
    archive.close()


@asynchronous
async def test_each_start_opens_a_log_that_names_the_one_before(tmp_path: Path) -> None:
    logs = []
    for _ in range(3):
        async with opened(tmp_path) as buffer:
            logs.append((buffer.log, buffer.next_seq - 1))
    with contextlib.closing(sqlite3.connect(tmp_path / "buffer.db")) as db:
        rows = db.execute("SELECT seq, CAST(body AS TEXT), hash FROM record WHERE kind = 1 ORDER BY seq").fetchall()
        bodies = [json.loads(body) for _, body, _ in rows]
        assert [(body["log"], seq) for body, (seq, _, _) in zip(bodies, rows, strict=True)] == logs
        assert "previous" not in bodies[0]
        for body, (seq, _, _), (log, _) in zip(bodies[1:], rows[1:], logs, strict=False):
            (digest,) = db.execute("SELECT hash FROM record WHERE seq = ?", (seq - 1,)).fetchone()
            assert body["previous"] == {"log": log, "seq": seq - 1, "hash": digest.hex()}


@asynchronous
async def test_a_second_agent_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path):
        code = (
            "import sys; from pathlib import Path; from edge_agent.buffer import *; "
            "open_buffer(Path(sys.argv[1]), 'a', BufferSettings())"
        )
        run = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert run.returncode != 0
        assert "StorageBusy" in run.stderr
        assert f"process {os.getpid()}" in run.stderr
    async with opened(tmp_path):
        pass  # the lock went with the first one


@asynchronous
async def test_a_directory_that_cannot_be_used_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="not a directory"):
        open_buffer(tmp_path / "file", "a", BufferSettings())


@asynchronous
async def test_the_lookup_knows_what_was_appended_and_not_yet_committed(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.append(preamble())
        assert buffer.lookup.unit("serial", "SN1") is None
        records, _, unit = opening(buffer, "SN1")
        seq = buffer.append(records)
        before = buffer.lookup.unit("serial", "SN1")  # no await since: nothing can be durable for us yet
        await buffer.committed(seq)
        after = buffer.lookup.unit("serial", "SN1")
        assert before == after
        assert after is not None and after.unit == unit and after.attempts == {"press-fit": 1}
        assert buffer.lookup.unit("carrier", "SN1") is None


@asynchronous
async def test_a_cycle_is_projected_and_its_readings_find_their_serial(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.append(preamble())
        buffer.append([sample([1.0, False, 20])])  # before the cycle: nobody's
        records, cycle, unit = opening(buffer, "SN00000017")
        buffer.append(records)
        inside = [buffer.append([sample([10.5 + n, True, 21], cycle)]) for n in range(3)]
        odd = buffer.append([sample([None, True, 22], cycle, status={"0": "exception 2"})])
        buffer.append([closing(cycle, {PRESS.source: [[inside[0], odd]]})])
        buffer.append([sample([99.0, True, 23])])
        await buffer.committed(buffer.next_seq - 1)
        archive = open_readonly(tmp_path)  # beside the running agent
        (found,) = archive.trace("SN00000017", readings=True)
        assert archive.trace("SN00000018") == []
        archive.close()
    assert (found.unit, found.serial) == (unit, "SN00000017")
    (visit,) = found.cycles
    assert (visit.state, visit.result, visit.complete, visit.binding_state) == ("closed", "Passed", True, "bound")
    assert visit.collected[0]["value"] == 12.5
    assert [(r.tag, r.value, r.status) for r in visit.readings] == [
        ("press.force", 10.5, None), ("press.ok", 1, None), ("press.force", 11.5, None), ("press.ok", 1, None),
        ("press.force", 12.5, None), ("press.ok", 1, None), ("press.force", None, "exception 2"), ("press.ok", 1, None),
    ]  # fmt: skip
    force = next(tag for tag in visit.tags if tag.tag == "press.force")
    assert (force.count, force.first, force.low, force.high, force.unit) == (4, 10.5, 10.5, 12.5, "kN")
    archive = open_readonly(tmp_path)  # cleanly stopped: read as immutable
    assert archive.trace("SN00000017", readings=True) == [found]
    assert not (tmp_path / "buffer.db-wal").exists()
    archive.close()


@asynchronous
async def test_a_rebind_moves_the_readings_and_keeps_the_old_binding(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN7")
        buffer.append(records)
        seq = buffer.append([sample([15.0, True, 21], cycle)])
        buffer.append([closing(cycle, {PRESS.source: [[seq, seq]]})])
        records, _, other = opening(buffer, "SN8")
        buffer.append(records)
        wrong = f"{buffer.log}-{buffer.next_seq}"
        old = f"{cycle.split('-')[0]}-{int(cycle.split('-')[1]) + 1}"
        body = binding(wrong, cycle, other, "SN8", rule="manual", reason="label swapped", supersedes=old, by="li")
        await buffer.committed(buffer.append([record(Kind.BINDING, "OP20", body)]))
    archive = open_readonly(tmp_path)
    (was,), (now,) = archive.trace("SN7"), archive.trace("SN8", readings=True)
    archive.close()
    assert [(b.state, b.serial) for b in was.cycles[0].bindings] == [("superseded", "SN7"), ("bound", "SN8")]
    assert not was.cycles[0].current
    assert next(visit for visit in now.cycles if visit.cycle == cycle).readings[0].value == 15.0


@asynchronous
async def test_a_restart_restores_open_cycles_windows_and_counters(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.append(preamble())
        records, done, _ = opening(buffer, "SN1")
        buffer.append([*records, closing(done, {})])
        records, cycle, unit = opening(buffer, "SN2")
        buffer.append(records)
        first = buffer.append([sample([1.0, True, 0], cycle)])
        await buffer.committed(first)
        last = buffer.append([sample([2.0, True, 0], cycle)])
    async with opened(tmp_path) as buffer:
        restored = buffer.restored()
        (left,) = restored.cycles
        assert (left.cycle, left.unit, left.serial, left.station) == (cycle, unit, "SN2", "OP20")
        assert left.windows == {PRESS.source: ((first, last),)}
        assert left.context["order"]["value"] == "WO1"
        assert restored.counters == {("OP20", 1): (17, 0)}
        gap = {
            "finding": f"{buffer.log}-{buffer.next_seq}", "code": "observation_gap", "severity": "warning", "text": "",
            "evidence": [], "details": {"cycles": [cycle], "cause": "restart"},
        }  # fmt: skip
        buffer.append([record(Kind.FINDING, "agent", gap)])
        resumed = binding(f"{buffer.log}-{buffer.next_seq}", cycle, unit, "SN2", rule="resume:rescan")
        await buffer.committed(buffer.append([record(Kind.BINDING, "OP20", resumed)]))
        again = buffer.append([sample([3.0, True, 0], cycle)])
        await buffer.committed(again)
        (left,) = buffer.restored().cycles
        assert left.windows == {PRESS.source: ((first, last), (again, again))}


@asynchronous
async def test_progress_survives_and_the_numbers_stay(tmp_path: Path) -> None:
    kinds = RouteFilter(frozenset({Kind.LOG_OPENED, Kind.SAMPLE}))
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", kinds)
        buffer.append([*preamble(), *(sample([n, True, 0]) for n in range(10))])
        await buffer.committed(buffer.next_seq - 1)
        reader = buffer.reader()
        rows = reader.rows(lane, lane.seq, buffer.durable_seq, 4, 2**20)
        reader.close()
        assert [row.kind for row in rows] == [Kind.LOG_OPENED] + [Kind.SAMPLE] * 3
        buffer.progress(lane, rows[-1].seq, 4)
        assert buffer.stats()["pending"] == {"mes": 11}  # not durable yet
    async with opened(tmp_path) as buffer:
        old, new = buffer.lanes("mes", "now", kinds)
        assert (old.log, old.seq, old.n, old.stream) == (lane.log, rows[-1].seq, 4, f"{lane.log}.mes.1")
        assert (new.log, new.n, new.to_seq) == (buffer.log, 0, None)
        assert buffer.stats()["pending"] == {"mes": 7 + 1}
        reader = buffer.reader()
        rest = reader.rows(old, old.seq, buffer.durable_seq, 100, 2**20)
        reader.close()
        assert len(rest) == 7
        buffer.progress(old, old.to_seq or 0, 11)
        await asyncio.sleep(0.4)
        assert [lane.log for lane in buffer.lanes("mes", "now", kinds)] == [buffer.log]


@asynchronous
async def test_a_changed_filter_begins_a_new_lane(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        await buffer.committed(buffer.append(preamble()))
        old, new = buffer.lanes("mes", "now", RouteFilter(frozenset({Kind.FINDING})))
        assert (old.number, old.to_seq) == (lane.number, buffer.durable_seq)
        assert (new.number, new.from_seq) == (2, buffer.durable_seq + 1)


@asynchronous
async def test_a_route_that_comes_back_goes_on_where_it_was_detached(tmp_path: Path) -> None:
    seqs = []
    for configured in (True, False, False, True):
        async with opened(tmp_path) as buffer:
            lanes = buffer.lanes("mes", "now", ALL) if configured else []
            seqs.append(buffer.append([sample([1, True, 0])]))
            await buffer.committed(seqs[-1])
            if not configured:
                await buffer.upkeep.detach()
                seqs.append(buffer.append([sample([2, True, 0])]))  # of the first log without the route, too
                await buffer.committed(seqs[-1])
                lanes = []
            rows = [row for lane in lanes for row in read_all(buffer, lane)]
    assert [row.seq for row in rows if row.kind == Kind.SAMPLE] == seqs
    assert len({row.seq for row in rows}) == len(rows)


@asynchronous
async def test_what_comes_after_a_route_was_detached_is_not_pending_for_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.lanes("mes", "now", ALL)
    async with opened(tmp_path) as buffer:
        await buffer.upkeep.detach()
        pending = buffer.stats()["pending"]["mes"]
        await buffer.committed(buffer.append([sample([number, True, 0]) for number in range(100)]))
        buffer.writer.chore(lambda _db: buffer.writer.store_totals()).result(10)
        assert buffer.stats()["pending"]["mes"] == pending == sum(buffer.pending_of("mes").values())
    async with opened(tmp_path) as buffer:
        assert buffer.stats()["pending"]["mes"] == pending


@asynchronous
async def test_a_route_that_asks_after_it_was_detached_gets_the_rest_of_the_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.lanes("mes", "now", ALL)
    async with opened(tmp_path) as buffer:
        await buffer.upkeep.detach()
        seq = buffer.append([sample([1, True, 0])])
        await buffer.committed(seq)
        lanes = buffer.lanes("mes", "now", ALL)
        assert lanes[-1].to_seq is None
        assert [row.seq for lane in lanes for row in read_all(buffer, lane)] == list(range(1, seq + 1))


@asynchronous
async def test_a_route_for_one_station_skips_the_others_facts(tmp_path: Path) -> None:
    wanted = RouteFilter(frozenset({Kind.FINDING, Kind.CONFIG}), frozenset({"OP20"}))
    async with opened(tmp_path) as buffer:
        config = preamble()[0].body
        stations = dict(config["stations"]) | {"OP30": {"step": "test", "positions": {}}}
        buffer.append([record(Kind.CONFIG, "agent", dict(config) | {"stations": stations})])
        for source in ("OP20", "OP30", "press"):
            body = {"finding": f"f-{source}", "code": "no_read", "severity": "info", "text": "", "evidence": []}
            buffer.append([record(Kind.FINDING, source, body)])
        await buffer.committed(buffer.next_seq - 1)
        lane = buffer.lanes("mes", "now", wanted)[-1]
        reader = buffer.reader()
        rows = reader.rows(lane, 0, buffer.durable_seq, 100, 2**20)
        reader.close()
        assert [row.source for row in rows] == ["agent", "OP20", "press"]
        assert buffer.stats()["pending"] == {"mes": 3}


@asynchronous
async def test_rows_are_cut_by_count_and_by_bytes(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        lane = buffer.lanes("mes", "now", RouteFilter(frozenset({Kind.SAMPLE})))[-1]
        buffer.append([sample(["x" * 1000, True, 0]) for _ in range(20)])
        await buffer.committed(buffer.next_seq - 1)
        reader = buffer.reader()
        assert len(reader.rows(lane, 0, buffer.durable_seq, 7, 2**20)) == 7
        assert len(reader.rows(lane, 0, buffer.durable_seq, 100, 5000)) == 4
        assert len(reader.rows(lane, 0, buffer.durable_seq, 100, 10)) == 1
        collected, after = [], 0
        while rows := reader.rows(lane, after, buffer.durable_seq, 100, 3000):
            collected += rows
            after = rows[-1].seq
        assert len(collected) == 20
        reader.close()


@asynchronous
async def test_waiting_beyond_and_for_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        waiting = asyncio.create_task(buffer.beyond(buffer.durable_seq))
        await asyncio.sleep(0)
        assert not waiting.done()
        seq = buffer.append([sample([1, True, 0])])
        assert await waiting >= seq
        most = 0
        for _ in range(20_000):
            buffer.append([sample([1, True, 0])])
            await buffer.room()
            most = max(most, buffer.next_seq - buffer.durable_seq)
        assert most <= 5000


@asynchronous
async def test_who_comes_after_the_close_is_told_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        waiting = asyncio.create_task(buffer.beyond(buffer.next_seq + 10))
        await asyncio.sleep(0)
    with pytest.raises(StorageError, match="closed"):
        async with asyncio.timeout(5):
            await waiting
    with pytest.raises(StorageError, match="closed"):
        buffer.append([sample([1, True, 0])])


@asynchronous
async def test_a_body_that_is_no_json_is_refused_before_it_has_a_number(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        before = buffer.next_seq
        with pytest.raises(TypeError):
            buffer.append([sample([1, True, 0]), record(Kind.AUDIT, "agent", {"who": object()})])
        assert buffer.next_seq == before


@asynchronous
async def test_a_dead_letter_is_listed_and_keeps_its_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        lane = buffer.lanes("mes", "now", ALL)[-1]
        seq = buffer.append([sample([1, True, 0])])
        await buffer.committed(seq)
        buffer.dead_letter(lane, 2, seq, "unknown part number")
        buffer.progress(lane, seq, 2)
    with contextlib.closing(sqlite3.connect(tmp_path / "buffer.db")) as db:
        assert db.execute("SELECT route, n, seq, reason FROM dead_letter").fetchall() == [
            ("mes", 2, seq, "unknown part number")
        ]
    archive = open_readonly(tmp_path)
    assert archive.stats()["dead_letters"] == {"mes": 1}
    archive.close()


@asynchronous
async def test_the_log_cannot_be_updated(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    db = sqlite3.connect(tmp_path / "buffer.db")
    with contextlib.closing(db), pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("UPDATE record SET synced = 1")


@asynchronous
async def test_a_changed_byte_breaks_the_chain_where_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        seq = buffer.append([sample([n, True, 0]) for n in range(20)])
    with contextlib.closing(sqlite3.connect(tmp_path / "buffer.db")) as db:
        db.execute("DROP TRIGGER record_append_only")
        db.execute("UPDATE record SET at_ns = at_ns + 1 WHERE seq = ?", (seq - 5,))
        db.commit()
    archive = open_readonly(tmp_path)
    assert archive.verify().broken_seq == seq - 5
    archive.close()
