"""`make soak`: the line under the weather of `kill_random`, for hours, watched from outside.

    python tests/fault/soak.py [--hours H] [--kills N] [--seed N] [--keep DIR]

The kills are spread evenly over the time. Every ``SAMPLE_S`` a row goes into ``samples.csv``: memory (RSS), open
descriptors and threads of agent and receiver, sizes of the files they keep. At the end ``plot.svg`` shows them over
time, and each figure's slope is printed.

Red, beside what turns a scenario red, if memory or descriptors grow steadily: each process's life is looked at by
itself, its first ``WARM_S`` left out; the median of the last quarter must not lie more than ``GROWTH`` above that of
the second. Lives too short for that say nothing. File sizes are shown, not judged: what is kept, is kept for 72 h.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from edge_agent.demo.processes import Child
from fault.plot import svg
from fault.rig import LineWorld, Rig
from fault.scenarios.kills import change_weather, one_death

WARM_S, SHORTEST_LIFE_S = 60.0, 300.0
GROWTH = {"rss_mb": 1.15, "descriptors": 1.1}
SLACK = {"rss_mb": 8.0, "descriptors": 4.0}  # that are no growth, however small the figure is
COLUMNS = ("elapsed_s", "process", "pid", "rss_mb", "descriptors", "threads", "files_mb", "wal_mb")
PAGE = os.sysconf("SC_PAGESIZE")
Sample = dict[str, float | str]


def look(process: str, child: Child, files: list[Path], elapsed_s: float) -> Sample | None:
    """One row; None if it is not running at this moment."""
    if not child.running:
        return None
    proc = Path(f"/proc/{child.pid}")
    try:
        rss_mb = int((proc / "statm").read_text().split()[1]) * PAGE / 1e6
        descriptors, threads = len(os.listdir(proc / "fd")), len(os.listdir(proc / "task"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    sizes = {path: path.stat().st_size for path in files if path.exists()}
    wal = sum(size for path, size in sizes.items() if path.name.endswith("-wal"))
    return {
        "elapsed_s": round(elapsed_s, 1), "process": process, "pid": str(child.pid), "rss_mb": round(rss_mb, 2),
        "descriptors": descriptors, "threads": threads, "files_mb": round(sum(sizes.values()) / 1e6, 3),
        "wal_mb": round(wal / 1e6, 3),
    }  # fmt: skip


class Soak:
    """One long run. ``samples`` are kept in memory as well as in the file."""

    def __init__(self, rig: Rig, *, seconds: float, kills: int) -> None:
        self.samples: list[Sample] = []
        self._rig, self._seconds, self._kills = rig, seconds, kills
        self._began_s = time.monotonic()
        self._every_s = min(10.0, max(1.0, seconds / 2000))

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    async def run(self) -> None:
        """Weather, kills and samples for as long as it takes; then everything drains and is counted."""
        async with self._rig.line(pace=0.6) as world:
            tasks = [asyncio.create_task(change_weather(self._rig, world)), asyncio.create_task(self._watch(world))]
            try:
                for number in range(self._kills):
                    await self._until((number + 0.5) / self._kills)
                    await one_death(self._rig, world, number)
                    await world.start_agent()
                    self._say(f"kill {number + 1} of {self._kills}, {world.pending()} pending")
                await self._until(1.0)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _until(self, share: float) -> None:
        await asyncio.sleep(max(0.0, share * self._seconds - self.elapsed_s))

    async def _watch(self, world: LineWorld) -> None:
        with (self._rig.directory / "samples.csv").open("w", newline="", buffering=1) as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            while True:
                agent = [world.buffer.path, world.buffer.path.with_name("buffer.db-wal")]
                database = world.receiver.database
                receiver = [database, database.with_name(f"{database.name}-wal")]
                rows = (
                    look("agent", world.agent, agent, self.elapsed_s),
                    look("receiver", world.receiver, receiver, self.elapsed_s),
                )
                for row in rows:
                    if row is not None:
                        self.samples.append(row)
                        writer.writerow(row)
                await asyncio.sleep(self._every_s)

    def _say(self, text: str) -> None:
        sys.stdout.write(f"{self.elapsed_s / 3600:6.2f} h  {text}\n")
        sys.stdout.flush()


# --- judging ---------------------------------------------------------------------------------------------------------


def lives(samples: list[Sample]) -> list[list[Sample]]:
    """The samples of each process, warm-up left out; only of those that lived long enough to tell."""
    by_pid: dict[str, list[Sample]] = {}
    for sample in samples:
        by_pid.setdefault(f"{sample['process']} {sample['pid']}", []).append(sample)
    found = []
    for life in by_pid.values():
        began_s = float(life[0]["elapsed_s"])
        if float(life[-1]["elapsed_s"]) - began_s >= SHORTEST_LIFE_S:
            found.append([sample for sample in life if float(sample["elapsed_s"]) - began_s >= WARM_S])
    return found


def growth(samples: list[Sample]) -> list[str]:
    """What grows steadily, in words."""
    found = []
    for life in lives(samples):
        quarter = len(life) // 4
        for column, factor in GROWTH.items():
            values = [float(sample[column]) for sample in life]
            early, late = median(values[quarter : 2 * quarter]), median(values[3 * quarter :])
            if late > early * factor and late > early + SLACK[column]:
                found.append(f"{column} of {life[0]['process']} {life[0]['pid']} grew from {early:g} to {late:g}")
    return found


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares, a second."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def series(samples: list[Sample], process: str, column: str) -> list[tuple[float, float]]:
    """(seconds, value) of one figure of one process."""
    rows = (sample for sample in samples if sample["process"] == process)
    return [(float(sample["elapsed_s"]), float(sample[column])) for sample in rows]


def steady(samples: list[Sample], process: str, column: str) -> str:
    """The slope of a file's size over all of the time; of anything else over the longest life, warm-up left out."""
    if column.endswith("files_mb"):
        return f"{slope(series(samples, process, column)) * 3600:+.3g}/h"
    longest = max((life for life in lives(samples) if life[0]["process"] == process), key=len, default=[])
    return f"{slope(series(longest, process, column)) * 3600:+.3g}/h" if longest else "- (no life was long enough)"


