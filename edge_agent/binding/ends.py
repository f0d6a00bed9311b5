"""Whose an end is.

The open cycle's, unless there is doubt: it was interrupted (then it closes so, and the end gets a cycle of its own,
orphan); the end came too soon after the scan; its values were torn; the counter shows that results went by unseen
while the unit was here, or that this one was there before the unit; the PLC was read so late after the next unit's scan
that the end may be that one's. Without an open cycle the scan was skipped.
Where the PLC's data names the unit, only torn data, a possible double and a serial in two places leave doubt.
Doubt makes the binding ambiguous: a wrong binding is worse than an unbound reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_agent.binding.batch import gone_unseen
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.plan import Station
from edge_agent.binding.position import Floor, PositionLife, plc_text
from edge_agent.binding.scan_out import displace
from edge_agent.binding.trigger import Counting, Ended, Trigger, device_of
from edge_agent.identify.patterns import identify
from edge_agent.model import BindingState, Instant, Kind

DOUBLES_IN_A_ROW = 3
LATE_NS = 250_000_000  # a read this long after a scan may show the end of the unit that was scanned


class Ends:
    """Settles the ends of one station's cycles."""

    def __init__(self, floor: Floor, plan: Station) -> None:
        self._floor = floor
        self._plan = plan
        self._doubles: dict[Trigger, int] = {}  # edges in a row whose counter stood still

    def settle(self, trigger: Trigger, lives: list[PositionLife], ended: Ended, draft: Draft) -> None:
        """One edge, one result read, one cycle for each position of the trigger."""
        if ended.counting is Counting.DOUBLE:
            self._double(trigger, lives, ended, draft)
            return
        self._doubles.pop(trigger, None)
        self._report_end(lives, ended, draft)
        lives = self._concerned(trigger, lives, ended)
        serials = [plc_text(self._serial_value(life, ended)) for life in lives]
        for life, serial in zip(lives, serials, strict=True):
            if self._plan.identity == "after":
                self._end_anonymous(life, ended, draft)
            elif self._plan.identity == "in_data":
                self._end_in_data(life, ended, serial, serials.count(serial) > 1, draft)
            else:
                self._end_scanned(trigger, life, ended, draft)
        if ended.counter is not None:
            self._count_empty({life.plan.number for life in lives}, ended, draft)

    def _count_empty(self, numbers: set[int], ended: Ended, draft: Draft) -> None:
        """If all places were empty, no cycle carries the counter over a restart: the sample does."""
        closed = (one.body for one in draft.records if one.kind is Kind.CYCLE_CLOSED and one.source == self._plan.name)
        if not any(body["position"] in numbers and "counter" in body for body in closed):
            draft.keep()
            place = {"station": self._plan.name, "position": min(numbers)}
            draft.counted.append(place | {"counter": ended.counter, "epoch": ended.epoch})

    def _concerned(self, trigger: Trigger, lives: list[PositionLife], ended: Ended) -> list[PositionLife]:
        """Where places may be empty (on a carrier, in an oven), an end that they share is of those that are not."""
        if len(lives) == 1 or (self._plan.batch is None and self._plan.of != "carrier"):
            return lives
        there = [life for life in lives if life.cycle is not None]
        for life in lives:
            if life not in there:
                self._seen_late(trigger, life, ended)
        return there or (lives if self._plan.batch is None else lives[:1])

    def _double(self, trigger: Trigger, lives: list[PositionLife], ended: Ended, draft: Draft) -> None:
        """Acknowledged again, not recorded. A counter that never moves would lose every result: say so."""
        for life in lives:
            life.counts["doubles"] += 1
        if ended.by == "message":
            if ended.torn:
                text = f"{lives[0].name}: the message {ended.torn}; the first one stands"
                report(draft, self._plan.name, "duplicate_message", text, evidence=ended.evidence)
            return
        self._doubles[trigger] = 0 if ended.level else self._doubles.get(trigger, 0) + 1
        if self._doubles[trigger] == DOUBLES_IN_A_ROW:
            report(
                draft, self._plan.name, "sequence_gap",
                f"{lives[0].name}: the PLC's counter stands at {ended.counter}; results are taken for doubles",
                evidence=ended.evidence, details={"counter": ended.counter},
            )  # fmt: skip

    def _report_end(self, lives: list[PositionLife], ended: Ended, draft: Draft) -> None:
        position = lives[0].plan.number if len(lives) == 1 else None
        name = lives[0].name if len(lives) == 1 else self._plan.name
        found: list[tuple[str, str]] = []
        if ended.counting is Counting.JUMP:
            found.append(("sequence_gap", f"{name}: {ended.missing} results before {ended.counter} were never seen"))
        if ended.counting is Counting.RESET:
            found.append(("counter_reset", f"{name}: the PLC's counter began anew at {ended.counter}"))
        if ended.torn:
            found.append(("torn_read", f"{name}: the result may be of two units: {ended.torn}"))
        for code, text in found:
            details = {"counter": ended.counter, "missing": ended.missing, "epoch": ended.epoch}
            report(draft, self._plan.name, code, text, evidence=ended.evidence, position=position, details=details)

    def _end_scanned(self, trigger: Trigger, life: PositionLife, ended: Ended, draft: Draft) -> None:
        """The end of a unit that a scan should have announced."""
        if self._seen_late(trigger, life, ended):
            self._end_undecided(life, ended, draft)
            return
        cycle = life.cycle
        if cycle is None and not ended.level:
            reason = "no unit was scanned before this end"
            self._orphan(life, ended, "skipped_scan", reason, BindingState.ORPHAN, (), draft)
            return
        if cycle is None or cycle.suspended:
            candidates = life.last if cycle is None and ended.counting is Counting.NONE else None
            if cycle is not None:
                life.close_interrupted(draft)
                candidates = life.last
            doubtful = ended.level and ended.counting is Counting.NONE
            reason = "it may have been recorded before" if doubtful else "the end of a unit that nobody saw arrive"
            state = BindingState.AMBIGUOUS if doubtful else BindingState.ORPHAN
            self._orphan(life, ended, "gap", reason, state, (candidates,) if candidates else (), draft)
            return
        if cycle.state is BindingState.BOUND and (doubt := self._doubt(trigger, cycle, ended)):
            rule, reason = doubt
            life.bind(draft, BindingState.AMBIGUOUS, rule, ended.evidence, reason=reason)
        self._close_ended(life, ended, draft)

    def _seen_late(self, trigger: Trigger, life: PositionLife, ended: Ended) -> bool:
        """The read that a scan waited for came so late that the end it shows may be the scanned unit's already.

        If so, those scans open their cycles interrupted: their unit may be done.
        """
        late = [scan for scan in life.waiting if ended.fired_at.mono_ns - scan.at.mono_ns > LATE_NS]
        for scan in late:
            scan.away = scan.away or device_of(trigger.watched)
        return bool(late)

    def _end_undecided(self, life: PositionLife, ended: Ended, draft: Draft) -> None:
        """The end is the unit's before, or the scanned one's: nobody can tell."""
        cycle, scan = life.cycle, life.waiting[0]
        scanned = [{"serial": scan.name}] if scan.identifiers else list(scan.candidates)
        reason = "the PLC was read so late after the next scan that this may be either unit's end"
        if cycle is None or cycle.suspended:
            if cycle is not None:
                life.close_interrupted(draft)
            self._orphan(life, ended, "late_read", reason, BindingState.AMBIGUOUS, scanned, draft)
            return
        before = [] if cycle.unit is None else [{"unit": cycle.unit.unit, "serial": cycle.unit.serial}]
        candidates = [*before, *scanned]
        life.bind(draft, BindingState.AMBIGUOUS, "late_read", ended.evidence, reason=reason, candidates=candidates)
        self._close_ended(life, ended, draft)

    def _doubt(self, trigger: Trigger, cycle: Cycle, ended: Ended) -> tuple[str, str] | None:
        """Why this end may not be the open cycle's: (rule, reason)."""
        if ended.torn:
            return "torn_read", ended.torn
        if ended.level and ended.counting is Counting.NONE:
            return "gap", "without a counter it may have been recorded before"
        if ended.fired_at.mono_ns - cycle.scanned_mono_ns < self._plan.min_s * 1e9:
            return "min_time", f"the end came within {self._plan.min_s:g} s of the scan"
        seen = cycle.counter_seen
        if ended.counter is None:
            return None
        if ended.counting is Counting.RESET and ended.counter <= 1 and ended.counter != seen:
            return None  # the first of its epoch
        if seen is None:
            certain, why = ended.counting in (Counting.NEXT, Counting.FIRST), "results before it were never seen"
        else:
            certain, why = trigger.follows(ended.counter, seen), f"it stood at {seen} when the unit was already here"
        return None if certain else ("sequence_gap", f"the PLC's counter is {ended.counter}, and {why}")

    def _close_ended(self, life: PositionLife, ended: Ended, draft: Draft) -> None:
        """The cycle ended when the trigger fired, or when the next unit was scanned, whichever came first."""
        at = ended.fired_at
        if life.waiting:
            at = min(at, life.waiting[0].at, key=lambda at: at.mono_ns)
        life.close(draft, ended.by, at, judged=True, result=ended, evidence=ended.evidence)

    def _orphan(
        self, life: PositionLife, ended: Ended, rule: str, reason: str, state: BindingState,
        candidates: Sequence[dict[str, str]], draft: Draft,
    ) -> None:  # fmt: skip
        """An end that no open cycle may claim: a cycle of its own."""
        if life.cycle is None:
            life.open(draft, _opened_by(ended), None, ended.evidence)
        cycle = life.cycle
        life.bind(draft, state, rule, ended.evidence, reason=reason, candidates=candidates)
        life.close(draft, ended.by, draft.at, judged=True, result=ended, evidence=ended.evidence)
        if rule == "skipped_scan" and cycle is not None:
            report(
                draft, self._plan.name, rule, f"{life.name}: work without a scan", evidence=ended.evidence,
                cycle=cycle.id, position=life.plan.number,
            )  # fmt: skip

    # --- units that are scanned afterwards ---------------------------------------------------------------------

    def _end_anonymous(self, life: PositionLife, ended: Ended, draft: Draft) -> None:
        """The end of a unit that a scan is still to name (:mod:`edge_agent.binding.late`)."""
        if life.cycle is not None and life.cycle.suspended:
            life.close_interrupted(draft)
        at = ended.fired_at
        if life.cycle is None:
            life.open(draft, _opened_by(ended), None, ended.evidence)
            life.bind(draft, BindingState.PENDING, "after", ended.evidence)
            at = draft.at
        cycle = life.cycle
        assert cycle is not None
        cycle.fired_mono_ns = ended.fired_at.mono_ns
        cycle.doubt = self._doubt_anonymous(ended)
        cycle.counted = ended.counting is Counting.NEXT
        life.close(draft, ended.by, at, judged=True, result=ended, evidence=ended.evidence)

    def _doubt_anonymous(self, ended: Ended) -> tuple[str, str] | None:
        """Why this result may not be the scanned unit's, though no other waits."""
        if ended.torn:
            return "torn_read", ended.torn
        if ended.level:
            return "gap", "it ended while nobody watched"
        if ended.counting is Counting.JUMP:
            return "sequence_gap", f"{ended.missing} results before it were never seen"
        if ended.counting is Counting.RESET and (ended.counter or 0) > 1:
            return "sequence_gap", "the PLC's counter began anew, and results were missed"
        return None

    # --- serials that the PLC names ----------------------------------------------------------------------------

    def _serial_value(self, life: PositionLife, ended: Ended) -> Any:
        tag, sample = life.plan.serial, ended.sample
        return sample.values[tag.index] if tag and sample and sample.tagset.source == tag.group else None

    def _end_in_data(self, life: PositionLife, ended: Ended, text: str, twice: bool, draft: Draft) -> None:
        """The result names its unit. An empty serial is an empty nest; an unreadable one is an orphan."""
        begun = life.cycle is not None and life.cycle.opened_by == "start" and not life.cycle.suspended
        if life.cycle is not None and not begun:  # interrupted, or left open by an earlier config
            life.interrupt(draft, draft.at, "config", self._plan.name)
            life.close_interrupted(draft)
        tag, sample = life.plan.serial, ended.sample
        unreadable = sample is None or tag is None or (tag.index in (sample.status or {}))
        if not text and not unreadable and not begun and (ended.by != "message" or len(self._plan.positions) > 1):
            life.counts["empty"] += 1
            return
        identifiers = identify(text, self._plan.pattern)
        stranger = identifiers is not None and self._plan.known and not self._floor.heard_of(identifiers["serial"])
        if unreadable or identifiers is None or stranger:
            code, why = ("missing_field", "could not be read") if unreadable else ("unmatched_scan", "is no serial")
            why = "was never seen by any step" if stranger else why
            self._orphan(life, ended, "in_data", f"the serial {text!r} {why}", BindingState.ORPHAN, (), draft)
            where = tag.name if tag else life.name
            report(
                draft, self._plan.name, code, f"{life.name}: {where} {text!r} {why}", evidence=ended.evidence,
                position=life.plan.number, details={"tag": where, "value": text},
            )  # fmt: skip
            return
        self._bind_in_data(life, ended, identifiers, twice, draft)

    def _bind_in_data(
        self, life: PositionLife, ended: Ended, identifiers: dict[str, str], twice: bool, draft: Draft
    ) -> None:
        serial = identifiers["serial"]
        disputed = leave_elsewhere(self._floor, life, serial, draft.at, ended.seq, draft)
        if twice:
            disputed = disputed or "another position of the same result"
            report(
                draft, self._plan.name, "duplicate_serial", f"{life.name}: {serial} stands twice in one result",
                evidence=ended.evidence, position=life.plan.number, serial=serial,
            )  # fmt: skip
        doubt = self._doubt_in_data(ended, disputed)
        unit = self._floor.units.know(draft, self._plan.name, identifiers, list(ended.evidence))
        at = draft.at
        if life.cycle is None:
            life.open(draft, _opened_by(ended), unit, ended.evidence, attempt=doubt is None)
        else:
            life.assign(unit)
            at = ended.fired_at
        if doubt is None:
            life.bind(draft, BindingState.BOUND, "in_data", ended.evidence)
        else:
            rule, reason = doubt
            life.bind(draft, BindingState.AMBIGUOUS, rule, ended.evidence, reason=reason)
        life.close(draft, ended.by, at, judged=True, result=ended, evidence=ended.evidence)

    def _doubt_in_data(self, ended: Ended, disputed: str) -> tuple[str, str] | None:
        """The data names the unit, so a missed result does not matter; torn data, and a possible double, do."""
        if disputed:
            return "duplicate_serial", f"the same serial is open at {disputed}"
        if ended.torn:
            return "torn_read", ended.torn
        if ended.level and ended.counting is Counting.NONE:
            return "gap", "without a counter it may have been recorded before"
        return None


