"""`make fault`: every named scenario against the real thing, and what became of everything that was accepted.

    python tests/fault/run.py [--list] [--only NAME ...] [--seed N] [--kills N] [--jobs N] [--keep DIR]

One line a scenario; the last line is ``fault: scenarios=... lost=0 duplicates_after_dedup=0 misbound=0``, and the exit
code is 0 only if every scenario was as it should be. Each scenario runs in a process and a directory of its own, a
few at a time, the long ones first. Everything that chance decides is drawn from the seed.

This process is the *subreaper* of all that it starts: whatever a scenario leaves behind becomes a child of ours, is
named as a fault and is killed. Ctrl-C, or our own death, ends everything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fault.rig import NotHere, Rig
from fault.scenarios import SCENARIOS, Scenario, load
from fault.tally import FIELDS
from support import namespaces

_PR_SET_CHILD_SUBREAPER = 36
LIMIT_S = 600.0  # no scenario may take longer than this plus what its kills need
KILL_S = 4.0
LAST_LINES = 25


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# --- one scenario: the child -----------------------------------------------------------------------------------------


def play(scenario: Scenario, directory: Path, *, seed: int, kills: int) -> dict[str, Any]:
    """Run it here and now; what came out."""
    if scenario.own_network and namespaces.permitted():
        namespaces.enter()
    rig = Rig(scenario.name, directory, seed=seed, kills=kills)

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await scenario.run(rig)

    try:
        asyncio.run(run())
    except NotHere as reason:
        return {**dict.fromkeys((*FIELDS, "kills"), 0), "hits": {}, "notes": {}, "problems": [], "skipped": str(reason)}
    except Exception as error:  # noqa: BLE001  whatever it was, the scenario is red and says why
        rig.say(f"{type(error).__name__}: {error}")
        rig.problems.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        if not isinstance(error, AssertionError):
            sys.excepthook(type(error), error, error.__traceback__)
    for detail in rig.tally.details:
        rig.say(detail)
    return {
        **{name: getattr(rig.tally, name) for name in FIELDS}, "kills": rig.kills, "hits": rig.hits,
        "notes": rig.notes, "problems": rig.problems + ([] if not rig.tally.faults else rig.tally.details[:5]),
    }  # fmt: skip


# --- all of them: the parent -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Total:
    """Summed over the scenarios."""

    scenarios: int = 0
    red: list[str] = field(default_factory=list)
    sums: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)

    def take(self, name: str, found: dict[str, Any]) -> bool:
        """Add one; whether it was as it should be."""
        self.scenarios += 1
        self.sums.update({key: found[key] for key in (*FIELDS, "kills")})
        self.hits.update(found["hits"])
        good = (
            not found["problems"]
            and not any(found[key] for key in ("lost", "duplicates_after_dedup", "misbound"))
            and found["accepted"] > 0
        )
        if not good:
            self.red.append(name)
        return good

    def line(self) -> str:
        keys = ("kills", "accepted", "confirmed", "lost", "duplicates_after_dedup", "misbound")
        return f"fault: scenarios={self.scenarios} " + " ".join(f"{key}={self.sums[key]}" for key in keys)


class Runner:
    """Plays scenarios in processes of their own, ``jobs`` at a time."""

    def __init__(self, directory: Path, *, seed: int, kills: int, jobs: int) -> None:
        self._directory, self._seed, self._kills = directory, seed, kills
        self._jobs = asyncio.Semaphore(jobs)
        self._known: set[int] = set()
        self.total = Total()

    async def run(self, scenarios: list[Scenario]) -> Total:
        """All of them, the long ones first."""
        async with asyncio.TaskGroup() as tasks:
            for scenario in sorted(scenarios, key=lambda each: -each.cost_s):
                tasks.create_task(self._one(scenario))
        return self.total

    async def _one(self, scenario: Scenario) -> None:
        async with self._jobs:
            began_s = time.monotonic()
            found = await self._play(scenario)
            self._reap(found)
        if "skipped" in found and not found["problems"]:
            say(f"{scenario.name:<32} skipped: {found['skipped']}")
            return
        good = self.total.take(scenario.name, found)
        figures = " ".join(f"{key}={found[key]}" for key in FIELDS)
        notes = "".join(f" {key}={value}" for key, value in found["notes"].items())
        kills = f" kills={found['kills']}" if found["kills"] else ""
        say(f"{scenario.name:<32} {figures}{kills}{notes} {time.monotonic() - began_s:.0f}s{'' if good else ' RED'}")
        if not good:
            self._explain(scenario, found)

    async def _play(self, scenario: Scenario) -> dict[str, Any]:
        directory = self._directory / scenario.name
        shutil.rmtree(directory, ignore_errors=True)  # of an earlier run with --keep
        directory.mkdir(parents=True)
        command = [sys.executable, __file__, "--play", scenario.name, "--keep", str(directory)]
        with (directory / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, f"--seed={self._seed}", f"--kills={self._kills}", stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, preexec_fn=namespaces.die_with_parent,
            )  # fmt: skip
        self._known.add(process.pid)
        try:
            async with asyncio.timeout(LIMIT_S + KILL_S * self._kills):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                await self._end(process)
            self._known.discard(process.pid)
        result = directory / "result.json"
        if result.exists():
            found: dict[str, Any] = json.loads(result.read_text())
            return found
        nothing: dict[str, Any] = dict.fromkeys((*FIELDS, "kills"), 0)
        return nothing | {"hits": {}, "notes": {}, "problems": [f"no result; it ended with {process.returncode}"]}

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _reap(self, found: dict[str, Any]) -> None:
        """Whatever a scenario left behind has become our child: it should not be there."""
        for pid in children() - self._known:
            if (command := command_of(pid)) is not None:
                found["problems"].append(f"left behind: {command}")
            kill(pid)

    def _explain(self, scenario: Scenario, found: dict[str, Any]) -> None:
        for problem in found["problems"]:
            say(f"    {problem}")
        say(f"    again: python tests/fault/run.py --only {scenario.name} --seed {self._seed} --keep DIR")
        for line in (self._directory / scenario.name / "log").read_text(errors="replace").splitlines()[-LAST_LINES:]:
            say(f"    | {line}")


def children() -> set[int]:
    """Our children, adopted ones too."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def command_of(pid: int) -> str | None:
    """The command line of a process; None if it has ended and nobody waited for it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() or None
    except OSError:
        return None


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# --- the command line ------------------------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true", help="name the scenarios and what they are")
    parser.add_argument("--only", action="append", default=[], help="these scenarios or families; repeatable, commas")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--kills", type=int, default=30, help="of those scenarios that kill as often as one likes")
    parser.add_argument("--jobs", type=int, default=3, help="scenarios at a time")
    parser.add_argument("--keep", type=Path, default=None, help="keep truth, buffer, logs and what was received here")
    parser.add_argument("--play", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(only: list[str]) -> list[Scenario]:
    """The scenarios that are named, by their names or their families'."""
    names = {name for text in only for name in text.split(",")}
    known = load()
    unknown = names - set(known) - {each.family for each in known.values()}
    if unknown:
        raise SystemExit(f"no scenario or family {', '.join(sorted(unknown))}; see --list")
    return [each for each in known.values() if not names or each.name in names or each.family in names]


