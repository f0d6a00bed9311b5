"""ISO/IEC 15434 envelopes: ``[)>`` RS, format, GS, fields parted by GS, RS, EOT. Format 06 holds data identifiers
(ANSI MH10.8.2), format 05 GS1 application identifiers. What a data identifier means differs by customer: the map says.

Labels in the field are often not as the standard wants them. Repaired and flagged: characters before ``[)>``
(``stray_head``), a lost RS (``lost_rs``), no RS EOT at the end (``missing_trailer``), the letters EOT in its place
(``letters_eot``), identifiers without a value (``empty_value``), GS too many (``redundant_gs``).

Doubtful: the letters EOT that no RS parts from a value (they may belong to it), a field that begins with no
identifier, control characters in a value, one kind with two values. Without a GS nothing can be
told apart: it is not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.identify.fields import Notes, label_of
from edge_agent.identify.gs1 import elements
from edge_agent.identify.label import Label, Printed, Unread

GS, RS, EOT = "\x1d", "\x1e", "\x04"
HEAD = "[)>"
MAX_STRAY = 4  # characters before the head
MAX_FIELDS = 256
DEFAULT_MAP: Mapping[str, str] = {
    "S": "serial", "T": "lot", "1T": "lot", "P": "part_number", "1P": "supplier_part", "Q": "quantity",
    "V": "supplier", "14D": "expiry", "K": "order", "3S": "package",
}  # fmt: skip
DATA_IDENTIFIER = re.compile(r"[0-9]{0,3}[A-Z]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Iso15434Rule:
    """``format: iso15434``. ``kinds``: data identifier or application identifier -> kind."""

    name: str
    kinds: Mapping[str, str]
    needs: tuple[str, ...] = ()

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        return frozenset(self.kinds.values())

    def read(self, printed: Printed) -> Label | Unread:
        """The label; whichever symbol carries it."""
        notes = Notes()
        body = _body(printed.content, notes)
        if isinstance(body, Unread):
            return body
        fields: Fields = []
        for part in filter(None, body.split(RS)):
            found = _format(part, printed.year, notes)
            if isinstance(found, Unread):
                return found
            fields += found
        if len(fields) > MAX_FIELDS:
            return Unread(f"it has more than {MAX_FIELDS} fields")
        return label_of(self.name, fields, self.kinds, self.needs, notes, printed.year)

    def examples(self) -> tuple[bytes, ...]:
        """One envelope with every identifier of the map."""
        shown = [f"{key}301231" if kind == "expiry" else f"{key}1" for key, kind in self.kinds.items()]
        data = [one for one in shown if DATA_IDENTIFIER.match(one)]
        return (f"{HEAD}{RS}06{GS}{GS.join(data)}{RS}{EOT}".encode(),) if data else ()


def _body(text: str, notes: Notes) -> str | Unread:
    """What stands between head and trailer, both as they are found."""
    at = text.find(HEAD)
    if not 0 <= at <= MAX_STRAY:
        return Unread("it does not begin with [)>")
    if at:
        notes.flags.append("stray_head")
    rest = text[at + len(HEAD) :]
    if rest.startswith(RS):
        rest = rest[1:]
    else:
        notes.flags.append("lost_rs")
    return _without_trailer(rest, notes)


def _without_trailer(rest: str, notes: Notes) -> str:
    """``rest`` without RS EOT, or what of them is there."""
    if rest.endswith(RS + EOT):
        return rest[:-2]
    if rest.endswith(RS + "EOT"):
        notes.flags.append("letters_eot")
        return rest[:-4]
    if rest.endswith("EOT"):
        notes.flags.append("lost_rs")
        notes.doubts.append("letters_eot")
        return rest[:-3]
    if rest.endswith(EOT):
        notes.flags.append("lost_rs")
        return rest[:-1]
    notes.flags.append("missing_trailer")
    return rest.removesuffix(RS)


def _format(part: str, year: int, notes: Notes) -> Fields | Unread:
    """One format of an envelope, from its number on."""
    number, gs, rest = part.partition(GS)
    if number not in ("05", "06") or not gs:
        return Unread(f"it has no format 05 or 06 but {number[:8]!r}")
    if number == "05":
        return elements(rest, year, notes)
    fields: Fields = []
    for written in rest.split(GS):
        if not written:
            notes.flags.append("redundant_gs")
            continue
        match = DATA_IDENTIFIER.match(written)
        if match is None or _CONTROL.search(written):
            notes.doubts.append("control_character" if match else "no_identifier")
        elif match.end() == len(written):
            notes.flags.append("empty_value")
        else:
            fields.append((match[0], written[match.end() :]))
    return fields
