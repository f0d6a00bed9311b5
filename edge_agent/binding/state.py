"""What goes in and out of the binder: the registry's answers, the restored state, effects and outcomes.

The binder is pure: (state, input, instant) -> (records, effects). It reads no clock, does no I/O and asks
nothing but a :class:`Lookup`, whose answers are a projection of the records it made before. The caller appends
the records, waits until they are durable, then carries out the effects, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_agent.model import Record, Value

BLOCKED = "blocked"
"""``closed_by`` of a visit that the gate turned away: no attempt, and no result of the step, here and elsewhere."""


def opened_seq(cycle: str) -> int:
    """The seq of the record that opened this cycle, by its id: which of two came first, whatever the clock did."""
    number = cycle.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class StepResult:
    """The newest closed cycle of a step that is bound to a unit."""

    result: str  # model.Result
    complete: bool
    at_ns: int  # when it ended
    cycle: str
    source: str = ""  # empty: this agent saw it


@dataclass(frozen=True, slots=True)
class StepStatus:
    """What another agent or the MES last said of a serial at a step. One for each of them and step."""

    step: str
    result: str
    complete: bool | None
    attempt: int | None
    at_ns: int | None  # as of when, by its own clock
    received_at_ns: int  # by ours: its age is counted from here
    source: str  # said_by of the record
    cycle: str | None = None
    state: str | None = None  # of that cycle's binding
    station: str | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """A component that is in a unit now."""

    parent: str
    parent_serial: str
    child: str
    child_serial: str
    name: str  # what the component is, e.g. pcb
    cycle: str | None = None  # the parent's, in which it was installed


@dataclass(frozen=True, slots=True)
class Loaded:
    """A unit on a carrier now."""

    position: int | None
    unit: str
    serial: str


@dataclass(frozen=True, slots=True)
class KnownUnit:
    """A unit that the registry has seen: who it is, what was done with it here, and what is in it."""

    unit: str
    attempts: Mapping[str, int]  # step -> its cycles that are bound to this unit, the open one too
    serial: str | None = None
    kind: str = "serial"  # or lot
    results: Mapping[str, StepResult] = field(default_factory=dict)  # step -> its newest closed cycle
    identifiers: Mapping[str, str] = field(default_factory=dict)  # kind -> its newest value that was not removed
    parent: Installed | None = None
    lots: frozenset[str] = frozenset()  # its own, consumed, and those of what is installed in it, at any depth
    packages: frozenset[str] = frozenset()  # the same of packages
    own_lots: frozenset[str] | None = None  # without those of what is installed in it; None: not told apart
    own_packages: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class KnownCycle:
    """A cycle, open or closed, with its newest binding."""

    cycle: str
    station: str
    step: str
    position: int
    state: str  # open, interrupted, closed
    binding: str | None  # id of its newest binding record
    binding_state: str
    unit: str | None  # of a binding in state bound only
    serial: str | None
    closed: bool
    result: str | None
    complete: bool | None
    attempt: int | None = None
    opened_at_ns: int = 0
    ended_at_ns: int | None = None
    closed_by: str | None = None


@dataclass(frozen=True, slots=True)
class KnownLot:
    """A lot (or package) as it was last loaded, and where it is loaded now."""

    lot: str
    part_number: str | None
    supplier: str | None
    expiry: str | None
    station: str
    name: str
    active: tuple[tuple[str, str, str | None], ...]  # (station, name, package)


class Lookup(Protocol):
    """The registry, as the binder asks it: synchronous, indexed, microseconds."""

    def unit(self, kind: str, value: str) -> KnownUnit | None:
        """The unit that carries this identifier, e.g. ("serial", "SN00000017"), or None. ``unit``: by its id."""
        ...

    def on_carrier(self, carrier: str) -> tuple[Loaded, ...]:
        """What is on a carrier now, by position."""
        ...

    def parent_of(self, unit: str) -> Installed | None:
        """The unit that this one is installed in now."""
        ...

    def children_of(self, unit: str) -> tuple[Installed, ...]:
        """What is installed in this unit now, oldest first."""
        ...

    def installed_in(self, cycle: str) -> tuple[Installed, ...]:
        """What was installed in this cycle and is still there, whoever the cycle is bound to now."""
        ...

    def cycle(self, cycle_id: str) -> KnownCycle | None:
        """A cycle by its id."""
        ...

    def lot(self, lot: str) -> KnownLot | None:
        """A lot, or a package, that was ever loaded here."""
        ...

    def status(self, serial: str) -> tuple[StepStatus, ...]:
        """What others said of this serial, newest last."""
        ...

    def status_of_cycle(self, said_by: str, cycle: str) -> tuple[str, StepStatus] | None:
        """Which serial has the result of another agent's cycle now, and what it is."""
        ...

    def finding(self, finding: str) -> str | None:
        """The code of a finding by its id; None: there is none."""
        ...

    def verdict(self, verdict_id: str) -> KnownVerdict | None:
        """What this verdict was when it came first, and what became of it; None: it is new."""
        ...

    def decision_seq(self, subject_kind: str, subject: str, hold: str | None, source: str) -> int | None:
        """The highest decision_seq of this source that was applied to this subject and hold."""
        ...

    def last_decision(self, source: str) -> int | None:
        """The highest decision_seq ever heard from this source."""
        ...