def _opened_by(ended: Ended) -> str:
    return "level" if ended.level else "ready" if ended.by == "handshake" else ended.by


def leave_elsewhere(floor: Floor, life: PositionLife, serial: str, at: Instant, seq: int, draft: Draft) -> str:
    """The unit is at ``life`` now, so it has left where only scans delimit, or where nobody watched.

    At a position whose PLC still works on it there are two of one label, or one was carried off: neither cycle can
    be believed. ``seq``: the record that says that it is here. Returns that position's name, or "".
    """
    disputed = ""
    for other in list(floor.where.get(serial, ())):
        cycle = other.cycle
        if other is life or cycle is None:
            continue
        if other.station.batch is not None and other.trigger is None:
            gone_unseen(other, at, seq, draft)
        elif cycle.suspended or other.trigger is None:
            displace(other, at, seq, draft)
        else:
            disputed = other.name
            reason = f"the same serial was identified at {life.name}"
            if cycle.state is BindingState.BOUND:
                other.bind(draft, BindingState.AMBIGUOUS, "duplicate_serial", [seq], reason=reason)
    if disputed:
        report(
            draft, life.station.name, "duplicate_serial", f"{serial} is open at {disputed} and now at {life.name} too",
            evidence=[seq], position=life.plan.number, serial=serial,
        )  # fmt: skip
    return disputed
