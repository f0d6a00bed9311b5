"""Units and their identifiers: who is already known, under which id, and how often each step has had it.

The newest ``RECENT`` units are kept in memory, because the registry trails the log by what is not committed yet;
older ones are asked from it. A unit's id is that of the first ``identifier`` record that names it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.binding.draft import Draft
from edge_agent.binding.state import Installed, Lookup, StepResult
from edge_agent.model import Kind

RECENT = 10_000


@dataclass(slots=True)
class Unit:
    """An individual product, or (kind ``lot``) a batch that is not told apart any further."""

    unit: str
    serial: str  # of a lot: its number
    kind: str = "serial"
    attempts: dict[str, int] = field(default_factory=dict)  # step -> cycles bound to it so far
    results: dict[str, StepResult] = field(default_factory=dict)  # step -> its newest closed cycle here
    identifiers: dict[str, str] = field(default_factory=dict)  # kind -> value, as they hold now
    parent: Installed | None = None  # what it is built into
    lots: set[str] = field(default_factory=set)  # that went into it, through its components too
    packages: set[str] = field(default_factory=set)  # the same
    own_lots: set[str] | None = field(default_factory=set)  # not through components; None: not told apart
    own_packages: set[str] | None = field(default_factory=set)
    children: dict[str, Installed] | None = None  # unit -> what is in this one now; None: not asked for yet

    def attempt(self, step: str) -> int:
        """Count one more cycle at ``step``; returns its attempt number, from 1."""
        self.attempts[step] = self.attempts.get(step, 0) + 1
        return self.attempts[step]

    def uncount(self, step: str) -> None:
        """One cycle at ``step`` less: it is another unit's, or was no attempt."""
        self.attempts[step] = max(0, self.attempts.get(step, 0) - 1)


class Units:
    """All units, by serial or lot."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._recent: OrderedDict[tuple[str, str], Unit] = OrderedDict()  # by kind and name
        self._outdated: list[Unit] = []

    def know(
        self, draft: Draft, station: str, identifiers: Mapping[str, str], evidence: list[int], kind: str = "serial"
    ) -> Unit:
        """The unit of these identifiers; at first sight it is made, with an ``identifier`` record for each.

        ``kind``: the identifier that names it, ``serial`` or ``lot``.
        """
        serial = identifiers[kind]
        unit = self.find(serial, kind)
        if unit is None:
            unit = Unit(draft.next_id, serial, kind, identifiers=dict(identifiers), children={})
            for name, sets in (("lot", (unit.lots, unit.own_lots)), ("package", (unit.packages, unit.own_packages))):
                for one in sets if name in identifiers else ():
                    assert one is not None, "a new unit is told apart"
                    one.add(identifiers[name])
            for name in sorted(identifiers, key=lambda one: (one != kind, one)):
                body = {"unit": unit.unit, "op": "add", "kind": name, "value": identifiers[name], "evidence": evidence}
                draft.add(Kind.IDENTIFIER, station, body)
        self._remember(unit)
        return unit

    def restored(self, unit: str, serial: str, kind: str = "serial") -> Unit:
        """A unit of which a cycle was open when the last log ended."""
        known = self.find(serial, kind)
        if known is None or known.unit != unit:
            known = Unit(unit, serial, kind)
        self._remember(known)
        return known

    def find(self, serial: str, kind: str = "serial") -> Unit | None:
        """The unit of this serial (or lot), if it was ever seen here. Changes of it belong into the object itself."""
        unit = self._recent.get((kind, serial))
        if unit is not None:
            return unit
        known = self._lookup.unit(kind, serial)
        if known is None:
            return None
        unit = Unit(
            known.unit, serial, kind, dict(known.attempts), dict(known.results), dict(known.identifiers), known.parent,
            set(known.lots), set(known.packages), _own(known.own_lots), _own(known.own_packages),
        )  # fmt: skip
        self._remember(unit)
        return unit

    def named(self, unit: str, name: str) -> Unit | None:
        """The unit of this id, whose serial or lot ``name`` is."""
        found = (self.find(name, kind) for kind in ("serial", "lot"))
        return next((one for one in found if one is not None and one.unit == unit), None)

    def outdate(self, unit: Unit) -> None:
        """What was done with the unit changed with a binding: the registry is asked anew once it has the records."""
        self._outdated.append(unit)

    def refresh(self) -> None:
        """Ask the registry what was done with units of which that changed. Call it before an input, not during one."""
        while self._outdated:
            unit = self._outdated.pop()
            known = self._lookup.unit(unit.kind, unit.serial)
            if known is not None and known.unit == unit.unit:
                unit.lots, unit.packages = set(known.lots), set(known.packages)
                unit.own_lots, unit.own_packages = _own(known.own_lots), _own(known.own_packages)
                if unit.kind == "serial":  # of lots the registry counts no attempts
                    unit.attempts, unit.results = dict(known.attempts), dict(known.results)

    def _remember(self, unit: Unit) -> None:
        key = (unit.kind, unit.serial)
        self._recent[key] = unit
        self._recent.move_to_end(key)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)


def _own(known: frozenset[str] | None) -> set[str] | None:
    return None if known is None else set(known)
