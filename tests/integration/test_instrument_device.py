"""The instrument driver on pseudo terminals: asked, by itself, unstable, damaged, commanded, switched off."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.control.devices import value_for
from edge_agent.control.verbs import Refused
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Sample
from edge_agent_drivers.instrument.config import InstrumentSettings, describe
from edge_agent_drivers.instrument.driver import InstrumentDriver
from support.pty_device import Answer, PtyDevice

SOON_S = 10.0
PRINTED = {"printed": {"tags": {"weight": {"unit": "g"}, "stable": {}, "digits": {"field": "value", "type": "string"}}}}
ASKED = {"asked": {"on_trigger": True, "tags": {"weight": {"unit": "g"}, "stable": {}}}}


def driver_of(port: Path, **keys: Any) -> InstrumentDriver:
    return InstrumentDriver("scale", InstrumentSettings.model_validate({"port": str(port), "baud": 115200, **keys}))


@asynccontextmanager
async def instrument_at(
    port: Path, answers: dict[bytes, Answer] | None = None, protocol: str = "mt-sics", **keys: Any
) -> AsyncIterator[tuple[PtyDevice, InstrumentDriver]]:
    """An instrument plugged in, and its opened driver."""
    device, driver = PtyDevice(port, answers), driver_of(port, protocol=protocol, **keys)
    try:
        await driver.open()
        yield device, driver
    finally:
        await driver.close()
        device.unplug()


async def next_of(driver: InstrumentDriver) -> list[tuple[Any, ...]]:
    """(group, values, status) of the samples of one read."""
    async with asyncio.timeout(SOON_S):
        return [(each.tagset.group, each.values, dict(each.status or {})) for each in await driver.read()]


async def asked(driver: InstrumentDriver, group: str) -> tuple[Any, ...]:
    """(values, status) of a fresh sample of this group."""
    async with asyncio.timeout(SOON_S):
        (sample,) = await driver.read(group)
    assert isinstance(sample, Sample)
    return sample.values, dict(sample.status or {})


def turns(*answers: bytes) -> Callable[[bytes], bytes]:
    """One answer after the other; the last one from then on."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(main())


# --- what it sends by itself -----------------------------------------------------------------------------------


def test_each_message_is_one_sample_and_none_looks_better_than_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", groups=PRINTED) as (device, driver):
            device.send(b"S S     100.00 g\r\nS D     101.20 g\r\nS S       0.10 kg\r\nS +\r\nS I\r\n")
            found: list[tuple[Any, ...]] = []
            while len(found) < 5:
                found += await next_of(driver)
            unit = "unit kg, not g"
            assert found == [
                ("printed", (100.0, True, "100.00"), {}),
                ("printed", (None, False, None), {0: "unstable", 2: "unstable"}),
                ("printed", (None, True, "0.10"), {0: unit}),
                ("printed", (None, None, None), {0: "overload", 1: "overload", 2: "overload"}),
                ("printed", (None, None, None), {0: "busy", 1: "busy", 2: "busy"}),
            ]

    run(test())


