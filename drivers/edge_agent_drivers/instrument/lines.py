"""Any other instrument or tester: one line a message, read by a pattern with named groups. Pure.

Each named group is a field that a tag can take. Three names say something of the rest: ``unit`` is the unit on the
wire, ``unstable`` says by taking part in the match that the values still move, ``problem`` that there are none, and
why. The pattern must match the whole line, blanks at its ends removed.
"""

from __future__ import annotations

import re

from edge_agent_drivers.instrument.message import Message

RESERVED = ("unit", "unstable", "problem")


def line(frame: bytes, pattern: re.Pattern[str], decimal: str = ".", encoding: str = "utf-8") -> Message | None:
    """What a line says by this pattern; None if it does not match, or is no text."""
    try:
        text = frame.decode(encoding).strip()
    except UnicodeDecodeError:
        return None
    match = pattern.fullmatch(text)
    if match is None:
        return None
    groups = {name: value.strip() for name, value in match.groupdict().items() if value is not None}
    measured = {name: value for name, value in groups.items() if name not in RESERVED}
    return Message(
        text,
        measured,
        unit=groups.get("unit", ""),
        stable=False if groups.get("unstable") else None,
        problem=groups.get("problem", ""),
        decimal=decimal,
    )
