"""Whatever is on a label: nothing raises, nothing is invented; what was built by the standards is read back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.identify import gs1, iso15434
from edge_agent.identify.checks import mod10
from edge_agent.identify.commands import CommandRule
from edge_agent.identify.examples import examples_of, repeats_in_repeats
from edge_agent.identify.fields import MAX_VALUE
from edge_agent.identify.gs1 import Gs1Rule
from edge_agent.identify.iso15434 import Iso15434Rule
from edge_agent.identify.label import MAX_BYTES, Label, Labels
from edge_agent.identify.plain import PatternRule
from edge_agent.identify.transponder import Em4100Rule, Iso15693Rule
from edge_agent.model import Instant, Scan

EVERY_AI = {ai: f"ai_{ai}" for ai in map(str, range(10000)) if len(ai) >= 2 and gs1.known_ai(ai)} | {
    f"0{ai}": f"ai_0{ai}" for ai in range(4)
}
ALL = Labels((
    PatternRule("any", re.compile(r"(?P<serial>.*)(?P<lot>\d)?"), {"serial": "luhn"}),
    Gs1Rule("gs1", EVERY_AI), Iso15434Rule("iso", EVERY_AI | dict(iso15434.DEFAULT_MAP)),
    Em4100Rule("em"), Iso15693Rule("tag"), Iso15693Rule("gat", low_first=True), CommandRule("codes", "", {}),
))  # fmt: skip
PIECES = st.sampled_from(
    [b"\x1d", b"\x1e", b"\x04", b"[)>", b"06", b"05", b"]d2", b"]C1", b"01", b"10", b"21", b"3109", b"15210526",
     b"8008", b"http://", b"https://a/01/", b"?10=", b"[", b"%", b"\xff", b"\x00", "零".encode("gb18030"), b"EOT",
     b"99", b"\x02", "０１".encode()]
)  # fmt: skip
LABELS = st.one_of(
    st.binary(max_size=80), st.lists(st.one_of(PIECES, st.binary(max_size=9)), max_size=24).map(b"".join)
)
CHARS82 = "!\"%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"


def scan(raw: bytes, aim: str = "") -> Scan:
    return Scan("gate", Instant(1_795_000_000 * 10**9, 0), raw, symbology=aim)


def printable(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


@given(LABELS, st.sampled_from(["", "]C1", "]d2", "]Q1", "]E0", "]XX", "]"]))
def test_any_bytes_are_answered(raw: bytes, aim: str) -> None:
    labels = ALL.read(scan(raw, aim))
    assert set(ALL.explain(scan(raw, aim))) == set(ALL.names)
    for label in labels:
        assert label.identifiers and all(isinstance(value, str) and value for value in label.identifiers.values())
        assert not label.doubtful or label.flags
        assert label.rule == "any" or all(len(value) <= MAX_VALUE for value in label.identifiers.values())


def test_the_largest_and_the_smallest() -> None:
    raws = (
        b"", b"A" * 100_000, b"\x1d" * MAX_BYTES, b"10" * (MAX_BYTES // 2), b"[)>\x1e06" + b"\x1dS1" * 1300,
        b"[)>\x1e05\x1d" + b"10A\x1d" * 1000, b"10" + b"152105261" * 100, bytes(range(256)), b"\xff" * 64,
    )  # fmt: skip
    for raw in raws:
        assert len(ALL.explain(scan(raw))) == len(ALL.names)
    assert ALL.read(scan(b"A" * 100_000)) == ()


@given(st.text(CHARS82, min_size=1, max_size=20), st.text(CHARS82, min_size=1, max_size=20), st.dates())
def test_a_gs1_label_is_read_back_or_not_believed(lot: str, serial: str, date: object) -> None:
    day = f"{date:%y%m%d}"
    body = "0703206980498"
    part = next(body + digit for digit in "0123456789" if mod10(body + digit))
    raw = f"01{part}10{lot}\x1d17{day}21{serial}".encode()
    (label,) = Labels((Gs1Rule("box", gs1.DEFAULT_MAP),)).read(scan(raw, "]d2"))
    assert (label.identifiers["lot"], label.identifiers["serial"]) == (lot, serial)
    assert label.identifiers["part_number"] == part and label.identifiers["expiry"][2:].replace("-", "") == day
    assert label.flags in ((), ("lost_gs",)) and label.doubtful == bool(label.flags)


@given(
    st.dictionaries(
        st.sampled_from(["S", "1T", "P", "Q", "V", "3S"]),
        st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=30),
        min_size=1,
    )
)
def test_an_envelope_is_read_back(values: dict[str, str]) -> None:
    raw = ("[)>\x1e06\x1d" + "\x1d".join(key + value for key, value in values.items()) + "\x1e\x04").encode()
    (label,) = Labels((Iso15434Rule("reel", iso15434.DEFAULT_MAP),)).read(scan(raw))
    assert label == Label("reel", {iso15434.DEFAULT_MAP[key]: value for key, value in values.items()})


@given(st.binary(min_size=5, max_size=5), st.integers(0, 11))
def test_one_wrong_digit_of_an_em4100_is_noticed(number: bytes, place: int) -> None:
    check = 0
    for byte in number:
        check ^= byte
    text = (number + bytes([check])).hex().upper()
    rules = Labels((Em4100Rule("pallet"),))
    (label,) = rules.read(scan(text.encode()))
    assert label.identifiers == {"carrier": f"{int.from_bytes(number[1:]):010d}"}
    other = "0" if text[place] != "0" else "1"
    assert rules.read(scan((text[:place] + other + text[place + 1 :]).encode())) == ()


@given(st.from_regex(r"\A(?:[A-Z]{1,3}|\\d|[a-f0-9]|\(\?:A\|B\)|\(x\?\)|-)(?:\{2,4\}|\+)?\Z"))
def test_examples_match_their_pattern(text: str) -> None:
    pattern = re.compile(text)
    shown = examples_of(pattern)
    assert shown and all(pattern.fullmatch(one) for one in shown)


@pytest.mark.parametrize("text", ["(a+)+", r"(\w\w+)*x", "(?:a|b+)*", "((a*)*)*", r"(-[\w-]+)*", "(?:(?:x+)y?)+"])
def test_an_expression_that_a_label_can_keep_busy_is_known(text: str) -> None:
    assert repeats_in_repeats(re.compile(text))


@pytest.mark.parametrize("text", [r"\w+(-[A-Z0-9]+)*", r"(\d{3})+", r"(?P<a>.+)-(?P<b>.+)", r"([^/]+/)+x", "(a{1,3})*"])
def test_an_expression_that_it_cannot_is_taken(text: str) -> None:
    assert not repeats_in_repeats(re.compile(text))
