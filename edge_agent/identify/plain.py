"""Plain labels: a regular expression that the whole text matches, whose named groups are the identifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.identify.checks import CHECKS
from edge_agent.identify.examples import examples_of
from edge_agent.identify.label import Label, Printed, Unread
from edge_agent.identify.patterns import readable


@dataclass(frozen=True, slots=True)
class PatternRule:
    """``format: pattern``. ``check``: named group -> how its check character is made; a wrong one is doubtful."""

    name: str
    pattern: re.Pattern[str]
    check: Mapping[str, str] = field(default_factory=dict)

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        return frozenset(self.pattern.groupindex)

    def read(self, printed: Printed) -> Label | Unread:
        """The named groups that took part."""
        if not readable(printed.text):
            return Unread("it is no text, holds control characters, or is too long for a plain label")
        match = self.pattern.fullmatch(printed.text)
        if match is None:
            hint = printed.text != printed.content and self.pattern.fullmatch(printed.content)
            return Unread(
                f"{printed.aim} stands before it: write aim: true at the scanner"
                if hint
                else "the pattern does not match the whole label"
            )
        found = {kind: value for kind, value in match.groupdict().items() if value}
        if not found:
            return Unread("no named group of the pattern took part")
        if all(CHECKS[method](found.get(group, "")) for group, method in self.check.items()):
            return Label(self.name, found)
        return Label(self.name, found, ("check_digit",), True)

    def examples(self) -> tuple[bytes, ...]:
        """Some texts that the pattern matches."""
        return tuple(text.encode("utf-8", "replace") for text in examples_of(self.pattern))
