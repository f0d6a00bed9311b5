"""What a dictionary makes of a record: every code, name, unit and number format, and nothing in silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.model import Kind
from edge_agent.routes.dictionary import KINDS, Dictionary, Unmapped
from edge_agent.routes.dictionary_settings import RESERVED, CharacteristicName, DictionarySettings

CLOSED: dict[str, Any] = {
    "cycle": "0123456789ab-7", "station": "OP20", "step": "press-fit", "position": 1, "result": "Failed",
    "defects": ["D12"], "missing": ["torque", "material:solder"], "complete": False,
    "collected": [{"name": "force", "value": 12.345, "unit": "kN", "low": 10, "high": None, "judgement": "ok"}],
    "context": {"operator": {"value": 7.0, "source": "badge", "since_ns": "1"}},
    "binding": {"state": "bound", "unit": "0123456789ab-3", "serial": "SN1"},
}  # fmt: skip


def dictionary(**settings: Any) -> Dictionary:
    return Dictionary("qms", DictionarySettings(version="2026-03", **settings))


def test_codes_are_translated_wherever_they_stand() -> None:
    codes = {
        "result": {"Failed": "NG"},
        "defects": {"D12": 4711},
        "state": {"bound": "B"},
        "context.operator": {"7": "Li"},
    }
    said = dictionary(codes=codes).translate(CLOSED)
    assert said.unmapped == ()
    assert said.body["result"] == "NG"
    assert said.body["defects"] == [4711]
    assert said.body["binding"]["state"] == "B"
    assert said.body["context"]["operator"] == {"value": "Li", "source": "badge", "since_ns": "1"}
    assert said.body["dictionary"] == "qms@2026-03"
    assert CLOSED["result"] == "Failed", "what was given is not changed"
    assert CLOSED["binding"]["state"] == "bound"


def test_a_characteristic_gets_name_unit_and_number_format() -> None:
    force = CharacteristicName(name="F_MAX", unit="N", scale=1000.0, decimals=1, decimal_sign=",")
    torque = CharacteristicName(name="M")
    said = dictionary(characteristics={"force": force, "torque": torque}).translate(CLOSED)
    assert said.body["collected"] == [
        {"name": "F_MAX", "value": "12345,0", "unit": "N", "low": "10000,0", "high": None, "judgement": "ok"}
    ]
    assert said.body["missing"] == ["M", "material:solder"]
    assert said.unmapped == ()


def test_a_scale_makes_up_no_digits() -> None:
    millis = CharacteristicName(name="x", scale=0.001)
    body = {"collected": [{"name": "x", "value": value, "unit": ""} for value in (1234.1, True, "n/a", None)]}
    said = dictionary(characteristics={"x": millis}).translate(body).body["collected"]
    assert [one["value"] for one in said] == [1.2341, True, "n/a", None]


def test_what_is_not_listed_is_named() -> None:
    said = dictionary(codes={"result": {"Passed": "OK"}}, characteristics={"force": CharacteristicName(name="F")})
    translated = said.translate(CLOSED)
    assert translated.unmapped == (Unmapped("result", "Failed"), Unmapped("characteristics", "torque"))
    assert translated.body["result"] == "Failed"
    assert translated.body["unmapped"] == ["result=Failed", "characteristics=torque"]


def test_fields_are_renamed_last() -> None:
    said = dictionary(codes={"result": {"Failed": "NG"}}, fields={"result": "Verdict", "station": "Workplace"})
    body = said.translate(CLOSED).body
    assert (body["Verdict"], body["Workplace"]) == ("NG", "OP20")
    assert "result" not in body


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_field_takes_the_name_of_the_envelope(name: str) -> None:
    with pytest.raises(ValidationError, match="every record has"):
        DictionarySettings(version="1", fields={"serial": name})


def test_two_fields_cannot_become_one() -> None:
    with pytest.raises(ValidationError, match="two fields become 'x'"):
        DictionarySettings(version="1", fields={"serial": "x", "unit": "x"})


def test_samples_go_out_as_they_are() -> None:
    assert not dictionary().concerns(Kind.SAMPLE)
    assert all(dictionary().concerns(kind) for kind in KINDS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(("result", "defects", "step", "note")), json_values))
def test_nothing_is_passed_in_silence(body: dict[str, Any]) -> None:
    """Of a listed field, each value is either one of theirs or named as unmapped."""
    table = {"Passed": "OK", "1": "one"}
    said = dictionary(codes={"result": table, "defects": table}).translate(body)
    for field in ("result", "defects"):
        value = body.get(field)
        if value is None or isinstance(value, dict):
            continue
        values = value if isinstance(value, list) else [value]
        theirs = said.body[field] if isinstance(value, list) else [said.body[field]]
        assert len(theirs) == len(values)
        named = {one.value for one in said.unmapped if one.field == field}
        assert all(new in table.values() or named for new in theirs)
    assert said.body.get("note") == body.get("note")
