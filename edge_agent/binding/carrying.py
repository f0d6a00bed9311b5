"""Carriers at a station: its units are put on them, taken off them, or worked on where they lie.

**Loading.** The carrier is read, then its units (``first: carrier``), or the units, then the carrier. A unit is
loaded once it and its carrier are known: on the place of its position, or, with ``count``, all at once when so many
units were read, on places 1, 2, 3 in their order (one that was not read would shift all that follow, so a carrier
that leaves with fewer is not loaded at all). What does not fit shows that a scan is missing (``skipped_scan``): the
place then has two candidates, unless the carrier was read elsewhere since: then the unit is on one that was not read.
A carrier that is still loaded when it comes to be loaded was not cleared: what it carried is off, with a finding.

**Order.** A unit that a scan names belongs to the carrier that was read before it (after it, with ``first: unit``).
Where a PLC names it at the end, the ending tag must have been seen at rest since the last carrier came: or the end
may be the carrier's before.

**Unloading.** The carrier's scan empties it. Without a reader of its own, a unit is off as soon as it is identified
at the station, or, where the station works on carriers, when its cycle closes.

**Gaps.** What is under way when a reader is lost is not loaded. If the gap is longer than ``reload_s``, every load of
before is in doubt (:mod:`edge_agent.binding.carriers`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from edge_agent.binding.carriers import Carrier
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.places import Carrying
from edge_agent.binding.plan import Edge, Handshake, Station
from edge_agent.binding.position import Floor, PositionLife, Waiting
from edge_agent.binding.seen import Seen
from edge_agent.binding.state import KnownCycle
from edge_agent.binding.units import Unit
from edge_agent.model import BindingState, Instant, Sample

MAX_WAITING = 64  # first: unit; units whose carrier was not read yet


@dataclass(slots=True)
class _Read:
    """A unit that was read for a carrier. ``cycle``: in which."""

    unit: Unit
    place: int  # 0: by its order
    cycle: str
    evidence: int


@dataclass(slots=True)
class _Load:
    """One carrier's loading."""

    carrier: str
    seq: int
    units: list[_Read] = field(default_factory=list)
    full: bool = False
    lost: bool = False  # nobody watched since


class _Carrying(Part):
    """What loading and unloading have in common."""

    def __init__(self, floor: Floor, station: Station, plan: Carrying) -> None:
        self._floor = floor
        self._carriers = floor.carriers
        self._station = station
        self._plan = plan

    def scanners(self) -> set[str]:
        return {self._plan.reads.scanner} if self._plan.reads is not None else set()

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        return self._plan.reads.match(device, seen) if self._plan.reads is not None else None

    def start(self, draft: Draft) -> None:
        self._unwatched(self._floor.dark_ns)

    def gap(self, device: str, since: Instant, draft: Draft) -> None:
        if device in self.scanners():
            self._unwatched(draft.at.mono_ns - since.mono_ns)

    def _unwatched(self, for_ns: int) -> None:
        if for_ns > self._plan.reload_s * 1e9:
            reason = f"{self._station.name} was not watched for {for_ns / 1e9:.0f} s: it may have been loaded anew"
            self._carriers.doubt_all(reason)

    def _skipped(
        self, draft: Draft, text: str, evidence: Iterable[int], serial: str | None = None, cycle: str | None = None
    ) -> None:  # fmt: skip
        report(
            draft, self._station.name, "skipped_scan", f"{self._station.name}: {text}", evidence=sorted({*evidence}),
            serial=serial, cycle=cycle,
        )  # fmt: skip


