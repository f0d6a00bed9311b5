"""A station as the binder needs it: every name of the config resolved to a device, a group and an index.

Built by :mod:`edge_agent.config` from the settings; frozen; knows no YAML and no driver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_agent.binding.needs import Needs
from edge_agent.binding.places import Batch, Carrying, Slot
from edge_agent.identify.label import Labels
from edge_agent.model import Result, Sample, TagSet, Value


@dataclass(frozen=True, slots=True)
class TagRef:
    """Where a tag's value is found: ``sample.values[index]`` of samples whose tagset source is ``group``."""

    group: str  # "device.group"
    index: int
    name: str  # "device.tag", as the config spells it
    unit: str = ""

    def shown_by(self, sample: Sample) -> bool:
        """Whether the sample has a value of this tag: one that the device refused shows nothing."""
        return sample.tagset.source == self.group and sample.values[self.index] is not None


@dataclass(frozen=True, slots=True)
class Characteristic:
    """One collected value: what is judged, from which tag, against which limits (inclusive, either may be None)."""

    name: str
    tag: TagRef
    required: bool
    low: float | None
    high: float | None
    limits_from: str = ""  # the part number that the limits are of; empty: the station's


@dataclass(frozen=True, slots=True)
class ResultRule:
    """How the PLC's verdict reads. A value that ``meaning`` does not list is Result.ERROR with a finding."""

    tag: TagRef
    meaning: Mapping[Value, Result]  # default {True: PASSED, False: FAILED}


@dataclass(frozen=True, slots=True)
class Handshake:
    """Ready edge → read ``read`` → commit → write ``ack`` → ready drops → clear ``ack``."""

    ready: TagRef
    ack: str  # "device.tag", writable
    counter: TagRef | None  # in ``read``'s group or in ``ready``'s; counts finished cycles
    counter_bits: int  # 16 or 32: where it wraps
    read: str  # "device.group" with the results


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge of a tag ends the cycle; ``read`` (if any) is the result group read after it."""

    tag: TagRef
    rising: bool
    read: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """Each sample of ``read`` is one complete result, as a tester sends it."""

    read: str  # "device.group"
    key: TagRef | None  # in it: names the test; the same key is the same message
    repeat_s: float  # without a key: the same words within this time are the same message


@dataclass(frozen=True, slots=True)
class Commands:
    """Barcodes with which an operator enters the result. ``scanners``: position -> reader."""

    scanners: Mapping[int, str]
    rules: frozenset[str]  # label rules that read them
    operator: bool  # only with an operator in the context


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a unit may come to the step."""

    most: int
    flag: bool  # one more is a finding


@dataclass(frozen=True, slots=True)
class Resume:
    """Evidence, beyond a re-scan, on which an interrupted cycle may go on. All optional, none by default.

    ``cycle_number``: a tag that the PLC changes whenever another unit is taken up (not one that counts finished
    cycles); the same value before and after the gap is evidence. ``serial``: a tag that names the unit.
    """

    cycle_number: TagRef | None = None
    serial: TagRef | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """One nest, cavity or lane of a station."""

    number: int
    scanner: str | None  # device that identifies here (identity "before")
    serial: TagRef | None  # tag that names the unit (identity "in_data")
    end: Handshake | Edge | Message | None  # None: only scans and the time-out end a cycle
    collect: tuple[Characteristic, ...]
    result: ResultRule | None
    resume: Resume
    claims: Mapping[str, tuple[str, ...]]  # "device.group" -> names of the tags whose readings are this position's
    out: str | None = None  # device that scans the unit when it leaves; ``end`` is None then
    start: Edge | None = None  # the edge that opens a cycle whose unit is not known yet


@dataclass(frozen=True, slots=True)
class Context:
    """One item of a cycle's context (work order, operator ...), by scan or by tag."""

    name: str
    scanner: str | None
    pattern: re.Pattern[str] | None  # its named group ``name``, else the whole match, is the value
    tag: TagRef | None
    rules: frozenset[str] = frozenset()  # label rules whose identifier ``name`` is the value, instead of ``pattern``


@dataclass(frozen=True, slots=True)
class Exchange:
    """How the PLC of one position asks at the gate, and where it is answered. Names to write are "device.tag"."""

    request: TagRef  # a number that changes with each request; 0: none
    answer: str  # the request's number, written last
    verdict: str | None  # true: permit
    reason: str | None  # a code, 0: permit
    serial: TagRef | None  # beside ``request``: who is asked about; None: who was identified at the position


