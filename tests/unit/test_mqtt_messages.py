"""Messages of other people's devices to values: right, or none with its reason."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent_drivers.mqtt.config import MqttSettings, describe
from edge_agent_drivers.mqtt.messages import NotText, at_pointer, instant_of, matches, parse, value_of

REPORT = b'{"id": "T1", "n": 7, "data": {"torque": "12.50", "steps": [1, 2.5], "a/b": 3, "ok": "ON"}, "none": null}'


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("/data/torque", "float64", (12.5, "")),
        ("/data/torque", "string", ("12.50", "")),
        ("/data/steps/1", "float64", (2.5, "")),
        ("/data/steps/1", "int64", (None, "not a whole number")),
        ("/data/steps/2", "float64", (None, "not in the message")),
        ("/data/a~1b", "int64", (3, "")),
        ("/data/ok", "bool", (True, "")),
        ("/data", "object", ({"torque": "12.50", "steps": [1, 2.5], "a/b": 3, "ok": "ON"}, "")),
        ("/data", "float64", (None, "not a number")),
        ("/n", "string", ("7", "")),
        ("/n", "bool", (None, "not a bool")),
        ("/id", "float64", (None, "not a number")),
        ("/none", "float64", (None, "no value")),
    ],
)
def test_a_value_in_a_report(path: str, kind: str, expected: tuple[Any, str]) -> None:
    assert value_of(parse(REPORT), path, kind) == expected


@pytest.mark.parametrize(
    ("payload", "kind", "expected"),
    [
        (b"23.5", "float64", (23.5, "")),
        (b"5.20", "string", ("5.20", "")),
        (b"007", "string", ("007", "")),  # no JSON: text
        (b'"007"', "string", ("007", "")),
        (b"1e999", "float64", (None, "not a number")),
        (b"NaN", "float64", (None, "no value")),
        (b"9007199254740993", "int64", ("9007199254740993", "")),
        (b"99999999999999999999", "int64", (None, "not a whole number")),
        (b"true", "float64", (None, "not a number")),
        (b"", "float64", (None, "not a number")),
        ("läuft".encode(), "string", ("läuft", "")),
        (rb'"T1 \ud800"', "string", (None, "not text")),  # half a character: JSON can write it, no record can hold it
        (rb'{"id": ["\udfff"]}', "object", (None, "not an object")),
        (b'{"n": 18446744073709551616}', "object", (None, "not an object")),
    ],
)
def test_a_message_that_is_the_value(payload: bytes, kind: str, expected: tuple[Any, str]) -> None:
    assert value_of(parse(payload), "", kind) == expected


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(NotText):
        parse(b"\xff\xfe")


@given(payload=st.binary(max_size=300), kind=st.sampled_from(["bool", "int64", "float64", "string", "object"]))
def test_no_message_raises_anything_else(payload: bytes, kind: str) -> None:
    try:
        message = parse(payload)
    except NotText:
        return
    value, why = value_of(message, "", kind)
    assert (value is None) == bool(why)
    orjson.dumps(value)  # as the buffer writes it, which ends the agent where it cannot


@pytest.mark.parametrize("said", [r'"SN\ud800"', r'{"a": ["\udfff"]}', r'{"\ud800": 1}', "[18446744073709551616]"])
@pytest.mark.parametrize("kind", ["bool", "int64", "float64", "string", "object"])
def test_what_no_record_can_hold_is_no_value(said: str, kind: str) -> None:
    value, why = value_of(parse(f'{{"x": {said}}}'.encode()), "/x", kind)
    assert (value, bool(why)) == (None, True)


JSON = st.recursive(
    st.integers() | st.floats() | st.text(st.characters()) | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


@given(found=JSON, kind=st.sampled_from(["bool", "int64", "float64", "string", "object"]))
def test_whatever_json_says_can_be_written(found: Any, kind: str) -> None:
    payload = json.dumps({"x": found}).encode()  # escapes what is half a character
    value, why = value_of(parse(payload), "/x", kind)
    assert (value is None) == bool(why)
    orjson.dumps(value)
    orjson.dumps(instant_of(at_pointer(parse(payload).value, "/x")))


@given(value=st.recursive(st.integers() | st.text() | st.none(), lambda inner: st.lists(inner), max_leaves=40))
def test_every_place_of_a_message_is_found(value: Any) -> None:
    assert at_pointer({"a": [value]}, "/a/0") == value


def test_a_message_nested_too_deep_is_no_value() -> None:
    assert value_of(parse(b"[" * 100_000), "", "object") == (None, "not an object")
    assert value_of(parse(json.dumps("[" * 100_000).encode()), "", "float64") == (None, "not a number")
    assert value_of(parse(b"[" * 500 + b"]" * 500), "", "object") == (None, "not an object")


@pytest.mark.parametrize(
    ("said", "at_ns"),
    [
        ("2026-11-22T05:41:04.123456+08:00", 1795297264123456000),
        ("2026-11-22T05:41:04Z", 1795326064000000000),
        (1795326064, 1795326064000000000),
        (1795326064123, 1795326064123000000),
        (1795326064123456, 1795326064123456000),
        (1795326064123456789, 1795326064123456789),
        ("2026-11-22T05:41:04", None),  # whose local time?
        ("soon", None),
        ("0001-01-01T00:00:00Z", None),  # a clock that was never set; 64 bits do not hold it
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59Z", None),
        (10**19, None),
        (-5, None),
        (True, None),
        (None, None),
    ],
)
def test_an_instant_of_a_message(said: Any, at_ns: int | None) -> None:
    assert instant_of(said) == at_ns


@pytest.mark.parametrize(
    ("topic", "pattern", "expected"),
    [
        ("a/b", "a/b", True), ("a/b", "a/+", True), ("a/b/c", "a/+", False), ("a", "a/#", True), ("a/b/c", "a/#", True),
        ("a/b", "#", True), ("$SYS/x", "#", False), ("a/b", "+/+/+", False), ("", "+", True), ("a//b", "a/+/b", True),
    ],
)  # fmt: skip
def test_topics_fall_under_filters_as_the_standard_says(topic: str, pattern: str, expected: bool) -> None:
    assert matches(topic, pattern) == expected


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"tags": {"x": {}}}, "tag 'x' has no topic"),
        ({"topic": "a", "tags": {"x": {"topic": "b"}}}, "write one of them"),
        ({"topic": "a/#/b", "tags": {"x": {}}}, "is no topic"),
        ({"topic": "a", "tags": {"x": {"path": "data.torque"}}}, "write /data/torque"),
        ({"topic": "a", "tags": {"x": {"write": True}}}, "only listens"),
        ({"time": "/t", "tags": {"x": {"topic": "b"}}}, "belongs to a group with a topic"),
    ],
)
def test_a_mistake_is_refused_with_what_to_write(group: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        MqttSettings.model_validate({"url": "mqtt://127.0.0.1", "groups": {"g": group}})


def test_a_tag_has_one_place() -> None:
    groups = {name: {"topic": name, "tags": {"x": {}}} for name in ("a", "b")}
    with pytest.raises(ValueError, match="named twice"):
        describe("tools", MqttSettings.model_validate({"url": "mqtt://127.0.0.1", "groups": groups}))