@dataclass(frozen=True, slots=True)
class OpenCycle:
    """A cycle that was open when the last log ended, as its records told."""

    cycle: str
    station: str
    position: int
    opened_at_ns: int
    opened_by: str  # scan, ready, level, edge
    attempt: int | None
    context: Mapping[str, Mapping[str, Any]]  # as in the cycle_opened record
    windows: Mapping[str, tuple[tuple[int, int], ...]]  # "device.group" -> inclusive ranges of seq
    unit: str | None
    serial: str | None
    binding: str | None  # id of the newest binding record of the cycle
    binding_state: str | None = None  # its state; None: bound if there is a unit
    let_in: bool | None = None  # by the gate, at least once; None: it did not decide on this visit


@dataclass(frozen=True, slots=True)
class PendingCycle:
    """A closed cycle whose binding was still pending when the last log ended."""

    cycle: str
    station: str
    step: str
    position: int
    opened_at_ns: int
    ended_at_ns: int
    closed_by: str
    result: str
    complete: bool
    binding: str | None  # id of the pending binding record
    attempt: int | None = None
    seq: int = 0  # of the record that opened it


@dataclass(frozen=True, slots=True)
class RecentCycle:
    """One of the newest closed cycles, and what was said last of whose it is."""

    cycle: str
    station: str
    position: int
    ended_at_ns: int
    binding_state: str
    rule: str | None
    said_at_ns: int | None
    serial: str | None  # of a binding in state bound only
    scans: frozenset[int] = frozenset()  # seq of those that came after its end and may be its unit's


@dataclass(frozen=True, slots=True)
class ActiveMaterial:
    """A lot or package that was loaded and neither depleted nor unloaded."""

    station: str
    name: str
    package: str | None
    lot: str | None
    part_number: str | None
    supplier: str | None
    expiry: str | None
    quantity: float | None
    state: str  # active; spliced: another one was spliced to it, and nobody said that it is used up
    at_ns: int
    seq: int
    used: int = 0  # cycles that consumed it since


@dataclass(frozen=True, slots=True)
class KnownVerdict:
    """A verdict that came before: its first ``state``, and what it said."""

    state: str
    source: str
    decision_seq: int | None
    action: str
    subject_kind: str
    subject: str
    hold: str | None


@dataclass(frozen=True, slots=True)
class KnownHold:
    """A hold, scrap, rework or concession that was applied and not released."""

    hold: str
    subject_kind: str
    subject: str
    action: str  # hold, scrap, rework, concession
    verdict_id: str
    decision_seq: int | None
    source: str
    text: str | None
    expires_at_ns: int | None
    at_ns: int


@dataclass(frozen=True, slots=True)
class KnownMessage:
    """A tester's message that ended a cycle."""

    key: str
    hash: str
    seq: int  # of the record that opened the cycle


@dataclass(frozen=True, slots=True)
class Restored:
    """What the registry knows of the time before this start. Empty for a new data_dir."""

    cycles: tuple[OpenCycle, ...] = ()
    counters: Mapping[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """(station, position) -> (counter, epoch) of the newest cycle_closed that carried them."""
    until_ns: int | None = None  # at_ns of the newest record: the gap of this restart began then; None: unknown
    pending: tuple[PendingCycle, ...] = ()  # oldest first
    materials: tuple[ActiveMaterial, ...] = ()  # in the order in which they were loaded
    holds: tuple[KnownHold, ...] = ()
    messages: Mapping[tuple[str, int], tuple[KnownMessage, ...]] = field(default_factory=dict)
    """(station, position) -> its newest keyed messages."""
    recent: tuple[RecentCycle, ...] = ()  # the newest, oldest first


@dataclass(frozen=True, slots=True)
class ReadGroup:
    """Read this group ("device.group") as soon as the device can: a read that *begins* after this effect."""

    group: str


@dataclass(frozen=True, slots=True)
class Write:
    """Write this tag ("device.tag"), after the outcome's records are durable.

    ``before``: (tag, value) of the same device that are written first, in this order, with nothing between them; if
    one of them is not kept, ``tag`` is not written. A newer write of ``tag`` that comes before the device was ready for
    this one takes its place whole.

    A write that fails must end in a gap of the device (close, reopen, ``on_gap``): only so does the handshake
    learn that its acknowledge may not have arrived.
    """

    tag: str
    value: Value
    before: tuple[tuple[str, Value], ...] = ()


Effect = ReadGroup | Write


@dataclass(slots=True)
class Outcome:
    """The answer to one input: records to append (in order), then effects to carry out once they are durable."""

    records: list[Record]
    effects: list[Effect]
