"""A station at a slot of a register: with each step the unit before has left and the one in the slot is here.

What is in the slot stands in :mod:`edge_agent.binding.shift`. A cycle opens with the step and ends with the station's
own end, or the next step. In doubt it opens ambiguous, with the candidates; where nobody was scanned none opens, and
work that a PLC ends there is an orphan (``skipped_scan``). After a gap of the index the cycle is interrupted, and
what is in the slot then gets a cycle in doubt: so what is read there can be bound by hand.

A reader at the slot (``scan:``) names the unit in it. Its scan counts once a read of the index shows that the
register did not step meanwhile; one that lies in a step is dropped (``unmatched_scan``).
"""

from __future__ import annotations

from typing import Any

from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.places import Slot
from edge_agent.binding.plan import TagRef
from edge_agent.binding.position import Floor, PositionLife, Waiting
from edge_agent.binding.seen import Seen
from edge_agent.binding.shift import Shift
from edge_agent.binding.state import KnownCycle
from edge_agent.binding.trigger import device_of
from edge_agent.model import BindingState, Instant, Sample


class RegisterSlot(Part):
    """See the module docstring. A station at a register has one position."""

    def __init__(self, floor: Floor, plan: Slot, life: PositionLife) -> None:
        self._floor = floor
        self._plan = plan
        self._life = life
        self._shift = floor.registers.setdefault(plan.register.name, Shift(plan.register))
        self._named: tuple[dict[str, str], ScanAt] | None = None  # by the reader at the slot, not yet believed
        self._reopen = False  # nobody watched: who is here needs a cycle of its own

    def watched(self) -> set[str]:
        return {self._plan.register.index.group}

    def delimiting(self) -> list[TagRef]:
        return [self._plan.register.index]

    def scanners(self) -> set[str]:
        return {reads.scanner for reads in self._reads()}

    def _reads(self) -> list[Any]:
        register = self._plan.register
        return [reads for reads in (register.entry, register.remove, self._plan.resync) if reads is not None]

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        for reads in self._reads():
            if (found := reads.match(device, seen)) is not None:
                return dict(found)
        return None

    # --- scans -------------------------------------------------------------------------------------------------

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        register = self._plan.register
        if scan.device == register.entry.scanner:
            self._shift.entered(found, scan)
        elif self._plan.resync is not None and scan.device == self._plan.resync.scanner:
            self._named = (found, scan)
        else:
            self._remove(found["serial"], scan, draft)

    def _remove(self, serial: str, scan: ScanAt, draft: Draft) -> None:
        self._shift.removed(serial)
        for waiting in self._life.waiting:
            if waiting.identifiers.get("serial") == serial:
                waiting.identifiers = {}
        cycle = self._life.cycle
        if cycle is not None and cycle.serial == serial:
            if cycle.suspended:
                self._life.close_interrupted(draft)
            else:
                self._life.close(draft, "cancelled", scan.at, judged=False, evidence=[scan.seq])

    def rebound(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        sure = self._shift.slots[self._plan.number - 1].sure
        said = cycle.state in (BindingState.BOUND, BindingState.VOIDED) and not life.waiting
        if said and sure is not None and sure["serial"] != cycle.serial:
            self._shift.corrected(sure["serial"])

    def decided(self, known: KnownCycle, serial: str | None, draft: Draft) -> None:
        if known.serial is not None and known.serial != serial:
            self._shift.corrected(known.serial)

    # --- the index ---------------------------------------------------------------------------------------------

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        if sample.tagset.source != self._plan.register.index.group:
            return
        known = self._shift.watched
        step = self._shift.observe(sample, seq, self._life.station.name, draft)
        self._believe(sample, stepped=step is not None, draft=draft)
        if step is not None:
            self._arrive(step.at, seq, step.left, draft)
        elif self._reopen and known and self._shift.watched:
            self._reopen = False
            self._reopened(sample, seq, draft)

    def _believe(self, sample: Sample, *, stepped: bool, draft: Draft) -> None:
        """The reader at the slot named a unit: was it still, or already, the one that is there now?"""
        if self._named is None or (not stepped and self._named[1].at.mono_ns > sample.started_mono_ns):
            return
        (found, scan), self._named = self._named, None
        station = self._life.station.name
        if stepped or scan.at.mono_ns <= self._shift.stepped_mono_ns:
            report(
                draft, station, "unmatched_scan",
                f"{station}: {found['serial']} was read while the register stepped: it may be in this slot or the next",
                evidence=[scan.seq], serial=found["serial"],
            )  # fmt: skip
            return
        cycle = self._life.cycle
        if cycle is not None and cycle.state is BindingState.BOUND and cycle.serial != found["serial"]:
            self._contradict(cycle, found["serial"], scan, draft)
        self._shift.resync(self._plan.number, found, scan.seq, station, draft)
        self._reopen = False
        for waiting in self._life.waiting:
            if waiting.rule == "register":
                waiting.identifiers, waiting.doubt = {}, ""
        self._floor.stations[station].arrive(self._life, Waiting(dict(found), scan.at, scan.seq), draft)

    def _contradict(self, cycle: Cycle, serial: str, scan: ScanAt, draft: Draft) -> None:
        """Who was here until now was not the unit that the register said."""
        before = [] if cycle.unit is None else [{"unit": cycle.unit.unit, "serial": cycle.unit.serial}]
        candidates = [*before, self._candidate(serial)]
        reason = f"{serial} was read here"
        self._life.bind(
            draft, BindingState.AMBIGUOUS, "register", [scan.seq], reason=reason, candidates=candidates
        )  # fmt: skip

    def _arrive(self, at: Instant, seq: int, left: Instant, draft: Draft) -> None:
        """Who is in the slot now."""
        self._reopen = False
        content = self._shift.slots[self._plan.number - 1]
        sure = content.sure
        waiting = Waiting(
            dict(sure) if sure is not None else {}, at, seq, rule="register", doubt=content.doubt,
            candidates=tuple(self._candidate(unit["serial"]) for unit in content.units) if sure is None else (),
            evidence=content.evidence, left=left,
        )  # fmt: skip
        self._floor.stations[self._life.station.name].arrive(self._life, waiting, draft)

    def _reopened(self, sample: Sample, seq: int, draft: Draft) -> None:
        """The index is seen again: whoever is here now, unless a tag may still tell that it is the same."""
        resume, cycle = self._life.plan.resume, self._life.cycle
        may_resume = cycle is not None and (resume.cycle_number is not None or resume.serial is not None)
        if not may_resume and (cycle is None or cycle.suspended):
            self._arrive(sample.at, seq, sample.at, draft)

    def _candidate(self, serial: str) -> dict[str, str]:
        unit = self._floor.units.find(serial)
        return {"serial": serial} if unit is None else {"unit": unit.unit, "serial": serial}

    # --- gaps --------------------------------------------------------------------------------------------------

    def start(self, draft: Draft) -> None:
        self._unsure("nobody watched before this start", draft)

    def gap(self, device: str, since: Instant, draft: Draft) -> None:
        if device == device_of(self._plan.register.index.group):
            self._unsure(f"{device} was not observed", draft)
        elif device == self._plan.register.entry.scanner:
            self._shift.doubt_entry(f"{device} was not observed")
        if self._plan.resync is not None and device == self._plan.resync.scanner:
            self._named = None

    def _unsure(self, reason: str, draft: Draft) -> None:
        self._shift.doubt(reason, self._life.station.name, [], draft)
        self._named, self._reopen = None, True

    def snapshot(self) -> dict[str, Any]:
        slots = [
            {"units": [unit["serial"] for unit in slot.units]} | ({"doubt": slot.doubt} if slot.doubt else {})
            for slot in self._shift.slots
        ]
        return {"register": {"name": self._plan.register.name, "slot": self._plan.number, "slots": slots}}
