"""Components that have a serial of their own: marriage, and removal at rework.

A component's label that is read while its parent's cycle is open installs it: the parent is the unit that the cycle is
bound to, so the parent's scan comes first. Nothing is installed in a cycle that is interrupted or in doubt, nor where
several units could be meant: that is a finding, and the scan can be repeated. A component that is in another unit stays
there (``component_reused``); one of another part number is not installed (``wrong_material``); neither is a unit that
holds the parent itself, at any depth.

**Which unit it was.** Where a PLC tag ends the cycles, the PLC may have finished the unit between its last poll and
the component's scan, and the next unit's scan may be missing or still to come. So a component waits, as everywhere, for
a read of that tag that began after it: if that shows no end, the unit was still there. If it does, or if nobody watched
meanwhile, the component may be the next unit's: that is a finding, and it is not installed. Neither a short time to
the end nor what the unit still lacks tells the two apart. The read is asked for at once, so a component is refused
only if its unit is done before the PLC has answered. None waits that was read within ``min_time`` of its unit's scan:
its unit cannot be done. Where the parent's own scan still waits for the PLC, the component waits for that first. At
most ``WAITING`` components wait a position, for ``WAIT_NS`` at most.

Taken out is what is read at the scanner of ``remove:``, or after the command barcode ``REMOVE`` on a scanner of
components while its parent's cycle is open. The command holds for one label, or ``REMOVE_NS``.

What goes into a component goes into its parent: lots and packages flow up, to every unit above, and leave with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.judge import Judgement
from edge_agent.binding.needs import Component
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.plan import Station
from edge_agent.binding.position import Floor, PositionLife, Waiting
from edge_agent.binding.seen import Seen
from edge_agent.binding.state import Installed
from edge_agent.binding.units import Unit
from edge_agent.model import BindingState, Instant, Kind, Sample

REMOVE = "REMOVE"
REMOVE_NS = 60 * 10**9
WAITING = 8
WAIT_NS = 5_000_000_000  # a component whose read does not come within this is not installed
DEPTH_MAX = 64  # of units in units; no product is built so deep


# --- what is in what -------------------------------------------------------------------------------------------


def children_of(floor: Floor, unit: Unit) -> dict[str, Installed]:
    """What is installed in the unit now, by the component's unit. Changes of it are the unit's."""
    if unit.children is None:
        unit.children = {one.child: one for one in floor.lookup.children_of(unit.unit)}
    return unit.children


def above(floor: Floor, unit: Unit) -> Iterator[Unit]:
    """The unit, what it is installed in, what that is installed in, and so on."""
    one: Unit | None = unit
    for _ in range(DEPTH_MAX):
        if one is None:
            return
        yield one
        one = floor.units.named(one.parent.parent, one.parent.parent_serial) if one.parent is not None else None


def consume(floor: Floor, unit: Unit, lot: str | None, package: str | None) -> None:
    """The unit used up some of this lot or package: so did all that it is in."""
    for own, value in ((unit.own_lots, lot), (unit.own_packages, package)):
        if own is not None and value is not None:
            own.add(value)
    for one in above(floor, unit):
        one.lots |= {lot} if lot is not None else set()
        one.packages |= {package} if package is not None else set()


def outdate(floor: Floor, unit: Unit) -> None:
    """A closed cycle was given to the unit, or taken from it, and with it what the cycle consumed."""
    for one in above(floor, unit):
        floor.units.outdate(one)


def install(
    floor: Floor, station: str, draft: Draft, parent: Unit, child: Unit, name: str, cycle: str, evidence: list[int]
) -> None:  # fmt: skip
    """Put a component into its parent. That it may be has been judged."""
    link = Installed(parent.unit, parent.serial, child.unit, child.serial, name, cycle)
    _record(draft, station, "install", link, evidence)
    children_of(floor, parent)[child.unit] = link
    child.parent = link
    for one in above(floor, parent):
        one.lots |= child.lots
        one.packages |= child.packages


def uninstall(floor: Floor, station: str, draft: Draft, child: Unit, evidence: list[int], cycle: str | None) -> None:
    """Take a component out of what it is in; its lots leave with it."""
    link = child.parent
    assert link is not None, "only what is installed is taken out"
    taken = Installed(link.parent, link.parent_serial, link.child, link.child_serial, link.name, cycle)
    _record(draft, station, "uninstall", taken, evidence)
    child.parent = None
    parent = floor.units.named(link.parent, link.parent_serial)
    if parent is None:
        return
    children_of(floor, parent).pop(child.unit, None)
    for one in above(floor, parent):
        _forget_lots(floor, one)


def _forget_lots(floor: Floor, unit: Unit) -> None:
    """What is left once a component is out. Where a unit's own are not told apart it keeps all: the safe side."""
    if unit.own_lots is None or unit.own_packages is None:
        return
    inside = [floor.units.find(link.child_serial) for link in children_of(floor, unit).values()]
    unit.lots = unit.own_lots.union(*(one.lots for one in inside if one is not None))
    unit.packages = unit.own_packages.union(*(one.packages for one in inside if one is not None))


