"""Corrections by a person: bind, rebind and unbind a cycle, acknowledge a finding.

A correction is a new record that supersedes; nothing that was said is changed. It names who, why, and the ``audit``
record beside it as its evidence. The samples stay where they are: a cycle's windows say which are its, its newest
binding says whose it is, and receivers get that as an amendment.

What is refused, because it would contradict what else is on record:

- a serial that no step ever saw, unless the person says that it is new: else a typing error makes a unit
- a cycle in which components were installed: they would stay in the unit that the cycle is taken from
- a component bound as if it were the unit that it is built into, or the other way round
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_agent.binding.action import ActionRefused
from edge_agent.binding.draft import Draft
from edge_agent.binding.genealogy import outdate
from edge_agent.binding.state import BLOCKED, KnownCycle
from edge_agent.binding.units import Unit
from edge_agent.identify.patterns import readable
from edge_agent.model import BindingState, Kind

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor, PositionLife

_MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Rebind:
    """Say whose a cycle is. ``again``: it is bound already and this supersedes that."""

    cycle: str
    serial: str
    again: bool
    new: bool  # the serial may be one that was never seen
    who: str
    reason: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """The records of the correction. Raises ActionRefused."""
        known, life = _cycle(floor, self.cycle)
        if known.binding_state == BindingState.BOUND and known.serial == self.serial:
            raise ActionRefused(f"{self.cycle} is bound to {self.serial} already", hint="see: edge-agent trace SERIAL")
        if known.binding_state == BindingState.BOUND and not self.again:
            hint = f"edge-agent rebind {self.cycle} {self.serial} --reason TEXT"
            raise ActionRefused(f"{self.cycle} is bound to {known.serial}", hint=hint)
        if known.binding_state != BindingState.BOUND and self.again:
            hint = f"edge-agent bind {self.cycle} {self.serial} --reason TEXT"
            raise ActionRefused(f"{self.cycle} is {known.binding_state}, not bound", hint=hint)
        kind = _kind(floor, known)
        unit = floor.units.find(self.serial, kind)
        self._must_be_possible(floor, known, unit)
        audit = _audit(draft, "rebind" if self.again else "bind", self.who, self.reason, known, self.serial)
        unit = unit or floor.units.know(draft, known.station, {kind: self.serial}, [audit], kind)
        _say(floor, draft, known, life, unit, BindingState.BOUND, audit, self.who, self.reason)
        return {"cycle": self.cycle, "was": known.serial, "serial": self.serial, "station": known.station}

    def _must_be_possible(self, floor: Floor, known: KnownCycle, unit: Unit | None) -> None:
        if unit is None and not self.new:
            hint = "check the spelling; a serial that is new is bound with --new"
            raise ActionRefused(f"no step has ever seen {self.serial}", hint=hint)
        if not readable(self.serial):
            raise ActionRefused("this cannot be a serial", hint="1 to 512 printable characters")
        _no_components(floor, known, unit)
        others = {one.parent for one in (_parent(floor, unit.unit),) if one} if unit else set()
        others |= {one.child for one in floor.lookup.children_of(unit.unit)} if unit else set()
        if known.unit in others:
            hint = "take the component out first: edge-agent trace SERIAL --tree shows where it is"
            raise ActionRefused(f"{self.serial} and {known.serial} are built into each other", hint=hint)


@dataclass(frozen=True, slots=True)
class Unbind:
    """Withdraw a cycle's binding without another in its place."""

    cycle: str
    who: str
    reason: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """The records of the correction. Raises ActionRefused."""
        known, life = _cycle(floor, self.cycle)
        if known.binding_state == BindingState.VOIDED:
            raise ActionRefused(f"{self.cycle} is bound to nothing already", hint="bind it: edge-agent bind")
        _no_components(floor, known, None)
        audit = _audit(draft, "unbind", self.who, self.reason, known, None)
        _say(floor, draft, known, life, None, BindingState.VOIDED, audit, self.who, self.reason)
        return {"cycle": self.cycle, "was": known.serial, "serial": None, "station": known.station}


