"""What is deleted and what is not, on real files: by age, by size, by route; every drop recorded and counted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent import clock
from edge_agent.buffer import TOMBSTONE, Buffer, RouteFilter, Row, open_readonly, writer
from edge_agent.buffer.tidy import tidy
from edge_agent.model import Instant, Kind, Record
from support.buffer_rig import ALL, PRESS, asynchronous, closing, opened, opening, preamble, read_all, record

HOUR_NS = 3600 * 10**9
SAMPLES = RouteFilter(frozenset({Kind.SAMPLE}))


@pytest.fixture(autouse=True)
def _trusted_clock_and_prompt_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have no NTP; age-based deletion waits for one."""
    monkeypatch.setattr(clock, "synchronised", lambda: True)
    monkeypatch.setattr(writer, "PROGRESS_S", 0.01)


def aged(hours: float, *cycles: str, size: int = 0) -> Record:
    """A sample from ``hours`` ago, ``size`` bytes long."""
    at = Instant(time.time_ns() - round(hours * HOUR_NS), time.monotonic_ns())
    body = {"tagset": PRESS.id, "took_us": 1, "values": ["x" * size, True, 0]}
    return Record(Kind.SAMPLE, PRESS.source, at, body, cycles)


def limit(buffer: Buffer, max_size: int) -> None:
    """A cap below what the config would allow."""
    buffer.settings = buffer.settings.model_copy(update={"max_size": max_size})


def stored(buffer: Buffer) -> set[int]:
    with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
        return {seq for (seq,) in db.execute("SELECT seq FROM record")}


def drops(buffer: Buffer) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT body FROM record WHERE kind = ? ORDER BY seq", (int(Kind.DROP),))
        return [orjson.loads(body) for (body,) in rows]


def numbers(rows: list[Row]) -> dict[int, int]:
    """seq -> the n that a route gives it, tombstones counting for as many as they hold."""
    n, result = 0, {}
    for row in rows:
        n += orjson.loads(row.body)["count"] if row.kind == TOMBSTONE else 1
        if row.kind != TOMBSTONE:
            result[row.seq] = n
    result[-1] = n  # how many in all
    return result


async def settle(buffer: Buffer) -> None:
    await buffer.committed(buffer.next_seq - 1)
    await asyncio.sleep(0.05)  # progress is coalesced for a while


def intact(data_dir: Path) -> bool:
    archive = open_readonly(data_dir)
    try:
        verdict = archive.verify()
        return verdict.intact and not verdict.unlinked
    finally:
        archive.close()


@asynchronous
async def test_delivered_and_old_goes_the_rest_stays(tmp_path: Path) -> None:
    async with opened(tmp_path, keep="2h") as buffer:
        one, two = buffer.lanes("one", "now", ALL)[0], buffer.lanes("two", "now", ALL)[0]
        old = [buffer.append([aged(3)]) for _ in range(1200)]
        young = [buffer.append([aged(1)]) for _ in range(10)]
        pending = [buffer.append([aged(3)]) for _ in range(10)]
        buffer.progress(one, pending[-1], pending[-1])
        buffer.progress(two, young[-1], young[-1])
        await settle(buffer)
        await buffer.upkeep.retention.step()
        left = stored(buffer)
        assert not left & set(old)
        assert left >= set(young) | set(pending)
        assert drops(buffer) == []
    assert intact(tmp_path)


def describing() -> list[Record]:
    """What a log of three hours ago begins with."""
    at = Instant(time.time_ns() - 3 * HOUR_NS, time.monotonic_ns())
    return [Record(each.kind, each.source, at, each.body) for each in preamble()]


