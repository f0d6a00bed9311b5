"""The whole config file as a JSON Schema (2020-12), for editors: completion, descriptions, red lines while typing.

A device's section depends on its ``driver``, so every installed driver's model is in it. The schema knows less than
``load``: whether a name is defined, or two keys fit together, only ``check`` can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edge_agent.buffer.settings import BufferSettings
from edge_agent.config.labels import FORMATS
from edge_agent.config.load import SECTIONS, SINKS
from edge_agent.config.places import RegisterSettings
from edge_agent.config.settings import NAME, AgentSettings, StationSettings
from edge_agent.driver import driver_names, load_driver
from edge_agent.inbound.settings import InboundSettings
from edge_agent.routes.dictionary_settings import DictionarySettings

DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9} | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of the file, for the drivers that are installed here."""
    drivers = {name: load_driver(name).settings() for name in driver_names()}
    models: list[type[BaseModel]] = [
        AgentSettings,
        BufferSettings,
        RegisterSettings,
        StationSettings,
        DictionarySettings,
        InboundSettings,
        *drivers.values(),
        *FORMATS.values(),
        *SINKS.values(),
    ]
    refs, defs = models_json_schema([(model, "validation") for model in models], title="edge-agent configuration")
    at = {model: refs[(model, "validation")] for model in models}
    sections = {
        "agent": at[AgentSettings],
        "buffer": at[BufferSettings],
        "devices": _named(_chosen("driver", {name: at[model] for name, model in drivers.items()}))
        | {"description": "name -> what the agent reads: PLCs, scanners, sensors", "minProperties": 1},
        "labels": _named(_chosen("format", {name: at[model] for name, model in FORMATS.items()}))
        | {"description": "name -> one kind of label, and how it is read"},
        "registers": _named(at[RegisterSettings])
        | {"description": "name -> slots that all advance with one index: a dial, a walking beam"},
        "stations": _named(at[StationSettings]) | {"description": "name -> one station of the line"},
        "dictionaries": _named(at[DictionarySettings])
        | {"description": "name -> what a destination calls our names, codes and units"},
        "routes": _named(_chosen("sink", {name: at[model] for name, model in SINKS.items()}))
        | {"description": "name -> where records are sent"},
        "inbound": _named(at[InboundSettings]) | {"description": "name -> whose verdicts and unit status are heard"},
    }
    assert tuple(sections) == SECTIONS
    schema = {
        "$schema": DIALECT,
        "type": "object",
        "properties": sections,
        "required": ["agent", "devices"],
        "additionalProperties": False,
    }
    definitions = defs["$defs"]
    for name, model in drivers.items():
        _open(definitions, at[model], "driver", name)
    described: dict[str, Any] = as_written(schema | {"title": defs["title"], "$defs": definitions})
    return described


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": f"^{NAME.pattern}$"}, "additionalProperties": entry}


def _chosen(key: str, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A section whose ``key`` chooses the model that the rest must fit."""
    return {
        "type": "object",
        "properties": {key: {"enum": sorted(models)}},
        "required": [key],
        "allOf": [
            {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": model}
            for name, model in sorted(models.items())
        ],
    }


def _open(definitions: dict[str, Any], ref: dict[str, Any], key: str, name: str) -> None:
    """Lets a driver's model hold the key that chooses it, if it does not say so itself."""
    definition = definitions[ref["$ref"].rpartition("/")[2]]
    definition.setdefault("properties", {}).setdefault(key, {"const": name})


def as_written(node: Any) -> Any:
    """The schema of what is typed: durations and sizes are texts there, their defaults and patterns too."""
    if isinstance(node, list):
        return [as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: as_written(value) for key, value in node.items()}
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        node["pattern"] = pattern.replace("(?P<number>", "(").replace("(?P<unit>", "(")  # editors speak ECMA-262
    texts = [one for one in (node, *node.get("anyOf", ())) if isinstance(one, dict) and one.get("type") == "string"]
    if texts:
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            node.pop(bound, None)
        default = node.get("default")
        if isinstance(default, int | float) and not isinstance(default, bool):
            units = SIZES if "KiB" in texts[0].get("pattern", "") else DURATIONS
            node["default"] = _with_unit(default, units)
    return node


def _with_unit(number: float, units: Mapping[str, float]) -> str:
    """The shortest way to write it, e.g. 72h."""
    return min((f"{number / one:.10g}{unit}" for unit, one in units.items()), key=len)
