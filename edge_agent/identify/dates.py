"""Dates as labels write them, to YYYY-MM-DD. The century of a two-digit year slides with the year of the scan."""

from __future__ import annotations

import calendar


def date_of(text: str, year: int) -> str | None:
    """YYMMDD or YYYYMMDD; day 00 is the month's last, as GS1 has it. None if it is no date."""
    if len(text) not in (6, 8) or not (text.isascii() and text.isdigit()):
        return None
    full = int(text[:4]) if len(text) == 8 else _full(int(text[:2]), year)
    month, day = int(text[-4:-2]), int(text[-2:])
    if full < 1 or not 1 <= month <= 12:
        return None
    last = calendar.monthrange(full, month)[1]
    return f"{full:04d}-{month:02d}-{day or last:02d}" if day <= last else None


def _full(short: int, year: int) -> int:
    """GS1 General Specifications 7.12: from 49 years back to 50 years ahead."""
    full = year - year % 100 + short
    if full - year > 50:
        return full - 100
    return full + 100 if full - year < -49 else full
