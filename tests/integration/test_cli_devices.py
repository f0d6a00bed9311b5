"""`devices scan` and `probe` as a technician types them, against real Modbus servers."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import edge_agent.driver
import edge_agent.model
from edge_agent import cli, i18n
from edge_agent.bench import Bench, Found, Where
from edge_agent.cli import ExitCode
from edge_agent.config import load
from edge_agent.driver import DriverSpec, load_driver
from edge_agent.errors import DeviceUnavailable
from support import modbus_subnet, namespaces
from support.modbus_plc import HOLE, ModbusPlc

CONFIG = """\
agent: {id: pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
devices:
  press:          # the big one
    driver: modbus
    connection: tcp://127.0.0.1:PORT
    groups:
      state: {poll: 100ms, tags: {count: {address: "holding:1"}}}
"""


@pytest.fixture(scope="module")
def plc() -> Iterator[ModbusPlc]:
    with ModbusPlc() as plc:
        yield plc


@pytest.fixture
def config(plc: ModbusPlc, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("DATA", str(tmp_path)).replace("PORT", str(plc.port)))
    return path


class Told:
    """What one invocation said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.out)
        return facts


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def invoke(*arguments: str, lang: str = "en") -> Told:
        try:
            with pytest.raises(SystemExit) as end:
                cli.main(["--lang", lang, *arguments])
        finally:
            i18n.use("en")
        said = capsys.readouterr()
        return Told(int(end.value.code or 0), said.out, said.err)

    return invoke


# --- devices scan ------------------------------------------------------------------------------------------------


def test_a_host_is_found_and_numbered(run: Any, plc: ModbusPlc) -> None:
    at = f"127.0.0.1:{plc.port}"
    shown = run("devices", "scan", "--driver", "modbus", "--host", at, "--timeout", "2")
    assert shown.code == ExitCode.OK
    assert f"1  modbus  tcp://{at}" in shown.out
    assert "unit_id: 1" in shown.out
    facts = run("devices", "scan", "--driver", "modbus", "--host", at, "--timeout", "2", "--json").json
    (only,) = facts["found"]
    assert (only["number"], only["where"]) == (1, f"tcp://{at}")
    assert facts["problems"] == []


