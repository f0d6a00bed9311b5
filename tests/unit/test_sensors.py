"""The sensors driver over files laid out as the kernel's: right units, found by name, doubts said."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.errors import DeviceLost, DeviceUnavailable
from edge_agent.model import Sample
from edge_agent_drivers.sensors.bench import found
from edge_agent_drivers.sensors.config import SensorsSettings, SensorTag, describe
from edge_agent_drivers.sensors.driver import SensorsDriver
from edge_agent_drivers.sensors.files import read_tag
from support.peers.sensors import chip

GOOD = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t={t}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    chip(tmp_path, "hwmon", 0, "nct6775", "isa-0290", {"temp1_input": "41500", "in0_input": "1024", "fan2_input": "0"})
    chip(tmp_path, "hwmon", 7, "lm75", "1-0048", {"temp1_input": "-8125"})
    chip(tmp_path, "hwmon", 2, "lm75", "1-0049", {"temp1_input": "20000", "temp1_fault": "1"})
    bme = {"in_temp_input": "23480", "in_humidityrelative_input": "45321", "in_pressure_input": "100.859968750"}
    chip(tmp_path, "iio", 0, "bme280", "1-0076", bme)
    adc = {"in_voltage0_raw": "1234", "in_voltage_scale": "0.805664062", "in_voltage1_raw": "10"}
    adc |= {"in_voltage1_scale": "2", "in_voltage1_offset": "-4"}
    chip(tmp_path, "iio", 1, "mcp3208", "spi0.0", adc)
    pyrometer = {"in_temp_ambient_raw": "14900", "in_temp_object_raw": "15000"}
    pyrometer |= {"in_temp_scale": "20", "in_temp_offset": "-13657.500000"}
    chip(tmp_path, "iio", 2, "mlx90614", "1-005a", pyrometer)
    motion = {"in_accel_x_raw": "-512", "in_accel_scale": "0.019", "in_proximity_raw": "77"}
    chip(tmp_path, "iio", 3, "imu", "spi1.0", motion)
    bus = tmp_path / "sys/bus/w1/devices/28-000005e2fdc3"
    bus.mkdir(parents=True)
    (bus / "w1_slave").write_text(GOOD.format(t=23125))
    return tmp_path


def value(root: Path, **tag: Any) -> tuple[Any, str]:
    return read_tag(root, SensorTag.model_validate(tag))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hwmon:nct6775/temp1", 41.5),
        ("hwmon:nct6775/in0", 1.024),
        ("hwmon:nct6775/fan2", 0.0),
        ("hwmon:lm75@1-0048/temp1", -8.125),
        ("iio:bme280/in_temp", 23.48),
        ("iio:bme280/in_humidityrelative", 45.321),
        ("iio:bme280/in_pressure", 100.85996875),
        ("iio:mcp3208/in_voltage0", 0.994189452508),  # 1234 * 0.805664062 mV
        ("iio:mcp3208/in_voltage1", 0.012),  # (10 - 4) * 2 mV
        ("iio:mlx90614/in_temp_ambient", 24.85),  # (14900 - 13657.5) * 20 m°C: a scale that all channels share
        ("iio:mlx90614/in_temp_object", 26.85),
        ("iio:imu/in_accel_x", -9.728),
        ("w1:28-000005e2fdc3", 23.125),
    ],
)
def test_a_channel_is_read_in_its_base_unit(root: Path, source: str, expected: float) -> None:
    assert value(root, source=source) == (expected, "")


def test_scale_and_offset_are_exact(root: Path) -> None:
    assert value(root, source="iio:bme280/in_pressure", scale=10, unit="hPa") == (1008.5996875, "")
    assert value(root, source="w1:28-000005e2fdc3", offset=-0.3) == (22.825, "")


def test_counts_without_a_scale_are_in_no_unit(root: Path) -> None:
    assert value(root, source="iio:imu/in_proximity") == (None, "the kernel gives no scale")


def test_what_the_sensor_doubts_is_no_value(root: Path) -> None:
    slave = root / "sys/bus/w1/devices/28-000005e2fdc3/w1_slave"
    slave.write_text(GOOD.format(t=85000))
    assert value(root, source="w1:28-000005e2fdc3") == (None, "power-on value")
    slave.write_text(GOOD.replace("YES", "NO").format(t=23125))
    assert value(root, source="w1:28-000005e2fdc3") == (None, "cannot be read: Bad message")
    assert value(root, source="hwmon:lm75@1-0049/temp1") == (None, "sensor fault")
    assert value(root, source="hwmon:nct6775/temp9") == (None, "not there")
    assert value(root, source="hwmon:lm75/temp1") == (None, "not there")  # two of that name: none is guessed


def test_files_of_any_kind(root: Path) -> None:
    (root / "one").write_text("1\n")
    (root / "words").write_text("läuft\n")
    assert value(root, source="file:/one", type="bool") == (True, "")
    assert value(root, source="file:/one", type="int64") == (1, "")
    assert value(root, source="file:/one", type="string") == ("1", "")
    assert value(root, source="file:/words") == (None, "not a number")
    assert value(root, source="file:/words", type="string") == ("läuft", "")
    (root / "bytes").write_bytes(b"\xff\xfe")
    assert value(root, source="file:/bytes", type="string") == (None, "not text")
    os.mkfifo(root / "pipe")  # nobody writes to it: it must not hang
    assert value(root, source="file:/pipe")[0] is None
    assert value(root, source="file:/sys") == (None, "cannot be read: Is a directory")


@given(content=st.binary(max_size=200), kind=st.sampled_from(["float64", "int64", "bool", "string"]))
def test_no_content_raises_or_gives_what_json_cannot_say(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "any").write_bytes(content)
    found, why = value(folder, source="file:/any", type=kind)
    assert (found is None) == bool(why)
    assert found is None or found == found


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ({"source": "lm75/temp1"}, "is no source; write hwmon:"),
        ({"source": "hwmon:lm75/temp1_input!"}, "is no source"),
        ({"source": "hwmon:lm75/temp1_input"}, "without _input"),
        ({"source": "hwmon:lm75/temp1", "unit": "K"}, "is in °C: write unit: °C"),
        ({"source": "hwmon:lm75/temp1", "type": "int64"}, "is a float64"),
        ({"source": "file:/x", "type": "string", "scale": 2.0}, "no scale"),
        ({"source": "file:/x", "write": True}, "only be read"),
        ({"source": "file:/x", "scale": 0.0}, "other than 0"),
    ],
)
def test_a_mistake_is_refused_with_what_to_write(tag: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        SensorTag.model_validate(tag)


def test_a_tag_has_the_unit_of_its_channel() -> None:
    tags = {"air": {"source": "hwmon:lm75/temp1"}, "p": {"source": "iio:b/in_pressure", "scale": 10.0, "unit": "hPa"}}
    settings = SensorsSettings.model_validate({"groups": {"all": {"poll": "1s", "tags": tags}}})
    assert [tag.unit for tag in describe("cabinet", settings).groups["all"].tagset.tags] == ["°C", "hPa"]


def driver_of(root: Path, *sources: str) -> SensorsDriver:
    tags = {f"t{number}": {"source": source} for number, source in enumerate(sources)}
    settings = SensorsSettings.model_validate({"root": str(root), "groups": {"all": {"poll": "1s", "tags": tags}}})
    return SensorsDriver("cabinet", settings)


def test_one_sensor_that_goes_costs_no_other_and_none_left_is_a_loss(root: Path) -> None:
    async def scenario() -> None:
        driver = driver_of(root, "hwmon:nct6775/temp1", "w1:28-000005e2fdc3")
        await driver.open()
        shutil.rmtree(root / "sys/bus/w1")
        (sample,) = await driver.read()
        assert isinstance(sample, Sample)
        assert (sample.values, sample.status) == ((41.5, None), {1: "not there"})
        shutil.rmtree(root / "sys/class/hwmon")
        with pytest.raises(DeviceLost, match="no sensor of all is there"):
            await driver.read()
        await driver.close()
        with pytest.raises(DeviceUnavailable) as absent:
            await driver.open()
        assert "there are: none" in absent.value.hint

    asyncio.run(scenario())


def test_a_sensor_that_hangs_costs_one_thread_however_often_its_device_is_made_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        back = threading.Event()
        monkeypatch.setattr("edge_agent_drivers.sensors.driver.read_tag", lambda *_: (back.wait(30), "not a number"))
        monkeypatch.setattr("edge_agent_drivers.sensors.driver.TIMEOUT_S", 0.05)
        for _ in range(3):  # the collector makes a new driver for each try
            driver = driver_of(root, "w1:28-000005e2fdc3")
            with pytest.raises(DeviceUnavailable):
                await driver.open()
            await driver.close()
        (hanging,) = [thread for thread in threading.enumerate() if thread.name.startswith("sensors")]
        assert hanging.daemon  # else the process could not end
        back.set()
        await asyncio.to_thread(hanging.join, 30)
        monkeypatch.undo()
        await driver.open()
        await driver.close()

    asyncio.run(main())


def test_a_chip_that_has_a_twin_is_asked_for_by_its_address(root: Path) -> None:
    async def scenario() -> None:
        driver = driver_of(root, "hwmon:lm75/temp1")
        with pytest.raises(DeviceUnavailable) as unsure:
            await driver.open()
        assert "lm75@1-0049" in unsure.value.hint
        assert "lm75@1-0048" in unsure.value.hint

    asyncio.run(scenario())


def test_what_is_found_on_the_bench_is_a_device_as_it_stands(root: Path) -> None:
    seen = list(found(root))
    assert {each.where for each in seen} == {
        "hwmon:nct6775", "hwmon:lm75@1-0048", "hwmon:lm75@1-0049", "iio:bme280", "iio:mcp3208", "w1",
        "iio:mlx90614", "iio:imu",
    }  # fmt: skip
    for each in seen:
        section = {**each.section, "root": str(root)}
        describe(each.name, SensorsSettings.model_validate(section))
