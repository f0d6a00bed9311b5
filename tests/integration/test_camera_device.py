"""The camera driver against a real MJPEG camera in another process."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable
from edge_agent.model import Sample, Scan, ScanStatus
from support.camera_rig import (
    FACETS,
    NOTHING,
    ONE,
    TWO,
    driver_of,
    nothing_comes,
    one,
    opened,
    run,
    some,
    threads,
    until,
)
from support.mjpeg_camera import Camera
from support.pictures import png_of


@pytest.fixture
def camera(tmp_path: Path) -> Any:
    folder = tmp_path / "camera"
    folder.mkdir()
    camera = Camera(folder)
    camera.show(NOTHING)
    yield camera
    camera.stop()


def test_a_code_is_a_scan_when_it_arrives_and_again_after_it_was_away(camera: Camera, tmp_path: Path) -> None:
    async def test() -> None:
        photos = {"folder": str(tmp_path / "photos"), "min_free": "0B"}
        async with opened(camera.start(), look_every="0s", photos=photos) as driver:
            await nothing_comes(driver)
            camera.show(ONE)
            scan = await one(driver)
            assert (scan.raw, scan.status, scan.symbology) == (b"SN1", ScanStatus.READ, "]d1")
            photo = tmp_path / "photos" / scan.photo[:2] / f"{scan.photo}.jpg"
            assert hashlib.sha256(photo.read_bytes()).hexdigest() == scan.photo
            await nothing_comes(driver)
            camera.show(TWO)
            assert (await one(driver)).raw == b"SN2"
            camera.show(NOTHING)
            await nothing_comes(driver)
            camera.show(ONE)
            assert (await one(driver)).raw == b"SN1"

    run(test)


def test_a_group_is_of_one_new_picture(camera: Camera, tmp_path: Path) -> None:
    async def test() -> None:
        photos = {"folder": str(tmp_path / "photos"), "min_free": "0B", "format": "png"}
        groups = {"inspection": {"on_trigger": True, "tags": {name: {} for name in FACETS}}}
        async with opened(camera.start(), groups=groups, photos=photos) as driver:
            (sample,) = await driver.read("inspection")
            assert isinstance(sample, Sample)
            assert sample.values[1:5] == (None, [], None, 0)
            assert sample.status == {1: "no code read", 3: "no code read"}
            camera.show(ONE)
            await one(driver)
            reading = asyncio.ensure_future(driver.read())  # a group is read beside it
            (sample,) = await driver.read("inspection")
            assert isinstance(sample, Sample)
            photo, code, codes, symbology, count, brightness, sharpness = sample.values
            assert (code, codes, symbology, count, sample.status) == ("SN1", ["SN1"], "]d1", 1, None)
            assert isinstance(brightness, float) and 20 < brightness < 80
            assert isinstance(sharpness, float) and sharpness > 0
            file = tmp_path / "photos" / str(photo)[:2] / f"{photo}.png"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == photo
            camera.show(TWO)
            assert [scan.raw for scan in await reading if isinstance(scan, Scan)] == [b"SN2"]
            (sample,) = await driver.read("inspection")
            assert isinstance(sample, Sample)
            assert (sample.values[1], (sample.status or {})[1]) == (None, "2 codes")

    run(test)


def test_each_trigger_has_one_result(camera: Camera) -> None:
    async def test() -> None:
        tags = {"trigger": {"write": True}}
        camera.show(ONE)
        async with opened(camera.start(), mode="triggered", retry=2, expect=1, tags=tags) as driver:
            await nothing_comes(driver)
            for shown, status, raw in ((ONE, "read", b"SN1"), (ONE, "read", b"SN1"), (NOTHING, "no_read", b"")):
                camera.show(shown)
                await asyncio.sleep(0.2)  # what is on its way through the network is the picture before
                await driver.write("trigger", value=True)
                scan = await one(driver)
                assert (scan.status.value, scan.raw) == (status, raw)
            camera.show(TWO)
            await asyncio.sleep(0.3)
            await driver.write("trigger", value=True)
            scan = await one(driver)
            assert (scan.status, sorted(scan.raw.split())) == (ScanStatus.NO_READ, [b"SN1", b"SN2"])
            with pytest.raises(DeviceRefused, match="wait already"):
                for _ in range(100):
                    await driver.write("trigger", value=True)

    run(test)


def test_more_triggers_than_can_be_served_have_a_result_each_and_cost_no_camera(camera: Camera) -> None:
    async def test() -> None:
        tags = {"trigger": {"write": True}}
        groups = {"seen": {"tags": {"count": {}}}}
        its = {"mode": "triggered", "timeout": "500ms", "formats": ["datamatrix", "code128"]}
        async with opened(camera.start(), tags=tags, groups=groups, **its) as driver:
            for _ in range(8):
                await driver.write("trigger", value=True)
            scans: list[Scan] = []
            samples: list[Sample] = []
            while len(scans) < 8 or len(samples) < 8:
                for each in await driver.read():
                    scans.append(each) if isinstance(each, Scan) else samples.append(each)
            assert {scan.status for scan in scans} == {ScanStatus.NO_READ}
            assert next(sample.values for sample in samples if sample.status is None) == (0,)
            late = samples[-1].status or {}
            assert "too many were asked for" in late[0]
            camera.show(ONE)
            await asyncio.sleep(0.3)
            await driver.write("trigger", value=True)
            assert [each.raw for each in await some(driver, 1)] == [b"SN1"]

    run(test)


def test_a_stream_that_hangs_is_lost_in_its_time_and_its_threads_end(camera: Camera) -> None:
    async def test() -> None:
        camera.show(ONE)
        async with opened(camera.start(), timeout="500ms") as driver:
            await one(driver)
            camera.hang()
            with pytest.raises(DeviceLost) as lost:
                await driver.read()
            assert lost.value.hint
            await driver.close()
            await until(lambda: not threads())

    run(test)


def test_a_stream_that_dies_is_lost_and_found_again(camera: Camera) -> None:
    async def test() -> None:
        camera.show(ONE)
        url = camera.start()
        async with opened(url) as driver:
            await one(driver)
            camera.stop()
            with pytest.raises(DeviceLost):
                await driver.read()
            with pytest.raises(DeviceUnavailable) as unavailable:
                await driver.open()
            assert unavailable.value.hint
        async with opened(camera.start()) as driver:
            assert (await one(driver)).raw == b"SN1"

    run(test)


def test_an_open_that_hangs_is_bounded_and_closed_at_once() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            source = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live"
            driver = driver_of(source, timeout="300ms")
            with pytest.raises(DeviceUnavailable):
                await driver.open()
            opening = asyncio.ensure_future(driver_of(source, timeout="900ms").open())
            await asyncio.sleep(0.1)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await driver.close()
            await until(lambda: not threads())

    run(test)


def test_the_login_is_sent_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password = "p/w@:#%"
    camera = Camera(tmp_path, login=f"joe:{password}")
    camera.show(ONE)
    monkeypatch.setenv("CAMERA_PASSWORD", password)

    async def test() -> None:
        url = camera.start()
        async with opened(url, user="joe", password={"env": "CAMERA_PASSWORD"}) as driver:
            assert (await one(driver)).raw == b"SN1"
        monkeypatch.setenv("CAMERA_PASSWORD", "wrong")
        with pytest.raises(DeviceUnavailable) as refused:
            await driver_of(url, user="joe", password={"env": "CAMERA_PASSWORD"}).open()
        assert "wrong" not in str(refused.value)
        monkeypatch.delenv("CAMERA_PASSWORD")
        with pytest.raises(DeviceRefused) as missing:
            await driver_of(url, user="joe", password={"env": "CAMERA_PASSWORD"}).open()
        assert "CAMERA_PASSWORD" in missing.value.hint

    try:
        run(test)
    finally:
        camera.stop()


def test_a_region_outside_the_picture_is_refused_with_its_size(camera: Camera) -> None:
    async def test() -> None:
        async with opened(camera.start(), region=[2000, 0, 100, 100]) as driver:
            with pytest.raises(DeviceRefused, match="1280x720"):
                await driver.read()

    run(test)


def test_opencv_and_ffmpeg_say_nothing(camera: Camera, tmp_path: Path) -> None:
    program = """
import asyncio, sys
from edge_agent.driver import load_driver
from edge_agent.errors import DriverError
spec = load_driver("camera")
async def main():
    for source in sys.argv[1:]:
        driver = spec.create("camera", spec.settings().model_validate(
            {"source": source, "formats": ["all"], "timeout": "500ms", "absent_after": "1s"}))
        try:
            await driver.open()
            async with asyncio.timeout(1):
                await driver.read()
        except (DriverError, TimeoutError):
            pass
        await driver.close()
asyncio.run(main())
"""
    camera.hang()
    (tmp_path / "bad.png").write_bytes(png_of("SN1")[:200])
    sources = [camera.start(), "http://127.0.0.1:9/x.mjpg", "/dev/null", str(tmp_path)]

    async def test() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *sources, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert (process.returncode, said) == (0, b"")

    run(test)
