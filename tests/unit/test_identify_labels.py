"""The set of label rules: who is asked, what two of them make of one label, and that nothing on a label can hurt."""

from __future__ import annotations

import re

import pytest

from edge_agent.identify.label import Label, Labels, Unread
from edge_agent.identify.plain import PatternRule
from edge_agent.model import Instant, Scan, ScanStatus

UNIT = PatternRule("unit", re.compile(r"(?P<serial>SN\d{8})"))
ANY = PatternRule("any", re.compile(r"(?P<lot>[A-Z]+\d+)"))
PREFIX = PatternRule("prefix", re.compile(r"(?P<serial>SN\d{8})(?P<lot>L\d)?"))


def scan(raw: bytes, symbology: str = "", status: ScanStatus = ScanStatus.READ) -> Scan:
    return Scan("gate", Instant(0, 0), raw, status, symbology)


def test_no_rules_read_nothing() -> None:
    assert Labels(()).read(scan(b"SN00000001")) == ()
    assert Labels(()).names == ()


def test_a_rule_gives_its_named_groups() -> None:
    assert Labels((UNIT,)).read(scan(b"SN00000001")) == (Label("unit", {"serial": "SN00000001"}),)
    assert Labels((UNIT,)).read(scan(b"SN0000001")) == ()


def test_rules_that_agree_all_answer_in_config_order() -> None:
    found = Labels((PREFIX, UNIT)).read(scan(b"SN00000001"))
    assert [one.rule for one in found] == ["prefix", "unit"]
    assert not any(one.doubtful for one in found)


def test_a_label_of_which_two_rules_say_different_things_is_doubtful() -> None:
    found = Labels((UNIT, ANY)).read(scan(b"SN00000001"))
    assert [(one.rule, one.doubtful, one.flags) for one in found] == [
        ("unit", True, ("rules_disagree",)),
        ("any", True, ("rules_disagree",)),
    ]


@pytest.mark.parametrize("raw", [b"", b"x" * 100_000, b"\x00\x1d\x1e\x04", b"\xff\xfe\xff", b"]", b"]C1"])
def test_what_is_no_label_is_read_by_none_and_explained(raw: bytes) -> None:
    rules = Labels((UNIT, ANY))
    assert rules.read(scan(raw)) == ()
    assert all(isinstance(answer, Unread) and answer.why for answer in rules.explain(scan(raw)).values())


def test_a_no_read_is_no_label() -> None:
    assert Labels((ANY,)).read(scan(b"NOREAD1", status=ScanStatus.NO_READ)) == ()
