"""A value as a person types it, as the type of the tag it is for. Nothing is rounded, cut or guessed."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from edge_agent.model import Value

_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_INT = re.compile(r"[-+]?[0-9]+|0[xX][0-9a-fA-F]+")
_FLOAT32_MAX = 3.4028234663852886e38


def typed_value(text: str, kind: str) -> Value:
    """``text`` as a value of type ``kind`` (of model.type_names; "": not known, so it is what it looks like).

    Raises ValueError, worded "what is wrong; what to type".
    """
    if kind.endswith("[]") or kind == "object":
        return _structured(text, kind)
    if kind == "bool":
        if text.lower() not in _WORDS:
            raise ValueError(f"{text!r} is neither true nor false; type true or false")
        return _WORDS[text.lower()]
    if kind.startswith(("int", "uint")):
        return _whole(text, kind)
    if kind.startswith("float"):
        return _number(text, kind)
    return text if kind else _as_it_looks(text)


def _whole(text: str, kind: str) -> int:
    if not _INT.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number; type digits only, the tag's type is {kind}")
    value = int(text, 16 if text[:2] in ("0x", "0X") else 10)
    bits = int(kind.lstrip("uint"))
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if not low <= value <= high:
        raise ValueError(f"{value} does not fit into {kind}; type a number from {low} to {high}")
    return value


def _number(text: str, kind: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"{text!r} is not a number; type it like 12.5")
    if kind == "float32" and abs(value) > _FLOAT32_MAX:
        raise ValueError(f"{text} does not fit into float32; type a number up to 3.4e38")
    return value


def _structured(text: str, kind: str) -> Value:
    try:
        value: Any = json.loads(text, parse_constant=_no_constant)
        orjson.loads(text), orjson.dumps(value)  # nor half a character, nor a number that no record can hold
    except (TypeError, ValueError, RecursionError):
        value = None
    if kind == "object":
        if not isinstance(value, dict):
            raise ValueError('this is no JSON object; type it like {"name": 1}')
        return value
    if not isinstance(value, list):
        raise ValueError(f"{text!r} is no list; type it like [1, 2, 3]")
    inner = kind.removesuffix("[]")
    return [one if isinstance(one, dict) else typed_value(_spelled(one), inner) for one in value]


def _no_constant(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity are no JSON


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _as_it_looks(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0X") else int(text)
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) and "_" not in text else text
