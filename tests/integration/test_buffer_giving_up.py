"""Giving up, to the record: drop_route, max_backlog over several lanes, drops that turn out empty, dead letters' time.

And what the lock is for: it outlives a writer that hangs, so that nobody else writes beside it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from edge_agent import clock
from edge_agent.buffer import Buffer, BufferSettings, holes, log, open_buffer, writer
from edge_agent.buffer.lanes import Lane
from edge_agent.errors import StorageBusy, StorageError
from edge_agent.model import Instant, Kind, Record
from integration.test_buffer_retention import SAMPLES, aged, drops, intact, numbers, settle, stored
from support.buffer_rig import asynchronous, opened, read_all, sample

ROW = 400 + 60  # about what a record of ``aged(0, size=400)`` counts


@pytest.fixture(autouse=True)
def _trusted_clock_and_prompt_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "synchronised", lambda: True)
    monkeypatch.setattr(writer, "PROGRESS_S", 0.01)


@asynchronous
async def test_the_lock_outlives_a_writer_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "STOP_S", 0.2)
    buffer = open_buffer(tmp_path, "pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
    hangs, let_go = threading.Event(), threading.Event()

    def hang(db: sqlite3.Connection) -> None:
        hangs.set()
        assert let_go.wait(30)

    seq = buffer.append([sample([1, True, 0])])
    await buffer.committed(seq)
    buffer.writer.chore(hang)  # as a disk does that no longer answers
    assert await asyncio.to_thread(hangs.wait, 10)
    late = buffer.append([sample([2, True, 0])])
    with pytest.raises(StorageError, match="did not end in time"):
        await buffer.close()
    with pytest.raises(StorageBusy):
        open_buffer(tmp_path, "pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
    let_go.set()
    async with asyncio.timeout(10):
        while True:
            try:
                again = open_buffer(tmp_path, "pc1", BufferSettings(min_free="1MB", ballast="1MiB"))
                break
            except StorageBusy:
                await asyncio.sleep(0.02)
    assert again.next_seq > late  # what it still wrote counts: it had the lock
    await again.close()
    assert {seq, late} <= stored(again)
    assert intact(tmp_path)


@asynchronous
async def test_dead_letters_of_1970_keep_their_30_days_from_the_first_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offset_ns = clock.now, -time.time_ns() + 60 * 10**9  # a minute after the epoch
    monkeypatch.setattr(clock, "synchronised", lambda: False)
    monkeypatch.setattr(clock, "now", lambda: Instant(real().at_ns + offset_ns, real().mono_ns))
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", SAMPLES)
        refused = buffer.append([sample([1, True, 0])])
        buffer.dead_letter(lane, 1, refused, "no such column")
        buffer.progress(lane, refused, 1)
        await settle(buffer)

        async def a_tick() -> int:
            await buffer.upkeep._trust_letters()
            buffer.upkeep.retention._sweep_s = -1e9  # it is due again
            await buffer.upkeep.retention.step()
            await settle(buffer)
            return buffer.stats()["dead_letters"].get("mes", 0)

        assert await a_tick() == 1
        offset_ns = 0
        assert await a_tick() == 1  # the clock is right, but nobody has said so
        monkeypatch.setattr(clock, "synchronised", lambda: True)
        buffer.writer._synced_s = -1.0
        assert await a_tick() == 1 and refused in stored(buffer)
        offset_ns = holes.DEAD_LETTER_NS - 3600 * 10**9
        assert await a_tick() == 1  # an hour before its time is over
        offset_ns = holes.DEAD_LETTER_NS + 3600 * 10**9
        assert await a_tick() == 0
        (drop,) = drops(buffer)
        assert (drop["route"], drop["kinds"], drop["first_seq"]) == ("mes", {"sample": 1}, refused)


@asynchronous
async def test_an_attached_route_that_is_dropped_goes_on_with_what_comes(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (lane,), (other,) = buffer.lanes("mes", "now", SAMPLES), buffer.lanes("other", "now", SAMPLES)
        seqs = [buffer.append([aged(0, size=50)]) for _ in range(300)]
        await settle(buffer)
        reader = buffer.reader()
        in_hand = reader.rows(lane, lane.seq, buffer.durable_seq, 20, 2**20)
        assert await buffer.drop_route("mes", "line rebuilt") == 280
        after = buffer.append([aged(0)])
        await settle(buffer)
        rest = reader.rows(lane, in_hand[-1].seq, buffer.durable_seq, 1000, 2**20)
        reader.close()
        assert 20 + numbers(rest)[after] == 301  # numbers go on as if all had been sent
        assert [row.seq for row in read_all(buffer, other)] == [*seqs, after]
        assert {drop["reason"] for drop in drops(buffer)} == {"line rebuilt"}
        assert sum(drop["kinds"]["sample"] for drop in drops(buffer)) == 280
        assert buffer.stats()["attached"]["mes"]
        with pytest.raises(LookupError, match="nobody"):
            await buffer.drop_route("nobody", "a slip")


@asynchronous
async def test_a_detached_route_that_is_dropped_is_forgotten_with_its_dead_letters(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("gone", "now", SAMPLES)
        seqs = [buffer.append([aged(0, size=50)]) for _ in range(100)]
        buffer.dead_letter(lane, 1, seqs[0], "refused")
        buffer.progress(lane, seqs[0], 1)
        await settle(buffer)
    async with opened(tmp_path) as buffer:
        await buffer.upkeep.detach()
        assert await buffer.drop_route("gone", "no longer there") == 100  # 99 pending and a dead letter
        await settle(buffer)
        stats = buffer.stats()
        assert "gone" not in stats["attached"] and stats["dead_letters"] == {}
        assert sum(sum(drop["kinds"].values()) for drop in drops(buffer)) == 100
        with pytest.raises(LookupError):
            await buffer.drop_route("gone", "once more")
    assert intact(tmp_path)


@asynchronous
async def test_max_backlog_is_precise_over_several_lanes_while_the_route_delivers(tmp_path: Path) -> None:
    """A replay beside two logs' lanes: only what is new counts, the oldest goes, and no number moves."""
    for _ in range(2):
        async with opened(tmp_path) as buffer:
            buffer.lanes("mes", "now", SAMPLES)
            old = [buffer.append([aged(0, size=400)]) for _ in range(300)]
            await settle(buffer)
    async with opened(tmp_path) as buffer:
        lanes = buffer.lanes("mes", "now", SAMPLES)
        assert len(lanes) == 3
        again = buffer.replay("mes", first_seq=old[0], last_seq=old[99])
        await buffer.committed(buffer.append([aged(0, size=400) for _ in range(300)]))
        before = {lane.id: numbers(read_all(buffer, lane)) for lane in lanes}
        buffer.passed.seq.clear()  # that was only a look
        reader = buffer.reader()
        hand: dict[int, int] = {}
        for lane in lanes:
            hand[lane.id] = reader.rows(lane, lane.seq, buffer.durable_seq, 10, 2**20)[-1].seq
        buffer.progress(lanes[0], hand[lanes[0].id], 10)  # it delivers meanwhile
        await settle(buffer)
        buffer.upkeep.retention.backlogs["mes"] = 400 * ROW
        for _ in range(2):
            await buffer.upkeep.retention.step()
        given = sum(drop["kinds"]["sample"] for drop in drops(buffer))
        kept = sum(len(rest(reader, lane, hand[lane.id], buffer.durable_seq)) for lane in lanes)
        reader.close()
        assert given + kept == 870  # of what is in no hand, each is here or recorded
        assert 0.8 * 400 <= kept <= 400
        for lane in lanes:
            after = numbers(read_all(buffer, lane))
            assert after[-1] == before[lane.id][-1]
            assert all(before[lane.id][seq] == n for seq, n in after.items())
        assert len(read_all(buffer, again[0])) == 100  # a replay gives up nothing
    assert intact(tmp_path)


