"""Labels: what the rules of the config's ``labels:`` section make of one scan.

A rule knows one kind of label (a pattern, GS1, ISO/IEC 15434, a transponder, a command sheet). Every rule is asked, in
config order; all that read the label answer. What a rule had to repair is a flag; what it read and does not believe is
``doubtful``, as is a label of which two rules say different things: who binds uses no doubtful label. A rule never
alters the scan: its raw bytes are in the record whatever is read.

Total and bounded: any bytes give an answer and none raises; nothing longer than ``MAX_BYTES`` is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from edge_agent.identify.patterns import text_of
from edge_agent.model import Scan, ScanStatus

MAX_BYTES = 4096  # the largest symbols in use (PDF417, Data Matrix 144x144, QR 40) hold less, but for QR digits
MIN_YEAR = 2025
RULES_DISAGREE = "rules_disagree"
_YEAR_NS = 31_556_952 * 10**9  # a mean year: a day's error does not matter here
_AIM = re.compile(rb"\][A-Za-z][0-9A-Za-z]")


@dataclass(frozen=True, slots=True)
class Label:
    """What one rule read. ``identifiers``: kind -> value; ``flags``: what was repaired, or why it is doubtful."""

    rule: str
    identifiers: Mapping[str, str]
    flags: tuple[str, ...] = ()
    doubtful: bool = False

    def agrees(self, other: Label) -> bool:
        """Whether one of the two says all that the other says: then they read the same label, not two kinds."""
        mine, theirs = self.identifiers.items(), other.identifiers.items()
        return mine <= theirs or theirs <= mine


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a rule does not read a label, in a few words for a technician (English; the CLI translates)."""

    why: str


@dataclass(frozen=True, slots=True)
class Printed:
    """What stands on a label, taken apart as far as that needs no rule.

    ``text`` is everything the reader sent, "" if it is no text. ``content`` is the same without an AIM identifier at
    its head, for readers that send one and whose config does not say so; ``aim`` is that identifier, or the scan's.
    ``year`` is that of the scan, for dates that write two digits of theirs; a PC whose clock is lost cannot make it
    less than ``MIN_YEAR``.
    """

    raw: bytes
    text: str
    aim: str
    content: str
    year: int

    @classmethod
    def of(cls, scan: Scan) -> Printed | Unread:
        """The label that was scanned."""
        if scan.status is not ScanStatus.READ:
            return Unread("the reader saw no label")
        if not scan.raw:
            return Unread("it is empty")
        if len(scan.raw) > MAX_BYTES:
            return Unread(f"it is longer than {MAX_BYTES} bytes")
        text = text_of(scan.raw)[0] or ""
        year = max(1970 + scan.at.at_ns // _YEAR_NS, MIN_YEAR)
        if scan.symbology or not _AIM.match(scan.raw):
            return cls(scan.raw, text, scan.symbology, text, year)
        return cls(scan.raw, text, text[:3], text[3:], year)


class Rule(Protocol):
    """One entry of ``labels:``, compiled."""

    @property
    def name(self) -> str:
        """As the config calls it."""
        ...

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        ...

    def read(self, printed: Printed) -> Label | Unread:
        """The label, or why this is none of this rule's."""
        ...

    def examples(self) -> tuple[bytes, ...]:
        """Some labels that this rule reads, to be held against the other rules."""
        ...


class Labels:
    """An immutable set of compiled rules."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self.names = tuple(rule.name for rule in rules)

    def __len__(self) -> int:
        return len(self.rules)

    def read(self, scan: Scan) -> tuple[Label, ...]:
        """What the rules that know the label say of it, in config order; all doubtful if they disagree."""
        if not self.rules:
            return ()
        printed = Printed.of(scan)
        if isinstance(printed, Unread):
            return ()
        answers = [rule.read(printed) for rule in self.rules.values()]
        found = [answer for answer in answers if isinstance(answer, Label)]
        if all(one.agrees(other) for index, one in enumerate(found) for other in found[:index]):
            return tuple(found)
        return tuple(replace(one, flags=(*one.flags, RULES_DISAGREE), doubtful=True) for one in found)

    def explain(self, scan: Scan) -> dict[str, Label | Unread]:
        """Every rule's answer, also of those that do not know the label, by name."""
        printed = Printed.of(scan)
        if isinstance(printed, Unread):
            return dict.fromkeys(self.names, printed)
        answers: dict[str, Label | Unread] = {rule.name: rule.read(printed) for rule in self.rules.values()}
        return answers | {one.rule: one for one in self.read(scan)}
