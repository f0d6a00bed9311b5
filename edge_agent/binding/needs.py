"""What a station needs for a unit, beside the unit: materials, components, context, steps before; by part number.

Built by :mod:`edge_agent.config`; frozen. What a part number says adds to what the station says, but for limits and
allowed part numbers, which it replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.binding.seen import Reads

if TYPE_CHECKING:
    from edge_agent.binding.plan import TagRef

Limits = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Material:
    """What is loaded at the station by lot or package: solder, glue, a reel of parts.

    ``splice``: a new package is joined to the running one, so that for a while nobody knows which of them went in:
    until the rising edge of ``splice_done``, or for ``splice_units`` cycles, the one that closes last included.
    """

    name: str
    reads: tuple[Reads, ...]  # by lot, by package: the first that knows the label
    required: bool = True
    part_numbers: frozenset[str] = frozenset()  # allowed; empty: any
    per_unit: float | None = None  # how much a cycle uses up; None: it is not counted
    splice: bool = False
    splice_done: TagRef | None = None
    splice_units: int | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """What is built into the unit and has a serial of its own."""

    name: str
    reads: Mapping[int, Reads]  # position -> the labels that are meant for it
    required: bool = True
    part_numbers: frozenset[str] = frozenset()  # allowed; empty: any
    count: int = 1


@dataclass(frozen=True, slots=True)
class Required:
    """What a complete cycle has, by name."""

    context: frozenset[str] = frozenset()
    materials: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Variant:
    """What is different for one part number."""

    limits: Mapping[str, Limits] = field(default_factory=dict)  # characteristic -> instead of the station's
    require: Required = Required()
    materials: Mapping[str, frozenset[str]] = field(default_factory=dict)  # name -> allowed part numbers
    components: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """See the module docstring."""

    materials: tuple[Material, ...] = ()
    components: tuple[Component, ...] = ()
    remove: Reads | None = None  # a component whose label is read here is taken out of what it is in
    context: frozenset[str] = frozenset()  # items that a complete cycle has
    previous: tuple[str, ...] = ()  # steps that must have been done before
    variants: Mapping[str, Variant] = field(default_factory=dict)  # by part number; empty: it makes no difference
    identical: Mapping[str, int] = field(default_factory=dict)  # characteristic -> so many equal values are suspicious

    @property
    def required(self) -> Required:
        """What every cycle needs, whatever its part number."""
        return Required(
            self.context,
            frozenset(one.name for one in self.materials if one.required),
            frozenset(one.name for one in self.components if one.required),
        )
