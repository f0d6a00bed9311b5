"""Registers and bits to values: every layout against a decoder that takes one tag at a time."""

from __future__ import annotations

import math
import struct
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Value
from edge_agent_drivers.modbus.codec import Field, decode, field_of
from edge_agent_drivers.modbus.config import ModbusTag, Quirks
from edge_agent_drivers.modbus.encode import encode
from edge_agent_drivers.modbus.plan import Block, plan
from edge_agent_drivers.modbus.values import shortest

PI = bytes.fromhex("400921FB54442D18")  # float64
ORDERS = {"ABCD": "ABCDEFGH", "CDAB": "GHEFCDAB", "BADC": "BADCFEHG", "DCBA": "HGFEDCBA"}


def fields_of(*tags: ModbusTag) -> list[Field]:
    return [field_of(index, tag) for index, tag in enumerate(tags)]


def tag(address: str, **keys: object) -> ModbusTag:
    return ModbusTag.model_validate({"address": address, **keys})


def read(payload: bytes, *tags: ModbusTag) -> tuple[list[Value], dict[int, str]]:
    """Decode a payload that begins at the first address of the tags, which must fit one block."""
    (block,) = plan(fields_of(*tags), Quirks())
    status: dict[int, str] = {}
    values: list[Value] = [None] * len(tags)
    for index, value in zip(block.indexes, block.decode(payload.ljust(block.size, b"\0"), status), strict=True):
        values[index] = value
    return values, status


def one(payload: bytes, **keys: object) -> Value:
    (value,), status = read(payload, tag("holding:0", **keys))
    assert not status
    return value


# --- byte orders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_64_bits_stand_on_the_wire_as_the_order_says(order: str) -> None:
    wire = bytes(PI["ABCDEFGH".index(letter)] for letter in ORDERS[order])
    assert one(wire, type="float64", order=order) == math.pi


@pytest.mark.parametrize(
    ("order", "wire"), [("ABCD", "12345678"), ("CDAB", "56781234"), ("BADC", "34127856"), ("DCBA", "78563412")]
)
def test_32_bits_stand_on_the_wire_as_the_order_says(order: str, wire: str) -> None:
    assert one(bytes.fromhex(wire), type="uint32", order=order) == 0x12345678


@pytest.mark.parametrize(("order", "value"), [("ABCD", 0x1234), ("CDAB", 0x1234), ("BADC", 0x3412), ("DCBA", 0x3412)])
def test_16_bits_have_no_word_order(order: str, value: int) -> None:
    assert one(b"\x12\x34", type="uint16", order=order) == value


# --- what a value may be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wire", "value"),
    [
        ("int16", "8000", -32768),
        ("uint16", "8000", 32768),
        ("int32", "FFFFFFFE", -2),
        ("uint32", "FFFFFFFE", 4294967294),
        ("int64", "0020000000000000", 2**53),
        ("int64", "0020000000000001", "9007199254740993"),
        ("int64", "FFDFFFFFFFFFFFFF", "-9007199254740993"),
        ("uint64", "FFFFFFFFFFFFFFFF", "18446744073709551615"),
        ("float32", "3DCCCCCD", 0.1),
        ("float32", "4B800000", 16777216.0),
        ("float32", "7F7FFFFF", 3.4028235e38),
        ("float32", "00000001", 1.401298e-45),
        ("bool", "0000", False),
        ("bool", "0100", True),
    ],
)
def test_a_value_reads_as_it_is_meant(kind: str, wire: str, value: Value) -> None:
    read_value = one(bytes.fromhex(wire), type=kind)
    assert read_value == value
    assert type(read_value) is type(value)


@pytest.mark.parametrize(
    ("kind", "wire"), [("float32", "7FC00000"), ("float32", "FF800000"), ("float64", "7FF0" + "0" * 12)]
)
def test_what_is_not_a_number_is_none_and_spares_its_neighbours(kind: str, wire: str) -> None:
    words = len(wire) // 4
    tags = [tag("holding:0", type=kind), tag(f"holding:{words}", type=kind), tag(f"holding:{2 * words}", type=kind)]
    good = struct.pack(">f" if kind == "float32" else ">d", 0.5)
    assert read(good + bytes.fromhex(wire) + good, *tags) == ([0.5, None, 0.5], {1: "not a number"})


