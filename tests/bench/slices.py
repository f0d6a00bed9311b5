"""How long each statement of retention, tidy, counting and upkeep holds the writer, on a large buffer.

    python tests/bench/slices.py /var/tmp/large --cycles 1000000

Fills a data_dir (kept, and used again when it is there), then attaches a route over all of it, counts, lets delivered
records go, gives up undelivered ones, tidies, drops a route, and prints p50, p99 and max by kind in milliseconds: by
the clock, and in CPU time of the writer's thread. Where the clock says more than the CPU the thread waited: for the
disk, or on a busy machine for a core. The promise is 10 ms. Commits are shown beside it, those apart that move the
write-ahead log into the database, and how long a drop waits for a route that reads.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from edge_agent import clock  # noqa: E402
from edge_agent.buffer import Buffer, BufferSettings, RouteFilter, open_buffer  # noqa: E402
from edge_agent.buffer.lanes import Lane  # noqa: E402
from edge_agent.model import Instant, Kind, Record  # noqa: E402
from edge_agent.routes.filling import SCAN_SEQS  # noqa: E402
from support.buffer_rig import ALL, PRESS, closing, opening, preamble  # noqa: E402

Timed = dict[str, list[tuple[float, float]]]
"""Kind -> (seconds by the clock, seconds of CPU) of each."""
SAMPLES = RouteFilter(frozenset({Kind.SAMPLE}))


@contextmanager
def timed(taken: list[tuple[float, float]]) -> Iterator[None]:
    began_s, cpu_s = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        taken.append((time.perf_counter() - began_s, time.thread_time() - cpu_s))


class TimedLock:
    """The lock between the routes' reading and a drop, with how long the writer waited for it."""

    def __init__(self, lock: Any, taken: list[tuple[float, float]], thread: str) -> None:
        self._lock, self._taken, self._thread = lock, taken, thread

    def __enter__(self) -> None:
        if threading.current_thread().name == self._thread:
            with timed(self._taken):
                self._lock.acquire()
        else:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def watch(buffer: Buffer, times: Timed) -> Callable[[str], None]:
    """Time every chore, drop and commit of this buffer, by the kind that is being measured."""
    kind, chore, append_drop, commit = ["?"], buffer.writer.chore, buffer.append_drop, buffer.writer._commit

    def wrapped(work: Callable[[sqlite3.Connection], Any]) -> Callable[[sqlite3.Connection], Any]:
        name = kind[0]

        def run(db: sqlite3.Connection) -> Any:
            with timed(times[name]):
                return work(db)

        return run

    def committing(*given: Any) -> None:
        before, taken = buffer.files.db.stat().st_mtime_ns, []
        with timed(taken):
            commit(*given)
        moved = buffer.files.db.stat().st_mtime_ns != before
        times["a commit that checkpoints" if moved else "a commit"] += taken

    buffer.writer.chore = lambda work, **more: chore(wrapped(work), **more)  # type: ignore[method-assign,assignment]
    buffer.append_drop = lambda record, drop: append_drop(record, wrapped(drop))  # type: ignore[method-assign,assignment]
    buffer.writer._commit = committing  # type: ignore[method-assign]
    buffer.passed.lock = TimedLock(buffer.passed.lock, times["a drop waits for a reader"], "buffer")  # type: ignore[assignment]
    return lambda name: kind.__setitem__(0, name)


async def fill(buffer: Buffer, cycles: int, samples: int, size: int) -> None:
    """Closed cycles with their samples, and as many samples of none."""
    buffer.append(preamble())
    at = Instant(time.time_ns() - 100 * 3600 * 10**9, time.monotonic_ns())
    body = {"tagset": PRESS.id, "took_us": 1, "values": ["x" * size, True, 0]}
    for number in range(cycles):
        records, cycle, _ = opening(buffer, f"SN{number}")
        first = buffer.append(
            [*records, *(Record(Kind.SAMPLE, PRESS.source, at, body, (cycle,)) for _ in range(samples))]
        )
        buffer.append([Record(Kind.SAMPLE, PRESS.source, at, body) for _ in range(samples)])
        last = buffer.append([closing(cycle, {PRESS.source: [[first - samples + 1, first]]})])
        if number % 100 == 0:
            await buffer.room()
        if number % 50_000 == 0:
            print(f"{number} cycles, {buffer.files.size() / 1e9:.2f} GB", file=sys.stderr, flush=True)
    await buffer.committed(last)