def test_a_value_that_moves_is_kept_only_with_its_flag(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", groups=PRINTED, unstable="flag") as (device, driver):
            device.send(b"S D     101.20 g\r\n")
            assert await next_of(driver) == [
                ("printed", (101.2, False, "101.20"), {0: "unstable", 2: "unstable"}),
            ]

    run(test())


def test_what_is_no_message_is_one_rejection_between_the_good_ones(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", groups=PRINTED) as (device, driver):
            device.send(b"S S 1.0 g\r\nnoise\r\nmore\r\nS S 2.0 g\r\nS S    ")
            assert [values[0] for _, values, _ in await next_of(driver)] == [1.0]
            with pytest.raises(ReadingRejected, match="not a message of mt-sics: b'noise', and 1 more") as rejected:
                await next_of(driver)
            assert rejected.value.hint
            assert [values[0] for _, values, _ in await next_of(driver)] == [2.0]
            with pytest.raises(ReadingRejected, match="b'S S    '"):  # half a message, then a pause
                await next_of(driver)
            device.send(b"  3.0 g\r\nS S 4.0 g\r\n")
            with pytest.raises(ReadingRejected, match=r"3\.0 g"):
                await next_of(driver)
            assert [values[0] for _, values, _ in await next_of(driver)] == [4.0]

    run(test())


def test_a_scale_that_repeats_is_started_and_started_again_after_a_power_cut(tmp_path: Path) -> None:
    async def test() -> None:
        groups = PRINTED | {"now": {"on_trigger": True, "tags": {"at_trigger": {"field": "value"}}}}
        answers: dict[bytes, Answer] = {b"SIR\r\n": b"S S 1.0 g\r\n"}
        async with instrument_at(tmp_path / "scale", answers, groups=groups, start="SIR\r\n") as (device, driver):
            assert [values[0] for _, values, _ in await next_of(driver)] == [1.0]
            waiting = asyncio.ensure_future(driver.read("now"))  # asking would end the repeating
            await asyncio.sleep(0.05)
            device.send(b"S S 2.0 g\r\n")
            (sample,) = await waiting
            assert isinstance(sample, Sample)
            assert sample.values == (2.0,)
            device.send(b'I4 A "0123456789"\r\n')
            with pytest.raises(DeviceLost, match="switched off and on"):
                await next_of(driver)
            await driver.open()
            assert [values[0] for _, values, _ in await next_of(driver)] == [1.0]
            assert device.requests == [b"SIR\r\n"] * 2

    run(test())


def test_a_silence_that_is_too_long_is_a_loss(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", groups=PRINTED, silence="300ms") as (device, driver):
            device.send(b"S S 1.0 g\r\n")
            await next_of(driver)
            with pytest.raises(DeviceLost, match=r"silent for 0\.3 s"):
                await next_of(driver)

    run(test())


def test_a_toledo_scale_sends_all_the_time(tmp_path: Path) -> None:
    async def test() -> None:
        groups = {"weighing": {"tags": {"weight": {"unit": "kg"}, "tare": {}, "net": {}, "stable": {}}}}
        frame = b"\x02\x2c\x31\x20001234000100\r"
        frame += bytes([-sum(frame) & 0x7F])
        keys: dict[str, Any] = {"protocol": "toledo", "checksum": True, "groups": groups}
        async with instrument_at(tmp_path / "scale", **keys) as (device, driver):
            device.send(frame)
            assert await next_of(driver) == [("weighing", (12.34, 1.0, True, True), {})]
            device.send(frame.replace(b"1234", b"1235"))
            with pytest.raises(ReadingRejected) as rejected:
                await next_of(driver)
            assert "checksum" in rejected.value.hint
            waiting = asyncio.ensure_future(driver.read("weighing"))
            await asyncio.sleep(0.05)
            device.send(frame)
            (sample,) = await waiting
            assert isinstance(sample, Sample)
            assert sample.values == (12.34, 1.0, True, True)

    run(test())


# --- what it is asked ------------------------------------------------------------------------------------------


def test_it_is_asked_until_it_rests(tmp_path: Path) -> None:
    async def test() -> None:
        groups = {"asked": ASKED["asked"] | {"settle": "5s"}}
        answer = turns(b"S S 9.0 g\r\n", b"S D 1.0 g\r\n", b"S I\r\n", b"S D 1.5 g\r\n", b"S S 2.0 g\r\n")
        async with instrument_at(tmp_path / "scale", {b"SI\r\n": answer}, groups=groups) as (device, driver):
            assert await asked(driver, "asked") == ((2.0, True), {})
            assert device.requests == [b"SI\r\n"] * 5

    run(test())


def test_what_never_rests_is_no_value(tmp_path: Path) -> None:
    async def test() -> None:
        groups = {"asked": ASKED["asked"] | {"settle": "200ms"}}
        async with instrument_at(tmp_path / "scale", {b"SI\r\n": b"S D 1.0 g\r\n"}, groups=groups) as (_, driver):
            assert await asked(driver, "asked") == ((None, False), {0: "unstable"})

    run(test())


def test_polled_printed_and_triggered_at_once_none_takes_the_others(tmp_path: Path) -> None:
    async def test() -> None:
        groups = PRINTED | {"polled": {"poll": "50ms", "tags": {"now": {"unit": "g"}}}}
        async with instrument_at(tmp_path / "scale", {b"SI\r\n": b"S S 7.0 g\r\n"}, groups=groups) as (_, driver):
            found: list[tuple[Any, ...]] = []
            while len(found) < 4:
                found += await next_of(driver)
            assert found == [("polled", (7.0,), {})] * 4
            reading = asyncio.ensure_future(driver.read("polled"))
            watching = asyncio.ensure_future(driver.read())
            assert (await reading)[0].values == (7.0,)  # type: ignore[union-attr]
            assert (await watching)[0].values == (7.0,)  # type: ignore[union-attr]

    run(test())


def test_an_instrument_that_does_not_answer_is_unavailable_and_then_lost(tmp_path: Path) -> None:
    async def test() -> None:
        device = PtyDevice(tmp_path / "scale", {b"SI\r\n": b"S S 1.0 g\r\n"})
        driver = driver_of(device.port, protocol="mt-sics", groups=ASKED, timeout="100ms")
        device.silent = True
        with pytest.raises(DeviceUnavailable) as unavailable:
            await driver.open()
        assert "null-modem" in unavailable.value.hint
        device.silent = False
        await driver.open()
        device.silent = True
        with pytest.raises(DeviceLost):
            await driver.read("asked")
        await driver.close()
        device.unplug()

    run(test())


def test_an_error_is_no_value(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", {b"SI\r\n": b"ES\r\n"}, groups=ASKED) as (_, driver):
            with pytest.raises(ReadingRejected, match="does not know the command") as rejected:
                await driver.read("asked")
            assert "ask:" in rejected.value.hint

    run(test())


@pytest.mark.parametrize(
    ("protocol", "groups", "answers", "values"),
    [
        (
            "mitutoyo",
            {"gauge": {"on_trigger": True, "address": 7, "tags": {"depth": {"unit": "mm"}, "mode": {}}}},
            {b"GA07\r\n": b"GN03,+0001.0000\r\nGN07,+0016.2345\r\n"},
            (16.2345, "normal"),
        ),
        (
            "sylvac",
            {"gauge": {"on_trigger": True, "tags": {"depth": {"unit": "mm"}, "judgement": {}}}},
            {b"?\r": b"+12.345 =\r"},
            (12.345, "="),
        ),
        (
            "line",
            {
                "gauge": {
                    "on_trigger": True,
                    "ask": "READ?\r\n",
                    "pattern": r"F=(?P<force>\S+) N;(?P<ok>\w+)",
                    "tags": {"force": {}, "ok": {"type": "bool"}},
                }
            },
            {b"READ?\r\n": b"F=12.5 N;PASS\r\n"},
            (12.5, True),
        ),
    ],
)
def test_each_protocol_is_asked_its_own_way(
    tmp_path: Path, protocol: str, groups: dict[str, Any], answers: dict[bytes, Answer], values: tuple[Any, ...]
) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "gauge", answers, protocol, groups=groups) as (_, driver):
            assert await asked(driver, "gauge") == (values, {})

    run(test())


@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
@pytest.mark.parametrize(("protocol", "line"), [("mitutoyo", b"01A+0000.123"), ("sylvac", b"+0.123")])
def test_a_gauge_ends_its_line_with_cr_or_cr_lf(tmp_path: Path, protocol: str, line: bytes, end: bytes) -> None:
    async def test() -> None:
        groups = {"gauge": {"tags": {"depth": {"unit": "mm"}}}}
        async with instrument_at(tmp_path / "gauge", {}, protocol, groups=groups) as (device, driver):
            for _ in range(2):
                device.send(line + end)
                assert await next_of(driver) == [("gauge", (0.123,), {})]
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.7):  # what is left over would be garbage after the idle time
                        await driver.read()

    run(test())


def test_what_waits_at_the_port_is_no_silence(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", {}, groups=PRINTED, silence="300ms") as (device, driver):
            device.send(b"S S 1.0 g\r\n")
            await asyncio.sleep(0.4)  # nobody reads: the disk is behind
            ((_, values, _),) = await next_of(driver)
            assert values[0] == 1.0

    run(test())


def test_lines_go_to_the_group_whose_pattern_matches(tmp_path: Path) -> None:
    async def test() -> None:
        groups = {
            "result": {
                "pattern": r"SN=(?P<serial>\w+);F=(?P<force>[\d.]+)(?P<unit>\w+)",
                "tags": {"serial": {"type": "string"}, "force": {"unit": "N"}},
            },
            "fault": {
                "pattern": r"FAULT (?P<code>\d+)",
                "tags": {"code": {"type": "int64"}, "line": {"field": "text"}},
            },
        }
        async with instrument_at(tmp_path / "tester", {}, "line", groups=groups) as (device, driver):
            device.send(b"SN=A1;F=12.5N\r\nFAULT 17\r\nSN=A2;F=12.5kN\r\nhello\r\n")
            found: list[tuple[Any, ...]] = []
            while len(found) < 3:
                found += await next_of(driver)
            assert found == [
                ("result", ("A1", 12.5), {}),
                ("fault", (17, "FAULT 17"), {}),
                ("result", ("A2", None), {1: "unit kN, not N"}),
            ]
            with pytest.raises(ReadingRejected, match="hello") as rejected:
                await next_of(driver)
            assert "pattern" in rejected.value.hint

    run(test())


# --- commands --------------------------------------------------------------------------------------------------


def test_a_command_is_done_or_refused_in_its_words(tmp_path: Path) -> None:
    async def test() -> None:
        answers: dict[bytes, Answer] = {
            b"T\r\n": turns(b"S S 1.0 g\r\nT S 1.0 g\r\n", b"T I\r\n"),
            b"Z\r\n": turns(b"Z A\r\n", b"EL\r\n"),
            b"BEEP\r\n": turns(b"BEEP OK\r\n", b"BEEP BUSY\r\n"),
        }
        commands = {
            "tare": {"command": "tare"},
            "zero": {"command": "zero"},
            "beep": {"send": "BEEP\r\n", "answer": "BEEP OK"},
            "light": {"send": "LIGHT\r\n"},
        }
        async with instrument_at(tmp_path / "scale", answers, groups=PRINTED, tags=commands) as (device, driver):
            reading = asyncio.ensure_future(next_of(driver))
            await driver.write("tare", value=True)
            assert [values[0] for _, values, _ in await reading] == [1.0]  # the weight between went to its group
            await driver.write("tare", value=False)
            with pytest.raises(DeviceRefused, match=re.escape("tare: busy (it answered 'T I')")):
                await driver.write("tare", value=True)
            await driver.write("zero", value=True)
            with pytest.raises(DeviceRefused, match="cannot carry out"):
                await driver.write("zero", value=True)
            await driver.write("beep", value=True)
            await driver.write("light", value=True)
            assert device.requests == [b"T\r\n", b"T\r\n", b"Z\r\n", b"Z\r\n", b"BEEP\r\n"]
            with pytest.raises(DeviceRefused, match="not writable"):
                await driver.write("weight", value=True)

    run(test())


# --- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"tags": {"t": {"command": "fly"}}}, "write one of tare, tare-now"),
        ({"tags": {"t": {}}}, "either command: tare, or send:"),
        ({"protocol": "sylvac", "tags": {"t": {"command": "zero"}}}, "write send:"),
        ({"checksum": True}, "belongs to protocol: toledo"),
        ({"groups": {"g": {"pattern": "x", "tags": {"value": {}}}}}, "a line needs its pattern"),
        ({"protocol": "line", "groups": {"g": {"pattern": "(", "tags": {"value": {}}}}}, "no regular expression"),
        ({"protocol": "line", "groups": {"g": {"pattern": "(?P<a>.)", "tags": {"b": {}}}}}, "one of a, text"),
        ({"groups": {"g": {"tags": {"a": {}}}, "h": {"tags": {"b": {}}}}}, "two groups for the same messages"),
        ({"groups": {"g": {"tags": {"stable": {"type": "string"}}}}}, "leave type out"),
        ({"groups": {"g": {"poll": "1s", "on_trigger": True, "tags": {"a": {}}}}}, "write one of poll"),
        ({"groups": {"g": {"settle": "1s", "tags": {"a": {}}}}}, "groups that are asked"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys: dict[str, Any], hint: str) -> None:
    good = {"port": "/dev/ttyUSB0", "protocol": "mt-sics", "groups": PRINTED}
    InstrumentSettings.model_validate(good)
    with pytest.raises(ValidationError, match=hint):
        InstrumentSettings.model_validate(good | keys)


@pytest.mark.parametrize("typed", ["maybe", "flase", "no", "2"])
def test_a_command_is_given_by_true_and_by_nothing_that_looks_like_it(typed: str) -> None:
    """A typing error of false tared the scale: any text was true."""
    keys = {"port": "/dev/ttyUSB0", "protocol": "mt-sics", "groups": PRINTED, "tags": {"tare": {"command": "tare"}}}
    shape = describe("scale", InstrumentSettings.model_validate(keys))
    assert (value_for("scale", shape, "tare", "true"), value_for("scale", shape, "tare", "false")) == (True, False)
    with pytest.raises(Refused, match="neither true nor false"):
        value_for("scale", shape, "tare", typed)


def test_a_tag_is_named_once(tmp_path: Path) -> None:
    groups = {"g": {"tags": {"a": {}}}, "h": {"on_trigger": True, "tags": {"a": {}}}}
    settings = InstrumentSettings.model_validate({"port": "/dev/ttyUSB0", "protocol": "mt-sics", "groups": groups})
    with pytest.raises(ValueError, match="named twice"):
        describe("scale", settings)


def test_a_stream_that_never_ends_a_message_is_said_once_a_burst(tmp_path: Path) -> None:
    async def test() -> None:
        async with instrument_at(tmp_path / "scale", groups=PRINTED) as (device, driver):
            refused = []
            for _ in range(2):
                reading = asyncio.ensure_future(driver.read())
                for _ in range(40):  # 80 KiB
                    await asyncio.to_thread(device.send, b"\x00\xf8" * 1024)
                    if reading.done():
                        refused.append(reading.exception())
                        reading = asyncio.ensure_future(driver.read())
                reading.cancel()
                await asyncio.wait([reading])
            first, second = refused
            assert "not a message" in str(first)
            assert isinstance(second, ReadingRejected)
            assert "64 KiB came without the end of one message" in str(second)
            assert "baud" in second.hint
            device.send(b"\r\nS S     100.00 g\r\n")
            assert (await next_of(driver))[0][1][0] == 100.0

    run(test())
