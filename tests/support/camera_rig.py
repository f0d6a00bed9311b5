"""A camera driver under test, and what to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.driver import load_driver
from edge_agent.model import Scan
from edge_agent_drivers.camera.driver import CameraDriver
from support.pictures import Label, jpeg_of, scene

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