def rest(reader: object, lane: Lane, after_seq: int, upto: int) -> list[int]:
    rows = reader.rows(lane, after_seq, upto, 5000, 2**24)  # type: ignore[attr-defined]
    return [row.seq for row in rows if row.kind == Kind.SAMPLE]


@pytest.mark.parametrize("body", [{}, None, {"reason": "as it turned out"}])
def test_a_drop_is_stored_as_it_turned_out_or_not_at_all(tmp_path: Path, body: dict[str, str] | None) -> None:
    async def story() -> None:
        async with opened(tmp_path) as buffer:
            (lane,) = buffer.lanes("mes", "now", SAMPLES)
            buffer.append([sample([1, True, 0])])
            seq = buffer.append_drop(Record(Kind.DROP, "agent", clock.now(), {"reason": "planned"}), lambda db: body)
            after = buffer.append([sample([2, True, 0])])
            await settle(buffer)
            expected = [] if body == {} else [body or {"reason": "planned"}]
            assert drops(buffer) == expected
            assert (seq in stored(buffer)) == bool(expected)
            assert [row.seq for row in read_all(buffer, lane)][-1] == after
            assert numbers(read_all(buffer, lane))[-1] == 2

    asyncio.run(story())
    assert intact(tmp_path)


@asynchronous
async def test_max_backlog_gives_up_nothing_on_the_strength_of_an_old_sum(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        buffer.lanes("mes", "now", SAMPLES)
        seqs = [buffer.append([aged(0, size=4000)]) for _ in range(50)]
        await settle(buffer)
        retention = buffer.upkeep.retention
        limit = 50 * 4200
        assert buffer.upkeep.used() > limit
        await retention.routes.limit("mes", limit)
        work = buffer.writer.chore(lambda db: holes.give_up(db, seqs[20], seqs[29], buffer.passed.seq, "full"))
        await asyncio.wrap_future(work)
        for _ in range(5):
            buffer.append([aged(0, size=4000)])
        await settle(buffer)
        await retention.routes.limit("mes", limit)  # 45 are pending
        assert drops(buffer) == []


@asynchronous
async def test_a_hole_is_not_joined_to_one_that_the_route_was_told_before_a_restart(tmp_path: Path) -> None:
    async def give_up(buffer: Buffer, first: int, last: int) -> None:
        work = buffer.writer.chore(lambda db: holes.give_up(db, first, last, buffer.passed.seq, "full"))
        await asyncio.wrap_future(work)

    async with opened(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", SAMPLES)
        seqs = [buffer.append([sample([number, True, 0])]) for number in range(10)]
        await settle(buffer)
        await give_up(buffer, seqs[0], seqs[3])
        buffer.progress(lane, seqs[3], 4)  # the receiver knows that these four do not come
        await settle(buffer)
    async with opened(tmp_path) as buffer:
        lane = buffer.lanes("mes", "now", SAMPLES)[0]
        assert (lane.seq, lane.n) == (seqs[3], 4)
        await give_up(buffer, seqs[4], seqs[5])
        rows = read_all(buffer, lane)
        told = numbers(rows)
        assert [lane.n + told[seq] for seq in seqs[6:]] == [7, 8, 9, 10]