async def measure(data_dir: Path, cycles: int, samples: int, size: int) -> Timed:
    times: Timed = defaultdict(list)
    fresh = not (data_dir / "buffer.db").exists()
    buffer = open_buffer(
        data_dir, "bench", BufferSettings(keep="1h", keep_units="1d", min_free="1MB", max_size="1000GB")
    )
    clock.synchronised = lambda: True
    try:
        if fresh:
            await fill(buffer, cycles, samples, size)
            return times
        now = watch(buffer, times)
        now("append at full speed")
        await append_on(buffer, 20_000, size)
        now("attach a route over all")
        lanes = await asyncio.to_thread(buffer.lanes, "all", "oldest", ALL)
        await asyncio.to_thread(buffer.lanes, "slow", "oldest", SAMPLES)
        retention, limit = buffer.upkeep.retention, buffer.settings
        now("count old lanes")
        await within(buffer.upkeep._count_on(), 60)
        now("max_backlog")
        retention.backlogs["slow"] = retention._used() // 2
        for _ in range(5):
            await retention.step()
        retention.backlogs.clear()
        used = retention._used()
        now("full: samples of no cycle")
        reading = threading.Event()
        rare = await asyncio.to_thread(buffer.lanes, "rare", "oldest", RouteFilter(frozenset({Kind.CONFIG})))
        reader = asyncio.create_task(asyncio.to_thread(read_on, buffer, rare[0], reading))
        buffer.settings = limit.model_copy(update={"max_size": round(used * 0.97)})
        for _ in range(5):
            await retention.step()
        buffer.settings = limit
        reading.set()
        await reader
        now("drop a route")
        await within(buffer.drop_route("slow", "bench"), 60)
        now("by age")
        for lane in lanes:
            end = buffer.durable_seq if lane.to_seq is None else lane.to_seq
            buffer.progress(lane, end // 2 if lane.to_seq else end, 1)
        await asyncio.sleep(0.5)
        for _ in range(10):
            await retention.step()
        now("vacuum")
        await within(retention._give_back(must=True), 30)
        now("tidy")
        await within(buffer.upkeep._tidy(), 30)
    finally:
        await buffer.close()
    return times


async def append_on(buffer: Buffer, batches: int, size: int) -> None:
    body = {"tagset": PRESS.id, "took_us": 1, "values": ["x" * size, True, 0]}
    for number in range(batches):
        last = buffer.append([Record(Kind.SAMPLE, PRESS.source, clock.now(), body) for _ in range(4)])
        if number % 10 == 0:
            await buffer.committed(last)
    await buffer.committed(last)


def read_on(buffer: Buffer, lane: Lane, stop: threading.Event) -> None:
    """As a route whose filter lets little through: it scans much for each row."""
    reader, after_seq = buffer.reader(), lane.seq
    while not stop.is_set():
        reader.rows(lane, after_seq, after_seq + SCAN_SEQS, 1000, 2**20)
        after_seq = (after_seq + SCAN_SEQS) % (buffer.durable_seq - SCAN_SEQS)
    reader.close()


async def within(work: Any, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="how long slices hold the writer")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--cycles", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=4, help="of each cycle, and as many of none")
    parser.add_argument("--size", type=int, default=150, help="bytes of a sample's values")
    given = parser.parse_args()
    for _ in range(2 if not (given.data_dir / "buffer.db").exists() else 1):
        times = asyncio.run(measure(given.data_dir, given.cycles, given.samples, given.size))
    print(f"{'':28} {'':>7} {'by the clock, ms':>26} {'CPU, ms':>26}")
    print(f"{'statement':28} {'slices':>7}" + f" {'p50':>8} {'p99':>8} {'max':>8}" * 2)
    for name, taken in times.items():
        figures = []
        for seconds in (sorted(wall for wall, _ in taken), sorted(cpu for _, cpu in taken)):
            last = len(seconds) - 1
            figures += [seconds[last // 2], seconds[last * 99 // 100], seconds[last]] if seconds else [0.0] * 3
        print(f"{name:28} {len(taken):7}" + "".join(f" {figure * 1e3:8.2f}" for figure in figures))


if __name__ == "__main__":
    main()
