"""Stations as written, and the devices' shapes, to the binder's plan.

Judges what makes sense only together: is the end's tag polled, can ack be written, do two stations want the same
scanner. A mistake is a problem at its line, and then the plan is not to be used.

Claims: what a position names is its; and all tags of a device that only one station uses, if that has one position.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from edge_agent.binding.places import Register
from edge_agent.binding.plan import (
    Characteristic,
    Context,
    Edge,
    Gate,
    Handshake,
    Message,
    Plan,
    Position,
    ResultRule,
    Resume,
    Station,
    StorePolicy,
    TagRef,
)
from edge_agent.config.cycles import CycleBuilder, attempts, delimiting, tags_of
from edge_agent.config.devices import Device, Known
from edge_agent.config.gate import GateBuilder
from edge_agent.config.labels import named_with, no_overlap_with
from edge_agent.config.materials import NeedsBuilder
from edge_agent.config.places import PlacesBuilder, RegisterSettings, Rules, build_registers
from edge_agent.config.references import References
from edge_agent.config.report import Path, Problems, nearest, together
from edge_agent.config.settings import ResultSettings, StationSettings
from edge_agent.driver import Group
from edge_agent.identify.label import Labels
from edge_agent.model import Result, Value, integer_names, number_names

GAP_POLLS = 10
MIN_GAP_S = 1.0


def build_plan(
    stations: Mapping[str, StationSettings],
    known: Mapping[str, Known],
    devices: Mapping[str, Device],
    labels: Labels,
    registers: Mapping[str, RegisterSettings | None],
    problems: Problems,
) -> Plan:
    """The plan of the line. Only to be used if ``problems`` is empty afterwards. ``registers``: None: with mistakes."""
    slots = build_registers(registers, References(known, (1,), problems), partial(_rules, labels, problems), problems)
    builders = [_StationBuilder(name, one, known, labels, problems, slots) for name, one in stations.items()]
    built = [builder.build() for builder in builders]
    _no_sharing(
        "scanner", [builder.scanners | builder.cycles.exits | builder.places.readers for builder in builders], problems
    )
    _no_sharing("reader of commands", [builder.cycles.readers for builder in builders], problems)
    _no_sharing("ack", [builder.cycles.acks for builder in builders], problems)
    _no_sharing("answer", [builder.answers for builder in builders], problems)
    uses = Counter(device for builder in builders for device in builder.refs.devices)
    whole = [
        _claiming_devices(station, builder.refs, {device for device in builder.refs.devices if uses[device] == 1})
        for station, builder in zip(built, builders, strict=True)
    ]
    groups = {group.tagset.source: group for device in devices.values() for group in device.shape.groups.values()}
    positions = [position for station in whole for position in station.positions]
    delimited = {source for position in positions for source in delimiting(position.end, position.start)}
    delimited |= {station.slot.register.index.group for station in whole if station.slot is not None}
    gap_s = {
        source: max(GAP_POLLS * group.poll_s, MIN_GAP_S)
        for source, group in groups.items()
        if source in delimited and group.poll_s is not None
    }
    return Plan(tuple(whole), {source: _store(group) for source, group in groups.items()}, gap_s, labels)


@dataclass(slots=True)
class _StationBuilder:
    """One station; a method a section, each of which reports what is wrong there."""

    name: str
    settings: StationSettings
    known: Mapping[str, Known]
    labels: Labels
    problems: Problems
    registers: Mapping[str, Register | None]
    refs: References = field(init=False)
    path: Path = field(init=False)
    cycles: CycleBuilder = field(init=False)
    places: PlacesBuilder = field(init=False)
    answers: dict[str, Path] = field(default_factory=dict)  # what the gate writes
    scanners: dict[str, Path] = field(default_factory=dict)
    rules: Rules = field(init=False)

    def __post_init__(self) -> None:
        self.refs = References(self.known, self.settings.positions, self.problems)
        self.path = ("stations", self.name)
        when, positions = self.settings.identity.when, self.settings.positions
        self.cycles = CycleBuilder(self.refs, when, positions, self.path, self.problems)
        self.rules = partial(_rules, self.labels, self.problems)
        self.places = PlacesBuilder(self.settings, self.refs, self.problems, self.path, self.rules, self.registers)

    def build(self) -> Station:
        identity = self.settings.identity
        where = (*self.path, "identity")
        self.cycles.check(self.settings.cycle)
        self.places.check()
        self._check_identity(where)
        several = isinstance(identity.scan, str) and len(self.settings.positions) > 1 and identity.scan
        if several and identity.when != "after" and identity.of != "carrier" and self.places.scanned_here:
            hint = "write one scanner a position, e.g. scan: {1: gate_a, 2: gate_b}"
            self.problems.add((*where, "scan"), "one scanner for several positions cannot tell them apart", hint)
        pattern = self.refs.pattern(identity.pattern, (*where, "pattern"), identity.of)
        rules = self.rules(identity.labels, (*where, "labels"), identity.of)
        self._no_overlap(pattern, _names(identity.scan), (*where, "pattern"))
        context = tuple(self._context())
        return Station(
            name=self.name,
            step=self.settings.step,
            identity=identity.when,
            pattern=pattern,
            positions=tuple(self._position(number, context) for number in self.settings.positions),
            context=context,
            bounce_s=identity.bounce,
            timeout_s=self.settings.cycle.timeout,
            min_s=self.settings.cycle.min_time,
            rules=rules,
            of=identity.of,
            carrying=self.places.carrying(),
            slot=self.places.slot(pattern, rules),
            batch=self.places.batch(pattern, rules),
            changeover_s=identity.changeover,
            max_wait_s=identity.max_wait,
            known=identity.known,
            commands=self.cycles.commands(self.settings.commands, self.rules),
            attempts=attempts(self.settings.attempts),
            gate=self._gate(),
            needs=NeedsBuilder(
                self.settings, self.refs, self.problems, self.path, self.labels, self.rules, self._no_overlap
            ).build(),
        )

    def _gate(self) -> Gate | None:
        if self.settings.gate is None:
            return None
        builder = GateBuilder(self.refs, self.settings.positions, (*self.path, "gate"), self.problems)
        gate = builder.build(self.settings.gate, scanned=self.settings.identity.when == "before")
        self.answers = builder.answers
        return gate

    def _position(self, number: int, context: tuple[Context, ...]) -> Position:
        identity, cycle = self.settings.identity, self.settings.cycle
        start = self.cycles.start(cycle.start, number)
        end = self.cycles.end(cycle.end, number, identity.bounce)
        here = self.places.scanned_here
        scanner = self._scanner(number) if here else None
        serial = self._serial(number, end)
        collect = tuple(self._collect(number))
        result = self._result(number)
        resume = self._resume(number)
        named: list[TagRef | None] = [serial, resume.cycle_number, resume.serial]
        named += [one.tag for one in collect] + [one.tag for one in context] + [result.tag if result else None]
        named += tags_of(end, start)
        if isinstance(end, Handshake):
            named.append(self._readable(end.ack))
        return Position(
            number=number,
            scanner=scanner,
            out=self.cycles.exit(cycle.end, number, scanner) if here else None,
            start=start,
            serial=serial,
            end=end,
            collect=collect,
            result=result,
            resume=resume,
            claims=_claims([tag for tag in named if tag is not None] + self._tags(number)),
        )

    # --- identity ---

    def _check_identity(self, where: Path) -> None:
        identity, written = self.settings.identity, self.problems.root.has
        scanned = identity.when != "in_data"
        if scanned and identity.scan is None and identity.slot_of is None and not written((*where, "scan")):
            what = f"a unit identified {identity.when} work needs scan: <scanner>"
            self.problems.add((*where, "scan"), "is missing", what)
        if identity.when != "after" and "max_wait" in identity.model_fields_set:
            self.problems.add((*where, "max_wait"), "belongs to when: after", "take it away, or write when: after")
        if identity.when == "before" and identity.known:
            what = "a scan before the work opens a cycle whoever it names"
            self.problems.add((*where, "known"), what, "take it away, or let the gate ask for the step before")
        if scanned and identity.tag is not None:
            self.problems.add((*where, "tag"), "belongs to when: in_data", "take it away, or write when: in_data")
        if identity.when == "in_data" and identity.tag is None and not written((*where, "tag")):
            hint = "name the tag that holds the serial: tag: <device.tag>"
            self.problems.add((*where, "tag"), "is missing", hint)
        if identity.when == "in_data" and identity.scan is not None:
            self.problems.add((*where, "scan"), "belongs to when: before", "take it away, or write when: before")

    def _scanner(self, number: int) -> str | None:
        name, where = self.refs.at(self.settings.identity.scan, number, (*self.path, "identity", "scan"))
        scanner = self.refs.scanner(name, where)
        if scanner is not None:
            identity = self.settings.identity  # a reader may be carried to each position, or read their carrier
            shared = identity.when == "after" or identity.of == "carrier"
            if scanner in self.scanners and self.scanners[scanner] != where and not shared:
                what = f"{scanner} stands at another position too: a scan could not tell which is meant"
                self.problems.add(where, what, "name a scanner of its own for each position")
            self.scanners.setdefault(scanner, where)
        return scanner

    def _serial(self, number: int, end: Handshake | Edge | Message | None) -> TagRef | None:
        name, where = self.refs.at(self.settings.identity.tag, number, (*self.path, "identity", "tag"))
        tag = self.refs.tag(name, where)
        if tag is not None and end is not None:
            group = end.read or (end.tag.group if isinstance(end, Edge) else "")
            if tag.group != group:
                what = f"{name} is in {tag.group}, so it may name the unit before or after this one"
                self.problems.add(where, what, f"{together(tag.group, group)}, which is read when the cycle ends")
        return tag

    def _resume(self, number: int) -> Resume:
        found = []
        for key, value in (
            ("cycle_number", self.settings.resume.cycle_number),
            ("serial", self.settings.resume.serial),
        ):
            name, where = self.refs.at(value, number, (*self.path, "resume", key), needed=False)
            found.append(self.refs.tag(name, where, polled=True))
        return Resume(*found)

    # --- what is collected ---

    def _collect(self, number: int) -> Iterable[Characteristic]:
        for name, settings in self.settings.collect.items():
            low, high = settings.limits or (None, None)
            ref, where = self.refs.at(settings.tag, number, (*self.path, "collect", name, "tag"), needed=False)
            judged = settings.limits or any(name in part.limits for part in self.settings.parts.values())
            tag = self.refs.tag(ref, where, types=number_names if judged else ())
            if tag is not None:
                yield Characteristic(name, tag, settings.required, low, high)

    def _result(self, number: int) -> ResultRule | None:
        settings = self.settings.result
        if settings is None:
            return None
        name, where = self.refs.at(settings.tag, number, (*self.path, "result", "tag"), needed=False)
        tag = self.refs.tag(name, where, types=("bool", *integer_names, "string"))
        if tag is None:
            return None
        kind = self.refs.type_of(tag)
        if settings.meaning is None and kind != "bool":
            hint = "add e.g. meaning: {1: Passed, 2: Failed}"
            self.problems.add((*self.path, "result"), f"does not say which {kind} means passed", hint)
        return ResultRule(tag, self._meaning(settings, kind))

    def _meaning(self, settings: ResultSettings, kind: str) -> dict[Value, Result]:
        meaning: dict[Value, Result] = {}
        for text, result in (settings.meaning or {"true": Result.PASSED, "false": Result.FAILED}).items():
            try:
                meaning[_value(text, kind)] = result
            except ValueError:
                if settings.meaning is not None:
                    where = (*self.path, "result", "meaning", text)
                    self.problems.add(where, f"{text!r} is no {kind}", f"write values that {settings.tag} can have")
        return meaning

    def _context(self) -> Iterable[Context]:
        for name, settings in self.settings.context.items():
            path = (*self.path, "context", name)
            scanner = self.refs.scanner(settings.scan or "", (*path, "scan"))
            tag = self.refs.tag(settings.tag or "", (*path, "tag"))
            pattern = self.refs.pattern(settings.pattern, (*path, "pattern"), None)
            rules = self.rules(settings.labels, (*path, "labels"), name)
            everything = settings.pattern is None and not rules
            if scanner is not None and everything and scanner in _names(self.settings.identity.scan):
                hint = "add a pattern that only these labels match"
                self.problems.add(path, f"{scanner} also scans the units, whose labels would be taken for this", hint)
            self._no_overlap(pattern, [settings.scan or ""], (*path, "pattern"))
            yield Context(name, scanner, pattern, tag, rules)

    def _no_overlap(self, pattern: re.Pattern[str] | None, scanners: Iterable[str], path: Path) -> None:
        """A pattern of the station itself reads nothing else than the label rules named at its scanner."""
        if pattern is None:
            return
        node = self.problems.root.find(self.path)
        names = {name for scanner in scanners for name in named_with(scanner, node)}
        rules = [self.labels.rules[name] for name in sorted(names & self.labels.rules.keys())]
        no_overlap_with(rules, pattern, path, self.problems)

    def _tags(self, number: int) -> list[TagRef]:
        path: Path = (*self.path, "tags")
        globs = self.settings.tags
        if isinstance(globs, dict):
            _, path = self.refs.at(dict.fromkeys(globs, ""), number, path, needed=False)
            globs = globs.get(number, [])
        return [tag for index, glob in enumerate(globs) for tag in self.refs.matching(glob, (*path, index))]

    def _readable(self, name: str) -> TagRef | None:
        return next((tag for tag in self.refs.tags_of(name.partition(".")[0]) if tag.name == name), None)


# --- small parts ---------------------------------------------------------------------------------------------


def _rules(
    labels: Labels, problems: Problems, names: Sequence[str] | None, path: Path, *kinds: str
) -> frozenset[str]:  # fmt: skip
    """The label rules of these names, each of which must be able to give an identifier of one of these kinds."""
    for index, name in enumerate(names or ()):
        rule = labels.rules.get(name)
        if rule is None and problems.root.has(("labels", name)):
            continue  # it is described, with a mistake, which is told there
        if rule is None:
            hint = nearest(name, labels.rules) or "describe it in the section labels:"
            problems.add((*path, index), f"no label rule is named {name!r}", hint)
        elif rule.gives.isdisjoint(kinds):
            hint = f"it gives {', '.join(sorted(rule.gives))}"
            problems.add((*path, index), f"the label rule {name} gives no {' or '.join(kinds)}", hint)
    return frozenset(names or ())


def _names(value: str | dict[int, str] | None) -> list[str]:
    return list(value.values()) if isinstance(value, dict) else [value] if value else []


def _value(text: str, kind: str) -> Value:
    """A key of ``meaning`` as a value of the tag. Raises ValueError."""
    if kind == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    return text if kind == "string" else int(text)


def _claims(tags: Iterable[TagRef]) -> dict[str, tuple[str, ...]]:
    claims: dict[str, dict[str, None]] = {}
    for tag in sorted(set(tags), key=lambda tag: (tag.group, tag.index)):
        claims.setdefault(tag.group, {})[tag.name.partition(".")[2]] = None
    return {group: tuple(names) for group, names in claims.items()}


def _claiming_devices(station: Station, refs: References, devices: set[str]) -> Station:
    """The station with all tags of the devices that only it uses, if it has one position, or all its units have all."""
    if len(station.positions) != 1 and station.batch is None:
        return station
    whole = {group: tags for device in devices for group, tags in _claims(refs.tags_of(device)).items()}
    positions = tuple(replace(one, claims={**one.claims, **whole}) for one in station.positions)
    return replace(station, positions=positions)


def _no_sharing(noun: str, uses: list[dict[str, Path]], problems: Problems) -> None:
    """Two stations cannot use one scanner to identify, nor answer one handshake."""
    first: dict[str, Path] = {}
    for station in uses:
        for name, where in station.items():
            if name in first:
                other = ".".join(str(part) for part in first[name])
                line = problems.root.find(first[name]).line
                what = f"{name} is the {noun} of {other} too (line {line})"
                problems.add(where, what, f"give each station its own {noun}")
        first |= {name: where for name, where in station.items() if name not in first}


def _store(group: Group) -> StorePolicy:
    settings = list(group.tags.values())
    beats = [one.heartbeat for one in settings if one.heartbeat is not None]
    return StorePolicy(
        tagset=group.tagset,
        always=any(one.store == "always" for one in settings),
        cycle=any(one.store == "cycle" for one in settings),
        exact=tuple(index for index, one in enumerate(settings) if not one.deadband),
        deadbands=tuple((index, one.deadband) for index, one in enumerate(settings) if one.deadband),
        heartbeat_s=min(beats, default=None),
    )
