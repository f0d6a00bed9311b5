"""The demo's script: who plays, what happens when, and what is counted at the end.

::

    line (PLC, readers) ──► agent ──► broker ──► receiver (SQLite, confirms)
       │                      ▲          │             │
       │                      └─ holds ──┤             │
       │                                QMS            │
       └── truth.jsonl ──────► counting, story ◄───────┘

and in time::

    QMS holds a unit ─ broker killed ─ the unit is stopped at the gate ─ broker back ─ hold_ack ─ release ─ it passes
                                                                            └─ agent killed, unit swapped ─ agent back

In the middle a unit on the line is put on hold, then the broker is killed and comes back. Later the agent is killed
while a scanned unit is being pressed, and another unit takes its place before the agent is back. Late scans, rework,
boards that are built in, and values that are missing come along with the units.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent import clock
from edge_agent.demo.broker import EmbeddedBroker
from edge_agent.demo.counting import EDGE_NS, Counts, compare
from edge_agent.demo.line import FIRST_LOT, WIRINGS
from edge_agent.demo.processes import (
    AgentProcess,
    Child,
    DemoError,
    LineProcess,
    ReceiverProcess,
    free_port,
    run_for_json,
    write_config,
)
from edge_agent.demo.qms import Qms
from edge_agent.demo.received import confirmed, hold_told, read_readings, read_records
from edge_agent.demo.show import PositionView, Scene, Stage
from edge_agent.demo.story import Plot, Shown, Told, choose_traced, judge
from edge_agent.demo.truth import TruthReader
from edge_agent.i18n import _

DEMO_S = 34.0  # of units flowing; starting and draining come on top
OUTAGE = (0.35, 0.53)  # the broker is away between these shares of the time
KILL = 0.75
DOWN_S = 1.5
WATCH_S = 0.2
DRAIN_S = 30.0
AWAIT_S = 30.0  # what the script waits for comes within this, or the demo fails
HOLD = "Q-17"
SECOND_LOT = "LOT-0002"
STEPS = {"OP10": "laser-mark", "OP20": "press-fit", "OP30": "screwing", "OP40": "pack"}


@dataclass(slots=True)
class Outcome:
    """What the demo found."""

    counts: Counts
    confirmed: int
    pending: int
    swapped_out: str = ""  # the unit that sat in OP20 when the agent was killed
    swapped_in: str = ""  # the one that sat there when it came back
    plot: Plot = field(default_factory=Plot)
    shown: list[Shown] = field(default_factory=list)

    @property
    def good(self) -> bool:
        counts = self.counts
        clean = not (self.pending or counts.lost or counts.duplicates or counts.misbound) and counts.cycles > 0
        return clean and all(point.ok for point in self.shown)

    def line(self) -> str:
        """The demo's last line."""
        counts = self.counts
        return (
            f"demo: units={counts.units} cycles={counts.cycles} readings={counts.readings} "
            f"confirmed={self.confirmed} pending={self.pending} lost={counts.lost} "
            f"duplicates_after_dedup={counts.duplicates} misbound={counts.misbound} "
            f"shown={sum(point.ok for point in self.shown)}/{len(self.shown)}"
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
        self._line = LineProcess(directory, port=plc_port, seed=seed, gate=True)
        self._receiver = ReceiverProcess(directory, url=f"mqtt://127.0.0.1:{broker_port}")
        self._agent = AgentProcess(self.config, directory / "agent.log", directory / "data")
        self._qms = Qms(f"mqtt://127.0.0.1:{broker_port}")
        self._truth = TruthReader(self._line.truth)
        self._plot = Plot(hold=HOLD, lot=FIRST_LOT)
        self._events: list[dict[str, Any]] = []
        self._swapped = ("", "")

    async def run(self) -> Outcome:
        """Play it. Raises EdgeAgentError when a player does not start, or ends."""
        beside = [asyncio.create_task(self._qms.run(), name="qms")]
        try:
            await self._broker.begin()
            self._scene.broker_up = True
            await self._line.begin()
            await self._receiver.start()
            await self._agent.start()
            await self._agent.connected()
            await self._line.feed()
            beside.append(asyncio.create_task(self._watch(), name="watch"))
            await self._act()
            pending = await self._drain()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._end()
        self._take_truth()
        return await self._count(pending)

    async def _end(self) -> None:
        for child in (self._agent, self._receiver, self._line, self._broker):
            await child.end()

    # --- the script --------------------------------------------------------------------------------------------

    async def _act(self) -> None:
        self._tell(_("units flow through four stations; the receiver confirms what it has committed"))
        await self._until(OUTAGE[0])
        await self._hold_one()
        await self._cut_off()
        release = asyncio.create_task(self._release(), name="release")
        try:
            await self._until(KILL)
            await self._kill_and_swap()
            await self._until(1.0)
            await self._line.feed(on=False)
            self._tell(_("no new units; the line runs empty"))
            await release
        finally:
            release.cancel()
        await self._line.stop(DRAIN_S)
        await self._line.end()  # a PLC that still answered would always leave some readings on their way

    async def _hold_one(self) -> None:
        """The QMS puts a unit on hold that is on the line and was not at the press yet."""
        why = _("housing scratched")
        while True:
            entered = await self._event("enter", since=len(self._events), station="OP10")
            serial = entered["serial"]
            self._qms.decide("hold", HOLD, serial, why)
            await self._holds(1)
            self._take_truth()
            if not any(event["event"] == "ask" and event["serial"] == serial for event in self._events):
                break
            self._qms.decide("release", HOLD, serial, why)  # it was faster: take the next one
            await self._holds(0)
        self._plot.held = serial
        self._tell(
            _("the QMS puts {serial} on hold ({why}); it is on its way to the press").format(serial=serial, why=why)
        )

    async def _cut_off(self) -> None:
        """The broker is away until its time is over and the held unit was at the gate."""
        await self._broker.kill()
        self._scene.broker_up, self._plot.down_ns = False, clock.now().at_ns
        self._tell(_("the broker is killed: the agent goes on collecting, the backlog grows"))
        await self._event("aside", serial=self._plot.held)
        await self._event("work", station="OP30")
        await asyncio.sleep(2 * EDGE_NS / 1e9)  # so that one unit got its screws of the first lot, and of no other
        await self._until(OUTAGE[1])
        await self._line.load(SECOND_LOT)
        self._plot.up_ns = clock.now().at_ns
        await self._broker.begin()
        self._scene.broker_up = True
        self._tell(_("the broker is back: the backlog drains ({n} records)").format(n=self._scene.pending))

    async def _release(self) -> None:
        """Once the receiver has the hold_ack, and that the gate stopped the unit, it is released and comes back."""
        held = self._plot.held
        await self._await(lambda: asyncio.to_thread(hold_told, self._receiver.database, held), "the hold_ack")
        text = _("the receiver has the hold_ack, and that the gate stopped {serial}; the QMS releases it")
        self._tell(text.format(serial=held))
        self._qms.decide("release", HOLD, held, _("inspected, good"))
        await self._holds(0)
        await self._line.give_back(held)
        self._tell(_("{serial} comes to the gate again").format(serial=held))
        await self._event("permit", serial=held)

    async def _kill_and_swap(self) -> None:
        """Kill the agent while a unit it knows is in the press, and put another in its place."""
        await self._event("permit", since=len(self._events), station="OP20")
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

    async def _event(self, kind: str, since: int = 0, **fields: Any) -> dict[str, Any]:
        """The first event of the line since that number that is so, waiting for it."""

        def find() -> dict[str, Any] | None:
            for event in self._events[since:]:
                if event["event"] == kind and all(event.get(name) == value for name, value in fields.items()):
                    return event
            return None

        async def found() -> bool:
            self._take_truth()
            return find() is not None

        await self._await(found, f"{kind} {fields}")
        event = find()
        assert event is not None, "it was there just now"
        return event

    async def _holds(self, count: int) -> None:
        """Wait until the agent knows of so many holds of the QMS, and misses none."""

        async def so() -> bool:
            status = await self._agent.status()
            qms = status["inbound"]["qms"] if status is not None else {}
            return qms.get("open_holds") == count and not qms["stale"]

        await self._await(so, f"{count} holds at the agent")

    async def _await(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until it is so. Raises DemoError when that takes too long."""
        deadline = self._scene.elapsed_s + AWAIT_S
        while not await condition():
            if self._scene.elapsed_s > deadline:
                hint = "run it again with --keep DIR and look at DIR/agent.log"
                raise DemoError(f"the demo waited {AWAIT_S:g} s in vain for {what}", hint=hint)
            await asyncio.sleep(WATCH_S / 4)

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

    async def _count(self, pending: int) -> Outcome:
        """Compare what happened with what arrived, and with what `edge-agent trace` answers."""
        database, plot = self._receiver.database, self._plot
        records = list(read_records(database))
        counts = compare(self._events, records, read_readings(database))
        told = Told(self._events, records)
        plot.serial = choose_traced(told, plot)
        trace = ["--config", str(self.config), "trace"]
        forward, tree = await asyncio.gather(
            run_for_json([*trace, "--lot", plot.lot]), run_for_json([*trace, plot.serial or "-", "--tree"])
        )
        return Outcome(counts, confirmed(database), pending, *self._swapped, plot, judge(told, plot, forward, tree))
