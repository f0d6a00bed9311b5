"""The opcua driver against a scripted server: what is lost, late, doubled, too large or nonsense on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncua.ua
import pytest
from asyncua.ua.ua_binary import struct_to_binary

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable
from edge_agent.model import Sample
from edge_agent_drivers.opcua import driver as driver_module
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.driver import OpcuaDriver
from edge_agent_drivers.opcua.link import Link
from support.opcua_fake import Fake, fake, value_of

ua: Any = asyncua.ua  # its number types are not Python's
FORCE, COUNT = 1, 2  # client handles, in the order of the tags
TAGS = {
    "force": {"node": "ns=2;s=force", "type": "float64"},
    "count": {"node": "ns=2;s=count", "type": "int32"},
}


def settings_of(url: str, **keys: Any) -> OpcuaSettings:
    groups = {"state": {"subscribe": "50ms", "tags": TAGS}}
    return OpcuaSettings.model_validate({"connection": url, "timeout": "1s", "groups": groups} | keys)


@asynccontextmanager
async def plant(**keys: Any) -> AsyncIterator[tuple[Fake, OpcuaDriver]]:
    """A server and a driver that is not open yet."""
    async with fake() as server:
        server.values["ns=2;s=force"] = value_of(1.0)
        server.values["ns=2;s=count"] = value_of(0, "Int32")
        driver = OpcuaDriver("plc", settings_of(server.url, **keys))
        try:
            yield server, driver
        finally:
            await driver.close()


@asynccontextmanager
async def listening(**keys: Any) -> AsyncIterator[tuple[Fake, OpcuaDriver]]:
    """The driver is open, its level read, its Publish requests with the server."""
    async with plant(**keys) as (server, driver):
        await driver.open()
        await some(driver, 1)
        await server.published(2)
        yield server, driver


async def some(driver: OpcuaDriver, count: int) -> list[Sample]:
    found: list[Sample] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await driver.read()
    return found


async def forces(driver: OpcuaDriver, count: int) -> list[Any]:
    return [sample.values[0] for sample in await some(driver, count)]


def change(value: float) -> list[Any]:
    return [ua.DataChangeNotification([ua.MonitoredItemNotification(FORCE, value_of(value))])]


def kept(server: Fake, message: Any) -> None:
    """The server has this message for Republish, and no other."""

    def republish(request: Any) -> Any:
        notification = message.Parameters.NotificationMessage
        if request.Parameters.RetransmitSequenceNumber != notification.SequenceNumber:
            return ua.StatusCodes.BadMessageNotAvailable
        answer = ua.RepublishResponse()
        answer.NotificationMessage = notification
        return answer

    server.does[ua.RepublishRequest] = republish


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(main())


# --- messages that are lost, late, doubled -------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1], ids=["the first", "a later one"])
@pytest.mark.parametrize("after", [change(3.0), []], ids=["by the next message", "by a keep-alive"])
def test_a_message_that_is_lost_is_noticed_and_asked_for_again(taken: int, after: list[Any]) -> None:
    async def test() -> None:
        async with listening() as (server, driver):
            if taken:
                server.tell(1, change(1.5))
                assert await forces(driver, 1) == [1.5]
                await server.published(2)
            kept(server, server.message(1, change(2.0)))
            server.tell(1, after)
            assert await forces(driver, 1 + len(after)) == [2.0, 3.0][: 1 + len(after)]

    run(test())


def test_what_the_server_no_longer_has_is_a_loss() -> None:
    async def test() -> None:
        for answer in (ua.StatusCodes.BadMessageNotAvailable, struct_to_binary(ua.RepublishResponse())):
            async with listening() as (server, driver):
                server.tell(1, change(2.0))
                await some(driver, 1)
                await server.published(2)
                server.does[ua.RepublishRequest] = lambda _, said=answer: said
                server.tell(1, change(4.0), sequence=3)
                with pytest.raises(DeviceLost, match="notification message 2 is missing"):
                    await some(driver, 1)
                assert len(server.asked_for(ua.RepublishRequest)) == 1

    run(test())


def test_messages_out_of_order_and_doubled_are_given_once_in_order() -> None:
    async def test() -> None:
        async with listening() as (server, driver):
            first, second = (server.message(1, change(value)) for value in (2.0, 3.0))
            kept(server, first)
            server.publish(second)
            server.publish(first)
            assert await forces(driver, 2) == [2.0, 3.0]
            await server.published(1)
            server.publish(second)
            reading = asyncio.create_task(forces(driver, 1))
            await server.published(1)
            server.tell(1, change(4.0))
            assert await reading == [4.0]

    run(test())


def test_numbers_begin_where_the_server_begins_and_wrap_to_1() -> None:
    async def test() -> None:
        for begin in (5, 0xFFFF_FFFE):
            async with listening() as (server, driver):
                server.does[ua.RepublishRequest] = lambda _: ua.StatusCodes.BadMessageNotAvailable
                numbers = [(begin + step - 1) % 0xFFFF_FFFF + 1 for step in range(4)]
                for value, number in enumerate(numbers):
                    await server.published(2)
                    server.tell(1, change(float(value)), sequence=number)
                    assert await forces(driver, 1) == [float(value)]
                assert server.acknowledged == numbers[: len(server.acknowledged)]
                assert len(server.acknowledged) >= 2

    run(test())


def test_a_subscription_that_the_server_ends_is_a_loss_with_its_reason() -> None:
    async def test() -> None:
        async with listening() as (server, driver):
            code = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadTimeout))
            server.tell(1, [ua.StatusChangeNotification(code)])
            with pytest.raises(DeviceLost, match="ended the subscription: Bad_Timeout"):
                await some(driver, 1)

    run(test())


@pytest.mark.parametrize("code", ["BadTimeout", "BadRequestTimeout", "BadTooManyPublishRequests"])
@pytest.mark.parametrize("as_fault", [True, False])
def test_a_publish_that_the_server_gives_back_costs_nothing(code: str, as_fault: bool) -> None:
    async def test() -> None:
        async with listening() as (server, driver):
            number = getattr(ua.StatusCodes, code)
            answer = ua.PublishResponse()
            answer.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(number))
            server.publish(number if as_fault else answer)
            reading = asyncio.create_task(forces(driver, 1))
            await asyncio.sleep(0.1)
            server.tell(1, change(7.0))
            assert await reading == [7.0]

    run(test())


def test_a_value_for_another_groups_node_is_no_value_of_this_group() -> None:
    async def test() -> None:
        groups = {name: {"subscribe": "50ms", "tags": {name: TAGS[name]}} for name in TAGS}
        async with listening(groups=groups) as (server, driver):
            await some(driver, 1)
            server.notify(1, [(COUNT, value_of(77, "Int32")), (FORCE, value_of(2.0))])
            (sample,) = await some(driver, 1)
            assert (sample.tagset.group, sample.values) == ("force", (2.0,))

    run(test())


# --- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        ua.Acknowledge(0, 8192, 65535, 0, 0),
        ua.Acknowledge(0, 8192, 8192, 16384, 2),
        ua.Acknowledge(0, 65535, 65535, 900, 0),
    ],
)
def test_what_a_small_server_can_take_limits_our_requests_and_not_its_answers(limits: Any) -> None:
    async def test() -> None:
        async with plant() as (server, _):
            server.acknowledge = limits
            tags = {f"n{number}": {"node": f"ns=2;s=n{number}", "type": "float64[]"} for number in range(300)}
            for name in tags:
                server.values[f"ns=2;s={name}"] = value_of([1.0] * 300)  # 700 kB in all
            config = settings_of(server.url, groups={"state": {"subscribe": "50ms", "tags": tags}})
            driver = OpcuaDriver("plc", config)
            try:
                await driver.open()
                (sample,) = await some(driver, 1)
                assert sample.values == ([1.0] * 300,) * 300
                assert sorted(server.handles) == list(range(1, 301))
                most = limits.MaxMessageSize or 65535
                assert all(len(struct_to_binary(each)) <= most for each in server.asked)
            finally:
                await driver.close()

    run(test())


def test_a_bytestring_of_10_mb_arrives() -> None:
    async def test() -> None:
        async with plant() as (server, _):
            server.values["ns=2;s=picture"] = value_of(b"x" * 10_000_000, "ByteString")
            tags = {"picture": {"node": "ns=2;s=picture", "type": "bytes"}}
            driver = OpcuaDriver("plc", settings_of(server.url, groups={"all": {"on_trigger": True, "tags": tags}}))
            try:
                await driver.open()
                (sample,) = await driver.read("all")
                assert isinstance(sample.values[0], str)
                assert len(sample.values[0]) == 13_333_336
            finally:
                await driver.close()

    run(test())


def test_a_server_that_sends_a_message_without_end_is_cut_off() -> None:
    async def test() -> None:
        async with listening() as (server, driver):
            _, request_id = server.publishing[0]
            for _ in range(40 * 1024 // 60):
                server.send_raw(server.chunk(b"C", request_id, bytes(60 * 1024)))
                await asyncio.sleep(0)
            with pytest.raises(DeviceLost):
                await some(driver, 1)

    run(test())


# --- the rest ------------------------------------------------------------------------------------------------


def test_times_beyond_all_calendars_are_none() -> None:
    async def test() -> None:
        async with listening() as (server, driver):
            far = {"SourceTimestamp": datetime(9999, 12, 31, tzinfo=UTC), "ServerTimestamp": None}
            near = {"SourceTimestamp": datetime(1601, 1, 2, tzinfo=UTC), "ServerTimestamp": None}
            server.notify(1, [(FORCE, value_of(2.0, **far)), (COUNT, value_of(3, "Int32", **near))])
            (sample,) = await some(driver, 1)
            assert (sample.values, sample.source_ns, sample.status) == ((2.0, 3), None, None)

    run(test())


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_channel_is_renewed_whatever_the_servers_clock_says(hours: int) -> None:
    async def test() -> None:
        async with plant() as (server, driver):
            server.lifetime_ms = 400
            server.created_at = lambda: datetime.now(UTC) + timedelta(hours=hours)
            await driver.open()
            await some(driver, 1)
            end = time.monotonic() + 1.5
            value = 0.0
            while time.monotonic() < end:
                value += 1.0
                await server.published(2)
                server.tell(1, change(value))
                assert await forces(driver, 1) == [value]
                await asyncio.sleep(0.005)
            assert server.opened >= 4

    run(test())


def test_a_node_that_went_away_is_asked_for_again_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "RETRY_S", 0.2)

    async def test() -> None:
        async with listening() as (server, driver):
            gone = value_of(None, "Null", StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNodeIdUnknown)))
            server.notify(1, [(FORCE, gone)])
            (sample,) = await some(driver, 1)
            assert (sample.values, sample.status) == ((None, 0), {0: "Bad_NodeIdUnknown"})
            server.does[ua.DeleteMonitoredItemsRequest] = lambda _: reading.cancel() and None
            reading = asyncio.create_task(some(driver, 1))
            await asyncio.wait([reading])
            server.answer_last(ua.DeleteMonitoredItemsResponse())
            reading = asyncio.create_task(some(driver, 1))
            await server.came(ua.CreateMonitoredItemsRequest, 2)
            (deleted,) = server.asked_for(ua.DeleteMonitoredItemsRequest)
            assert deleted.Parameters.MonitoredItemIds == [1000 + FORCE]
            (again,) = server.asked_for(ua.CreateMonitoredItemsRequest)[1].Parameters.ItemsToCreate
            assert again.ItemToMonitor.NodeId.to_string() == "ns=2;s=force"
            server.notify(1, [(FORCE, value_of(8.0))])
            (sample,) = await reading
            assert (sample.values, sample.status) == ((8.0, 0), None)
            await asyncio.sleep(0.4)
            assert len(server.asked_for(ua.CreateMonitoredItemsRequest)) == 2

    run(test())


def test_a_full_server_is_tried_again_soon() -> None:
    async def test() -> None:
        async with plant() as (server, driver):
            server.does[ua.CreateSessionRequest] = lambda _: ua.StatusCodes.BadTooManySessions
            with pytest.raises(DeviceUnavailable, match="Bad_TooManySessions") as full:
                await driver.open()
            assert "close other clients" in full.value.hint
            server.does.clear()
            await driver.open()

    run(test())


def test_a_request_cancelled_as_its_answer_comes_is_plainly_cancelled() -> None:
    class WithResult(asyncio.CancelledError):
        """What asyncua raises then."""

    async def answer() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise WithResult from None

    async def test() -> None:
        link = Link("plc", settings_of("opc.tcp://127.0.0.1:1"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await link.ask(answer())

    run(test())


def test_a_stream_without_end_and_a_poll_that_is_always_due_take_turns() -> None:
    async def test() -> None:
        groups = {
            "state": {"subscribe": "50ms", "tags": TAGS},
            "slow": {"poll": "10ms", "tags": {"polled": TAGS["count"]}},
        }
        async with plant(groups=groups) as (server, driver):
            streaming = asyncio.create_task(stream(server))
            await driver.open()
            counts = {"state": 0, "slow": 0}
            for sample in await some(driver, 2):  # the levels
                assert sample.tagset.group in counts
            for _ in range(40):
                (sample,) = await driver.read()
                counts[sample.tagset.group] += 1
                await asyncio.sleep(0.015)  # the stream is faster than we are
            streaming.cancel()
            assert min(counts.values()) >= 15

    run(test())


async def stream(server: Fake) -> None:
    value = 1.0
    while True:
        await server.published(1)
        server.tell(1, change(value := value + 1.0))


def test_a_node_that_refused_a_write_is_asked_for_its_type_anew() -> None:
    async def test() -> None:
        tags = {"force": TAGS["force"] | {"write": True}}
        async with plant(groups={}, tags=tags) as (server, driver):
            await driver.open()
            node = "ns=2;s=force"
            written = []

            def write(request: Any) -> Any:
                (one,) = request.Parameters.NodesToWrite
                written.append(one.Value.Value.VariantType)
                is_float = one.Value.Value.VariantType == ua.VariantType.Float
                if is_float:
                    server.values[node] = value_of(one.Value.Value.Value, "Float")
                answer = ua.WriteResponse()
                code = ua.StatusCodes.Good if is_float else ua.StatusCodes.BadTypeMismatch
                answer.Results = [ua.StatusCode(ua.UInt32(code))]
                return answer

            server.does[ua.WriteRequest] = write
            with pytest.raises(DeviceRefused, match="Bad_TypeMismatch"):
                await driver.write("force", 2.5)
            server.values[node] = value_of(1.0, "Float")  # the program was loaded anew
            await driver.write("force", 2.5)
            assert written == [ua.VariantType.Double, ua.VariantType.Float]

    run(test())
