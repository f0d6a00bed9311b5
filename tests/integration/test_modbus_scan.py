"""Finding Modbus devices: real servers on hosts and lines, and hosts that do what no Modbus device does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.bench import Found, Where
from edge_agent.errors import DeviceRefused, DeviceUnavailable
from edge_agent.model import Sample
from edge_agent_drivers.modbus import bench
from edge_agent_drivers.modbus.bench import BAUDS, scan
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.driver import ModbusDriver
from support import modbus_named
from support.modbus_plc import line_to
from support.modbus_units import ModbusUnits
from support.mosquitto import free_port
from support.serial_line import SerialLine

BOUND_S = 30.0  # generous: for a machine that many share
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def found(where: Where) -> list[Found]:
    async def collect() -> list[Found]:
        async with asyncio.timeout(BOUND_S):
            return [each async for each in scan(where)]

    return asyncio.run(collect())


@pytest.fixture(scope="module")
def named() -> Iterator[int]:
    """The port of a server that says who it is; units 1 and 5."""
    port = free_port()
    command = [sys.executable, modbus_named.__file__, str(port), "127.0.0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield port
        process.kill()


# --- hosts -------------------------------------------------------------------------------------------------------


def test_a_host_says_who_it_is(named: int) -> None:
    (device,) = found(Where(hosts=(f"127.0.0.1:{named}",), timeout_s=2.0))
    assert device.where == f"tcp://127.0.0.1:{named}"
    assert device.what.startswith("unit 1; ACME PX 20 v2.7; holding")
    assert device.name == "px_20"
    assert device.section == {"driver": "modbus", "connection": device.where, "unit_id": 1}
    ModbusSettings.model_validate(dict(device.section))


def test_the_unit_ids_asked_for_are_those_that_are_there(named: int) -> None:
    devices = found(Where(hosts=(f"127.0.0.1:{named}",), units=(1, 2, 3, 4, 5, 6), timeout_s=2.0))
    assert [device.section["unit_id"] for device in devices] == [1, 5]


def test_hosts_come_in_their_order_whoever_answers_first(named: int) -> None:
    hosts = tuple(f"127.0.0.{last}:{named if last == 1 else 1}" for last in (3, 2, 1, 4))
    assert [device.where for device in found(Where(hosts=hosts, timeout_s=2.0))] == [f"tcp://127.0.0.1:{named}"]


def test_a_host_that_is_the_only_one_says_why_it_does_not_answer() -> None:
    with pytest.raises(DeviceUnavailable, match="refuses the connection") as error:
        found(Where(hosts=(f"127.0.0.1:{free_port()}",)))
    assert error.value.hint


@asynccontextmanager
async def host(serve: Serve) -> AsyncIterator[str]:
    """A host that does what it likes."""

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(quietly, "127.0.0.1")
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(64):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def _flood_of_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:  # well-formed, and of no question
        writer.write(b"\xff\xfe\0\0\0\5\1\3\2\0\7" * 500)
        await writer.drain()


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def _half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while request := await reader.read(64):
        writer.write(request[:4] + b"\0\5" + request[6:8])


async def _lies_about_objects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while request := await reader.read(64):
        if request[7] == 0x2B:  # says that 200 objects follow, and none does
            writer.write(request[:4] + b"\0\x08" + request[6:8] + b"\x0e\1\1\0\0\xc8")
        else:
            writer.write(request[:4] + b"\0\5" + request[6:8] + b"\2\0\7")


def _as_unit(unit_id: int) -> Serve:
    """A device that answers as this one, whichever unit is asked; it has holding registers only."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(64):
            answer = b"\3\2\0\7" if request[7] == 3 else bytes([request[7] | 0x80, 1])
            writer.write(request[:4] + bytes([0, len(answer) + 1, unit_id]) + answer)

    return serve


@pytest.mark.parametrize("unit_id", [255, 0, 9])
@pytest.mark.parametrize("asked", [(), (3,)])
def test_a_device_that_answers_as_another_unit_is_found_as_that_one(unit_id: int, asked: tuple[int, ...]) -> None:
    async def ask() -> list[Found]:
        async with host(_as_unit(unit_id)) as at, asyncio.timeout(BOUND_S):
            return [each async for each in scan(Where(hosts=(at,), units=asked, timeout_s=0.5))]

    (device,) = asyncio.run(ask())
    assert device.section["unit_id"] == unit_id
    assert f"unit {unit_id}; holding; answers as unit {unit_id} to every unit id" in device.what


