"""A device's own words about itself, which are as long as they say: found among noise, and never made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerAscii, FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.mei_message import ReadDeviceInformationResponse

from edge_agent_drivers.modbus.bench import _identity
from edge_agent_drivers.modbus.frames import FRAMINGS, Mbap, identify_request, objects_length

NAMES = st.lists(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=30), min_size=1, max_size=6)
NOISE = st.binary(max_size=12).filter(lambda noise: 1 not in noise)  # not the unit id: that might begin a frame
PYMODBUS = {"mbap": FramerSocket, "rtu": FramerRTU, "ascii": FramerAscii}


def answer_of(names: list[str]) -> bytes:
    reply = ReadDeviceInformationResponse(information={at: name.encode() for at, name in enumerate(names)})
    return bytes([0x2B]) + reply.encode()


def framed(kind: str, pdu: bytes) -> bytes:
    frame: bytes = PYMODBUS[kind](DecodePDU(False)).encode(pdu, 1, 7)
    return frame


def find(kind: str, stream: bytes) -> bytes | None:
    framing = Mbap(lenient=True) if kind == "mbap" else FRAMINGS[kind]()
    return framing.find(stream, identify_request(1), 7)[0]


@given(NAMES, st.sampled_from(["mbap", "rtu", "ascii"]))
def test_what_pymodbus_says_of_itself_is_read(names: list[str], kind: str) -> None:
    pdu = answer_of(names)
    assert find(kind, framed(kind, pdu)) == pdu
    assert _identity(pdu) == [name.strip() for name in names if name.strip()]


@given(NAMES, NOISE)
def test_noise_in_front_of_it_is_skipped(names: list[str], noise: bytes) -> None:
    pdu = answer_of(names)
    assert find("rtu", noise + framed("rtu", pdu)) == pdu
    assert find("ascii", noise.replace(b"\r\n", b"") + framed("ascii", pdu)) == pdu


@given(NAMES, st.data())
def test_a_part_of_it_and_a_bit_that_is_wrong_are_no_answer(names: list[str], data: st.DataObject) -> None:
    frame = framed("rtu", answer_of(names))
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert find("rtu", frame[:cut]) is None
    place, bit = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(0, 7))
    spoilt = bytearray(frame)
    spoilt[place] ^= 1 << bit
    assert find("rtu", bytes(spoilt)) is None


@given(st.binary(max_size=300))
def test_its_length_is_never_beyond_what_is_there_to_tell(pdu: bytes) -> None:
    length = objects_length(pdu)
    assert length == 0 or 7 <= length <= len(pdu) + 255
    if length > len(pdu):
        assert not identify_request(1).is_answered_by(pdu)


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
def test_an_exception_to_it_is_an_answer(kind: str) -> None:
    assert find(kind, framed(kind, b"\xab\x01")) == b"\xab\x01"
