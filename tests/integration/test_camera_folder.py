"""The camera driver and a folder that pictures are dropped into."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Sample, Scan, ScanStatus
from support.camera_rig import (
    NOTHING,
    ONE,
    TWO,
    driver_of,
    nothing_comes,
    one,
    opened,
    pictures,
    run,
    some,
    threads,
    until,
)
from support.pictures import png_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


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


def test_a_picture_from_before_the_trigger_is_not_its_answer_however_long_it_waited(folder: Path) -> None:
    async def test() -> None:
        groups = {"asked": {"on_trigger": True, "tags": {"code": {}}}}
        slow = {"formats": ["datamatrix", "code128"], "timeout": "10s", "groups": groups}  # a second try for each
        async with opened(str(folder), folder={"after": "delete"}, **slow) as driver:
            for number in range(4):
                (folder / f"{number}.jpg").write_bytes(NOTHING)
            (folder / "5.png").write_bytes(png_of("BEFORE"))
            assert (await one(driver)).status is ScanStatus.NO_READ  # the first is done: all were seen
            asking = asyncio.ensure_future(driver.read("asked"))
            await some(driver, 4)
            assert not asking.done()
            (folder / "6.png").write_bytes(png_of("AFTER"))
            (sample,) = await asking
            assert isinstance(sample, Sample)
            assert sample.values == ("AFTER",)

    run(test)


def test_names_that_are_no_text_and_links_that_lead_nowhere_cost_the_others_nothing(folder: Path) -> None:
    async def test() -> None:
        (folder / "loop.png").symlink_to("loop.png")
        async with opened(str(folder), folder={"settle": "200ms"}) as driver:
            (folder / os.fsdecode(b"\xff\n\x1b[31m.png")).write_bytes(b"x")
            with pytest.raises(ReadingRejected) as rejected:
                await driver.read()
            assert str(rejected.value.args[0]).startswith("camera: \\udcff\\n\\x1b[31m.png is half")
            (folder / "1.png").write_bytes(png_of("SN1"))
            assert (await one(driver)).raw == b"SN1"

    run(test)


def test_a_backlog_of_any_length_is_cleared_and_pictures_that_stay_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent_drivers.camera.folder.MAX_FILES", 5)
    for number in range(25):
        (folder / f"{number:03}.png").write_bytes(png_of(f"SN{number:03}"))
        os.utime(folder / f"{number:03}.png", ns=(0, number))

    async def test() -> None:
        async with opened(str(folder), folder={"after": "move", "existing": "read"}) as driver:
            raws = [scan.raw for scan in await some(driver, 25)]
            assert raws == [f"SN{number:03}".encode() for number in range(25)]
            (folder / "000.png").write_bytes(png_of("AGAIN"))  # a name that is in done/ already
            assert (await one(driver)).raw == b"AGAIN"
            await until(lambda: len(pictures(folder)) == 26 and not list(folder.glob("*.png")))
            assert (folder / "done" / "000.png").read_bytes() == png_of("SN000")
        for number in range(6):
            (folder / f"{number}.png").write_bytes(png_of("OLD"))
        for its in ({"after": "move"}, {"after": "leave"}):
            with pytest.raises(DeviceRefused, match="more than 5") as refused:
                await driver_of(str(folder), folder=its).open()
            assert "move away" in refused.value.hint

    run(test)


def test_a_picture_that_was_written_again_while_it_was_looked_at_is_not_cleared_unread(folder: Path) -> None:
    async def test() -> None:
        slow = {"formats": ["datamatrix", "code128"], "folder": {"after": "delete"}}
        async with opened(str(folder), **slow) as driver:
            (folder / "now.jpg").write_bytes(NOTHING)
            first = (folder / "now.jpg").stat()
            decode = driver._frames._decoder.codes  # type: ignore[union-attr]

            def overtaken(image: Any) -> Any:
                (folder / "now.jpg").write_bytes(ONE)
                return decode(image)

            driver._frames._decoder.codes = overtaken  # type: ignore[union-attr,method-assign]
            assert (await one(driver)).status is ScanStatus.NO_READ
            driver._frames._decoder.codes = decode  # type: ignore[union-attr,method-assign]
            assert first.st_size != (folder / "now.jpg").stat().st_size
            assert (await one(driver)).raw == b"SN1"

    run(test)


def test_a_folder_that_hangs_costs_one_thread_however_often_its_device_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        back = threading.Event()
        monkeypatch.setattr("edge_agent_drivers.camera.folder.Folder.open", lambda _: back.wait(60))
        monkeypatch.setattr("edge_agent_drivers.camera.driver.CLOSE_S", 0.05)
        first = driver_of(str(folder))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await first.open()
        await first.close()
        for _ in range(2):  # the collector makes a new driver for each try
            with pytest.raises(DeviceUnavailable, match="still hangs") as failed:
                await driver_of(str(folder)).open()
            assert str(folder) in failed.value.hint
        assert threads() == ["frames-camera"]
        back.set()
        monkeypatch.undo()
        await until(lambda: not threads())
        async with opened(str(folder)) as driver:
            (folder / "1.png").write_bytes(png_of("SN1"))
            assert (await one(driver)).raw == b"SN1"

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
