"""A range once more and dead letters once more, on a running route; and what a hostile request is worth."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_agent.buffer import Buffer
from edge_agent.routes import Route
from edge_agent.routes.lanes import ASKED_OPEN
from support.delivery import CONFIRM, Watcher, buffer, running, scans, settings, settled, until
from support.mosquitto import Mosquitto


def asking(route: str, log: str, first: int, last: int, **more: Any) -> dict[str, Any]:
    wanted = {"id": "ask-1", "route": route, "log": log, "first_seq": first, "last_seq": last}
    return {"v": 1, "agent": "pc1", "replay": wanted | more}


def streams(route: Route) -> list[str]:
    return [lane["stream"] for lane in route.status()["lanes"]]


def confirming(watcher: Watcher) -> Callable[[], None]:
    """Confirm all that came so far, stream by stream."""

    def confirm() -> None:
        highest: dict[str, int] = {}
        for _, message in list(watcher.messages):
            if isinstance(message, dict) and "records" in message:
                last = message["records"][-1]
                highest[message["stream"]] = max(
                    highest.get(message["stream"], 0), last["n"] + last.get("count", 1) - 1
                )
        for stream, upto in highest.items():
            watcher.publish(CONFIRM, {"v": 1, "agent": "pc1", "stream": stream, "upto": upto})

    return confirm


def forget(folder: Path, first: int, last: int) -> None:
    """What retention does with delivered records, done at once."""
    with closing(sqlite3.connect(folder / "data" / "buffer.db")) as connection, connection:
        (digest,) = connection.execute("SELECT hash FROM record WHERE seq = ?", (last,)).fetchone()
        connection.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, last))
        connection.execute("INSERT INTO gap VALUES (?, ?, ?, 'delivered')", (first, last, digest))


async def all_confirmed(watcher: Watcher, route: Route, store: Buffer) -> None:
    confirm = confirming(watcher)

    async def go_on() -> None:
        while True:
            await asyncio.to_thread(confirm)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(go_on())
    try:
        await settled(route, store)
        await until(lambda: len(route.status()["lanes"]) == 1, route.status)
    finally:
        task.cancel()


def test_a_receiver_asks_for_a_range_and_what_is_gone_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                first = store.append(scans(100)) - 99
                await until(lambda: len(watcher.texts()) == 100)
                await all_confirmed(watcher, route, store)
                (live,) = streams(route)
                forget(tmp_path, first + 10, first + 29)
                watcher.messages.clear()
                asked = asking("mes", store.log, first + 5, first + 44)
                for _ in range(3):  # the same request, while it is open
                    await asyncio.to_thread(watcher.publish, CONFIRM, asked)
                await until(lambda: len(watcher.records()) == 20, lambda: watcher.messages)
                assert [r["seq"] for r in watcher.records()] == [
                    *range(first + 5, first + 10), *range(first + 30, first + 45)
                ]  # fmt: skip
                (stone,) = watcher.records("tombstone")
                assert stone["reason"] == f"seq {first + 10}-{first + 29} is no longer kept"
                messages = [message for _, message in watcher.messages if "records" in message]
                assert {(m["replayed"], m["replay"], m["stream"] == live) for m in messages} == {(True, "ask-1", False)}
                numbers = {r["n"] for r in [*watcher.records(), *watcher.records("tombstone")]}
                assert numbers == set(range(1, 22))
                store.append(scans(1, "fresh"))
                await until(lambda: "fresh-0" in watcher.texts())
                (fresh,) = [m for m in map(dict, (m for _, m in watcher.messages)) if m.get("stream") == live]
                assert "replayed" not in fresh
                await all_confirmed(watcher, route, store)
                assert streams(route) == [live]
                assert route.status()["connections"] == 1, "taken up without a reconnect"
                watcher.messages.clear()
                await asyncio.to_thread(watcher.publish, CONFIRM, asked)  # once more: another stream
                await until(lambda: len(watcher.records()) == 20)
                assert {m["stream"] for m in messages}.isdisjoint({r["stream"] for r in watcher.records()})

    asyncio.run(scenario())


def test_requests_are_bounded_and_wrong_ones_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                first = store.append(scans(50)) - 49
                await until(lambda: len(watcher.texts()) == 50)
                wrong = [
                    asking("mes", "000000000000", first, first),
                    asking("mes", store.log, first + 10**6, first + 10**7),
                    asking("mes", store.log, first, first) | {"agent": "other"},
                    asking("erp", store.log, first, first),
                ]
                for payload in wrong:
                    await asyncio.to_thread(watcher.publish, CONFIRM, payload)
                    await asyncio.sleep(0.05)
                await until(lambda: route.status()["refused_requests"] == 4, route.status)
                await asyncio.to_thread(watcher.publish, CONFIRM, asking("mes", store.log, first, 0))
                await until(lambda: route.status()["refused_confirmations"] == 1)
                for number in range(ASKED_OPEN + 5):
                    payload = asking("mes", store.log, first, first + 9, id=f"ask-{number}")
                    await asyncio.to_thread(watcher.publish, CONFIRM, payload)
                await until(lambda: route.status()["refused_requests"] == 9, route.status)
                assert len(streams(route)) == 1 + ASKED_OPEN
                await all_confirmed(watcher, route, store)
                with closing(sqlite3.connect(tmp_path / "data" / "buffer.db")) as connection:
                    (kept,) = connection.execute("SELECT count(*) FROM lane").fetchone()
                assert kept <= 1 + ASKED_OPEN

    asyncio.run(scenario())


def test_dead_letters_are_sent_once_more_and_may_be_refused_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                first = store.append(scans(20)) - 19
                await until(lambda: len(watcher.texts()) == 20)
                nack = [{"n": n, "reason": "unknown part"} for n in (5, 15)]
                said = {"v": 1, "agent": "pc1", "stream": streams(route)[0], "upto": 21, "nack": nack}
                await asyncio.to_thread(watcher.publish, CONFIRM, said)
                await until(lambda: route.status()["dead"] == 2)
                watcher.messages.clear()
                seqs = [first + 3, first + 13]
                (lane,) = await asyncio.to_thread(
                    lambda: store.replay("mes", purpose="retry", first_seq=seqs[0], last_seq=seqs[1], seqs=seqs)
                )
                await until(lambda: len(watcher.records()) == 2, route.status)
                assert [(r["seq"], r["n"], r["stream"]) for r in watcher.records()] == [
                    (seqs[0], 1, lane.stream), (seqs[1], 2, lane.stream)
                ]  # fmt: skip
                assert all(message["replayed"] for _, message in watcher.messages if "records" in message)
                said = {"v": 1, "agent": "pc1", "stream": lane.stream, "upto": 2, "nack": [{"n": 2, "reason": "still"}]}
                await asyncio.to_thread(watcher.publish, CONFIRM, said)
                await all_confirmed(watcher, route, store)
                await asyncio.sleep(0.3)  # until it is durable
                with closing(sqlite3.connect(tmp_path / "data" / "buffer.db")) as connection:
                    sql = "SELECT seq, reason, retried_at_ns IS NOT NULL FROM dead_letter ORDER BY seq, lane"
                    letters = connection.execute(sql).fetchall()
                assert letters == [
                    (seqs[0], "receiver: unknown part", 1),
                    (seqs[1], "receiver: unknown part", 1),
                    (seqs[1], "receiver: still", 0),
                ]

    asyncio.run(scenario())
