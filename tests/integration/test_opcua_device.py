"""The opcua driver against a real asyncua server in another process: values, notifications, losses, history, writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ValueNotKept
from edge_agent.model import Sample
from edge_agent_drivers.opcua import link
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.driver import OpcuaDriver
from support.opcua_server import URI, OpcuaServer
from support.tcp_line import TcpLine

TYPES = {
    "bool": "bool", "sbyte": "int8", "byte": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32",
    "uint32": "uint32", "int64": "int64", "uint64": "uint64", "float": "float32", "double": "float64", "nan": "float64",
    "string": "string", "null_string": "string", "datetime": "datetime", "guid": "string", "bytes": "bytes",
    "xml": "string", "nodeid": "string", "qualified": "string", "localized": "string", "status": "string",
    "doubles": "float64[]", "matrix": "int32[]", "strings": "string[]", "range": "object",
    "recipe": "object", "mode": "int32",
}  # fmt: skip
SOON_S = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[OpcuaServer]:
    with OpcuaServer("--history", "--count", "50") as running:
        yield running


def tags(**types: str) -> dict[str, Any]:
    return {name: {"node": f"ns=2;s={name}", "type": type_name} for name, type_name in types.items()}


def settings_of(url: str, **keys: Any) -> OpcuaSettings:
    return OpcuaSettings.model_validate({"connection": url, "timeout": "1s"} | keys)


def subscribed(url: str, described: dict[str, Any], **keys: Any) -> OpcuaSettings:
    group = {"subscribe": "50ms", "tags": described} | keys.pop("group", {})
    return settings_of(url, groups={"state": group}, **keys)


@asynccontextmanager
async def opened(settings: OpcuaSettings, device: str = "plc") -> AsyncIterator[OpcuaDriver]:
    driver = OpcuaDriver(device, settings)
    try:
        await driver.open()
        yield driver
    finally:
        await driver.close()


async def samples(driver: OpcuaDriver, until: Callable[[Sample], object]) -> list[Sample]:
    """Read until a sample is what is waited for; all that came."""
    found: list[Sample] = []
    async with asyncio.timeout(SOON_S):
        while not found or not until(found[-1]):
            for sample in await driver.read():
                found.append(sample)
                if until(sample):
                    break
    return found


async def tell(order: Callable[..., Any], *words: Any, **how: Any) -> Any:
    return await asyncio.to_thread(order, *words, **how)


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(main())


# --- values --------------------------------------------------------------------------------------------------


def test_every_type_is_read_as_the_page_says(server: OpcuaServer) -> None:
    async def test() -> None:
        config = settings_of(server.url, groups={"all": {"on_trigger": True, "tags": tags(**TYPES)}})
        async with opened(config) as driver:
            (sample,) = await driver.read("all")
        values = dict(zip(TYPES, sample.values, strict=True))
        assert values == {
            "bool": True, "sbyte": -5, "byte": 200, "int16": -300, "uint16": 60000, "int32": -70000,
            "uint32": 4_000_000_000, "int64": str(-(2**60)), "uint64": str(2**63), "float": 0.1, "double": 0.1,
            "nan": None, "string": "Gehäuse 5", "null_string": None, "datetime": "2026-11-22T05:41:04.1234560Z",
            "guid": "12345678-1234-5678-1234-567812345678", "bytes": "AP8Q", "xml": "<a/>", "nodeid": "ns=2;s=force",
            "qualified": "2:Press", "localized": "Presse", "status": "Bad_NodeIdUnknown", "doubles": [1.5, 2.5],
            "matrix": [[1, 2], [3, 4]], "strings": ["a", "b"], "mode": 1, "range": {"Low": -1.0, "High": 5.5},
            "recipe": {
                "Number": str(2**60),
                "Steps": [{"Name": "press", "Seconds": 0.1}, {"Name": "hold", "Seconds": 2.5}],
            },
        }  # fmt: skip
        names = list(TYPES)
        assert sample.status == {names.index("nan"): "not a number", names.index("null_string"): "null"}
        assert sample.source_ns is not None
        assert sample.started_mono_ns < sample.at.mono_ns

    run(test())


def test_a_bad_node_is_its_own_status_and_no_others(server: OpcuaServer) -> None:
    async def test() -> None:
        described = tags(force="float64", nothing="int32", string="float32") | {
            "elsewhere": {"node": "nsu=http://nobody;s=x", "type": "bool"},
            "by_uri": {"node": f"nsu={URI};s=count", "type": "int64"},
        }
        async with opened(subscribed(server.url, described)) as driver:
            for sample in await driver.read():
                assert sample.status == {
                    1: "Bad_NodeIdUnknown",
                    2: "the server has String, the config says float32",
                    3: "the server has no namespace http://nobody",
                }
                assert None not in (sample.values[0], sample.values[4])

    run(test())


def test_a_server_that_knows_no_node_is_refused_with_its_namespaces(server: OpcuaServer) -> None:
    async def test() -> None:
        with pytest.raises(DeviceRefused) as refused:
            async with opened(subscribed(server.url, tags(wrong="int32"))):
                pass
        assert URI in refused.value.hint

    run(test())


def test_a_polled_group_comes_at_its_interval_beside_a_subscription(server: OpcuaServer) -> None:
    async def test() -> None:
        groups = {
            "state": {"subscribe": "50ms", "tags": tags(force="float64")},
            "slow": {"poll": "50ms", "tags": tags(count="int32")},
        }
        async with opened(settings_of(server.url, groups=groups)) as driver:
            polled = 0
            async with asyncio.timeout(SOON_S):
                while polled < 5:
                    polled += sum(sample.tagset.group == "slow" for sample in await driver.read())

    run(test())


# --- notifications -------------------------------------------------------------------------------------------


def test_every_value_that_is_notified_is_in_a_sample_in_order(server: OpcuaServer) -> None:
    async def test() -> None:
        described = tags(count="int32", force="float64")
        group = {"sampling": "0s", "queue": 100}
        async with opened(subscribed(server.url, described, group=group)) as driver:
            await samples(driver, lambda sample: 1 in (sample.source_ns or ()))
            for number in range(1001, 1021):
                await tell(server.set, "count", number)
            found = await samples(driver, lambda sample: sample.values[0] == 1020)
            assert [each.values[0] for each in found if each.values[0] > 1000] == list(range(1001, 1021))

    run(test())


def test_status_and_times_are_the_servers(server: OpcuaServer) -> None:
    async def test() -> None:
        async with opened(subscribed(server.url, tags(small="float32"))) as driver:
            await tell(server.set, "small", 1.5, code=0x40900000, source="2026-11-22T05:41:04.123456+00:00")
            (*_, doubted) = await samples(driver, lambda sample: sample.status and sample.values[0] == 1.5)
            assert doubted.status == {0: "Uncertain_LastUsableValue"}
            assert doubted.source_ns == {0: 1_795_326_064_123_456_000}
            await tell(server.set, "small", 2.5, code=0x808C0000)
            (*_, bad) = await samples(driver, lambda sample: sample.values[0] is None)
            assert bad.status == {0: "Bad_SensorFailure"}
            await tell(server.set, "small", 0.0)
            (*_, good) = await samples(driver, lambda sample: sample.values[0] == 0.0)
            assert good.status is None

    run(test())


def test_nothing_is_lost_while_nobody_reads(server: OpcuaServer) -> None:
    async def test() -> None:
        group = {"sampling": "0s", "queue": 1000}
        async with opened(subscribed(server.url, tags(count="int32"), group=group)) as driver:
            await driver.read()
            for number in range(3001, 3101):
                await tell(server.set, "count", number)
                if number % 20 == 0:
                    await asyncio.sleep(0.1)  # several publishing intervals pass
            found = await samples(driver, lambda sample: sample.values[0] == 3100)
            assert [each.values[0] for each in found if each.values[0] > 3000] == list(range(3001, 3101))

    run(test())


def test_cancelling_a_read_loses_nothing(server: OpcuaServer) -> None:
    async def test() -> None:
        group = {"sampling": "0s", "queue": 1000}
        async with opened(subscribed(server.url, tags(count="int32"), group=group)) as driver:
            found: list[Any] = []
            for number in range(4001, 4031):
                reading = asyncio.ensure_future(driver.read())
                await tell(server.set, "count", number)
                reading.cancel()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    found += [sample.values[0] for sample in reading.result()]
            found += [each.values[0] for each in await samples(driver, lambda sample: sample.values[0] == 4030)]
            assert [each for each in dict.fromkeys(found) if each > 4000] == list(range(4001, 4031))

    run(test())


def test_what_a_small_server_limits_is_asked_in_parts_and_all_values_arrive(
    server: OpcuaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MOST_NODES", 7)

    async def test() -> None:
        described = tags(**{f"n{number}": "float64" for number in range(50)})
        async with opened(subscribed(server.url, described, group={"queue": 100})) as driver:
            await driver.read()
            running = asyncio.create_task(tell(server.run, 5, 0.12))
            seen: dict[int, list[Any]] = {}
            async with asyncio.timeout(SOON_S):
                while any(seen.get(place, [None])[-1] != 5.0 for place in range(50)):
                    for sample in await driver.read():
                        for place in sample.source_ns or ():
                            seen.setdefault(place, []).append(sample.values[place])
            await running
            assert all([each for each in values if each] == [1.0, 2.0, 3.0, 4.0, 5.0] for values in seen.values())

    run(test())


# --- losses --------------------------------------------------------------------------------------------------


def test_a_server_that_hangs_is_lost_soon_and_closing_it_is_quick() -> None:
    async def test() -> None:
        with OpcuaServer() as server:
            config = subscribed(server.url, tags(force="float64"), timeout="300ms")
            async with opened(config) as driver:
                await samples(driver, lambda sample: True)
                server.pause()
                with pytest.raises(DeviceLost):
                    await samples(driver, lambda sample: False)
                start = time.monotonic()
                await driver.close()
                assert time.monotonic() - start < SOON_S
                with pytest.raises(DeviceUnavailable):
                    await driver.open()
                server.resume()
                await driver.open()
                await samples(driver, lambda sample: sample.values[0] is not None)

    run(test())


def test_what_the_server_recorded_in_a_gap_follows_the_level(server: OpcuaServer) -> None:
    async def test() -> None:
        line = TcpLine(server.port)
        await line.start()
        described = tags(force="float64", string="string")
        config = subscribed(f"opc.tcp://127.0.0.1:{line.port}/plant", described, history=True)
        async with opened(config, "historian") as driver:
            await tell(server.set, "force", 5.0)
            await samples(driver, lambda sample: sample.values[0] == 5.0)
            await line.stop()
            with pytest.raises(DeviceLost):
                await samples(driver, lambda sample: False)
        for value in (6.0, 7.0, 8.0):
            await tell(server.set, "force", value)
        await line.start()
        async with opened(config, "historian") as driver:
            level, *rest = await samples(driver, lambda sample: sample.history and sample.values[0] == 7.0)
            assert (level.values, level.history) == ((8.0, "Gehäuse 5"), False)
            assert [(each.values, each.status) for each in rest if each.history] == [
                ((6.0, None), {1: "no history"}),
                ((7.0, None), {1: "no history"}),
            ]
        await line.stop()

    run(test())


# --- writing -------------------------------------------------------------------------------------------------


def writable(**types: str) -> dict[str, Any]:
    return {name: tag | {"write": True} for name, tag in tags(**types).items()}


@pytest.mark.parametrize(
    ("name", "type_name", "value", "kept"),
    [
        ("force", "float64", 2.5, 2.5),
        ("small", "float32", 0.1, pytest.approx(0.1)),
        ("count", "int32", 7, 7),
        ("ack", "bool", True, True),
        ("name", "string", "SN1", "SN1"),
        ("big", "uint64", str(2**63), 2**63),
        ("list", "int16[]", [4, 5], [4, 5]),
        ("valve", "string", "Manual", 2),
        ("valve", "string", "0", 0),
        ("valve", "int32", 1, 1),
        ("label", "string", "Ofen", "LocalizedText(Locale='de', Text='Ofen')"),
    ],
)
def test_a_write_is_in_the_nodes_own_type(
    server: OpcuaServer, name: str, type_name: str, value: Any, kept: Any
) -> None:
    async def test() -> None:
        async with opened(settings_of(server.url, tags=writable(**{name: type_name}))) as driver:
            await driver.write(name, value)
            assert await tell(server.get, name) == kept

    run(test())


def test_a_write_that_cannot_be_is_refused_and_the_connection_stays(server: OpcuaServer) -> None:
    async def test() -> None:
        described = writable(nothing="bool", int16="int16", recipe="object", mode="int32", ack="bool", valve="string")
        async with opened(settings_of(server.url, tags=described)) as driver:
            refusals = {
                "nothing": (True, "Bad_NodeIdUnknown"),
                "int16": (70000, "no integer from -32768 to 32767"),
                "recipe": ({}, "ExtensionObject, which cannot be written"),
                "mode": (2, "Bad_UserAccessDenied"),
                "valve": ("Ten", "'Ten' is none of the enumeration's names: Off, Auto, Manual"),
            }
            for tag, (value, why) in refusals.items():
                with pytest.raises(DeviceRefused, match=why) as refused:
                    await driver.write(tag, value)
                assert refused.value.hint
                assert not isinstance(refused.value, ValueNotKept)
            await driver.write("ack", True)

    run(test())