@pytest.mark.parametrize(
    ("wire", "order", "value"),
    [
        (b"SN000001", "ABCD", "SN000001"),
        (b"NS000010", "BADC", "SN000001"),
        (b"SN1\0\0\0\0\0", "ABCD", "SN1"),
        (b"SN1\0OLD1", "ABCD", "SN1"),  # the last part's longer text behind the end of this one
        (b"SN1     ", "ABCD", "SN1"),
        (b"\0\0\0\0\0\0\0\0", "ABCD", ""),
        ("温度°".encode(), "ABCD", "温度°"),
    ],
)
def test_text_ends_at_its_first_nul_and_loses_trailing_spaces(wire: bytes, order: str, value: str) -> None:
    assert one(wire, type="string", length=8, order=order) == value


def test_text_of_an_odd_length_leaves_out_the_last_byte() -> None:
    assert one(b"ABCD", type="string", length=3) == "ABC"


def test_what_is_not_text_is_none_with_its_reason() -> None:
    assert read(b"\xff\xfe", tag("holding:0", type="string", length=2)) == ([None], {0: "not text"})


# --- scaling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "scale", "offset", "value"),
    [(123, 0.1, 0.0, 12.3), (3, 0.1, 0.0, 0.3), (1001, 0.1, -100.0, 0.1), (7, 10.0, 1.0, 71), (-5, 0.001, 0.0, -0.005)],
)
def test_scaled_integers_are_what_the_decimals_say(raw: int, scale: float, offset: float, value: float) -> None:
    found = one(struct.pack(">h", raw), type="int16", scale=scale, offset=offset)
    assert repr(found) == repr(value)


@given(raw=st.integers(-32768, 32767), scale=st.sampled_from([0.1, 0.01, 0.025, 0.3, 1e-6, 7.5]))
def test_any_scaled_integer_is_the_double_nearest_to_the_exact_decimal(raw: int, scale: float) -> None:
    found = one(struct.pack(">h", raw), type="int16", scale=scale)
    assert found == float(Decimal(raw) * Decimal(repr(scale)))


def test_a_scaled_float_keeps_the_digits_that_it_has() -> None:
    assert one(struct.pack(">f", 12.3), type="float32", scale=0.1) == 1.23
    assert one(struct.pack(">f", 1000.1), type="float32", offset=-1000.0) == 0.1
    assert one(struct.pack(">d", 0.1), type="float64", scale=3.0) == 0.3
    assert read(struct.pack(">f", math.nan), tag("holding:0", type="float32", scale=2.0))[0] == [None]


def test_scaling_beyond_the_largest_double_is_not_a_number() -> None:
    values, status = read(struct.pack(">d", 1e308), tag("holding:0", type="float64", scale=1000.0))
    assert (values, status) == ([None], {0: "not a number"})


# --- float32 -------------------------------------------------------------------------------------------------


def slow_shortest(value: float) -> float:
    for digits in (7, 8, 9):
        short = float(f"{value:.{digits}g}")
        if struct.unpack("f", struct.pack("f", short))[0] == value:
            return short
    raise AssertionError(value)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_float32_is_the_shortest_double_that_gives_it_back(values: list[float]) -> None:
    found = shortest(values)
    assert list(found) == [slow_shortest(value) for value in values]
    assert all(type(value) is float for value in found)


@given(st.integers(-(10**6), 10**6), st.integers(0, 6))
def test_what_was_entered_with_six_digits_comes_back_as_entered(digits: int, decimals: int) -> None:
    entered = digits / 10**decimals
    (as_float32,) = struct.unpack("f", struct.pack("f", entered))
    assert list(shortest([as_float32])) == [entered]


# --- whole blocks against one tag at a time ------------------------------------------------------------------

KINDS = ["bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string"]


@st.composite
def register_tags(draw: st.DrawFn) -> list[ModbusTag]:
    """Tags anywhere in registers 0-99: overlapping, in any order, of any type, some of them bits."""
    tags = []
    for _ in range(draw(st.integers(1, 20))):
        number, kind = draw(st.integers(0, 99)), draw(st.sampled_from([*KINDS, "bit"]))
        keys: dict[str, object] = {"order": draw(st.sampled_from(list(ORDERS)))}
        if kind == "bit":
            tags.append(tag(f"holding:{number}.{draw(st.integers(0, 15))}", **keys))
            continue
        if kind == "string":
            keys["length"] = draw(st.integers(1, 9))
        elif kind != "bool":
            keys["scale"] = draw(st.sampled_from([1.0, 1.0, 0.1]))
        tags.append(tag(f"holding:{number}", type=kind, **keys))
    return tags


