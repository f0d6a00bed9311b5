"""The life of one position: at most one open cycle, from opening to closing, with the records that tell of it.

Rules kept here, whoever calls:

- A cycle opens with ``cycle_opened`` and its first ``binding``, and closes with one ``cycle_closed``.
- Only a state of ``bound`` puts a unit into a record; every doubt makes it ``ambiguous``, with the unit as candidate.
- An interrupted cycle is never closed as anything but ``interrupted`` (or ``blocked``), as of the gap's beginning.
- What finished after the end is not the cycle's, unless its own trigger caused the read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_agent.binding.carriers import Carriers
from edge_agent.binding.context import StationContext
from edge_agent.binding.cycle import Cycle, Window
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.holds import Holds
from edge_agent.binding.judge import Judgement, judge
from edge_agent.binding.part import Part
from edge_agent.binding.plan import Characteristic, Position, Station
from edge_agent.binding.state import BLOCKED, ActiveMaterial, Lookup, OpenCycle, RecentCycle, StepResult
from edge_agent.binding.status import StatusCache
from edge_agent.binding.storing import GroupStore
from edge_agent.binding.trigger import Ended, Trigger
from edge_agent.binding.units import Unit, Units
from edge_agent.model import BindingState, Instant, Kind, Result, Sample, Value

if TYPE_CHECKING:
    from edge_agent.binding.shift import Shift
    from edge_agent.binding.station import StationLife

CYCLE_NUMBER = "cycle_number"  # the context item that carries resume.cycle_number over a restart


@dataclass(slots=True)
class Floor:
    """What all stations of one binder share."""

    log: str
    config: str
    units: Units
    stores: dict[str, GroupStore]
    lookup: Lookup
    stations: dict[str, StationLife] = field(default_factory=dict)
    holds: Holds = field(default_factory=Holds)
    status: StatusCache = field(init=False)  # of units, as others say it
    materials: tuple[ActiveMaterial, ...] = ()  # that were loaded when the last log ended
    recent: tuple[RecentCycle, ...] = ()  # that closed last before this start
    where: dict[str, list[PositionLife]] = field(default_factory=dict)  # serial -> positions with its cycle open
    carriers: Carriers = field(init=False)
    registers: dict[str, Shift] = field(default_factory=dict)  # by name
    dark_ns: int = 0  # how long nobody watched before this start

    def __post_init__(self) -> None:
        self.status = StatusCache(self.lookup)
        self.carriers = Carriers(self.lookup, self.units)

    def heard_of(self, serial: str, kind: str = "serial") -> bool:
        """Whether any step, here or elsewhere, ever saw this unit."""
        return self.units.find(serial, kind) is not None or bool(self.status.of(serial))


@dataclass(slots=True)
class Waiting:
    """A scan (or a carrier's, or a step of a register) that waits for the ending tag to be read."""

    identifiers: dict[str, str]  # of the unit; without its name: nobody is here, as far as is known
    at: Instant
    seq: int
    blind: bool = False  # the PLC had not been seen when it came
    fresh: bool = False  # a read that began after the scan has shown the tag
    away: str = ""  # the device that was lost while it waited, or silent until just before: who was there was not seen
    rule: str = "scan"  # or carrier, register
    doubt: str = ""  # why nobody can tell which of ``candidates`` is here; nobody is named then
    candidates: tuple[dict[str, str], ...] = ()
    evidence: tuple[int, ...] = ()  # beside ``seq``
    left: Instant | None = None  # until then the unit before was surely here; None: until ``at``

    @property
    def name(self) -> str:
        """The serial or lot, for texts."""
        return self.identifiers.get("serial") or self.identifiers.get("lot") or "nobody known"


class PositionLife:
    """One position of a station. ``trigger``: what ends its cycles; None: only scans and the time-out do."""

    def __init__(
        self, floor: Floor, station: Station, plan: Position, context: StationContext, trigger: Trigger | None
    ) -> None:
        self.plan = plan
        self.station = station
        self.trigger = trigger
        self.cycle: Cycle | None = None
        self.waiting: deque[Waiting] = deque()
        self.counts: Counter[str] = Counter()
        self.last: dict[str, str] | None = None  # the unit before, as candidate
        self.parts: Sequence[Part] = ()  # the station's
        self.stalled: Instant | None = None  # when a silence of the trigger was noticed last
        self.read_mono_ns = 0  # when the newest read began that showed the ending tag, and no end still to settle
        self._floor = floor
        self._context = context
        self._number: tuple[int, Value] | None = None  # (mono, value) of resume.cycle_number, since the last gap

    @property
    def name(self) -> str:
        """For texts: "OP20" or "OP30 position 2"."""
        many = len(self.station.positions) > 1
        return f"{self.station.name} position {self.plan.number}" if many else self.station.name

    # --- opening -----------------------------------------------------------------------------------------------

    def open(
        self, draft: Draft, opened_by: str, unit: Unit | None, evidence: Sequence[int], *,
        scanned: Instant | None = None, attempt: bool = True,
    ) -> Cycle:  # fmt: skip
        """Open a cycle as of ``draft.at``. Its binding is still to be said with :meth:`bind`."""
        context = self._context.snapshot()
        if self._number is not None and CYCLE_NUMBER not in context and self.plan.resume.cycle_number is not None:
            since_ns = draft.at.at_ns - (draft.at.mono_ns - self._number[0])
            source = self.plan.resume.cycle_number.name
            context[CYCLE_NUMBER] = {"value": self._number[1], "source": source, "since_ns": str(since_ns)}
        seen_mono_ns = (scanned or draft.at).mono_ns
        cycle = Cycle(
            id=draft.next_id,
            opened_at_ns=draft.at.at_ns,
            opened_by=opened_by,
            context=context,
            attempt=unit.attempt(self.station.step) if unit is not None and attempt else None,
            deadline_mono_ns=draft.at.mono_ns + int(self.station.timeout_s * 1e9),
            watched_from_mono_ns=draft.at.mono_ns,
            scanned_mono_ns=seen_mono_ns,
            counter_from_mono_ns=seen_mono_ns,
            unit=unit,
        )
        if self._number is not None:
            cycle.numbers.append(self._number)
        body = self._head(cycle) | {
            "opened_by": opened_by, "attempt": cycle.attempt, "context": context, "evidence": list(evidence)
        }  # fmt: skip
        draft.add(Kind.CYCLE_OPENED, self.station.name, body)
        self.counts["cycles"] += 1
        self._enter(cycle)
        return cycle

    def restore(self, old: OpenCycle, now: Instant) -> None:
        """Take over a cycle that was open when the last log ended. It starts interrupted; so does its time-out."""
        kind = "lot" if self.station.of == "lot" else "serial"
        unit = self._floor.units.restored(old.unit, old.serial, kind) if old.unit and old.serial else None
        state = BindingState(old.binding_state or (BindingState.BOUND if unit else BindingState.PENDING))
        cycle = Cycle(
            id=old.cycle,
            opened_at_ns=old.opened_at_ns,
            opened_by=old.opened_by,
            context={name: dict(item) for name, item in old.context.items()},
            attempt=old.attempt,
            deadline_mono_ns=now.mono_ns + int(self.station.timeout_s * 1e9),
            watched_from_mono_ns=now.mono_ns,
            scanned_mono_ns=now.mono_ns,
            counter_from_mono_ns=now.mono_ns,
            unit=unit,
            state=state,
            binding=old.binding,
            let_in=old.let_in,
            windows={source: Window([list(pair) for pair in pairs]) for source, pairs in old.windows.items()},
        )
        if (number := cycle.context.get(CYCLE_NUMBER)) is not None and self.plan.resume.cycle_number is not None:
            cycle.numbers.append((now.mono_ns, number["value"]))
        self._enter(cycle)

    def bind(
        self, draft: Draft, state: BindingState, rule: str, evidence: Sequence[int], *,
        reason: str | None = None, candidates: Sequence[dict[str, str]] = (), by: str = "agent",
    ) -> None:  # fmt: skip
        """Say whose the open cycle is; supersedes what was said before."""
        cycle = self._open_cycle()
        supersedes, cycle.binding, cycle.state = cycle.binding, draft.next_id, state
        if state is not BindingState.BOUND and not candidates and cycle.unit is not None:
            candidates = [{"unit": cycle.unit.unit, "serial": cycle.unit.serial}]
        if state is not BindingState.BOUND and cycle.unit is not None:
            self._floor.units.outdate(cycle.unit)  # it was counted as an attempt
        cycle.candidates = list(candidates)
        body: dict[str, Any] = {"binding": cycle.binding, "cycle": cycle.id, **self._whose(cycle), "rule": rule}
        if reason:
            body["reason"] = reason
        body |= {"candidates": cycle.candidates, "evidence": list(evidence)}
        if supersedes:
            body["supersedes"] = supersedes
        draft.add(Kind.BINDING, self.station.name, body | {"by": by})
        for part in self.parts:
            if supersedes is None:
                part.opened(self, cycle, draft)
            else:
                part.rebound(self, cycle, draft)

    def assign(self, unit: Unit | None) -> None:
        """Another unit is the open cycle's, or none; its binding is still to be said with :meth:`bind`."""
        cycle = self._open_cycle()
        self._forget_place(cycle)
        if cycle.unit is not None:
            self._floor.units.outdate(cycle.unit)
        cycle.unit = unit
        cycle.attempt = unit.attempt(self.station.step) if unit is not None else None
        self._note_place(cycle)

    # --- gaps --------------------------------------------------------------------------------------------------

    def interrupt(self, draft: Draft, since: Instant, cause: str, device: str) -> None:
        """Nobody watched from ``since`` until ``draft.at``: another unit may have taken the place."""
        self._number = None
        cycle = self.cycle
        if cycle is None:
            return
        known = cycle.suspended
        cycle.interrupt(since, draft.at)
        for part in self.parts:
            part.interrupted(self, cycle, draft)
        if known:
            return
        self.counts["interrupted"] += 1
        report(
            draft, self.station.name, "observation_gap",
            f"{self.name}: {device} was not observed ({cause}), {cycle.serial or 'the unit'} may have been taken away",
            cycle=cycle.id, position=self.plan.number, serial=cycle.serial,
            details={
                "cause": cause, "device": device, "since_ns": str(since.at_ns),
                "cycles": [cycle.id], "windows": _ranges(cycle),
            },
        )  # fmt: skip

    def resume(self, draft: Draft, rule: str, evidence: Sequence[int]) -> None:
        """There is evidence that the unit stayed: go on, with a new binding and new windows."""
        cycle = self._open_cycle()
        cycle.resume(rule, draft.at)
        self.counts["resumed"] += 1
        self.bind(draft, cycle.state, rule, evidence, candidates=cycle.candidates)

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        """Look at the tags that may let an interrupted cycle go on."""
        source = sample.tagset.source
        number, serial = self.plan.resume.cycle_number, self.plan.resume.serial
        cycle = self.cycle
        if number is not None and number.group == source and (value := sample.values[number.index]) is not None:
            if self._number is None or self._number[1] != value:
                self._number = (sample.at.mono_ns, value)
            if cycle is not None:
                before = cycle.numbers[-1][1] if cycle.numbers else None
                self._weigh(cycle, "resume:cycle_number", before == value, sample, seq, draft)
                if cycle.owns(sample) and before != value:
                    cycle.numbers.append((sample.at.mono_ns, value))
        if serial is not None and serial.group == source and (text := plc_text(sample.values[serial.index])) and cycle:
            same = text == cycle.serial and cycle.state is BindingState.BOUND
            self._weigh(cycle, "resume:serial", same, sample, seq, draft)

    def _weigh(self, cycle: Cycle, rule: str, same: bool, sample: Sample, seq: int, draft: Draft) -> None:
        """One tag's word on an open cycle: resume, keep, or (where it was resumed on this tag) interrupt again."""
        if cycle.suspended:
            if same and sample.started_mono_ns >= cycle.evidence_from_mono_ns:
                self.resume(draft, rule, [seq])
        elif cycle.resumed_by == rule:
            if same:
                cycle.confirmed = sample.at
            else:
                self.interrupt(draft, cycle.confirmed or draft.at, "another unit", sample.tagset.device)

    # --- closing -----------------------------------------------------------------------------------------------

    def close(
        self, draft: Draft, closed_by: str, ended: Instant, *, judged: bool, result: Ended | None = None,
        evidence: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Close the open cycle as of ``ended``. Not ``judged``: Aborted, whatever was collected; Skipped if blocked."""
        cycle = self._open_cycle()
        if cycle.turn_away(self.station.step, closed_by):
            closed_by, judged = BLOCKED, False
        if cycle.state is BindingState.PENDING and not judged:
            reason = "its end was not seen, so no scan can be this unit's"
            self.bind(draft, BindingState.ORPHAN, closed_by, evidence, reason=reason)
        if not cycle.suspended:
            cycle.trim(ended.mono_ns)
        samples = {source: window.latest for source, window in cycle.windows.items()}
        if result is not None and result.sample is not None:
            source = result.sample.tagset.source
            samples[source] = result.sample
            if source in self.plan.claims:
                cycle.windows.setdefault(source, Window()).include(result.seq)
        collect: Sequence[Characteristic] = self.plan.collect
        for part in self.parts:
            collect = part.collect(cycle, collect)
        seen = {source: sample for source, sample in samples.items() if sample is not None}
        judgement = judge(self.plan, seen, collect)
        if result is not None and result.torn:
            judgement.suspect.append("torn_read")
        if not judged:
            judgement.result = Result.SKIPPED if cycle.blocked else Result.ABORTED
        for part in self.parts:
            part.closing(self, cycle, judgement, draft)
        body = self._head(cycle) | self._closing(cycle, closed_by, ended, judgement, judged, result)
        draft.add(Kind.CYCLE_CLOSED, self.station.name, body)
        self.counts[cycle.state.value] += 1
        self.last = None if cycle.unit is None else {"unit": cycle.unit.unit, "serial": cycle.unit.serial}
        self._leave(cycle)
        cycle.done = StepResult(judgement.result.value, body["complete"], ended.at_ns, cycle.id, "")
        if cycle.state is BindingState.BOUND and cycle.unit is not None and not cycle.blocked:
            cycle.unit.results[self.station.step] = cycle.done
        if judged:
            self._report_judgement(draft, cycle, judgement, evidence)
        for part in self.parts:
            part.closed(self, cycle, draft)

    def close_interrupted(self, draft: Draft) -> None:
        """Close the interrupted cycle: no evidence came that its unit stayed."""
        cycle = self._open_cycle()
        assert cycle.interrupted is not None, "only an interrupted cycle closes so"
        self.close(draft, "interrupted", cycle.interrupted, judged=False)

    def _closing(
        self, cycle: Cycle, closed_by: str, ended: Instant, judgement: Judgement, judged: bool, result: Ended | None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "opened_at_ns": str(cycle.opened_at_ns),
            "ended_at_ns": str(max(ended.at_ns, cycle.opened_at_ns)),
            "closed_by": closed_by,
            "result": judgement.result.value,
            "complete": judged and not judgement.missing,
            "missing": judgement.missing,
            "completeness": _completeness(judgement, judged),
            "suspect": judgement.suspect,
            "collected": judgement.collected,
            "context": self._context.snapshot() | cycle.remarks,
        }
        if result is not None and result.counter is not None:
            body |= {"counter": result.counter, "epoch": result.epoch}
        if result is not None and result.message is not None:
            body["message"] = result.message
        if judgement.defects:
            body["defects"] = judgement.defects
        if judgement.materials:
            body["materials"] = judgement.materials
        return body | {
            "attempt": cycle.attempt,
            "windows": _ranges(cycle),
            "binding": self._whose(cycle),
        }

    def _report_judgement(self, draft: Draft, cycle: Cycle, judgement: Judgement, evidence: Sequence[int]) -> None:
        who = cycle.serial or "an unknown unit"
        found: list[tuple[str, str, dict[str, Any]]] = []
        if judgement.missing:
            names = ", ".join(judgement.missing)
            found.append(("missing_field", f"{self.name}: {names} missing for {who}", {"missing": judgement.missing}))
        if judgement.violated and judgement.by_plc and judgement.result is Result.PASSED:
            names = ", ".join(judgement.violated)
            text = f"{self.name}: the PLC passed {who} with {names} outside its limits"
            found.append(("limit_violated", text, {"violated": judgement.violated}))
        if judgement.unmapped is not None:
            text = f"{self.name}: the PLC's verdict {judgement.unmapped!r} has no meaning here"
            found.append(("unmapped_code", text, {"value": judgement.unmapped}))
        for code, text, details in found:
            report(
                draft, self.station.name, code, text, evidence=evidence, cycle=cycle.id,
                position=self.plan.number, serial=cycle.serial, details=details,
            )  # fmt: skip

    # --- bookkeeping -------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """What ``status`` shows of this position."""
        cycle = self.cycle
        return {
            "cycle": cycle.id if cycle else None,
            "serial": cycle.serial if cycle else None,
            "binding_state": cycle.state.value if cycle else None,
            "interrupted": cycle.suspended if cycle else False,
            "handshake": self.trigger.label if self.trigger else None,
            "counts": dict(self.counts),
        }

    def _head(self, cycle: Cycle) -> dict[str, Any]:
        return {
            "cycle": cycle.id,
            "config": self._floor.config,
            "station": self.station.name,
            "step": self.station.step,
            "position": self.plan.number,
        }

    def _whose(self, cycle: Cycle) -> dict[str, Any]:
        if cycle.state is BindingState.BOUND and cycle.unit is not None:
            return {"state": cycle.state.value, "unit": cycle.unit.unit, "serial": cycle.unit.serial}
        return {"state": cycle.state.value}

    def _open_cycle(self) -> Cycle:
        assert self.cycle is not None, f"{self.name} has no open cycle"
        return self.cycle

    def _claimed(self) -> list[GroupStore]:
        """Groups whose samples extend the windows. The trigger's result group is not: only what it asks for counts."""
        read, stores = self.trigger.read if self.trigger else None, self._floor.stores
        return [stores[source] for source in self.plan.claims if source != read and source in stores]

    def _enter(self, cycle: Cycle) -> None:
        self.cycle = cycle
        for store in self._claimed():
            store.claimants.append(cycle)
        self._note_place(cycle)

    def _leave(self, cycle: Cycle) -> None:
        self.cycle = None
        for store in self._claimed():
            store.claimants.remove(cycle)
        self._forget_place(cycle)

    def _note_place(self, cycle: Cycle) -> None:
        if cycle.serial and self.station.of != "lot":  # a lot may be at many places
            self._floor.where.setdefault(cycle.serial, []).append(self)

    def _forget_place(self, cycle: Cycle) -> None:
        if cycle.serial and self.station.of != "lot":
            here = self._floor.where[cycle.serial]
            here.remove(self)
            if not here:
                del self._floor.where[cycle.serial]


def _ranges(cycle: Cycle) -> dict[str, list[list[int]]]:
    return {source: [list(pair) for pair in window.ranges] for source, window in cycle.windows.items() if window.ranges}


def _completeness(judgement: Judgement, judged: bool) -> str:
    """complete; incomplete: ``missing`` says what; suspect: ``suspect`` says why it may not be this unit's."""
    if judgement.suspect:
        return "suspect"
    return "complete" if judged and not judgement.missing else "incomplete"


def plc_text(value: Value) -> str:
    """A serial as a PLC holds it: fixed length, padded with blanks or NULs; 0 or nothing is an empty nest."""
    if value is None or isinstance(value, list) or value == 0:
        return ""
    return str(value).strip(" \0")
