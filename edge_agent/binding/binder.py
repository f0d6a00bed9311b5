"""The binder: every input of every device in, records and effects out. Pure.

It holds the stations, the store policy of every group and the readers; knows which station looks at which device;
and is the only one that decides whether a sample is stored and in whose windows it lies. It reads no clock: each input
brings its instant, and time passes only with inputs and ticks. Inputs of one device come in order, those of
different devices need not; nothing here relies on more.

Bounded: positions, scans that wait (4 a position), units in memory (10,000), remembered sample ends (a few hundred
a window). The plain sample, which no station looks at, costs one comparison and one record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_agent.binding.action import Action
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.holds import Holds
from edge_agent.binding.late import give_up_pending
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.plan import Plan, StorePolicy, TagRef
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.scans import NO_READ_FINDINGS, Reader, report_doubt, report_repairs, scan_body
from edge_agent.binding.seen import Seen
from edge_agent.binding.state import BLOCKED, Lookup, OpenCycle, Outcome, Restored
from edge_agent.binding.station import StationLife
from edge_agent.binding.storing import GroupStore
from edge_agent.binding.trigger import device_of
from edge_agent.binding.units import Units
from edge_agent.identify.label import Label
from edge_agent.identify.patterns import text_of
from edge_agent.model import BindingState, Instant, Kind, Result, Sample, Scan, ScanStatus

UNKNOWN_NS = 1 << 62  # longer than any limit
STALL_FINDING_EVERY_NS = 60 * 10**9  # stalls of a device that interrupt nothing are reported this often at most


@dataclass(slots=True)
class _Heard:
    """A scan, as the stations that use its reader understand it."""

    bouncing: bool  # some station heard this label here just now
    bounced: list[PositionLife]
    parts: list[tuple[StationLife, Part, dict[str, str]]]
    units: list[tuple[PositionLife, dict[str, str]]]
    strangers: list[PositionLife]  # to whom it is no label of a unit
    context: list[tuple[StationLife, dict[str, str]]]
    labels: tuple[Label, ...]  # what the label rules say
    unread: bool = False  # some part of a station has this reader, and it is no label that the part knows


class Binder:
    """See the module docstring. ``log``: id of this run's log; ``config``: id of the config it runs with."""

    def __init__(self, plan: Plan, log: str, config: str, lookup: Lookup, restored: Restored) -> None:
        self._log = log
        self._restored = restored
        self._stores = {source: GroupStore(policy) for source, policy in plan.stores.items()}
        self._floor = Floor(
            log, config, Units(lookup), self._stores, lookup, holds=Holds(restored.holds),
            materials=restored.materials, recent=restored.recent,
        )  # fmt: skip
        asked = [station.gate.previous for station in plan.stations if station.gate is not None]
        asked += [station.needs.previous for station in plan.stations]
        self._floor.status.steps = frozenset(step for steps in asked for step in steps)
        self._labels = plan.labels
        self._gap_ns = {source: int(gap_s * 1e9) for source, gap_s in plan.gap_s.items()}
        self._stations = {
            station.name: StationLife(self._floor, station, restored, self._gap_ns) for station in plan.stations
        }
        self._floor.stations = self._stations
        for station in self._stations.values():
            for source in station.watched():
                if source in self._stores:
                    self._stores[source].watchers.append(station)
        self._delimiting: dict[str, list[TagRef]] = {}  # by "device.group"
        for tag in dict.fromkeys(tag for station in self._stations.values() for tag in station.delimiting()):
            self._delimiting.setdefault(tag.group, []).append(tag)
        self._newest: dict[TagRef, Sample] = {}  # that showed each delimiting tag, since the last gap
        self._readers: dict[str, Reader] = {}
        self._stall_reported: dict[str, int] = {}

    # --- start -------------------------------------------------------------------------------------------------

    def start(self, now: Instant, seq: int) -> Outcome:
        """Begin. What was open when the last log ended is interrupted: nobody watched since."""
        draft = Draft(self._log, now, seq)
        since = Instant(min(self._restored.until_ns or now.at_ns, now.at_ns), now.mono_ns)
        for old in sorted(self._restored.cycles, key=lambda old: old.opened_at_ns):
            station = self._stations.get(old.station)
            life = station.positions.get(old.position) if station else None
            if station is None or life is None:
                self._close_unplanned(old, since, draft)
                continue
            if life.cycle is not None:
                life.close_interrupted(draft)
            station.context.restore({name: dict(item) for name, item in old.context.items()})
            life.restore(old, now)
            life.interrupt(draft, since, "restart", "the line")
        give_up_pending(draft, since, self._restored.pending)
        if self._restored.until_ns is not None:  # a clock that went back tells nothing of how long it was
            dark_ns = now.at_ns - self._restored.until_ns
            self._floor.dark_ns = dark_ns if dark_ns >= 0 else UNKNOWN_NS
        for station in self._stations.values():
            for part in station.parts:
                part.start(draft)
        return Outcome(draft.records, draft.effects)

    def _close_unplanned(self, old: OpenCycle, since: Instant, draft: Draft) -> None:
        """A cycle at a position that the config does not have any more."""
        bound = old.unit is not None and old.serial is not None and old.binding_state in (None, BindingState.BOUND)
        state = old.binding_state or (BindingState.BOUND if bound else BindingState.PENDING)
        blocked = old.let_in is False
        result = Result.SKIPPED if blocked else Result.ABORTED
        body: dict[str, Any] = {
            "cycle": old.cycle, "config": self._floor.config, "station": old.station, "step": "",
            "position": old.position, "opened_at_ns": str(old.opened_at_ns), "ended_at_ns": str(since.at_ns),
            "closed_by": BLOCKED if blocked else "interrupted", "result": result.value, "complete": False,
            "missing": [], "collected": [], "context": old.context, "attempt": None if blocked else old.attempt,
            "windows": old.windows,
            "binding": {"state": state, "unit": old.unit, "serial": old.serial} if bound else {"state": state},
        }  # fmt: skip
        draft.add(Kind.CYCLE_CLOSED, old.station, body)

    # --- samples -----------------------------------------------------------------------------------------------

    def on_sample(self, sample: Sample, seq: int) -> Outcome:
        """One sample. ``records[0]`` is its own record if and only if it is to be stored."""
        store = self._stores.get(sample.tagset.source)
        if store is None:
            store = self._unplanned(sample)
        if sample.history:
            return Outcome([store.past(sample)], [])
        if store.watchers:
            return self._watch(store, sample, seq)
        stored, cycles = _windows(store, sample, seq)
        return Outcome([store.record(sample, cycles)] if stored else [], [])

    def _unplanned(self, sample: Sample) -> GroupStore:
        """A group that no policy names is stored always: better too much than a silent hole."""
        source = sample.tagset.source
        exact = tuple(range(len(sample.values)))
        self._stores[source] = GroupStore(StorePolicy(sample.tagset, True, False, exact, (), None))
        return self._stores[source]

    def _watch(self, store: GroupStore, sample: Sample, seq: int) -> Outcome:
        """A sample that some station looks at."""
        self._floor.units.refresh()
        draft = Draft(self._log, sample.at, seq + 1)
        if store.source in self._delimiting:
            for tag in self._delimiting[store.source]:
                self._check_silence(tag, sample.at, draft)
                if sample.values[tag.index] is not None:
                    self._newest[tag] = sample
        stored, _ = _windows(store, sample, seq)
        for station in store.watchers:
            station.on_sample(sample, seq, draft)
        if not stored and (draft.kept or draft.records):
            stored = True
            _take(store, sample, seq)
        if not stored:
            return Outcome([], draft.effects)
        # What the sample itself interrupted or closed is no longer extended by it.
        cycles = tuple([cycle.id for cycle in store.claimants if cycle.owns(sample)])
        return Outcome([store.record(sample, cycles, draft.counted), *draft.records], draft.effects)

    # --- scans -------------------------------------------------------------------------------------------------

    def on_scan(self, scan: Scan, seq: int) -> Outcome:
        """One scan. Its record comes first; which stations use it is in there."""
        self._floor.units.refresh()
        draft = Draft(self._log, scan.at, seq)
        reader = self._readers.setdefault(scan.device, Reader())
        heard = self._listen(scan, reader)
        used = [life.station.name for life, _ in heard.units] + [station.plan.name for station, _ in heard.context]
        used += [station.plan.name for station, _, _ in heard.parts]
        bounce = heard.bouncing and not used and not heard.strangers
        if reader.note(scan, bounce):
            said = [found for _, found in heard.units] + [found for _, _, found in heard.parts]
            identifiers = {kind: value for found in said for kind, value in found.items()}
            reason = "bounce" if bounce else "unmatched" if scan.status is ScanStatus.READ and not used else None
            draft.add(Kind.SCAN, scan.device, scan_body(scan, sorted(set(used)), identifiers, reason, heard.labels))
        for life in heard.bounced:
            life.counts["bounces"] += 1
        for station, found in heard.context:
            station.context.scanned(scan.device, found, scan.at)
        for _, part, found in heard.parts:
            part.scanned(found, ScanAt(scan.device, scan.at, seq), draft)
        for life, identifiers in heard.units:
            self._stations[life.station.name].on_scan(life, identifiers, scan.at, seq, draft)
        if not used and not bounce:
            self._report_unused(scan, reader, heard, seq, draft)
        elif used:
            report_repairs(scan, reader, heard.labels, seq, draft)
        return Outcome(draft.records, draft.effects)

    def _listen(self, scan: Scan, reader: Reader) -> _Heard:
        read = scan.status is ScanStatus.READ
        seen = Seen(text_of(scan.raw)[0] if read else None, self._labels.read(scan) if read else ())
        heard = _Heard(False, [], [], [], [], [], seen.labels)
        age_ns = reader.age_ns(scan)
        for station in self._stations.values():
            if scan.device not in station.readers:
                continue
            if age_ns is not None and age_ns < station.plan.bounce_s * 1e9:
                heard.bouncing = True
                heard.bounced += [life for life, _ in station.places(scan.device, seen)]
                continue
            if context := station.context.match(scan.device, seen):
                heard.context.append((station, context))
            elif meant := station.part_meant(scan.device, seen):
                heard.parts.append((station, *meant))
            else:
                places = station.places(scan.device, seen)
                heard.unread |= not places and any(scan.device in part.scanners() for part in station.parts)
                for life, found in places:
                    if found is not None:
                        heard.units.append((life, found))
                    else:
                        heard.strangers.append(life)
        return heard

    def _report_unused(self, scan: Scan, reader: Reader, heard: _Heard, seq: int, draft: Draft) -> None:
        """A scan that nobody could use: unmatched, no read, or noise."""
        evidence = [seq] if draft.records else []
        for life in heard.strangers:
            life.counts[{"read": "unmatched"}.get(scan.status, scan.status.value)] += 1
        one = heard.strangers[0] if len(heard.strangers) == 1 else None
        source = one.station.name if one else scan.device
        position = one.plan.number if one else None
        name = one.name if one else scan.device
        if scan.status is ScanStatus.NO_READ and reader.run in NO_READ_FINDINGS:
            text = f"{name}: the reader {scan.device} saw no label"
            report(draft, source, "no_read", text, evidence=evidence, position=position, details={"count": reader.run})
        elif any(label.doubtful for label in heard.labels):
            report_doubt(scan, source, position, heard.labels, seq, draft)
        elif scan.status is ScanStatus.READ and (heard.strangers or heard.unread):
            label = text_of(scan.raw)[0] or scan.raw.hex()
            text = f"{name}: the label {label[:64]!r} is none of {'a unit' if heard.strangers else 'those read'} here"
            report(draft, source, "unmatched_scan", text, evidence=evidence, position=position)

    # --- gaps and time -----------------------------------------------------------------------------------------

    def on_gap(self, device: str, since: Instant, now: Instant, cause: str, seq: int) -> Outcome:
        """``device`` was not observed from ``since`` (for a device that speaks by itself: when it was lost) to ``now``.

        ``cause``: lost (until its next sample it counts as away) or stall. Saying it twice does no harm.
        """
        draft = Draft(self._log, now, seq)
        for tag in [tag for tag in self._newest if device_of(tag.group) == device]:
            del self._newest[tag]
        for reader in self._readers.values():
            reader.forget()
        interrupted = sum(station.on_gap(device, since, cause, draft) for station in self._stations.values())
        if not interrupted:
            self._report_gap(device, since, cause, draft)
        return Outcome(draft.records, draft.effects)

    def on_open(self, device: str, now: Instant, seq: int) -> Outcome:
        """``device`` was (re)connected and can be written."""
        draft = Draft(self._log, now, seq)
        for station in self._stations.values():
            station.on_open(device, draft)
        return Outcome(draft.records, draft.effects)

    def on_tick(self, now: Instant, seq: int) -> Outcome:
        """Time-outs and silences. Call about four times a second."""
        self._floor.units.refresh()
        draft = Draft(self._log, now, seq)
        for tag in list(self._newest):
            self._check_silence(tag, now, draft)
        for station in self._stations.values():
            station.on_tick(draft)
        return Outcome(draft.records, draft.effects)

    def _check_silence(self, tag: TagRef, now: Instant, draft: Draft) -> None:
        """A delimiting tag that was not seen, or was refused, for longer than its limit: an observation gap."""
        newest, limit_ns = self._newest.get(tag), self._gap_ns.get(tag.group)
        if newest is None or limit_ns is None or now.mono_ns - newest.started_mono_ns <= limit_ns:
            return
        del self._newest[tag]
        for reader in self._readers.values():
            reader.forget()
        interrupted = sum(station.on_silence(tag, newest.at, draft) for station in self._stations.values())
        if not interrupted:
            self._report_gap(device_of(tag.group), newest.at, "stall", draft)

    def _report_gap(self, device: str, since: Instant, cause: str, draft: Draft) -> None:
        """A gap that interrupted no cycle. A device that is merely slow would fill the log with its stalls."""
        if cause == "stall":
            last = self._stall_reported.get(device)
            if last is not None and draft.at.mono_ns - last < STALL_FINDING_EVERY_NS:
                return
            self._stall_reported[device] = draft.at.mono_ns
        details = {"cause": cause, "device": device, "since_ns": str(since.at_ns)}
        report(draft, device, "observation_gap", f"{device} was not observed ({cause})", details=details)

    # --- what is asked, and the end ----------------------------------------------------------------------------

    def act(self, action: Action, now: Instant, seq: int) -> tuple[Outcome, dict[str, Any]]:
        """Do what a person or another system asks. Raises ActionRefused, and then nothing was changed."""
        self._floor.units.refresh()
        draft = Draft(self._log, now, seq)
        answer = action.apply(self._floor, draft)
        return Outcome(draft.records, draft.effects), answer

    def stop(self, now: Instant, seq: int) -> Outcome:
        """The agent stops in order: what must not stay written is taken back."""
        draft = Draft(self._log, now, seq)
        for station in self._stations.values():
            for part in station.parts:
                part.stop(draft)
        return Outcome(draft.records, draft.effects)

    def snapshot(self) -> dict[str, Any]:
        """What ``status`` shows: station -> {step, positions: {number: {cycle, serial, ...}}, context}."""
        return {name: station.snapshot() for name, station in self._stations.items()}


def _windows(store: GroupStore, sample: Sample, seq: int) -> tuple[bool, tuple[str, ...]]:
    """Is this sample stored, and whose windows does it extend?"""
    stored = store.wants(sample)
    if not store.claimants:
        return stored, ()
    return stored, _take(store, sample, seq if stored else None)


def _take(store: GroupStore, sample: Sample, seq: int | None) -> tuple[str, ...]:
    owners = [cycle for cycle in store.claimants if cycle.owns(sample)]
    for cycle in owners:
        cycle.take(store.source, sample, seq)
    return tuple([cycle.id for cycle in owners]) if seq is not None else ()
