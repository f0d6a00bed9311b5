"""May this unit enter? The decision, before work, on what is known here and now. Pure.

::

    who is it? ──► on hold? ──► steps before passed? ──► attempts left? ──► built in? ──► material? ──► permit
         │             │               │                      │                │             │
         └─────────────┴───────────────┴──── each that is not: a reason ───────┴─────────────┴──────► block

Every reason is looked for, so that a person sees all of them at once; the PLC gets the first. What this agent saw
itself is in memory the moment it was appended, so nothing waits for a disk, a route or a network: results of this
agent's own stations are ``live``. What others said is ``cached``, with its age. Beyond the station's ``max_age``, or
after a gap in the decisions of the QMS, it is *stale*, and then the station's policy holds: ``fail_closed`` blocks on
it, ``fail_open`` lets pass what nothing else speaks against, and flags it. Holds that are not known at all (they could
not be kept, or were lost with a damaged disk) block whatever the policy says: a held part never gets loose.

A result of others that is missing blocks like one of our own, unless their line has been silent: then it may have been
said and not heard, which is for the policy to decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from edge_agent.binding.plan import Gate
from edge_agent.binding.state import StepResult, StepStatus
from edge_agent.binding.status import said_ns
from edge_agent.binding.units import Unit
from edge_agent.binding.verdicts import holds_on
from edge_agent.model import Instant, Result

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor

CODES: Mapping[str, int] = MappingProxyType(
    {
        "permit": 0,
        "not_identified": 1,
        "ambiguous": 2,
        "interrupted": 3,
        "unknown_unit": 4,
        "previous_missing": 10,
        "previous_failed": 11,
        "previous_incomplete": 12,
        "no_attempts_left": 13,
        "built_in": 14,
        "hold": 20,
        "scrap": 21,
        "rework": 22,
        "holds_unknown": 23,
        "material_missing": 30,
        "material_wrong": 31,
        "material_expired": 32,
        "holds_stale": 40,
        "status_stale": 41,
        "other": 99,
    }
)
"""What the PLC gets. A PLC's program knows these numbers: none is ever changed or used again."""

_SOON_NS = 60 * 10**9  # by so much a clock that is being set may put a message into the future


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found: ``code`` is a key of ``CODES``."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Entrant:
    """Who wants to enter. With ``doubt`` it is not known well enough to be asked about."""

    unit: Unit | None
    serial: str | None
    attempt: int | None  # which this visit would be, from 1
    doubt: Reason | None = None
    cycle: str | None = None  # the open cycle that says so


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and what it rests on."""

    permit: bool
    reasons: tuple[Reason, ...]
    basis: str  # live, cached, stale, policy, override
    as_of_ns: int | None = None
    by: str | None = None

    @property
    def code(self) -> int:
        """As written to the PLC: 0, or that of the first reason."""
        return CODES["permit"] if self.permit else CODES.get(self.reasons[0].code, CODES["other"])

    @property
    def open(self) -> bool:
        """It permits on what is too old to rely on."""
        return self.permit and self.basis == "policy"

    @property
    def text(self) -> str:
        """The reasons in a sentence."""
        return "; ".join(reason.text for reason in self.reasons)


@dataclass(slots=True)
class _Found:
    """What was found so far."""

    against: list[Reason] = field(default_factory=list)
    stale: list[Reason] = field(default_factory=list)
    cached: bool = False
    unknown: bool = False
    as_of_ns: list[int] = field(default_factory=list)


def decide(gate: Gate, floor: Floor, entrant: Entrant, objections: Iterable[tuple[str, str]], now: Instant) -> Decision:
    """Look at everything that ``gate`` asks for. ``objections``: what the station's parts have against it."""
    if entrant.doubt is not None or entrant.serial is None:
        doubt = entrant.doubt or Reason("not_identified", "nobody knows which unit is here")
        return Decision(False, (doubt,), "live")
    unit = entrant.unit or Unit("", entrant.serial)
    found = _Found()
    if gate.holds:
        _holds(floor, gate, unit, now, found)
    for step in gate.previous:
        _previous(floor, gate, unit, step, now, found)
    if gate.max_attempts is not None and entrant.attempt is not None and entrant.attempt > gate.max_attempts:
        text = f"{unit.serial} was here {entrant.attempt - 1} times, {gate.max_attempts} attempts are allowed"
        found.against.append(Reason("no_attempts_left", text))
    if gate.components and unit.parent is not None:
        text = f"{unit.serial} is built into {unit.parent.parent_serial} already"
        found.against.append(Reason("built_in", text))
    found.against += [Reason(code, text) for code, text in objections]
    return _judge(gate, found)


