"""Transponders' telegrams: what is good is read, in whatever pieces it comes; what is damaged is never a number."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.identify.label import Label, Printed
from edge_agent.identify.transponder import Em4100Rule, Iso15693Rule
from edge_agent.model import Instant, Scan
from edge_agent_drivers.rfid import em4100, feig
from edge_agent_drivers.rfid.em4100 import Em4100Framer
from edge_agent_drivers.rfid.feig import FeigFramer, NotUnderstood, framed
from edge_agent_drivers.rfid.field import MOST, ReaderField
from edge_agent_drivers.rfid.generic import CHECKS, Form, GenericFramer
from edge_agent_drivers.rfid.memory import decode, encode, turned
from edge_agent_drivers.stream.conversation import Framing
from edge_agent_drivers.stream.frames import Frame

TELEGRAMS: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "transponders.json").read_text()
)
FORMS = {
    check: Form(b"\x02\x55", b"\x03", length=9 + len(code(b"")), check=check, check_at=8, id_from=2, id_to=8)
    for check, code in CHECKS.items()
}
FRAMINGS: dict[str, Callable[[], Framing]] = {
    "em4100": Em4100Framer,
    "feig": FeigFramer,
    **{check: (lambda form=form: GenericFramer(form)) for check, form in FORMS.items()},  # type: ignore[misc]
}
numbers = st.binary(min_size=5, max_size=5)
every_framing = pytest.mark.parametrize("name", list(FRAMINGS))


def printed(raw: bytes) -> Printed:
    found = Printed.of(Scan("reader", Instant(0, 0), raw))
    assert isinstance(found, Printed)
    return found


def text_telegram(number: bytes) -> bytes:
    return b"\x02" + (number + bytes([reduce(xor, number)])).hex().upper().encode() + b"\x03"


def binary_telegram(number: bytes) -> bytes:
    body = b"\x0a\x02" + number
    return b"\x02" + body + bytes([reduce(xor, body)]) + b"\x03"


def inventory_answer(uids: list[bytes], status: int = 0) -> bytes:
    sets = b"".join(b"\x03\x00" + uid for uid in uids)
    return framed(bytes([0, 0xB0, status, len(uids)]) + sets)


def generic_telegram(check: str, number: bytes) -> bytes:
    head = b"\x02\x55" + number
    return head + CHECKS[check](head) + b"\x03"


def flipped(data: bytes, bit: int) -> bytes:
    bit %= 8 * len(data)
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def numbers_in(name: str, frames: list[Frame]) -> list[str]:
    """The transponders that the good frames are of."""
    good = [frame.raw for frame in frames if not frame.garbage]
    if name == "em4100":
        return [em4100.number_of(raw) for raw in good]
    if name != "feig":
        return [raw.hex() for raw in good]
    answers = [feig.answer_of(raw) for raw in good]
    return [uid.hex().upper() for each in answers if each.status == 0 for uid in feig.uids_of(each.data)]


def fed(framing: Framing, data: bytes, size: int) -> list[Frame]:
    return [frame for at in range(0, len(data), size) for frame in framing.feed(data[at : at + size])]


# --- telegrams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("case", TELEGRAMS, ids=lambda case: str(case["what"]))
def test_a_known_telegram_is_read_in_whatever_pieces_it_comes(case: dict[str, Any], size: int) -> None:
    data = bytes.fromhex(case["hex"])
    data += feig.crc16(data).to_bytes(2, "little") if case.get("crc") else b""
    framing = FRAMINGS[case["protocol"]]()
    assert numbers_in(case["protocol"], [*fed(framing, data, size), *framing.gap()]) == case["gives"]


def test_what_is_asked_of_a_feig_reader_stands_so_in_its_manuals() -> None:
    assert feig.inventory(0xFF) == bytes.fromhex("07 FF B0 01 00 1C 56")
    assert feig.framed(b"\xff\x65") == bytes.fromhex("05 FF 65 E5 CB")
    uid = bytes.fromhex("E004015012345678")
    assert feig.read_blocks(1, uid, 4, 2)[:-2] == bytes.fromhex("11 01 B0 23 01") + uid + b"\x04\x02"
    write = feig.write_blocks(1, uid, 4, 4, b"ABCDEFGH")
    assert write[:-2] == bytes.fromhex("1A 01 B0 24 01") + uid + b"\x04\x02\x04ABCDEFGH"
    long = feig.write_blocks(1, uid, 0, 8, bytes(256))
    assert long[:3] == b"\x02" + len(long).to_bytes(2, "big")


def test_scans_are_what_the_label_rules_read() -> None:
    number = bytes.fromhex("010063E9AE")
    for telegram in (text_telegram(number), binary_telegram(number)):
        (frame,) = Em4100Framer().feed(telegram)
        read = Em4100Rule("pallet").read(printed(frame.raw))
        assert isinstance(read, Label)
        assert read.identifiers == {"carrier": "0006547886"}
        assert em4100.number_of(frame.raw) == "0006547886"
    (frame,) = FeigFramer().feed(inventory_answer([bytes.fromhex("E004015012345678")]))
    (scanned,) = numbers_in("feig", [frame])
    label = Iso15693Rule("pallet").read(printed(scanned.encode()))
    assert isinstance(label, Label)
    assert label.identifiers == {"carrier": "E004015012345678"}


@given(st.lists(numbers, min_size=1, max_size=4), st.integers(1, 40), st.sampled_from([text_telegram, binary_telegram]))
def test_glued_telegrams_are_all_read(found: list[bytes], size: int, telegram: Callable[[bytes], bytes]) -> None:
    frames = fed(Em4100Framer(), b"".join(telegram(number) for number in found), size)
    assert numbers_in("em4100", frames) == [f"{int.from_bytes(number[1:]):010d}" for number in found]
    assert not any(frame.garbage for frame in frames)


@given(numbers, st.integers(min_value=0), st.sampled_from([text_telegram, binary_telegram]))
def test_one_wrong_bit_is_never_another_em4100(number: bytes, bit: int, telegram: Callable[[bytes], bytes]) -> None:
    framing = Em4100Framer()
    frames = [*framing.feed(flipped(telegram(number), bit)), *framing.gap()]
    assert set(numbers_in("em4100", frames)) <= {f"{int.from_bytes(number[1:]):010d}"}
    good = framing.feed(telegram(number))
    assert len(numbers_in("em4100", good)) == 1  # in step again


@given(st.binary(min_size=8, max_size=8), st.integers(min_value=0))
def test_one_wrong_bit_is_never_another_iso15693(uid: bytes, bit: int) -> None:
    framing = FeigFramer()
    frames = [*framing.feed(flipped(inventory_answer([uid]), bit)), *framing.gap()]
    assert frames
    assert all(frame.garbage for frame in frames)
    assert numbers_in("feig", framing.feed(inventory_answer([uid]))) == [uid.hex().upper()]


@pytest.mark.parametrize("check", list(CHECKS))
@given(st.binary(min_size=6, max_size=6), st.integers(min_value=0))
def test_one_wrong_bit_is_never_another_number_of_a_checked_frame(check: str, number: bytes, bit: int) -> None:
    framing = GenericFramer(FORMS[check])
    telegram = generic_telegram(check, number)
    assert framing.feed(telegram) == [Frame(number)]
    frames = [*framing.feed(flipped(telegram, bit)), *framing.gap()]
    assert [frame for frame in frames if not frame.garbage] == []
    assert framing.feed(telegram) == [Frame(number)]


@every_framing
@given(st.lists(st.binary(max_size=60), max_size=8), st.data())
def test_any_bytes_are_frames_or_garbage_and_hold_little(name: str, chunks: list[bytes], data: st.DataObject) -> None:
    framing = FRAMINGS[name]()
    frames = []
    for chunk in chunks:
        frames += framing.feed(chunk)
        if data.draw(st.booleans()):
            frames += framing.gap()
            assert not framing.pending
    frames += framing.gap()
    whole = sum(len(chunk) for chunk in chunks)
    assert sum(len(frame.raw) for frame in frames if frame.garbage) <= whole
    try:
        numbers_in(name, frames)
    except NotUnderstood:
        assert name == "feig"


@every_framing
def test_a_megabyte_of_noise_is_told_once(name: str) -> None:
    framing = FRAMINGS[name]()
    frames = fed(framing, b"\xff\x00\x02\x0a\xfe" * 20_000, 4096)
    assert len([*frames, *framing.gap()]) == 1


@every_framing
def test_a_stream_that_is_joined_under_way_is_no_garbage(name: str) -> None:
    good = {"em4100": text_telegram(b"\x01\x00\x63\xe9\xae"), "feig": inventory_answer([bytes(8)])}
    telegram = good.get(name) or generic_telegram(name, b"abcdef")
    framing = FRAMINGS[name]()
    framing.swallow()
    frames = framing.feed(telegram[4:])
    frames += framing.gap()
    assert frames == []
    assert len(numbers_in(name, framing.feed(telegram))) == 1


def test_half_a_telegram_before_a_pause_never_joins_the_next() -> None:
    first, second = text_telegram(b"\x01\x00\x63\xe9\xae"), text_telegram(b"\x4a\x00\xb1\xc2\xd3")
    framing = Em4100Framer()
    assert framing.feed(first[:9]) == []
    assert framing.pending
    assert framing.gap() == [Frame(first[:9], garbage=True)]
    assert numbers_in("em4100", framing.feed(second)) == ["0011649747"]


# --- feig answers --------------------------------------------------------------------------------------------


@given(st.binary(max_size=80), st.integers(0, 4))
def test_whatever_an_answer_holds_is_understood_or_not(data: bytes, count: int) -> None:
    for understand in (lambda: feig.uids_of(data), lambda: feig.blocks_of(data, count)):
        try:
            understand()
        except NotUnderstood as error:
            assert str(error)


def test_blocks_come_with_their_locks_between_them() -> None:
    assert feig.blocks_of(bytes.fromhex("02 04 00 41424344 01 45464748"), 2) == (4, b"ABCDEFGH")
    for other in ("02 04 00 41424344 01 454647", "01 04 00 41424344", "02 00 00 00", ""):
        with pytest.raises(NotUnderstood):
            feig.blocks_of(bytes.fromhex(other), 2)


def test_a_transponder_of_another_kind_is_not_taken_for_iso_15693() -> None:
    with pytest.raises(NotUnderstood, match="type 04"):
        feig.uids_of(bytes.fromhex("01 04 00 00 04112233445566 00"))


def test_what_a_reader_refuses_is_said_in_words() -> None:
    assert feig.words_of(feig.Answer(0, 0xB0, 0x95, b"\x12")) == "block is locked (95 12)"
    assert feig.words_of(feig.Answer(0, 0xB0, 0x82, b"")) == "command not available (82)"
    assert feig.words_of(feig.Answer(0, 0xB0, 0x77, b"")) == "error of the reader (77)"


# --- generic frames ------------------------------------------------------------------------------------------


def test_a_frame_that_says_its_length() -> None:
    form = Form(b"\xaa", length_at=1, length_adds=2, check="sum", check_at=-1, id_from=2, id_to=-1)
    body = b"\xaa\x05\x01\x02\x03\x04"
    frame = body + bytes([sum(body) & 0xFF])
    framing = GenericFramer(form)
    assert fed(framing, frame + frame + b"\xaa\x00" + frame, 1) == [
        Frame(b"\x01\x02\x03\x04"),
        Frame(b"\x01\x02\x03\x04"),
        Frame(b"\xaa\x00", garbage=True),
        Frame(b"\x01\x02\x03\x04"),
    ]


def test_a_check_sum_in_hex_digits() -> None:
    form = Form(b"\x02", b"\x03", check="xor", check_hex=True, check_at=-3, check_from=1, id_from=1, id_to=-3)
    framing = GenericFramer(form)
    code = b"TAG4711"
    check = f"{reduce(xor, code):02x}".encode()
    assert framing.feed(b"\x02" + code + check + b"\x03") == [Frame(code)]
    assert framing.feed(b"\x02" + code + b"00\x03" + b"\x02" + code + check.upper() + b"\x03") == [
        Frame(b"\x02" + code + b"00\x03", garbage=True),
        Frame(code),
    ]


# --- memory --------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.sampled_from(["msb", "lsb"]))
def test_every_number_comes_back(number: int, order: Any) -> None:
    data = encode(str(number), "uint", order, 8)
    assert data == number.to_bytes(8, "big" if order == "msb" else "little")
    assert decode(data, "uint", order) == (number if number <= 2**53 else str(number))


@given(st.text(max_size=12))
def test_every_text_comes_back_or_is_refused(text: str) -> None:
    try:
        data = encode(text, "string", "msb", 16)
    except ValueError:
        assert len(text.encode()) > 16 or "\0" in text or text != text.rstrip(" ")
    else:
        assert len(data) == 16
        assert decode(data, "string", "msb") == text


@given(st.binary(max_size=24), st.sampled_from(["string", "bytes", "uint"]), st.integers(1, 8))
def test_any_memory_is_a_value_or_has_a_reason(data: bytes, type_name: Any, size: int) -> None:
    assert turned(turned(data, size), size) == data or len(data) % size
    try:
        value = decode(data, type_name, "msb")
    except ValueError as error:
        assert str(error)
    else:
        if type_name == "bytes":
            assert encode(value, "bytes", "msb", len(data)) == data


@pytest.mark.parametrize(("value", "type_name"), [(True, "uint"), (-1, "uint"), (2**32, "uint"), (1.5, "uint")])
def test_what_does_not_fit_is_refused(value: Any, type_name: Any) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        encode(value, type_name, "msb", 4)


# --- presence ------------------------------------------------------------------------------------------------


def test_one_arrival_however_often_it_is_heard_and_one_departure() -> None:
    field = ReaderField(0.5)
    field.begin(0.0)
    assert not field.known
    assert field.hear("A", 0.1)
    assert [field.hear("A", 0.1 + n * 0.05) for n in range(1, 20)] == [False] * 19
    assert field.next_s() == pytest.approx(1.05 + 0.5)
    assert not field.miss(1.5)
    assert field.miss(1.56)
    assert field.present == ()
    assert not field.miss(9.0)
    assert field.hear("A", 9.0)


def test_an_empty_field_is_known_to_be_empty_once() -> None:
    field = ReaderField(0.5)
    field.begin(10.0)
    assert field.next_s() == 10.5
    assert not field.miss(10.4)
    assert field.miss(10.5)
    assert field.known
    assert field.next_s() is None
    field.begin(20.0)
    assert field.empty()
    assert not field.empty()


def test_noise_cannot_fill_the_field_without_end() -> None:
    field = ReaderField(60)
    field.begin(0.0)
    for number in range(3 * MOST):
        field.hear(str(number), number / 1000)
    assert len(field.present) == MOST
    assert field.present[-1] == str(3 * MOST - 1)
