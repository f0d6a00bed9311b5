"""The exported JSON Schema, and the estimate of how much data a config makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import load
from edge_agent.config.estimate import estimate
from edge_agent.config.schema import json_schema
from edge_agent.driver import driver_names

ROOT = Path(__file__).parents[2]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value)


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


def test_the_schema_is_whole_and_of_the_2020_12_dialect(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema
    for node in nodes(schema):
        if isinstance(node.get("$ref"), str):
            assert resolved(schema, node)
        if isinstance(node.get("pattern"), str):
            re.compile(node["pattern"])
            assert "?P<" not in node["pattern"]  # editors cannot compile Python's named groups


def test_each_driver_has_its_own_keys_in_the_schema(schema: dict[str, Any]) -> None:
    device = schema["properties"]["devices"]["additionalProperties"]
    assert device["properties"]["driver"]["enum"] == driver_names()
    chosen = {one["if"]["properties"]["driver"]["const"]: resolved(schema, one["then"]) for one in device["allOf"]}
    assert "unit_id" in chosen["modbus"]["properties"]
    assert "baud" in chosen["scanner"]["properties"]
    for name, model in chosen.items():
        assert model["additionalProperties"] is False
        assert model["properties"]["driver"]["const"] == name


def test_defaults_in_the_schema_are_what_one_would_type(schema: dict[str, Any]) -> None:
    buffer = resolved(schema, schema["properties"]["buffer"])["properties"]
    assert (buffer["keep"]["default"], buffer["max_size"]["default"]) == ("3d", "20GB")
    for node in nodes(schema):
        if node.get("type") == "string" and "default" in node:
            assert isinstance(node["default"], str), node
            if "pattern" in node and node["default"]:
                assert re.search(node["pattern"], node["default"]), node


def test_the_estimate_counts_what_is_polled_and_says_what_it_assumes(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    tags = ", ".join(f't{n}: {{address: "holding:{2 * n}", type: float32, store: STORE}}' for n in range(100))
    text = f"""
agent: {{id: a, location: {{enterprise: a, site: b, area: c, line: d}}, data_dir: /tmp/x}}
devices:
  plc: {{driver: modbus, connection: tcp://127.0.0.1, groups: {{g: {{poll: 100ms, tags: {{{tags}}}}}}}}}
"""
    path.write_text(text.replace("STORE", "always"))
    always = estimate(load(path))
    assert (always.samples_per_s, always.readings_per_s) == pytest.approx((10, 1000))
    assert always.gb_per_day == pytest.approx((1000 * 36 + 10 * 70) * 86400 / 1e9)
    assert always.tb_per_year == pytest.approx(always.gb_per_day * 0.365)
    assert any("36 bytes" in text for text in always.assumptions)
    path.write_text(text.replace("STORE", "change"))
    assert estimate(load(path)).readings_per_s == pytest.approx(100)


def test_a_thousand_tags_each_100_ms_are_tens_of_gigabytes_a_day_and_the_sample_is_not() -> None:
    assert 0 < estimate(load(ROOT / "deploy" / "sample.yaml")).gb_per_day < 1