def _judge(gate: Gate, found: _Found) -> Decision:
    as_of_ns = min(found.as_of_ns, default=None)
    known = "cached" if found.cached else "live"
    if found.against or (found.stale and not gate.fail_open):
        basis = "stale" if found.stale or found.unknown else known
        return Decision(False, (*found.against, *found.stale), basis, as_of_ns)
    return Decision(True, tuple(found.stale), "policy" if found.stale else known, as_of_ns)


def _holds(floor: Floor, gate: Gate, unit: Unit, now: Instant, found: _Found) -> None:
    holds = floor.holds
    for hold in sorted(holds_on(floor, unit), key=lambda one: (one.action != "scrap", one.at_ns)):
        about = "" if hold.subject == unit.serial else f" with its {hold.subject_kind} {hold.subject}"
        why = f": {hold.text}" if hold.text else ""
        found.against.append(Reason(hold.action, f"{unit.serial} is on {hold.action} {hold.hold}{about}{why}"))
    if not holds.known:
        found.unknown = True
        found.against.append(Reason("holds_unknown", "it is not known what is on hold"))
    elif _silent(floor, gate, now):
        found.stale.append(Reason("holds_stale", "the QMS may have decided what did not arrive here"))
    found.cached = found.cached or holds.basis(now) == "cached"
    if (as_of_ns := holds.as_of_ns(now)) is not None:
        found.as_of_ns.append(as_of_ns)


def _silent(floor: Floor, gate: Gate, now: Instant) -> bool:
    """Others have been silent for longer than ``max_age``, or what they said has a gap."""
    holds = floor.holds
    if not holds.sources:
        return False
    as_of_ns = holds.as_of_ns(now)
    return holds.stale or as_of_ns is None or _too_old(as_of_ns, gate, now)


def _too_old(at_ns: int, gate: Gate, now: Instant) -> bool:
    return not -_SOON_NS <= now.at_ns - at_ns <= gate.max_age_s * 1e9


def _previous(floor: Floor, gate: Gate, unit: Unit, step: str, now: Instant, found: _Found) -> None:
    """Did the unit pass ``step``, by the newest word on it, ours or others'?"""
    serial, ours, theirs = unit.serial, unit.results.get(step), floor.status.said(unit.serial, step)
    newest: StepResult | StepStatus | None = ours
    if theirs is not None and (ours is None or said_ns(theirs) > ours.at_ns):
        newest = theirs
        found.cached = True
        found.as_of_ns.append(theirs.received_at_ns)
        if _too_old(theirs.received_at_ns, gate, now):
            minutes = max(0, now.at_ns - theirs.received_at_ns) // (60 * 10**9)
            text = f"what {theirs.source} said of {serial} at {step} is {minutes} minutes old"
            found.stale.append(Reason("status_stale", text))
    if newest is None:
        here = any(station.plan.step == step for station in floor.stations.values())
        if not here and _silent(floor, gate, now):
            text = f"nothing was heard of {serial} at {step}, and those who would say it are silent"
            found.stale.append(Reason("status_stale", text))
        elif unit.results or floor.status.of(serial):
            found.against.append(Reason("previous_missing", f"{serial} has no result of {step}"))
        else:
            found.against.append(Reason("unknown_unit", f"nobody knows {serial}; it has no result of {step}"))
    elif newest.result != Result.PASSED:
        found.against.append(Reason("previous_failed", f"{serial} is {newest.result} at {step}"))
    elif newest.complete is False:
        found.against.append(Reason("previous_incomplete", f"{serial} is incomplete at {step}"))
