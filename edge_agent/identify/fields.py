"""The fields of a structured label to identifiers, by the ``map:`` of its rule.

A field's key is a GS1 application identifier ("10") or a data identifier ("1T"); what the map does not name is left
out. The same kind twice with different values is believed of neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_agent.identify.dates import date_of
from edge_agent.identify.label import Label, Unread

MAX_VALUE = 128  # characters of one value
DATE_AIS = ("11", "12", "13", "15", "16", "17")


@dataclass(slots=True)
class Notes:
    """What was noticed while a label was read: ``flags`` were repaired, ``doubts`` are why it is not believed."""

    flags: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def label_of(
    rule: str,
    fields: Sequence[tuple[str, str]],
    kinds: Mapping[str, str],
    needs: Sequence[str],
    notes: Notes,
    year: int,
) -> Label | Unread:
    """The label that these fields make."""
    found: dict[str, str] = {}
    for key, value in fields:
        kind = kinds.get(key)
        if kind is None:
            continue
        if key in DATE_AIS or kind == "expiry":
            date = date_of(value, year)
            if date is None:
                notes.doubts.append("bad_date")
            value = date or value
        if len(value) > MAX_VALUE:
            return Unread(f"the value of {key} is longer than {MAX_VALUE} characters")
        if found.setdefault(kind, value) != value:
            notes.doubts.append("two_values")
    if not found:
        return Unread("it holds nothing that the map names")
    missing = [kind for kind in needs if kind not in found]
    if missing:
        return Unread(f"it holds no {missing[0]}")
    return Label(rule, found, tuple(dict.fromkeys(notes.flags + notes.doubts)), bool(notes.doubts))
