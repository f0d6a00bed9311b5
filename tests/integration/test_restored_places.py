"""Carriers, registers, ovens and lots over a restart on a real file: binder and buffer put together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent import clock
from edge_agent.binding import Binder, Outcome
from edge_agent.binding.places import Batch, Carrying, Register, Slot
from edge_agent.binding.plan import Plan, Station
from edge_agent.binding.seen import Reads
from edge_agent.buffer import Buffer, BufferSettings, open_buffer
from edge_agent.model import Instant, Kind, Sample, Scan, ScanStatus
from support.binding_rig import MS, TAGSETS, plan, position, station, tag

SN = re.compile(r"(?P<serial>SN\d+)")
PALLET = re.compile(r"(?P<carrier>P\d+)")
LOT = re.compile(r"(?P<lot>L\d+)")
HEAT: dict[str, Any] = {"end": None, "collect": (), "result": None, "claims": {"oven.air": ("heat",)}}


class Agent:
    """A binder on a real buffer, killed and started again."""

    def __init__(self, folder: Path, one: Plan) -> None:
        self.folder, self.plan = folder, one
        self.mono_ns = 10**12
        self.epoch_ns = clock.now().at_ns - self.mono_ns  # the buffer's own records are of today
        self.told: list[tuple[Kind, dict[str, Any]]] = []
        self.start()

    @property
    def now(self) -> Instant:
        self.mono_ns += 100 * MS
        return Instant(self.epoch_ns + self.mono_ns, self.mono_ns)

    def start(self) -> None:
        settings = BufferSettings.model_validate({"min_free": "1MiB", "ballast": "1MiB"})
        self.buffer: Buffer = open_buffer(self.folder, "test", settings)
        self.binder = Binder(self.plan, self.buffer.log, "cfg", self.buffer.lookup, self.buffer.restored())
        self._take(lambda seq: self.binder.start(self.now, seq))

    async def restart(self, seconds: float = 2.0) -> None:
        await self.buffer.committed(self.buffer.next_seq - 1)
        await self.buffer.close()
        self.mono_ns += int(seconds * 1e9)
        self.start()

    def scan(self, text: str, device: str) -> None:
        self.mono_ns += 500 * MS
        self._take(lambda seq: self.binder.on_scan(Scan(device, self.now, text.encode(), ScanStatus.READ), seq))

    def sample(self, source: str, **values: float) -> None:
        at = self.now
        found = tuple(values.get(one.name, 0) for one in TAGSETS[source].tags)
        self._take(lambda seq: self.binder.on_sample(Sample(TAGSETS[source], at, at.mono_ns - MS, found), seq))

    def step(self, index: int) -> None:
        for value in (0, index, 0, 0):
            self.sample("press.state", number=value)

    def open(self, name: str, number: int = 1) -> tuple[str | None, str | None]:
        shown = self.binder.snapshot()[name]["positions"][str(number)]
        return ("interrupted" if shown["interrupted"] else shown["binding_state"]), shown["serial"]

    def findings(self) -> list[str]:
        return [body["code"] for kind, body in self.told if kind is Kind.FINDING]

    def _take(self, ask: Callable[[int], Outcome]) -> None:
        outcome = ask(self.buffer.next_seq)
        self.told += [(record.kind, dict(record.body)) for record in outcome.records]
        if outcome.records:
            self.buffer.append(outcome.records)


def run(folder: Path, one: Plan, script: Callable[[Agent], Any]) -> None:
    async def main() -> None:
        agent = Agent(folder, one)
        try:
            await script(agent)
        finally:
            await agent.buffer.close()

    asyncio.run(main())


def bare(number: int = 1, **changes: Any) -> Any:
    return position(number, **HEAT | changes)


def test_pallets_keep_their_units_by_place(tmp_path: Path) -> None:
    reads = Reads("load", PALLET, frozenset(), "carrier")
    load = station(bare(1, scanner="g1"), bare(2, scanner="g2"), name="LOAD", carrying=Carrying("load", reads))
    work = station(
        bare(1, scanner="rfid"), bare(2, scanner="rfid"), name="OP20", step="glue", of="carrier", pattern=PALLET
    )

    async def script(agent: Agent) -> None:
        agent.scan("P1", "load")
        agent.scan("SN1", "g1")
        agent.scan("SN2", "g2")
        agent.scan("P2", "load")
        agent.scan("SN3", "g1")
        agent.scan("SN4", "g2")
        agent.scan("P3", "load")
        agent.scan("SN5", "g1")
        await agent.restart(5)
        agent.scan("P1", "rfid")
        assert [agent.open("OP20", place) for place in (1, 2)] == [("bound", "SN1"), ("bound", "SN2")]
        await agent.restart(5)
        assert agent.open("OP20", 1) == ("interrupted", "SN1")
        agent.scan("P1", "rfid")
        assert [agent.open("OP20", place) for place in (1, 2)] == [("bound", "SN1"), ("bound", "SN2")]
        await agent.restart(600)
        agent.scan("P2", "rfid")
        assert agent.open("OP20", 1) == ("ambiguous", None), "ten minutes suffice to load it anew"

    run(tmp_path, plan(load, work), script)


def test_a_register_is_unsure_until_it_is_filled_anew(tmp_path: Path) -> None:
    table = Register("dial", tag("press.number"), 0, 3, Reads("entry", SN, frozenset()))
    one: Station = station(bare(1, scanner=None), name="OP1", slot=Slot(table, 1))

    async def script(agent: Agent) -> None:
        agent.step(1)
        for serial in ("SN1", "SN2"):
            agent.scan(serial, "entry")
            agent.step(1)
        assert agent.open("OP1") == ("bound", "SN2")
        await agent.restart()
        assert agent.open("OP1") == ("interrupted", "SN2")
        seen = []
        for serial in ("SN3", "SN4"):
            agent.scan(serial, "entry")
            agent.step(1)
            seen.append(agent.open("OP1"))
        assert seen == [("ambiguous", None), ("bound", "SN4")]
        assert agent.findings().count("register_unsure") == 2, "one each start"

    run(tmp_path, plan(one), script)


def test_an_oven_knows_who_was_in(tmp_path: Path) -> None:
    batch = Batch(Reads("in", SN, frozenset()), Reads("out", SN, frozenset()))
    one: Station = station(*(bare(number, scanner=None) for number in (1, 2, 3)), name="OVEN", batch=batch)

    async def script(agent: Agent) -> None:
        agent.scan("SN1", "in")
        agent.scan("SN2", "in")
        agent.sample("oven.air", heat=1)
        await agent.restart()
        assert agent.open("OVEN", 2) == ("interrupted", "SN2")
        agent.scan("SN3", "in")
        assert agent.open("OVEN", 3) == ("bound", "SN3")
        agent.scan("SN2", "out")
        closed = [body for kind, body in agent.told if kind is Kind.CYCLE_CLOSED]
        assert [(body["closed_by"], body["binding"]["serial"]) for body in closed] == [("scan_out", "SN2")]
        assert set(agent.findings()) == {"observation_gap"}

    run(tmp_path, plan(one), script)


def test_a_lot_is_active_again_once_it_is_scanned_again(tmp_path: Path) -> None:
    one: Station = station(bare(1, scanner="lots"), name="MIX", of="lot", pattern=LOT)

    async def script(agent: Agent) -> None:
        agent.scan("L1", "lots")
        agent.sample("oven.air", heat=1)
        await agent.restart()
        assert agent.open("MIX") == ("interrupted", "L1")
        agent.scan("L1", "lots")
        assert agent.open("MIX") == ("bound", "L1")
        made = [body for kind, body in agent.told if kind is Kind.IDENTIFIER]
        assert [body["kind"] for body in made] == ["lot"], "it is the same lot, not a new one"

    run(tmp_path, plan(one), script)
