"""The section ``labels:``: which labels there are, and the rules that read them.

A station's ``labels: [unit, box]`` beside its ``scan:`` names the rules whose labels it means there.

Two rules that read one label and say different things of it are refused: which is right would depend on chance. This
is found by example. Each rule makes labels that it reads, and every other rule is shown them; the same with the
patterns of stations that share a scanner with a rule. So it sees what overlaps in the usual case (a pattern that takes
everything, two maps of one standard, a serial that is also a lot), with the two lines. It cannot see an overlap that
only rare labels show; such a label is read at run time by both, and is then doubtful and used by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from edge_agent.config.report import Path, Problems, nearest, validate
from edge_agent.config.tree import Node
from edge_agent.driver import Settings
from edge_agent.identify.commands import DEFECT_CODE, CommandRule
from edge_agent.identify.examples import repeats_in_repeats
from edge_agent.identify.label import Label, Labels, Printed, Rule
from edge_agent.identify.plain import PatternRule
from edge_agent.identify.transponder import Em4100Rule, Iso15693Rule
from edge_agent.model import Instant, Scan

MAX_RULES = 64
APART = "make the patterns tell them apart, or use needs: or prefix:"


def _kind(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]{0,31}", name):
        raise ValueError(f"{name!r} cannot be an identifier's name; write e.g. serial, lot, part_number")
    return name


Kind = Annotated[str, AfterValidator(_kind), Field(json_schema_extra={"pattern": "^[a-z][a-z0-9_]{0,31}$"})]


class PatternSettings(Settings):
    """Plain text, read by a regular expression with named groups."""

    format: Literal["pattern"]
    pattern: str = Field(description=r"regular expression that the whole label matches, e.g. '^(?P<serial>SN\d{8})$'")
    check: dict[Kind, Literal["mod10", "luhn", "mod43"]] = Field(
        default={}, description="named group -> how its last character is made: a wrong one is not believed"
    )

    def compile(self, name: str) -> Rule:
        """The rule. Raises ValueError."""
        try:
            pattern = re.compile(self.pattern)
        except re.error as error:
            raise ValueError(rf"is no regular expression: {error}; e.g. '^(?P<serial>SN\d{{8}})$'") from error
        if not pattern.groupindex:
            raise ValueError(r"the pattern names no group; mark what is read, e.g. '^(?P<serial>SN\d{8})$'")
        for kind in pattern.groupindex:
            _kind(kind)
        for group in self.check:
            if group not in pattern.groupindex:
                raise ValueError(f"the pattern has no group {group!r} to check; write one of its groups")
        if repeats_in_repeats(pattern):
            raise ValueError("a repeat stands in a repeat, which a label can keep busy for ever; write it without")
        return PatternRule(name, pattern, dict(self.check))


class _MappedSettings(Settings):
    """A structured label, whose fields the map names."""

    needs: list[Kind] = Field(default=[], description="what such a label has at least, e.g. [serial, lot]")

    def _complete(self, kinds: Mapping[str, str]) -> None:
        for kind in self.needs:
            if kind not in kinds.values():
                raise ValueError(f"needs {kind}, which the map does not give; choose from {', '.join(kinds.values())}")


class Gs1Settings(_MappedSettings):
    """GS1 element strings, EAN and ITF-14 numbers, Digital Links."""

    format: Literal["gs1"]
    map: dict[str, Kind] | None = Field(
        default=None, min_length=1, description='application identifier -> name, e.g. {"10": lot, "21": serial}'
    )

    def compile(self, name: str) -> Rule:
        """The rule. Raises ValueError."""
        from edge_agent.identify import gs1  # biip costs a tenth of a second, and only those who have such labels pay

        for ai in self.map or {}:
            if not gs1.known_ai(ai):
                raise ValueError(f"GS1 has no application identifier {ai!r}; write e.g. 01, 10, 17 or 21")
        kinds = self.map or gs1.DEFAULT_MAP
        self._complete(kinds)
        return gs1.Gs1Rule(name, dict(kinds), tuple(self.needs))


class Iso15434Settings(_MappedSettings):
    """ISO/IEC 15434 envelopes with data identifiers, as car and electronics makers use them."""

    format: Literal["iso15434"]
    map: dict[str, Kind] | None = Field(
        default=None, min_length=1, description="data identifier -> name, e.g. {1T: lot, S: serial, Q: quantity}"
    )

    def compile(self, name: str) -> Rule:
        """The rule. Raises ValueError."""
        from edge_agent.identify import iso15434  # it reads GS1 elements too

        kinds = self.map or iso15434.DEFAULT_MAP
        for key in kinds:
            if not iso15434.DATA_IDENTIFIER.fullmatch(key) and not re.fullmatch("[0-9]{2,4}", key):
                raise ValueError(f"{key!r} is no data identifier; write e.g. S, 1T, 3S (or 10, 21 for format 05)")
        self._complete(kinds)
        return iso15434.Iso15434Rule(name, dict(kinds), tuple(self.needs))


class Em4100Settings(Settings):
    """EM4100 transponders (125 kHz)."""

    format: Literal["em4100"]
    is_: Kind = Field(default="carrier", alias="is", description="what the transponder identifies: carrier, operator")

    def compile(self, name: str) -> Rule:
        """The rule."""
        return Em4100Rule(name, self.is_)


class Iso15693Settings(Settings):
    """ISO 15693 transponders (13.56 MHz)."""

    format: Literal["iso15693"]
    is_: Kind = Field(default="carrier", alias="is", description="what the transponder identifies: carrier, operator")
    order: Literal["msb", "lsb"] = Field(default="msb", description="which byte the reader sends first: E0 is the msb")

    def compile(self, name: str) -> Rule:
        """The rule."""
        return Iso15693Rule(name, self.is_, self.order == "lsb")


class CommandSettings(Settings):
    """The printed sheet of commands: PASS, FAIL, END, CANCEL, REWORK and DEFECT:<code>."""

    format: Literal["command"]
    prefix: str = Field(default="", max_length=8, description="what every command begins with, e.g. %")
    defects: dict[str, str] = Field(
        default={}, max_length=500, description="code -> what it means; without any, every code is taken"
    )

    @model_validator(mode="after")
    def _printable(self) -> CommandSettings:
        if not self.prefix.isascii() or not (self.prefix.isprintable() or not self.prefix):
            raise ValueError("the prefix has characters that not every reader sends; write e.g. %")
        for code in self.defects:
            if not DEFECT_CODE.fullmatch(code):
                raise ValueError(f"{code!r} is no defect code; use letters, digits, . _ and -, at most 32")
        return self

    def compile(self, name: str) -> Rule:
        """The rule."""
        return CommandRule(name, self.prefix, dict(self.defects))


LabelSettings = PatternSettings | Gs1Settings | Iso15434Settings | Em4100Settings | Iso15693Settings | CommandSettings
FORMATS: Mapping[str, type[LabelSettings]] = {
    "pattern": PatternSettings,
    "gs1": Gs1Settings,
    "iso15434": Iso15434Settings,
    "em4100": Em4100Settings,
    "iso15693": Iso15693Settings,
    "command": CommandSettings,
}


def build_labels(entries: Mapping[str, Node], problems: Problems) -> Labels:
    """The rules of the section, compiled. Only to be used if ``problems`` is empty afterwards."""
    rules: list[Rule] = []
    for name, node in entries.items():
        path: Path = ("labels", name)
        data = node.value
        written = data.get("format") if isinstance(data, dict) else None
        if isinstance(data, dict) and (not isinstance(written, str) or written not in FORMATS):
            what = "is missing" if written is None else f"no format is named {written!r}"
            problems.add((*path, "format"), what, nearest(str(written), FORMATS))
            continue
        settings, cut = validate(FORMATS[str(written or "pattern")], path, data, problems)
        if settings is None or cut:
            continue
        try:
            rules.append(settings.compile(name))
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            problems.add((*path, "pattern" if written == "pattern" else "map"), what, hint)
    if len(rules) > MAX_RULES:
        problems.add(("labels",), f"has more than {MAX_RULES} rules", "one rule can read many labels of a kind")
        return Labels(())
    _no_overlap(rules, problems)
    return Labels(tuple(rules))


# --- overlaps ------------------------------------------------------------------------------------------------


def example_of(raw: bytes) -> Printed:
    """An example label as if it had been scanned."""
    printed = Printed.of(Scan("", Instant(0, 0), raw))
    assert isinstance(printed, Printed), raw
    return printed


def _readings(rule: Rule) -> Iterator[tuple[Printed, Label]]:
    """What the rule says of its own examples."""
    for raw in rule.examples():
        if not raw:
            continue
        printed = example_of(raw)
        label = rule.read(printed)
        if isinstance(label, Label):
            yield printed, label


def _no_overlap(rules: Sequence[Rule], problems: Problems) -> None:
    """One label, two rules, two meanings: refused, at the later rule."""
    own = [list(_readings(rule)) for rule in rules]
    for index, later in enumerate(rules):
        for place, earlier in enumerate(rules[:index]):
            shown = [(printed, label, earlier.read(printed)) for printed, label in own[index]]
            shown += [(printed, label, later.read(printed)) for printed, label in own[place]]
            clash = next((one for one in shown if isinstance(one[2], Label) and not one[1].agrees(one[2])), None)
            if clash is not None:
                line = problems.root.find(("labels", earlier.name)).line
                what = f"{_spelled(clash[0])} is also a label of {earlier.name} (line {line}), with another meaning"
                problems.add(("labels", later.name), what, APART)


def _spelled(printed: Printed) -> str:
    return repr(printed.text[:40])


def no_overlap_with(rules: Collection[Rule], pattern: re.Pattern[str], path: Path, problems: Problems) -> None:
    """A pattern of a station, and the rules whose labels are read by the same scanner."""
    own = PatternRule("", pattern)
    for rule in rules:
        shown = [(printed, label, own.read(printed)) for printed, label in _readings(rule)]
        shown += [(printed, label, rule.read(printed)) for printed, label in _readings(own)]
        clash = next((one for one in shown if isinstance(one[2], Label) and not one[1].agrees(one[2])), None)
        if clash is not None:
            line = problems.root.find(("labels", rule.name)).line
            what = f"{_spelled(clash[0])} is also a label of {rule.name} (line {line}), with another meaning"
            problems.add(path, what, APART)


def meant_by(names: Iterable[str] | None, pattern: str | None, labels: Labels) -> list[Rule]:
    """The rules by which a section knows its labels; what is wrong with it is told elsewhere."""
    if pattern is not None:
        try:
            return [PatternRule("", re.compile(pattern))]
        except re.error:
            return []
    return [labels.rules[name] for name in names or () if name in labels.rules]


def read_alike(ours: Iterable[Rule], theirs: Sequence[Rule]) -> str | None:
    """A label that both read, if their examples show one."""
    for mine in ours:
        for other in theirs:
            shown = [(printed, other) for printed, _ in _readings(mine)]
            shown += [(printed, mine) for printed, _ in _readings(other)]
            for printed, rule in shown:
                if isinstance(rule.read(printed), Label):
                    return _spelled(printed)
    return None


def named_with(scanner: str, node: Node) -> Iterator[str]:
    """The rules that a station names, anywhere, beside this scanner."""
    if isinstance(node.value, dict):
        scan: Any = node.value.get("scan")
        names = node.value.get("labels")
        here = list(scan.values()) if isinstance(scan, dict) else [scan]
        if scanner in here and isinstance(names, list):
            yield from (name for name in names if isinstance(name, str))
    for child in node.children.values():
        yield from named_with(scanner, child)
