"""GS1, ISO/IEC 15434, transponders and commands: worked values of the standards, what is repaired, what is refused."""

from __future__ import annotations

import pytest

from edge_agent.identify import gs1, iso15434
from edge_agent.identify.checks import luhn, mod10, mod43
from edge_agent.identify.commands import CommandRule
from edge_agent.identify.dates import date_of
from edge_agent.identify.gs1 import Gs1Rule
from edge_agent.identify.iso15434 import Iso15434Rule
from edge_agent.identify.label import Label, Labels, Rule, Unread
from edge_agent.identify.transponder import Em4100Rule, Iso15693Rule
from edge_agent.model import Instant, Scan

BOX = Gs1Rule("box", gs1.DEFAULT_MAP | {"99": "note", "15": "best_before"})
REEL = Iso15434Rule("reel", dict(iso15434.DEFAULT_MAP) | {"9N": "ppn", "D": "expiry", "10": "lot", "01": "part_number"})
PICTURES = str.maketrans({"␝": "\x1d", "␞": "\x1e", "␄": "\x04", "␟": "\x1f"})


def read(rule: Rule, text: str | bytes, aim: str = "") -> Label | Unread:
    raw = text if isinstance(text, bytes) else text.translate(PICTURES).encode()
    return Labels((rule,)).explain(Scan("gate", Instant(0, 0), raw, symbology=aim))[rule.name]


def found(rule: Rule, text: str | bytes, aim: str = "") -> dict[str, str]:
    """The identifiers of a label about which there is nothing to say."""
    label = read(rule, text, aim)
    assert isinstance(label, Label) and not label.flags and not label.doubtful, label
    return dict(label.identifiers)


# --- GS1 -----------------------------------------------------------------------------------------------------


def test_element_strings_with_an_aim_prefix_sent_by_the_reader_or_told_by_the_driver() -> None:
    wanted = {"part_number": "12312312312333", "lot": "ABC123", "note": "TESTING"}
    assert found(BOX, "]d2011231231231233310ABC123␝99TESTING") == wanted
    assert found(BOX, "011231231231233310ABC123␝99TESTING", "]d2") == wanted


@pytest.mark.parametrize("aim", ["]C1", "]e0", "]d2", "]Q3", "]J1", ""])
def test_these_symbols_carry_element_strings(aim: str) -> None:
    assert found(BOX, "0107032069804988100329", aim) == {"part_number": "07032069804988", "lot": "0329"}


@pytest.mark.parametrize("aim", ["]C0", "]d1", "]Q1", "]L0", "]XX", "]A0"])
def test_these_symbols_do_not(aim: str) -> None:
    assert isinstance(read(BOX, "0107032069804988100329", aim), Unread)
    assert isinstance(read(BOX, f"{aim}0107032069804988100329"), Unread)


def test_a_gs_keeps_lot_and_date_apart_and_without_it_the_lot_is_not_believed() -> None:
    whole = {"part_number": "07032069804988", "lot": "0329", "best_before": "2021-05-26"}
    assert found(BOX, "0107032069804988100329␝15210526") == whole
    label = read(BOX, "010703206980498810032915210526")
    assert label == Label("box", {"part_number": "07032069804988", "lot": "032915210526"}, ("lost_gs",), True)


@pytest.mark.parametrize(
    "lost", ["100329152105261721", "10ABC0107032069804988", "10AB1726010121XYZ", "21S11726013110L4"]
)
def test_a_lost_gs_is_suspected_wherever_a_date_or_a_checked_number_ends_a_value(lost: str) -> None:
    label = read(BOX, lost)
    assert isinstance(label, Label) and label.doubtful == (lost != "100329152105261721")
    assert not label.doubtful or label.flags == ("lost_gs",)


@pytest.mark.parametrize("lot", ["L2607", "15991399", "ABC", "A15210532", "15210526"])
def test_a_lot_that_only_looks_a_little_like_it_is_believed(lot: str) -> None:
    assert found(BOX, f"10{lot}") == {"lot": lot}


@pytest.mark.parametrize("text", ["]C1", "]XX", "]d2", "", "␝", "␝␝␝", "10", "0107032069804988100^29", "10" + "A" * 21,
                                  "07032069804988", "10ABC ␝", "10零件", "hello", "]E01234",
                                  "https://example.com/"])  # fmt: skip
