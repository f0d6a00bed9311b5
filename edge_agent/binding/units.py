"""Units and their identifiers: who is already known, under which id, and how often each step has had it.

The newest ``RECENT`` units are kept in memory, because the registry trails the log by what is not committed yet;
older ones are asked from it. A unit's id is that of the first ``identifier`` record that names it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.binding.draft import Draft
from edge_agent.binding.state import Lookup
from edge_agent.model import Kind

RECENT = 10_000


@dataclass(slots=True)
class Unit:
    """An individual product."""

    unit: str
    serial: str
    attempts: dict[str, int] = field(default_factory=dict)  # step -> cycles bound to it so far

    def attempt(self, step: str) -> int:
        """Count one more cycle at ``step``; returns its attempt number, from 1."""
        self.attempts[step] = self.attempts.get(step, 0) + 1
        return self.attempts[step]


class Units:
    """All units, by serial."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._recent: OrderedDict[str, Unit] = OrderedDict()

    def know(self, draft: Draft, station: str, identifiers: Mapping[str, str], evidence: list[int]) -> Unit:
        """The unit of these identifiers; at first sight it is made, with an ``identifier`` record for each."""
        serial = identifiers["serial"]
        unit = self._find(serial)
        if unit is None:
            unit = Unit(draft.next_id, serial)
            for kind in sorted(identifiers, key=lambda kind: (kind != "serial", kind)):
                body = {"unit": unit.unit, "op": "add", "kind": kind, "value": identifiers[kind], "evidence": evidence}
                draft.add(Kind.IDENTIFIER, station, body)
        self._remember(unit)
        return unit

    def restored(self, unit: str, serial: str) -> Unit:
        """A unit of which a cycle was open when the last log ended."""
        known = self._find(serial)
        if known is None or known.unit != unit:
            known = Unit(unit, serial)
        self._remember(known)
        return known

    def _find(self, serial: str) -> Unit | None:
        if (unit := self._recent.get(serial)) is not None:
            return unit
        known = self._lookup.unit("serial", serial)
        return None if known is None else Unit(known.unit, serial, dict(known.attempts))

    def _remember(self, unit: Unit) -> None:
        self._recent[unit.serial] = unit
        self._recent.move_to_end(unit.serial)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
