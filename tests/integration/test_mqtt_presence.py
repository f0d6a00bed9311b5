"""Two routes at one broker announce one agent; two agents under one id notice each other and do not fight."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import paho.mqtt.publish as once
import pytest

from edge_agent.buffer import Buffer
from edge_agent.model import Record
from edge_agent.routes import Route
from edge_agent.routes.presence import AtBroker, Presence, share
from support.delivery import CONFIRM, IDENTITY, ROOT, Watcher, buffer, running, scans, settings, settled, until
from support.mosquitto import Mosquitto
from support.scripted import Scripted

STATE = f"{ROOT}/_agent/pc1/state"


@contextlib.asynccontextmanager
async def noting(store: Buffer, url: str, name: str = "mes", **more: Any) -> AsyncIterator[tuple[Route, list[Record]]]:
    """A route at work, and the findings that it reports."""
    found: list[Record] = []

    def report(records: Any) -> int:
        found.extend(records)
        return store.append(records)

    given = settings(url, confirm="broker", **more)
    route = Route(name, given, IDENTITY, store, at_broker=AtBroker(Presence(IDENTITY, store, report), True))
    task = asyncio.create_task(route.run())
    try:
        yield route, found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def states(watcher: Watcher) -> list[str]:
    return [message["state"] for topic, message in list(watcher.messages) if topic == STATE]


def cut(route: Route) -> None:
    """As a pulled cable would, seen from the broker."""
    sink: Any = route._sink
    sink._publisher._socket.shutdown(2)


def test_of_two_routes_at_one_broker_one_says_that_the_agent_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            both = {"mes": settings(broker.url), "qms": settings(broker.url), "far": settings("mqtt://127.0.0.1:9")}
            async with buffer(tmp_path) as store, contextlib.AsyncExitStack() as stack:
                shared = share(both, IDENTITY, store, store.append)
                assert {name: one.announces for name, one in shared.items()} == {"mes": True, "qms": False, "far": True}
                assert shared["mes"].presence is shared["qms"].presence is not shared["far"].presence
                routes = {}
                for name in ("mes", "qms"):
                    route = Route(name, both[name], IDENTITY, store, at_broker=shared[name])
                    task = asyncio.create_task(route.run())
                    stack.push_async_callback(asyncio.gather, task, return_exceptions=True)
                    stack.callback(task.cancel)
                    routes[name] = route
                await until(lambda: all(route.status()["state"] == "connected" for route in routes.values()))
                cut(routes["qms"])
                await until(lambda: routes["qms"].status()["connections"] == 2)
                await asyncio.sleep(0.2)
                assert states(watcher) == ["online"], "the agent was never away"
                cut(routes["mes"])
                await until(lambda: states(watcher) == ["online", "lost", "online"], lambda: states(watcher))
                store.append(scans(5))
                await until(lambda: len(watcher.records()) == 10, watcher.records)
                watcher.publish(CONFIRM, {"v": 1, "agent": "pc1", "resume": True})
                await until(lambda: all(route.status()["sent_again"] for route in routes.values()))

    asyncio.run(scenario())


def test_two_agents_of_one_id_that_live_side_by_side_name_each_other_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with (
                buffer(tmp_path / "a") as first,
                buffer(tmp_path / "b") as second,
                noting(first, broker.url, "a") as (route, mine),
            ):
                await until(lambda: route.status()["state"] == "connected", route.status)
                async with noting(second, broker.url, "b") as (other, theirs):
                    await until(lambda: bool(mine and theirs), lambda: (mine, theirs))
                    for found, log in ((mine, second.log), (theirs, first.log)):
                        (finding,) = found
                        assert finding.body["code"] == "duplicate_agent"
                        assert finding.body["details"]["log"] == log
                        assert finding.body["details"]["host"]
                        assert finding.body["finding"] in (f"{first.log}-2", f"{second.log}-2")
                    cut(other)
                    await until(lambda: other.status()["state"] == "refused", other.status)
                    assert "its own `agent.id`" in other.status()["hint"]
                await asyncio.sleep(0.2)
                assert len(mine) == len(theirs) == 1
                first.append(scans(5))
                await settled(route, first)

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_two_agents_that_throw_each_other_out_notice_it_and_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("edge_agent.routes.route.BACKOFF_REFUSED_S", 1.0)

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with (
                buffer(tmp_path / "a") as first,
                buffer(tmp_path / "b") as second,
                noting(first, broker.url, version=version) as (route, mine),
            ):
                await until(lambda: route.status()["state"] == "connected", route.status)
                async with noting(second, broker.url, version=version) as (other, theirs):
                    named = [second.log, first.log]
                    await until(lambda: logs(mine) == named[:1] and logs(theirs) == named[1:], lambda: (mine, theirs))
                    before = sum(one.status()["connections"] for one in (route, other))
                    await asyncio.sleep(2)
                    fought = sum(one.status()["connections"] for one in (route, other)) - before
                    assert fought <= 6, "two that wait half a second at least come four times in two seconds"
                    assert logs(mine) == named[:1] and logs(theirs) == named[1:]
                    first.append(scans(5))
                    await settled(route, first)  # each has its turn
                assert len(mine) + len(theirs) <= 4

    asyncio.run(scenario())


def logs(found: list[Record]) -> list[str]:
    """The other agents that the findings name; one without a name (who took our client id) aside."""
    return [record.body["details"]["log"] for record in found if "log" in record.body["details"]]


def test_a_client_that_takes_our_id_over_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mosquitto 2.0 takes over without a word; a broker that says 0x8E is believed at once."""
    monkeypatch.setattr("edge_agent.routes.route.BACKOFF_REFUSED_S", 0.2)

    async def scenario() -> None:
        async with (
            Scripted(lambda _: 0) as broker,
            buffer(tmp_path) as store,
            noting(store, broker.url) as (route, found),
        ):
            for times in (1, 2):
                await until(lambda: route.status()["connections"] == times, route.status)  # noqa: B023
                await until(lambda: route.status()["state"] == "connected", route.status)
                broker.disconnect(0x8E)
                await until(lambda: route.status()["state"] == "refused", route.status)
                assert "another client uses the same client id" in route.status()["hint"]
            (finding,) = found
            assert finding.body["details"] == {"client_id": "edge-agent-pc1-mes"}

    asyncio.run(scenario())


