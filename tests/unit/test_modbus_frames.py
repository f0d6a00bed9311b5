"""Frames: the answer is found whatever stands around it, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerAscii, FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

from edge_agent_drivers.modbus.codec import field_of
from edge_agent_drivers.modbus.config import ModbusTag
from edge_agent_drivers.modbus.frames import Ascii, Framing, Mbap, NotFramed, Request, Rtu, read_request
from edge_agent_drivers.modbus.writing import write_of

FRAMINGS: dict[str, Framing] = {"mbap": Mbap(lenient=False), "rtu": Rtu(), "ascii": Ascii()}
_BUILD = {
    "mbap": FramerSocket(DecodePDU(False)),
    "rtu": FramerRTU(DecodePDU(False)),
    "ascii": FramerAscii(DecodePDU(False)),
}
NUMBER = 7
every_framing = pytest.mark.parametrize("framing", list(FRAMINGS))


def framed(framing: str, pdu: bytes, unit: int = 1, number: int = NUMBER) -> bytes:
    """A frame, as pymodbus's server builds it."""
    return _BUILD[framing].encode(pdu, unit, number)


def found(framing: str, stream: bytes, request: Request) -> bytes | None:
    return FRAMINGS[framing].find(stream, request, NUMBER)[0]


def answer_to(request: Request, data: bytes) -> bytes:
    size = request.length - len(request.begins)
    return request.begins + data.ljust(size, b"\0")[:size]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any read, or any write that a tag can make."""
    unit, number = draw(st.integers(1, 247)), draw(st.integers(0, 60_000))
    if draw(st.booleans()):
        table = draw(st.sampled_from(["coil", "discrete", "holding", "input"]))
        most = 2000 if table in ("coil", "discrete") else 125
        return read_request(table, number, draw(st.integers(1, most)), unit)
    address, keys, value = draw(
        st.sampled_from(
            [
                (f"coil:{number}", {}, True),
                (f"coil:{number}", {"count": 3}, [True, False, True]),
                (f"holding:{number}", {}, 5),
                (f"holding:{number}", {"type": "float32"}, 5.5),
                (f"holding:{number}.3", {}, True),
            ]
        )
    )
    tag = ModbusTag.model_validate({"address": address, "write": True, **keys})
    return write_of(field_of(0, tag), value, unit, multiple=draw(st.booleans())).request


@every_framing
@given(request=requests(), data=st.binary(max_size=260))
def test_an_answer_is_found_and_only_when_it_is_whole(framing: str, request: Request, data: bytes) -> None:
    pdu = answer_to(request, data)
    frame = framed(framing, pdu, request.unit_id)
    assert found(framing, frame, request) == pdu
    assert len(frame) <= FRAMINGS[framing].length(request)
    for length in {0, 1, 2, 3, len(frame) // 2, len(frame) - 1}:
        assert found(framing, frame[:length], request) is None


@every_framing
@given(request=requests(), code=st.integers(1, 11))
def test_an_exception_is_an_answer(framing: str, request: Request, code: int) -> None:
    pdu = bytes([request.function | 0x80, code])
    assert found(framing, framed(framing, pdu, request.unit_id), request) == pdu


@every_framing
@given(request=requests(), data=st.binary(max_size=260))
def test_the_request_that_goes_out_is_the_one_pymodbus_would_send(framing: str, request: Request, data: bytes) -> None:
    assert FRAMINGS[framing].build(request, NUMBER) == framed(framing, request.pdu, request.unit_id)


@every_framing
@given(request=requests(), stream=st.binary(max_size=600))
def test_garbage_is_no_answer_and_never_an_error_but_ours(framing: str, request: Request, stream: bytes) -> None:
    try:
        pdu = found(framing, stream, request)
    except NotFramed:
        assert framing == "mbap"
    else:
        assert pdu is None or request.is_answered_by(pdu) or framing == "mbap"


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
@given(request=requests(), data=st.binary(max_size=260), bit=st.integers(0, 10_000))
def test_one_wrong_bit_voids_an_answer(framing: str, request: Request, data: bytes, bit: int) -> None:
    frame = bytearray(framed(framing, answer_to(request, data), request.unit_id))
    bit %= 8 * len(frame)
    frame[bit // 8] ^= 1 << bit % 8
    taken = found(framing, bytes(frame), request)
    assert taken is None or (framing == "ascii" and taken == answer_to(request, data))  # e.g. a letter's case


@given(request=requests(), noise=st.binary(max_size=40), data=st.binary(max_size=260))
def test_an_rtu_answer_is_found_behind_noise(request: Request, noise: bytes, data: bytes) -> None:
    noise = bytes(byte for byte in noise if byte != request.unit_id)
    pdu = answer_to(request, data)
    assert found("rtu", noise + framed("rtu", pdu, request.unit_id), request) == pdu


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
@given(request=requests())
def test_an_echo_of_a_read_is_not_its_answer(framing: str, request: Request) -> None:
    if request.is_read:
        assert found(framing, framed(framing, request.pdu, request.unit_id), request) is None


@every_framing
@given(request=requests(), other=requests(), data=st.binary(max_size=260))
def test_the_answer_to_another_request_is_skipped_and_the_own_one_found(
    framing: str, request: Request, other: Request, data: bytes
) -> None:
    """Of another unit; or of another number, where there are numbers; or aside, of another function."""
    strangers = [framed(framing, answer_to(other, data), request.unit_id % 247 + 1, NUMBER + 1)]
    if framing == "mbap":
        strangers.append(framed(framing, answer_to(request, data), request.unit_id, NUMBER + 1))
    for aside in request.asides():
        strangers.append(framed(framing, answer_to(aside, data), request.unit_id, NUMBER + 1))
        strangers.append(framed(framing, bytes([aside.function | 0x80, 2]), request.unit_id, NUMBER + 1))
    own = framed(framing, answer_to(request, b"\1\2"), request.unit_id)
    for stranger in strangers:
        assert found(framing, stranger, request) is None
        assert found(framing, stranger + own, request) == answer_to(request, b"\1\2")


def test_a_lenient_connection_takes_the_number_0_and_a_shared_one_does_not() -> None:
    request = read_request("holding", 1, 1, 1)
    frame = framed("mbap", answer_to(request, b"\0\5"), 1, 0)
    assert Mbap(lenient=True).find(frame, request, NUMBER)[0] == answer_to(request, b"\0\5")
    assert Mbap(lenient=False).find(frame, request, NUMBER)[0] is None


@pytest.mark.parametrize(
    "stream", [b"HTTP/1.1 400", bytes(12), b"\0\7\0\0\0\5\1\x10\2\0\0", b"\0\7\0\0\xff\xff\1\3\2\0"]
)
def test_what_cannot_be_modbus_tcp_is_said_at_once(stream: bytes) -> None:
    with pytest.raises(NotFramed):
        found("mbap", stream, read_request("holding", 1, 1, 1))


def test_a_known_rtu_exchange() -> None:
    """Of the standard's serial line guide: unit 2, function 7 has the CRC 0x1241; and a read as manuals print it."""
    request = read_request("holding", 0, 2, 1)
    assert Rtu().build(request, 0) == bytes.fromhex("0103 0000 0002 C40B")
    assert found("rtu", bytes.fromhex("0103 04 0006 0005 DA31"), request) == bytes.fromhex("0304 0006 0005")
    assert Ascii().build(request, 0) == b":010300000002FA\r\n"
