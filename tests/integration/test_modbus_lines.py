"""Modbus over every transport, each with a real server in another process: serial, behind a serial server, in TLS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected
from edge_agent.model import Sample
from edge_agent_drivers.modbus import patience
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.driver import ModbusDriver
from edge_agent_drivers.modbus.wire import TcpWire
from support.certificates import Authority
from support.modbus_plc import line_to
from support.modbus_units import ModbusUnits, register
from support.serial_line import SerialLine

SOON_S = 10.0
TAGS = {
    "word": {"address": "holding:100"},
    "wide": {"address": "input:200", "type": "uint32"},
    "bit": {"address": "discrete:3"},
}


def driver_of(connection: str, unit: int = 2, tags: dict[str, Any] | None = None, **keys: Any) -> ModbusDriver:
    settings = {"connection": connection, "unit_id": unit, "timeout": "2s", **keys}
    settings["groups"] = {"state": {"poll": "100ms", "tags": tags or TAGS}}
    return ModbusDriver(f"unit{unit}", ModbusSettings.model_validate(settings))


def expected(unit: int) -> tuple[Any, ...]:
    return register(unit, 100), register(unit, 200) << 16 | register(unit, 201), True


async def values_of(driver: ModbusDriver) -> tuple[Any, ...]:
    async with asyncio.timeout(SOON_S):
        (sample,) = await driver.read("state")
    assert isinstance(sample, Sample)
    return sample.values


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(main())


@asynccontextmanager
async def opened(*drivers: ModbusDriver) -> AsyncIterator[None]:
    try:
        for driver in drivers:
            await driver.open()
        yield
    finally:
        for driver in drivers:
            await driver.close()


# --- every transport -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_units_behind_a_serial_server_share_its_one_connection(framing: str) -> None:
    with ModbusUnits(f"{framing}+tcp") as server:

        async def test() -> None:
            where = f"{framing}+tcp://127.0.0.1:{server.port}"
            units = [driver_of(where, unit) for unit in (1, 2, 3)]
            async with opened(*units):
                assert len({unit._link._wire for unit in units}) == 1
                for _ in range(3):
                    found = await asyncio.gather(*map(values_of, units))
                    assert found == [expected(unit) for unit in (1, 2, 3)]

        run(test())


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_units_on_a_serial_line_are_read_and_written(framing: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with line_of(tmp_path, framing) as line:
            tags = {"word": {"address": "holding:20", "write": True}, "alarm": {"address": "holding:21.3"}}
            tags["alarm"]["write"] = True
            tags["list"] = {"address": "holding:30", "type": "float32", "order": "CDAB", "count": 3, "write": True}
            tags["coils"] = {"address": "coil:5", "count": 10, "write": True}
            units = [driver_of(f"{framing}://{line.port}", unit, tags, serial={"baud": 115200}) for unit in (1, 3)]
            async with opened(*units):
                on = [place % 2 == 0 for place in range(10)]
                for unit in units:
                    await unit.write("word", 7)
                    await unit.write("alarm", value=True)
                    await unit.write("list", [0.1, -2.5, 1e6])
                    await unit.write("coils", on)  # type: ignore[arg-type]  # lists are invariant
                    assert await values_of(unit) == (7, True, [0.1, -2.5, 1e6], on)
                await units[0].write("alarm", value=False)
                assert await values_of(units[0]) == (7, False, [0.1, -2.5, 1e6], on)
                assert await values_of(units[1]) == (7, True, [0.1, -2.5, 1e6], on)

    run(test())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[ModbusUnits]:
    with ModbusUnits("tls", tls=authority.issue("plc", "127.0.0.1")) as server:
        yield server


def test_tls_reads_what_a_verified_device_says(secure: ModbusUnits, authority: Authority) -> None:
    async def test() -> None:
        driver = driver_of(f"tls://127.0.0.1:{secure.port}", tls={"ca_file": str(authority.path)})
        async with opened(driver):
            for _ in range(3):
                assert await values_of(driver) == expected(2)

    run(test())


def test_tls_refuses_who_is_not_verified(secure: ModbusUnits, authority: Authority, tmp_path: Path) -> None:
    async def test() -> None:
        where, other = f"tls://127.0.0.1:{secure.port}", Authority(tmp_path)
        for tls, told in [
            ({}, "ca_file"),
            ({"ca_file": str(other.path)}, "ca_file"),
            ({"ca_file": str(authority.path), "server_name": "another.plc"}, "server_name"),
            ({"ca_file": str(tmp_path / "none.pem")}, "the tls: section"),
        ]:
            driver = driver_of(where, tls=tls)
            with pytest.raises(DeviceRefused) as refused:
                await driver.open()
            assert told in refused.value.hint

    run(test())


def test_tls_shows_our_certificate_to_a_device_that_asks_for_one(authority: Authority) -> None:
    cert, key = authority.issue("agent")
    with ModbusUnits("tls", tls=authority.issue("strict", "127.0.0.1"), clients=authority.path) as server:

        async def test() -> None:
            where, tls = f"tls://127.0.0.1:{server.port}", {"ca_file": str(authority.path)}
            driver = driver_of(where, tls={**tls, "cert_file": str(cert), "key_file": str(key)})
            async with opened(driver):
                assert await values_of(driver) == expected(2)
            with pytest.raises(DeviceUnavailable) as unavailable:
                await driver_of(where, tls=tls).open()
            assert "cert_file" in unavailable.value.hint

        run(test())


def test_tls_to_a_device_without_it_says_so() -> None:
    with ModbusUnits("tcp") as plain:

        async def test() -> None:
            with pytest.raises(DeviceUnavailable) as unavailable:
                await driver_of(f"tls://127.0.0.1:{plain.port}", timeout="500ms").open()
            assert "TLS" in str(unavailable.value)

        run(test())


# --- one line, several devices ---------------------------------------------------------------------------------


@asynccontextmanager
async def line_of(folder: Path, framing: str = "rtu") -> AsyncIterator[SerialLine]:
    """A line with units 1, 2 and 3 on it."""
    line = SerialLine(folder / "line", ascii_frames=framing == "ascii")
    await line.plug()
    try:
        with ModbusUnits(framing, line.far):
            yield line
    finally:
        line.unplug()


def on_line(test: Callable[[SerialLine], Awaitable[None]], folder: Path) -> None:
    async def main() -> None:
        async with line_of(folder) as line:
            await test(line)

    run(main())


def rtu(line: SerialLine, unit: int = 2, tags: dict[str, Any] | None = None, timeout: str = "2s") -> ModbusDriver:
    return driver_of(f"rtu://{line.port}", unit, tags, serial={"baud": 115200}, timeout=timeout)


async def keep_reading(driver: ModbusDriver, until_s: float) -> int:
    """What a collector does, without its pauses: how many good reads there were."""
    good = 0
    while time.monotonic() < until_s:
        try:
            assert await values_of(driver) == expected(driver._settings.unit_id)
            good += 1
        except DriverError:
            await driver.close()
            while time.monotonic() < until_s:
                try:
                    await driver.open()
                    break
                except DriverError:
                    await asyncio.sleep(0.05)
    return good


@pytest.mark.long
def test_a_dead_unit_costs_the_living_ones_a_tenth_of_the_line_at_most(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        async with AsyncExitStack() as stack:
            living, dead, gone = (rtu(line, unit, timeout="300ms") for unit in (1, 2, 3))
            line.dead = {2, 3}
            await stack.enter_async_context(opened(living))
            alone = await keep_reading(living, time.monotonic() + 5)
            until_s = time.monotonic() + 25

            async def knock(driver: ModbusDriver) -> None:
                while time.monotonic() < until_s:
                    with pytest.raises(DeviceUnavailable):
                        await driver.open()
                    await asyncio.sleep(0.05)

            _, _, beside = await asyncio.gather(knock(dead), knock(gone), keep_reading(living, until_s))
            assert beside / 25 > 0.8 * alone / 5
            asked = sum(request[0] in line.dead for request in line.requests)
            assert 4 <= asked <= 25 * patience.SHARE / 0.3 + 4  # its share, and some at first

    on_line(test, tmp_path)


def test_a_dead_unit_is_told_when_it_is_asked_again_and_is_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE_FIRST_S", 0.2)

    async def test(line: SerialLine) -> None:
        living, dying = rtu(line, 1), rtu(line, 2, timeout="500ms")
        async with opened(living, dying):
            assert await values_of(dying) == expected(2)
            line.dead = {2}
            said = ""
            async with asyncio.timeout(SOON_S):
                while "it is asked again in" not in said:
                    with pytest.raises((DeviceLost, DeviceUnavailable)) as lost:
                        await values_of(dying) if dying._link._wire else await dying.open()
                    said = lost.value.hint
            line.dead = set()
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        await dying.open()
                        break
                    except DeviceUnavailable:
                        await asyncio.sleep(0.05)
            for _ in range(3):
                assert await values_of(dying) == expected(2)

    on_line(test, tmp_path)


def test_a_port_that_is_gone_is_a_loss_for_all_of_its_devices(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        units = [rtu(line, unit) for unit in (1, 2, 3)]
        async with opened(*units):
            line.unplug()
            for unit in units:
                with pytest.raises(DeviceLost):
                    await values_of(unit)
            with pytest.raises(DeviceUnavailable, match="does not exist"):
                await units[0].open()

    on_line(test, tmp_path)


def test_cancelling_one_read_spoils_no_other(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        one, two = rtu(line, 1), rtu(line, 2)
        async with opened(one, two):
            for patience_s in (0.0, 0.001, 0.003, 0.01):
                reading = asyncio.ensure_future(values_of(one))
                other = asyncio.ensure_future(values_of(two))
                await asyncio.sleep(patience_s)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                assert await other == expected(2)
                await one.open()
                assert await values_of(one) == expected(1)

    on_line(test, tmp_path)


def test_turns_are_taken_fairly(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        tags = {f"t{number}": {"address": f"holding:{number}"} for number in range(0, 200, 20)}
        many = driver_of(f"rtu://{line.port}", 1, tags, serial={"baud": 115200}, quirks={"max_gap": 0})
        one = rtu(line, 2, {"word": {"address": "holding:100"}})
        async with opened(many, one):
            line.requests.clear()
            await asyncio.gather(values_of(many), values_of(one))
            assert [request[0] for request in line.requests].index(2) <= 1  # not behind all ten of the other

    on_line(test, tmp_path)


def test_devices_behind_a_gateway_of_one_connection_share_it_and_its_late_answers_meet_nobody() -> None:
    with ModbusUnits("tcp") as server:

        async def test() -> None:
            async with line_to(server.port) as line:
                units = [
                    driver_of(f"tcp://127.0.0.1:{line.port}", unit, timeout="1s", quirks={"single_connection": True})
                    for unit in (1, 2)
                ]
                async with opened(*units):
                    assert len({unit._link._wire for unit in units}) == 1
                    found = await asyncio.gather(*map(values_of, units))
                    assert found == [expected(1), expected(2)]
                    line.mode = "late"
                    with pytest.raises(DeviceLost, match="no answer"):
                        await values_of(units[0])
                    line.mode = "pass"
                    line.release()
                    assert await values_of(units[1]) == expected(2)  # its connection is the same as before
                    await units[0].open()
                    assert await values_of(units[0]) == expected(1)

        run(test())


def test_all_units_of_a_serial_server_that_ends_idle_connections_are_asked_over_one_new_one() -> None:
    with ModbusUnits("rtu+tcp") as server:

        async def test() -> None:
            where = f"rtu+tcp://127.0.0.1:{server.port}"
            units = [driver_of(where, unit, quirks={"closes_idle": True}) for unit in (1, 2, 3)]
            async with opened(*units):
                for _ in range(2):
                    wire = units[0]._link._wire
                    assert isinstance(wire, TcpWire)
                    assert wire._transport is not None
                    wire._transport.abort()  # as its end looks to the wire
                    await asyncio.sleep(0.01)
                    found = await asyncio.gather(*map(values_of, units))
                    assert found == [expected(unit) for unit in (1, 2, 3)]
                    assert len({unit._link._wire for unit in units}) == 1

        run(test())


# --- answers that are none ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["garbage", "crc", "stranger"])
def test_what_is_no_answer_is_rejected_and_the_next_is_right(mode: str, tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        driver = rtu(line)
        async with opened(driver):
            line.mode = mode
            with pytest.raises(ReadingRejected) as rejected:
                await values_of(driver)
            assert rejected.value.hint
            line.mode = "pass"
            assert await values_of(driver) == expected(2)

    on_line(test, tmp_path)


@pytest.mark.parametrize("mode", ["glitch", "echo", "drip", "slow glitch", "slow echo"])
def test_what_a_line_does_to_a_good_answer_is_borne(mode: str, tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        driver = rtu(line)
        async with opened(driver):
            line.mode = mode
            for _ in range(2):
                assert await values_of(driver) == expected(2)

    on_line(test, tmp_path)


def test_on_a_line_that_echoes_a_write_waits_for_the_device_and_not_for_its_echo(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        line.mode = "slow echo"
        driver = rtu(line, 2, {"word": {"address": "holding:20", "write": True}}, timeout="1s")
        async with opened(driver):
            line.requests.clear()
            line.mode = "late echo"
            writing = asyncio.ensure_future(driver.write("word", 7))
            await asyncio.sleep(0.15)
            assert [request[1] for request in line.requests] == [6]  # reading back would meet the answer on the wire
            line.mode = "echo"
            line.release()
            await writing
            assert await values_of(driver) == (7,)
            line.dead = {2}
            with pytest.raises(DeviceLost):
                await driver.write("word", 8)

    on_line(test, tmp_path)


WRITTEN: dict[str, Any] = {"coil": "coil:5", "word": "holding:20", "bit": "holding:21.3", "list": "holding:30"}


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
@pytest.mark.parametrize("name", list(WRITTEN))
def test_on_a_line_that_echoes_a_device_that_is_only_written_is_not_taken_for_its_echo(
    name: str, framing: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with line_of(tmp_path, framing) as line:
            value: Any = [1, 2] if name == "list" else True if name in ("coil", "bit") else 7
            tag = {"address": WRITTEN[name], "write": True, "read_back": False}
            tag |= {"count": 2} if name == "list" else {}
            section = {"connection": f"{framing}://{line.port}", "unit_id": 2, "timeout": "400ms"}
            section |= {"serial": {"baud": 115200}, "tags": {name: tag}}
            driver = ModbusDriver("relay", ModbusSettings.model_validate(section))
            line.mode = "echo"
            async with opened(driver):
                await driver.write(name, value)
            line.mode = "late echo"  # nothing but the echo
            async with opened(driver):
                with pytest.raises(DeviceLost, match="no answer"):
                    await driver.write(name, value)

    run(test())


def test_a_device_that_is_silent_to_reads_is_written_all_the_same(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        tags = {"word": {"address": "holding:20", "write": True, "read_back": False}}
        section = {"connection": f"rtu://{line.port}", "unit_id": 2, "timeout": "300ms", "tags": tags}
        driver = ModbusDriver("relay", ModbusSettings.model_validate({**section, "serial": {"baud": 115200}}))
        line.deaf = {3}
        async with opened(driver):
            line.requests.clear()
            for _ in range(2):
                await driver.write("word", 7)
            assert [request[1] for request in line.requests] == [3, 6, 6]

    on_line(test, tmp_path)


def test_half_an_answer_is_a_loss(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        driver = rtu(line, timeout="1s")
        async with opened(driver):
            line.mode = "half"
            with pytest.raises(DeviceLost):
                await values_of(driver)
            line.mode = "pass"
            await driver.open()
            assert await values_of(driver) == expected(2)

    on_line(test, tmp_path)


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_late_answer_never_meets_the_next_request(cancelled: bool, tmp_path: Path) -> None:
    """The two requests look alike on the wire: same unit, same function, as many registers."""

    async def test(line: SerialLine) -> None:
        first = rtu(line, 2, {"word": {"address": "holding:1"}}, timeout="1s")
        second = rtu(line, 2, {"word": {"address": "holding:50"}}, timeout="1s")
        bystander = rtu(line, 1)
        async with opened(bystander, first, second):
            line.mode = "late"
            line.requests.clear()
            reading = asyncio.ensure_future(values_of(first))
            async with asyncio.timeout(SOON_S):
                while not line.requests:  # noqa: ASYNC110  # only the line knows when
                    await asyncio.sleep(0.01)
            if cancelled:
                reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled() or isinstance(reading.exception(), DeviceLost)
            line.mode = "pass"
            following = asyncio.ensure_future(values_of(second))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.02, line.release)
            assert await following == (register(2, 50),)
            assert await values_of(second) == (register(2, 50),)
            assert await values_of(bystander) == expected(1)

    on_line(test, tmp_path)


def test_a_line_set_wrongly_is_told_at_open(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        line.mode = "garbage"  # as a wrong baud rate looks
        with pytest.raises(DeviceUnavailable, match="no answer") as unavailable:
            await rtu(line).open()
        assert "baud" in unavailable.value.hint

    on_line(test, tmp_path)


def test_a_port_in_use_is_refused_with_who_to_look_for(tmp_path: Path) -> None:
    async def test(line: SerialLine) -> None:
        other = driver_of(f"rtu://{line.port}", 1, serial={"baud": 9600})  # other settings: not the same line
        async with opened(rtu(line)):
            with pytest.raises((DeviceRefused, DeviceUnavailable), match="in use"):
                await other.open()

    on_line(test, tmp_path)
