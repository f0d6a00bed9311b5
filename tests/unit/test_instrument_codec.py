"""Instruments' messages: the digits that were sent are the value; what moves, overflows or is cut never looks good."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Value
from edge_agent_drivers.instrument.gauges import mitutoyo, sylvac
from edge_agent_drivers.instrument.lines import line
from edge_agent_drivers.instrument.message import Message, TypeName, Want, parsed, values_of
from edge_agent_drivers.instrument.scales import ToledoFramer, sics, toledo
from edge_agent_drivers.stream.frames import Frame

MESSAGES: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "instruments.json").read_text()
)
READ: dict[str, Callable[[bytes], Message | None]] = {
    "mt-sics": sics,
    "toledo": toledo,
    "mitutoyo": mitutoyo,
    "sylvac": sylvac,
}
TESTER = re.compile(r"SN=(?P<serial>\w+);F=(?P<force>[-+ .,\d]+?) ?(?P<unit>[a-zA-Z]+)?(?P<unstable>\?)?;(?P<ok>\w+)")


def value_of(
    message: Message, unit: str = "", type_name: TypeName = "float64", flag: bool = False
) -> tuple[Value, str]:
    values, status = values_of(message, [Want("value", type_name, unit)], flag_unstable=flag)
    return values[0], status.get(0, "")


def frame_of(a: int, b: int, c: int, weight: str, tare: str, checksum: bool) -> bytes:
    data = b"\x02" + bytes([a, b, c]) + weight.encode() + tare.encode() + b"\r"
    return data + bytes([-sum(data) & 0x7F]) if checksum else data


def understood(message: Message | None) -> Message:
    assert message is not None
    return message


# --- known messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: f"{case['protocol']} {case['what']}")
def test_a_known_message_says_what_it_says(case: dict[str, Any]) -> None:
    message = READ[case["protocol"]](case["frame"].encode("latin-1"))
    if case.get("not"):
        assert message is None
        return
    message = understood(message)
    assert message.problem == case.get("problem", "")
    assert message.stable == case.get("stable", message.stable)
    assert message.unit == case.get("unit", message.unit)
    value, status = value_of(message, case.get("unit", ""))
    if "value" not in case:
        assert value is None
        assert status
        return
    assert message.measured["value"] == case["value"]
    if case.get("stable", True):
        assert (value, status) == (float(case["value"]), "")
    else:
        assert (value, status) == (None, "unstable")
        assert value_of(message, flag=True) == (float(case["value"]), "unstable")
    assert message.measured.get("tare") == case.get("tare", message.measured.get("tare"))


@pytest.mark.parametrize(
    ("text", "answers", "good"),
    [
        ("T S     100.00 g", "T", True),
        ("TI D      0.10 g", "TI", True),
        ("T I", "T", False),
        ("T +", "T", False),
        ("Z A", "Z", True),
        ("Z I", "Z", False),
        ("Z -", "Z", False),
        ("ZI D", "ZI", True),
        ("TAC A", "TAC", True),
        ("EL", "E", False),
        ('I4 A "0123456789"', "on", True),
    ],
)
def test_an_answer_says_whether_it_was_done_and_is_no_weight(text: str, answers: str, good: bool) -> None:
    message = understood(sics(text.encode()))
    assert (message.answers, message.good) == (answers, good)
    assert value_of(message)[0] is None


# --- numbers -------------------------------------------------------------------------------------------------


@given(st.from_regex(r"\A-?[0-9]{1,7}(\.[0-9]{0,6})?\Z"), st.booleans())
def test_the_digits_that_were_sent_are_the_value(digits: str, stable: bool) -> None:
    message = understood(sics(f"S {'S' if stable else 'D'} {digits:>10} kg\r\n".encode()))
    value, status = value_of(message, "kg")
    if stable:
        assert isinstance(value, float)
        assert (value, status) == (float(digits), "")
        assert Decimal(repr(value)) == Decimal(digits)
        assert value_of(message, "kg", "string") == (digits, "")
    else:
        assert (value, status) == (None, "unstable")


@given(st.integers(0, 999_999), st.integers(0, 7), st.booleans(), st.booleans(), st.integers(1, 40))
def test_a_toledo_frame_is_its_digits_and_its_decimal_point(
    number: int, point: int, negative: bool, checksum: bool, size: int
) -> None:
    frame = frame_of(0x28 | point, 0x30 | 2 * negative, 0x20, f"{number:6d}", "000000", checksum)
    framer = ToledoFramer(checksum)
    frames = [each for at in range(0, len(frame), size) for each in framer.feed(frame[at : at + size])]
    (good,) = frames
    value, status = value_of(understood(toledo(good.raw)), "kg")
    assert status == ""
    wanted = Decimal(number).scaleb(2 - point) * (-1 if negative else 1)
    assert isinstance(value, float)
    assert value == float(wanted)


@pytest.mark.parametrize(
    ("text", "type_name", "value"),
    [
        ("1", "bool", True),
        ("PASS", "bool", True),
        ("NG", "bool", False),
        ("-7", "int64", -7),
        ("7.00", "int64", 7),
        ("9007199254740993", "int64", "9007199254740993"),
        ("+  12.5", "float64", 12.5),
        ("1.5e3", "float64", 1500.0),
        ("007", "string", "007"),
    ],
)
def test_text_is_a_value_of_its_type(text: str, type_name: TypeName, value: Value) -> None:
    found = parsed(text, type_name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "type_name"),
    [
        ("nan", "float64"), ("inf", "float64"), ("1e999", "float64"), ("", "float64"), ("1,5", "float64"),
        ("1_000", "float64"), ("٣", "float64"), ("0x10", "int64"), ("7.5", "int64"), ("9223372036854775808", "int64"),
        ("1e3", "int64"), ("maybe", "bool"), ("1" * 41, "float64"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_none(text: str, type_name: TypeName) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text, type_name)


# --- units ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "wanted", "status"),
    [
        ("g", "g", ""),
        ("kg", "g", "unit kg, not g"),
        ("g", "", ""),
        ("\u00b5m", "um", ""),
        ("KG", "kg", "unit KG, not kg"),
    ],
)
def test_another_unit_than_the_tags_is_no_value(sent: str, wanted: str, status: str) -> None:
    message = Message("", {"value": "1.0"}, unit=sent)
    assert value_of(message, wanted) == (None if status else 1.0, status)


def test_an_instrument_that_says_no_unit_is_believed() -> None:
    assert value_of(understood(mitutoyo(b"GN01,+0016.2345")), "mm") == (16.2345, "")


# --- lines of a tester ---------------------------------------------------------------------------------------


def test_a_testers_line_is_its_named_groups() -> None:
    wants = [
        Want("serial", "string", ""),
        Want("force", "float64", "N"),
        Want("ok", "bool", ""),
        Want("text", "string", ""),
    ]
    text = "SN=A17;F=12.50N;PASS"
    message = understood(line(text.encode(), TESTER))
    assert values_of(message, wants, flag_unstable=False) == (("A17", 12.5, True, text), {})
    moving = understood(line(b"SN=A17;F=12.50N?;PASS", TESTER))
    assert values_of(moving, wants, flag_unstable=False)[1][1] == "unstable"
    comma = understood(line(b"SN=A17;F=12,50 N;FAIL", TESTER, decimal=","))
    assert values_of(comma, wants, flag_unstable=False)[0][:3] == ("A17", 12.5, False)
    thousands = understood(line(b"SN=A17;F=1.234N;PASS", TESTER, decimal=","))
    assert values_of(thousands, wants, flag_unstable=False)[1] == {1: "'1.234' is no number"}, "1234, not 1.234"
    as_sent = [Want("force", "string", ""), Want("force", "int64", "")]
    whole = understood(line(b"SN=A17;F=12,0N;PASS", re.compile(r".*F=(?P<force>[\d,]+)N.*"), decimal=","))
    assert values_of(whole, as_sent, flag_unstable=False)[0] == ("12,0", 12)
    strange = understood(line(b"SN=A17;F=1.2.3N;MAYBE", TESTER))
    values, status = values_of(strange, wants, flag_unstable=False)
    assert values[:3] == ("A17", None, None)
    assert status == {1: "'1.2.3' is no number", 2: "'MAYBE' is neither true nor false"}


@pytest.mark.parametrize("raw", [b"SN=A17;F=12.5N;PASS and more", b"SN=;F=1N;PASS", b"\xff\xfe", b""])
def test_a_line_that_does_not_match_as_a_whole_is_none(raw: bytes) -> None:
    assert line(raw, TESTER) is None


def test_chinese_is_read_in_the_encoding_that_is_sent() -> None:
    pattern = re.compile(r"结果=(?P<ok>合格|不合格)")
    assert understood(line("结果=合格".encode("gb18030"), pattern, encoding="gb18030")).measured == {"ok": "合格"}
    assert line("结果=合格".encode("gb18030"), pattern) is None


# --- damage --------------------------------------------------------------------------------------------------


@given(st.integers(0, 999_999), st.integers(min_value=0))
def test_one_wrong_bit_is_never_another_weight(number: int, bit: int) -> None:
    frame = frame_of(0x2C, 0x30, 0x20, f"{number:06d}", "000120", True)
    bit %= 8 * len(frame)
    damaged = frame[: bit // 8] + bytes([frame[bit // 8] ^ 1 << bit % 8]) + frame[bit // 8 + 1 :]
    framer = ToledoFramer(True)
    frames = [*framer.feed(damaged), *framer.gap()]
    assert [each for each in frames if not each.garbage] == []
    assert framer.feed(frame + frame) == [Frame(frame[1:-2])] * 2


def test_a_check_byte_nobody_expects_and_one_that_does_not_come() -> None:
    checked, plain = (frame_of(0x2C, 0x30, 0x20, "001234", "000000", checksum) for checksum in (True, False))
    frames = ToledoFramer(False).feed(checked * 3)
    assert [each.garbage for each in frames] == [False, True, False, True, False]
    framer = ToledoFramer(True)
    frames = [*framer.feed(plain * 3), *framer.gap()]
    assert [each.garbage for each in frames] == [True]


def test_half_a_frame_before_a_pause_never_joins_the_next() -> None:
    frame = frame_of(0x2C, 0x30, 0x20, "001234", "000000", False)
    framer = ToledoFramer(False)
    assert framer.feed(frame[:9]) == []
    assert framer.gap() == [Frame(frame[:9], garbage=True)]
    assert framer.feed(frame[:9]) == []
    assert framer.feed(frame) == [Frame(frame[:9], garbage=True), Frame(frame[1:-1])]  # without a pause neither


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_any_bytes_are_frames_or_garbage(chunks: list[bytes], checksum: bool) -> None:
    framer = ToledoFramer(checksum)
    frames = []
    for chunk in chunks:
        frames += framer.feed(chunk)
        frames += framer.gap()
        assert not framer.pending
    for each in frames:
        if not each.garbage:
            toledo(each.raw)


@pytest.mark.parametrize("protocol", list(READ))
@given(raw=st.one_of(st.binary(max_size=40), st.text("SDITZEL +-0123456789.,gkGNCH\r", max_size=24).map(str.encode)))
def test_any_frame_is_a_message_or_none(protocol: str, raw: bytes) -> None:
    message = READ[protocol](raw)
    if message is None:
        return
    for flag in (False, True):
        value, status = value_of(message, flag=flag)
        assert (value is None) <= bool(status)
        if value is not None:
            assert isinstance(value, float)
            assert not message.problem
            assert message.stable is not False or status == "unstable"
