"""What others say of a unit: the results of steps that are worked on other PCs, or that the MES knows. Pure.

Other agents speak in their own records: ``cycle_closed`` says what came of a cycle, ``binding`` (then or later) whose
cycle it was. So the result of a cycle wanders with its newest binding: a rebind takes it away from the one serial and
gives it to the other, a binding that is voided or in doubt only takes it away. Of one cycle the higher seq wins, of a
serial's cycles at a step the one that ended last; the MES speaks of a serial and a step outright: its newest word wins.
A cycle closes once, so what closes it again is a repetition; one that their gate blocked is no result. Limit: over a
restart of ours only the outcome is kept, so bindings of one cycle that are sent once more after it have their effect in
turn until the last of them came.

What changes is a ``unit_status`` record, kept with who said it; one that takes away carries the binding's state. Only
steps that some gate here asks about are kept (``steps``): all else would fill the log with the whole plant.

Bounded: ``SERIALS_MAX`` serials (older ones are asked from the registry), and ``CYCLES_MAX`` cycles of others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_agent.binding.draft import Draft
from edge_agent.binding.state import BLOCKED, Lookup, StepStatus
from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor

SERIALS_MAX = 20_000
CYCLES_MAX = 20_000
BOUND = "bound"


@dataclass(slots=True)
class _Cycle:
    """One cycle of another agent, as far as it was heard."""

    closed: CycleSaid | None = None
    binding: tuple[int, str, str | None] | None = None  # seq, state, serial: of the newest binding heard
    shown_for: str | None = None  # the serial that has its result now


class StatusCache:
    """Newest word of each other source, by serial and step. ``steps``: those that matter here."""

    def __init__(self, lookup: Lookup, steps: Iterable[str] = ()) -> None:
        self.steps = frozenset(steps)
        self.ignored = 0
        self._lookup = lookup
        self._serials: OrderedDict[str, dict[tuple[str, str], StepStatus]] = OrderedDict()
        self._cycles: OrderedDict[tuple[str, str], _Cycle] = OrderedDict()

    def of(self, serial: str) -> list[StepStatus]:
        """Everything that others say of this serial, newest last."""
        return sorted(self._of(serial).values(), key=said_ns)

    def said(self, serial: str, step: str) -> StepStatus | None:
        """The newest word of others on this serial at this step."""
        return max((one for one in self._of(serial).values() if one.step == step), key=said_ns, default=None)

    def wants(self, step: str) -> bool:
        """Whether this step matters here; one that does not is counted."""
        wanted = step in self.steps
        self.ignored += not wanted
        return wanted

    def _of(self, serial: str) -> dict[tuple[str, str], StepStatus]:
        known = self._serials.get(serial)
        if known is None:
            told = [one for one in self._lookup.status(serial) if one.state in (None, BOUND)]
            known = {(one.source, one.step): one for one in told}
            self._serials[serial] = known
            while len(self._serials) > SERIALS_MAX:
                self._serials.popitem(last=False)
        else:
            self._serials.move_to_end(serial)
        return known

    # --- changes -----------------------------------------------------------------------------------------------

    def put(self, serial: str, status: StepStatus, draft: Draft) -> bool:
        """Believe it, if it is news, and record it."""
        known = self._of(serial)
        old = known.get((status.source, status.step))
        if old is not None and (said_ns(old) > said_ns(status) or _same(old, status)):
            return False
        known[(status.source, status.step)] = status
        draft.add(Kind.UNIT_STATUS, "agent", _body(serial, status))
        return True

    def take_away(self, serial: str, status: StepStatus, draft: Draft) -> None:
        """This result is not this serial's (any more)."""
        known = self._of(serial)
        old = known.get((status.source, status.step))
        if old is not None and old.cycle == status.cycle:
            del known[(status.source, status.step)]
            draft.add(Kind.UNIT_STATUS, "agent", _body(serial, status))

    def cycle(self, said_by: str, cycle: str) -> _Cycle:
        """What is known of another agent's cycle: in memory, or of before this start."""
        known = self._cycles.get((said_by, cycle))
        if known is None:
            known = self._cycles[said_by, cycle] = self._recall(said_by, cycle)
            while len(self._cycles) > CYCLES_MAX:
                self._cycles.popitem(last=False)
        self._cycles.move_to_end((said_by, cycle))
        return known

    def forget(self, said_by: str, cycle: str) -> None:
        """The cycle is of a step that does not matter, or its unit was turned away."""
        self._cycles.pop((said_by, cycle), None)

    def _recall(self, said_by: str, cycle: str) -> _Cycle:
        found = self._lookup.status_of_cycle(said_by, cycle)
        if found is None:
            return _Cycle()
        serial, was = found
        closed = CycleSaid(
            said_by, 0, cycle, was.station or "", was.step, was.result, was.complete, was.attempt, was.at_ns or 0,
            was.state or BOUND, serial,
        )  # fmt: skip
        return _Cycle(closed, None, serial if closed.state == BOUND else None)