@asynchronous
async def test_a_replay_begins_with_what_describes_its_records_however_old_that_is(tmp_path: Path) -> None:
    """As long as there are records of its log: then it goes, too."""
    async with opened(tmp_path, keep="2h") as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        buffer.append(describing())
        old = [buffer.append([aged(3)]) for _ in range(300)]
        first, *young = [buffer.append([aged(1)]) for _ in range(10)]
        buffer.progress(lane, young[-1], young[-1])
        await settle(buffer)
        await buffer.upkeep.retention.step()
        assert not stored(buffer) & set(old)
        (again,) = buffer.replay("mes", first_seq=first + 2, last_seq=young[-1])
        rows = read_all(buffer, again, 3)
        assert [row.kind for row in rows[:2]] == [Kind.CONFIG, Kind.TAGSET]
        assert [row.seq for row in rows[2:]] == list(range(first + 2, young[-1] + 1))
        assert buffer.pending_of("mes")[again.id] == 2 + 8
        buffer.progress(again, young[-1], 10)
        await settle(buffer)
        told = {row.seq for row in rows[:2]}
    async with opened(tmp_path, keep="1h") as buffer:
        lanes = buffer.lanes("mes", "now", ALL)
        buffer.append(preamble())
        await settle(buffer)
        for lane in lanes:
            last = lane.to_seq or buffer.durable_seq
            buffer.progress(lane, last, lane.n + last - lane.seq)
        for _ in range(3):
            await settle(buffer)
            await buffer.upkeep.retention.step()
            buffer.upkeep.retention._next = 0
        assert not stored(buffer) & ({*young, *told})
        assert len(stored(buffer)) >= 4, "its own are there"
    assert intact(tmp_path)


@asynchronous
async def test_nothing_goes_by_age_while_the_clock_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "synchronised", lambda: False)
    async with opened(tmp_path, keep="2h") as buffer:
        old = {buffer.append([aged(3)]) for _ in range(10)}
        await settle(buffer)
        await buffer.upkeep.retention.step()
        assert stored(buffer) >= old


@asynchronous
async def test_records_of_an_unset_clock_go_with_the_first_later_one_that_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, keep="2h") as buffer:

        async def appended(hours: float, synced: bool) -> set[int]:
            monkeypatch.setattr(clock, "synchronised", lambda: synced)
            buffer.writer._synced_s = -1.0  # it looks once a second
            seqs = {buffer.append([aged(hours)]) for _ in range(5)}
            await settle(buffer)
            return seqs

        lane = buffer.lanes("mes", "now", ALL)[0]
        of_1970 = 500_000.0
        before_old, old = await appended(of_1970, synced=False), await appended(3, synced=True)
        before_young, young = await appended(of_1970, synced=False), await appended(1, synced=True)
        buffer.progress(lane, max(young), max(young))
        await settle(buffer)
        await buffer.upkeep.retention.step()
        left = stored(buffer)
        assert not left & (before_old | old)
        assert left >= before_young | young


@asynchronous
async def test_samples_of_an_open_cycle_stay_until_it_closes(tmp_path: Path) -> None:
    async with opened(tmp_path, keep="2h") as buffer:
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN1")
        buffer.append(records)
        before = buffer.append([aged(5)])
        inside = [buffer.append([aged(5, cycle)]) for _ in range(20)]
        await settle(buffer)
        buffer.append([record(Kind.AUDIT, "agent", {})])
        await settle(buffer)
        for _ in range(2):
            await buffer.upkeep.retention.step()
        assert set(inside) <= stored(buffer)
        buffer.append([closing(cycle, {PRESS.source: [[inside[0], inside[-1]]]})])
        await settle(buffer)
        del before


