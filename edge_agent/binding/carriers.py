"""What is on which carrier now. Loaded by :mod:`edge_agent.binding.carrying`, asked at the work stations.

A carrier holds units by place, from load to unload. The changes of the last ``RECENT`` carriers are kept in memory,
because the registry trails the log by what is not committed yet; others are asked from it.

A load may be in doubt, and then no unit of it is bound, only named as candidate:

- It was contradicted (its place was taken by another unit, the unit was loaded elsewhere). This is written down as
  taking the unit off, so it also holds after a restart.
- A station that loads or unloads was not watched for so long that the carrier may have been unloaded and loaded anew
  meanwhile: then every load of before is in doubt, until it is loaded again. A shorter gap cannot hide both, and hiding
  one of them shows: an empty carrier that was loaded unseen has no units, and one that was not cleared is found when it
  is loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.binding.draft import Draft
from edge_agent.binding.state import Lookup
from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.binding.units import Unit, Units

RECENT = 4096
MAX_AT_PLACE = 16  # who may be on one place: a loading whose reader is dead puts unit after unit on the last carrier


@dataclass(slots=True)
class Carried:
    """A unit on a place of a carrier. ``doubt``: why it may not be there."""

    unit: str
    serial: str
    doubt: str = ""
    recorded: bool = True  # the registry has it there, or will
    evidence: tuple[int, ...] = ()  # the record that put it there, if of this run

    @property
    def candidate(self) -> dict[str, str]:
        """As a binding's candidate."""
        return {"unit": self.unit, "serial": self.serial}


@dataclass(slots=True)
class Carrier:
    """One carrier. ``seen``: the station where it was read last."""

    name: str
    places: dict[int, list[Carried]] = field(default_factory=dict)  # more than one: nobody knows which
    seen: str = ""

    def at(self, place: int) -> tuple[Carried | None, str, list[Carried]]:
        """(the unit that is on this place for sure, why none is, those that may be)."""
        here = self.places.get(place, [])
        if len(here) == 1 and not here[0].doubt:
            return here[0], "", []
        reasons = [one.doubt for one in here if one.doubt] or ["two units were put on one place"]
        return None, reasons[0] if here else "", here

    @property
    def loaded(self) -> list[tuple[int, Carried]]:
        """Everything that is, or may be, on it."""
        return [(place, one) for place, here in sorted(self.places.items()) for one in here]


class Carriers:
    """See the module docstring."""

    def __init__(self, lookup: Lookup, units: Units) -> None:
        self._lookup = lookup
        self._units = units
        self._recent: OrderedDict[str, Carrier] = OrderedDict()
        self._doubt = ""  # of every load that is not in memory

    def get(self, name: str) -> Carrier:
        """The carrier of this name, empty if nobody ever loaded it."""
        carrier = self._recent.get(name)
        if carrier is None:
            carrier = Carrier(name)
            for loaded in self._lookup.on_carrier(name):
                here = carrier.places.setdefault(loaded.position or 1, [])
                here.append(Carried(loaded.unit, loaded.serial, self._doubt))
            self._recent[name] = carrier
        self._recent.move_to_end(name)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return carrier

    def doubt_all(self, reason: str) -> None:
        """Nobody watched: every load of before may be another one by now."""
        self._doubt = self._doubt or reason
        for carrier in self._recent.values():
            for _, one in carrier.loaded:
                one.doubt = one.doubt or reason

    def put(
        self, draft: Draft, station: str, name: str, place: int, unit: Unit, evidence: Iterable[int]
    ) -> None:  # fmt: skip
        """The unit is on this place now, and nowhere else; the place is free."""
        before = unit.identifiers.get("carrier")
        if before is not None:
            self.take(draft, station, before, unit.unit, evidence)
        seq = self._write(draft, station, "add", name, place, unit.unit, evidence)
        here = self.get(name).places.setdefault(place, [])
        here.append(Carried(unit.unit, unit.serial, evidence=(seq,)))
        self._bound(here)
        unit.identifiers["carrier"] = name

    def may_be(self, name: str, place: int, unit: Unit) -> None:
        """The unit is one of several that may be on this place; to be followed by ``contradict``."""
        here = self.get(name).places.setdefault(place, [])
        if all(one.unit != unit.unit for one in here):
            here.append(Carried(unit.unit, unit.serial, recorded=False))
            self._bound(here)

    def _bound(self, here: list[Carried]) -> None:
        """The oldest goes of those that are in doubt anyway: the place stays in doubt without it."""
        while len(here) > MAX_AT_PLACE and not here[0].recorded:
            del here[0]

    def take(self, draft: Draft, station: str, name: str, unit: str, evidence: Iterable[int]) -> list[Carried]:
        """The unit is on this carrier no more. Returns what was taken off."""
        carrier, taken = self.get(name), []
        for place, one in carrier.loaded:
            if one.unit == unit:
                if one.recorded:
                    self._write(draft, station, "remove", name, place, unit, evidence)
                carrier.places[place].remove(one)
                taken.append(one)
                self._forget(name, one)
        return taken

    def contradict(
        self, draft: Draft, station: str, name: str, place: int, reason: str, evidence: Iterable[int]
    ) -> None:  # fmt: skip
        """What is on this place is in doubt, for good: off it in the registry, a candidate here."""
        for one in self.get(name).places.get(place, []):
            if one.recorded:
                self._write(draft, station, "remove", name, place, one.unit, evidence)
            one.recorded, one.doubt = False, reason
            self._forget(name, one)

    def _forget(self, name: str, one: Carried) -> None:
        unit = self._units.find(one.serial)
        if unit is not None and unit.identifiers.get("carrier") == name:
            del unit.identifiers["carrier"]

    def _write(
        self, draft: Draft, station: str, op: str, name: str, place: int, unit: str, evidence: Iterable[int]
    ) -> int:  # fmt: skip
        body = {"unit": unit, "op": op, "kind": "carrier", "value": name, "position": place, "evidence": [*evidence]}
        return draft.add(Kind.IDENTIFIER, station, body)