def report(rig: Rig, soak: Soak) -> None:
    """Slopes to the terminal, and the plot."""
    panels = []
    for column in COLUMNS[3:]:
        lines = {process: series(soak.samples, process, column) for process in ("agent", "receiver")}
        panels.append((column, lines))
        for process, points in lines.items():
            if points:
                values = [value for _, value in points]
                sys.stdout.write(
                    f"{process:<9} {column:<12} min={min(values):g} median={median(values):g} max={max(values):g} "
                    f"slope={steady(soak.samples, process, column)}\n"
                )
    path = rig.directory / "plot.svg"
    path.write_text(svg(panels, title=f"{rig.kills} kills in {soak.elapsed_s / 3600:.2f} h, seed {rig.seed}"))
    sys.stdout.write(f"samples and plot: {path.with_name('samples.csv')} {path}\n")


async def play(soak: Soak) -> None:
    """Run it; a signal ends it in order."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await soak.run()


def main() -> int:
    """Run it; 0 when nothing was lost and nothing grew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--keep", type=Path, default=None, help="keep everything here; default: only samples and plot")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    sys.stdout.write(f"seed {seed}: {given.hours:g} h, {given.kills} kills\n")
    directory = given.keep or Path(tempfile.mkdtemp(prefix="edge-agent-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    rig = Rig("soak", directory.resolve(), seed=seed, kills=given.kills)
    soak = Soak(rig, seconds=given.hours * 3600, kills=given.kills)
    try:
        asyncio.run(play(soak))
    except (KeyboardInterrupt, asyncio.CancelledError):
        rig.problems.append("interrupted")
    report(rig, soak)
    for problem in [*rig.problems, *rig.tally.details]:
        sys.stdout.write(f"  {problem}\n")
    grown = growth(soak.samples)
    for text in grown:
        sys.stdout.write(f"  GROWS: {text}\n")
    judged = len(lives(soak.samples))
    sys.stdout.write(f"soak: hours={soak.elapsed_s / 3600:.2f} kills={rig.kills} lives_judged={judged} ")
    sys.stdout.write(f"{rig.tally.line()} growing={len(grown)}\n")
    good = not (rig.problems or rig.tally.faults or grown) and rig.tally.accepted > 0
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
