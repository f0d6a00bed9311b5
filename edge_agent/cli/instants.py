"""Instants as a technician types them: a time ago ("2h"), a local time ("2025-11-03 06:00", "06:00"), or UTC
nanoseconds as `--json` prints them."""

from __future__ import annotations

import re
import time
from datetime import datetime

from edge_agent.cli import UsageProblem
from edge_agent.driver import parse_duration

_NANOSECONDS = re.compile(r"\d{18,19}")
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")


def instant_ns(text: str, option: str) -> int:
    """UTC nanoseconds of what was typed for ``option``. Raises UsageProblem."""
    typed = text = text.strip()
    if _NANOSECONDS.fullmatch(text):
        return int(text)
    try:
        return time.time_ns() - round(parse_duration(text.removesuffix(" ago")) * 1e9)
    except ValueError:
        pass
    try:
        if _CLOCK.fullmatch(text):
            text = f"{datetime.now():%Y-%m-%d}T{text.zfill(5)}"
        return round(datetime.fromisoformat(text).timestamp() * 1e6) * 1000  # without an offset: local time
    except (ValueError, OverflowError, OSError) as error:
        hint = f'write {option} 2h, {option} 06:00 or {option} "2025-11-03 06:00"'
        raise UsageProblem(f"{option} {typed!r} is no time", hint=hint) from error
