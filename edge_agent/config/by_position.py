"""References of a station: one for all its positions, or a map of position to reference."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema


class Reported(str):
    """Stands where a reference is missing and that has been reported: it is looked up nowhere."""


def _number(key: Any) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,2}", str(key)):
        raise ValueError(f"{key!r} is no position; write {{1: ..., 2: ...}}")
    return int(key)


def _one_or_by_position(value: Any) -> str | dict[int, str]:
    if isinstance(value, dict) and value and all(isinstance(item, str) and item for item in value.values()):
        return {_number(key): item for key, item in value.items()}
    if not isinstance(value, str) or not (value or isinstance(value, Reported)):
        raise ValueError("is no reference; write one name, or one a position: {1: ..., 2: ...}")
    return value


def _list_or_by_position(value: Any) -> list[str] | dict[int, list[str]]:
    lists = list(value.values()) if isinstance(value, dict) else [value]
    if not lists or not all(isinstance(one, list) and all(isinstance(item, str) for item in one) for one in lists):
        raise ValueError('is no list of tags; write ["press.nest1_*"], or one list a position: {1: [...], 2: [...]}')
    return {_number(key): item for key, item in value.items()} if isinstance(value, dict) else value


_MAP = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[1-9][0-9]{0,2}$"}}
_STRINGS = {"type": "array", "items": {"type": "string"}}
ByPosition = Annotated[
    str | dict[int, str],
    PlainValidator(_one_or_by_position),
    WithJsonSchema({"anyOf": [{"type": "string"}, _MAP | {"additionalProperties": {"type": "string"}}]}),
]
"""One reference for all positions, or position -> reference."""
TagsByPosition = Annotated[
    list[str] | dict[int, list[str]],
    PlainValidator(_list_or_by_position),
    WithJsonSchema({"anyOf": [_STRINGS, _MAP | {"additionalProperties": _STRINGS}]}),
]
