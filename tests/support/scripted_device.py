"""A device whose driver is scripted, and a collector at work on it with a real log and binder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock, collector
from edge_agent.binding import Binder
from edge_agent.binding.plan import Plan, StorePolicy
from edge_agent.buffer import Buffer, BufferSettings, open_buffer
from edge_agent.collector import Collector
from edge_agent.driver import Cadence, DriverSpec, Group, Settings, Shape, TagSettings
from edge_agent.errors import DriverError, ValueNotKept
from edge_agent.line import Line
from edge_agent.model import Sample, Scan, Tag, TagSet, Value

FAST, SLOW = (TagSet("plc", group, (Tag("x", "int64"),)) for group in ("fast", "slow"))
Say = Callable[["Scripted", str | None], Coroutine[Any, Any, Sequence[Sample | Scan]]]


def sample(tagset: TagSet, value: Value) -> Sample:
    now = clock.now()
    return Sample(tagset, now, now.mono_ns, (value,))


class Scripted:
    """A driver whose read is a function; notes every call."""

    def __init__(self, say: Say, opens: Iterator[Exception | None]) -> None:
        self.calls: list[str] = []
        self.written: list[tuple[str, Value, int]] = []
        self.buffer: Buffer | None = None
        self.gate = asyncio.Event()  # for ``say``
        self.refuses: dict[str, DriverError] = {}  # by tag
        self._say = say
        self._opens = opens

    async def open(self) -> None:
        self.calls.append("open")
        if (error := next(self._opens, None)) is not None:
            raise error

    async def read(self, group: str | None = None) -> Sequence[Sample | Scan]:
        self.calls.append(f"read {group}")
        return await self._say(self, group)

    async def write(self, tag: str, value: Value) -> None:
        assert self.buffer is not None
        if tag in self.refuses:
            raise self.refuses[tag]
        self.written.append((tag, value, self.buffer.durable_seq))
        if tag == "not kept":
            raise ValueNotKept("plc", "reads back another value")

    async def close(self) -> None:
        self.calls.append("close")


async def count_up(driver: Scripted, group: str | None) -> Sequence[Sample]:
    await asyncio.sleep(0.001)
    return [sample(FAST if group == "fast" else SLOW, len(driver.calls))]


@asynccontextmanager
async def running(
    folder: Path,
    say: Say = count_up,
    opens: Sequence[Exception | None] = (),
    polls: dict[str, float | None] | None = None,
    cadence: Cadence = Cadence.POLL,
) -> AsyncIterator[tuple[Collector, Scripted, Line]]:
    """A collector at work on a scripted device."""
    buffer = open_buffer(folder, "test", BufferSettings.model_validate({"min_free": "1MiB", "ballast": "1MiB"}))
    stores = {tagset.source: StorePolicy(tagset, True, False, (0,), (), None) for tagset in (FAST, SLOW)}
    binder = Binder(Plan((), stores, {}), buffer.log, "0" * 12, buffer.lookup, buffer.restored())
    line = Line(binder, buffer)
    line.start(clock.now())
    driver = Scripted(say, iter(opens))
    driver.buffer = buffer
    intervals = {"fast": 0.01, "slow": None} if polls is None else polls
    groups = {t.group: Group(t, intervals.get(t.group), {"x": TagSettings()}) for t in (FAST, SLOW)}
    spec = DriverSpec("scripted", cadence, lambda: Settings, lambda *_: Shape(groups), lambda *_: driver)
    item = Collector("plc", spec, None, Shape(groups), line)
    task = asyncio.create_task(item.run())
    try:
        yield item, driver, line
    finally:
        item.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await buffer.close()


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  what is awaited is in many objects, none of them an Event
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs of some milliseconds: their bounds are the subject, not their length. Import it to have it."""
    for name in ("RETRY_S", "REFUSED_RETRY_S", "ISOLATED_RETRY_S"):
        monkeypatch.setattr(collector, name, (0.01, 0.02))
