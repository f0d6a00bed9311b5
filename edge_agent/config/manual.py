"""docs/devices.md: every key of every driver, from the settings models. `edge-agent schema --devices` prints it.

A key's line is made of its JSON Schema, so the page says what an editor says. Keys of a tag stand below
``groups.<name>.tags.<name>``; those that every tag has are told once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edge_agent.config.schema import as_written
from edge_agent.driver import Cadence, TagSettings, driver_names, load_driver

HEAD = """# Devices

Every key of every driver, made from what the drivers themselves accept (`edge-agent schema --devices`). What a device
needs, how it is wired and what its messages mean stands in the driver's own manual.

| driver | reads | manual |
|---|---|---|
"""
COMMON = """
Durations are written with a unit (`100ms`, `5s`), sizes too (`5GB`). A key without a default must be written.

## Every tag

Whatever its driver, under `groups.<name>.tags.<name>` (and `tags.<name>` for what is only written):

"""


class Key(NamedTuple):
    """One line of a table."""

    path: str
    kind: str
    default: str
    meaning: str


def page() -> str:
    """The whole page, Markdown."""
    common = list(_keys(_schema(TagSettings)))
    names = {key.path for key in common}
    drivers = {name: load_driver(name) for name in driver_names()}
    text = HEAD
    for name, spec in drivers.items():
        title = _first_line(spec.settings().__doc__)
        text += f"| [{name}](#{name}) | {title} | [README](../drivers/edge_agent_drivers/{name}/README.md) |\n"
    text += COMMON + _table(common)
    for name, spec in drivers.items():
        pace = "read at its groups' `poll:`" if spec.cadence is Cadence.POLL else "speaks by itself"
        keys = [key for key in _keys(_schema(spec.settings())) if key.path.rpartition(".")[2] not in names or _own(key)]
        text += f"\n## {name}\n\n{_first_line(spec.settings().__doc__)} ({pace}; "
        text += f"[manual](../drivers/edge_agent_drivers/{name}/README.md))\n\n{_table(keys)}"
    return text


def _own(key: Key) -> bool:
    """Not one of the keys that every tag has."""
    return "tags.<name>." not in key.path


def _first_line(doc: str | None) -> str:
    return " ".join((doc or "").strip().partition("\n\n")[0].split()).rstrip(".").replace("|", "\\|")


def _schema(model: Any) -> dict[str, Any]:
    schema: dict[str, Any] = as_written(model.model_json_schema())
    return schema


def _table(keys: list[Key]) -> str:
    rows = [f"| `{key.path}` | {key.kind} | {key.default} | {key.meaning} |" for key in keys]
    return "\n".join(["| key | | default | |", "|---|---|---|---|", *rows]) + "\n"


def _keys(schema: Mapping[str, Any]) -> Iterator[Key]:
    """All keys of a model, those of its sections after it, dotted."""
    yield from _below("", schema, schema.get("$defs", {}), {})


def _below(prefix: str, node: Mapping[str, Any], defs: Mapping[str, Any], told: dict[str, str]) -> Iterator[Key]:
    """``told``: where each model's keys stand already."""
    required = node.get("required", ())
    for name, raw in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        entry, kind = _resolved(raw, defs)
        meaning = raw.get("description") or entry.get("description", "")
        needed = name in required
        model = raw.get("$ref") or _ref_in(raw)
        inner, below = entry, f"{path}."
        named = _named(entry)
        if named is not None:
            below, model = f"{path}.<name>.", named.get("$ref")
            inner, _ = _resolved(named, defs)
        elif entry.get("type") == "array" and "$ref" in entry.get("items", {}):
            below, model = f"{path}[].", entry["items"]["$ref"]
            inner, _ = _resolved(entry["items"], defs)
        keys = str(model) if inner.get("properties") else ""
        meaning = _cell(_first_paragraph(meaning)) + (f"; keys as `{told[keys]}`" if keys in told else "")
        yield Key(path, kind, "" if needed else _default(raw), meaning)
        if keys and keys not in told:
            told[keys] = below.removesuffix(".")
            yield from _below(below, inner, defs, told)


def _named(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What each entry of a section of names is; None where the section has keys of its own."""
    patterns = entry.get("patternProperties", {})
    found = next(iter(patterns.values()), entry.get("additionalProperties"))
    return found if isinstance(found, dict) else None


def _ref_in(raw: Mapping[str, Any]) -> str | None:
    return next((str(one["$ref"]) for one in raw.get("anyOf", ()) if "$ref" in one), None)


def _resolved(raw: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The entry itself, references followed, and what may be written there, in words."""
    if "$ref" in raw:
        return _resolved(defs[raw["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in raw:
        found = [_resolved(one, defs) for one in raw["anyOf"] if one.get("type") != "null"]
        return found[0][0], " or ".join(dict.fromkeys(kind for _, kind in found))
    if "enum" in raw or "const" in raw:
        return raw, " ".join(f"`{value}`" for value in raw.get("enum", [raw.get("const")]))
    kind = str(raw.get("type", ""))
    if kind == "string" and "examples" in raw:
        return raw, "duration" if "100ms" in raw["examples"] else "size"
    if kind == "array":
        _, inner = _resolved(raw.get("items", {}), defs)
        return raw, f"list of {inner}" if inner else "list"
    if kind == "object":
        return raw, "section"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}
    return raw, words.get(kind, kind) + _bounds(raw)


def _bounds(raw: Mapping[str, Any]) -> str:
    low, high = raw.get("minimum", raw.get("exclusiveMinimum")), raw.get("maximum", raw.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    shown = ["" if bound is None else f"{bound:.15g}" for bound in (low, high)]
    return f" {shown[0]} … {shown[1]}".rstrip()


def _default(raw: Mapping[str, Any]) -> str:
    value = raw.get("default")
    if value in (None, "", {}, []):
        return "–"
    if isinstance(value, dict):
        return "below"
    return (
        f"`{_cell(str(value).lower() if isinstance(value, bool) else repr(value) if value != str(value) else value)}`"
    )


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n").replace("\r", "\\r")
