"""GS1 labels: element strings, EAN/ITF-14 numbers and Digital Link URIs. biip knows the application identifiers.

Element strings are taken apart here and not by biip's parser, which lets a value of variable length end where its
longest form ends, though no GS stands there. Such a label, or a character that GS1 does not know, is not read at all.

The reader that drops GS is the danger: ``10 0329 GS 15 210526`` becomes the lot ``032915210526``, a wrong lot that
looks like a right one. So a value of variable length that ends in an application identifier with a valid date, or in a
number with a right check digit, is doubtful (``lost_gs``), whatever may follow those. What this cannot see:
``10 ABC GS 21 X`` without its GS is the lot ``ABC21X``, and nothing shows it; ``needs: [lot, serial]`` helps there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from biip import ParseConfig, ParseError
from biip.gs1_application_identifiers import GS1ApplicationIdentifier
from biip.gs1_digital_link_uris import GS1DigitalLinkURI

from edge_agent.identify.aim import carries
from edge_agent.identify.checks import mod10
from edge_agent.identify.dates import date_of
from edge_agent.identify.fields import DATE_AIS, Notes, label_of
from edge_agent.identify.label import Label, Printed, Unread

GS = "\x1d"
DEFAULT_MAP: Mapping[str, str] = {
    "00": "package", "01": "part_number", "10": "lot", "17": "expiry", "21": "serial", "30": "quantity",
    "37": "quantity",
}  # fmt: skip
MAX_CONTENT = 1024  # characters; a full GS1 QR of the standard's own limit holds fewer
_CHECKED = {"00": 18, "01": 14, "02": 14, "03": 14, "253": 13, "255": 13, "402": 17, "8003": 14, "8006": 14, "8017": 18,
            "8018": 18} | {str(ai): 13 for ai in range(410, 418)}  # fmt: skip
_NO_DATES = ParseConfig(gs1_element_strings_verify_date=False)  # biip would look at the clock for the century
_TAIL = re.compile(r"(?:0[0-3]|1[1-7])[0-9]{6}")

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Gs1Rule:
    """``format: gs1``. ``kinds``: application identifier -> kind; ``needs``: what such a label has at least."""

    name: str
    kinds: Mapping[str, str]
    needs: tuple[str, ...] = ()

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        return frozenset(self.kinds.values())

    def read(self, printed: Printed) -> Label | Unread:
        """The label, by what its symbol can carry."""
        if not printed.content.isascii() or len(printed.content) > MAX_CONTENT:
            return Unread("it is empty, too long for GS1, or holds characters that GS1 does not know")
        notes = Notes()
        fields = fields_of(printed, notes)
        if isinstance(fields, Unread):
            return fields
        return label_of(self.name, fields, self.kinds, self.needs, notes, printed.year)

    def examples(self) -> tuple[bytes, ...]:
        """Each identifier alone, and all of them in one label, where the standard lets an example be made."""
        alone = [example for ai in self.kinds if (example := _example(ai))]
        whole = GS.join(alone)
        return tuple(text.encode() for text in (whole, *alone))


def fields_of(printed: Printed, notes: Notes) -> Fields | Unread:
    """The application identifiers and their values, in the label's order."""
    content, holds = printed.content, carries(printed.aim)
    if not content:
        return Unread("nothing stands behind the AIM identifier" if printed.aim else "it is empty")
    link = content[:8].lower().startswith(("http://", "https://"))
    if holds == "nothing":
        return Unread(f"a symbol marked {printed.aim} carries no GS1 data")
    if holds == "gtin":
        return _gtin(content, notes)
    if link and holds != "elements":
        return _link(content, notes)
    if holds == "link":
        return Unread(f"a symbol marked {printed.aim} carries no GS1 element strings, and this is no Digital Link")
    return elements(content, printed.year, notes)


def elements(text: str, year: int, notes: Notes) -> Fields | Unread:
    """Element strings one after the other. GS beyond what is needed is flagged."""
    fields: Fields = []
    rest = text.lstrip(GS)
    redundant = rest != text
    while rest:
        try:
            ai = GS1ApplicationIdentifier.extract(rest)
        except ParseError:
            return Unread(f"no GS1 application identifier stands at {rest[:12]!r}")
        segment = rest.partition(GS)[0]
        if ai.separator_required:
            match = re.fullmatch(ai.pattern, segment)
        else:
            match = re.match(ai.pattern.removesuffix("$"), segment)
        if match is None:
            return Unread(f"the value of ({ai.ai}) is too long, too short, or holds a character it must not")
        value = match[0][len(ai.ai) :]
        fields.append((ai.ai, value))
        _judge(ai.ai, value, ai.separator_required, year, notes)
        after = rest[len(match[0]) :]
        rest = after.lstrip(GS)
        needed = 1 if ai.separator_required and rest else 0
        redundant |= len(after) - len(rest) > needed
    if redundant:
        notes.flags.append("redundant_gs")
    return fields or Unread("it holds separators only")


