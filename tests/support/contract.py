"""docs/contracts.md and the JSON Schema, read by programs: the fields of each record kind, and who keeps to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from edge_agent.wire import json_schema

PAGE = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")

_ROW = re.compile(r"^\| `(?P<kind>\w+)` \| (?P<source>[^|]+) \| (?P<body>[^|]+) \|$", re.MULTILINE)
_NESTED = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)")


class Fields(NamedTuple):
    """The top-level fields of a body."""

    required: frozenset[str]
    optional: frozenset[str]
    planned: bool


def body_fields() -> dict[str, Fields]:
    """Kind → fields, from the table of record kinds."""
    table = PAGE.partition("### Record kinds")[2].partition("### The registry")[0]
    return {row["kind"]: _fields(row["body"]) for row in _ROW.finditer(table)}


def _fields(text: str) -> Fields:
    """``a, b, c?`` in back-quotes, whatever is nested or explained between them left out."""
    while _NESTED.search(text):
        text = _NESTED.sub("", text)
    words = re.findall(r"(\w+)(\??)", " ".join(re.findall(r"`([^`]*)`", text)))
    optional = frozenset(word for word, mark in words if mark)
    return Fields(frozenset(word for word, _ in words) - optional, optional, text.strip().startswith("planned"))


def listed(after: str) -> list[str]:
    """The words of the back-quoted list that follows ``after``."""
    text = PAGE.partition(after)[2]
    return re.findall(r"\w+", text.partition("`")[2].partition("`")[0])


def mistakes(kind: str, body: Mapping[str, Any]) -> list[str]:
    """What is wrong with a body of this kind, by the page and by the schema."""
    fields = body_fields()[kind]
    missing, strange = fields.required - set(body), set(body) - fields.required - fields.optional
    found = [f"{kind}: {name} is missing" for name in sorted(missing)]
    found += [f"{kind}: {name} is not on the page" for name in sorted(strange)]
    return found + [
        f"{kind}: {error.json_path}: {error.message[:200]}" for error in of(f"{kind}_body").iter_errors(body)
    ]


@cache
def of(name: str) -> Draft202012Validator:
    """What checks one definition of the schema: ``sample_body``, ``message``, ``confirmation`` …"""
    return Draft202012Validator(json_schema() | {"anyOf": [{"$ref": f"#/$defs/{name}"}]})