async def everything(given: argparse.Namespace, seed: int, directory: Path) -> Total:
    """Run what was chosen; a signal ends it in order."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await Runner(directory, seed=seed, kills=given.kills, jobs=given.jobs).run(chosen(given.only))


def main() -> int:
    """Run it; 0 when every scenario was as it should be."""
    given = options()
    if given.play:
        load()
        found = play(SCENARIOS[given.play], given.keep, seed=given.seed, kills=given.kills)
        (given.keep / "result.json").write_text(json.dumps(found))
        return 0
    if given.list:
        for each in chosen(given.only):
            say(f"{each.family:<10} {each.name:<32} {each.title}")
        return 0
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    seed = random.randrange(10**6) if given.seed is None else given.seed
    say(f"seed {seed}; again with: python tests/fault/run.py --seed {seed} --kills {given.kills}")
    with tempfile.TemporaryDirectory(prefix="edge-agent-fault-") as temporary:
        directory = given.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            total = asyncio.run(everything(given, seed, directory.resolve()))
        except (KeyboardInterrupt, asyncio.CancelledError):
            say("interrupted")
            return 130
        finally:
            for pid in children():
                kill(pid)
    if total.hits:
        say("hits: " + " ".join(f"{step}={times}" for step, times in sorted(total.hits.items())))
    if total.red:
        say(f"red: {' '.join(sorted(total.red))}")
    say(total.line())
    return 1 if total.red else 0


if __name__ == "__main__":
    raise SystemExit(main())
