"""The probe's table against bytes that are known: every type, every order, one address below and one above."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence

import pytest
from pymodbus.client import ModbusTcpClient

from edge_agent.bench import Guess
from edge_agent.errors import DeviceRefused, DeviceUnavailable
from edge_agent_drivers.modbus.config import ModbusSettings, ModbusTag
from edge_agent_drivers.modbus.guesses import probe, understood
from support.modbus_plc import HOLE, Line, ModbusPlc
from support.mosquitto import free_port

AT = 100
KNOWN = {
    "int16": (struct.pack(">h", -1234), -1234),
    "uint16": (struct.pack(">H", 54321), 54321),
    "bcd16": (b"\x47\x11", 4711),
    "int32": (struct.pack(">i", -123456789), -123456789),
    "uint32": (struct.pack(">I", 3123456789), 3123456789),
    "bcd32": (b"\x12\x34\x56\x78", 12345678),
    "float32": (struct.pack(">f", 23.5), 23.5),
    "int64": (struct.pack(">q", -(2**40) - 7), -(2**40) - 7),
    "uint64": (struct.pack(">Q", 2**63 + 5), str(2**63 + 5)),
    "float64": (struct.pack(">d", -1.25e-7), -1.25e-7),
}


@pytest.fixture(scope="module")
def plc() -> Iterator[ModbusPlc]:
    with ModbusPlc() as plc:
        yield plc


def settings(plc: ModbusPlc, **keys: object) -> ModbusSettings:
    return ModbusSettings.model_validate({"connection": f"tcp://127.0.0.1:{plc.port}", "timeout": "3s", **keys})


def guesses(plc: ModbusPlc, address: str, **keys: object) -> Sequence[Guess]:
    return asyncio.run(probe(settings(plc, **keys), address))


def put(plc: ModbusPlc, start: int, data: bytes) -> None:
    with ModbusTcpClient("127.0.0.1", port=plc.port) as client:
        reply = client.write_registers(start, list(struct.unpack(f">{len(data) // 2}H", data)))
        assert not reply.isError()


def on_the_wire(data: bytes, order: str) -> bytes:
    """The order spelled out: words from the last to the first, and the bytes of each word the other way round."""
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    return b"".join(word[::-1] if order in ("BADC", "DCBA") else word for word in words)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
def test_a_known_value_is_found_where_it_is(plc: ModbusPlc, kind: str, order: str) -> None:
    data, value = KNOWN[kind]
    if len(data) == 2:
        if order in ("CDAB", "DCBA"):
            return  # of one word there are two orders
        data = on_the_wire(data, order)
    else:
        data = on_the_wire(data, order)
    put(plc, AT, data)
    found = [each for each in guesses(plc, f"holding:{AT}") if (each.type, each.order) == (kind, order)]
    asked, below, above = found
    assert (asked.address, asked.value, asked.why) == (f"holding:{AT}", value, "")
    assert (below.address, above.address) == (f"holding:{AT - 1}", f"holding:{AT + 1}")
    tag = ModbusTag.model_validate(dict(asked.tag))
    assert (tag.value_type, tag.order) == (kind, order)


@pytest.mark.parametrize("off", [-1, 1])
def test_the_value_stands_one_beside(plc: ModbusPlc, off: int) -> None:
    put(plc, AT - 2, bytes(12))
    put(plc, AT + off, struct.pack(">f", 23.45678))
    right = [each for each in guesses(plc, f"holding:{AT}") if each.value == 23.45678]
    assert [(each.address, each.type, each.order) for each in right] == [(f"holding:{AT + off}", "float32", "ABCD")]


def test_texts_bytes_and_bits(plc: ModbusPlc) -> None:
    put(plc, AT, b"AB-12345".ljust(16, b"\0"))
    every = {(each.address, each.type, each.order): each.value for each in guesses(plc, f"holding:{AT}")}
    assert every[f"holding:{AT}", "string", "ABCD"] == "AB-12345"
    assert every[f"holding:{AT}", "string", "BADC"] == "BA1-3254"
    assert every[f"holding:{AT}.high", "uint8", ""] == ord("A")
    assert every[f"holding:{AT}.low", "int8", ""] == ord("B")
    bits = [every[f"holding:{AT}.{bit}", "bool", ""] for bit in range(16)]
    assert sum(on << bit for bit, on in enumerate(bits)) == 0x4142


def test_every_way_is_a_tag_that_the_config_takes(plc: ModbusPlc) -> None:
    for each in guesses(plc, f"holding:{AT}"):
        assert ModbusTag.model_validate(dict(each.tag)).address == each.address


def test_a_refused_neighbour_is_said_and_hurts_nobody_else(plc: ModbusPlc) -> None:
    every = guesses(plc, f"holding:{HOLE.start - 1}")
    words = {each.address: each for each in every if each.type == "uint16" and each.order == "ABCD"}
    assert words[f"holding:{HOLE.start - 1}"].value == HOLE.start - 1
    assert words[f"holding:{HOLE.start - 2}"].value == HOLE.start - 2
    refused = words[f"holding:{HOLE.start}"]
    assert (refused.value, refused.why) == (None, "exception 2 (illegal data address)")
    (pair,) = [each for each in every if (each.address, each.type, each.order) == (words_at(-2), "uint32", "ABCD")]
    assert pair.value == (HOLE.start - 2) << 16 | HOLE.start - 1
    (beyond,) = [each for each in every if (each.address, each.type, each.order) == (words_at(-1), "uint32", "ABCD")]
    assert (beyond.value, beyond.why) == (None, "exception 2 (illegal data address)")


def words_at(off: int) -> str:
    return f"holding:{HOLE.start + off}"


@pytest.mark.parametrize(("address", "places"), [("coil:3", [3, 2, 4]), ("discrete:0", [0, 1])])
def test_bits_have_neighbours_too(plc: ModbusPlc, address: str, places: list[int]) -> None:
    table = address.partition(":")[0]
    every = guesses(plc, address)
    assert [(each.address, each.type) for each in every] == [(f"{table}:{place}", "bool") for place in places]
    assert [each.value for each in every] == [place % 3 == 0 for place in places]


def test_the_ends_of_the_address_space(plc: ModbusPlc) -> None:
    assert {each.address.partition(".")[0] for each in guesses(plc, "input:0")} == {"input:0", "input:1"}
    with pytest.raises(DeviceRefused, match="exception 2"):  # no such registers there, but nothing breaks
        guesses(plc, "holding:65535")


def test_a_device_that_takes_short_requests_only(plc: ModbusPlc) -> None:
    every = guesses(plc, f"holding:{AT}", quirks={"max_registers": 4})
    assert {each.tag["length"] for each in every if each.type == "string"} == {8}


def test_what_does_not_answer_says_what_to_do(plc: ModbusPlc) -> None:
    with pytest.raises(DeviceRefused, match="exception 2") as refused:
        guesses(plc, f"holding:{HOLE.start + 4}")
    assert "neighbours" in refused.value.hint
    nowhere = ModbusSettings(connection=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(DeviceUnavailable, match="connection refused") as gone:
        asyncio.run(probe(nowhere, "holding:1"))
    assert gone.value.hint


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("100", "holding:100"),
        ("holding:100", "holding:100"),
        ("holding:40101", "holding:40101"),
        ("40101", "holding:100"),
        ("4x101", "holding:100"),
        ("400101", "holding:100"),
        ("465536", "holding:65535"),
        ("30006", "input:5"),
        ("3x6", "input:5"),
        ("10005", "discrete:4"),
        ("00011", "coil:10"),
        ("0x11", "coil:10"),
        ("9999", "holding:9999"),
        ("50000", "holding:50000"),
        ("holding:100.3", "holding:100"),
        (" coil:7 ", "coil:7"),
    ],
)
def test_addresses_are_understood_as_manuals_mean_them(text: str, address: str) -> None:
    at = understood(text)
    assert f"{at.table}:{at.number}" == address


@pytest.mark.parametrize("text", ["", "register 5", "70000", "4x0", "499999", "holding:65536", "-1", "٣"])
def test_what_is_no_address_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(DeviceRefused) as error:
        understood(text)
    assert error.value.hint


class Curt(Line):
    """Hangs up where others answer with an exception."""

    async def _answer(self, request: bytes, reply: bytes, writer: asyncio.StreamWriter) -> None:
        if reply[7] & 0x80:
            raise ConnectionResetError
        await super()._answer(request, reply, writer)


def test_a_device_that_hangs_up_on_what_it_does_not_have(plc: ModbusPlc) -> None:
    async def ask(address: str) -> Sequence[Guess]:
        line = Curt(plc.port)
        await line.start()
        try:
            return await probe(settings(plc, connection=f"tcp://127.0.0.1:{line.port}"), address)
        finally:
            await line.stop()

    found = asyncio.run(ask(words_at(-1)))
    words = {each.address: each for each in found if each.type == "uint16" and each.order == "ABCD"}
    assert [words[words_at(off)].value for off in (-2, -1, 0)] == [HOLE.start - 2, HOLE.start - 1, None]
    assert words[words_at(0)].why == "it hangs up"
    with pytest.raises(DeviceUnavailable):  # the address itself: no value at all
        asyncio.run(ask(words_at(1)))
