"""`hours left` is true: the room it counts on at half time is what still goes in before collecting has to wait.

Hours are bytes left over bytes an hour. The rate is the machine's; what can be wrong is the bytes left, so the test
compares records: predicted from them at half time, and those that really went in until the buffer was held.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_agent import clock
from edge_agent.buffer import Buffer, RouteFilter, upkeep
from edge_agent.buffer import files as files_of
from edge_agent.model import Kind
from support.buffer_rig import asynchronous, closing, opened, opening, preamble, sample

MB = 10**6
CAP = 60 * MB  # the write-ahead log, some megabytes, counts on the disk as well
FILTER = RouteFilter(frozenset(Kind))


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "synchronised", lambda: True)
    monkeypatch.setattr(upkeep, "TICK_S", 0.05)


async def one_cycle(buffer: Buffer, number: int) -> int:
    """A unit's cycle of 20 samples, committed: none of it may be given up. Returns the last seq."""
    records, cycle, _ = opening(buffer, f"SN{number:06}")
    first = buffer.append(records) + 1
    last = buffer.append([sample([number, True, "x" * 6000], cycle) for _ in range(20)])
    last = buffer.append([closing(cycle, {"press.result": [[first, last]]})])
    await buffer.committed(last)
    return last


async def fill(buffer: Buffer, number: int, until: float) -> tuple[int, int]:
    """Until so much of the cap is used, or nothing goes in any more; (next number, records that went in)."""
    begun = buffer.next_seq
    while buffer.upkeep.used() < until * CAP:
        async with asyncio.timeout(20):
            await buffer.room()
        try:
            async with asyncio.timeout(1.5):
                await one_cycle(buffer, number)
        except TimeoutError:
            break
        number += 1
        await asyncio.sleep(0.001)
    return number, buffer.writer.durable_seq + 1 - begun


@pytest.mark.long
@pytest.mark.parametrize("limited_by", ["max_size", "min_free"])
@asynchronous
async def test_what_is_said_at_half_time_comes_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limited_by: str
) -> None:
    async with opened(tmp_path, max_size="64MiB") as buffer:
        object.__setattr__(buffer.settings, "max_size", CAP)  # smaller than the config lets it be: a test has no hours
        if limited_by == "min_free":  # a disk on which only CAP is left for us, above the floor
            object.__setattr__(buffer.settings, "max_size", 10**12)
            floor = buffer.settings.min_free
            monkeypatch.setattr(files_of.Files, "free", lambda files: floor + CAP - files.size())
        buffer.append(preamble())
        buffer.lanes("mes", "oldest", FILTER)
        maintaining = asyncio.create_task(buffer.maintain())
        number, _ = await fill(buffer, 0, 0.2)
        used = buffer.upkeep.used()
        number, done = await fill(buffer, number, 0.5)
        bytes_a_record = (buffer.upkeep.used() - used) / done
        undelivered, room = buffer.upkeep.undelivered()
        assert buffer.stats()["limit_bytes"] == pytest.approx(room, rel=0.05)
        predicted = (room - undelivered) / bytes_a_record
        _, more = await fill(buffer, number, 9.0)
        assert buffer.writer.held is not None, "the buffer is full in the end"
        assert predicted == pytest.approx(more, rel=0.25)
        undelivered, room = buffer.upkeep.undelivered()
        assert room - undelivered < 0.1 * room
        maintaining.cancel()
        buffer.writer.held = None
