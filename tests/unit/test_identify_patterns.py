"""Labels read by a pattern."""

from __future__ import annotations

import re

import pytest

from edge_agent.identify import identify, text_of
from edge_agent.identify.patterns import MAX_LABEL

SERIAL = re.compile(r"^(?P<serial>SN\d{8})$")


def test_utf8_first_then_gb18030() -> None:
    assert text_of(b"SN00000001") == ("SN00000001", "utf-8")
    assert text_of("零件1".encode()) == ("零件1", "utf-8")
    assert text_of("零件1".encode("gb18030")) == ("零件1", "gb18030")
    assert text_of(b"\xff\xff") == (None, "")


@pytest.mark.parametrize(
    "text",
    ["SN0000001", "SN000000011", "xSN00000001", "SN00000001\n", "SN00000001\r", "SN00000001 ", "", None,
     "\x1dSN00000001", "SN00000001SN00000002"],
)  # fmt: skip
def test_what_is_not_wholly_a_label_is_none(text: str | None) -> None:
    assert identify(text, SERIAL) is None


def test_named_groups_are_identifiers() -> None:
    pattern = re.compile(r"(?P<serial>\w+)-(?P<lot>L\d+)?")
    assert identify("A1-L7", pattern) == {"serial": "A1", "lot": "L7"}
    assert identify("A1-", pattern) == {"serial": "A1"}


def test_a_pattern_need_not_be_anchored_to_match_the_whole() -> None:
    assert identify("SN1", re.compile(r"(?P<serial>SN\d)")) == {"serial": "SN1"}
    assert identify("SN12", re.compile(r"(?P<serial>SN\d)")) is None


def test_a_serial_that_took_no_part_or_is_empty_is_none() -> None:
    assert identify("x", re.compile(r"(?P<serial>a)|x")) is None
    assert identify("x", re.compile(r"(?P<serial>a*)x")) is None


def test_without_a_pattern_the_text_is_the_serial() -> None:
    assert identify("anything at all", None) == {"serial": "anything at all"}
    assert identify("two\x1dparts", None) is None
    assert identify("x" * MAX_LABEL, None) is not None
    assert identify("x" * (MAX_LABEL + 1), None) is None