def test_what_is_no_gs1_label_is_not_read(text: str) -> None:
    assert isinstance(read(BOX, text), Unread)


@pytest.mark.parametrize("text", ["10ABC␝", "␝10ABC", "10ABC␝␝99X", "0107032069804988␝10ABC"])
def test_gs_too_many_are_tolerated_and_said(text: str) -> None:
    label = read(BOX, text)
    assert isinstance(label, Label) and label.flags == ("redundant_gs",) and not label.doubtful
    assert label.identifiers["lot"] == "ABC"


def test_a_wrong_check_digit_or_date_is_not_believed() -> None:
    for text, flag in (("0107032069804987", "check_digit"), ("10A␝17260230", "bad_date"), ("10A␝10B", "two_values")):
        label = read(BOX, text)
        assert isinstance(label, Label) and label.doubtful and label.flags == (flag,), text


def test_ean_and_itf14_are_part_numbers_of_14_digits() -> None:
    assert found(BOX, "4006381333931", "]E0") == {"part_number": "04006381333931"}
    assert found(BOX, "96385074", "]E4") == {"part_number": "00000096385074"}
    assert found(BOX, "07032069804988", "]I1") == {"part_number": "07032069804988"}


@pytest.mark.parametrize("aim", ["]Q1", "]d1", ""])
def test_a_digital_link_is_read_and_not_followed(aim: str) -> None:
    link = "https://example.com/01/12312312312333?99=TEST"
    assert found(BOX, link, aim) == {"part_number": "12312312312333", "note": "TEST"}
    assert found(BOX, "https://id.example.com/x/01/07032069804988/10/L%2F7/21/S1?17=260131", aim) == {
        "part_number": "07032069804988", "lot": "L/7", "serial": "S1", "expiry": "2026-01-31",
    }  # fmt: skip


def test_a_digital_link_that_contradicts_itself_or_its_check_digit_is_not_believed() -> None:
    for text in ("https://a.example/01/12312312312334", "https://a.example/01/12312312312333?10=A&10=B"):
        label = read(BOX, text)
        assert isinstance(label, Label) and label.doubtful, text


def test_needs_keeps_a_label_of_another_kind_out() -> None:
    rule = Gs1Rule("box", gs1.DEFAULT_MAP, ("serial",))
    assert read(rule, "10ABC") == Unread("it holds no serial")
    assert found(rule, "10ABC␝21S1") == {"lot": "ABC", "serial": "S1"}


def test_dates_slide_with_the_century_and_end_the_month_at_day_00() -> None:
    assert [date_of(text, 2026) for text in ("260131", "990101", "760101", "770101", "270200", "20280229")] == [
        "2026-01-31", "1999-01-01", "2076-01-01", "1977-01-01", "2027-02-28", "2028-02-29",
    ]  # fmt: skip
    assert [date_of(text, 2026) for text in ("261301", "260230", "26", "2601O1", "00000101", "")] == [None] * 6


# --- ISO/IEC 15434 -------------------------------------------------------------------------------------------

VALUES = {"ppn": "112097776020", "serial": "496320471563", "lot": "ABC123", "expiry": "2029-03-31"}
DATA = "9N112097776020␝S496320471563␝1TABC123␝D290331"


def test_an_envelope_of_data_identifiers() -> None:
    assert found(REEL, f"[)>␞06␝{DATA}␞␄") == VALUES
    assert found(REEL, f"]d1[)>␞06␝{DATA}␞␄") == VALUES
    assert found(REEL, "[)>␞06␝1T批次7␞␄".translate(PICTURES).encode("gb18030")) == {"lot": "批次7"}


def test_an_envelope_of_gs1_and_one_of_both() -> None:
    both = {"part_number": "07032069804988", "lot": "0329"}
    assert found(REEL, "[)>␞05␝0107032069804988␝100329␞␄".replace("88␝", "88")) == both
    assert found(REEL, "[)>␞05␝0107032069804988100329␞06␝SA1␞␄") == both | {"serial": "A1"}


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        (f"x[)>␞06␝{DATA}␞␄", "stray_head"), (f"[)>06␝{DATA}␞␄", "lost_rs"), (f"[)>␞06␝{DATA}␄", "lost_rs"),
        (f"[)>␞06␝{DATA}␞", "missing_trailer"), (f"[)>␞06␝{DATA}", "missing_trailer"),
        (f"[)>␞06␝{DATA}␞EOT", "letters_eot"), (f"[)>␞06␝{DATA}␝Q␞␄", "empty_value"),
        (f"[)>␞06␝␝{DATA}␝␞␄", "redundant_gs"),
    ],
)  # fmt: skip
def test_what_can_be_repaired_is_and_it_is_said(text: str, flag: str) -> None:
    assert read(REEL, text) == Label("reel", VALUES, (flag,), False)


