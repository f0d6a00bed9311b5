"""The Modbus driver against a real server, over a line that can be bad."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Sample
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.driver import ModbusDriver
from edge_agent_drivers.modbus.group import REFUSALS_MAX
from edge_agent_drivers.modbus.wire import TcpWire
from support.modbus_plc import HOLE, Line, ModbusPlc, line_to

SOON_S = 5.0
WRITES = (5, 6, 16)


@pytest.fixture(scope="module")
def plc() -> Iterator[ModbusPlc]:
    with ModbusPlc() as plc:
        yield plc


def polled(**tags: dict[str, Any] | str) -> dict[str, Any]:
    return {
        "poll": "100ms",
        "tags": {name: {"address": its} if isinstance(its, str) else its for name, its in tags.items()},
    }


def driver_of(line: Line, group: dict[str, Any] | None = None, **keys: Any) -> ModbusDriver:
    keys = {"connection": f"tcp://127.0.0.1:{line.port}", "groups": {"state": group} if group else {}, **keys}
    return ModbusDriver("press", ModbusSettings.model_validate(keys))


@asynccontextmanager
async def opened(line: Line, group: dict[str, Any] | None = None, **keys: Any) -> AsyncIterator[ModbusDriver]:
    driver = driver_of(line, group, **keys)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


def over(plc: ModbusPlc, test: Callable[[Line], Awaitable[None]]) -> None:
    """Run the test over a line of its own to the server."""

    async def main() -> None:
        async with asyncio.timeout(60), line_to(plc.port) as line:
            await test(line)

    asyncio.run(main())


async def sample_of(driver: ModbusDriver, group: str = "state") -> Sample:
    async with asyncio.timeout(SOON_S):
        (sample,) = await driver.read(group)
    return sample


# --- reading -------------------------------------------------------------------------------------------------


def test_all_four_tables_read_with_one_request_each(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        group = polled(a="coil:3", b="coil:4", c="discrete:6", d="holding:5", e="input:9", f="input:7.1", g="holding:3")
        async with opened(line, group) as driver:
            line.requests.clear()
            sample = await sample_of(driver)
            assert sample.values == (True, False, True, 5, 9, True, 3)
            assert sample.status is None
            assert [request[7] for request in line.requests] == [1, 2, 3, 4]

    over(plc, test)


def test_values_of_many_requests_stand_in_the_order_of_the_tags(plc: ModbusPlc) -> None:
    numbers = [*range(499, 300, -1), *range(510, 700)]

    async def test(line: Line) -> None:
        async with opened(line, polled(**{f"t{number}": f"holding:{number}" for number in numbers})) as driver:
            assert (await sample_of(driver)).values == tuple(numbers)

    over(plc, test)


def test_a_triggered_group_is_read_only_when_asked_for(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        result = {"on_trigger": True, "tags": {"count": {"address": "holding:98"}}}
        async with opened(line, groups={"state": polled(ready="coil:3"), "result": result}) as driver:
            assert [sample.tagset.group for sample in await driver.read()] == ["state"]
            assert (await sample_of(driver, "result")).values == (98,)

    over(plc, test)


# --- what the device refuses ---------------------------------------------------------------------------------


def test_tags_in_a_hole_have_no_value_and_their_neighbours_do(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        numbers = range(490, 520)
        async with opened(line, polled(**{f"t{number}": f"holding:{number}" for number in numbers})) as driver:
            sample = await sample_of(driver)
            assert sample.values == tuple(None if number in HOLE else number for number in numbers)
            assert sample.status == {index: "exception 2" for index, number in enumerate(numbers) if number in HOLE}
            line.requests.clear()
            again = await sample_of(driver)
            assert (again.values, again.status) == (sample.values, sample.status)
            assert len(line.requests) < 10  # the splits are remembered: only what is good is asked for

    over(plc, test)


def test_a_hole_that_no_tag_needs_costs_no_value(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(before="holding:499", after="holding:510")) as driver:
            for _ in range(2):
                line.requests.clear()
                assert (await sample_of(driver)).values == (499, 510)
            assert len(line.requests) == 2

    over(plc, test)


def test_a_device_that_refuses_everything_for_a_while_is_asked_within_bounds_and_comes_back(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(**{f"t{number}": f"holding:{number}" for number in range(125)})) as driver:
            line.mode = "exception 4"
            for _ in range(6):
                line.requests.clear()
                sample = await sample_of(driver)
                assert set(sample.values) == {None}
                assert sample.status == dict.fromkeys(range(125), "exception 4")
                assert len(line.requests) <= REFUSALS_MAX + 1
            line.mode = "pass"
            async with asyncio.timeout(SOON_S):
                while (await sample_of(driver)).status:  # noqa: ASYNC110  # only the device knows when
                    await asyncio.sleep(0.1)
            line.requests.clear()
            assert (await sample_of(driver)).values == tuple(range(125))
            assert len(line.requests) == 1  # whole again

    over(plc, test)


def test_a_busy_device_rejects_the_reading_and_keeps_the_connection(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1")) as driver:
            line.mode = "exception 6"
            with pytest.raises(ReadingRejected, match="busy") as busy:
                await sample_of(driver)
            assert "longer poll:" in busy.value.hint
            line.mode = "pass"
            assert (await sample_of(driver)).values == (1,)

    over(plc, test)


def _reads(request: bytes, function: int, address: int) -> bool:
    """Whether it asks for this one, among others or not."""
    start, count = int.from_bytes(request[8:10], "big"), int.from_bytes(request[10:12], "big")
    return request[7] == function and start <= address < start + count


@pytest.mark.parametrize("code", [5, 6])
def test_a_block_that_is_busy_costs_its_tags_one_read_and_no_others(plc: ModbusPlc, code: int) -> None:
    async def test(line: Line) -> None:
        group = polled(a="holding:1", b="input:2", c="holding:300", d="holding:2")
        async with opened(line, group) as driver:
            line.refuses = lambda request: code * _reads(request, 3, 1)
            line.requests.clear()
            for _ in range(2):
                sample = await sample_of(driver)
                assert sample.values == (None, 2, 300, None)
                assert sample.status is not None
                assert sample.status.keys() == {0, 3}
                assert all(text.startswith(f"exception {code} (") for text in sample.status.values())
            assert len(line.requests) == 6  # nothing is asked twice, and no half of what is busy
            line.refuses = lambda request: 0
            sample = await sample_of(driver)  # at once
            assert (sample.values, sample.status) == ((1, 2, 300, 2), None)

    over(plc, test)


def test_a_read_without_a_value_because_the_device_is_busy_is_rejected(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1", b="input:2", c="holding:505")) as driver:
            assert (await sample_of(driver)).values == (1, 2, None)
            line.mode = "exception 6"
            with pytest.raises(ReadingRejected, match="busy"):
                await sample_of(driver)
            line.mode = "pass"
            assert (await sample_of(driver)).values == (1, 2, None)

    over(plc, test)


def test_exception_1_for_one_address_leaves_its_neighbours_their_values(plc: ModbusPlc) -> None:
    """Some devices answer so to an address that they do not have."""

    async def test(line: Line) -> None:
        line.refuses = lambda request: int(_reads(request, 3, 10))
        async with opened(line, polled(**{f"t{number}": f"holding:{number}" for number in range(20)})) as driver:
            sample = await sample_of(driver)
            assert sample.values == tuple(None if number == 10 else number for number in range(20))
            assert sample.status == {10: "exception 1"}

    over(plc, test)


def test_a_table_that_is_not_there_costs_its_own_tags_and_bounded_requests(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        line.refuses = lambda request: int(request[7] == 4)
        tags = {f"i{number}": f"input:{number}" for number in range(100)}
        async with opened(line, polled(a="holding:1", **tags)) as driver:
            for _ in range(6):
                line.requests.clear()
                sample = await sample_of(driver)
                assert sample.values == (1, *[None] * 100)
                assert sample.status == dict.fromkeys(range(1, 101), "exception 1")
                assert len(line.requests) <= REFUSALS_MAX + 1

    over(plc, test)


def test_a_gateway_without_its_device_is_a_loss(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1"), unit_id=1) as driver:
            line.mode = "exception 11"
            with pytest.raises(DeviceLost, match="gateway target") as lost:
                await sample_of(driver)
            assert "unit_id 1" in lost.value.hint

    over(plc, test)


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("exception 1", "try holding instead of input"),
        ("exception 2", "try 504 and 506"),
        ("exception 4", "in run"),
    ],
)
def test_a_device_that_answers_only_exceptions_is_refused_with_what_to_check(
    plc: ModbusPlc, mode: str, told: str
) -> None:
    async def test(line: Line) -> None:
        line.mode = mode
        driver = driver_of(line, polled(a="holding:505"), unit_id=7)
        with pytest.raises(DeviceRefused) as refused:
            await driver.open()
        assert told in refused.value.hint
        with pytest.raises(DeviceLost):
            await driver.read()

    over(plc, test)


@pytest.mark.parametrize("code", [10, 11])
def test_a_unit_that_its_gateway_does_not_reach_is_tried_again_soon(plc: ModbusPlc, code: int) -> None:
    async def test(line: Line) -> None:
        line.mode = f"exception {code}"
        with pytest.raises(DeviceUnavailable, match=f"exception {code}") as unavailable:
            await driver_of(line, polled(a="holding:505"), unit_id=7).open()
        assert "check unit_id (now 7)" in unavailable.value.hint

    over(plc, test)


def test_one_good_tag_anywhere_is_enough_to_open(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        groups = {"bad": polled(**{f"t{number}": f"holding:{number}" for number in HOLE}), "good": polled(a="coil:3")}
        async with opened(line, groups=groups) as driver:
            assert (await sample_of(driver, "good")).values == (True,)
            assert set((await sample_of(driver, "bad")).values) == {None}

    over(plc, test)


# --- what the wire does --------------------------------------------------------------------------------------


def test_a_short_reply_is_rejected_and_the_connection_kept(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1", b="holding:2")) as driver:
            line.mode = "short"
            with pytest.raises(ReadingRejected, match="3 bytes came where 4"):
                await sample_of(driver)
            line.mode = "pass"
            assert (await sample_of(driver)).values == (1, 2)

    over(plc, test)


@pytest.mark.parametrize("mode", ["garbage", "noise", "undecodable", "cut"])
def test_what_breaks_the_stream_is_a_loss_long_before_the_timeout_and_logs_nothing(
    plc: ModbusPlc, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1", b="holding:2"), timeout="10s") as driver:
            line.mode = mode
            with pytest.raises(DeviceLost):
                await sample_of(driver)  # SOON_S is less than the time-out
            line.mode = "pass"
            await driver.open()
            assert (await sample_of(driver)).values == (1, 2)

    with caplog.at_level(logging.WARNING):
        over(plc, test)
    assert not caplog.records


def test_an_end_while_nothing_is_asked_is_a_loss_that_names_the_quirk(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1")) as driver:
            await line.end_connections()
            with pytest.raises(DeviceLost, match="while nothing was asked") as lost:
                await sample_of(driver)
            assert "quirks: {closes_idle: true}" in lost.value.hint

    over(plc, test)


def test_a_device_that_ends_idle_connections_by_design_is_asked_over_a_new_one(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        group = polled(a={"address": "holding:700", "write": True})
        async with opened(line, group, quirks={"closes_idle": True}) as driver:
            for value in (3, 4):
                await line.end_connections()
                await driver.write("a", value)
                await line.end_connections()
                line.requests.clear()
                assert (await sample_of(driver)).values == (value,)
                assert len(line.requests) == 1  # asked once, and nothing before
            line.mode = "cut"  # an end in the middle of an answer is a loss as ever
            with pytest.raises(DeviceLost):
                await sample_of(driver)
            line.mode = "pass"
            await driver.open()
            await line.stop()
            await asyncio.sleep(0.05)
            with pytest.raises(DeviceLost, match="connection refused"):
                await sample_of(driver)

    over(plc, test)


def test_a_server_that_accepts_and_says_nothing_is_unavailable(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        line.mode = "silent"
        driver = driver_of(line, polled(a="holding:1"), timeout="200ms")
        with pytest.raises(DeviceUnavailable, match="connected, but") as unavailable:
            await driver.open()
        assert "unit_id 1" in unavailable.value.hint

    over(plc, test)


def test_a_server_that_speaks_something_else_is_told_from_one_that_hangs(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        line.mode = "noise"
        driver = driver_of(line, polled(a="holding:1"), timeout="10s")
        with pytest.raises(DeviceUnavailable, match="does not speak Modbus TCP") as unavailable:
            await driver.open()
        assert f"is {line.port} the port of its Modbus server?" in unavailable.value.hint

    over(plc, test)


def test_nothing_listening_is_unavailable_and_the_hint_names_the_port(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        await line.stop()
        with pytest.raises(DeviceUnavailable, match="connection refused") as unavailable:
            await driver_of(line, polled(a="holding:1")).open()
        assert f"port {line.port}" in unavailable.value.hint

    over(plc, test)


def test_the_late_reply_to_a_cancelled_read_never_answers_the_next(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        groups = {"one": polled(a="holding:1"), "two": polled(b="holding:2")}
        async with opened(line, groups=groups) as driver:
            line.mode = "late"
            reading = asyncio.ensure_future(driver.read("one"))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            line.mode = "pass"
            line.release()
            with pytest.raises(DeviceLost):
                await sample_of(driver, "two")
            await driver.open()
            assert (await sample_of(driver, "two")).values == (2,)

    over(plc, test)


def test_a_cancel_that_meets_the_reply_in_the_same_moment_still_cancels(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, polled(a="holding:1")) as driver:
            wire = driver._link._wire
            assert isinstance(wire, TcpWire)
            take = wire.data_received

            def cancel_as_it_arrives(data: bytes) -> None:
                take(data)
                reading.cancel()

            wire.data_received = cancel_as_it_arrives  # type: ignore[method-assign]
            reading = asyncio.ensure_future(driver.read())
            with pytest.raises(asyncio.CancelledError):
                await reading

    over(plc, test)


# --- writing -------------------------------------------------------------------------------------------------

WRITABLE: dict[str, dict[str, Any]] = {
    "coil": {"address": "coil:30"},
    "word": {"address": "holding:600", "type": "int16", "scale": 0.1},
    "float": {"address": "holding:601", "type": "float32", "order": "CDAB"},
    "long": {"address": "holding:603", "type": "int64", "order": "BADC"},
    "text": {"address": "holding:607", "type": "string", "length": 10},
    "hole": {"address": "holding:505"},
}


def test_what_is_written_stays_and_reads_back(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        tags = {name: {**tag, "write": True} for name, tag in WRITABLE.items() if name != "hole"}
        async with opened(line, {"poll": "1s", "tags": tags}) as driver:
            for values in ((True, -12.3, 0.1, "9007199254740993", "SN00000001"), (False, 0.0, -1.5, 7, "")):
                for name, value in zip(tags, values, strict=True):
                    await driver.write(name, value)
                assert (await sample_of(driver)).values == values

    over(plc, test)


def test_a_write_that_the_device_does_not_keep_or_take_is_refused(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        async with opened(line, tags={name: {**tag, "write": True} for name, tag in WRITABLE.items()}) as driver:
            with pytest.raises(DeviceRefused, match="exception 2"):
                await driver.write("hole", 1)
            with pytest.raises(DeviceRefused, match="does not fit"):
                await driver.write("word", 1e9)
            line.mode = "forget"
            for name, value in (("coil", True), ("word", 5.0), ("text", "kept?")):
                with pytest.raises(DeviceRefused, match="did not keep") as refused:
                    await driver.write(name, value)
                assert refused.value.hint

    over(plc, test)


@pytest.mark.parametrize("mode", ["cut", "short", "garbage"])
@pytest.mark.parametrize(("name", "value"), [("coil", True), ("word", 1.0), ("text", "SN1")])
def test_a_bad_line_in_a_write_is_a_loss_and_logs_nothing(
    plc: ModbusPlc, mode: str, name: str, value: bool | float | str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(line: Line) -> None:
        async with opened(line, tags={name: {**WRITABLE[name], "write": True}}) as driver:
            line.mode = mode
            with pytest.raises(DeviceLost):
                await driver.write(name, value)

    with caplog.at_level(logging.WARNING):
        over(plc, test)
    assert not caplog.records


def test_single_values_are_written_with_the_functions_for_many_where_the_device_wants_it(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        tags = {name: {**WRITABLE[name], "write": True} for name in ("coil", "word")}
        for quirks, functions in (({}, [5, 6]), ({"write_multiple": True}, [15, 16])):
            async with opened(line, {"poll": "1s", "tags": tags}, quirks=quirks) as driver:
                line.requests.clear()
                await driver.write("coil", value=True)
                await driver.write("word", 1.5)
                assert [request[7] for request in line.requests if request[7] > 4] == functions
                assert (await sample_of(driver)).values == (True, 1.5)

    over(plc, test)


def test_a_device_that_says_nothing_to_a_mask_write_is_told_by_its_hint(plc: ModbusPlc) -> None:
    """jsmodbus does so with each function that it does not know."""

    async def test(line: Line) -> None:
        tags = {"go": {"address": "holding:50.3", "write": True}}
        async with opened(line, polled(a="holding:0"), tags=tags, timeout="200ms") as driver:
            line.mode = "silent"
            with pytest.raises(DeviceLost, match=r"go: .*no answer") as lost:
                await driver.write("go", value=True)
            assert "function 22" in lost.value.hint
            assert "let the PLC offer a coil" in lost.value.hint

    over(plc, test)


def test_a_bit_is_written_by_mask_and_refused_where_there_is_none(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        tags = {"bit": {"address": "holding:620.4", "write": True}, "byte": {"address": "holding:620.high"}}
        tags["byte"]["write"] = True
        async with opened(line, {"poll": "1s", "tags": {**tags, "all": {"address": "holding:620"}}}) as driver:
            await driver.write("byte", 0xAB)
            await driver.write("bit", value=False)
            assert (await sample_of(driver)).values == (False, 0xAB, 0xAB00 | 620 & 0xEF)
            line.mode = "exception 1"
            with pytest.raises(DeviceRefused, match="exception 1") as refused:
                await driver.write("bit", value=True)
            assert "mask write" in refused.value.hint

    over(plc, test)


def test_an_address_that_cannot_be_read_is_written_without_reading_back(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        tags = {"blind": {"address": "holding:630", "write": True, "read_back": False}}
        tags["mode"] = {"address": "holding:631", "write": True, "enum": {0: "idle", 7: "run"}}
        async with opened(line, tags=tags) as driver:
            line.requests.clear()
            await driver.write("blind", 5)
            assert [request[7] for request in line.requests] == [6]
            await driver.write("mode", "run")
            assert line.requests[-2][-2:] == b"\0\7"
            with pytest.raises(DeviceRefused, match="is none of idle, run"):
                await driver.write("mode", "runs")

    over(plc, test)


def test_a_pause_is_kept_between_any_two_requests(plc: ModbusPlc) -> None:
    async def test(line: Line) -> None:
        groups = {"one": polled(a="holding:1", b="coil:2"), "two": polled(c="input:3")}
        async with opened(line, groups=groups, quirks={"pause": "60ms"}) as driver:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for _ in range(2):
                await driver.read()
            assert loop.time() - began_s >= 6 * 0.06 - 0.01

    over(plc, test)