@dataclass(frozen=True, slots=True)
class Gate:
    """What a unit needs to enter the station, and how that is said. ``exchanges`` and ``permits`` by position."""

    previous: tuple[str, ...] = ()  # steps that it must have passed
    max_attempts: int | None = None
    holds: bool = True
    materials: bool = True
    components: bool = True  # what is built into another unit does not enter
    max_age_s: float = 600.0  # what others said is stale beyond this
    fail_open: bool = False  # what is stale: permit and flag, or block
    exchanges: Mapping[int, Exchange] = field(default_factory=dict)
    wait_s: float = 5.0  # a request waits so long for the unit to be identified
    heartbeat: str | None = None  # "device.tag" that counts while the agent answers
    beat_s: float = 1.0
    permits: Mapping[int, str] = field(default_factory=dict)  # "device.tag" that is set for ``pulse_s``
    pulse_s: float = 0.5


_GATE = "that a unit may enter"


@dataclass(frozen=True, slots=True)
class Station:
    """One station of the line."""

    name: str
    step: str
    identity: Literal["before", "in_data", "after"]
    pattern: re.Pattern[str] | None  # named group ``serial``; more groups become further identifiers
    positions: tuple[Position, ...]
    context: tuple[Context, ...]
    bounce_s: float  # the same label on the same reader within this time is one scan
    timeout_s: float  # an open cycle without an end is closed as Aborted after this
    min_s: float  # an end sooner than this after the scan is not this unit's: ambiguous
    rules: frozenset[str] = frozenset()  # label rules that name a unit here, instead of ``pattern``
    max_wait_s: float = 30.0  # identity "after": a scan later than this after the end is not this unit's
    known: bool = False  # a serial that no step ever saw names no unit: it was misread or mistyped
    commands: Commands | None = None
    attempts: Attempts | None = None
    of: str = "serial"  # the identifier that names a unit here: serial, lot; carrier: the units on it
    carrying: Carrying | None = None
    slot: Slot | None = None  # identity by the place in a register, instead of a scan here
    batch: Batch | None = None  # its positions are filled as they are free
    changeover_s: float = 0.0  # of: lot; so long after a lot's scan nobody knows which lot it is
    gate: Gate | None = None
    needs: Needs = field(default_factory=Needs)  # materials, components, context, steps before

    def groups(self) -> frozenset[str]:
        """Every "device.group" this station looks at."""
        found: set[str] = set()
        for position in self.positions:
            found |= set(position.claims)
            found |= {characteristic.tag.group for characteristic in position.collect}
            for tag in (position.serial, position.result.tag if position.result else None):
                if tag is not None:
                    found.add(tag.group)
        return frozenset(found | {context.tag.group for context in self.context if context.tag})

    def writes(self) -> Mapping[str, str]:
        """Every "device.tag" that this station writes, and what that tells the PLC."""
        told: dict[str, str] = {}
        for position in self.positions:
            if isinstance(position.end, Handshake):
                told[position.end.ack] = "that a result is recorded"
        if self.gate is not None:
            for exchange in self.gate.exchanges.values():
                told |= dict.fromkeys(filter(None, (exchange.answer, exchange.verdict, exchange.reason)), _GATE)
            told |= dict.fromkeys(self.gate.permits.values(), _GATE)
            if self.gate.heartbeat is not None:
                told[self.gate.heartbeat] = "that the gate answers"
        return told


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """When a group's samples are stored. Indexes are into the sample's values.

    A sample is stored whole if any of its tags asks for it.
    """

    tagset: TagSet
    always: bool  # some tag says store: always
    cycle: bool  # some tag says store: cycle
    exact: tuple[int, ...]  # tags without a deadband: any difference is a change
    deadbands: tuple[tuple[int, float], ...]
    heartbeat_s: float | None  # the shortest of the group


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the binder knows of the line."""

    stations: tuple[Station, ...]
    stores: Mapping[str, StorePolicy]  # by "device.group"
    gap_s: Mapping[str, float]  # by "device.group": a longer silence between two reads is an observation gap
    labels: Labels = field(default_factory=lambda: Labels(()))  # the rules of the section ``labels:``
