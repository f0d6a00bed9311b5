"""The torture: the demo's line, faster; an agent that is killed again and again; a broker that comes, goes and hangs.

Everything that chance decides is drawn from the seed before it begins (:class:`Plan`), so a run can be repeated with
the same kills in the same order; what the agent is doing at a random moment still depends on the machine.

What counts as accepted is said in :mod:`edge_agent.demo.counting`; it is counted from the line's truth and the
receiver's database, never from the agent. ``confirmed`` is what of it the receiver holds, once nothing is pending.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.demo.counting import Counts, compare
from edge_agent.demo.line import WIRINGS
from edge_agent.demo.processes import AgentProcess, DemoError, LineProcess, ReceiverProcess, free_port, write_config
from edge_agent.demo.received import read_readings, read_records
from edge_agent.demo.truth import TruthReader

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.mosquitto import Mosquitto

# Steps of the writer, of progress and of opening, and the most often each may be passed before the kill. Those of
# retention and salvage need an hour or damage to be reached, and have tests of their own.
STEPS = {
    "before_begin": 40, "after_insert": 40, "after_projection": 40, "before_commit": 40, "after_commit": 40,
    "before_notify": 40, "progress_before": 6, "progress_after": 6, "witness_before_replace": 1,
    "witness_after_replace": 1, "log_open_before": 1, "log_open_after": 1,
}  # fmt: skip
PLC_STEPS = ("plc_ack", "plc_result")  # the PLC kills the agent at its next acknowledge, or read of a result
STEP_WAIT_S = 5.0  # a step not reached by then was not to be; the kill comes from outside
REPLACED = {
    "poll: 100ms": "poll: 30ms",
    "confirm_timeout: 5s": "confirm_timeout: 2s\n    ack_timeout: 2s",
}
DRAIN_S = 60.0


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Kill:
    """One death of the agent: at a step (its ``hit``-th passing), or ``after_s`` when ``step`` is empty."""

    step: str
    hit: int
    after_s: float
    down_s: float
    swaps: tuple[tuple[str, int, bool], ...]  # (station, position, whether the new unit is scanned, unheard)
    receiver_too: bool


@dataclass(frozen=True, slots=True)
class Weather:
    """The broker is up for ``up_s``, then away or hung for ``down_s``."""

    up_s: float
    down_s: float
    hung: bool


def plan_kills(seed: int, count: int) -> list[Kill]:
    """Every step once before any twice; between them random moments, and those that only the PLC knows."""
    chance = random.Random(seed)
    steps: list[str] = []
    kills = []
    for number in range(count):
        step = ""
        if number % 2 == 0:
            if not steps:
                steps = sorted(STEPS)
                chance.shuffle(steps)
            step = steps.pop()
        elif number % 4 == 1:
            step = chance.choice(PLC_STEPS)
        places = [(wiring.station, wiring.position) for wiring in WIRINGS]
        kills.append(
            Kill(
                step, chance.randint(1, STEPS.get(step, 1)), chance.uniform(0.2, 3.5), chance.uniform(0.2, 0.9),
                tuple((*place, chance.random() < 0.5) for place in places if chance.random() < 0.8),
                receiver_too=number % 12 == 11,
            )
        )  # fmt: skip
    return kills


def plan_weather(seed: int) -> Iterator[Weather]:
    """Without end; the third time, and every eighth from there, the broker hangs with its socket open."""
    chance = random.Random(seed + 1)
    number = 0
    while True:
        number += 1
        yield Weather(chance.uniform(3, 9), chance.uniform(0.5, 4), hung=number % 8 == 3)


@dataclass(slots=True)
class Verdict:
    """What came out of a run."""

    kills: int
    counts: Counts
    pending: int
    hits: Counter[str] = field(default_factory=Counter)
    outages: int = 0
    hangs: int = 0

    @property
    def good(self) -> bool:
        counts = self.counts
        return not (counts.lost or counts.duplicates or counts.misbound or self.pending) and counts.accepted > 0

    def line(self) -> str:
        counts = self.counts
        return (
            f"fault: kills={self.kills} accepted={counts.accepted} confirmed={counts.accepted - counts.lost} "
            f"lost={counts.lost} duplicates_after_dedup={counts.duplicates} misbound={counts.misbound}"
        )


class Torture:
    """One run in one directory."""

    def __init__(self, directory: Path, *, seed: int, kills: int) -> None:
        self._kills = plan_kills(seed, kills)
        self._weather = plan_weather(seed)
        self._broker = Mosquitto(directory)
        plc_port = free_port()
        config = write_config(directory, plc_port=plc_port, broker_port=self._broker.port, replace=REPLACED)
        self._line = LineProcess(directory, port=plc_port, seed=seed, pace=0.4, quirks=0.2, give_up_s=0.8)
        self._receiver = ReceiverProcess(directory, url=self._broker.url)
        self._agent = AgentProcess(config, directory / "agent.log", directory / "data")
        self.verdict = Verdict(0, Counts(), -1)

    async def run(self) -> Verdict:
        """Kill by kill, then let everything drain and count."""
        weather: asyncio.Task[None] | None = None
        try:
            await asyncio.to_thread(self._broker.start)
            await self._line.begin()
            await self._line.feed()
            await self._receiver.start()
            weather = asyncio.create_task(self._change_weather(), name="weather")
            for number, kill in enumerate(self._kills, 1):
                await self._one(number, kill)
            weather.cancel()
            await asyncio.gather(weather, return_exceptions=True)
            await self._drain()
        finally:
            if weather is not None:
                weather.cancel()
            for child in (self._agent, self._receiver, self._line):
                await child.end()
            self._broker.kill()
        truth = TruthReader(self._line.truth).new()
        database = self._receiver.database
        self.verdict.counts = compare(truth, read_records(database), read_readings(database))
        return self.verdict

    async def _one(self, number: int, kill: Kill) -> None:
        inside = kill.step in STEPS
        await self._agent.start({"EDGE_AGENT_KILL_AT": f"{kill.step}:{kill.hit}"} if inside else None)
        if kill.step in PLC_STEPS:
            await asyncio.sleep(kill.after_s)
            await self._line.kill_at(self._agent, kill.step.removeprefix("plc_"))
        try:
            returncode = await self._agent.wait(STEP_WAIT_S if kill.step else kill.after_s)
        except TimeoutError:
            await self._agent.kill()
            await self._line.kill_at(None)
            how = f"at {kill.after_s:.1f} s" if not kill.step else f"from outside: {kill.step}:{kill.hit} not reached"
        else:
            if returncode != -9:
                raise RuntimeError(f"the agent ended with {returncode}:\n{self._agent.log.read_text()[-4000:]}")
            self.verdict.hits[kill.step] += 1
            how = f"at step {kill.step}:{kill.hit}"
        self.verdict.kills += 1
        if kill.receiver_too:
            await self._receiver.kill()
        swapped = 0
        for station, position, scan in kill.swaps:
            swapped += await self._line.swap(station, position, scan=scan)
        say(f"kill {number:3}  {how:<45} {swapped} swapped, {kill.down_s:.1f} s down")
        await asyncio.sleep(kill.down_s)
        if kill.receiver_too:
            await self._receiver.start()

    async def _change_weather(self) -> None:
        """The broker comes and goes; whoever cancels this finds it up."""
        for spell in self._weather:
            await asyncio.sleep(spell.up_s)
            try:
                if spell.hung:
                    self.verdict.hangs += 1
                    self._broker.hang()
                else:
                    self.verdict.outages += 1
                    self._broker.kill()
                await asyncio.sleep(spell.down_s)
            finally:
                if spell.hung:
                    self._broker.wake()
                else:
                    self._broker.start()

    async def _drain(self) -> None:
        await self._agent.start()
        try:
            await self._line.stop(DRAIN_S)
            await self._line.end()  # a PLC that still answered would always leave some readings on their way
            async with asyncio.timeout(DRAIN_S):
                while self.verdict.pending:
                    status = await self._agent.status()
                    if status is not None:
                        self.verdict.pending = status["routes"]["mes"]["pending"]
                    await asyncio.sleep(0.2)
        except (TimeoutError, DemoError):
            say(f"not done after {DRAIN_S:.0f} s: the verdict below is of what there is")