@dataclass(frozen=True, slots=True)
class UnitStatusSaid:
    """The MES (or whoever signs as ``said_by``) says what came of a serial at a step."""

    said_by: str
    serial: str
    step: str
    result: str
    complete: bool | None = None
    attempt: int | None = None
    at_ns: int | None = None

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Keep it if it is the newest. Answers {kept}."""
        if not floor.status.wants(self.step):
            return {"kept": False}
        status = StepStatus(
            self.step, self.result, self.complete, self.attempt, self.at_ns, draft.at.at_ns, self.said_by
        )
        return {"kept": floor.status.put(self.serial, status, draft)}


@dataclass(frozen=True, slots=True)
class CycleSaid:
    """Another agent's ``cycle_closed``; ``seq`` is the record's."""

    said_by: str
    seq: int
    cycle: str
    station: str
    step: str
    result: str
    complete: bool | None
    attempt: int | None
    at_ns: int
    state: str
    serial: str | None
    closed_by: str | None = None

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Give the result to whom the newest binding names. Answers {kept}."""
        if not floor.status.wants(self.step) or self.closed_by == BLOCKED:
            floor.status.forget(self.said_by, self.cycle)
            return {"kept": False}
        known = floor.status.cycle(self.said_by, self.cycle)
        if known.closed is not None:
            return {"kept": False}
        known.closed = self
        if known.binding is None or known.binding[0] < self.seq:
            known.binding = (self.seq, self.state, self.serial)
        _settle(known, floor.status, draft)
        return {"kept": True}


@dataclass(frozen=True, slots=True)
class BindingSaid:
    """Another agent's ``binding``: whose a cycle is, from now on."""

    said_by: str
    seq: int
    cycle: str
    state: str
    serial: str | None

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Move the cycle's result, if it is known; else keep it until the cycle has one. Answers {kept}."""
        known = floor.status.cycle(self.said_by, self.cycle)
        if known.binding is not None and known.binding[0] >= self.seq:
            return {"kept": False}
        known.binding = (self.seq, self.state, self.serial)
        _settle(known, floor.status, draft)
        return {"kept": True}


def _settle(known: _Cycle, cache: StatusCache, draft: Draft) -> None:
    """Let the serial of the newest binding have the result, and no other."""
    closed = known.closed
    if closed is None or known.binding is None:
        return
    _, state, serial = known.binding
    whose = serial if state == BOUND else None
    status = StepStatus(
        closed.step, closed.result, closed.complete, closed.attempt, closed.at_ns, draft.at.at_ns, closed.said_by,
        closed.cycle, state, closed.station or None,
    )  # fmt: skip
    if known.shown_for is not None and known.shown_for != whose:
        gone = "superseded" if whose is not None else state
        cache.take_away(known.shown_for, replace(status, state=gone), draft)
    known.shown_for = whose
    if whose is not None:
        cache.put(whose, status, draft)


def said_ns(status: StepStatus) -> int:
    """Since when it holds. Nobody reports what is still to come: a clock that is ahead makes no word the newest."""
    return status.received_at_ns if status.at_ns is None else min(status.at_ns, status.received_at_ns)


def _same(old: StepStatus, new: StepStatus) -> bool:
    """Said again: nothing new but when it came. A word without a time of its own is news by what it says."""
    return replace(old, received_at_ns=0) == replace(new, received_at_ns=0)


def _body(serial: str, status: StepStatus) -> dict[str, Any]:
    body = {
        "serial": serial,
        "step": status.step,
        "result": status.result,
        "complete": status.complete,
        "attempt": status.attempt,
        "status_at_ns": None if status.at_ns is None else str(status.at_ns),
        "said_by": status.source,
        "station": status.station,
        "cycle": status.cycle,
        "state": status.state,
    }
    return {name: value for name, value in body.items() if value is not None}