def test_no_restart_and_no_old_state_is_taken_for_another_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            former = json.dumps({"v": 1, "agent": "pc1", "state": "lost", "log": "0123456789ab", "host": "old"})
            once.single(STATE, former, qos=1, retain=True, port=broker.port)  # of a buffer that this PC had once
            async with buffer(tmp_path) as store:
                for _ in range(2):
                    async with noting(store, broker.url) as (route, found):
                        await until(lambda: route.status()["state"] == "connected", route.status)
                        cut(route)
                        await until(lambda: route.status()["connections"] == 2, route.status)
                        for hostile in (b"\xff", b"[]", b"{}", b'{"log": null, "state": []}'):
                            watcher.publish(STATE, hostile)
            async with buffer(tmp_path) as store, noting(store, broker.url) as (route, again):
                await until(lambda: route.status()["state"] == "connected", route.status)
                before = json.loads(former) | {"log": sorted(await asyncio.to_thread(store.logs))[0]}
                watcher.publish(STATE, before)  # the last will of an earlier run, late
                await asyncio.sleep(0.2)
            assert found == again == []

    asyncio.run(scenario())


def test_a_broker_that_lets_us_not_read_our_state_costs_only_the_noticing(tmp_path: Path) -> None:
    acl = f"topic write {ROOT}/#\ntopic read {ROOT}/gate/#\n"

    async def scenario() -> None:
        with Mosquitto(tmp_path, acl=acl) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                store.append(scans(5))
                await settled(route, store)

    asyncio.run(scenario())