def test_a_device_that_answers_as_another_unit_is_told_with_what_to_write() -> None:
    async def ask(unit_id: int) -> Sequence[Sample]:
        async with host(_as_unit(255)) as at:
            groups = {"state": {"poll": "1s", "tags": {"a": {"address": "holding:0"}}}}
            section = {"connection": f"tcp://{at}", "unit_id": unit_id, "timeout": "300ms", "groups": groups}
            driver = ModbusDriver("drive", ModbusSettings.model_validate(section))
            try:
                await driver.open()
                return await driver.read()
            finally:
                await driver.close()

    with pytest.raises(DeviceUnavailable) as unavailable:
        asyncio.run(ask(1))
    assert "unit 255 answers, write unit_id: 255" in unavailable.value.hint
    assert asyncio.run(ask(255))[0].values == (7,)


@pytest.mark.parametrize(
    ("serve", "what"),
    [
        (_silent, "takes the connection and answers nothing"),
        (_garbage, "does not speak Modbus"),
        (_flood, "does not speak Modbus"),
        (_flood_of_frames, "does not speak Modbus"),
        (_hangs_up, "takes the connection and answers nothing"),
        (_half, "does not speak Modbus"),
        (_lies_about_objects, "unit 1; "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_host_costs_some_time_outs_and_is_told(serve: Serve, what: str) -> None:
    async def ask() -> list[Found]:
        timeout_s = 0.1 if serve is _silent else 1.0  # for the others it is a bound, not a wait
        async with host(serve) as at, asyncio.timeout(BOUND_S):
            return [each async for each in scan(Where(hosts=(at,), timeout_s=timeout_s))]

    (only,) = asyncio.run(ask())
    assert what in only.what
    assert bool(only.section) == what.startswith("unit")


def test_a_scan_that_is_broken_off_leaves_no_task() -> None:
    async def ask() -> set[str]:
        async with host(_silent) as at:
            each = scan(Where(hosts=(at, at, at), timeout_s=20.0))
            task = asyncio.ensure_future(anext(each))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return {str(one.get_coro()) for one in asyncio.all_tasks() if "look" in str(one.get_coro())}

    assert asyncio.run(ask()) == set()


@pytest.mark.parametrize("code", [10, 11])
def test_a_gateway_with_nobody_behind_is_no_device(named: int, code: int) -> None:
    async def ask() -> list[Found]:
        async with line_to(named) as line:
            line.mode = f"exception {code}"
            return [each async for each in scan(Where(hosts=(f"127.0.0.1:{line.port}",)))]

    (gateway,) = asyncio.run(ask())
    assert gateway.what.startswith("a gateway: no device answers behind it")
    assert not gateway.section


@pytest.mark.parametrize("code", [1, 2, 3])
def test_an_exception_is_an_answer(named: int, code: int) -> None:
    async def ask() -> list[Found]:
        async with line_to(named) as line:
            line.mode = f"exception {code}"
            return [each async for each in scan(Where(hosts=(f"127.0.0.1:{line.port}",)))]

    (device,) = asyncio.run(ask())
    assert device.section["unit_id"] == 1
    assert "answers to every unit id" in device.what
    assert ("exception" in device.what) == (code != 1)  # 1: it has no such table


def test_devices_behind_a_serial_server_are_found() -> None:
    with ModbusUnits("rtu+tcp") as server:
        devices = found(Where(hosts=(f"127.0.0.1:{server.port}",), units=(2, 3), timeout_s=0.5))
    assert [device.where for device in devices] == [f"rtu+tcp://127.0.0.1:{server.port}"] * 2
    assert [ModbusSettings.model_validate(dict(device.section)).unit_id for device in devices] == [2, 3]


# --- a line ------------------------------------------------------------------------------------------------------


class TunedLine(SerialLine):
    """A line whose devices hear only what comes at their own speed: a pty keeps what the port was set to.

    It does not keep the parity, so that cannot be told apart here; stop bits it does.
    """

    def __init__(self, port: Path, baud: int, stop_bits: int = 1, wrong: bytes = b"") -> None:
        super().__init__(port)
        self.heard_at: set[tuple[int, int]] = set()
        self._tuned = (getattr(termios, f"B{baud}"), stop_bits)
        self._wrong = wrong  # what comes back at another speed

    def _on_request(self, near: int, far: int) -> None:
        cflag, ospeed = termios.tcgetattr(near)[2], termios.tcgetattr(near)[5]
        now = (ospeed, 2 if cflag & termios.CSTOPB else 1)
        self.heard_at.add(now)
        if now == self._tuned:
            super()._on_request(near, far)
        else:
            os.read(near, 4096)
            self.send(self._wrong)

    def _on_answer(self, far: int) -> None:
        self.send(os.read(far, 4096))


def on_line(line: TunedLine, kind: str, units: tuple[int, ...] = (), timeout_s: float = 0.4) -> list[Found]:
    async def ask() -> list[Found]:
        await line.plug()
        try:
            with ModbusUnits(kind, line.far):
                return [each async for each in scan(Where(ports=(str(line.port),), units=units, timeout_s=timeout_s))]
        finally:
            line.unplug()

    return asyncio.run(ask())


def test_the_speed_of_a_line_is_found(tmp_path: Path) -> None:
    noise = b"\x02\x03\x02\x00\x07\x11\x22\xff\x00"  # as a device at another speed looks: not one good frame in it
    line = TunedLine(tmp_path / "line", 19200, wrong=noise)
    devices = on_line(line, "rtu", units=(2, 3))
    assert [device.section["unit_id"] for device in devices] == [2, 3]
    assert all(device.where == f"rtu://{line.port}" for device in devices)
    assert all("RTU 19200" in device.what for device in devices)
    settings = ModbusSettings.model_validate(dict(devices[0].section))
    assert (settings.serial.baud, settings.serial.stop_bits) == (19200, 1)
    assert (termios.B9600, 1) in line.heard_at  # tried before, and not believed
    assert (termios.B115200, 1) not in line.heard_at  # stopped at the first that answers


def test_two_stop_bits_come_after_the_likelier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BAUDS", (9600,))  # the others only take time
    line = TunedLine(tmp_path / "line", 9600, stop_bits=2)
    devices = on_line(line, "rtu", units=(1,))
    assert [device.what.rpartition("; ")[2] for device in devices] == ["RTU 9600 8N2"]
    assert (termios.B9600, 1) in line.heard_at


def test_the_likely_settings_come_first_and_none_twice() -> None:
    every = [str(one) for one in bench.tries()]
    assert every[:4] == ["RTU 9600 8E1", "RTU 9600 8N1", "RTU 19200 8E1", "RTU 19200 8N1"]
    assert len(every) == len(set(every)) == len(BAUDS) * 8


def test_ascii_is_found_after_rtu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BAUDS", (19200,))
    line = TunedLine(tmp_path / "line", 19200)
    (device,) = on_line(line, "ascii", units=(1,))
    assert device.where == f"ascii://{line.port}"
    assert device.section["serial"] == {"baud": 19200, "data_bits": 7, "parity": "even", "stop_bits": 1}


def test_a_line_with_nobody_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BAUDS", (9600,))

    async def ask(wrong: bytes, timeout_s: float) -> DeviceUnavailable:
        line = TunedLine(tmp_path / "line", 50, wrong=wrong)
        await line.plug()
        try:
            with pytest.raises(DeviceUnavailable) as error:
                _ = [each async for each in scan(Where(ports=(str(line.port),), units=(7,), timeout_s=timeout_s))]
            return error.value
        finally:
            line.unplug()

    silent = asyncio.run(ask(b"", 0.01))
    assert "no answer in 8 tries: unit ids 7; 9600 baud; RTU 8E1/8N1/8O1/8N2; ASCII" in str(silent)
    assert "A and B swapped" in silent.hint
    noisy = asyncio.run(ask(b"\x00\xff", 0.1))
    assert "characters came that are no Modbus (RTU 9600 8E1" in noisy.hint


def test_a_port_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="does not exist"):
        found(Where(ports=(str(tmp_path / "nothing"),)))
    with pytest.raises(DeviceRefused, match="is no serial port"):
        found(Where(ports=("COM3",)))
