"""What a station needs beside the unit: ``materials``, ``components``, ``require``, ``previous``, ``parts``.

The models are the YAML's shape; ``NeedsBuilder`` looks the names up and judges what makes sense only together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from edge_agent.binding.needs import Component, Material, Needs, Required, Variant
from edge_agent.binding.seen import Reads
from edge_agent.config.by_position import ByPosition
from edge_agent.config.labels import meant_by, read_alike
from edge_agent.config.limits import Limits
from edge_agent.config.report import Path, Problems, nearest
from edge_agent.driver import Settings
from edge_agent.identify.label import Labels, Rule
from edge_agent.model import integer_names

if TYPE_CHECKING:
    from edge_agent.config.references import References
    from edge_agent.config.settings import IdentitySettings, StationSettings

Text = Annotated[str, Field(min_length=1, max_length=64)]


class _MeantSettings(Settings):
    """Labels that are meant: those of rules of the section ``labels:``, or by a pattern."""

    labels: list[Text] | None = Field(default=None, min_length=1, description="names of the section labels:")
    pattern: str | None = Field(default=None, description="regular expression that the whole label matches")

    @model_validator(mode="after")
    def _one_of(self) -> _MeantSettings:
        if self.labels is not None and self.pattern is not None:
            raise ValueError("labels stands in place of pattern; take one of them away")
        return self


class RemoveSettings(_MeantSettings):
    """Where components are read that are taken out."""

    scan: str = Field(min_length=1, description="scanner; what it reads is taken out of what it is in")


class MaterialSettings(_MeantSettings):
    """What is loaded at the station by lot or package."""

    scan: str = Field(min_length=1, description="scanner that reads the lot or package that is loaded")
    required: bool = Field(default=True, description="a cycle without it is incomplete")
    part_number: list[Text] = Field(default=[], description="allowed part numbers; none: any")
    quantity_per_unit: float | None = Field(default=None, gt=0, description="how much a cycle uses up")
    splice: bool = Field(default=False, description="a new package is joined to the running one")
    splice_done: str | None = Field(default=None, description="device.tag whose rising edge says that it is through")
    splice_units: int | None = Field(default=None, ge=1, le=100_000, description="it is through after so many cycles")

    @model_validator(mode="after")
    def _splices(self) -> MaterialSettings:
        told = self.splice_done is not None or self.splice_units is not None
        if told and not self.splice:
            raise ValueError("splice_done and splice_units belong to splice; write splice: true, or take them away")
        if self.splice and not told:
            raise ValueError(
                "splice does not say when the old package is through; add splice_units: <cycles> or splice_done: <tag>"
            )
        return self


class ComponentSettings(_MeantSettings):
    """What is built into the unit and has a serial of its own."""

    scan: ByPosition = Field(description="scanner that reads it; it may be the one that reads the unit")

    required: bool = Field(default=True, description="a unit without it is incomplete")
    part_number: list[Text] = Field(default=[], description="allowed part numbers; none: any")
    count: int = Field(default=1, ge=1, le=100, description="how many of them a unit has")


class RequireSettings(Settings):
    """What a complete cycle has, by name."""

    context: list[Text] = Field(default=[], description="items of context, e.g. [operator]")
    materials: list[Text] = Field(default=[], description="names of materials")
    components: list[Text] = Field(default=[], description="names of components")


class PartSettings(Settings):
    """What is different for one part number."""

    limits: dict[str, Limits] = Field(default={}, description="characteristic -> [low, high], instead of collect's")
    require: RequireSettings = RequireSettings()
    materials: dict[str, list[Text]] = Field(default={}, description="material -> allowed part numbers")
    components: dict[str, list[Text]] = Field(default={}, description="component -> allowed part numbers")


@dataclass(frozen=True, slots=True)
class NeedsBuilder:
    """One station's needs. ``rules`` and ``apart``: how the station looks up label rules, and checks its patterns."""

    settings: StationSettings
    refs: References
    problems: Problems
    path: Path
    labels: Labels
    rules: Callable[..., frozenset[str]]  # (names, path, *kinds)
    apart: Callable[[re.Pattern[str] | None, Iterable[str], Path], None]

    def build(self) -> Needs:
        """The needs. Only to be used if there are no problems afterwards."""
        settings = self.settings
        if settings.components and settings.identity.when != "before":
            hint = "write identity: {when: before, ...}, or install them at a station that has it"
            self.problems.add((*self.path, "components"), "need a unit that is known before the work", hint)
        remove = settings.remove and self._reads(settings.remove, ("remove",), settings.positions[0], ("serial",))
        self._one_meaning()
        must = self._known("require", "materials", settings.require.materials, settings.materials)
        must_have = self._known("require", "components", settings.require.components, settings.components)
        return Needs(
            materials=tuple(self._material(name, one, name in must) for name, one in settings.materials.items()),
            components=tuple(
                self._component(name, one, name in must_have) for name, one in settings.components.items()
            ),
            remove=remove[0] if remove else None,
            context=self._known("require", "context", settings.require.context, settings.context),
            previous=tuple(settings.previous),
            variants={number: self._variant(number, one) for number, one in settings.parts.items()},
            identical={name: one.identical for name, one in settings.collect.items() if one.identical is not None},
        )

    def _reads(
        self,
        settings: RemoveSettings | MaterialSettings | ComponentSettings,
        at: Path,
        position: int,
        kinds: tuple[str, ...],
    ) -> tuple[Reads, ...]:
        """One for each kind of identifier that the labels can have."""
        path = (*self.path, *at)
        name, where = self.refs.at(settings.scan, position, (*path, "scan"))
        scanner = self.refs.scanner(name, where)
        pattern = self.refs.pattern(settings.pattern, (*path, "pattern"), None)
        if scanner is None or (settings.pattern is not None and pattern is None):
            return ()
        if pattern is not None and not any(kind in pattern.groupindex for kind in kinds):
            hint = rf"mark it, e.g. '^(?P<{kinds[0]}>[A-Z0-9]+)$'"
            self.problems.add((*path, "pattern"), f"does not say which part is the {' or '.join(kinds)}", hint)
        if pattern is None and settings.labels is None and scanner in self._shared(at):
            hint = "add a pattern that only these labels match, or labels: [...]"
            self.problems.add(path, f"{scanner} reads other labels too, which would be taken for this", hint)
        self.apart(pattern, [scanner], (*path, "pattern"))
        rules = self.rules(settings.labels, (*path, "labels"), *kinds)
        found = kinds if pattern is None else [kind for kind in kinds if kind in pattern.groupindex]
        return tuple(Reads(scanner, pattern, rules, kind) for kind in (found if pattern or rules else found[:1]))

    def _shared(self, at: Path) -> set[str]:
        """Scanners that something else of this station uses too."""
        settings = self.settings
        sections: list[tuple[Path, str | dict[int, str] | None]] = [(("identity",), settings.identity.scan)]
        sections += [(("context", name), context.scan) for name, context in settings.context.items()]
        sections += [(("materials", name), material.scan) for name, material in settings.materials.items()]
        sections += [(("components", name), component.scan) for name, component in settings.components.items()]
        sections += [(("remove",), settings.remove.scan)] if settings.remove is not None else []
        found: set[str] = set()
        for where, scan in sections:
            if where != at and scan:
                found |= set(scan.values()) if isinstance(scan, dict) else {scan}
        return found

    def _one_meaning(self) -> None:
        """A label that two sections mean at one scanner is taken by one of them, and the other never sees it.

        Components may share a scanner and a label: the part number tells them apart.
        """
        settings, before = self.settings, list[tuple[Path, set[str], list[Rule]]]()
        sections: list[tuple[Path, IdentitySettings | RemoveSettings | MaterialSettings | ComponentSettings]]
        sections = [(("identity",), settings.identity)] if settings.identity.of == "serial" else []
        sections += [(("remove",), settings.remove)] if settings.remove is not None else []
        sections += [(("materials", name), one) for name, one in settings.materials.items()]
        sections += [(("components", name), one) for name, one in settings.components.items()]
        for path, one in sections:
            scanners = set(one.scan.values() if isinstance(one.scan, dict) else [one.scan] if one.scan else [])
            meant = meant_by(one.labels, one.pattern, self.labels)
            for earlier, theirs, rules in before:
                both = path[0] == "components" == earlier[0]
                example = None if both or scanners.isdisjoint(theirs) else read_alike(meant, rules)
                if example is not None:
                    line = self.problems.root.find((*self.path, *earlier)).line
                    what = f"{example} is also a label of {'.'.join(map(str, earlier))} (line {line}) at this scanner"
                    self.problems.add((*self.path, *path), what, "name another scanner, or labels that only these are")
            before.append((path, scanners, meant))

    def _material(self, name: str, settings: MaterialSettings, must: bool) -> Material:
        at: Path = ("materials", name)
        done = self.refs.tag(
            settings.splice_done or "", (*self.path, *at, "splice_done"), polled=True, types=("bool", *integer_names)
        )
        return Material(
            name, self._reads(settings, at, self.settings.positions[0], ("lot", "package")), settings.required or must,
            frozenset(settings.part_number), settings.quantity_per_unit, settings.splice, done, settings.splice_units,
        )  # fmt: skip

    def _component(self, name: str, settings: ComponentSettings, must: bool) -> Component:
        reads: dict[int, Reads] = {}
        for number in self.settings.positions:
            found = self._reads(settings, ("components", name), number, ("serial",))
            if found:
                reads[number] = found[0]
        return Component(name, reads, settings.required or must, frozenset(settings.part_number), settings.count)

    # --- by name -------------------------------------------------------------------------------------------------

    def _known(self, section: str, key: str, names: Iterable[str], known: Iterable[str], *at: str) -> frozenset[str]:
        """The names, each of which the station must have."""
        valid, wanted = set(known), list(names)
        for index, name in enumerate(wanted):
            if name not in valid:
                hint = nearest(name, valid) or f"describe it in the station's section {key}:"
                path = (*self.path, *at, section, key, index)
                self.problems.add(path, f"the station has no {key.rstrip('s')} {name!r}", hint)
        return frozenset(wanted)

    def _variant(self, number: str, settings: PartSettings) -> Variant:
        at, own = ("parts", number), self.settings
        for key, names, known in (
            ("limits", settings.limits, own.collect),
            ("materials", settings.materials, own.materials),
            ("components", settings.components, own.components),
        ):
            self._keys((*at, key), names, known)
        require = settings.require
        return Variant(
            {name: (low, high) for name, (low, high) in settings.limits.items()},
            Required(
                self._known("require", "context", require.context, own.context, *at),
                self._known("require", "materials", require.materials, own.materials, *at),
                self._known("require", "components", require.components, own.components, *at),
            ),
            {name: frozenset(numbers) for name, numbers in settings.materials.items()},
            {name: frozenset(numbers) for name, numbers in settings.components.items()},
        )

    def _keys(self, at: Path, names: Iterable[str], known: Mapping[str, object]) -> None:
        for name in names:
            if name not in known:
                noun = "collect" if at[-1] == "limits" else str(at[-1])
                hint = nearest(name, known) or f"describe it in the station's section {noun}:"
                self.problems.add((*self.path, *at, name), f"the station's {noun} has no {name!r}", hint)
