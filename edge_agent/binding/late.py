"""Late scan (identity ``after``): the work first, anonymous; then a scan at the same station says whose it was.

==============================================  ==============================================================
a scan that came after the end and                     the closed cycle
==============================================  ==============================================================
one closed cycle waits for its unit              ``bound``, rule ``late_scan``, superseding ``pending``
several wait                                     all ``ambiguous``, the unit is a candidate of each; they go on
                                                 waiting until as many scans came as there are cycles
the result was in doubt (torn, counter, level)   ``ambiguous``, with the unit as candidate
no cycle waits                                   ``unmatched_scan``; if another serial is scanned after the next
                                                 end, that end may be either's: ``ambiguous``
none came within ``max_wait``                    ``orphan``, ``skipped_scan``
==============================================  ==============================================================

**Which scan can belong to which unit.** The PLC may have finished a unit between its last poll and the scan. So a scan
waits, as everywhere, for the first read of the ending tag that began after it: only then it is known which cycles had
ended. Nothing binds across an observation gap of the reader or of what ends the cycles, nor across a restart: another
unit may be there now, so what waits becomes ``orphan``, or ``ambiguous`` if a scan was under way. Yet its scan may
still come within ``max_wait``, as may that of a unit that ended in the dark: until then a cycle that ends after the
gap is bound only if no such scan is due, and if the PLC's counter shows that no result went by unseen. The first
cycle that ends after a gap of the PLC, or a restart, is ambiguous in any case unless its start was seen after it: the
work may have been another unit's, which was taken away meanwhile. Which scans are due after a restart is told by the
newest cycles of the registry, whatever became of them.

**What a person decides meanwhile** takes no scan away: that of the unit which the cycle was bound to by hand is its
re-scan when it comes, and a cycle that was unbound leaves a scan that is due.

**The same serial again.** Without a cycle that waits it is a re-scan. With one, within ``JUST_NS`` of the scan that
bound the cycle before, it is taken for a second look at that label: ``duplicate_serial``, not believed. Later it is
a retest: the next attempt.

Limit: a unit that is scanned *before* its own end, while the one before it waits unscanned, looks exactly like that
one's late scan. ``max_wait`` shorter than the cycle keeps the two apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.ends import LATE_NS, leave_elsewhere
from edge_agent.binding.findings import report
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.seen import Reads, Seen
from edge_agent.binding.state import KnownCycle, PendingCycle, opened_seq
from edge_agent.binding.trigger import Trigger
from edge_agent.binding.units import Unit
from edge_agent.model import BindingState, Instant, Kind, Sample

WAITING = 4  # scans
AWAITED = 64  # closed cycles
WAIT_NS = 5_000_000_000  # a scan whose read does not come within this decides nothing
JUST_NS = 10_000_000_000
RULE = "late_scan"


@dataclass(slots=True, eq=False)
class _Awaited:
    """A closed cycle whose unit is not known."""

    life: PositionLife
    cycle: Cycle
    deadline_mono_ns: int
    early: tuple[dict[str, str], ...]  # units that were scanned before its end
    disbelieved: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Scan:
    """A scan that waits for the ending tags to be read."""

    found: dict[str, str]
    at: Instant
    seq: int
    fresh: set[int] = field(default_factory=set)  # ids of the triggers that were seen since


class LateScans(Part):
    """See the module docstring. One for each reader; ``lives`` are the positions that it identifies."""

    def __init__(self, floor: Floor, scanner: str, lives: Iterable[PositionLife]) -> None:
        self._floor = floor
        self._lives = list(lives)
        self.plan = self._lives[0].station
        self._reads = Reads(scanner, self.plan.pattern, self.plan.rules, self.plan.of)
        self._triggers: list[Trigger] = list(
            {id(one.trigger): one.trigger for one in self._lives if one.trigger}.values()
        )
        self._wait_ns = int(self.plan.max_wait_s * 1e9)
        self._waiting: deque[_Scan] = deque()
        self._awaited: list[_Awaited] = []
        self._muddle = self._met = 0  # cycles that several scans may belong to, and how many of these came
        self._early: deque[dict[str, str]] = deque(maxlen=WAITING)
        self._unclaimed = 0  # cycles that were given up: they explain scans that come too late
        self._ghosts: list[int] = []  # of cycles given up over a gap: until when their scans may still come
        self._told: dict[str, tuple[str, int]] = {}  # cycle decided by hand -> serial or "", until when it may come
        self._unwatched: set[PositionLife] = set()  # where the unit at work may have been swapped over a gap
        self._blind = False  # what ends the cycles was not observed, and not seen since
        self._dark_until_mono_ns = 0  # until when the scan of a unit that ended in the dark may come
        self._missed_until_mono_ns = 0  # the same of one that the counter shows to have ended unseen
        self._last: tuple[str, int] = ("", 0)  # the serial that was bound last, and when its scan was seen last

    def scanners(self) -> set[str]:
        return {self._reads.scanner}

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        return self._reads.match(device, seen)

    # --- what comes in -----------------------------------------------------------------------------------------

    def start(self, draft: Draft) -> None:
        """What :func:`give_up_pending` gave up just now may still be scanned."""
        here = [record for record in draft.records if record.kind is Kind.BINDING and record.source == self.plan.name]
        until_ns = draft.at.mono_ns + self._wait_ns
        self._ghosts = [until_ns for record in here if record.body["rule"] == "gap"]
        self._recall(draft.at)
        self._blind = self._floor.dark_ns > 0
        if self._blind:
            self._unwatched.update(self._lives)

    def _recall(self, now: Instant) -> None:
        """Of cycles that closed before the restart and do not wait any more: the scans that are still due."""
        places = {life.plan.number for life in self._lives}
        here = [one for one in self._floor.recent if one.station == self.plan.name and one.position in places]
        undecided: list[int] = []
        came: set[int] = set()
        passed_ns, after_ns = 0, now.at_ns
        for one in reversed(here):  # a clock that went back says nothing of the time before; its other steps add up
            passed_ns, after_ns = passed_ns + max(after_ns - one.ended_at_ns, 0), one.ended_at_ns
            age_ns = now.at_ns - one.ended_at_ns
            left_ns = self._wait_ns - (age_ns if age_ns >= 0 else passed_ns)
            if one.serial is not None and one.rule == RULE:
                if not self._last[0]:
                    self._last = (one.serial, now.mono_ns - max(now.at_ns - (one.said_at_ns or 0), 0))
            elif one.binding_state == "pending" or one.rule == "skipped_scan" or left_ns <= 0:
                continue
            elif one.serial is not None or one.binding_state == BindingState.VOIDED:
                self._tell(one.cycle, one.serial, now.mono_ns + left_ns)
            else:
                undecided.append(now.mono_ns + left_ns)
                came |= one.scans
        self._ghosts += undecided[: max(len(undecided) - len(came), 0)]

    def closed(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if life not in self._lives:
            return
        if cycle.state is not BindingState.PENDING:
            self._closed_otherwise(cycle, draft)
            return
        if len(self._awaited) == AWAITED:
            self._give_up(self._awaited.pop(0), draft, "too many cycles wait for their scan")
        if life in self._unwatched and not cycle.suspended:
            self._unwatched.discard(life)
            if cycle.opened_by != "start" and cycle.doubt is None:
                cycle.doubt = ("gap", "its work may have begun while nobody watched, and another unit be here since")
        dark = self._blind or draft.at.mono_ns < self._dark_until_mono_ns
        missed = draft.at.mono_ns < self._missed_until_mono_ns
        if (missed or (dark and not cycle.counted)) and cycle.doubt is None:
            cycle.doubt = ("gap", "another unit may have ended while nobody watched, and its scan still be due")
        deadline_mono_ns = draft.at.mono_ns + self._wait_ns
        if cycle.doubt is not None and cycle.doubt[0] == "sequence_gap":
            self._missed_until_mono_ns = deadline_mono_ns
        self._awaited.append(_Awaited(life, cycle, deadline_mono_ns, tuple(self._early)))
        self._early.clear()

    def _closed_otherwise(self, cycle: Cycle, draft: Draft) -> None:
        """By hand while it was open; or without an end that was seen, though its unit may be done all the same."""
        until_ns = draft.at.mono_ns + self._wait_ns
        if cycle.state in (BindingState.BOUND, BindingState.VOIDED):
            self._tell(cycle.id, cycle.serial, until_ns)
        elif not cycle.suspended:
            self._dark_until_mono_ns = until_ns

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        one = _Scan(found, scan.at, scan.seq)
        if any(trigger.lost for trigger in self._triggers):
            self._decide(one, draft, "the PLC was away when it came")
            return
        if len(self._waiting) == WAITING:
            self._decide(self._waiting.popleft(), draft, "newer scans came before the PLC was read")
        self._waiting.append(one)
        for trigger in self._triggers:
            trigger.ask(draft)

    def settled(self, sample: Sample, seq: int, draft: Draft) -> None:
        if self._blind and not any(trigger.unknown or trigger.lost for trigger in self._triggers):
            self._blind, self._dark_until_mono_ns = False, draft.at.mono_ns + self._wait_ns
        if not self._waiting:
            return
        for trigger in self._triggers:
            if trigger.tag is not None and trigger.tag.shown_by(sample) and not trigger.unknown:
                for scan in self._waiting:
                    if sample.started_mono_ns >= scan.at.mono_ns:
                        scan.fresh.add(id(trigger))
        busy = any(trigger.busy for trigger in self._triggers)
        while self._waiting and not busy and len(self._waiting[0].fresh) == len(self._triggers):
            self._decide(self._waiting.popleft(), draft, "")

    def gap(self, device: str, since: Instant, draft: Draft) -> None:
        if device != self._reads.scanner and not any(device in trigger.devices for trigger in self._triggers):
            return
        while self._waiting:
            self._decide(self._waiting.popleft(), draft, f"{device} was not observed meanwhile")
        self._blind = self._blind or device != self._reads.scanner
        self._unwatched.update(life for life in self._lives if life.trigger and device in life.trigger.devices)
        awaited, self._awaited = self._awaited, []
        owed = self._muddle - self._met + sum(one.cycle.state is BindingState.PENDING for one in awaited)
        self._ghosts += [one.deadline_mono_ns for one in awaited][max(len(awaited) - owed, 0) :]
        for one in awaited:
            if one.cycle.state is BindingState.PENDING:
                self._say_nobody(one, draft, "gap", f"{device} was not observed while its scan was awaited")
        self._muddle = self._met = 0
        self._early.clear()

    def tick(self, draft: Draft) -> None:
        now_ns = draft.at.mono_ns
        while self._waiting and now_ns - self._waiting[0].at.mono_ns > WAIT_NS:
            self._decide(self._waiting.popleft(), draft, "the PLC did not answer")
        if self._waiting:
            return  # it came in time: it may still be one's
        while self._awaited and now_ns >= self._awaited[0].deadline_mono_ns:
            self._give_up(self._awaited.pop(0), draft, f"no scan within {self.plan.max_wait_s:g} s")
        if not self._awaited:
            self._muddle = self._met = 0
        self._unclaimed += sum(until_ns <= now_ns for until_ns in self._ghosts)
        self._ghosts = [until_ns for until_ns in self._ghosts if until_ns > now_ns]
        self._told = {cycle: told for cycle, told in self._told.items() if told[1] > now_ns}

    def decided(self, known: KnownCycle, serial: str | None, draft: Draft) -> None:
        cycle = known.cycle
        awaited = next((one for one in self._awaited if one.cycle.id == cycle), None)
        if awaited is not None:
            self._awaited.remove(awaited)
            self._tell(cycle, serial, awaited.deadline_mono_ns)
        elif cycle in self._told:
            before, until_ns = self._told.pop(cycle)
            if not before and until_ns in self._ghosts:
                self._ghosts.remove(until_ns)
            self._tell(cycle, serial, until_ns)

    def _tell(self, cycle: str, serial: str | None, until_ns: int) -> None:
        """The scan of this cycle's unit may come until then; it is not another one's."""
        self._told[cycle] = (serial or "", until_ns)
        if serial is None:
            self._ghosts.append(until_ns)
        if len(self._told) > AWAITED:
            del self._told[next(iter(self._told))]

    def snapshot(self) -> dict[str, Any]:
        return {"awaiting_scan": [one.cycle.id for one in self._awaited]}

    # --- deciding ----------------------------------------------------------------------------------------------

    def _decide(self, scan: _Scan, draft: Draft, unsure: str) -> None:
        """Whose the scan is, now that it is known which cycles had ended. ``unsure``: why that is not known."""
        serial = scan.found[self.plan.of]
        again = serial == self._last[0]
        just = again and scan.at.mono_ns - self._last[1] < JUST_NS
        if (told := next((cycle for cycle, (name, _) in self._told.items() if name == serial), None)) is not None:
            del self._told[told]
            self._lives[0].counts["rescans"] += 1
            self._last = (serial, scan.at.mono_ns)
        elif not self._awaited:
            self._unmatched(serial, again, scan, draft)
        elif self._unheard_of(serial, scan, draft):
            return
        elif just:
            self._disbelieve(serial, scan, draft)
        elif any(serial == unit["serial"] for one in self._awaited for unit in one.cycle.candidates):
            self._lives[0].counts["rescans"] += 1
        elif len(self._awaited) == 1 and not self._muddle and not self._ghosts:
            self._meet(self._awaited.pop(), serial, scan, draft, unsure)
        else:
            self._mix(scan, draft)
        if again:
            self._last = (serial, scan.at.mono_ns)

    def _meet(self, one: _Awaited, serial: str, scan: _Scan, draft: Draft, unsure: str) -> None:
        """One cycle waits."""
        disputed = leave_elsewhere(self._floor, one.life, serial, scan.at, scan.seq, draft)
        doubt = self._doubt(one, serial, scan, unsure, disputed)
        unit = self._floor.units.know(draft, self.plan.name, scan.found, [scan.seq], self.plan.of)
        if doubt is None:
            self._bind(one, unit, scan, draft)
            return
        rule, reason = doubt
        others = [*one.early, *one.disbelieved]
        candidates = [*(other for other in others if other["serial"] != serial), _named(unit)]
        self._say(one, draft, BindingState.AMBIGUOUS, rule, [scan.seq], reason, candidates)

    def _doubt(self, one: _Awaited, serial: str, scan: _Scan, unsure: str, disputed: str) -> tuple[str, str] | None:
        """Why the only cycle that waits may not be the scanned unit's: (rule, reason)."""
        if one.cycle.doubt is not None:
            return one.cycle.doubt
        if disputed:
            return "duplicate_serial", f"the same serial is open at {disputed}"
        if unsure:
            return "late_read", unsure
        if one.cycle.fired_mono_ns - scan.at.mono_ns > LATE_NS:
            return "late_read", "the PLC was read so late after the scan that the end may have come after it"
        if one.early and all(unit["serial"] != serial for unit in one.early):
            before = ", ".join(unit["serial"] for unit in one.early)
            return RULE, f"{before} was scanned before this end, and {serial} after it"
        return None

    def _bind(self, one: _Awaited, unit: Unit, scan: _Scan, draft: Draft) -> None:
        cycle, step = one.cycle, self.plan.step
        cycle.unit, cycle.attempt = unit, unit.attempt(step)
        if cycle.done is not None:
            newest = unit.results.get(step)
            if newest is None or opened_seq(newest.cycle) <= opened_seq(cycle.id):
                unit.results[step] = cycle.done
        self._last, self._unclaimed = (unit.serial, scan.at.mono_ns), 0
        one.life.last = _named(unit)
        one.life.counts["late_scans"] += 1
        self._say(one, draft, BindingState.BOUND, RULE, [scan.seq], "", [])
        for part in one.life.parts:
            part.named(one.life, cycle, draft)

    def _mix(self, scan: _Scan, draft: Draft) -> None:
        """Several cycles wait: it is one of theirs."""
        unit = self._floor.units.know(draft, self.plan.name, scan.found, [scan.seq], self.plan.of)
        pending = sum(one.cycle.state is BindingState.PENDING for one in self._awaited)
        self._muddle += pending + len(self._ghosts)
        self._ghosts.clear()
        self._met += 1
        reason = f"{self._muddle} cycles waited for their scans"
        for one in self._awaited:
            candidates = [*one.cycle.candidates, *one.early, *one.disbelieved, _named(unit)]
            self._say(one, draft, BindingState.AMBIGUOUS, RULE, [scan.seq], reason, candidates)
        if self._met >= self._muddle:
            self._awaited.clear()
            self._muddle = self._met = 0

    def _disbelieve(self, serial: str, scan: _Scan, draft: Draft) -> None:
        unit = self._floor.units.find(serial, self.plan.of)
        for one in self._awaited:
            if unit is not None and not one.disbelieved:
                one.disbelieved.append(_named(unit))
        text = f"{serial} was scanned again just after it was bound; another cycle waits for its scan"
        self._report(draft, "duplicate_serial", text, [scan.seq], self._awaited[0], serial)

    def _unmatched(self, serial: str, again: bool, scan: _Scan, draft: Draft) -> None:
        if again:
            self._lives[0].counts["rescans"] += 1
            return
        if self._unheard_of(serial, scan, draft):
            return
        if self._ghosts:
            self._ghosts.pop(0)
        elif self._unclaimed:
            self._unclaimed -= 1
        else:
            unit = self._floor.units.know(draft, self.plan.name, scan.found, [scan.seq], self.plan.of)
            self._early.append(_named(unit))
        self._report(
            draft,
            "unmatched_scan",
            f"{serial} was scanned, and no finished work waits for it",
            [scan.seq],
            None,
            serial,
        )

    def _unheard_of(self, serial: str, scan: _Scan, draft: Draft) -> bool:
        """A serial that no step ever saw, where that is a misread label."""
        if not self.plan.known or self._floor.heard_of(serial, self.plan.of):
            return False
        self._report(draft, "unmatched_scan", f"no step has ever seen {serial}", [scan.seq], None, serial)
        return True

    # --- nobody came -------------------------------------------------------------------------------------------

    def _give_up(self, one: _Awaited, draft: Draft, reason: str) -> None:
        if one.cycle.state is not BindingState.PENDING:
            return  # it is said already between which units nobody can tell
        self._unclaimed += 1
        self._say_nobody(one, draft, "skipped_scan", reason)
        self._report(draft, "skipped_scan", f"work without a scan: {reason}", [], one, None)

    def _say_nobody(self, one: _Awaited, draft: Draft, rule: str, reason: str) -> None:
        state = BindingState.AMBIGUOUS if one.disbelieved else BindingState.ORPHAN
        self._say(one, draft, state, rule, [], reason, [*one.early, *one.disbelieved])

    # --- records -----------------------------------------------------------------------------------------------

    def _say(
        self, one: _Awaited, draft: Draft, state: BindingState, rule: str, evidence: Sequence[int], reason: str,
        candidates: Sequence[dict[str, str]],
    ) -> None:  # fmt: skip
        """The binding of a closed cycle; supersedes what was said before."""
        cycle = one.cycle
        cycle.candidates = list({unit["unit"]: unit for unit in candidates}.values())
        cycle.state = state
        whose: dict[str, Any] = {}
        if state is BindingState.BOUND and cycle.unit is not None:
            whose = _named(cycle.unit) | {"attempt": cycle.attempt}
        cycle.binding = _binding(
            draft, self.plan.name, cycle.id, cycle.binding, state, rule, reason, evidence, cycle.candidates, whose
        )

    def _report(
        self, draft: Draft, code: str, text: str, evidence: Sequence[int], one: _Awaited | None, serial: str | None
    ) -> None:
        life = one.life if one is not None else self._lives[0]
        position = life.plan.number if one is not None or len(self._lives) == 1 else None
        cycle = one.cycle.id if one is not None else None
        name = life.name if position is not None else self.plan.name
        report(
            draft, self.plan.name, code, f"{name}: {text}", evidence=evidence, cycle=cycle, position=position,
            serial=serial,
        )  # fmt: skip


