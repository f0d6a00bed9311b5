"""Several lanes at once: live records go beside a backlog, through outages and a kill, and nothing is lost.

What arrived is counted from outside, in the receiver's own database: each record once, every stream without a gap.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.model import Kind
from edge_agent.receiver import Receiver, RecordRejected
from support.delivery import Poisoned, Watcher, buffer, running, scans, settings, settled, threaded, until
from support.mosquitto import Mosquitto
from support.route_line import Line


@contextmanager
def receiving(url: str, database: Path) -> Iterator[None]:
    receiver = Receiver(url, "acme/#", database)
    with threaded(receiver.run, receiver.stop):
        yield


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            return []  # the receiver is about to lay it out
        return connection.execute(sql).fetchall()


def texts(database: Path) -> list[str]:
    sql = "SELECT json_extract(body, '$.text') FROM record WHERE kind = 'scan'"
    return [text for (text,) in query(database, sql)]


def arrived(database: Path) -> int:
    return sum(count for (count,) in query(database, "SELECT count(*) FROM record WHERE kind = 'scan'"))


def dense(database: Path) -> bool:
    """Every stream is there from its beginning to its highest number."""
    whole = all(upto == highest for upto, highest in query(database, "SELECT upto, highest FROM stream"))
    return whole and query(database, "SELECT count(*) FROM gap WHERE lost") == [(0,)]


@pytest.mark.long
def test_live_records_pass_a_backlog_through_three_outages_and_a_kill(tmp_path: Path) -> None:
    database = tmp_path / "receiver.db"

    async def live_arrives_first(line: Line, backlog: int) -> None:
        """Something accepted from now on arrives while much of the backlog is still to come."""
        known = set(line.accepted)
        await until(lambda: not known.issuperset(texts(database)), lambda: len(texts(database)))
        assert len(texts(database)) < len(line.accepted) - backlog // 4, "the backlog had gone first"

    async def scenario() -> None:
        broker = Mosquitto(tmp_path)
        line = Line(tmp_path, broker.url, max_rate="300KB", message_size="16KiB")
        try:
            await until(lambda: bool(line.accepted))
            line.burst(1500)
            await until(lambda: len(line.accepted) > 1500)
            with broker:
                with receiving(broker.url, database):
                    await live_arrives_first(line, 1500)
                    broker.kill()
                    line.burst(1200)
                    await until(lambda: len(line.accepted) > 2700)
                    broker.start()
                    await live_arrives_first(line, 1200)
                    line.kill()
                    line.start()
                    await live_arrives_first(line, 1200)
                line.burst(1200)  # now it is the receiver that is away
                await until(lambda: len(line.accepted) > 3900)
                with receiving(broker.url, database):
                    await live_arrives_first(line, 1200)
                    await until(lambda: len(texts(database)) > 3900, lambda: len(texts(database)))
                    await until(lambda: set(line.accepted[:3900]) <= set(texts(database)) and dense(database))
                    line.kill()
        finally:
            line.kill()
        assert len(set(texts(database))) == arrived(database), "each once"
        async with buffer(tmp_path) as store:
            with broker, receiving(broker.url, database):
                async with running(store, settings(broker.url)) as route:
                    await settled(route, store)
                    assert [lane["pending"] for lane in route.status()["lanes"]] == [0]
        assert set(texts(database)) >= set(line.accepted)
        assert dense(database)
        assert len(query(database, "SELECT DISTINCT stream FROM stream")) >= 5

    asyncio.run(scenario())


def test_strict_keeps_the_order_of_the_lanes(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = tmp_path / "receiver.db"
        with Mosquitto(tmp_path) as broker:
            strict = settings(broker.url, order="strict", max_rate="1MB")
            for part in range(3):
                async with buffer(tmp_path) as store:
                    store.lanes("mes", "oldest", filter_of(strict))
                    await store.committed(store.append(scans(2000, f"run{part}")))
            async with buffer(tmp_path) as store:
                with Watcher(broker.url) as watcher, receiving(broker.url, database):
                    async with running(store, strict) as route:
                        store.append(scans(100, "live"))
                        assert route.status()["order"] == "strict"
                        await settled(route, store)
                        await until(lambda: len(watcher.texts()) == 6100)
            logs = [record["stream"].split(".")[0] for record in watcher.records()]
            changes = [log for before, log in zip(["", *logs], logs, strict=False) if log != before]
            assert len(changes) == 4, "no stream began before the one before it was done"
            flags = {m["stream"]: m.get("replayed") for _, m in watcher.messages if "records" in m}
            assert [flags[stream] for stream in sorted(flags, key=lambda s: changes.index(s.split(".")[0]))] == [
                True, True, True, None,
            ]  # fmt: skip
        assert dense(database)

    asyncio.run(scenario())


def filter_of(wanted: Any) -> Any:
    from edge_agent.routes import route_filter

    return route_filter(wanted)


def test_a_long_backlog_behind_a_rejected_record_arrives(tmp_path: Path) -> None:
    """20,000 records behind one that the receiver refuses; `make fault` has it with 100,000."""
    database = tmp_path / "receiver.db"

    def refuse(_database: sqlite3.Connection, record: Any) -> None:
        if record.body.get("text") == "bad-0":
            raise RecordRejected("unknown part number")

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store:
                quick = settings(broker.url, confirm_timeout="10s")
                store.lanes("mes", "oldest", filter_of(quick))
                store.append(scans(1, "bad"))
                for part in range(5):
                    await store.committed(store.append(scans(4000, f"part{part}")))
                receiver = Receiver(broker.url, "acme/#", database, on_record=refuse)
                with threaded(receiver.run, receiver.stop):
                    async with running(store, quick) as route:
                        store.append(scans(3, "live"))
                        await until(lambda: arrived(database) == 20_003, route.status, 90)
                        await settled(route, store)
                        assert route.status()["dead"] == 1
                        await until(lambda: len(route.status()["lanes"]) == 1, route.status, 90)
        assert len(set(texts(database))) == arrived(database) == 20_003
        assert dense(database)

    asyncio.run(scenario())


def test_a_record_that_ends_connections_is_found_in_a_backlog_while_live_records_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with Poisoned(broker.port) as between, buffer(tmp_path) as store:
                behind = settings(f"mqtt://127.0.0.1:{between.port}", confirm="broker")
                store.lanes("mes", "oldest", filter_of(behind))
                store.append([*scans(1500, "before"), *scans(1, "bad", poison="POISON"), *scans(50, "after")])
                await store.committed(store.next_seq - 1)
                async with running(store, behind) as route:
                    for number in range(100):
                        store.append(scans(1, f"live{number}"))
                        await asyncio.sleep(0.02)
                    await settled(route, store)
                    assert route.status()["dead"] == 1
                    assert route.status()["stream"].endswith(".mes.2"), "it was cut"
                await until(lambda: len(watcher.texts()) == 1650)
                assert "bad-0" not in watcher.texts()

    asyncio.run(scenario())


def test_a_dead_letter_above_the_progress_is_not_refused_again_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            long = settings(broker.url, confirm_timeout="10min")
            async with buffer(tmp_path) as store, running(store, long) as route:
                store.append(scans(10))
                await until(lambda: len(watcher.texts()) == 10)
                nack = {"upto": 0, "nack": [{"n": 5, "reason": "unknown part"}]}
                said = {"v": 1, "agent": "pc1", "stream": route.status()["stream"], **nack}
                await asyncio.to_thread(watcher.publish, "acme/sz/as/L3/_agent/pc1/confirm", said)
                await until(lambda: route.status()["dead"] == 1)
            watcher.messages.clear()
            async with buffer(tmp_path) as store, running(store, long) as route:
                everything = lambda: len(watcher.records()) >= 9 and watcher.records("tombstone")  # noqa: E731
                await until(lambda: bool(everything()), lambda: watcher.messages)
                assert 5 not in {record["n"] for record in watcher.records()}
                (stone,) = watcher.records("tombstone")
                assert (stone["n"], stone["count"], stone["reason"]) == (5, 1, "receiver: unknown part")

    asyncio.run(scenario())


def test_a_renamed_route_goes_on_where_the_former_one_stood(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = tmp_path / "receiver.db"
        with Mosquitto(tmp_path) as broker, receiving(broker.url, database):
            async with buffer(tmp_path) as store, running(store, settings(broker.url), "mes") as route:
                store.append(scans(50, "before"))
                await settled(route, store)
            async with buffer(tmp_path) as store:
                store.lanes("mes", "oldest", filter_of(settings(broker.url)))
                await store.committed(store.append(scans(50, "between")))
            with Watcher(broker.url) as watcher:
                async with buffer(tmp_path) as store:
                    renamed = settings(broker.url, was="mes", start="now")
                    async with running(store, renamed, "plant") as route:
                        store.append(scans(50, "after"))
                        await settled(route, store)
                        assert set(store.stats()["pending"]) == {"plant"}
                        await until(lambda: len(watcher.texts()) == 100)
                assert {record["stream"].split(".")[1] for record in watcher.records()} == {"plant"}
        assert len(texts(database)) == 150
        assert dense(database)
        with closing(sqlite3.connect(tmp_path / "data" / "buffer.db")) as connection:
            sql = "SELECT count(*) FROM record WHERE kind = ?"
            assert connection.execute(sql, (int(Kind.AUDIT),)).fetchone() == (1,)

    asyncio.run(scenario())