@pytest.mark.skipif(not namespaces.permitted(), reason="network namespaces cannot be made here")
def test_the_hosts_of_a_subnet_are_found_in_a_network_of_its_own() -> None:
    program = [sys.executable, "-m", "edge_agent", "devices", "scan", "--driver", "modbus", "--timeout", "1"]
    command = [sys.executable, modbus_subnet.__file__, *program, "--subnet", modbus_subnet.SUBNET, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(done.stdout)["found"]
    assert [one["where"] for one in found] == [f"tcp://{host}:502" for host in modbus_subnet.HOSTS]
    assert all("ACME PX 20" in one["what"] for one in found)
    assert "asking 14 addresses" in done.stderr


def test_what_was_found_goes_into_the_file(run: Any, plc: ModbusPlc, config: Path) -> None:
    before = config.read_text()
    scan = ("--config", str(config), "devices", "scan", "--driver", "modbus", "--host", f"127.0.0.1:{plc.port}")
    shown = run(*scan, "--timeout", "2", "--add", "1=oven")
    assert shown.code == ExitCode.OK, shown.err
    assert "added to the configuration as oven" in shown.out
    assert config.read_text().startswith(before)
    assert load(config).devices["oven"].spec.name == "modbus"
    again = run(*scan, "--timeout", "2", "--add", "1=oven")
    assert again.code == ExitCode.CONFIG
    assert "stands in the file already" in again.err
    assert run(*scan, "--timeout", "2", "--add", "7=other").code == ExitCode.USAGE


def test_a_device_is_added_by_its_address(run: Any, plc: ModbusPlc, config: Path) -> None:
    """Its number may be another's in the scan that adds it."""
    at = f"tcp://127.0.0.1:{plc.port}"
    scan = ("--config", str(config), "devices", "scan", "--driver", "modbus", "--host", at[6:], "--timeout", "2")
    assert f"--add {at}=NAME" in run(*scan).out
    shown = run(*scan, "--add", f"{at}=oven")
    assert shown.code == ExitCode.OK, shown.err
    assert "oven: {driver: modbus" in shown.out
    assert "oven" in load(config).devices
    absent = run(*scan, "--add", "tcp://127.0.0.2:502=other")
    assert (absent.code, "has this address or number" in absent.err) == (ExitCode.USAGE, True)


def test_an_address_of_several_devices_adds_none(run: Any, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scan(where: Where) -> AsyncIterator[Found]:
        for unit_id in (1, 2):
            section = {"driver": "modbus", "connection": "tcp://127.0.0.1", "unit_id": unit_id}
            yield Found("modbus", "tcp://127.0.0.1:502", f"unit {unit_id}", section)

    monkeypatch.setattr(edge_agent.driver, "load_driver", lambda name: spec_with(scan))
    before = config.read_text()
    scanning = ("--config", str(config), "devices", "scan", "--driver", "modbus", "--host", "127.0.0.1")
    told = run(*scanning, "--add", "tcp://127.0.0.1:502=oven")
    assert (told.code, "2 devices have this address" in told.err) == (ExitCode.USAGE, True)
    assert config.read_text() == before
    assert "--add 1=NAME" in run(*scanning).out
    monkeypatch.undo()
    assert load(config).devices.keys() == {"press"}


def test_what_is_plugged_in_is_no_answer_of_a_host(run: Any, plc: ModbusPlc, monkeypatch: pytest.MonkeyPatch) -> None:
    async def listing(where: Where) -> AsyncIterator[Found]:
        yield Found("serial", "/dev/ttyS0", "serial port of this PC", {})

    lists = replace(load_driver("modbus"), bench=lambda: Bench(scan=listing, looks_at=("plugged",)))
    real = load_driver("modbus")
    monkeypatch.setattr(edge_agent.driver, "load_driver", lambda name: real if name == "modbus" else lists)
    monkeypatch.setattr(edge_agent.driver, "driver_names", lambda: ["modbus", "scanner"])
    told = run("devices", "scan", "--host", "127.0.0.1:1")
    assert told.code == ExitCode.PROBLEM
    assert "127.0.0.1:1: nothing answered there" in told.err
    assert "scanner" not in told.err  # it asks nothing there, and does not say so
    assert "0 devices found" in told.out
    at = f"127.0.0.1:{plc.port}"
    told = run("devices", "scan", "--host", at, "--host", "127.0.0.1:1", "--subnet", "127.0.0.8/32", "--timeout", "2")
    assert told.code == ExitCode.OK
    assert [line for line in told.err.splitlines() if "nothing answered" in line] == [
        "127.0.0.8/32: nothing answered there", "127.0.0.1:1: nothing answered there"
    ]  # fmt: skip
    told = run("devices", "scan", "--driver", "scanner", "--host", at)
    assert (told.code, "this driver finds nothing there" in told.err) == (ExitCode.PROBLEM, True)
    assert "/dev/ttyS0" in run("devices", "scan").out


def test_the_file_is_missed_before_the_scan(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_agent.driver, "load_driver", lambda name: pytest.fail("asked"))
    config = tmp_path / "etc" / "config.yaml"
    told = run("--config", str(config), "devices", "scan", "--host", "127.0.0.1", "--add", "1=press")
    assert told.code == ExitCode.CONFIG
    assert f"sample.yaml {config}" in told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "8.8.8.8"],
        ["--host", "[2001:4860:4860::8888]:502"],
        ["--host", "127.0.0.1:port"],
        ["--subnet", "8.8.8.0/30"],
        ["--subnet", "10.0.0.0/8"],
        ["--subnet", "10.0.0.0/22", "--subnet", "10.0.4.0/24"],
        ["--subnet", "192.168.1"],
        ["--port", "COM3"],
        ["--unit", "1-300", "--host", "127.0.0.1"],
        ["--unit", "5-1", "--host", "127.0.0.1"],
        ["--unit", "x", "--host", "127.0.0.1"],
        ["--add", "press", "--host", "127.0.0.1"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    run: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_agent.driver, "load_driver", lambda name: pytest.fail("asked"))
    told = run("devices", "scan", *arguments)
    assert told.code == ExitCode.USAGE
    assert "→" in told.err


def spec_with(scan: Any) -> DriverSpec:
    return replace(load_driver("modbus"), bench=lambda: Bench(scan=scan))


def test_nothing_is_asked_that_was_not_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Where] = []

    async def scan(where: Where) -> AsyncIterator[Found]:
        asked.append(where)
        yield Found("modbus", "/dev/ttyUSB7", "plugged in", {"driver": "modbus"})

    monkeypatch.setattr(edge_agent.driver, "load_driver", lambda name: spec_with(scan))
    monkeypatch.setattr(edge_agent.driver, "driver_names", lambda: ["modbus"])
    assert run("devices", "scan").code == ExitCode.OK
    assert (asked[0].hosts, asked[0].ports) == ((), ())
    told = run(
        "devices", "scan", "--subnet", "192.168.7.0/30", "--port", "/dev/a", "--port", "/dev/b", "--unit", "3,1-2"
    )
    assert told.code == ExitCode.OK
    assert [(where.hosts, where.ports) for where in asked[1:]] == [
        (("192.168.7.1", "192.168.7.2"), ()), ((), ("/dev/a",)), ((), ("/dev/b",))
    ]  # fmt: skip
    assert {where.units for where in asked[1:]} == {(3, 1, 2)}
    assert told.out.count("modbus  /dev/ttyUSB7") == 1  # seen three times, and one device


