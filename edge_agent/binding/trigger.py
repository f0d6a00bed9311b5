"""What ends a cycle by a PLC tag: the part that the handshake and the plain edge have in common.

A trigger watches one tag, and on its edge has the result group read *after* it. It knows no unit and no cycle: it
gives an :class:`Ended`, and the station says whose it is. Only a read that began after it was asked for counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edge_agent.binding.draft import Draft
from edge_agent.binding.plan import TagRef
from edge_agent.model import Instant, Sample

ASK_AGAIN_NS = 1_000_000_000  # a requested read that was rejected is asked for again after this


class Counting(StrEnum):
    """A result's counter against the last committed one."""

    NONE = "none"  # no counter configured
    FIRST = "first"
    NEXT = "next"
    DOUBLE = "double"
    JUMP = "jump"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Ended:
    """A trigger fired and its result was read, or could not be had."""

    by: str  # closed_by: handshake, edge, message
    level: bool  # found standing after a gap; nobody saw it rise
    fired_at: Instant  # end of the read that showed it
    sample: Sample | None  # the result
    seq: int  # the sample's
    evidence: tuple[int, ...]
    counter: int | None = None
    epoch: int | None = None
    counting: Counting = Counting.NONE
    missing: int = 0  # results that were never seen before this one
    torn: str = ""  # why the values may not be of one unit
    message: dict[str, str] | None = None  # key and hash of a message, for cycle_closed


class Trigger(Protocol):
    """The handshake or the edge of one or more positions of a station."""

    tag: TagRef | None  # the one that fires; None: it speaks by itself, its silence says nothing
    watched: str  # its "device.group"
    read: str | None  # "device.group" of the result; only what the trigger asks for is a cycle's
    devices: frozenset[str]
    lost: bool  # the device went away and has not been seen since

    @property
    def label(self) -> str:
        """The state, as status shows it."""
        ...

    @property
    def busy(self) -> bool:
        """True while it is not known whether the unit at hand is the last one's: after a gap, and while reading."""
        ...

    @property
    def unknown(self) -> bool:
        """True from a gap until the first level."""
        ...

    def observe(self, sample: Sample, seq: int, draft: Draft) -> Ended | None:
        """Take a sample of any group."""
        ...

    def gap(self, now: Instant) -> None:
        """Nobody watched: what the next read shows is a level, never an edge."""
        ...

    def tick(self, now: Instant, draft: Draft) -> None:
        """Ask again for what was not answered."""
        ...

    def ask(self, draft: Draft) -> None:
        """Have the tag (and the counter, if there is one) read as soon as possible."""
        ...

    def seen_since(self, mono_ns: int) -> int | None:
        """The counter as a read that began at ``mono_ns`` or later showed it."""
        ...

    def follows(self, counter: int, seen: int) -> bool:
        """True if ``counter`` is the first result after the PLC showed ``seen``."""
        ...


def device_of(name: str) -> str:
    """The device of "device.group" or "device.tag"."""
    return name.partition(".")[0]