def _judge(ai: str, value: str, variable: bool, year: int, notes: Notes) -> None:
    """Doubts about one value: its check digit, its date, a tail that was another element."""
    if ai in _CHECKED and not mod10(value[: _CHECKED[ai]]):
        notes.doubts.append("check_digit")
    if ai in DATE_AIS and date_of(value, year) is None:
        notes.doubts.append("bad_date")
    if variable and any(_is_tail(value[match.start() :], year) for match in _starts(value)):
        notes.doubts.append("lost_gs")


def _starts(value: str) -> list[re.Match[str]]:
    """Where another element may begin in a value; not at its first character, or nothing were left of it."""
    found = (_TAIL.match(value, index) for index in range(1, len(value)))
    return [match for match in found if match]


def _is_tail(text: str, year: int) -> bool:
    """Whether a whole text can be element strings, the first of them one that chance hardly makes."""
    ai = text[:2]
    if ai in DATE_AIS:
        value = text[2:8]
        believable = date_of(value, year) is not None
    else:
        value = text[2 : 2 + _CHECKED.get(ai, 99)]
        believable = len(value) == _CHECKED.get(ai) and mod10(value)
    rest = text[2 + len(value) :]
    return believable and (not rest or not isinstance(_plain(rest), Unread))


def _plain(text: str) -> Fields | Unread:
    """Element strings without looking for lost separators in them again: that keeps the search short."""
    fields: Fields = []
    while text:
        try:
            ai = GS1ApplicationIdentifier.extract(text)
        except ParseError:
            return Unread("no element strings")
        match = re.match(ai.pattern.removesuffix("$"), text)
        if match is None:
            return Unread("no element strings")
        fields.append((ai.ai, match[0][len(ai.ai) :]))
        text = text[len(match[0]) :]
    return fields


def _gtin(content: str, notes: Notes) -> Fields | Unread:
    """The number of an EAN, UPC or ITF-14 symbol, as 14 digits."""
    if len(content) not in (8, 12, 13, 14) or not content.isdigit():
        return Unread("it is no EAN, UPC or ITF-14 number")
    if not mod10(content):
        notes.doubts.append("check_digit")
    return [("01", content.zfill(14))]


def _link(content: str, notes: Notes) -> Fields | Unread:
    """A GS1 Digital Link URI; nothing is fetched."""
    try:
        found = GS1DigitalLinkURI.parse(content, config=_NO_DATES).element_strings
    except (ParseError, ValueError, ArithmeticError):
        return Unread("it is a web address, and no GS1 Digital Link")
    fields = [(one.ai.ai, one.value) for one in found]
    for ai, value in fields:
        if ai in _CHECKED and not mod10(value[: _CHECKED[ai]]):
            notes.doubts.append("check_digit")
    if re.search(r"[?&](\d{2,4})=.*[?&;]\1=", content):
        notes.doubts.append("two_values")
    return fields


# --- examples ------------------------------------------------------------------------------------------------


def known_ai(ai: str) -> bool:
    """Whether there is such an application identifier."""
    try:
        return ai.isascii() and ai.isdigit() and GS1ApplicationIdentifier.extract(ai).ai == ai
    except ParseError:
        return False


def _example(ai: str) -> str | None:
    """An element string of one identifier: a date, a number with its check digit, or the shortest simple value."""
    if not known_ai(ai):
        return None
    pattern = GS1ApplicationIdentifier.extract(ai).pattern
    if ai in DATE_AIS:
        return f"{ai}301231"
    for value in ("1", "A1", "12345", *("1" * size for size in range(2, 31))):
        size = _CHECKED.get(ai, 0)
        if size and len(value) >= size:
            body = value[: size - 1]
            value = next(body + digit + value[size:] for digit in "0123456789" if mod10(body + digit))
        if re.fullmatch(pattern, ai + value):
            return ai + value
    return None
