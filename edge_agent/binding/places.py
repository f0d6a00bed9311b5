"""How a unit gets to a place where nobody scans it: on a carrier, along a register, into an oven. As the config says.

Frozen, resolved to devices, groups and indexes like the rest of :mod:`edge_agent.binding.plan`, which holds these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_agent.binding.seen import Reads

if TYPE_CHECKING:
    from edge_agent.binding.plan import TagRef


@dataclass(frozen=True, slots=True)
class Carrying:
    """What a station does with carriers: it puts its units on them, or takes off what is on them."""

    op: Literal["load", "unload"]
    reads: Reads | None  # None (unload): a unit is taken off when it is identified here, or worked off its carrier
    first: Literal["carrier", "unit"] = "carrier"  # load: what is read first
    count: int | None = None  # load: so many units, onto places 1 to ``count`` in the order in which they are read
    places: Mapping[int, int] = field(default_factory=dict)  # load without ``count``: position -> place, if not equal
    reload_s: float = 60.0  # nobody unloads a carrier and loads it anew faster than this


@dataclass(frozen=True, slots=True)
class Register:
    """Slots that all advance with one index, mirrored: a dial, a walking beam, a belt of fixed pitch."""

    name: str
    index: TagRef
    bits: int  # 0: ``index`` is a signal, each rising edge a step; else a counter of steps that wraps at so many bits
    slots: int
    entry: Reads  # where units are scanned before they step into slot 1
    remove: Reads | None = None  # a unit that is scanned here was taken out by hand


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a station stands at a register."""

    register: Register
    number: int  # 1: one step after the entry
    resync: Reads | None = None  # a reader at the slot: what it reads is in it


@dataclass(frozen=True, slots=True)
class Batch:
    """Several units at once at one station, each in a place of its own that means nothing: an oven, a wash."""

    entry: Reads
    exit: Reads | None  # None: a tag ends all at once