@asynchronous
async def test_a_full_buffer_gives_up_loose_samples_keeps_numbers_and_then_holds(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", SAMPLES)
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN1")
        buffer.append(records)
        owned, appended = [], 0
        for block in range(40):
            for _ in range(25):
                buffer.append([aged(0, size=400)])
            owned += [buffer.append([aged(0, cycle, size=400)]) for _ in range(5)]
            appended += 30
            await buffer.committed(buffer.next_seq - 1)
            del block
        buffer.append([closing(cycle, {PRESS.source: [[seq, seq] for seq in owned]})])
        await settle(buffer)
        reader = buffer.reader()
        first = reader.rows(lane, lane.seq, buffer.durable_seq, 100, 2**20)  # these numbers are in use
        before = numbers(read_all(buffer, lane))
        buffer.passed.seq[lane.id] = first[-1].seq  # of that reading no route knows anything
        limit(buffer, 620_000)
        for _ in range(3):
            await buffer.upkeep.retention.step()
        assert set(owned) <= stored(buffer)
        after = numbers(read_all(buffer, lane))
        assert after[-1] == before[-1] == appended  # confirmed + pending + recorded drops
        assert {seq: after[seq] for seq in owned} == {seq: before[seq] for seq in owned}
        rest = reader.rows(lane, first[-1].seq, buffer.durable_seq, 10_000, 2**24)
        assert 100 + numbers(rest)[-1] == appended  # a route in the middle goes on with the right number
        reader.close()
        given_up = sum(drop["kinds"]["sample"] for drop in drops(buffer))
        assert given_up == appended - len(stored(buffer) & set(before)) > 0
        assert buffer.stats()["pending"] == {"mes": appended}

        limit(buffer, 300_000)
        for _ in range(3):
            await buffer.upkeep.retention.step()
        assert "full" in buffer.stats()["trouble"]["error"]
        last = buffer.append([aged(0, cycle)])
        waiting = asyncio.create_task(buffer.committed(last))
        await asyncio.sleep(0.1)
        assert not waiting.done() and buffer.answers()
        buffer.progress(lane, last - 1, appended)  # the receiver is back
        await asyncio.sleep(0.1)
        await buffer.upkeep.retention.step()
        await asyncio.wait_for(waiting, 5)
        assert buffer.stats()["trouble"] is None
    assert intact(tmp_path)


@asynchronous
async def test_a_full_buffer_stores_cycles_and_no_loose_samples(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", SAMPLES)
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN1")
        buffer.append(records)
        for _ in range(1000):
            buffer.append([aged(0, cycle, size=400)])
        await settle(buffer)
        limit(buffer, round(buffer.upkeep.used() / 0.99))  # nothing may go, and there is a little room
        await buffer.upkeep.retention.step()
        assert buffer.shedding and buffer.writer.held is None
        loose = [buffer.append([aged(0)]) for _ in range(5)]
        mine = buffer.append([aged(0, cycle)])
        more = buffer.append([aged(0)])
        await settle(buffer)
        assert not {*loose, more} & stored(buffer) and mine in stored(buffer)
        assert buffer.stats()["pending"] == {"mes": 1001}
        limit(buffer, 10**9)
        await buffer.upkeep.retention.step()
        last = buffer.append([aged(0)])
        await settle(buffer)
        assert [row.seq for row in read_all(buffer, lane)][-2:] == [mine, last]
        (drop,) = drops(buffer)
        assert (drop["kinds"], drop["first_seq"], drop["last_seq"]) == ({"sample": 6}, loose[0], more)
    assert intact(tmp_path)


@asynchronous
async def test_a_route_gives_up_what_is_beyond_its_max_backlog(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (dead,) = buffer.lanes("dead", "now", SAMPLES, max_backlog=100_000)
        (alive,) = buffer.lanes("alive", "now", SAMPLES)
        seqs = [buffer.append([aged(0, size=400)]) for _ in range(1000)]
        await settle(buffer)
        for _ in range(3):
            await buffer.upkeep.retention.step()
        rows = read_all(buffer, dead)
        kept = [row for row in rows if row.kind == Kind.SAMPLE]
        assert 50 < len(kept) < 250 and kept[-1].seq == seqs[-1]
        assert numbers(rows)[-1] == 1000
        assert len(read_all(buffer, alive)) == 1000  # the other route lost nothing
        assert {drop["route"] for drop in drops(buffer)} == {"dead"}
        assert set(seqs) <= stored(buffer)


@asynchronous
async def test_a_detached_route_keeps_its_records_until_the_cap(tmp_path: Path) -> None:
    async with opened(tmp_path, keep="1h") as buffer:
        buffer.lanes("gone", "now", SAMPLES)
        seqs = {buffer.append([aged(2, size=400)]) for _ in range(500)}
        await settle(buffer)
    async with opened(tmp_path, keep="1h") as buffer:
        await buffer.upkeep.detach()
        assert buffer.stats()["attached"] == {"gone": False}
        await buffer.upkeep.retention.step()
        assert seqs <= stored(buffer)  # not by age
        limit(buffer, 450_000)
        for _ in range(3):
            await buffer.upkeep.retention.step()
        assert not seqs <= stored(buffer)
        assert sum(drop["kinds"].get("sample", 0) for drop in drops(buffer)) == len(seqs - stored(buffer))
    assert intact(tmp_path)


@asynchronous
async def test_the_registry_outlives_the_records_but_not_for_ever(tmp_path: Path) -> None:
    async with opened(tmp_path, keep="1h") as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN1")
        buffer.append([*records, closing(cycle, {})])  # ended in 1970
        records, still_open, _ = opening(buffer, "SN2")
        seq = buffer.append([*records, *(aged(0) for _ in range(10))])
        await settle(buffer)
        tidied = buffer.writer.chore(lambda db: tidy(db, time.time_ns()))
        assert not await asyncio.wrap_future(tidied)  # its records are still there
        buffer.progress(lane, seq, seq)
        await settle(buffer)
        buffer.settings = buffer.settings.model_copy(update={"keep": 0.0})
        await buffer.upkeep.retention.step()
        archive = open_readonly(tmp_path)
        assert archive.trace("SN1")[0].cycles[0].result == "Passed"
        while await asyncio.wrap_future(buffer.writer.chore(lambda db: tidy(db, time.time_ns()))):
            pass
        assert archive.trace("SN1") == []
        assert [visit.cycle for visit in archive.trace("SN2")[0].cycles] == [still_open]
        assert buffer.lookup.unit("serial", "SN1") is None
        archive.close()


@asynchronous
async def test_a_cycle_is_known_as_long_as_samples_of_it_are_pending(tmp_path: Path) -> None:
    """Its opening is delivered and gone: forgotten, its samples would be the first to go from a full disk."""
    async with opened(tmp_path, keep="1h") as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        buffer.append(preamble())
        records, cycle, _ = opening(buffer, "SN1")
        done = buffer.append(records)
        seqs = [buffer.append([aged(0, cycle)]) for _ in range(10)]
        buffer.append([closing(cycle, {PRESS.source: [[seqs[0], seqs[-1]]]}), *(aged(0) for _ in range(3))])
        buffer.progress(lane, done, done)
        await settle(buffer)
        buffer.settings = buffer.settings.model_copy(update={"keep": 0.0})
        await buffer.upkeep.retention.step()
        assert min(stored(buffer) & set(range(done, 10**6))) == seqs[0]
        while await asyncio.wrap_future(buffer.writer.chore(lambda db: tidy(db, time.time_ns()))):
            pass
        with contextlib.closing(sqlite3.connect(buffer.files.db)) as db:
            assert db.execute("SELECT cycle, first_seq, last_seq FROM cycle_window").fetchall() == [
                (cycle, seqs[0], seqs[-1])
            ]


@asynchronous
async def test_space_comes_back(tmp_path: Path) -> None:
    async with opened(tmp_path, keep="1h") as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        for _ in range(100):
            seq = buffer.append([aged(2, size=4000) for _ in range(50)])
            await buffer.committed(seq)
        full = buffer.stats()["used_bytes"]
        buffer.progress(lane, seq, seq)
        await settle(buffer)
        for _ in range(4):
            await buffer.upkeep.retention.step()
        stats = buffer.stats()
        assert stats["used_bytes"] < full / 5
        assert (tmp_path / "buffer.db").stat().st_size < full  # given back to the file system


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_history_loses_what_is_undelivered(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    asyncio.run(history(tmp_path_factory.mktemp("history"), random.Random(seed)))


async def history(data_dir: Path, chance: random.Random) -> None:
    """Random appends, progress, restarts and retention; after each round nothing pending and nothing young is gone."""
    ages: dict[int, float] = {}
    cursors = {"one": 0, "two": 0}
    for _ in range(chance.randint(1, 3)):
        async with opened(data_dir, keep="2h") as buffer:
            lanes = {name: buffer.lanes(name, "oldest", ALL) for name in cursors}
            for _ in range(chance.randint(1, 3)):
                for _ in range(chance.randint(0, 60)):
                    age = chance.choice([0.1, 1.9, 2.1, 50])
                    ages[buffer.append([aged(age, size=chance.choice([0, 300]))])] = age
                await settle(buffer)
                for name in cursors:
                    upto = min(buffer.durable_seq, cursors[name] + chance.randint(0, 80))
                    cursors[name] = upto
                    for lane in lanes[name]:
                        end = upto if lane.to_seq is None else min(upto, lane.to_seq)
                        if end >= lane.from_seq:
                            buffer.progress(lane, end, end - lane.from_seq + 1)
                await settle(buffer)
                await buffer.upkeep.retention.step()
                left, floor = stored(buffer), min(cursors.values())
                assert {seq for seq, age in ages.items() if seq > floor or age < 2} <= left
        assert intact(data_dir)
