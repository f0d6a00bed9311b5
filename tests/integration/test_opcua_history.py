"""What a server recorded in a gap, asked of one that says exactly what a real one would not: clocks, losses, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncua.ua
import pytest

from edge_agent.model import Sample
from edge_agent_drivers.opcua import history
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.driver import OpcuaDriver
from support.opcua_fake import Fake, fake, value_of

ua: Any = asyncua.ua  # its number types are not Python's
TAGS = {name: {"node": f"ns=2;s={name}", "type": "float64"} for name in ("force", "path")}
T = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
Recorded = Mapping[str, Sequence[tuple[datetime, float]]]


def recorded(server: Fake, values: Recorded) -> None:
    """What its history has, by tag."""

    def historyread(request: Any) -> Any:
        details = request.Parameters.HistoryReadDetails
        answer = ua.HistoryReadResponse()
        for one in request.Parameters.NodesToRead:
            part = ua.HistoryData()
            part.DataValues = [
                value_of(value, SourceTimestamp=when)
                for when, value in values.get(one.NodeId.Identifier, [])
                if details.StartTime <= when <= details.EndTime
            ]
            answer.Results.append(ua.HistoryReadResult(HistoryData=part))
        return answer

    server.does[ua.HistoryReadRequest] = historyread


def now_shows(server: Fake, **values: tuple[datetime, float]) -> None:
    """What a read gives."""
    for name, (at, value) in values.items():
        server.values[f"ns=2;s={name}"] = value_of(value, SourceTimestamp=at)
        server.values[f"ns=2;s={name}#17"] = value_of(5, "Byte")  # readable, with history


@asynccontextmanager
async def connected(server: Fake) -> AsyncIterator[OpcuaDriver]:
    groups = {"state": {"subscribe": "50ms", "tags": TAGS}}
    said = {"connection": server.url, "timeout": "1s", "groups": groups, "history": True}
    driver = OpcuaDriver("plc", OpcuaSettings.model_validate(said))
    try:
        await driver.open()
        yield driver
    finally:
        await driver.close()


async def until_quiet(driver: OpcuaDriver, samples: int = 1_000_000) -> list[Sample]:
    """So many samples, or those that come before nothing more does."""
    found: list[Sample] = []
    try:
        async with asyncio.timeout(0.5):
            while len(found) < samples:
                found += await driver.read()
    except TimeoutError:
        pass
    return found


def changes(samples: Sequence[Sample], place: int) -> list[Any]:
    """The values of one tag that were news of the past."""
    return [each.values[place] for each in samples if each.history and place in (each.source_ns or {})]


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(main())


def at(seconds: float, ahead: timedelta = timedelta()) -> datetime:
    return T + ahead + timedelta(seconds=seconds)


def test_a_node_whose_clock_runs_ahead_takes_nothing_from_the_others() -> None:
    async def test() -> None:
        async with fake() as server:
            now_shows(server, force=(at(0), 1.0), path=(at(0, HOUR), 10.0))
            async with connected(server) as driver:
                await until_quiet(driver)  # the level, too, is remembered when it was told
            force = [(at(-9), 0.5), (at(0), 1.0), (at(1), 2.0), (at(2), 3.0), (at(3), 4.0)]
            path = [(at(0, HOUR), 10.0), (at(2, HOUR), 11.0), (at(3, HOUR), 12.0)]
            recorded(server, {"force": force, "path": path})
            now_shows(server, force=force[-1], path=path[-1])
            async with connected(server) as driver:
                found = await until_quiet(driver)
            assert (changes(found, 0), changes(found, 1)) == ([2.0, 3.0], [11.0])

    run(test())


def test_a_history_that_a_loss_cuts_short_goes_on_where_it_was_and_says_nothing_twice() -> None:
    async def test() -> None:
        async with fake() as server:
            now_shows(server, force=(at(0), 0.0), path=(at(0), 10.0))
            async with connected(server) as driver:
                await until_quiet(driver)  # the level, too, is remembered when it was told
            force = [(at(number / 10), float(number)) for number in range(200)]
            recorded(server, {"force": force, "path": [(at(15.05), 11.0)]})
            now_shows(server, force=force[-1], path=(at(19), 12.0))
            async with connected(server) as driver:
                first = await until_quiet(driver, 1 + history.SLICE)
            async with connected(server) as driver:
                rest = await until_quiet(driver)
            assert len([each for each in first if each.history]) == history.SLICE
            assert changes([*first, *rest], 0) == [value for _, value in force[1:-1]]
            assert changes([*first, *rest], 1) == [11.0]

    run(test())


def test_nodes_beyond_the_limit_of_a_groups_history_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_IN_ALL", 2)
    monkeypatch.setattr(history, "BATCH", 1)

    async def test() -> None:
        async with fake() as server:
            now_shows(server, force=(at(0), 1.0), path=(at(0), 10.0))
            async with connected(server) as driver:
                await until_quiet(driver)  # the level, too, is remembered when it was told
            recorded(server, {"force": [(at(1), 2.0), (at(2), 3.0)], "path": [(at(1), 11.0)]})
            now_shows(server, force=(at(3), 4.0), path=(at(3), 12.0))
            async with connected(server) as driver:
                past = [each for each in await until_quiet(driver) if each.history]
            assert [(each.values, each.status) for each in past] == [
                ((2.0, None), {1: history.MORE}),
                ((3.0, None), {1: history.MORE}),
            ]

    run(test())
