"""A scan as rules look at it, and which labels of which scanner a rule means.

A section of the config means labels either by a pattern of its own or by the names of rules of the section ``labels:``.
What the label rules find doubtful is never meant by anybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_agent.identify.label import Label
from edge_agent.identify.patterns import identify


@dataclass(frozen=True, slots=True)
class Seen:
    """One scan, read: its text (None for noise), and what each label rule that matches says."""

    text: str | None
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Reads:
    """Labels that are meant: on ``scanner``, those with an identifier of ``kind``."""

    scanner: str
    pattern: re.Pattern[str] | None
    rules: frozenset[str]  # names of label rules; empty: by ``pattern``, and without one the whole text
    kind: str = "serial"

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        """The identifiers on the label, kind -> value; None if it is not meant."""
        if device != self.scanner:
            return None
        if not self.rules:
            return identify(seen.text, self.pattern, self.kind)
        for label in seen.labels:
            if label.rule in self.rules and not label.doubtful and self.kind in label.identifiers:
                return dict(label.identifiers)
        return None
