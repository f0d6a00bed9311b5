"""How units get to a place where nobody scans them: ``carrier``, ``registers``, ``capacity``. As written, and built.

A register is a section of its own, because several stations stand at it; each says at which slot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from edge_agent.binding.places import Batch, Carrying, Register, Slot
from edge_agent.binding.seen import Reads
from edge_agent.config.report import Path, Problems, nearest
from edge_agent.driver import Duration, Settings

if TYPE_CHECKING:
    from edge_agent.config.references import References
    from edge_agent.config.settings import StationSettings

Text = Annotated[str, Field(min_length=1, max_length=64)]
MAX_PLACES = 256
_COUNTERS = {"uint8": 8, "uint16": 16, "uint32": 32}

Rules = Callable[..., frozenset[str]]
"""Looks up (names of label rules or None, where they stand, kinds of identifier that they must give)."""


class CarrierSettings(Settings):
    """What the station does with carriers (pallets, trays) that have a label or a transponder."""

    op: Literal["load", "unload"] = Field(description="load: its units are put on the carrier; unload: taken off")
    scan: str | None = Field(default=None, description="reader of the carrier; unload without one: unit by unit")
    labels: list[Text] | None = Field(default=None, min_length=1, description="names of the section labels:")
    pattern: str | None = Field(default=None, description="regular expression with the group (?P<carrier>...)")
    first: Literal["carrier", "unit"] = Field(default="carrier", description="load: which of them is read first")
    count: int | None = Field(
        default=None, ge=1, le=MAX_PLACES, description="load: so many units, on places 1, 2, 3 in the order of reading"
    )
    places: dict[str, int] = Field(
        default={}, description="load: position of the station -> place on the carrier, where they differ"
    )
    reload: Duration = Field(
        default=60.0,
        ge=0,
        description="nobody unloads and loads a carrier faster: a longer gap leaves loads in doubt",
    )

    @model_validator(mode="after")
    def _fits(self) -> CarrierSettings:
        if self.labels is not None and self.pattern is not None:
            raise ValueError("labels stands in place of pattern; take one of them away")
        if self.op == "load" and self.scan is None:
            raise ValueError("a carrier that is loaded must be read; write scan: <reader>")
        if self.op == "unload" and (self.count is not None or self.places or self.first != "carrier"):
            raise ValueError("first, count and places belong to op: load; take them away")
        if self.count is not None and self.places:
            raise ValueError("count and places are two ways to say which place it is; take one of them away")
        return self


class RegisterSettings(Settings):
    """Slots that advance with one index: a dial, a walking beam, a belt of fixed pitch."""

    index: str = Field(description="polled device.tag: a signal whose rising edge is a step, or a counter of steps")
    slots: int = Field(ge=1, le=MAX_PLACES, description="how many steps a unit stays in it")
    entry: str = Field(min_length=1, description="scanner before slot 1")
    labels: list[Text] | None = Field(default=None, min_length=1, description="names of the section labels:")
    pattern: str | None = Field(default=None, description="regular expression with the group (?P<serial>...)")
    remove: str | None = Field(default=None, description="scanner of units that are taken out by hand")

    @model_validator(mode="after")
    def _fits(self) -> RegisterSettings:
        if self.labels is not None and self.pattern is not None:
            raise ValueError("labels stands in place of pattern; take one of them away")
        if self.remove is not None and self.remove == self.entry:
            raise ValueError("one scanner cannot let units in and take them out; name another one")
        return self


def build_registers(
    settings: Mapping[str, RegisterSettings | None], refs: References, rules: Rules, problems: Problems
) -> dict[str, Register | None]:
    """The registers by name; None: one with mistakes, which are reported."""
    found: dict[str, Register | None] = dict.fromkeys(settings)
    for name, one in settings.items():
        path: Path = ("registers", name)
        if one is None:
            continue
        index = refs.tag(one.index, (*path, "index"), polled=True, types=("bool", *_COUNTERS))
        pattern = refs.pattern(one.pattern, (*path, "pattern"), "serial")
        meant = rules(one.labels, (*path, "labels"), "serial")
        entry = refs.scanner(one.entry, (*path, "entry"))
        remove = refs.scanner(one.remove or "", (*path, "remove"))
        if index is not None and entry is not None:
            bits = _COUNTERS.get(refs.type_of(index), 0)
            taken = None if remove is None else Reads(remove, pattern, meant)
            found[name] = Register(name, index, bits, one.slots, Reads(entry, pattern, meant), taken)
    return found


@dataclass(slots=True)
class PlacesBuilder:
    """One station. ``readers``: those that only it may use, and where the config names them."""

    settings: StationSettings
    refs: References
    problems: Problems
    path: Path
    rules: Rules
    registers: Mapping[str, Register | None]  # None: one with mistakes
    readers: dict[str, Path] = field(default_factory=dict)

    @property
    def scanned_here(self) -> bool:
        """Whether each position has a reader that identifies what is in it."""
        return self.settings.identity.slot_of is None and self.settings.capacity is None

    def check(self) -> None:
        """Do the sections fit each other?"""
        identity, add = self.settings.identity, self.problems.add
        where, end = (*self.path, "identity"), self.settings.cycle.end
        if identity.of != "serial" and identity.when != "before":
            add((*where, "of"), f"a {identity.of} is scanned before the work", "write when: before")
        if identity.of == "carrier" and isinstance(identity.scan, dict):
            add((*where, "scan"), "one carrier stands at all positions at once", "name one reader: scan: <reader>")
        if identity.changeover and identity.of != "lot":
            add((*where, "changeover"), "belongs to of: lot", "take it away, or write of: lot")
        if identity.of == "lot" and self.settings.gate is not None:
            add((*self.path, "gate"), "a gate asks about units, not lots", "take it away")
        if (identity.slot_of is None) != (identity.slot is None):
            add(where, "slot_of and slot belong together", "write slot_of: <register> and slot: <number>")
        if self.settings.capacity is not None:
            self._check_capacity(end.scan is not None or end.tag is not None or end.handshake is not None)
        elif identity.slot_of is not None:
            self._check_register(where)

    def _check_capacity(self, ends: bool) -> None:
        identity, add = self.settings.identity, self.problems.add
        where = (*self.path, "capacity")
        if not ends:
            hint = "write cycle: {end: {scan: <exit reader>}} or cycle: {end: {tag: <device.tag>}}"
            add(where, "with several units at once, the next scan ends none of them", hint)
        if identity.when != "before" or identity.of != "serial" or identity.slot_of is not None:
            add(where, "units are scanned in", "write identity: {when: before, scan: <entry reader>}")
        for key, value in (("scan", identity.scan), ("end", self.settings.cycle.end.scan)):
            if isinstance(value, dict):
                add(where, f"the places have no reader of their own ({key})", "name one reader")

    def _check_register(self, where: Path) -> None:
        identity, add = self.settings.identity, self.problems.add
        if identity.when != "before" or identity.of != "serial":
            add((*where, "slot_of"), "a unit comes with a step of the register", "write when: before")
        if len(self.settings.positions) > 1:
            hint = "make a station for each position, with its slot"
            add((*self.path, "positions"), "a station at a register has one position", hint)
        if self.settings.cycle.end.scan is not None:
            add((*self.path, "cycle", "end", "scan"), "the next step takes the unit on", "take it away")

    # --- parts -------------------------------------------------------------------------------------------------

    def carrying(self) -> Carrying | None:
        """The section ``carrier``."""
        one, path = self.settings.carrier, (*self.path, "carrier")
        if one is None:
            return None
        scanner = self.refs.scanner(one.scan or "", (*path, "scan"))
        pattern = self.refs.pattern(one.pattern, (*path, "pattern"), "carrier")
        rules = self.rules(one.labels, (*path, "labels"), "carrier")
        scan = self.settings.identity.scan
        if scanner is not None and scanner in (scan.values() if isinstance(scan, dict) else (scan,)):
            if self.settings.identity.of == "carrier":
                hint = "take scan: away here: each unit is off when its cycle closes"
                self.problems.add((*path, "scan"), f"{scanner} reads the carriers that are worked on", hint)
            elif pattern is None and not rules:
                hint = "add a pattern, or labels, that only carriers have"
                self.problems.add(
                    path, f"{scanner} scans the units too, whose labels would be taken for carriers", hint
                )
        reads = None if scanner is None else Reads(scanner, pattern, rules, "carrier")
        if one.op == "load" and self.settings.identity.of != "serial":
            self.problems.add(path, "units that are loaded are identified one by one", "write of: serial")
        if one.op == "load":
            self._check_loaded(path)
        return Carrying(one.op, reads, one.first, one.count, self._places(one, path), one.reload)

    def _check_loaded(self, path: Path) -> None:
        """It must be seen which carrier stands there when a unit is identified."""
        when, hint = self.settings.identity.when, "write identity: {when: before, scan: <reader>}"
        if when == "after":
            self.problems.add(path, "a unit that is scanned after the work may be scanned after its carrier left", hint)
        elif when == "in_data" and self.settings.cycle.end.message is not None:
            self.problems.add(path, "a tester's message may come after its carrier left", hint)

    def _places(self, one: CarrierSettings, path: Path) -> dict[int, int]:
        places: dict[int, int] = {}
        for key, place in one.places.items():
            number = int(key) if re.fullmatch(r"[1-9][0-9]{0,2}", key) else 0
            if number not in self.settings.positions:
                hint = f"choose from {', '.join(map(str, self.settings.positions))}"
                self.problems.add((*path, "places", key), f"the station has no position {key}", hint)
            elif place in places.values() or not 1 <= place <= MAX_PLACES:
                self.problems.add(
                    (*path, "places", key), f"place {place} cannot be used here", "each place once, from 1"
                )
            else:
                places[number] = place
        rest = [number for number in self.settings.positions if number not in places]
        if places and any(number in places.values() for number in rest):
            self.problems.add((*path, "places"), "two positions have one place", "name the place of each position")
        return places

    def slot(self, pattern: re.Pattern[str] | None, rules: frozenset[str]) -> Slot | None:
        """``identity.slot_of`` and ``slot``."""
        identity, path = self.settings.identity, (*self.path, "identity")
        if identity.slot_of is None or identity.slot is None:
            return None
        register = self.registers.get(identity.slot_of)
        if register is None:
            if identity.slot_of not in self.registers:
                hint = nearest(identity.slot_of, self.registers) or "describe it in the section registers:"
                self.problems.add((*path, "slot_of"), f"no register is named {identity.slot_of!r}", hint)
            return None
        if identity.slot > register.slots:
            what = f"the register {register.name} has {register.slots} slots"
            self.problems.add((*path, "slot"), what, f"write 1 to {register.slots}")
        resync = self._reader(identity.scan, (*path, "scan"))
        if resync is not None and resync in (register.entry.scanner, register.remove and register.remove.scanner):
            what = f"{resync} reads at another place of the register"
            self.problems.add((*path, "scan"), what, "name the scanner at this slot, or none")
        return Slot(register, identity.slot, None if resync is None else Reads(resync, pattern, rules))

    def batch(self, pattern: re.Pattern[str] | None, rules: frozenset[str]) -> Batch | None:
        """``capacity``."""
        if self.settings.capacity is None:
            return None
        end = (*self.path, "cycle", "end", "scan")
        entry = self._reader(self.settings.identity.scan, (*self.path, "identity", "scan"))
        out = self._reader(self.settings.cycle.end.scan, end)
        if entry is None:
            return None
        if entry == out:
            what = f"{entry} scans the units in: nobody could tell a scan out from a re-scan"
            self.problems.add(end, what, "name another scanner")
        return Batch(Reads(entry, pattern, rules), None if out is None else Reads(out, pattern, rules))

    def _reader(self, value: str | dict[int, str] | None, path: Path) -> str | None:
        scanner = self.refs.scanner(value, path) if isinstance(value, str) else None
        if scanner is not None:
            self.readers[scanner] = path
        return scanner
