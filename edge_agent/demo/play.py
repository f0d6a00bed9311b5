"""The demo's script: who plays, what happens when, and what is counted at the end.

::

    line (PLC, readers) ──► agent ──► broker ──► receiver (SQLite, confirms)
       │                                              │
       └── truth.jsonl ──────────► counting ◄─────────┘

In the middle the broker is killed and comes back; later the agent is killed while a scanned unit is being pressed, and
another unit takes its place before the agent is back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.demo.broker import EmbeddedBroker
from edge_agent.demo.counting import Counts, compare
from edge_agent.demo.line import WIRINGS
from edge_agent.demo.processes import AgentProcess, Child, LineProcess, ReceiverProcess, free_port, write_config
from edge_agent.demo.received import confirmed, read_readings, read_records
from edge_agent.demo.show import PositionView, Scene, Stage
from edge_agent.demo.truth import TruthReader
from edge_agent.i18n import _

DEMO_S = 34.0  # of units flowing; starting and draining come on top
OUTAGE = (0.35, 0.53)  # the broker is away between these shares of the time
KILL = 0.75
DOWN_S = 1.5
WATCH_S = 0.2
DRAIN_S = 30.0
STEPS = {"OP10": "laser-mark", "OP20": "press-fit", "OP30": "screwing"}


@dataclass(slots=True)
class Outcome:
    """What the demo found."""

    counts: Counts
    confirmed: int
    pending: int
    swapped_out: str = ""  # the unit that sat in OP20 when the agent was killed
    swapped_in: str = ""  # the one that sat there when it came back

    @property
    def good(self) -> bool:
        counts = self.counts
        return not (self.pending or counts.lost or counts.duplicates or counts.misbound) and counts.cycles > 0

    def line(self) -> str:
        """The demo's last line."""
        counts = self.counts
        return (
            f"demo: units={counts.units} cycles={counts.cycles} readings={counts.readings} "
            f"confirmed={self.confirmed} pending={self.pending} lost={counts.lost} "
            f"duplicates_after_dedup={counts.duplicates} misbound={counts.misbound}"
        )


def new_scene() -> Scene:
    """The scene before anything happened."""
    names = [(f"{wiring.station}.{wiring.position}", wiring.station) for wiring in WIRINGS]
    return Scene({name: PositionView(name, STEPS[station]) for name, station in names})


class Play:
    """One performance. ``run`` starts and ends every process it needs."""

    def __init__(self, directory: Path, *, seed: int, seconds: float, scene: Scene, stage: Stage) -> None:
        plc_port, broker_port = free_port(), free_port()
        self.config = write_config(directory, plc_port=plc_port, broker_port=broker_port)
        self._seconds = seconds
        self._scene, self._stage = scene, stage
        self._broker = EmbeddedBroker(directory, broker_port)
        self._line = LineProcess(directory, port=plc_port, seed=seed)
        self._receiver = ReceiverProcess(directory, url=f"mqtt://127.0.0.1:{broker_port}")
        self._agent = AgentProcess(self.config, directory / "agent.log", directory / "data")
        self._truth = TruthReader(self._line.truth)
        self._events: list[dict[str, Any]] = []
        self._swapped = ("", "")

    async def run(self) -> Outcome:
        """Play it. Raises EdgeAgentError when a player does not start, or ends."""
        watching: asyncio.Task[None] | None = None
        try:
            await self._broker.begin()
            self._scene.broker_up = True
            await self._line.begin()
            await self._receiver.start()
            await self._agent.start()
            await self._agent.connected()
            await self._line.feed()
            watching = asyncio.create_task(self._watch(), name="watch")
            await self._act()
            pending = await self._drain()
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            await self._end()
        self._take_truth()
        return self._count(pending)

    async def _end(self) -> None:
        for child in (self._agent, self._receiver, self._line, self._broker):
            await child.end()

    # --- the script --------------------------------------------------------------------------------------------

    async def _act(self) -> None:
        self._tell(_("units flow through three stations; the receiver confirms what it has committed"))
        await self._until(OUTAGE[0])
        await self._broker.kill()
        self._scene.broker_up = False
        self._tell(_("the broker is killed: the agent goes on collecting, the backlog grows"))
        await self._until(OUTAGE[1])
        await self._broker.begin()
        self._scene.broker_up = True
        self._tell(_("the broker is back: the backlog drains ({n} records)").format(n=self._scene.pending))
        await self._until(KILL)
        await self._kill_and_swap()
        await self._until(1.0)
        self._tell(_("no new units; the line runs empty"))
        await self._line.stop(DRAIN_S)
        await self._line.end()  # a PLC that still answered would always leave some readings on their way

    async def _kill_and_swap(self) -> None:
        """Kill the agent while a unit it knows is in the press, and put another in its place."""
        self._take_truth()
        seen = len(self._events)
        while not any(event["event"] == "scan" and event["station"] == "OP20" for event in self._events[seen:]):
            await asyncio.sleep(WATCH_S / 4)
            self._take_truth()
        await asyncio.sleep(0.25)
        await self._agent.kill()
        await self._line.swap("OP20", 1)
        self._take_truth()
        swap = next(event for event in reversed(self._events) if event["event"] == "swap")
        self._swapped = (swap["out"], swap["serial"])
        self._tell(
            _("the agent is killed (SIGKILL); meanwhile {out} is taken out of the press and {new} put in").format(
                out=swap["out"], new=swap["serial"]
            )
        )
        await asyncio.sleep(DOWN_S)
        await self._agent.start()
        self._tell(_("the agent is back; nobody told it of the swap"))

    async def _drain(self) -> int:
        """Wait until the receiver has confirmed everything; how many records it has not."""
        deadline = self._scene.elapsed_s + DRAIN_S
        while self._scene.elapsed_s < deadline:
            status = await self._agent.status()
            if status is not None:
                self._scene.take_status(status)
                if not self._scene.pending:
                    break
            await asyncio.sleep(WATCH_S)
        self._tell(_("everything is confirmed") if not self._scene.pending else _("not everything was confirmed"))
        return self._scene.pending

    async def _until(self, share: float) -> None:
        """Sleep until this share of the time has passed, as long as everybody is well."""
        while self._scene.elapsed_s < share * self._seconds:
            for child in self._players():
                if not child.running:
                    raise child.failed(what=f"ended with {child.returncode}")
            await asyncio.sleep(WATCH_S)

    def _players(self) -> list[Child]:
        return [self._line, self._receiver, self._agent, *([self._broker] if self._scene.broker_up else [])]

    # --- watching ----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._take_truth()
            self._scene.take_status(await self._agent.status())
            self._stage.refresh()
            await asyncio.sleep(WATCH_S)

    def _take_truth(self) -> None:
        new = self._truth.new()
        self._events += new
        for text in self._scene.take_truth(new):
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._stage.tell(text)

    def _count(self, pending: int) -> Outcome:
        database = self._receiver.database
        counts = compare(self._events, read_records(database), read_readings(database))
        return Outcome(counts, confirmed(database), pending, *self._swapped)
