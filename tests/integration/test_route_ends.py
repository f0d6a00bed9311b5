"""How a route's waiting ends: when it is cancelled, when a broker says nothing, when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StorageFull
from edge_agent.routes import Route, route
from support.delivery import IDENTITY, buffer, running, scans, settings, settled, until
from support.hostile_peer import Peer
from support.scripted import Scripted


def test_a_route_that_is_cancelled_as_its_connection_ends_does_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            for pause in range(8):
                peer = Peer(random.Random(pause))
                peer.fair = True
                at_work = Route("mes", settings("mqtt://h"), IDENTITY, store, peer)
                task = asyncio.create_task(at_work.run())
                await until(lambda at_work=at_work: at_work.status()["state"] == "connected", at_work.status)  # type: ignore[misc]
                peer.disconnect()
                for _ in range(pause):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait((task,), timeout=5)
                assert done, f"{pause} turns of the loop after its connection ended"

    asyncio.run(scenario())


def test_a_broker_that_does_not_answer_to_a_subscription_is_left(tmp_path: Path) -> None:
    class Mute(Scripted):
        def _reply(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
            if first >> 4 != 8:
                super()._reply(first, body, writer)

    async def scenario() -> None:
        async with Mute(lambda count: 0) as broker, buffer(tmp_path) as store:
            quick = settings(broker.url, ack_timeout="0.2s")
            async with running(store, quick) as at_work:
                await until(lambda: "subscription" in (at_work.status()["last_error"] or ""), at_work.status)

    asyncio.run(scenario())


def test_who_lets_us_in_and_throws_us_out_is_asked_slower_and_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def soon(_low: float, high: float) -> float:
        waits.append(high)
        return 0.0

    monkeypatch.setattr("edge_agent.routes.route.random.uniform", soon)

    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            peer = Peer(random.Random(1))
            peer.fair = True
            at_work = Route("mes", settings("mqtt://h"), IDENTITY, store, peer)
            task = asyncio.create_task(at_work.run())
            await until(lambda: at_work.status()["pending"] == 0 and at_work.status()["connections"] == 1)
            for number in range(1, 9):
                peer.disconnect()
                await until(lambda number=number: at_work.status()["connections"] == number + 1)  # type: ignore[misc]
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]

    asyncio.run(scenario())


def test_a_full_disk_at_the_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "BACKOFF_MAX_S", 0.1)

    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            lanes, refused = store.lanes, 0

            def full_at_first(*what: Any, **more: Any) -> Any:
                nonlocal refused
                refused += 1
                if refused <= 2:
                    raise StorageFull("no lane for route mes: database or disk is full", hint="free disk space")
                return lanes(*what, **more)

            store.lanes = full_at_first  # type: ignore[method-assign]
            peer = Peer(random.Random(1))
            peer.fair = True
            at_work = Route("mes", settings("mqtt://h"), IDENTITY, store, peer)
            task = asyncio.create_task(at_work.run())
            await until(lambda: at_work.status()["hint"] == "free disk space", at_work.status)
            store.append(scans(3))
            await settled(at_work, store)
            assert at_work.status()["last_error"] is None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
