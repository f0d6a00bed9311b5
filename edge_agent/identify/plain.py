"""Plain labels: a regular expression that the whole text matches, whose named groups are the identifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_agent.identify.label import Label, Printed, Unread
from edge_agent.identify.patterns import readable


@dataclass(frozen=True, slots=True)
class PatternRule:
    """``format: pattern``."""

    name: str
    pattern: re.Pattern[str]

    def read(self, printed: Printed) -> Label | Unread:
        """The named groups that took part."""
        if not readable(printed.text):
            return Unread("it holds control characters, or is too long for a plain label")
        match = self.pattern.fullmatch(printed.text)
        if match is None:
            return Unread("the pattern does not match the whole label")
        found = {kind: value for kind, value in match.groupdict().items() if value}
        return Label(self.name, found) if found else Unread("no named group of the pattern took part")

    def examples(self) -> tuple[bytes, ...]:
        """None yet."""
        return ()