def _record(draft: Draft, station: str, op: str, link: Installed, evidence: list[int]) -> None:
    body: dict[str, Any] = {
        "genealogy": draft.next_id, "op": op, "parent": link.parent, "parent_serial": link.parent_serial,
        "child": link.child, "child_serial": link.child_serial, "name": link.name,
    }  # fmt: skip
    if link.cycle is not None:
        body["cycle"] = link.cycle
    draft.add(Kind.GENEALOGY, station, body | {"evidence": evidence, "by": "agent"})


# --- the station's part ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Expected:
    """A component that waits for the PLC to be read; before that, for its parent's scan to take effect."""

    life: PositionLife
    parent: Waiting | Cycle
    meant: list[tuple[Component, int]]
    found: dict[str, str]
    scan: ScanAt

    @property
    def under_way(self) -> bool:
        """The parent's scan still waits."""
        return any(scan is self.parent for scan in self.life.waiting)

    def is_in(self, cycle: Cycle | None) -> bool:
        """Whether this is its parent's cycle."""
        if isinstance(self.parent, Cycle):
            return cycle is self.parent
        return cycle is not None and cycle.serial == self.parent.name


class Components(Part):
    """See the module docstring."""

    def __init__(self, floor: Floor, station: Station) -> None:
        self._floor = floor
        self._station = station
        self._plan = station.needs.components
        self._remove = station.needs.remove
        self._expected: list[_Expected] = []
        self._meant: list[tuple[Component, int]] = []  # of the scan at hand: (component, position)
        self._removing: Instant | None = None  # since when the next label is to be taken out

    def scanners(self) -> set[str]:
        """Those of all components, and of the removal."""
        found = {reads.scanner for component in self._plan for reads in component.reads.values()}
        return found | ({self._remove.scanner} if self._remove is not None else set())

    # --- scans -------------------------------------------------------------------------------------------------

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        """A component's label, or ``REMOVE``."""
        self._meant = []
        if self._remove is not None and (found := self._remove.match(device, seen)) is not None:
            return found
        mine = any(reads.scanner == device for component in self._plan for reads in component.reads.values())
        if mine and (seen.text == REMOVE or any(one.identifiers.get("command") == REMOVE for one in seen.labels)):
            return {"command": REMOVE}
        first: dict[str, str] | None = None
        for component in self._plan:
            for number, reads in component.reads.items():
                if (found := reads.match(device, seen)) is not None and first in (None, found):
                    first = found
                    self._meant.append((component, number))
        return first

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        """Install it, take it out, or say why not."""
        meant, self._meant = self._meant, []
        if found.get("command") == REMOVE:
            self._removing = scan.at
            return
        removing, self._removing = self._removing, None
        if not meant:
            self._take_out(found["serial"], scan, draft, None)
            return
        places = {number for _, number in meant}
        lives = [life for life in self._lives() if life.plan.number in places]
        if removing is not None and scan.at.mono_ns - removing.mono_ns <= REMOVE_NS:
            if (life := self._one(lives, found["serial"], scan, draft)) is not None:
                self._take_out(found["serial"], scan, draft, life)
            return
        awaited = [life for life in lives if life.waiting]
        if len(awaited) == 1 and all(life.cycle is None for life in lives if life is not awaited[0]):
            self._expect(_Expected(awaited[0], awaited[0].waiting[-1], meant, found, scan), draft)
            return
        life = self._one(lives, found["serial"], scan, draft)
        if life is None or life.cycle is None:
            return
        if surely_open(life, life.cycle, scan.at.mono_ns):
            self._install(life, life.cycle, meant, found, scan, draft)
        else:
            self._expect(_Expected(life, life.cycle, meant, found, scan), draft)

    def _expect(self, one: _Expected, draft: Draft) -> None:
        """It waits for a read of the tag that ends the cycle."""
        if len(self._expected) >= WAITING * len(self._station.positions):
            self._refuse(one.scan, one.found["serial"], "too many components wait for the PLC", draft, one.life)
            return
        self._expected.append(one)
        if one.life.trigger is not None:
            one.life.trigger.ask(draft)

    def _lives(self) -> list[PositionLife]:
        return list(self._floor.stations[self._station.name].positions.values())

    def _one(self, lives: list[PositionLife], serial: str, scan: ScanAt, draft: Draft) -> PositionLife | None:
        """The one position where a unit is at work and known; otherwise a finding."""
        busy = [life for life in lives if life.cycle is not None or life.waiting]
        if len(busy) != 1:
            why = "no unit is at work here" if not busy else "several units are at work here"
            self._refuse(scan, serial, f"{why}; scan the unit first" if not busy else why, draft)
            return None
        life, cycle = busy[0], busy[0].cycle
        if life.waiting or not _certain(cycle):
            why = "the unit here has just been scanned" if life.waiting else "it is not certain which unit is here"
            self._refuse(scan, serial, f"{why}; scan the unit again, then the component", draft, life)
            return None
        return life

    def _which(self, meant: list[tuple[Component, int]], life: PositionLife, unit: Unit | None) -> Component:
        """Of components with alike labels the first that is not complete yet."""
        here = [component for component, number in meant if number == life.plan.number]
        inside = [one.name for one in children_of(self._floor, unit).values()] if unit is not None else []
        return next((one for one in here if inside.count(one.name) < one.count), here[0])

    # --- in and out --------------------------------------------------------------------------------------------

    def _install(
        self, life: PositionLife, cycle: Cycle, meant: list[tuple[Component, int]], found: dict[str, str],
        scan: ScanAt, draft: Draft,
    ) -> None:  # fmt: skip
        component = self._which(meant, life, cycle.unit)
        parent, serial, evidence = cycle.unit, found["serial"], [scan.seq]
        assert parent is not None, "a certain cycle has a unit"
        child = self._floor.units.find(serial)
        if child is not None and child.parent is not None and child.parent.parent == parent.unit:
            return  # read once more
        if (reused := self._reused(parent, child)) is not None:
            report(
                draft, self._station.name, "component_reused",
                f"{life.name}: {component.name} {serial} {reused}, so it was not installed in {parent.serial}",
                evidence=evidence, cycle=cycle.id, position=life.plan.number, serial=parent.serial,
                details={"component": component.name, "child": serial},
            )  # fmt: skip
            return
        number = found.get("part_number") or (child.identifiers.get("part_number") if child else None)
        allowed = self.allowed(component, cycle)
        if allowed and number not in allowed:
            report(
                draft, self._station.name, "wrong_material",
                f"{life.name}: {component.name} {serial} is {number or 'of an unknown part number'},"
                f" {parent.serial} needs {' or '.join(sorted(allowed))}",
                evidence=evidence, cycle=cycle.id, position=life.plan.number, serial=parent.serial,
                details={"component": component.name, "child": serial, "part_number": number,
                         "allowed": sorted(allowed)},
            )  # fmt: skip
            return
        inside = [one.name for one in children_of(self._floor, parent).values()]
        if inside.count(component.name) >= component.count:
            why = f"{parent.serial} has its {component.name} already; scan {REMOVE} and the old one first"
            self._refuse(scan, serial, why, draft, life)
            return
        child = self._floor.units.know(draft, self._station.name, found, evidence)
        install(self._floor, self._station.name, draft, parent, child, component.name, cycle.id, evidence)
        life.counts["installed"] += 1

    def allowed(self, component: Component, cycle: Cycle) -> frozenset[str]:
        """The part numbers that this component may have in this cycle's unit."""
        variant = self._station.needs.variants.get(part_number_of(cycle) or "")
        return variant.components.get(component.name, component.part_numbers) if variant else component.part_numbers

    def _reused(self, parent: Unit, child: Unit | None) -> str | None:
        """Why this unit cannot be a component of that one."""
        if child is None:
            return None
        if any(one.unit == child.unit for one in above(self._floor, parent)):
            return "is the unit itself" if child.unit == parent.unit else f"holds {parent.serial}"
        return None if child.parent is None else f"is in {child.parent.parent_serial} already"

    def _take_out(self, serial: str, scan: ScanAt, draft: Draft, life: PositionLife | None) -> None:
        """``life``: the position at which it must be in the unit; None: wherever it is."""
        waiting = [one for one in self._expected if one.found["serial"] == serial]
        if waiting:
            self._expected = [one for one in self._expected if one not in waiting]
            self._refuse(waiting[0].scan, serial, "it was taken out before the PLC was read", draft, waiting[0].life)
            return
        child = self._floor.units.find(serial)
        cycle = life.cycle if life is not None else None
        if child is None or child.parent is None:
            self._refuse(scan, serial, "it is not installed in anything", draft, life)
        elif cycle is not None and cycle.unit is not None and child.parent.parent != cycle.unit.unit:
            why = f"it is in {child.parent.parent_serial}, not in {cycle.unit.serial}"
            self._refuse(scan, serial, why, draft, life)
        else:
            uninstall(self._floor, self._station.name, draft, child, [scan.seq], cycle.id if cycle else None)

    def _refuse(self, scan: ScanAt, serial: str, why: str, draft: Draft, life: PositionLife | None = None) -> None:
        name = life.name if life is not None else self._station.name
        cycle = life.cycle if life is not None else None
        report(
            draft, self._station.name, "unmatched_scan", f"{name}: the component {serial} was not taken: {why}",
            evidence=[scan.seq], cycle=cycle.id if cycle else None,
            position=life.plan.number if life is not None else None, serial=cycle.serial if cycle else None,
            details={"child": serial, "reason": why},
        )  # fmt: skip

    # --- components that wait for the PLC ------------------------------------------------------------------------

    def _settle(self, draft: Draft, closing: Cycle | None = None) -> None:
        """Install what waited and is certain by now; refuse what cannot become so. ``closing``: a cycle that ends."""
        waiting, self._expected = self._expected, []
        for one in waiting:
            cycle = one.life.cycle
            if one.under_way:
                self._expected.append(one)
            elif cycle is None or not one.is_in(cycle):
                if closing is not None:
                    self._expected.append(one)  # the cycle that closes makes room for the one it belongs to
                else:
                    self._give_up(one, draft)
            elif not _certain(cycle):
                self._give_up(one, draft)
            elif surely_open(one.life, cycle, one.scan.at.mono_ns):
                self._install(one.life, cycle, one.meant, one.found, one.scan, draft)
            elif closing is cycle:
                why = f"{cycle.serial} ended before the PLC was read after it, so it may be the next unit's"
                self._refuse(
                    one.scan, one.found["serial"], f"{why}; scan its unit, then the component", draft, one.life
                )
            elif draft.at.mono_ns - one.scan.at.mono_ns > WAIT_NS:
                self._refuse(one.scan, one.found["serial"], "the PLC did not answer; scan it again", draft, one.life)
            else:
                one.parent = cycle
                self._expected.append(one)

    def _give_up(self, one: _Expected, draft: Draft) -> None:
        why = "it is not certain which unit is here; scan the unit again, then the component"
        self._refuse(one.scan, one.found["serial"], why, draft, one.life)

    def settled(self, sample: Sample, seq: int, draft: Draft) -> None:
        """The read that they waited for may be this one."""
        if self._expected:
            self._settle(draft)

    def interrupted(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """Another unit may have been here when they were read, whichever is here after it."""
        waiting, self._expected = self._expected, []
        for one in waiting:
            if one.life is life and not one.under_way and one.is_in(cycle):
                self._give_up(one, draft)
            else:
                self._expected.append(one)

    def closing(self, life: PositionLife, cycle: Cycle, judgement: Judgement, draft: Draft) -> None:
        """The last chance of what waited for this unit."""
        if self._expected:
            self._settle(draft, cycle)

    def tick(self, draft: Draft) -> None:
        """Four times a second is soon enough for the finding."""
        if self._expected:
            self._settle(draft)

    def stop(self, draft: Draft) -> None:
        """What waits is not known after the restart."""
        waiting, self._expected = self._expected, []
        for one in waiting:
            self._refuse(one.scan, one.found["serial"], "the agent stopped before the PLC was read", draft, one.life)


def surely_open(life: PositionLife, cycle: Cycle, mono_ns: int) -> bool:
    """Whether the cycle had not ended then, as a read of its ending tag, or the time since its scan, shows."""
    if life.trigger is None or life.trigger.tag is None or life.read_mono_ns >= mono_ns:
        return True
    return cycle.resumed_by is None and mono_ns - cycle.scanned_mono_ns < life.station.min_s * 1e9


def _certain(cycle: Cycle | None) -> bool:
    """Whose the cycle is, is known, and somebody watched."""
    return cycle is not None and cycle.unit is not None and cycle.state is BindingState.BOUND and not cycle.suspended


def part_number_of(cycle: Cycle) -> str | None:
    """The part number of a cycle: of its context when it opened, else of its unit's label."""
    return part_number(cycle.context, cycle.unit)


def part_number(context: Mapping[str, Mapping[str, Any]], unit: Unit | None) -> str | None:
    """The same of a unit that is to be worked on in this context."""
    value = context.get("part_number", {}).get("value")
    if value not in (None, ""):
        return str(value)
    return unit.identifiers.get("part_number") if unit is not None else None