def alone(memory: bytes, its: ModbusTag) -> tuple[Value, str | None]:
    """The value of one tag by its own block: no layer, no neighbour."""
    field = field_of(0, its)
    part = memory[2 * field.start : 2 * field.end]
    (block,) = plan([field], Quirks())
    status: dict[int, str] = {}
    (value,) = decode(block.layers, part, status)
    return value, status.get(0)


@given(tags=register_tags(), seed=st.binary(min_size=220, max_size=220))
def test_a_block_of_any_tags_decodes_as_each_tag_alone(tags: list[ModbusTag], seed: bytes) -> None:
    for block in plan(fields_of(*tags), Quirks()):
        status: dict[int, str] = {}
        payload = seed[2 * block.start : 2 * block.start + block.size]
        for index, value in zip(block.indexes, block.decode(payload, status), strict=True):
            assert (value, status.get(index)) == alone(seed, tags[index])


@given(numbers=st.lists(st.integers(0, 1999), min_size=1, max_size=40), memory=st.binary(min_size=250, max_size=250))
def test_coils_are_the_bits_of_the_reply_from_the_lowest_on(numbers: list[int], memory: bytes) -> None:
    fields = fields_of(*[tag(f"coil:{number}") for number in numbers])
    block = Block("coil", 0, 2000, tuple(fields))
    values = dict(zip(block.indexes, block.decode(memory, {}), strict=True))
    assert [values[index] for index in range(len(numbers))] == [
        bool(memory[number // 8] >> number % 8 & 1) for number in numbers
    ]


def test_bits_of_a_register_count_from_the_least_significant() -> None:
    tags = [tag(f"holding:0.{bit}") for bit in range(16)]
    assert read(b"\x80\x05", *tags)[0] == [bit in (0, 2, 15) for bit in range(16)]
    swapped = [tag(f"holding:0.{bit}", order="BADC") for bit in range(16)]
    assert read(b"\x05\x80", *swapped)[0] == [bit in (0, 2, 15) for bit in range(16)]


# --- writing -------------------------------------------------------------------------------------------------


def written(its: ModbusTag, value: Value) -> bytes:
    return b"".join(word.to_bytes(2, "big") for word in encode(field_of(0, its), value))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bool", True),
        ("int16", -5),
        ("uint32", 4294967294),
        ("int64", "9007199254740993"),
        ("float32", 0.1),
        ("float64", 0.1),
    ],
)
def test_what_is_written_reads_back(kind: str, value: Value, order: str) -> None:
    its = tag("holding:0", type=kind, order=order)
    assert read(written(its, value), its)[0] == [value]


def test_scale_and_length_count_when_writing_too() -> None:
    assert written(tag("holding:0", type="int16", scale=0.1, offset=5.0), 12.3) == struct.pack(">h", 73)
    assert written(tag("holding:0", type="string", length=4, order="BADC"), "SN1") == b"NS\x001"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"type": "int16"}, 32768),
        ({"type": "uint16"}, -1),
        ({"type": "uint16"}, "many"),
        ({"type": "uint16"}, None),
        ({"type": "float32"}, 1e39),
        ({"type": "float32"}, math.nan),
        ({"type": "bool"}, 2),
        ({"type": "string", "length": 2}, "SN1"),
        ({"type": "string", "length": 2}, 5),
    ],
)
def test_what_a_type_cannot_hold_is_not_written(keys: dict[str, object], value: Value) -> None:
    with pytest.raises(ValueError, match=r"fit|text|true"):
        encode(field_of(0, tag("holding:0", **keys)), value)


def test_the_values_of_a_group_are_json_that_every_reader_agrees_on() -> None:
    tags = tag("holding:0", type="uint64"), tag("holding:4", type="int64"), tag("holding:1", type="int16")
    values, _ = read(PI * 2, *tags)
    assert orjson.loads(orjson.dumps(values)) == values
    assert not [value for value in values if isinstance(value, int) and abs(value) > 2**53]
