"""Labels read by a regular expression: bytes -> text -> named groups -> identifiers.

The whole label must match, not a part of it: a pattern that is found *in* a label would also be found in two labels
run together, or in a longer label of another kind. What has control characters in it, is empty or is longer than
``MAX_LABEL`` characters never matches: such text is noise, or a structured label that a pattern cannot read.
"""

from __future__ import annotations

import re

MAX_LABEL = 512  # characters; the largest label in use (a full ISO 15434 envelope) is shorter
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def text_of(raw: bytes) -> tuple[str | None, str]:
    """The text and the encoding that gave it: UTF-8, else GB18030 (Chinese readers), else (None, "").

    GB18030 accepts much that is not text, so who shows it should show the encoding beside it.
    """
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return None, ""


def identify(text: str | None, pattern: re.Pattern[str] | None, kind: str = "serial") -> dict[str, str] | None:
    """The identifiers on a label, kind -> value, always with ``kind``; None if this is no such label.

    Without a pattern the whole text is it. Every other named group that took part is a further identifier.
    """
    if not readable(text) or text is None:
        return None
    if pattern is None:
        return {kind: text}
    match = pattern.fullmatch(text)
    if match is None:
        return None
    found = {kind: value for kind, value in match.groupdict().items() if value}
    return found if kind in found else None


def readable(text: str | None) -> bool:
    """True for text that may be an identifier at all."""
    return text is not None and 0 < len(text) <= MAX_LABEL and _CONTROL.search(text) is None
