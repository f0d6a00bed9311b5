"""What a person types, as the type of the tag: in range and whole, or refused with what to type instead."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import type_names
from edge_agent.typed import typed_value


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", "bool", True),
        ("OFF", "bool", False),
        ("1", "bool", True),
        ("-32768", "int16", -32768),
        ("0xFF", "uint8", 255),
        ("18446744073709551615", "uint64", 2**64 - 1),
        ("12", "float32", 12.0),
        ("-1.5e3", "float64", -1500.0),
        ("007", "string", "007"),
        ("", "string", ""),
        ("2026-11-22T05:41:04Z", "datetime", "2026-11-22T05:41:04Z"),
        ("[1, 2]", "int16[]", [1, 2]),
        ('["a", "b"]', "string[]", ["a", "b"]),
        ("[true, 0]", "bool[]", [True, False]),
        ('{"x": 1}', "object", {"x": 1}),
        ("12", "", 12),
        ("1.5", "", 1.5),
        ("true", "", True),
        ("go", "", "go"),
        ("nan", "", "nan"),
    ],
)
def test_a_value_has_the_type_of_its_tag(text: str, kind: str, value: Any) -> None:
    found = typed_value(text, kind)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2", "bool"), ("12.5", "int16"), ("32768", "int16"), ("-1", "uint8"), ("256", "uint8"), ("1e3", "int32"),
        ("1_000", "float64"), ("nan", "float64"), ("inf", "float32"), ("1e39", "float32"), ("abc", "float64"),
        (r'{"x": "\ud800"}', "object"), ('{"x": 1e999}', "object"), ('{"x": 18446744073709551616}', "object"),
        (r'["\udfff"]', "string[]"), ('{"x": NaN}', "object"), ("[" * 4000, "object"),
        ("1,2", "int16[]"), ("[1, 70000]", "int16[]"), ("[1.5]", "int8[]"), ("[1]", "object"), ("", "int8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_says_what_to_type(text: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r".+; type it like .+|.+; type "):
        typed_value(text, kind)


@given(st.text(max_size=30), st.sampled_from(("", *type_names)))
def test_anything_typed_is_a_value_or_a_value_error(text: str, kind: str) -> None:
    try:
        value = typed_value(text, kind)
    except ValueError:
        return
    assert json.dumps(value, allow_nan=False) is not None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_not_rounded(value: float) -> None:
    found = typed_value(repr(value), "float64")
    assert isinstance(found, float)
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)
