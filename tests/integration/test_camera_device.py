"""The camera driver against a real MJPEG camera in another process, and a folder that pictures are dropped into."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.driver import load_driver
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Sample, Scan, ScanStatus
from edge_agent_drivers.camera.driver import CameraDriver
from support.mjpeg_camera import Camera
from support.pictures import Label, jpeg_of, png_of, scene

SOON_S = 20.0
NOTHING = jpeg_of(scene())
ONE = jpeg_of(scene(Label("SN1")))
TWO = jpeg_of(scene(Label("SN1"), Label("SN2", at=(700, 300))))
FACETS = ("photo", "code", "codes", "symbology", "count", "brightness", "sharpness")


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(3 * SOON_S):
            await test()

    asyncio.run(main())


def driver_of(source: str, **more: Any) -> CameraDriver:
    spec = load_driver("camera")
    keys = {"source": source, "formats": ["datamatrix"], "absent_after": "300ms", "timeout": "2s", **more}
    driver = spec.create("camera", spec.settings().model_validate(keys))
    assert isinstance(driver, CameraDriver)
    return driver


@asynccontextmanager
async def opened(source: str, **more: Any) -> AsyncIterator[CameraDriver]:
    driver = driver_of(source, **more)
    try:
        await driver.open()
        yield driver
    finally:
        await driver.close()


@pytest.fixture
def camera(tmp_path: Path) -> Any:
    folder = tmp_path / "camera"
    folder.mkdir()
    camera = Camera(folder)
    camera.show(NOTHING)
    yield camera
    camera.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


async def one(driver: CameraDriver) -> Scan:
    async with asyncio.timeout(SOON_S):
        (scan,) = await driver.read()
    assert isinstance(scan, Scan)
    return scan


async def some(driver: CameraDriver, count: int) -> list[Scan]:
    scans: list[Scan] = []
    async with asyncio.timeout(SOON_S):
        while len(scans) < count:
            scans += [each for each in await driver.read() if isinstance(each, Scan)]
    return scans


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for happens in a thread, or on the disk
        await asyncio.sleep(0.01)


def pictures(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


async def nothing_comes(driver: CameraDriver) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await driver.read()


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.endswith("-camera")]


# --- a live camera ------------------------------------------------------------------------------------------------


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


# --- a folder -----------------------------------------------------------------------------------------------------


def test_each_new_picture_is_a_result_in_its_order(folder: Path) -> None:
    async def test() -> None:
        (folder / "before.png").write_bytes(png_of("OLD"))
        async with opened(str(folder)) as driver:
            for name, data in (("a.jpg", ONE), ("b.png", png_of("SN3")), ("c.JPG", NOTHING), ("d.txt", b"x")):
                (folder / name).write_bytes(data)
                os.utime(folder / name, ns=(0, 10**9 * ord(name[0])))
            scans = await some(driver, 3)
            assert [(scan.raw, scan.status.value) for scan in scans] == [
                (b"SN1", "read"), (b"SN3", "read"), (b"", "no_read"),
            ]  # fmt: skip
            await nothing_comes(driver)
            (folder / "a.jpg").write_bytes(TWO)  # written again under its old name
            assert {scan.raw for scan in await some(driver, 2)} == {b"SN1", b"SN2"}
            assert pictures(folder) == ["b.png", "before.png"]

    run(test)


@pytest.mark.parametrize("after", ["move", "delete"])
def test_what_was_read_is_cleared_and_what_is_unusable_is_kept(folder: Path, after: str) -> None:
    async def test() -> None:
        (folder / "1.png").write_bytes(png_of("SN1"))
        its = {"after": after, "existing": "read", "settle": "200ms", "max_file": "10KB"}
        async with opened(str(folder), folder=its) as driver:
            assert (await one(driver)).raw == b"SN1"
            (folder / "2.png").write_bytes(png_of("SN1")[:-30])
            with pytest.raises(ReadingRejected, match="half a picture"):
                await driver.read()
            (folder / "3.png").write_bytes(png_of("SN1") + bytes(20_000))
            with pytest.raises(ReadingRejected, match="larger"):
                await driver.read()
            (folder / "4.png").write_bytes(png_of("SN4"))
            assert (await one(driver)).raw == b"SN4"
            await until(lambda: "4.png" not in pictures(folder))
            done = ["done/1.png", "done/4.png"] if after == "move" else []
            assert pictures(folder) == [*done, "rejected/2.png", "rejected/3.png"]

    run(test)


def test_a_photo_of_a_folder_is_the_file_as_it_came(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        photos = {"folder": str(tmp_path / "photos"), "min_free": "0B"}
        async with opened(str(folder), photos=photos) as driver:
            (folder / "1.png").write_bytes(png_of("SN1"))
            scan = await one(driver)
            assert scan.photo == hashlib.sha256(png_of("SN1")).hexdigest()
            assert (tmp_path / "photos" / scan.photo[:2] / f"{scan.photo}.png").read_bytes() == png_of("SN1")

    run(test)


def test_without_room_for_photos_the_scan_comes_and_the_sample_says_why(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        photos = {"folder": str(tmp_path / "photos"), "min_free": "1000TB"}
        groups = {"seen": {"tags": {"photo": {}, "code": {}}}}
        async with opened(str(folder), photos=photos, groups=groups) as driver:
            (folder / "1.png").write_bytes(png_of("SN1"))
            scan, sample = await driver.read()
            assert isinstance(scan, Scan)
            assert isinstance(sample, Sample)
            assert (scan.raw, scan.photo, sample.values) == (b"SN1", "", (None, "SN1"))
            assert "photo not stored: less than photos.min_free" in (sample.status or {})[0]

    run(test)


def test_a_group_that_is_asked_for_gets_the_next_picture_or_says_that_none_came(folder: Path) -> None:
    async def test() -> None:
        groups = {"asked": {"on_trigger": True, "tags": {"code": {}, "count": {}}}}
        async with opened(str(folder), groups=groups, timeout="1s") as driver:
            asking = asyncio.ensure_future(driver.read("asked"))
            await asyncio.sleep(0.1)
            (folder / "1.png").write_bytes(png_of("SN1"))
            (sample,) = await asking
            assert isinstance(sample, Sample)
            assert sample.values == ("SN1", 1)
            assert (await one(driver)).raw == b"SN1"
            (sample,) = await driver.read("asked")
            assert isinstance(sample, Sample)
            assert sample.values == (None, None)
            assert "no new picture within 1 s" in (sample.status or {})[0]

    run(test)


def test_pictures_wait_in_the_folder_while_results_are_not_taken(folder: Path) -> None:
    async def test() -> None:
        async with opened(str(folder), folder={"after": "delete"}) as driver:
            for number in range(150):
                (folder / f"{number:03}.png").write_bytes(png_of(f"SN{number % 3}"))
                os.utime(folder / f"{number:03}.png", ns=(0, number))
            await asyncio.sleep(0.5)
            assert len(pictures(folder)) >= 50
            raws = [scan.raw for scan in await some(driver, 150)]
            assert raws == [f"SN{number % 3}".encode() for number in range(150)]

    run(test)


@pytest.mark.parametrize("kind", ["file", "missing"])
def test_a_source_that_is_no_folder_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.touch()

    async def test() -> None:
        with pytest.raises(DeviceRefused if kind == "file" else DeviceUnavailable) as failed:
            await driver_of(str(path)).open()
        assert failed.value.hint

    run(test)
