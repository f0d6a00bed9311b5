"""The clock is set, and the log says so; nothing is re-timed and nothing is delivered or deleted for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from edge_agent import clock
from edge_agent.binding import Binder
from edge_agent.binding.plan import Plan
from edge_agent.buffer import BufferSettings, RouteFilter, open_buffer
from edge_agent.clockwatch import ClockWatch
from edge_agent.line import Line
from edge_agent.model import Instant, Kind, Record

HOUR_NS = 3600 * 10**9


def later(now: Instant, seconds: int, step_ns: int = 0) -> Instant:
    """``seconds`` on, the wall clock having been set by ``step_ns`` meanwhile."""
    return Instant(now.at_ns + seconds * 10**9 + step_ns, now.mono_ns + seconds * 10**9)


async def records_of(folder: Path, *looks: tuple[Instant, bool]) -> list[tuple[int, dict[str, object]]]:
    """What the watch wrote for these looks at the clock, read back from the log."""
    buffer = open_buffer(folder, "test", BufferSettings.model_validate({"min_free": "1MiB", "ballast": "1MiB"}))
    line = Line(Binder(Plan((), {}, {}), buffer.log, "0" * 12, buffer.lookup, buffer.restored()), buffer)
    watch = ClockWatch(line)
    for now, synced in looks:
        watch.look(now, synced)
    await buffer.committed(buffer.next_seq - 1)
    kinds = RouteFilter(frozenset({Kind.CLOCK_OFFSET, Kind.FINDING}), None)
    (lane,) = buffer.lanes("mes", "oldest", kinds)
    reader = buffer.reader()
    rows = reader.rows(lane, 0, buffer.durable_seq, 100, 10**6)
    reader.close()
    await buffer.close()
    return [(row.kind, orjson.loads(row.body)) for row in rows]


@pytest.mark.parametrize("step_ns", [-HOUR_NS, HOUR_NS, -50 * 365 * 24 * HOUR_NS])
def test_a_step_is_recorded_once_with_its_size(tmp_path: Path, step_ns: int) -> None:
    now = clock.now()
    stepped = later(now, 1, step_ns)
    looks = ((later(now, 0), True), (stepped, False), (later(stepped, 1), False))
    offset, finding = asyncio.run(records_of(tmp_path, *looks))
    assert offset[0] == Kind.CLOCK_OFFSET
    assert abs(int(str(offset[1]["step_ns"])) - step_ns) < 10**6
    assert offset[1]["clock_synced"] is False
    assert finding[0] == Kind.FINDING
    assert finding[1]["code"] == "clock_step"


def test_a_clock_that_ntp_slews_is_no_finding(tmp_path: Path) -> None:
    now, looks = clock.now(), []
    for second in range(100):  # 500 ppm, the most that the kernel slews
        looks.append((later(now, second, second * 500_000), True))
    assert asyncio.run(records_of(tmp_path, *looks)) == []


def test_records_taken_before_and_after_a_step_keep_their_order_and_their_times(tmp_path: Path) -> None:
    async def main() -> list[tuple[int, int]]:
        buffer = open_buffer(tmp_path, "test", BufferSettings.model_validate({"min_free": "1MiB", "ballast": "1MiB"}))
        now = clock.now()
        times = [later(now, 0), later(now, 1), later(now, 2, -HOUR_NS), later(now, 3, -HOUR_NS)]
        for at in times:
            buffer.append([Record(Kind.AUDIT, "agent", at, {"who": "test", "action": "none", "reason": "none"})])
        await buffer.committed(buffer.next_seq - 1)
        (lane,) = buffer.lanes("mes", "oldest", RouteFilter(frozenset({Kind.AUDIT}), None))
        reader = buffer.reader()
        rows = reader.rows(lane, 0, buffer.durable_seq, 100, 10**6)
        reader.close()
        await buffer.close()
        assert [Instant(row.at_ns, row.mono_ns) for row in rows] == times
        return [(row.seq, row.at_ns) for row in rows]

    seqs = [seq for seq, _ in asyncio.run(main())]
    assert seqs == list(range(seqs[0], seqs[0] + 4))


def test_a_pc_that_was_suspended_has_watched_no_device_meanwhile(tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []

    async def main() -> None:
        buffer = open_buffer(tmp_path, "test", BufferSettings.model_validate({"min_free": "1MiB", "ballast": "1MiB"}))
        line = Line(Binder(Plan((), {}, {}), buffer.log, "0" * 12, buffer.lookup, buffer.restored()), buffer)
        watch = ClockWatch(line, ["press", "gate"])
        slept_ns, report = clock.slept_ns(), line.gap

        def gap(device: str, since: Instant, now: Instant, cause: str) -> int:
            heard.append((device, cause))
            return report(device, since, now, cause)

        line.gap = gap  # type: ignore[method-assign]
        watch.wake(clock.now(), slept_ns + 1000)
        assert not heard
        watch.wake(clock.now(), slept_ns + 30 * 10**9)
        watch.wake(clock.now(), slept_ns + 30 * 10**9)
        await buffer.close()

    asyncio.run(main())
    assert heard == [("press", "stall"), ("gate", "stall")]