def test_a_driver_that_fails_is_a_line_and_the_others_go_on(
    run: Any, plc: ModbusPlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(where: Where) -> AsyncIterator[Found]:
        yield Found("camera", "/dev/video0", "before it broke", {"driver": "camera"})
        raise DeviceUnavailable("camera", "the bus fell over", hint="plug it in again")

    def load(name: str) -> DriverSpec:
        if name == "opcua":
            raise ModuleNotFoundError("No module named 'asyncua'")
        return spec_with(broken) if name == "camera" else load_driver(name)

    monkeypatch.setattr(edge_agent.driver, "load_driver", load)
    monkeypatch.setattr(edge_agent.driver, "driver_names", lambda: ["camera", "modbus", "opcua"])
    told = run("devices", "scan", "--host", f"127.0.0.1:{plc.port}", "--timeout", "2", "--json")
    assert told.code == ExitCode.OK
    assert [one["driver"] for one in told.json["found"]] == ["camera", "modbus"]
    camera, opcua = told.json["problems"]
    assert "plug it in again" in camera["what"]
    assert "No module named 'asyncua'" in opcua["what"]


def test_nothing_found_is_bad_news(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run("devices", "scan", "--driver", "modbus", "--host", "127.0.0.1:1")
    assert told.code == ExitCode.PROBLEM
    assert "refuses the connection" in told.err
    assert "0 devices found" in told.out


# --- probe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def temperature(plc: ModbusPlc) -> str:
    """The address of a float32, low word first, with the same times ten as an integer behind it."""
    from pymodbus.client import ModbusTcpClient

    high, low = struct.unpack(">2H", struct.pack(">f", 23.51))
    with ModbusTcpClient("127.0.0.1", port=plc.port) as client:
        assert not client.write_registers(200, [low, high, 235]).isError()
    return "40201"


def test_the_value_that_is_expected_is_pointed_at(run: Any, plc: ModbusPlc, temperature: str) -> None:
    told = run("probe", "modbus", f"127.0.0.1:{plc.port}", temperature, "--expect", "23.5", "--json")
    assert told.code == ExitCode.OK
    assert told.json["address"] == "holding:200"
    matches = told.json["matches"]
    assert (matches[0]["type"], matches[0]["order"], matches[0]["value"]) == ("float32", "CDAB", 23.51)
    shown = run("probe", "modbus", f"127.0.0.1:{plc.port}", temperature, "--expect", "23.5")
    assert "40201 is holding:200 here" in shown.out
    assert "reads as 23.5:" in shown.out
    nothing = run("probe", "modbus", f"127.0.0.1:{plc.port}", temperature, "--expect", "77777777")
    assert "nothing here reads as 77777777" in nothing.out


def test_a_scale_is_found_and_written_down(run: Any, plc: ModbusPlc, temperature: str, config: Path) -> None:
    told = run(
        "--config", str(config), "probe", "press", "202", "--type", "int16", "--expect", "23.5",
        "--add", "press.state.temp",
    )  # fmt: skip
    assert told.code == ExitCode.OK, told.err
    group = load(config).devices["press"].settings.groups["state"]  # type: ignore[attr-defined]
    assert (group.tags["temp"].address, group.tags["temp"].scale) == ("holding:202", 0.1)
    assert "# the big one" in config.read_text()


def test_a_new_device_is_written_with_its_first_tag(run: Any, plc: ModbusPlc, temperature: str, config: Path) -> None:
    probe = ("--config", str(config), "probe", "modbus", f"tcp://127.0.0.1:{plc.port}", temperature, "--unit", "1")
    told = run(*probe, "--type", "float32", "--order", "CDAB", "--add", "oven.zone.temp", "--poll", "500ms")
    assert told.code == ExitCode.OK, told.err
    oven = load(config).devices["oven"]
    assert oven.shape.groups["zone"].poll_s == 0.5
    tag = oven.settings.groups["zone"].tags["temp"]  # type: ignore[attr-defined]
    assert (tag.type, tag.order, tag.address) == ("float32", "CDAB", "holding:200")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["modbus", "100"], ExitCode.USAGE, "needs a connection and an address"),
        (["nobody", "100"], ExitCode.USAGE, "has no device"),
        (["press", "100", "--unit", "2"], ExitCode.USAGE, "stand in the configuration of press"),
        (["press", "100", "--add", "press.state.x"], ExitCode.USAGE, "--add needs one way"),
        (["press", "100", "--type", "float32", "--add", "press.state.x"], ExitCode.USAGE, "float32 ABCD, float32 CDAB"),
        (["press", "100", "--type", "int16", "--add", "state.x"], ExitCode.USAGE, "is not understood"),
        (["press", "100", "--type", "int16", "--add", "oven.state.x"], ExitCode.USAGE, "was read from press"),
        (["press", "100", "--type", "int16", "--add", "press.state.count"], ExitCode.CONFIG, "in the file already"),
        (["press", "100", "--type", "int7"], ExitCode.USAGE, "there are: int16 uint16"),
        (["press", "holding:40101"], ExitCode.PROBLEM, "40101 of a manual is holding:100 here"),
        (["press", "coil:x"], ExitCode.PROBLEM, "is no address"),
        (["press", str(HOLE.start + 4)], ExitCode.PROBLEM, "exception 2"),
        (["modbus", "tcp://127.0.0.1:1", "100"], ExitCode.PROBLEM, "connection refused"),
        (["modbus", "tcp://a b", "100"], ExitCode.USAGE, "connection"),
        (["modbus", "/dev/edge-agent-nothing", "100", "--format", "9E1"], ExitCode.USAGE, "is no format of a line"),
        (["modbus", "/dev/edge-agent-nothing", "1", "--baud", "19200", "--format", "8e1"], 1, "edge-agent-nothing"),
        (["simulated", "x", "100"], ExitCode.USAGE, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_says_what_to_type(run: Any, config: Path, arguments: list[str], code: int, said: str) -> None:
    before = config.read_text()
    told = run("--config", str(config), "probe", *arguments)
    assert told.code == code
    assert said in told.err
    assert "unexpected" not in told.err
    assert config.read_text() == before


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_table_fits_a_terminal_of_80_columns(run: Any, plc: ModbusPlc, lang: str) -> None:
    told = run("probe", "modbus", f"127.0.0.1:{plc.port}", str(HOLE.start - 2), "--expect", "499", lang=lang)
    table = [line for line in told.out.splitlines() if line.split(" ")[0] in edge_agent.model.scalar_names]
    assert len(table) > 20
    assert max(cell_len(line.rstrip()) for line in table) <= 80
    assert ("异常码 2" in told.out) == (lang == "zh")
