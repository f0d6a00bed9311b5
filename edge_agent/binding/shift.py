"""A register's slots, mirrored from its index: what is in each, how sure that is. All stations at it share it.

Units are scanned at the entry. With each step of the index everything moves on by one slot, and what was scanned at the
entry since the step before is in slot 1. What is in a slot is one unit; or nothing, as far as anybody scanned; or it is
in doubt, and then it has candidates:

========================================  =======================================================================
what happens                              what is known then
========================================  =======================================================================
no scan between two steps                 nothing: an empty slot, or a missed scan
two units scanned between two steps       either of them is in slot 1
a scan while the register steps           it is in slot 1 or in the one that follows
the label of a unit in a slot once more   nothing new: it is there
the agent starts, the index is lost or    every slot is in doubt, the unit at the entry too: units are taken out,
silent, its counter jumps                 put in and swapped while nobody looks, however well the steps are counted
a scan after the counter jumped           that unit is at the entry
the entry's reader is lost                who is at the entry is in doubt
a reader at a slot names a unit there     that slot is sure; if another unit should be there, all others are in doubt
a unit is scanned as taken out            its slot is empty
========================================  =======================================================================

A step lies somewhere between the last read that did not show it and the first that does. A signal that is shorter than
the poll may be missed without a trace; a counter of steps shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.part import ScanAt
from edge_agent.binding.places import Register
from edge_agent.model import Instant, Sample, Value

AT_ENTRY = 8  # scans of one interval that are told apart; more are in doubt anyway

Unit = dict[str, str]  # identifiers; the serial is among them


@dataclass(frozen=True, slots=True)
class Content:
    """What is in one slot. ``doubt``: why it may be another, or nothing."""

    units: tuple[Unit, ...] = ()
    doubt: str = ""
    evidence: tuple[int, ...] = ()

    @property
    def sure(self) -> Unit | None:
        """The unit that is here."""
        return self.units[0] if len(self.units) == 1 and not self.doubt else None

    def names(self, serial: str) -> bool:
        """Whether it is, or may be, this unit."""
        return any(unit["serial"] == serial for unit in self.units)


@dataclass(frozen=True, slots=True)
class Step:
    """The register moved, after ``left`` and before ``at``."""

    left: Instant
    at: Instant
    seq: int  # the sample that shows it


class Shift:
    """See the module docstring."""

    def __init__(self, plan: Register) -> None:
        self.plan = plan
        self.slots = [Content() for _ in range(plan.slots)]
        self._scans: list[tuple[Unit, int]] = []  # at the entry since the last step
        self._coming: list[tuple[Unit, ScanAt]] = []  # not yet known on which side of a step they lie
        self._taint = Content()  # who may be at the entry beside them, and why
        self._unless_scanned = False  # the taint is only of who was not scanned since
        self._value: Value = None  # of the index; None: not seen since the last gap
        self._stood: Instant | None = None  # until then there was no further step
        self.stepped_mono_ns = 0  # the newest step was over by then
        self._shown: tuple[Sample, Step | None] | None = None
        self._scanned = 0  # seq of the newest scan
        self._told = 0  # steps for which it is known that it is unsure: until every slot was filled anew

    @property
    def watched(self) -> bool:
        """The index was seen, and nothing has happened since that hides a step."""
        return self._value is not None

    # --- the index ---------------------------------------------------------------------------------------------

    def observe(self, sample: Sample, seq: int, station: str, draft: Draft) -> Step | None:
        """Take a sample of the index, once however many stations show it; the step that it shows, if any."""
        if self._shown is not None and self._shown[0] is sample:
            return self._shown[1]
        value = sample.values[self.plan.index.index]
        step = None
        if value is not None and not isinstance(value, (list, str)):
            step = self._moved(value, sample, seq, station, draft)
            self._stood = _start(sample)
            if step is None:
                self._settle(sample.started_mono_ns)
        self._shown = (sample, step)
        return step

    def _moved(self, value: Value, sample: Sample, seq: int, station: str, draft: Draft) -> Step | None:
        before, self._value = self._value, value
        if before is None or self._stood is None:
            return None
        steps = self._steps(before, value)
        if steps == 0:
            return None
        draft.keep()
        nobody = not (self._scans or self._coming or self._taint.units or self._taint.doubt)
        for _ in range(min(steps, self.plan.slots + 1)):
            self._advance(sample.at, seq)
        if steps > 1:
            self.doubt(f"its counter went from {before} to {value}", station, [seq], draft)
            self._value, self._unless_scanned = value, nobody
        self.stepped_mono_ns = sample.at.mono_ns
        return Step(self._stood or _start(sample), sample.at, seq)

    def _steps(self, before: Value, value: Value) -> int:
        assert isinstance(before, (int, float)) and isinstance(value, (int, float)), "an index is a number"
        if self.plan.bits == 0:
            return int(bool(value) and not bool(before))
        return int(value - before) % (1 << self.plan.bits)

    def _settle(self, mono_ns: int) -> None:
        """The register stood still until then: scans of before are of this interval."""
        settled = [(unit, scan.seq) for unit, scan in self._coming if scan.at.mono_ns <= mono_ns]
        self._coming = [one for one in self._coming if one[1].at.mono_ns > mono_ns]
        self._scans += settled
        if len(self._scans) > AT_ENTRY:
            del self._scans[1:-1]

    def _advance(self, at: Instant, seq: int) -> None:
        if self._stood is not None:
            self._settle(self._stood.mono_ns)
        undecided = [(unit, scan.seq) for unit, scan in self._coming if scan.at.mono_ns <= at.mono_ns]
        self._coming = [one for one in self._coming if one[1].at.mono_ns > at.mono_ns]
        found = [*((unit, seq) for unit in self._taint.units), *self._scans, *undecided]
        units = tuple({unit["serial"]: unit for unit, _ in found}.values())
        evidence = tuple(sorted({seq, *(one for _, one in found)}))
        doubt = "" if self._unless_scanned and len(units) == 1 and not undecided else self._taint.doubt
        self._unless_scanned = False
        if undecided:
            doubt = doubt or "it was scanned while the register stepped"
        elif len(units) > 1:
            doubt = doubt or "two units were scanned at the entry between two steps"
        elif any(slot.names(unit["serial"]) for unit in units for slot in self.slots):
            doubt = doubt or "the same serial may be in another slot"
        self.slots = [Content(units, doubt, evidence), *self.slots[:-1]]
        self._scans = []
        late = tuple(unit for unit, _ in undecided)
        self._taint = Content(late, "the register stepped while it was scanned") if late else Content()
        self._told = max(0, self._told - 1) if any(slot.doubt for slot in self.slots) else 0

    # --- scans -------------------------------------------------------------------------------------------------

    def entered(self, unit: Unit, scan: ScanAt) -> None:
        """A unit was scanned at the entry."""
        if scan.seq == self._scanned:
            return  # another station said so
        self._scanned = scan.seq
        if any(slot.sure is not None and slot.names(unit["serial"]) for slot in self.slots):
            return
        if scan.at.mono_ns <= self.stepped_mono_ns:  # heard late: of the interval before the step, or of this one
            self._taint = Content((*self._taint.units, unit), "the register stepped while it was scanned")
            self.slots[0] = replace(self.slots[0], units=(*self.slots[0].units, unit), doubt=self._taint.doubt)
        else:
            self._coming = [*self._coming[-AT_ENTRY:], (unit, scan)]

    def resync(self, number: int, unit: Unit, seq: int, station: str, draft: Draft) -> None:
        """This unit was read in slot ``number``."""
        serial, here = unit["serial"], self.slots[number - 1]
        others = [slot for slot in self.slots if slot is not here and slot.sure is not None and slot.names(serial)]
        if others or (here.sure is not None and not here.names(serial)):
            instead = (
                f", where {here.sure['serial']} should be" if here.sure is not None else " and should be in another"
            )
            value = self._value
            self.doubt(f"{serial} was read in slot {number}{instead}", station, [seq], draft)
            self._value = value
        self.slots[number - 1] = Content((unit,), "", (seq,))

    def removed(self, serial: str) -> None:
        """This unit was taken out."""
        for number, slot in enumerate(self.slots):
            if slot.names(serial):
                units = tuple(unit for unit in slot.units if unit["serial"] != serial)
                self.slots[number] = replace(slot, units=units)
        self._scans = [one for one in self._scans if one[0]["serial"] != serial]
        self._coming = [one for one in self._coming if one[0]["serial"] != serial]

    def corrected(self, serial: str) -> None:
        """A person said that it was another unit at one of the slots: so it may be where it is now."""
        reason = f"that {serial} was there was corrected by hand"
        self.slots = [replace(slot, doubt=slot.doubt or reason) if slot.names(serial) else slot for slot in self.slots]

    # --- doubt -------------------------------------------------------------------------------------------------

    def doubt(self, reason: str, station: str, evidence: list[int], draft: Draft) -> None:
        """Nobody knows any more what is where."""
        self.slots = [replace(slot, doubt=slot.doubt or reason) for slot in self.slots]
        self.doubt_entry(reason)
        self._value = None
        told, self._told = self._told, self.plan.slots + 1
        if not told:
            report(
                draft, station, "register_unsure",
                f"register {self.plan.name}: {reason}; {self.plan.slots} slots are in doubt until they are filled anew",
                evidence=evidence, details={"register": self.plan.name, "slots": self.plan.slots},
            )  # fmt: skip

    def doubt_entry(self, reason: str) -> None:
        """Who is at the entry may be another."""
        units = [*self._taint.units, *(unit for unit, _ in self._scans), *(unit for unit, _ in self._coming)]
        self._taint = Content(tuple({unit["serial"]: unit for unit in units}.values()), self._taint.doubt or reason)
        self._scans, self._coming, self._unless_scanned = [], [], False


def _start(sample: Sample) -> Instant:
    """When this read began: it cannot show what came later."""
    return Instant(sample.at.at_ns - (sample.at.mono_ns - sample.started_mono_ns), sample.started_mono_ns)
