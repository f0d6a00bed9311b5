"""One station: hands every input to its positions and triggers, and lets scans take effect at the right moment.

**When a scan takes effect.** Where a PLC tag ends the cycles, the PLC may have finished the *previous* unit between
its last poll and the scan. The scan then waits for the first read of that tag that began after it, and for the result
if that read shows an end; only then the next unit's cycle opens. If the PLC is away, or does not answer in time,
the cycle opens interrupted. So it does for a scan that comes right after a silence: where the silence was the agent's
own (stopped, starved), the code lay in its port meanwhile, and the unit it names may have moved on.
At most ``WAITING`` scans wait at a position; one more drops the oldest, with a finding.
Where only scans delimit, a scan takes effect at once.

Whose an end is stands in :mod:`edge_agent.binding.ends`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge_agent.binding.carrying import name_unit, report_empty
from edge_agent.binding.changeover import Changeover
from edge_agent.binding.context import StationContext
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.edge import EdgeTrigger
from edge_agent.binding.ends import Ends, leave_elsewhere
from edge_agent.binding.findings import report
from edge_agent.binding.handshake import HandshakeTrigger
from edge_agent.binding.message import MessageTrigger
from edge_agent.binding.part import Part
from edge_agent.binding.parts import parts_of
from edge_agent.binding.plan import Edge, Handshake, Message, Position, Station, TagRef
from edge_agent.binding.position import Floor, PositionLife, Waiting
from edge_agent.binding.scan_out import displace
from edge_agent.binding.seen import Reads, Seen
from edge_agent.binding.starts import Start
from edge_agent.binding.state import Restored
from edge_agent.binding.trigger import Trigger, device_of
from edge_agent.model import BindingState, Instant, Sample

WAITING = 4
WAIT_NS = 5_000_000_000  # a scan whose read does not come within this opens interrupted
QUEUED_NS = 250_000_000  # a scan this soon after a silence was noticed may be older than it seems
DEFAULT_GAP_NS = 1_000_000_000

OPENED_BY = {"scan": "scan", "carrier": "carrier", "register": "index"}  # by the rule that names who is here


class StationLife:
    """See the module docstring. ``gap_ns``: by group, the longest silence that is no gap."""

    def __init__(self, floor: Floor, plan: Station, restored: Restored, gap_ns: Mapping[str, int]) -> None:
        self.plan = plan
        self.context = StationContext(plan.context)
        self._floor = floor
        self._gap_ns = gap_ns
        self._triggers: list[tuple[Trigger, list[PositionLife]]] = []
        self.positions: dict[int, PositionLife] = {}
        self._ends = Ends(floor, plan)
        for end, members in _by_end(plan.positions).items():
            trigger = _trigger(plan.name, end, members, restored)
            lives = [PositionLife(floor, plan, position, self.context, trigger) for position in members]
            self.positions |= {life.plan.number: life for life in lives}
            if trigger is not None:
                self._triggers.append((trigger, lives))
        self._starts = [
            Start(EdgeTrigger(start), [life for life in self.positions.values() if life.plan.start == start])
            for start in dict.fromkeys(one.start for one in plan.positions if one.start is not None)
        ]
        self._blinding = {life: _blinding(plan, life) for life in self.positions.values()}
        handshakes = [trigger for trigger, _ in self._triggers if isinstance(trigger, HandshakeTrigger)]
        for one in handshakes:
            one.peers = [other for other in handshakes if other is not one and other.plan.ack == one.plan.ack]
        self.positions = dict(sorted(self.positions.items()))
        self.parts = parts_of(floor, plan, self.context, self.positions)
        self._changeover = next((part for part in self.parts if isinstance(part, Changeover)), None)
        blinding = frozenset[str]().union(*(part.blinding() for part in self.parts))
        for life in self.positions.values():
            life.parts = self.parts
            self._blinding[life] |= blinding
        self._reads = [
            (life, Reads(life.plan.scanner, plan.pattern, plan.rules, plan.of))
            for life in self.positions.values()
            if life.plan.scanner is not None
        ]
        for life in self.positions.values():
            if life.plan.out is not None:  # where its labels are meant, ``parts`` take them
                self._reads.append((life, Reads(life.plan.out, plan.pattern, plan.rules, plan.of)))
        self.readers = {reads.scanner for _, reads in self._reads}.union(*(part.scanners() for part in self.parts))
        self.readers |= {one.scanner for one in plan.context if one.scanner is not None}

    def watched(self) -> set[str]:
        """Every "device.group" whose samples this station has to look at."""
        found = {context.tag.group for context in self.plan.context if context.tag is not None}
        found = found.union(*(part.watched() for part in self.parts))
        for position in self.plan.positions:
            for tag in (position.resume.cycle_number, position.resume.serial):
                found |= {tag.group} if tag is not None else set()
            end = position.end
            if isinstance(end, Handshake):
                found |= {end.ready.group, end.read} | ({end.counter.group} if end.counter else set())
            elif isinstance(end, Edge):
                found |= {end.tag.group} | ({end.read} if end.read else set())
            elif end is not None:
                found.add(end.read)
            found |= {position.start.tag.group} if position.start is not None else set()
        return found

    def delimiting(self) -> list[TagRef]:
        """The tags that end cycles: silence of one of them is an observation gap."""
        tags = [trigger.tag for trigger, _ in self._delimiters() if trigger.tag is not None]
        return tags + [tag for part in self.parts for tag in part.delimiting()]

    def _delimiters(self) -> list[tuple[Trigger, list[PositionLife]]]:
        """What ends cycles, and what starts them."""
        return [*self._triggers, *((start.trigger, start.lives) for start in self._starts)]

    # --- samples -----------------------------------------------------------------------------------------------

    def on_sample(self, sample: Sample, seq: int, draft: Draft) -> None:
        """Context, evidence for interrupted cycles, parts, triggers, then the scans that waited for this."""
        self.context.observe(sample)
        for life in self.positions.values():
            life.observe(sample, seq, draft)
        for part in self.parts:
            part.observe(sample, seq, draft)
        for trigger, lives in self._triggers:
            ended = trigger.observe(sample, seq, draft)
            if ended is not None:
                self._ends.settle(trigger, lives, ended, draft)
            shown = trigger.tag is not None and trigger.tag.shown_by(sample) and not trigger.busy
            for life in lives:
                if shown:
                    life.read_mono_ns = max(life.read_mono_ns, sample.started_mono_ns)
                self._remember_counter(trigger, life)
                self._let_in(trigger, life, sample, seq, draft)
        for start in self._starts:
            start.observe(sample, seq, draft)
        for part in self.parts:
            part.settled(sample, seq, draft)

    def _remember_counter(self, trigger: Trigger, life: PositionLife) -> None:
        """What the counter showed when the unit was here and its result was not: the result must be the next."""
        cycle = life.cycle
        if cycle is not None and cycle.counter_seen is None and not cycle.suspended and not trigger.busy:
            cycle.counter_seen = trigger.seen_since(cycle.counter_from_mono_ns)

    def _let_in(self, trigger: Trigger, life: PositionLife, sample: Sample, seq: int, draft: Draft) -> None:
        """Scans that waited at this position, in their order, once the unit before is settled."""
        waiting = life.waiting
        for scan in waiting:
            if trigger.tag is not None and trigger.tag.shown_by(sample) and sample.started_mono_ns >= scan.at.mono_ns:
                scan.fresh = scan.fresh or not trigger.unknown
        while waiting and waiting[0].fresh and not trigger.busy:
            scan = waiting.popleft()
            silence = sample.at.mono_ns - scan.at.mono_ns > self._gap_ns.get(trigger.watched, DEFAULT_GAP_NS)
            away = device_of(trigger.watched) if scan.blind and silence else scan.away
            self._take_effect(life, scan, draft, (scan.seq, seq), away)
            self._remember_counter(trigger, life)

    # --- scans -------------------------------------------------------------------------------------------------

    def part_meant(self, device: str, seen: Seen) -> tuple[Part, dict[str, str]] | None:
        """The part that this scan is for, and what it says; None: it may name a unit."""
        for part in self.parts:
            if (found := part.match(device, seen)) is not None:
                return part, found
        return None

    def places(self, device: str, seen: Seen) -> list[tuple[PositionLife, dict[str, str] | None]]:
        """The positions that this scan is for, each with its unit's identifiers, or None: no label of a unit."""
        return [(life, reads.match(device, seen)) for life, reads in self._reads if reads.scanner == device]

    def on_scan(self, life: PositionLife, identifiers: dict[str, str], at: Instant, seq: int, draft: Draft) -> None:
        """A scan that identifies a unit at one of our positions; ``seq`` is its record's."""
        life.counts["scans"] += 1
        scan = Waiting(identifiers, at, seq)
        if self.plan.of == "carrier":
            name_unit(self._floor, self.plan, life.plan.number, scan)
            if life.trigger is None and life is next(iter(self.positions.values())):
                report_empty(self._floor, self.plan, scan, identifiers["carrier"], draft)
        self.arrive(life, scan, draft)

    def arrive(self, life: PositionLife, scan: Waiting, draft: Draft) -> None:
        """Somebody is at this position now: at once, or as soon as the unit before is settled."""
        trigger, at = life.trigger, scan.at
        scan.blind = trigger is not None and trigger.unknown
        if trigger is not None and life.stalled is not None and at.mono_ns - life.stalled.mono_ns < QUEUED_NS:
            scan.away = device_of(trigger.watched)
        if trigger is None or (trigger.tag is None and not trigger.lost):
            self._take_effect(life, scan, draft, (scan.seq,), "")
        elif trigger.lost:
            self._take_effect(life, scan, draft, (scan.seq,), device_of(trigger.watched))
        else:
            waiting = life.waiting
            if len(waiting) == WAITING:
                self._drop(life, waiting.popleft(), draft)
            waiting.append(scan)
            trigger.ask(draft)

    def _drop(self, life: PositionLife, scan: Waiting, draft: Draft) -> None:
        report(
            draft, self.plan.name, "unmatched_scan",
            f"{life.name}: the scan of {scan.name} was dropped, {WAITING} newer ones wait for the PLC",
            evidence=[scan.seq], position=life.plan.number, serial=scan.identifiers.get("serial"),
        )  # fmt: skip

    def _take_effect(self, life: PositionLife, scan: Waiting, draft: Draft, evidence: Sequence[int], away: str) -> None:
        """Re-scan, resume, or the next unit. ``away``: the device for whose absence the cycle must open interrupted."""
        cycle, kind = life.cycle, "lot" if self.plan.of == "lot" else "serial"
        name, evidence = scan.identifiers.get(kind), tuple(sorted({*evidence, *scan.evidence}))
        if self._changeover is not None and self._changeover.coming(life) == name:
            life.counts["rescans"] += 1
            return
        if cycle is not None and _still_here(cycle, name, scan):
            if cycle.suspended and not away:
                life.resume(draft, "resume:scan", evidence)
                cycle.counter_from_mono_ns = scan.at.mono_ns
            else:
                life.counts["rescans"] += 1
                for part in self.parts:
                    part.rescanned(life, cycle, draft)
            return
        before = _who_was(life)
        if cycle is not None:
            displace(life, scan.left or scan.at, scan.seq, draft, "index" if scan.rule == "register" else "next_scan")
        if self._changeover and (cycle is not None or any(one["serial"] != name for one in before)):
            self._changeover.begin(life, scan, before, draft)
        elif name is not None:
            self._open_named(life, scan, name, kind, evidence, draft)
        elif scan.doubt:
            life.open(draft, OPENED_BY[scan.rule], None, evidence, scanned=scan.at)
            life.bind(
                draft, BindingState.AMBIGUOUS, scan.rule, evidence, reason=scan.doubt, candidates=scan.candidates
            )  # fmt: skip
        if away and life.cycle is not None:
            life.interrupt(draft, scan.at, "away", away)

    def _open_named(
        self, life: PositionLife, scan: Waiting, name: str, kind: str, evidence: Sequence[int], draft: Draft
    ) -> None:  # fmt: skip
        """The cycle of the unit that was named. A lot may be at several places at once, a unit may not."""
        elsewhere = leave_elsewhere(self._floor, life, name, scan.at, scan.seq, draft) if kind == "serial" else ""
        unit = self._floor.units.know(draft, self.plan.name, scan.identifiers, list(evidence), kind)
        life.open(draft, OPENED_BY[scan.rule], unit, evidence, scanned=scan.at, attempt=not elsewhere)
        if elsewhere:
            reason = f"the same serial is open at {elsewhere}"
            life.bind(draft, BindingState.AMBIGUOUS, "duplicate_serial", evidence, reason=reason)
        else:
            life.bind(draft, BindingState.BOUND, scan.rule, evidence)

    # --- gaps and time -----------------------------------------------------------------------------------------

    def on_gap(self, device: str, since: Instant, cause: str, draft: Draft) -> int:
        """``device`` was not observed from ``since`` until ``draft.at``. Returns how many cycles it interrupted."""
        self.context.gap(device)
        for part in self.parts:
            part.gap(device, since, draft)
        interrupted = 0
        for life in self.positions.values():
            if device in self._blinding[life]:
                interrupted += self._blind(life, since, cause, device, draft)
            for scan in life.waiting if device == life.plan.scanner else ():
                scan.away = device
        for trigger, lives in self._delimiters():
            if device in trigger.devices:
                self._trigger_gap(trigger, lives, cause, draft)
        return interrupted

    def on_open(self, device: str, draft: Draft) -> None:
        """``device`` was (re)connected. Of one that speaks by itself nothing more is to be seen until it does."""
        for trigger, _ in self._triggers:
            if trigger.tag is None and device in trigger.devices:
                trigger.lost = False
        for part in self.parts:
            part.device_opened(device, draft)

    def on_silence(self, tag: TagRef, since: Instant, draft: Draft) -> int:
        """A delimiting tag was not seen for too long. Returns how many cycles it interrupted."""
        interrupted = 0
        for trigger, lives in self._delimiters():
            if trigger.tag == tag:
                for part in self.parts:
                    part.gap(device_of(tag.group), since, draft)
                interrupted += sum(self._blind(life, since, "stall", device_of(tag.group), draft) for life in lives)
                self._trigger_gap(trigger, lives, "stall", draft)
                for life in lives:
                    life.stalled = draft.at
        if any(tag in part.delimiting() for part in self.parts):
            for part in self.parts:
                part.gap(device_of(tag.group), since, draft)
            lives = list(self.positions.values())
            interrupted += sum(self._blind(life, since, "stall", device_of(tag.group), draft) for life in lives)
        return interrupted

    def _blind(self, life: PositionLife, since: Instant, cause: str, what: str, draft: Draft) -> int:
        before = life.cycle is not None and not life.cycle.suspended
        life.interrupt(draft, since, cause, what)
        return int(before)

    def _trigger_gap(self, trigger: Trigger, lives: Iterable[PositionLife], cause: str, draft: Draft) -> None:
        """Back to ``unknown``; scans that waited for it open interrupted."""
        trigger.gap(draft.at)
        for start in self._starts:
            start.forget()
        trigger.lost = trigger.lost or cause == "lost"
        for life in lives:
            self._give_up_waiting(life, draft)

    def _give_up_waiting(self, life: PositionLife, draft: Draft) -> None:
        waiting = life.waiting
        while waiting:
            scan = waiting.popleft()
            away = scan.away or (device_of(life.trigger.watched) if life.trigger else "")
            self._take_effect(life, scan, draft, (scan.seq,), away)

    def on_tick(self, draft: Draft) -> None:
        """Time-outs, and what has to be asked for again."""
        now = draft.at
        for trigger, _ in self._triggers:
            trigger.tick(now, draft)
        for part in self.parts:
            part.tick(draft)
        for life in self.positions.values():
            waiting = life.waiting
            if waiting and now.mono_ns - waiting[0].at.mono_ns > WAIT_NS:
                self._give_up_waiting(life, draft)
            if life.cycle is not None and now.mono_ns >= life.cycle.deadline_mono_ns:
                self._time_out(life, life.cycle, draft)

    def _time_out(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if self.plan.batch is not None and cycle.state is BindingState.BOUND:
            reason = "it was not seen to leave, so when it left nobody knows"
            life.bind(draft, BindingState.AMBIGUOUS, "timeout", [], reason=reason)
        if cycle.suspended:
            life.close_interrupted(draft)
        else:
            life.close(draft, "timeout", draft.at, judged=False)
        report(
            draft, self.plan.name, "cycle_timeout",
            f"{life.name}: no end of {cycle.serial or 'an unknown unit'} within {self.plan.timeout_s:g} s",
            cycle=cycle.id, position=life.plan.number, serial=cycle.serial,
        )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        """What ``status`` shows of this station."""
        positions = {str(number): life.snapshot() for number, life in self.positions.items()}
        shown: dict[str, Any] = {"step": self.plan.step, "positions": positions, "context": self.context.snapshot()}
        for part in self.parts:
            shown |= part.snapshot()
        return shown


def _blinding(station: Station, life: PositionLife) -> frozenset[str]:
    """The devices without which nobody sees another unit take this one's place."""
    plan, trigger = life.plan, life.trigger
    readers = {plan.scanner, plan.out} if station.identity == "before" else set()
    found = {reader for reader in readers if reader is not None} | (trigger.devices if trigger is not None else set())
    return frozenset(found | ({device_of(plan.start.tag.group)} if plan.start is not None else set()))


def _who_was(life: PositionLife) -> list[dict[str, str]]:
    """Who is, or was last, at this position, as candidates."""
    cycle = life.cycle
    if cycle is None:
        return [life.last] if life.last is not None else []
    return [{"unit": cycle.unit.unit, "serial": cycle.unit.serial}] if cycle.unit is not None else cycle.candidates


def _still_here(cycle: Cycle, name: str | None, scan: Waiting) -> bool:
    """The same unit (or carrier, whoever is on it) is read once more. A step of a register always brings another."""
    if scan.rule == "carrier" and scan.doubt:
        return cycle.unit is None and not cycle.suspended and cycle.candidates == list(scan.candidates)
    return name is not None and cycle.serial == name and scan.rule != "register"


def _by_end(positions: Iterable[Position]) -> dict[Handshake | Edge | Message | None, list[Position]]:
    """Positions that share one way to end share its trigger: one edge, one read, one acknowledge."""
    found: dict[Handshake | Edge | Message | None, list[Position]] = {}
    for position in positions:
        found.setdefault(position.end, []).append(position)
    return found


def _trigger(
    station: str, end: Handshake | Edge | Message | None, members: Iterable[Position], restored: Restored
) -> Trigger | None:
    if end is None:
        return None
    if isinstance(end, Edge):
        return EdgeTrigger(end)
    places = [(station, position.number) for position in members]
    if isinstance(end, Message):
        return MessageTrigger(end, [one for place in places for one in restored.messages.get(place, ())])
    known = [restored.counters[place] for place in places if place in restored.counters]
    half = 1 << (end.counter_bits - 1)
    counter: int | None = None
    epoch = 0
    for one, its_epoch in known:
        newer = counter is None or its_epoch > epoch or (one - counter) % (2 * half) < half
        if its_epoch >= epoch and newer:
            counter, epoch = one, its_epoch
    return HandshakeTrigger(end, counter, epoch)
