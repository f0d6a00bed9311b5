"""What an instrument said, whatever its protocol, and what that gives each tag. Pure: no I/O, no clock.

A number is kept as the digits that were sent: ``0100.00`` becomes the float 100.0, which is exactly what the digits say
as far as a double can, and a tag of ``type: string`` gets the digits. What must not look like a good value does not:
overload, an unstable weight, a unit that is not the tag's leave None and say why in the status.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from edge_agent.model import Value

TypeName = Literal["float64", "int64", "bool", "string"]
LARGEST = 2**53  # beyond it JSON readers do not agree on integers: they travel as decimal strings

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_TRUE, _FALSE = (
    frozenset({"1", "true", "ok", "pass", "passed"}),
    frozenset({"0", "false", "nok", "ng", "fail", "failed"}),
)
_MICRO = str.maketrans({"\u00b5": "u", "\u03bc": "u"})  # two signs for micro, and the u that is sent for want of them


@dataclass(frozen=True, slots=True)
class Message:
    """One frame, understood. ``measured`` are digits and are judged; ``told`` (mode, channel, ...) is what it is."""

    text: str
    measured: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str | bool] = field(default_factory=dict)
    unit: str = ""  # "" says nothing of it
    stable: bool | None = None
    problem: str = ""  # why nothing was measured, in words
    answers: str = ""  # what else it is than a reading: the answer to a command, or news
    good: bool = True  # an answer: the command was carried out
    address: int | None = None  # of the gauge that speaks
    decimal: str = "."  # the decimal sign of its numbers, and nothing else stands between their digits


class Want(NamedTuple):
    """What one tag takes from a message."""

    field: str
    type: TypeName
    unit: str


def parsed(text: str, type_name: TypeName, decimal: str = ".") -> Value:
    """Text as a value of this type. Raises ValueError."""
    if type_name == "string":
        return text
    if type_name == "bool":
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(f"{text!r:.40} is neither true nor false")
    told, text = text, re.sub(r"^([+-]) +", r"\1", text)  # "+   12.3": the sign stands at the left of its column
    if decimal == ",":  # a point groups thousands then: 1.234 would be a good number, and a wrong one
        text = "" if "." in text else text.replace(",", ".")
    if not _NUMBER.fullmatch(text) or len(text) > 40:
        raise ValueError(f"{told!r:.40} is no number")
    if type_name == "float64":
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text!r:.40} is too large")
        return number
    if not re.fullmatch(r"[+-]?\d+(?:\.0*)?", text):
        raise ValueError(f"{text!r:.40} is no whole number")
    whole = int(text.partition(".")[0])
    if not -(2**63) <= whole < 2**63:
        raise ValueError(f"{text!r:.40} is beyond int64")
    return whole if abs(whole) <= LARGEST else str(whole)


def values_of(
    message: Message, wants: Sequence[Want], *, flag_unstable: bool
) -> tuple[tuple[Value, ...], dict[int, str]]:
    """The value of each tag, and by its index why one has none (or one that is doubted)."""
    values: list[Value] = []
    status: dict[int, str] = {}
    for index, want in enumerate(wants):
        value, why = _value(message, want, flag_unstable)
        values.append(value)
        if why:
            status[index] = why
    return tuple(values), status


def _value(message: Message, want: Want, flag_unstable: bool) -> tuple[Value, str]:
    told = _told(message, want.field)
    if told is not None:
        return told, ""
    digits = message.measured.get(want.field)
    if message.problem or digits is None:
        return None, message.problem or "not in this message"
    if message.unit and want.unit and message.unit.translate(_MICRO) != want.unit.translate(_MICRO):
        return None, f"unit {message.unit}, not {want.unit}"
    if message.stable is False and not flag_unstable:
        return None, "unstable"
    try:
        value = parsed(digits, want.type, message.decimal)
    except ValueError as error:
        return None, str(error)
    return value, "unstable" if message.stable is False else ""


def _told(message: Message, name: str) -> str | bool | None:
    """What is no measured value: it stands whatever was measured."""
    if name in message.measured:
        return None
    if name == "text":
        return message.text
    if name == "stable":
        return message.stable
    if name == "unit":
        return message.unit or None
    return message.told.get(name)
