"""Lanes beside the log's own: replays, retries, splits, renamed routes. On the real buffer file."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from edge_agent.buffer import Buffer, Lane, Row
from edge_agent.buffer.lanes import detach
from edge_agent.buffer.tidy import tidy_lanes
from edge_agent.errors import StorageError
from edge_agent.model import Kind
from edge_agent.routes import route_filter
from support.delivery import buffer, scans, settings

WANTED = route_filter(settings("mqtt://h"))


def rows(store: Buffer, lane: Lane) -> list[Row]:
    reader = store.reader()
    try:
        return reader.rows(lane, lane.seq, store.durable_seq, 8192, 2**20)
    finally:
        reader.close()


async def filled(store: Buffer, count: int) -> int:
    """Append scans; returns the first's seq."""
    last = store.append(scans(count))
    await store.committed(last)
    return last - count + 1


def forget(folder: Path, first: int, last: int) -> None:
    """What retention does with delivered records, done at once."""
    with sqlite3.connect(folder / "data" / "buffer.db") as connection:
        (digest,) = connection.execute("SELECT hash FROM record WHERE seq = ?", (last,)).fetchone()
        connection.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, last))
        connection.execute("INSERT INTO gap VALUES (?, ?, ?, 'delivered')", (first, last, digest))
    connection.close()


def test_a_replay_is_one_lane_a_log_and_is_offered_to_the_running_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            first = await filled(store, 10)
            old = store.log
        async with buffer(tmp_path) as store:
            last = await filled(store, 10) + 9
            store.lanes("mes", "oldest", WANTED)
            made = await asyncio.to_thread(
                lambda: store.replay("mes", first_seq=first + 5, last_seq=last + 1000, request="ask-1")
            )
            assert [lane.log for lane in made] == [old, store.log]
            assert {lane.request for lane in made} == {"ask-1"}
            assert all(lane.replayed and lane.purpose == "replay" for lane in made)
            assert made[1].to_seq == store.durable_seq, "no further than what is there"
            assert await asyncio.wait_for(store.offered("mes"), 5) == made
            assert [row.seq for row in rows(store, made[0])] == list(range(first + 5, first + 10)) + [
                row.seq for row in rows(store, made[0])[5:]
            ]
            again = store.lanes("mes", "oldest", WANTED)
            assert {lane.stream for lane in made} <= {lane.stream for lane in again}
            assert len({lane.stream for lane in again}) == len(again)

    asyncio.run(scenario())


def test_what_is_no_longer_kept_is_one_number_that_names_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            store.lanes("mes", "oldest", WANTED)
            first = await filled(store, 10)
            forget(tmp_path, first + 2, first + 5)
            (lane,) = store.replay("mes", first_seq=first, last_seq=first + 9)
            found = rows(store, lane)
            assert [row.seq for row in found] == [first, first + 1, first + 5, *range(first + 6, first + 10)]
            assert found[2].body == b'{"count":1,"reason":"seq %d-%d is no longer kept"}' % (first + 2, first + 5)
            (retry,) = store.replay(
                "mes", purpose="retry", first_seq=first, last_seq=first + 9, seqs=[first + 9, first + 1, first + 3]
            )
            assert [(row.seq, row.kind) for row in rows(store, retry)] == [
                (first + 1, Kind.SCAN), (first + 3, 0), (first + 9, Kind.SCAN),
            ]  # fmt: skip
            assert store.pending_of("mes")[retry.id] == 3

    asyncio.run(scenario())


def test_a_replay_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            first = await filled(store, 3)
            with pytest.raises(LookupError, match="no route is named mes"):
                store.replay("mes", first_seq=first, last_seq=first)
            store.lanes("mes", "oldest", WANTED)
            for log, span in (("nowhere", (first, first)), (store.log, (10**8, 10**9)), (store.log, (5, 2))):
                with pytest.raises(LookupError, match=r"nothing of seq .* is in log"):
                    store.replay("mes", first_seq=span[0], last_seq=span[1], log=log)
            assert store.replay("mes", first_seq=first, last_seq=first, log=store.log)
            (clipped,) = store.replay("mes", first_seq=first, last_seq=10**9, log=store.log)
            assert (clipped.from_seq, clipped.to_seq) == (first, store.durable_seq), "a restored receiver guesses"

    asyncio.run(scenario())


def test_a_split_ends_the_lane_at_the_head_and_counts_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            await filled(store, 20)
            assert store.split(lane, least=1000) is None
            new = store.split(lane, least=20)
            assert new is not None
            assert (new.from_seq, new.to_seq, new.number) == (store.durable_seq + 1, None, 2)
            assert store.split(lane) is None, "it grows no more"
            assert store.split(new) is None, "nothing is pending there"
            await filled(store, 5)
            old, live = store.lanes("mes", "oldest", WANTED)
            assert (old.to_seq, live) == (new.from_seq - 1, new)
            assert store.pending_of("mes") == {old.id: 21, new.id: 5}, "with log_opened"
            assert store.stats()["pending"] == {"mes": 26}
            assert len(rows(store, old)) == 21
            assert len(rows(store, new)) == 5

    asyncio.run(scenario())