@pytest.mark.parametrize(
    ("text", "flag"),
    [("S1EOT", "letters_eot"), ("S1␝␟␞␄", "no_identifier"), ("S1␝1Ta\tb␞␄", "control_character"),
     ("S1␝S2␞␄", "two_values"), ("S1␝D290399␞␄", "bad_date"), ("S1␝^x␞␄", "no_identifier")],
)  # fmt: skip
def test_what_cannot_be_repaired_for_sure_is_not_believed(text: str, flag: str) -> None:
    label = read(REEL, f"[)>␞06␝{text}")
    assert isinstance(label, Label) and label.doubtful and flag in label.flags


@pytest.mark.parametrize("text", ["[)>", "[)>␞", "[)>␞06", "[)>␞06␝", "[)>␞07␝S1␞␄", "[)>06S1", "12345[)>␞06␝S1␞␄",
                                  "[)>␞06␝X1␞␄", "[)>␞05␝10^␞␄"])  # fmt: skip
def test_what_is_no_envelope_is_not_read(text: str) -> None:
    assert isinstance(read(REEL, text), Unread)


# --- transponders, commands, checks --------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"010063E9AE25", b"\x02010063E9AE25\x03", b"010063e9ae25"])
def test_an_em4100_in_hex_is_the_number_printed_on_it(raw: bytes) -> None:
    assert found(Em4100Rule("pallet"), raw) == {"carrier": "0006547886"}


def test_an_em4100_in_binary() -> None:
    rule = Em4100Rule("badge", "operator")
    assert found(rule, bytes.fromhex("020A0206008E6D5DB003")) == {"operator": "0009334109"}
    assert found(rule, bytes.fromhex("0A0206008E6D5DB0")) == {"operator": "0009334109"}


@pytest.mark.parametrize(
    "raw", [b"010063E9AE26", b"010063E9AE", b"0006547886", b"", bytes.fromhex("0A0206008E6D5DB1"), b"x"]
)
def test_an_em4100_without_its_check_byte_is_not_read(raw: bytes) -> None:
    assert isinstance(read(Em4100Rule("pallet"), raw), Unread)


def test_an_iso_15693_number_in_either_order_as_the_configuration_says() -> None:
    number = "E004015012345678"
    back = bytes.fromhex(number)[::-1]
    assert (
        found(Iso15693Rule("tag"), number) == found(Iso15693Rule("tag"), bytes.fromhex(number)) == {"carrier": number}
    )
    assert found(Iso15693Rule("tag", low_first=True), back.hex()) == {"carrier": number}
    wrong = read(Iso15693Rule("tag"), back.hex())
    assert isinstance(wrong, Unread) and "order" in wrong.why


def test_commands_are_exact() -> None:
    rule = CommandRule("codes", "%", {"D12": "scratch"})
    assert found(rule, "%PASS") == {"command": "PASS"}
    assert found(rule, "%DEFECT:D12") == {"command": "DEFECT", "defect": "D12"}
    assert found(CommandRule("codes", "", {}), "DEFECT:77-a") == {"command": "DEFECT", "defect": "77-a"}
    for text in ("PASS", "%pass", "%PASS ", "%DEFECT:", "%DEFECT:D13", "%PASS:D12", "%DEFECT", "%"):
        assert isinstance(read(rule, text), Unread), text


def test_check_characters() -> None:
    assert mod10("07032069804988") and not mod10("07032069804980") and not mod10("7") and not mod10("７０")
    assert luhn("490154203237518") and not luhn("490154203237517") and not luhn("49015x")
    assert mod43("12345ABCDE/") is (
        sum("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-. $/+%".index(c) for c in "12345ABCDE") % 43 == 40
    )
    assert mod43("CODE39W") and not mod43("CODE39X") and not mod43("code39W")
