"""Check characters: they find one misread character, and say nothing about which label it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_CODE39 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-. $/+%"


def mod10(text: str) -> bool:
    """GS1's check digit (GTIN, SSCC, GLN ...): weights 3 and 1 from the right."""
    if not _digits(text):
        return False
    return sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(reversed(text))) % 10 == 0


def luhn(text: str) -> bool:
    """The check digit of ISO/IEC 7812 (IMEI, ICCID)."""
    if not _digits(text):
        return False
    doubled = [int(digit) * (2 if index % 2 else 1) for index, digit in enumerate(reversed(text))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def mod43(text: str) -> bool:
    """The check character of Code 39, where the reader passes it on."""
    if len(text) < 2 or not all(sign in _CODE39 for sign in text):
        return False
    return sum(_CODE39.index(sign) for sign in text[:-1]) % 43 == _CODE39.index(text[-1])


def _digits(text: str) -> bool:
    return len(text) > 1 and text.isascii() and text.isdigit()


CHECKS: Mapping[str, Callable[[str], bool]] = {"mod10": mod10, "luhn": luhn, "mod43": mod43}