@dataclass(frozen=True, slots=True)
class AcknowledgeFinding:
    """Somebody has looked at a finding and says what came of it."""

    finding: str
    who: str
    reason: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """The audit record that says so. Raises ActionRefused."""
        code = floor.lookup.finding(self.finding)
        if code is None:
            hint = "see which there are: edge-agent findings list"
            raise ActionRefused(f"there is no finding {self.finding}", hint=hint)
        body = {"who": self.who, "action": "finding_ack", "reason": self.reason}
        draft.add(Kind.AUDIT, "agent", body | {"new": {"finding": self.finding, "code": code}})
        return {"finding": self.finding, "code": code}


def _cycle(floor: Floor, cycle_id: str) -> tuple[KnownCycle, PositionLife | None]:
    """The cycle, and the position where it is open. Raises ActionRefused."""
    for station in floor.stations.values():
        for life in station.positions.values():
            cycle = life.cycle
            if cycle is not None and cycle.id == cycle_id:
                unit = cycle.unit if cycle.state is BindingState.BOUND else None
                known = KnownCycle(
                    cycle.id, station.plan.name, station.plan.step, life.plan.number, "open", cycle.binding,
                    cycle.state.value, unit.unit if unit else None, unit.serial if unit else None, False, None, None,
                )  # fmt: skip
                return known, life
    known_closed = floor.lookup.cycle(cycle_id)
    if known_closed is None:
        raise ActionRefused(f"there is no cycle {cycle_id}", hint="see which there are: edge-agent trace SERIAL")
    return known_closed, None


def _no_components(floor: Floor, known: KnownCycle, unit: Unit | None) -> None:
    """A cycle that installed something stays with the unit that got it, also where that came into doubt afterwards."""
    for one in floor.lookup.installed_in(known.cycle):
        if unit is None or one.parent != unit.unit:
            what = f"{one.name} {one.child_serial} was installed into {one.parent_serial} in {known.cycle}"
            raise ActionRefused(what, hint="take it out first: it would stay in the wrong unit")


def _parent(floor: Floor, unit: str) -> Any:
    return floor.lookup.parent_of(unit)


def _audit(draft: Draft, action: str, who: str, reason: str, known: KnownCycle, serial: str | None) -> int:
    body: dict[str, Any] = {"who": who, "action": action, "reason": reason}
    body["old"] = {"cycle": known.cycle, "state": known.binding_state, "serial": known.serial}
    body["new"] = {"cycle": known.cycle, "serial": serial}
    return draft.add(Kind.AUDIT, "agent", body)


def _say(
    floor: Floor, draft: Draft, known: KnownCycle, life: PositionLife | None, unit: Unit | None,
    state: BindingState, audit: int, who: str, reason: str,
) -> None:  # fmt: skip
    """The binding record, and what is known in memory of both units."""
    if life is not None:
        life.assign(unit)
        life.bind(draft, state, _MANUAL, [audit], reason=reason, by=who)
        return
    for part in floor.stations[known.station].parts if known.station in floor.stations else ():
        part.decided(known, unit.serial if unit is not None else None, draft)
    whose = {"unit": unit.unit, "serial": unit.serial} if unit is not None else {}
    body: dict[str, Any] = {"binding": draft.next_id, "cycle": known.cycle, "state": state.value, **whose}
    body |= {"rule": _MANUAL, "reason": reason, "candidates": [], "evidence": [audit]}
    if known.binding:
        body["supersedes"] = known.binding
    if known.closed and known.closed_by != BLOCKED:
        body["attempt"] = None if unit is None else unit.attempts.get(known.step, 0) + 1
    draft.add(Kind.BINDING, known.station, body | {"by": who})
    for one in (_unit_of(floor, known), unit):
        if one is not None:
            outdate(floor, one)


def _unit_of(floor: Floor, known: KnownCycle) -> Unit | None:
    """The unit that the cycle is bound to."""
    return None if known.unit is None or known.serial is None else floor.units.named(known.unit, known.serial)


def _kind(floor: Floor, known: KnownCycle) -> str:
    """What names the cycle's unit: serial or lot."""
    if (unit := _unit_of(floor, known)) is not None:
        return unit.kind
    station = floor.stations.get(known.station)
    return "lot" if station is not None and station.plan.of == "lot" else "serial"
