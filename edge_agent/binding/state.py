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


@dataclass(frozen=True, slots=True)
class KnownUnit:
    """A unit that the registry has seen: its id, and how many cycles each step has had with it so far."""

    unit: str
    attempts: Mapping[str, int]  # step -> cycles opened and bound to this unit


class Lookup(Protocol):
    """The registry, as the binder asks it: synchronous, indexed, microseconds."""

    def unit(self, kind: str, value: str) -> KnownUnit | None:
        """The unit that carries this identifier, e.g. ("serial", "SN00000017"), or None."""
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


@dataclass(frozen=True, slots=True)
class Restored:
    """What the registry knows of the time before this start. Empty for a new data_dir."""

    cycles: tuple[OpenCycle, ...] = ()
    counters: Mapping[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """(station, position) -> (counter, epoch) of the newest cycle_closed that carried them."""
    until_ns: int | None = None  # at_ns of the newest record: the gap of this restart began then; None: unknown


@dataclass(frozen=True, slots=True)
class ReadGroup:
    """Read this group ("device.group") as soon as the device can: a read that *begins* after this effect."""

    group: str


@dataclass(frozen=True, slots=True)
class Write:
    """Write this tag ("device.tag"), after the outcome's records are durable.

    A write that fails must end in a gap of the device (close, reopen, ``on_gap``): only so does the handshake
    learn that its acknowledge may not have arrived.
    """

    tag: str
    value: Value


Effect = ReadGroup | Write


@dataclass(slots=True)
class Outcome:
    """The answer to one input: records to append (in order), then effects to carry out once they are durable."""

    records: list[Record]
    effects: list[Effect]
