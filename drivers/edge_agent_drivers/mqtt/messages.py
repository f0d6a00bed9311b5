"""A message's bytes to values and back to nothing else. Pure: no I/O, no clock.

A value of another type than the tag says is None, with what it was as its status; a number in quotes is a number, as
many devices write them so. NaN and infinity are no JSON and no number. Half a character (a lone surrogate, which JSON
can write and UTF-8 cannot) is no text, and an object with one, or with an integer beyond 64 bits, is none.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from edge_agent.model import Value

MAX_DEPTH = 64
_EXACT = 2**53
_MISSING = object()


class NotText(ValueError):
    """The message is no text."""


class Message(NamedTuple):
    """A message as it was written, and as JSON; what is no JSON is its own text."""

    text: str
    value: Any


def parse(payload: bytes) -> Message:
    """The message. Raises NotText."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotText("the message is not UTF-8") from error
    try:
        return Message(text, json.loads(text, parse_constant=_no_number))
    except (ValueError, RecursionError):
        return Message(text, text)


def _no_number(name: str) -> None:
    """NaN, Infinity: no JSON; a value of them is none."""
    return


def at_pointer(message: Any, path: str) -> Any:
    """What stands at a JSON Pointer (RFC 6901); _MISSING when nothing does."""
    for step in path.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(message, dict) and key in message:
            message = message[key]
        elif isinstance(message, list) and key.isascii() and key.isdigit() and int(key) < len(message):
            message = message[int(key)]
        else:
            return _MISSING
    return message


def value_of(message: Message, path: str, kind: str) -> tuple[Value, str]:
    """The value at ``path`` as ``kind``, and why there is none ("" if there is)."""
    found = at_pointer(message.value, path)
    if found is _MISSING:
        return None, "not in the message"
    if found is None:
        return None, "no value"
    if kind == "string":
        if not path and not isinstance(found, str):
            return message.text, ""  # 5.20 stays 5.20
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found), ""  # a serial that somebody took for a number; a float would not come back as written
        return (found, "") if isinstance(found, str) and _is_strict(found) else (None, "not text")
    if kind == "bool":
        truths = {"true": True, "false": False, "1": True, "0": False, "on": True, "off": False}
        said = found if isinstance(found, bool) else truths.get(str(found).lower())
        return (said, "") if said is not None else (None, "not a bool")
    if kind == "object":
        good = isinstance(found, dict | list) and _shallow(found) and _is_strict(found)
        return (found, "") if good else (None, "not an object")
    return _number(found, kind)


def _number(found: Any, kind: str) -> tuple[Value, str]:
    if isinstance(found, str):
        try:
            found = json.loads(found.strip(), parse_constant=_no_number)
        except (ValueError, RecursionError):
            return None, "not a number"
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None, "not a number"
    if kind == "int64":
        if found != found or abs(found) >= 2**63 or found != int(found):
            return None, "not a whole number"
        whole = int(found)
        return (whole if abs(whole) <= _EXACT else str(whole)), ""
    try:
        number = float(found)
    except OverflowError:
        return None, "not a number"
    return (number, "") if math.isfinite(number) else (None, "not a number")


def _shallow(found: Any, depth: int = 0) -> bool:
    if depth > MAX_DEPTH:
        return False
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return all(_shallow(one, depth + 1) for one in inner)


def _is_strict(found: Any) -> bool:
    """Whether every reader takes it: no half of a character (backslash, ud800), no integer beyond 64 bits."""
    try:
        orjson.dumps(found)
    except TypeError:
        return False
    return True


def instant_of(found: Any) -> int | None:
    """UTC ns of an ISO 8601 text with its offset, or of a Unix time; s, ms, µs and ns are told by their size. None for
    what is before 1970 or after 2262: that is a clock that was never set, or "never", and no 64 bits hold it."""
    at_ns = _text_instant(found) if isinstance(found, str) else _unix_instant(found)
    return at_ns if at_ns is not None and 0 < at_ns < 2**63 else None


def _text_instant(found: str) -> int | None:
    try:
        at = datetime.fromisoformat(found)
        if at.tzinfo is None:
            return None  # local time of somebody else's clock: not guessed
        since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):  # the year 1 east of Greenwich is none in UTC
        return None
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _unix_instant(found: Any) -> int | None:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e20:
        return None
    for limit, factor in ((1e11, 10**9), (1e14, 10**6), (1e17, 10**3)):
        if found < limit:  # 1e11 s is the year 5138
            return round(found * factor)
    return int(found)


def matches(topic: str, pattern: str) -> bool:
    """Whether a topic falls under a filter with + and # (MQTT 5, 4.7)."""
    if topic.startswith("$"):
        return False
    wanted, given = pattern.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)
