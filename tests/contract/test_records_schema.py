"""The JSON Schema of the records: one with docs/contracts.md, with its committed copy, and with what is really sent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edge_agent.model import Kind
from edge_agent.records import BODIES
from edge_agent.wire import Numbered, json_schema
from support.contract import PAGE, body_fields, mistakes, of

COPY = Path(__file__).parents[2] / "docs" / "schema" / "records.json"
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_it_is_a_schema_and_its_copy_is_current() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert json.loads(COPY.read_text()) == json_schema(), "edge-agent schema --records > docs/schema/records.json"


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "edge_agent", "schema", "--records"]
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout) == json_schema()


@pytest.mark.parametrize("kind", [kind for kind in Kind if not body_fields()[kind.label].planned])
def test_the_page_and_the_schema_name_the_same_fields(kind: Kind) -> None:
    page, fields = body_fields()[kind.label], BODIES[kind].model_fields
    required = {name for name, field in fields.items() if field.is_required()}
    assert (page.required, page.optional) == (required, set(fields) - required)


def test_every_example_of_the_page_is_what_the_schema_says() -> None:
    names = ["message", "confirmation", "replay_request"]
    for name, example in zip(names, EXAMPLES, strict=True):
        if name == "message":
            for field in ("boot", "…"):
                assert example.pop(field, None) or example["records"][0].pop(field)
            example |= {"boot": "b", "kind": "checkpoint"}
            example["records"][0] |= {"upto": 5, "hash": "0" * 64}
        assert not list(of(name).iter_errors(example))


@pytest.mark.parametrize("kind", BODIES)
def test_no_body_has_a_field_that_stands_before_it_in_a_message(kind: Kind) -> None:
    assert not set(BODIES[kind].model_fields) & set(Numbered.model_fields)


GOOD: dict[str, Any] = {"tagset": "t", "took_us": 5, "values": [1.5, None, "12345678901234567890", True]}


@pytest.mark.parametrize(
    "change",
    [{"values": 5}, {"values": {}}, {"took_us": "5"}, {"tagset": None}, {"serial": "SN1"}, {"status": {"0": 5}}],
)
def test_a_body_that_is_not_documented_is_told(change: dict[str, Any]) -> None:
    assert mistakes("sample", GOOD) == mistakes("sample", GOOD | {"status": {"1": "no value"}}) == []
    assert mistakes("sample", GOOD | change)
    del change
    assert mistakes("sample", {key: value for key, value in GOOD.items() if key != "values"})


@pytest.mark.parametrize("change", [{"note": 1}, {"after": -1}, {"replayed": False}, {"kind": "scan"}, {"records": []}])
def test_an_envelope_that_is_not_documented_is_told(change: dict[str, Any]) -> None:
    message = {
        "v": 1, "agent": "a", "stream": "0123456789ab.mes.1", "log": "0123456789ab", "boot": "b", "source": "d.g",
        "kind": "sample", "n": 1, "after": 0, "confirm": "", "replayed": True, "replay": "ask-1",
        "records": [{"n": 1, "seq": 7, "at_ns": "5", "mono_ns": "5", "synced": False, **GOOD}],
    }  # fmt: skip
    assert not list(of("message").iter_errors(message))
    assert list(of("message").iter_errors(message | change))
