"""Status codes in words: ``Bad_SensorFailure``, ``Uncertain_LastUsableValue``, ``overflow``.

A code is a severity (2 bits), a sub-code and, for values, flags. Bad: the value may not be used. Uncertain: there is
one, and the device doubts it. Good may carry a sub-code too (``Good_LocalOverride``), and the flag *overflow*: values
of this tag were lost between this one and the one before, because the server's queue was full.
"""

from __future__ import annotations

import re
from functools import cache

from asyncua.ua.status_codes import get_name_and_doc

_DATA_VALUE = 0x0400  # the flags mean what follows only with this info type
_OVERFLOW = 0x0080
_LIMITS = {0x0100: "at its low limit", 0x0200: "at its high limit"}
_SEVERITY = re.compile(r"^(Good|Uncertain|Bad)(?=[A-Z])")


def is_bad(code: int) -> bool:
    """The value that comes with it may not be used."""
    return code & 0x8000_0000 != 0


def words(code: int) -> str:
    """The code in words; "" for one that is simply good."""
    return _words(code) if code else ""


@cache
def _words(code: int) -> str:
    name, meaning = get_name_and_doc(code & 0xFFFF_0000)
    if meaning.startswith("Unknown"):
        name = _hex(code)  # the maker's own
    parts = [] if code & 0xFFFF_0000 == 0 else [_SEVERITY.sub(r"\1_", name)]
    if code & 0x0C00 == _DATA_VALUE:
        parts += ["overflow"] if code & _OVERFLOW else []
        parts += [_LIMITS[code & 0x0300]] if code & 0x0300 in _LIMITS else []
    return ", ".join(parts)


def _hex(code: int) -> str:
    severity = "Bad" if is_bad(code) else "Uncertain" if code & 0x4000_0000 else "Good"
    return f"{severity}_0x{code:08X}"
