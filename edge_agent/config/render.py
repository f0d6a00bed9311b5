"""Settings as the YAML that a technician would write: what verbs show to paste, and what is added to his file.

Sections are indented, what holds only plain values stands on one line: ``force: {address: "holding:100", unit: kN}``.
A text is quoted where it would read as something else, also to the YAML 1.1 of his editor (``on``, ``12:30``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_agent.config.tree import plain_value

STEP = 2  # columns of indentation
WIDTH = 120  # a section that would be longer on one line is indented

_PLAIN = re.compile(r"[\w/°µΩ][\w./°%µΩ-]*")
_URL = re.compile(r"[a-z][a-z0-9+]*://[\w.:/-]*[\w/]")
_YAML_1_1 = re.compile(r"y|n|yes|no|on|off|[-+]?[0-9][0-9_.]*|[0-9-]{8,}.*", re.I)


def as_yaml(entries: Mapping[str, Any], column: int = 0, step: int = STEP) -> str:
    """The entries as lines that begin at ``column``, each ended by a newline."""
    return "".join(f"{line}\n" for line in block_lines(entries, column, step))


def block_lines(entries: Mapping[str, Any], column: int, step: int = STEP) -> Iterator[str]:
    """The entries as indented lines."""
    margin = " " * column
    for key, value in entries.items():
        line = f"{margin}{scalar(str(key))}:"
        short = f"{line} {_in_block(value)}"
        if _plain_inside(value) and (len(short) <= WIDTH or not _has_parts(value)):
            yield short
        elif isinstance(value, Mapping):
            yield line
            yield from block_lines(value, column + step, step)
        else:
            yield line
            yield from (f"{margin}{' ' * step}- {flow(item)}" for item in value)


def flow(value: Any) -> str:
    """Any value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A plain value, quoted if need be."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    text = str(value)
    if _PLAIN.fullmatch(text) and plain_value(text) == text and not _YAML_1_1.fullmatch(text):
        return text
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"  # a pattern stays readable
    return '"' + "".join(_escaped(sign) for sign in text) + '"'


def _in_block(value: Any) -> str:
    return value if isinstance(value, str) and _URL.fullmatch(value) else flow(value)


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return "\\" + sign
    if sign.isprintable():
        return sign
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"


def _has_parts(value: Any) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and len(value) > 0


def _plain_inside(value: Any) -> bool:
    """Whether a value holds no section or list of its own that holds something."""
    inner = value.values() if isinstance(value, Mapping) else value if _has_parts(value) else ()
    return not any(_has_parts(item) and isinstance(item, Mapping) for item in inner)
