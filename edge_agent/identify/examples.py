"""Texts that a regular expression matches: a handful, always the same ones, to be held against other rules.

Not every text, and not for every expression: of each choice it tries the first ways, of each repeat the shortest and
some longer ones, of each character class a few members; what looks around or back is only found if it happens to match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

MAX_EXAMPLES = 64
_EACH = 6  # ways of one part of an expression
_SHOWN = "0A1aB-Z9z_ .:/#%SNLPDC2345678"  # tried as members of a class, in this order
_CLASSES = {sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_WORD: r"\w", sre.CATEGORY_SPACE: r"\s",
            sre.CATEGORY_NOT_DIGIT: r"\D", sre.CATEGORY_NOT_WORD: r"\W", sre.CATEGORY_NOT_SPACE: r"\S"}  # fmt: skip


def examples_of(pattern: re.Pattern[str]) -> tuple[str, ...]:
    """At most ``MAX_EXAMPLES`` texts that the pattern matches as a whole."""
    made = _texts(_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    found = dict.fromkeys(text for text in islice(made, 16 * MAX_EXAMPLES) if pattern.fullmatch(text))
    return tuple(islice(found, MAX_EXAMPLES))


def repeats_in_repeats(pattern: re.Pattern[str]) -> bool:
    """Whether an unlimited repeat stands in another, as in ``(a+)+``: a label can keep that busy for years.

    Not if a sign that the inner one cannot match parts its rounds, as in ``(-[A-Z]+)*``.
    """
    return _nested(_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG), False)


def _nested(parts: Any, inside: bool) -> bool:
    for code, value in parts:
        if code in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            unlimited = value[1] is sre.MAXREPEAT
            if (unlimited and inside) or _nested(value[2], inside or (unlimited and not _parted(value[2]))):
                return True
        inner = value[3:] if code is sre.SUBPATTERN else value[1] if code is sre.BRANCH else ()
        if any(_nested(part, inside) for part in inner):
            return True
    return False


def _parted(parts: Any) -> bool:
    """Whether a sign stands in these parts that no repeat beside it matches."""
    while len(parts) == 1 and parts[0][0] is sre.SUBPATTERN:
        parts = parts[0][1][3]
    repeated = [one for code, value in parts if code in (sre.MAX_REPEAT, sre.MIN_REPEAT) for one in value[2]]
    signs = [chr(value) for code, value in parts if code is sre.LITERAL]
    return any(not any(_may_match(sign, *one) for one in repeated) for sign in signs)


def _may_match(sign: str, code: Any, value: Any) -> bool:
    if code is sre.LITERAL:
        return bool(chr(value) == sign)
    if code is sre.NOT_LITERAL:
        return bool(chr(value) != sign)
    if code is sre.IN:
        return any(_is_in(sign, item) for item in value) != (value[0][0] is sre.NEGATE)
    return True


def _texts(parts: Any) -> Iterator[str]:
    """The texts of a sequence: each part with its first way, then with others, one part after the other."""
    ways = [list(islice(_ways(code, value), _EACH)) or [""] for code, value in parts]
    yield "".join(way[0] for way in ways)
    for index, way in enumerate(ways):
        for other in way[1:]:
            yield "".join(other if index == place else one[0] for place, one in enumerate(ways))
    for chosen in product(*ways):
        yield "".join(chosen)


def _ways(code: Any, value: Any) -> Iterator[str]:
    if code is sre.LITERAL:
        yield chr(value)
    elif code is sre.NOT_LITERAL:
        yield from (sign for sign in _SHOWN if sign != chr(value))
    elif code is sre.ANY:
        yield from _SHOWN
    elif code is sre.IN:
        yield from _members(value)
    elif code is sre.BRANCH:
        for branch in value[1]:
            yield from islice(_texts(branch), 2)
    elif code is sre.SUBPATTERN:
        yield from islice(_texts(value[3]), _EACH)
    elif code in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        yield from _repeated(*value)
    elif code is sre.ATOMIC_GROUP:
        yield from islice(_texts(value), _EACH)


def _repeated(least: int, most: Any, parts: Any) -> Iterator[str]:
    limit = least + 12 if most is sre.MAXREPEAT else int(most)
    one = list(islice(_texts(parts), _EACH))
    for count in dict.fromkeys((max(least, min(1, limit)), least, *(min(limit, n) for n in (3, 8, 10, 12)))):
        if count >= least:
            yield one[0] * count
    for other in one[1:]:
        yield other * max(least, 1)


def _members(value: Any) -> Iterator[str]:
    """Members of a character class, the usual ones first."""
    negated = bool(value) and value[0][0] is sre.NEGATE
    shown = [sign for sign in _SHOWN if any(_is_in(sign, item) for item in value) != negated]
    yield from shown
    for code, item in value:
        if not negated and code is sre.LITERAL:
            yield chr(item)
        elif not negated and code is sre.RANGE:
            yield chr(item[0])


def _is_in(sign: str, item: tuple[Any, Any]) -> bool:
    code, value = item
    if code is sre.LITERAL:
        return bool(ord(sign) == value)
    if code is sre.RANGE:
        return bool(value[0] <= ord(sign) <= value[1])
    return code is sre.CATEGORY and re.fullmatch(_CLASSES[value], sign) is not None