def give_up_pending(draft: Draft, since: Instant, pending: Iterable[PendingCycle]) -> None:
    """Cycles that waited for their scan when the last log ended: it may have been made in the dark."""
    reason = "the agent did not run while its scan was awaited"
    for old in pending:
        _binding(draft, old.station, old.cycle, old.binding, BindingState.ORPHAN, "gap", reason, [], [], {})
        details = {"cause": "restart", "device": "the line", "since_ns": str(since.at_ns)}
        text = f"{old.station}: nobody watched while the scan of a finished unit was awaited (restart)"
        report(
            draft, old.station, "observation_gap", text, cycle=old.cycle, position=old.position, details=details,
        )  # fmt: skip


def _named(unit: Unit) -> dict[str, str]:
    return {"unit": unit.unit, "serial": unit.serial}


def _binding(
    draft: Draft, station: str, cycle: str, supersedes: str | None, state: BindingState, rule: str, reason: str,
    evidence: Sequence[int], candidates: Sequence[dict[str, str]], whose: dict[str, Any],
) -> str:  # fmt: skip
    """Write it; returns its id."""
    binding = draft.next_id
    body: dict[str, Any] = {"binding": binding, "cycle": cycle, "state": state.value, **whose, "rule": rule}
    if reason:
        body["reason"] = reason
    body |= {"candidates": list(candidates), "evidence": list(evidence)}
    if supersedes:
        body["supersedes"] = supersedes
    draft.add(Kind.BINDING, station, body | {"by": "agent"})
    return binding