class Unload(_Carrying):
    """See the module docstring."""

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        carrier = self._carriers.get(found["carrier"])
        carrier.seen = self._station.name
        for _, one in carrier.loaded:
            self._carriers.take(draft, self._station.name, carrier.name, one.unit, [scan.seq])

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if self._plan.reads is None and self._station.of != "carrier" and cycle.state is BindingState.BOUND:
            self._off(cycle, draft)

    def closed(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if self._plan.reads is None and self._station.of == "carrier":
            self._off(cycle, draft)

    def _off(self, cycle: Cycle, draft: Draft) -> None:
        """The unit of this cycle, or what may be it, is on its carrier no more."""
        units = [cycle.unit.serial] if cycle.unit is not None else [one["serial"] for one in cycle.candidates]
        for serial in units:
            unit = self._floor.units.find(serial)
            carrier = unit.identifiers.get("carrier") if unit is not None else None
            if unit is not None and carrier is not None:
                self._carriers.take(draft, self._station.name, carrier, unit.unit, [draft.seq - 1])


class Load(_Carrying):
    """See the module docstring."""

    def __init__(
        self, floor: Floor, station: Station, plan: Carrying, positions: Collection[PositionLife]
    ) -> None:  # fmt: skip
        super().__init__(floor, station, plan)
        self._load: _Load | None = None  # the carrier that was read last
        self._waiting: list[_Read] = []  # first: unit; those whose carrier was not read yet
        self._came: Instant | None = None  # when a carrier was read last
        self._rested = True  # the ending tag was at rest since then
        self._unknown = False  # somebody is among them who is not known
        self._ends = {life.plan.end for life in positions if isinstance(life.plan.end, (Handshake, Edge))}
        self._by_cycle: dict[str, tuple[str, int, Unit]] = {}  # open cycle -> where it put its unit

    # --- the carrier -------------------------------------------------------------------------------------------

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        carrier, load = self._carriers.get(found["carrier"]), self._load
        again = load is not None and load.carrier == carrier.name and carrier.seen == self._station.name
        if again and load is not None and (not load.full or carrier.loaded):
            load.lost = False
            return  # it stands here, and is read once more
        carrier.seen = self._station.name
        self._came, self._rested = scan.at, not self._ends
        if self._plan.first == "carrier":
            self._leave(draft, scan.seq)
            self._clear(carrier, scan, draft)
            self._load, self._unknown = _Load(carrier.name, scan.seq), False
        elif self._waiting or not carrier.loaded:
            self._clear(carrier, scan, draft)
            self._load = _Load(carrier.name, scan.seq, full=True)
            self._load_waiting(carrier.name, scan, draft)

    def _clear(self, carrier: Carrier, scan: ScanAt, draft: Draft) -> None:
        """What it still carries was never unloaded."""
        loaded = carrier.loaded
        if not loaded:
            return
        serials = [one.serial for _, one in loaded]
        report(
            draft, self._station.name, "carrier_not_cleared",
            f"{self._station.name}: {carrier.name} comes to be loaded and still carries {', '.join(serials[:4])}",
            evidence=sorted({*(seq for _, one in loaded for seq in one.evidence), scan.seq}),
            details={"carrier": carrier.name, "units": [one.candidate for _, one in loaded]},
        )  # fmt: skip
        for _, one in loaded:
            self._carriers.take(draft, self._station.name, carrier.name, one.unit, [scan.seq])

    def _leave(self, draft: Draft, seq: int) -> None:
        """Another carrier is here: the one before left with what it has."""
        load = self._load
        if load is None or load.full or not load.units or self._plan.count is None:
            return
        read = f"{len(load.units)} of {self._plan.count} units"
        text = f"{load.carrier} left with {read} read: it cannot be told which is where"
        self._skipped(draft, text, [load.seq, seq, *(one.evidence for one in load.units)])

    def _load_waiting(self, carrier: str, scan: ScanAt, draft: Draft) -> None:
        """first: unit: those that were read since the carrier before."""
        waiting, self._waiting = self._waiting, []
        unknown, self._unknown = self._unknown, False
        count = self._plan.count
        if count is not None and waiting:
            if len(waiting) != count or unknown:
                text = f"{len(waiting)} units are known for {carrier}, which takes {count}"
                self._skipped(draft, text, [scan.seq, *(one.evidence for one in waiting)])
                return
            waiting = [_Read(one.unit, place, one.cycle, one.evidence) for place, one in enumerate(waiting, 1)]
        for place in sorted({one.place for one in waiting}):
            here = [one for one in waiting if one.place == place]
            for one in here:
                self._put(carrier, one, [one.evidence, scan.seq], draft)
            if len(here) > 1:
                self._two(carrier, place, [one.unit.serial for one in here], [scan.seq], draft)

    # --- the units ---------------------------------------------------------------------------------------------

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        """Has the ending tag been at rest since the carrier came?"""
        if self._rested or self._came is None or sample.started_mono_ns < self._came.mono_ns:
            return
        self._rested = any(_at_rest(end, sample) for end in self._ends)

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        seq = draft.seq - 1
        if cycle.unit is None or cycle.state is not BindingState.BOUND:
            self._unknown = True
            return
        place = 0 if self._plan.count is not None else self._plan.places.get(life.plan.number, life.plan.number)
        read = _Read(cycle.unit, place, cycle.id, seq)
        if not self._in_order(cycle):
            text = f"{cycle.unit.serial} was seen only after the next carrier: which of them it is on cannot be told"
            self._skipped(draft, text, [seq], cycle.unit.serial, cycle.id)
        elif self._plan.first == "unit":
            self._waiting.append(read)
            del self._waiting[: -max(MAX_WAITING, (self._plan.count or 0) + 1)]  # no carrier is read: it may be dead
        elif self._load is None or self._load.lost:
            text = f"{cycle.unit.serial} is loaded, and no carrier was read"
            self._skipped(draft, text, [seq], cycle.unit.serial, cycle.id)
        else:
            self._take(self._load, read, draft)

    def _in_order(self, cycle: Cycle) -> bool:
        if self._station.identity == "in_data":
            return self._rested
        return self._came is None or cycle.scanned_mono_ns >= self._came.mono_ns

    def _take(self, load: _Load, read: _Read, draft: Draft) -> None:
        """first: carrier: one more unit for it."""
        count = self._plan.count
        if any(one.unit is read.unit for one in load.units):
            return
        over = load.full if count is not None else any(one.place == read.place for one in load.units)
        if over:
            self._too_many(load, read, draft)
            return
        load.units.append(read)
        if count is None:
            self._put(load.carrier, read, [read.evidence, load.seq], draft)
        elif len(load.units) == count:
            load.full = True
            if self._unknown:
                text = f"a unit on {load.carrier} is not known: it cannot be told which is where"
                self._skipped(draft, text, [load.seq])
                return
            for place, one in enumerate(load.units, 1):
                placed = _Read(one.unit, place, one.cycle, one.evidence)
                self._put(load.carrier, placed, [one.evidence, load.seq], draft)

    def _too_many(self, load: _Load, read: _Read, draft: Draft) -> None:
        serial = read.unit.serial
        if self._carriers.get(load.carrier).seen != self._station.name:
            text = f"{serial} is loaded on a carrier that was not read; {load.carrier} had left"
            self._skipped(draft, text, [load.seq, read.evidence], serial, read.cycle)
            return
        places = [read.place] if read.place else range(1, (self._plan.count or 0) + 1)
        before = [one.unit.serial for one in load.units if read.place in (0, one.place)]
        if read.place:
            self._put(load.carrier, read, [read.evidence, load.seq], draft)
        for place in places:
            if not read.place:  # a carrier was missed, or one of them was none of its units: all are shifted
                for one in (*load.units, read):
                    self._carriers.may_be(load.carrier, place, one.unit)
            self._two(load.carrier, place, [*before, serial], [load.seq, read.evidence], draft, told=place != places[0])

    def _two(
        self, carrier: str, place: int, serials: Sequence[str], evidence: Iterable[int], draft: Draft, *,
        told: bool = False,
    ) -> None:  # fmt: skip
        """More units than places: a carrier was not read, and nobody knows when."""
        seqs = sorted({*evidence})
        reason = f"{' and '.join(serials)} were read for place {place} of {carrier}: a carrier between was not"
        self._carriers.contradict(draft, self._station.name, carrier, place, reason, seqs)
        if not told:
            self._skipped(draft, reason, seqs)

    def _put(self, carrier: str, read: _Read, evidence: list[int], draft: Draft) -> None:
        self._carriers.put(draft, self._station.name, carrier, read.place, read.unit, evidence)
        self._by_cycle[read.cycle] = (carrier, read.place, read.unit)
        while len(self._by_cycle) > 1000:
            del self._by_cycle[next(iter(self._by_cycle))]

    def rescanned(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """The unit that was read here last is read again: with another carrier here, it is on the one or the other."""
        put, load = self._by_cycle.get(cycle.id), self._load
        if put is None or load is None or load.carrier == put[0] or load.lost or self._plan.first == "unit":
            return
        serial = put[2].serial
        reason = f"{serial} was put on {put[0]} and read again while {load.carrier} stood there"
        self._carriers.contradict(draft, self._station.name, put[0], put[1], reason, [load.seq])
        report(
            draft, self._station.name, "duplicate_serial", f"{life.name}: {reason}", evidence=[load.seq],
            position=life.plan.number, serial=serial,
        )  # fmt: skip

    def rebound(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """It is in doubt who was here: so it is who is on the carrier."""
        put = self._by_cycle.get(cycle.id)
        sure = cycle.state is BindingState.BOUND and cycle.unit is not None
        if sure and (put is None or cycle.unit is put[2]):
            if put is not None and not cycle.suspended:
                self._again(*put, draft)
            return
        if put is not None:
            reason = f"who was at {life.name} is in doubt"
            self._carriers.contradict(draft, self._station.name, put[0], put[1], reason, [draft.seq - 1])
        elif self._plan.count is not None:
            self._unknown = True
        self._waiting = [one for one in self._waiting if one.cycle != cycle.id]

    def decided(self, known: KnownCycle, serial: str | None, draft: Draft) -> None:
        """Another was loaded, a person says; the one that was taken for it may still be on its way here."""
        put = self._by_cycle.get(known.cycle) or self._put_before(known)
        if put is not None and put[2].serial != serial and put[2].identifiers.get("carrier") == put[0]:
            reason = f"who was loaded in {known.cycle} was corrected"
            self._carriers.contradict(draft, self._station.name, put[0], put[1], reason, [draft.seq - 1])

    def _put_before(self, known: KnownCycle) -> tuple[str, int, Unit] | None:
        """Where a cycle of before the restart put its unit, unless a newer one loaded it since."""
        unit = self._floor.units.named(known.unit, known.serial) if known.unit and known.serial else None
        carrier = unit.identifiers.get("carrier") if unit is not None else None
        if unit is None or carrier is None:
            return None
        newest = unit.results.get(known.step)
        if newest is not None and newest.cycle != known.cycle:
            return None
        places = (place for place, one in self._carriers.get(carrier).loaded if one.unit == unit.unit)
        return next(((carrier, place, unit) for place in places), None)

    def _again(self, carrier: str, place: int, unit: Unit, draft: Draft) -> None:
        """The unit was interrupted and is still here; so is its carrier, if nothing else was seen."""
        here = self._carriers.get(carrier).places.get(place, [])
        still = self._load is not None and self._load.carrier == carrier and not self._load.lost
        if still and len(here) == 1 and here[0].unit == unit.unit and here[0].doubt:
            self._carriers.take(draft, self._station.name, carrier, unit.unit, [])
            self._carriers.put(draft, self._station.name, carrier, place, unit, [draft.seq - 1])

    # --- gaps --------------------------------------------------------------------------------------------------

    def interrupted(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """The unit may be another one by now; so may what lies on its place, unless the carrier was seen elsewhere."""
        carrier = cycle.unit.identifiers.get("carrier") if cycle.unit is not None else None
        if carrier is None or cycle.unit is None:
            return
        on = self._carriers.get(carrier)
        for place, one in on.loaded:
            if one.unit == cycle.unit.unit and on.seen in ("", self._station.name):
                reason = f"{self._station.name} was not watched while {carrier} stood there"
                self._carriers.contradict(draft, self._station.name, carrier, place, reason, [])

    def gap(self, device: str, since: Instant, draft: Draft) -> None:
        super().gap(device, since, draft)
        readers = {life.plan.scanner for life in self._floor.stations[self._station.name].positions.values()}
        if device in self.scanners() | readers:
            self._waiting.clear()
            if self._load is not None:
                self._load.lost = True


def _at_rest(end: Handshake | Edge, sample: Sample) -> bool:
    tag, rising = (end.ready, True) if isinstance(end, Handshake) else (end.tag, end.rising)
    return tag.shown_by(sample) and bool(sample.values[tag.index]) is not rising


def name_unit(floor: Floor, station: Station, place: int, scan: Waiting) -> None:
    """The scan of a carrier names the unit that lies on this place of it: who that is, why not, or nobody."""
    name = scan.identifiers["carrier"]
    carrier = floor.carriers.get(name)
    carrier.seen = station.name
    one, doubt, candidates = carrier.at(place)
    scan.rule, scan.doubt = "carrier", doubt
    scan.candidates = tuple(other.candidate for other in candidates)
    scan.identifiers = {} if one is None else {"serial": one.serial}
    scan.evidence = () if one is None else one.evidence


def report_empty(floor: Floor, station: Station, scan: Waiting, name: str, draft: Draft) -> None:
    """The carrier has no unit on any of the station's places, and no PLC will tell whether there was work."""
    places = floor.carriers.get(name).places
    if not any(places.get(position.number) for position in station.positions):
        report(
            draft, station.name, "unmatched_scan", f"{station.name}: nothing is known to be on {name}",
            evidence=[scan.seq], details={"carrier": name},
        )  # fmt: skip