def test_a_renamed_route_keeps_lanes_dead_letters_and_progress_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            await filled(store, 20)
            store.progress(lane, lane.from_seq + 4, 5)
            store.dead_letter(lane, 3, lane.from_seq + 2, "unknown part")
        async with buffer(tmp_path) as store:
            assert await store.rename_route("mes", "plant")
            assert not await store.rename_route("mes", "plant"), "once"
            old, live = store.lanes("plant", "now", WANTED)
            assert (old.seq, old.n, old.stream) == (lane.from_seq + 4, 5, f"{lane.log}.plant.1")
            assert live.log == store.log
            stats = store.stats()
            assert stats["dead_letters"] == {"plant": 1}
            assert set(stats["pending"]) == {"plant"}
            every = store.replay("plant", first_seq=1, last_seq=store.durable_seq)
            bodies = [row.body for lane in every for row in rows(store, lane)]
            assert any(b'"route_rename"' in body for body in bodies) is (Kind.AUDIT in WANTED.kinds)
        with sqlite3.connect(tmp_path / "data" / "buffer.db") as connection:
            (body,) = connection.execute("SELECT body FROM record WHERE kind = ?", (int(Kind.AUDIT),)).fetchone()
        assert b'"old":"mes","new":"plant"' in body

    asyncio.run(scenario())


def test_streams_of_replays_never_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            first = await filled(store, 5)
            names = {lane.stream}
            for _ in range(5):
                (again,) = store.replay("mes", first_seq=first, last_seq=first)
                assert again.stream not in names
                names.add(again.stream)
            new = store.split(lane)
            assert new is not None
            assert new.stream == f"{store.log}.mes.2"

    asyncio.run(scenario())


def test_a_hole_is_told_whole_however_far_a_read_goes(tmp_path: Path) -> None:
    """A cursor inside one would stand for numbers that its seqs no longer tell."""

    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            await filled(store, 50)
            assert await store.drop_route("mes", "for the test") == 51
            await filled(store, 5)
            reader = store.reader()
            for max_seq in (10, store.durable_seq):
                found = reader.rows(lane, lane.seq, max_seq, 100, 2**20)
                assert (found[0].seq, found[0].kind) == (51, 0), "the drop itself is 52"
                assert len(found) == (1 if max_seq == 10 else 7)
            assert [row.seq for row in reader.rows(lane, 51, store.durable_seq, 100, 2**20)] == list(range(52, 58))
            reader.close()

    asyncio.run(scenario())


def test_what_was_read_once_stays_in_hand_when_it_is_read_again(tmp_path: Path) -> None:
    """After a reconnect: the receiver may have had it, so it is not given up."""

    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            await filled(store, 50)
            reader = store.reader()
            for rows in (40, 5):
                assert reader.rows(lane, lane.seq, store.durable_seq, rows, 2**20)
            reader.close()
            assert await store.drop_route("mes", "for the test") == 11

    asyncio.run(scenario())


def test_a_kill_right_after_a_cut_leaves_one_growing_lane(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            await filled(store, 20)
            assert store.split(lane) is not None
            store.writer.shrink()
            copied = store.writer.chore(lambda _: shutil.copy(store.files.db, tmp_path / "killed.db"), alone=True)
            await asyncio.wrap_future(copied)
        (tmp_path / "killed" / "data").mkdir(parents=True)
        shutil.copy(tmp_path / "killed.db", tmp_path / "killed" / "data" / "buffer.db")
        async with buffer(tmp_path / "killed") as store:
            lanes = store.lanes("mes", "oldest", WANTED)
            assert [(lane.log == store.log, lane.to_seq is None) for lane in lanes] == [(False, False), (True, True)]

    asyncio.run(scenario())


def test_a_retry_to_a_route_that_is_detached_leaves_its_dead_letters_dead(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            first = await filled(store, 20)
            for place in (2, 5):
                store.dead_letter(lane, place + 2, first + place, "unknown part")
            store.progress(lane, store.durable_seq, 21)
            await asyncio.sleep(0.5)
            again = {"first_seq": first, "last_seq": first + 9, "seqs": [first + 2, first + 5]}
            (retry,) = store.replay("mes", purpose="retry", **again)
            assert store.stats()["dead_letters"] == {}
            store.progress(retry, first + 2, 1)
            await asyncio.sleep(0.5)
            await asyncio.wrap_future(store.writer.chore(lambda db: detach(db, [], store.durable_seq)))
            await asyncio.wrap_future(store.writer.chore(tidy_lanes))
            assert store.stats()["dead_letters"] == {"mes": 1}
            assert store.pending_of("mes").get(retry.id, 0) == 0

    asyncio.run(scenario())


def test_what_is_being_salvaged_is_not_given_up_uncounted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            (lane,) = store.lanes("mes", "oldest", WANTED)
            first = await filled(store, 20)
        async with buffer(tmp_path) as store:
            store.lanes("mes", "oldest", WANTED)
            await filled(store, 5)
            missing = "INSERT INTO gap VALUES (?, ?, x'00', 'salvage')"
            await asyncio.wrap_future(store.writer.chore(lambda db: db.execute(missing, (first, first + 3)).close()))
            assert await store.drop_route("mes", "for the test") == 6, "of the running log only"
            assert store.pending_of("mes")[lane.id] > 0
            for number in range(6):
                ask = {"first_seq": first, "last_seq": first, "request": f"ask-{number % 5}"}
                if number == 4:
                    with pytest.raises(LookupError, match="wait to be salvaged"):
                        store.replay("mes", **ask)
                else:
                    assert len(store.replay("mes", **ask)) == (number < 4)
            await asyncio.wrap_future(store.writer.chore(lambda db: detach(db, [], store.durable_seq)))
            with pytest.raises(StorageError, match="still being salvaged"):
                await store.drop_route("mes", "for the test")
            assert store.pending_of("mes")[lane.id] > 0

    asyncio.run(scenario())
