"""The gate of one station: when it decides, for whom, and what it leaves on record.

With an exchange it decides when the PLC has asked *and* the unit was identified at the position, in whichever order
they come; a request waits for the scan, but not for ever. **One identification answers one request**: a new number
while the same cycle is open may be for the next unit, which nobody scanned yet, so it waits for a scan. While a scan
waits to take effect nothing is answered: who is there is being settled. The label of a unit that was stopped may be
scanned again; that counts for as long as a request waits. The same number is never decided twice. After a gap of the
PLC no earlier identification counts. A permit whose request still stands when its unit leaves, or falls into doubt, is
taken back.

Without an exchange it decides on each identification, the re-scan of a blocked unit too.

Every decision is one ``gate`` record, durable before anything is written to the PLC. A block is the finding
``gate_blocked``, a permit on what is stale ``gate_open``, a request that went away before it could be answered
``gate_unanswered``. A hold that arrives while a unit is in work lets its cycle finish; the next gate stops it.

**A blocked visit is no attempt.** One that was blocked, never permitted, and left without an end of its work closes as
``blocked``, Skipped: it is not counted, is no result of the step, consumes nothing.

**Override.** A person of quality lets one serial in, once, at one station, within some minutes, against whatever the
gate finds: but for the doubt which unit it is. It takes effect with the next request or re-scan. It is kept in memory
only, so after a restart it must be given again: of a damaged log nobody could tell whether it was used up. At most
``PASSES`` are open at a station.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from edge_agent.binding.action import ActionRefused
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.exchange import Coil, Desk
from edge_agent.binding.findings import report
from edge_agent.binding.gate import Decision, Entrant, Reason, decide
from edge_agent.binding.part import Part
from edge_agent.binding.plan import Gate, Station
from edge_agent.binding.position import Floor, PositionLife, plc_text
from edge_agent.binding.trigger import device_of
from edge_agent.binding.units import Unit
from edge_agent.identify.patterns import identify
from edge_agent.model import BindingState, Instant, Kind, Sample

BEFORE_WORK = ("scan", "carrier", "index")  # what opens a cycle for a unit that is still to be worked on
PASSES = 64
BEATS = 1 << 15  # the heartbeat goes round here: it fits any integer type


@dataclass(frozen=True, slots=True)
class Pass:
    """An override that was not used yet."""

    until_mono_ns: int
    by: str
    reason: str


class Gatekeeper(Part):
    """See the module docstring."""

    def __init__(self, floor: Floor, station: Station, gate: Gate) -> None:
        self.passes: dict[str, Pass] = {}  # by serial
        self.counts: Counter[str] = Counter()
        self._floor = floor
        self._station = station
        self._gate = gate
        self._desks = {number: Desk(plan) for number, plan in gate.exchanges.items()}
        self._coils = {number: Coil(tag, int(gate.pulse_s * 1e9)) for number, tag in gate.permits.items()}
        self._identified: dict[int, float] = {}  # position -> until when (mono) who is there may be asked about
        self._let_in: dict[int, str] = {}  # position -> the cycle whose unit the PLC was told to take
        self._last: dict[int, dict[str, Any]] = {}
        self._beat = 0
        self._beat_mono_ns: int | None = None

    def watched(self) -> set[str]:
        return {desk.plan.request.group for desk in self._desks.values()}

    # --- identification ----------------------------------------------------------------------------------------

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if cycle.opened_by in BEFORE_WORK:
            self._identify(life, draft)

    def rescanned(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if self._let_in.get(life.plan.number) != cycle.id:
            self._identify(life, draft, again=True)

    def rebound(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if cycle.state is not BindingState.BOUND:
            self._doubt(life, draft)
        elif cycle.resumed_by == "resume:scan":
            self._identify(life, draft, again=True)

    def interrupted(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        self._doubt(life, draft)

    def closed(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        self._identified.pop(life.plan.number, None)
        self._take_back(life.plan.number, draft)

    def _identify(self, life: PositionLife, draft: Draft, *, again: bool = False) -> None:
        number = life.plan.number
        desk = self._desks.get(number)
        if desk is None:
            decision = self._decide(life, self._of_cycle(life), None, draft)
            if decision.permit and number in self._coils:
                self._coils[number].pulse(draft)
        elif desk.plan.serial is None:
            self._identified[number] = draft.at.mono_ns + self._gate.wait_s * 1e9 if again else math.inf
            if desk.waiting is not None and not life.waiting:
                self._answer(desk, life, self._of_cycle(life), draft)

    def _doubt(self, life: PositionLife, draft: Draft) -> None:
        """Which unit is here is not certain any more: what was permitted just now is taken back."""
        number = life.plan.number
        self._identified.pop(number, None)
        self._let_in.pop(number, None)
        if self._take_back(number, draft):
            self._decide(life, self._of_cycle(life), None, draft)

    def _take_back(self, number: int, draft: Draft) -> bool:
        """No permit of this position may stand in the PLC any more. True if one did, as far as is known."""
        desk, coil = self._desks.get(number), self._coils.get(number)
        if coil is not None and coil.on:
            coil.clear(draft)
            return True
        return desk is not None and desk.take_back(draft)

    # --- the PLC's requests ------------------------------------------------------------------------------------

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        for number, desk in self._desks.items():
            if desk.plan.request.group != sample.tagset.source:
                continue
            before = desk.waiting
            self._unanswered(number, desk.see(sample, draft), "the PLC did not wait for the answer", draft)
            if desk.waiting is None or desk.waiting == before:
                continue
            draft.keep()
            life = self._life(number)
            if desk.plan.serial is not None:
                self._answer(desk, life, self._of_serial(life, plc_text(sample.values[desk.plan.serial.index])), draft)
            elif not life.waiting and sample.at.mono_ns <= self._identified.get(number, -1):
                self._answer(desk, life, self._of_cycle(life), draft)

    def _answer(self, desk: Desk, life: PositionLife, entrant: Entrant, draft: Draft) -> None:
        self._identified.pop(life.plan.number, None)
        decision = self._decide(life, entrant, desk.waiting, draft)
        if decision.permit and entrant.cycle is not None:
            self._let_in[life.plan.number] = entrant.cycle
        desk.answer(decision, draft)

    def _unanswered(self, number: int, request: int | None, why: str, draft: Draft) -> None:
        if request is None:
            return
        self.counts["unanswered"] += 1
        text = f"{self._life(number).name}: request {request} was not answered: {why}"
        report(draft, self._station.name, "gate_unanswered", text, position=number, details={"request": request})

    # --- the connection, time, and the end ---------------------------------------------------------------------

    def gap(self, device: str, since: Instant, draft: Draft) -> None:
        self._forget(device, "the PLC was lost", draft)

    def device_opened(self, device: str, draft: Draft) -> None:
        self._forget(device, "the PLC was lost", draft)

    def stop(self, draft: Draft) -> None:
        for device in {device_of(desk.plan.answer) for desk in self._desks.values()}.union(
            device_of(coil.tag) for coil in self._coils.values()
        ):
            self._forget(device, "the agent stops", draft)

    def _forget(self, device: str, why: str, draft: Draft) -> None:
        for number, desk in self._desks.items():
            if device in (device_of(desk.plan.request.group), device_of(desk.plan.answer)):
                self._identified.pop(number, None)
                self._let_in.pop(number, None)
                self._unanswered(number, desk.forget(draft), why, draft)
        for coil in self._coils.values():
            if device == device_of(coil.tag):
                coil.clear(draft)

    def tick(self, draft: Draft) -> None:
        now = draft.at
        for number, desk in self._desks.items():
            if desk.waiting is not None and now.mono_ns - desk.since_mono_ns >= self._gate.wait_s * 1e9:
                life = self._life(number)
                text = f"{life.name}: no unit was identified within {self._gate.wait_s:g} s"
                self._answer(desk, life, Entrant(None, None, None, Reason("not_identified", text)), draft)
        for coil in self._coils.values():
            coil.tick(now, draft)
        for serial in [serial for serial, one in self.passes.items() if now.mono_ns >= one.until_mono_ns]:
            del self.passes[serial]
        due = self._beat_mono_ns is None or now.mono_ns - self._beat_mono_ns >= self._gate.beat_s * 1e9
        if self._gate.heartbeat is not None and due:
            self._beat_mono_ns, self._beat = now.mono_ns, (self._beat + 1) % BEATS
            draft.write(self._gate.heartbeat, self._beat)

    # --- the decision ------------------------------------------------------------------------------------------

    def _life(self, number: int) -> PositionLife:
        return self._floor.stations[self._station.name].positions[number]

    def _of_cycle(self, life: PositionLife) -> Entrant:
        """Whoever the open cycle says is here."""
        cycle = life.cycle
        if cycle is None:
            return Entrant(None, None, None, Reason("not_identified", f"{life.name}: no unit is here"))
        doubt = None
        if cycle.suspended:
            text = f"{life.name}: {cycle.serial or 'the unit'} was not watched, it may be another one; scan it again"
            doubt = Reason("interrupted", text)
        elif cycle.state is not BindingState.BOUND or cycle.unit is None:
            doubt = Reason("ambiguous", f"{life.name}: it is not certain which unit is here")
        if doubt is not None or cycle.unit is None:
            return Entrant(None, None, None, doubt, cycle.id)
        return Entrant(cycle.unit, cycle.unit.serial, cycle.attempt, None, cycle.id)

    def _of_serial(self, life: PositionLife, serial: str) -> Entrant:
        """Whoever the PLC asks about."""
        if not serial:
            return Entrant(None, None, None, Reason("not_identified", f"{life.name}: the PLC named no serial"))
        identifiers = identify(serial, life.station.pattern)
        if identifiers is None:
            return Entrant(None, None, None, Reason("not_identified", f"{life.name}: {serial!r} is no serial"))
        serial = identifiers["serial"]
        unit = self._floor.units.find(serial)
        return Entrant(unit, serial, unit.attempts.get(self._station.step, 0) + 1 if unit else 1)

    def _decide(self, life: PositionLife, entrant: Entrant, request: int | None, draft: Draft) -> Decision:
        """Decide, record, and say what people must know."""
        objections: list[tuple[str, str]] = []
        if self._gate.materials and entrant.serial is not None:
            unit = entrant.unit or Unit("", entrant.serial)
            objections = [one for part in life.parts for one in part.objections(life, unit, draft)]
        decision = decide(self._gate, self._floor, entrant, objections, draft.at)
        one = None if decision.permit or entrant.serial is None else self.passes.pop(entrant.serial, None)
        if one is not None and draft.at.mono_ns < one.until_mono_ns:
            decision = replace(decision, permit=True, basis="override", by=one.by)
        cycle = life.cycle
        if cycle is not None and cycle.id == entrant.cycle:
            cycle.let_in = decision.permit or bool(cycle.let_in)
        self._record(life, entrant, decision, request, draft)
        return decision

    def _record(
        self, life: PositionLife, entrant: Entrant, decision: Decision, request: int | None, draft: Draft
    ) -> None:
        verdict, gate = "permit" if decision.permit else "block", draft.next_id
        optional = {
            "request": request, "cycle": entrant.cycle, "unit": entrant.unit.unit if entrant.unit else None,
            "serial": entrant.serial, "by": decision.by,
            "as_of_ns": None if decision.as_of_ns is None else str(decision.as_of_ns),
        }  # fmt: skip
        reasons = [{"code": reason.code, "text": reason.text} for reason in decision.reasons]
        body = {
            "gate": gate, "station": self._station.name, "position": life.plan.number, "verdict": verdict,
            "code": decision.code, "reasons": reasons, "basis": decision.basis,
        }  # fmt: skip
        body |= {key: value for key, value in optional.items() if value is not None}
        seq = draft.add(Kind.GATE, self._station.name, body)
        self.counts[verdict] += 1
        self._last[life.plan.number] = body | {"at_ns": str(draft.at.at_ns), "text": decision.text}
        if decision.open or not decision.permit:
            code, what = ("gate_open", "permitted on what is too old") if decision.open else ("gate_blocked", "blocked")
            text = f"{life.name}: {entrant.serial or 'a unit'} was {what}: {decision.text}"
            details = {"gate": gate, "code": decision.code, "reasons": [one.code for one in decision.reasons]}
            report(
                draft, self._station.name, code, text, evidence=[seq], cycle=entrant.cycle, position=life.plan.number,
                serial=entrant.serial, details=details,
            )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        shown = ("verdict", "code", "basis", "serial", "request", "at_ns", "text", "by")
        last = {str(number): {key: one.get(key) for key in shown} for number, one in sorted(self._last.items())}
        return {"gate": {"last": last, "counts": dict(self.counts), "overrides": sorted(self.passes)}}


@dataclass(frozen=True, slots=True)
class Override:
    """Let ``serial`` in at ``station``, once, within ``minutes``."""

    serial: str
    station: str
    minutes: float
    who: str
    reason: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Note it, with its audit record. Raises ActionRefused."""
        keepers = {
            name: part for name, life in floor.stations.items() for part in life.parts if isinstance(part, Gatekeeper)
        }
        if self.station not in keepers:
            hint = f"gates stand at {', '.join(sorted(keepers))}" if keepers else "add a section gate: to the station"
            raise ActionRefused(f"{self.station} has no gate", hint=hint)
        if floor.units.find(self.serial) is None and floor.units.find(self.serial, "lot") is None:
            hint = "check the spelling; a new unit is known once it was scanned"
            raise ActionRefused(f"no step has ever seen {self.serial}", hint=hint)
        passes = keepers[self.station].passes
        if len(passes) >= PASSES and self.serial not in passes:
            raise ActionRefused(
                f"{PASSES} overrides are open at {self.station}", hint="wait until some are used or over"
            )
        minutes_ns = int(self.minutes * 60e9)
        new = {"station": self.station, "serial": self.serial, "until_ns": str(draft.at.at_ns + minutes_ns)}
        body = {"who": self.who, "action": "gate_override", "reason": self.reason, "new": new}
        draft.add(Kind.AUDIT, "agent", body)
        passes[self.serial] = Pass(draft.at.mono_ns + minutes_ns, self.who, self.reason)
        return new
