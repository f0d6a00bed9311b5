"""Materials: which lot or package is loaded at a station, and which of them went into a cycle's unit.

A scan loads. Loading another one replaces what was loaded (``unload``) or, where the material is spliced, is joined to
it: then nobody knows which of the two a cycle takes, until the splice sensor's edge or, at the latest, after
``splice_units`` cycles (``deplete`` of the old one). The label that is loaded already changes nothing.
The command barcode ``EMPTY:<material>`` on the material's scanner says that nothing is loaded any more.

A cycle lists at its end everything that was loaded at any time while it was open, or since its unit was scanned, or
since the last read before it of the tag that ends the cycles. ``certain`` says that it was that one and no other: it
is false over a change, during a splice, for a package that was loaded elsewhere since, and for one that was loaded when
the PLC may have been done with the unit: no later read of the ending tag showed it unfinished. What is
loaded stays so over a restart, and stays certain: a reel does not change by itself, and a change that nobody scans
cannot be noticed at any time. Only a cycle that is older than what is loaded, and was open over a restart, is in doubt.

Judged, never refused: a wrong part number, an expired lot, a lot that is known otherwise, a balance below zero. What is
on the machine is on the machine, and the record must say so; the gate is what stops. Expiry is compared by the
UTC date of the scan or the cycle; the binder does not know whether the clock is right (``clock_step`` says when it was
not). A balance counts the finished cycles that certainly took from the package; it is a count, not a scale.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from edge_agent.binding.context import StationContext
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.genealogy import consume, outdate, part_number, part_number_of, surely_open
from edge_agent.binding.judge import Judgement
from edge_agent.binding.needs import Material
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.plan import Station
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.seen import Seen
from edge_agent.binding.state import ActiveMaterial, KnownLot, opened_seq
from edge_agent.binding.units import Unit
from edge_agent.model import BindingState, Kind, Result, Sample

EMPTY = "EMPTY:"
SPLICED_MAX = 4  # packages of one material whose end nobody saw; one more, and the oldest counts as used up
REPLACED_MAX = 16  # remembered for cycles that open soon after
LOTS_MAX = 1000  # remembered by what their label said, beside the registry's


@dataclass(slots=True, eq=False)
class Load:
    """A lot or package at the station."""

    name: str
    lot: str | None
    package: str | None
    part_number: str | None
    supplier: str | None
    expiry: str | None
    quantity: float | None
    at_ns: int
    seq: int  # of the scan
    used: int = 0  # cycles that certainly took from it
    spliced_for: int | None = None  # another was joined to it so many cycles ago; None: it is the newest
    disputed: bool = False  # its package was loaded elsewhere since
    at_mono_ns: int = 0  # of the scan; 0: before this start
    until_mono_ns: int = 0  # another one took its place then
    told: tuple[str, ...] = ()  # findings that were reported of it

    @property
    def label(self) -> str:
        """For texts."""
        return " ".join(part for part in (self.lot, self.package) if part)

    def same(self, other: Load) -> bool:
        """Whether both are one lot or package, as far as their labels tell."""
        return self.lot == other.lot and self.package == other.package

    def expired(self, at_ns: int) -> bool:
        """Whether the last day on which it may be used is over, by UTC."""
        try:
            return self.expiry is not None and _day(at_ns) > date.fromisoformat(self.expiry)
        except ValueError:
            return False


class Materials(Part):
    """See the module docstring. ``loads``: by material, oldest first; the last is the one that was loaded last."""

    def __init__(self, floor: Floor, station: Station, context: StationContext) -> None:
        self._floor = floor
        self._station = station
        self._context = context
        self._plan = {one.name: one for one in station.needs.materials}
        self.loads: dict[str, list[Load]] = {name: [] for name in self._plan}
        self._during: dict[str, dict[str, list[Load]]] = {}  # open cycle -> what was loaded while it was open
        self._replaced: deque[Load] = deque(maxlen=REPLACED_MAX)
        self._meant = ""  # the material that the scan at hand is for
        self._level: dict[str, bool | None] = dict.fromkeys(self._plan)  # of the splice sensor; None: not seen
        self._lots: dict[str, Load] = {}  # as their labels said, newest last
        self._restore(floor.materials)

    def watched(self) -> set[str]:
        """The groups of the splice sensors."""
        return {one.splice_done.group for one in self._plan.values() if one.splice_done is not None}

    def scanners(self) -> set[str]:
        """Those of all materials."""
        return {reads.scanner for one in self._plan.values() for reads in one.reads}

    # --- what is loaded ----------------------------------------------------------------------------------------

    def _restore(self, active: tuple[ActiveMaterial, ...]) -> None:
        """Take over what was loaded when the last log ended, in the order in which it was loaded."""
        for one in active:
            if one.station != self._station.name or one.name not in self._plan:
                continue
            plan, used = self._plan[one.name], one.used
            load = Load(
                one.name, one.lot, one.package, one.part_number, one.supplier, one.expiry, one.quantity, one.at_ns,
                one.seq, used, 0 if one.state == "spliced" else None,
            )  # fmt: skip
            if _balance(load, plan) < 0:
                load.told = ("negative_balance",)
            self.loads[one.name].append(load)
            self._remember(load)

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        """A label of a lot or package, or ``EMPTY:<material>``."""
        for name, plan in self._plan.items():
            if any(reads.scanner == device for reads in plan.reads) and seen.text == EMPTY + name:
                self._meant = name
                return {"command": EMPTY + name}
        for name, plan in self._plan.items():
            for reads in plan.reads:
                if (found := reads.match(device, seen)) is not None:
                    self._meant = name
                    return found
        return None

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        """Load it, or take away what is loaded."""
        plan = self._plan[self._meant]
        if "command" in found:
            self.empty(plan.name, [scan.seq], draft)
            return
        load = Load(
            plan.name, found.get("lot"), found.get("package"), found.get("part_number"), found.get("supplier"),
            found.get("expiry"), _number(found.get("quantity")), scan.at.at_ns, scan.seq, at_mono_ns=scan.at.mono_ns,
        )  # fmt: skip
        self._check_copied(load, [load.seq], draft)
        old = next((one for one in self.loads[plan.name] if one.same(load)), None)
        if old is None:
            self._load(plan, load, draft)
        elif load.package is None and load.quantity is not None:  # it may be the next package of the lot
            self._end("unload", old, [load.seq], draft)
            self._begin("load", load, draft)
        else:
            load = old
        self._claim(load, scan, draft)

    def _load(self, plan: Material, load: Load, draft: Draft) -> None:
        loads, evidence = self.loads[plan.name], [load.seq]
        if loads and plan.splice:
            loads[-1].spliced_for = 0
            self._begin("splice", load, draft)
            if len(loads) > SPLICED_MAX:
                self._end("deplete", loads[0], evidence, draft)
        else:
            for replaced in list(loads):
                self._end("unload", replaced, evidence, draft)
            self._begin("load", load, draft)
        allowed = plan.part_numbers
        if allowed and load.part_number not in allowed:
            self._tell_wrong(load, allowed, draft)
        self._tell_expired(load, draft)

    def _begin(self, op: str, load: Load, draft: Draft) -> None:
        """From now on it may go into every unit that is at work here."""
        self.loads[load.name].append(load)
        for during in self._during.values():
            during.setdefault(load.name, []).append(load)
        self._remember(load)
        self._record(op, load, [load.seq], draft)

    def empty(self, name: str, evidence: list[int], draft: Draft, by: str = "agent") -> None:
        """Nothing of this material is loaded any more."""
        for old in list(self.loads[name]):
            self._end("deplete", old, evidence, draft, by)

    def _end(self, op: str, load: Load, evidence: list[int], draft: Draft, by: str = "agent") -> None:
        self.loads[load.name].remove(load)
        if op == "unload":
            load.until_mono_ns = draft.at.mono_ns
            self._replaced.append(load)
        self._record(op, load, evidence, draft, by)

    def _record(self, op: str, load: Load, evidence: list[int], draft: Draft, by: str = "agent") -> None:
        body: dict[str, Any] = {"material": draft.next_id, "op": op, "name": load.name}
        said = {
            "lot": load.lot, "package": load.package, "part_number": load.part_number, "supplier": load.supplier,
            "quantity": load.quantity, "expiry": load.expiry,
        }  # fmt: skip
        body |= {key: value for key, value in said.items() if value is not None}
        draft.add(Kind.MATERIAL, self._station.name, body | {"evidence": evidence, "by": by})

    # --- splices -----------------------------------------------------------------------------------------------

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        """The splice sensor: its rising edge says that the old package is through."""
        for name, plan in self._plan.items():
            tag = plan.splice_done
            if tag is None or not tag.shown_by(sample):
                continue
            before, self._level[name] = self._level[name], bool(sample.values[tag.index])
            if before is False and self._level[name]:
                for old in [one for one in self.loads[name] if one.spliced_for is not None]:
                    draft.keep()
                    self._end("deplete", old, [seq], draft)

    def gap(self, device: str, since: Any, draft: Draft) -> None:
        """What the sensor shows next is a level, no edge."""
        for name, plan in self._plan.items():
            if plan.splice_done is not None and plan.splice_done.name.partition(".")[0] == device:
                self._level[name] = None

    # --- cycles ------------------------------------------------------------------------------------------------

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """What is loaded now may go in; is it right for this unit?"""
        self._during[cycle.id] = {name: list(loads) for name, loads in self.loads.items() if loads}
        since_ns = cycle.scanned_mono_ns
        if life.trigger is not None and life.trigger.tag is not None:
            since_ns = min(since_ns, life.read_mono_ns)
        for load in (one for one in reversed(self._replaced) if one.until_mono_ns > since_ns):
            self._during[cycle.id].setdefault(load.name, []).insert(0, load)
        for loads in self.loads.values():
            for load in loads:
                self._tell_expired(load, draft, cycle)
                if self._wrong(load, part_number_of(cycle)):
                    self._tell_wrong(load, self._allowed(load.name, part_number_of(cycle)), draft, cycle)

    def closing(self, life: PositionLife, cycle: Cycle, judgement: Judgement, draft: Draft) -> None:
        """List what was loaded while it was open."""
        during = self._during.pop(cycle.id, None)
        if cycle.blocked:
            return
        if during is None:  # open since before a restart
            during = {name: list(loads) for name, loads in self.loads.items() if loads}
        for name in self._plan:
            loads = during.get(name, [])
            distinct = [one for index, one in enumerate(loads) if not any(one.same(other) for other in loads[:index])]
            older = any(load.seq > opened_seq(cycle.id) for load in distinct)  # another one may have been there
            seen = all(surely_open(life, cycle, load.at_mono_ns) for load in distinct)
            certain = len(distinct) == 1 and not distinct[0].disputed and seen and not (older and self._was_open(cycle))
            for load in distinct:
                said = {"name": name, "lot": load.lot, "package": load.package, "part_number": load.part_number}
                item = {key: value for key, value in said.items() if value is not None}
                judgement.materials.append(item | {"certain": certain})
            if distinct and not certain:
                judgement.suspect.append(f"material:{name}")
            wrong = [load for load in distinct if self._wrong(load, part_number_of(cycle))]
            if wrong:
                judgement.suspect.append(f"wrong_material:{name}")
            if certain and judgement.result not in (Result.ABORTED, Result.SKIPPED):
                loads[-1].used += 1
        if cycle.state is BindingState.BOUND and cycle.unit is not None:
            for item in judgement.materials:
                consume(self._floor, cycle.unit, item.get("lot"), item.get("package"))

    def named(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """What the cycle consumed is its unit's from now on."""
        if cycle.unit is not None:
            outdate(self._floor, cycle.unit)

    def _was_open(self, cycle: Cycle) -> bool:
        """Whether the cycle was open over a restart."""
        return not cycle.id.startswith(f"{self._floor.log}-")

    def closed(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """Count splices on, and balances."""
        for name, plan in self._plan.items():
            for load in list(self.loads[name]):
                if load.spliced_for is not None and not cycle.blocked:
                    load.spliced_for += 1
                    if plan.splice_units is not None and load.spliced_for >= plan.splice_units:
                        self._end("deplete", load, [], draft)
                if _balance(load, plan) < 0 and "negative_balance" not in load.told:
                    load.told += ("negative_balance",)
                    report(
                        draft, self._station.name, "negative_balance",
                        f"{self._station.name}: more was taken from {name} {load.label} than was in it;"
                        " another one may have been loaded without a scan",
                        evidence=[load.seq], cycle=cycle.id,
                        details=_details(load) | {"quantity": load.quantity, "used": load.used},
                    )  # fmt: skip

    # --- what is wrong with it -----------------------------------------------------------------------------------

    def _allowed(self, name: str, number: str | None) -> frozenset[str]:
        """The part numbers that this material may have in a unit of part number ``number``."""
        variant = self._station.needs.variants.get(number or "")
        default = self._plan[name].part_numbers
        return variant.materials.get(name, default) if variant else default

    def objections(self, life: PositionLife, unit: Unit, draft: Draft) -> list[tuple[str, str]]:
        """What stands against work on this unit now."""
        number = part_number(self._context.snapshot(), unit)
        variant = self._station.needs.variants.get(number or "")
        needed = self._station.needs.required.materials | (variant.require.materials if variant else frozenset())
        found = [("material_missing", f"no {name} is loaded") for name in sorted(needed) if not self.loads.get(name)]
        for load in (load for loads in self.loads.values() for load in loads):
            if self._wrong(load, number):
                text = f"{load.name} {load.label} is {load.part_number or 'of an unknown part number'}"
                found.append(("material_wrong", text))
            if load.expired(draft.at.at_ns):
                found.append(("material_expired", f"{load.name} {load.label} expired on {load.expiry}"))
        return found

    def _wrong(self, load: Load, number: str | None) -> bool:
        allowed = self._allowed(load.name, number)
        return bool(allowed) and load.part_number not in allowed

    def _tell_wrong(self, load: Load, allowed: frozenset[str], draft: Draft, cycle: Cycle | None = None) -> None:
        key = "wrong_material " + " ".join(sorted(allowed))
        if key not in load.told:
            load.told += (key,)
            report(
                draft, self._station.name, "wrong_material",
                f"{self._station.name}: {load.name} {load.label} is {load.part_number or 'of an unknown part number'},"
                f" needed is {' or '.join(sorted(allowed))}",
                evidence=[load.seq], cycle=cycle.id if cycle else None,
                details=_details(load) | {"part_number": load.part_number, "allowed": sorted(allowed)},
            )  # fmt: skip

    def _tell_expired(self, load: Load, draft: Draft, cycle: Cycle | None = None) -> None:
        if "material_expired" not in load.told and load.expired(draft.at.at_ns):
            load.told += ("material_expired",)
            report(
                draft, self._station.name, "material_expired",
                f"{self._station.name}: {load.name} {load.label} expired on {load.expiry}",
                evidence=[load.seq], cycle=cycle.id if cycle else None,
                details=_details(load) | {"expiry": load.expiry},
            )  # fmt: skip

    # --- copies ------------------------------------------------------------------------------------------------

    def _others(self) -> list[Materials]:
        """The materials of this agent's stations, this one's too."""
        parts = (part for station in self._floor.stations.values() for part in station.parts)
        return [part for part in parts if isinstance(part, Materials)]

    def _check_copied(self, load: Load, evidence: list[int], draft: Draft) -> None:
        """The same lot number on another part number, of another supplier, or with another date."""
        if load.lot is None:
            return
        known: Load | KnownLot | None = None
        for part in self._others():
            known = part.recall(load.lot) or known
        known = known or self._floor.lookup.lot(load.lot)
        if known is None:
            return
        said = {key: (getattr(known, key), getattr(load, key)) for key in ("part_number", "supplier", "expiry")}
        other = {key: list(pair) for key, pair in said.items() if None not in pair and pair[0] != pair[1]}
        if other:
            what = ", ".join(f"{key} {old} and {new}" for key, (old, new) in other.items())
            report(
                draft, self._station.name, "copied_lot",
                f"{self._station.name}: lot {load.lot} was read with {what}",
                evidence=evidence, details=_details(load) | {"differs": other},
            )  # fmt: skip

    def recall(self, lot: str) -> Load | None:
        """This lot as it was loaded here last."""
        return self._lots.get(lot)

    def _remember(self, load: Load) -> None:
        if load.lot is None:
            return
        self._lots.pop(load.lot, None)
        self._lots[load.lot] = load
        while len(self._lots) > LOTS_MAX:
            del self._lots[next(iter(self._lots))]

    def _claim(self, load: Load, scan: ScanAt, draft: Draft) -> None:
        """A package is in one place: where it was read last. Where it was before, nothing is certain any more."""
        if load.package is None:
            return
        load.disputed = False
        loads = [one for part in self._others() for loads in part.loads.values() for one in loads]
        for other in loads:
            if other is not load and other.package == load.package and not other.disputed:
                other.disputed = True
                report(
                    draft, self._station.name, "copied_lot",
                    f"{self._station.name}: package {load.package} is loaded in two places: it was moved without being"
                    " taken off there, or its label was copied",
                    evidence=[other.seq, scan.seq], details=_details(load) | {"other": other.name},
                )  # fmt: skip

    def start(self, draft: Draft) -> None:
        """Of packages that were loaded in two places before a restart, the newest claim holds."""
        for load in (one for loads in self.loads.values() for one in loads if one.package is not None):
            others = [one for part in self._others() for loads in part.loads.values() for one in loads]
            load.disputed = any(one.package == load.package and one.seq > load.seq for one in others)

    def snapshot(self) -> dict[str, Any]:
        """What is loaded, by material: the newest last."""
        return {"materials": {name: [_details(load) for load in loads] for name, loads in self.loads.items()}}


def _details(load: Load) -> dict[str, Any]:
    said = {"name": load.name, "lot": load.lot, "package": load.package}
    return {key: value for key, value in said.items() if value is not None}


def _balance(load: Load, plan: Material) -> float:
    """How much is left; 0 where that is not counted."""
    if load.quantity is None or plan.per_unit is None:
        return 0.0
    left = load.quantity - load.used * plan.per_unit
    return left if left < -1e-9 * max(load.quantity, 1.0) else max(left, 0.0)


def _number(text: str | None) -> float | None:
    """A quantity as its label says it; None if that is no number above zero."""
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 < number < 1e12 else None


def _day(at_ns: int) -> date:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).date()
