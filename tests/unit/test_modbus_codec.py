"""Registers and bits to values: every layout against a decoder that takes one tag at a time."""

from __future__ import annotations

import contextlib
import math
import struct
from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.model import Value
from edge_agent_drivers.modbus.codec import Field, decode, field_of
from edge_agent_drivers.modbus.config import ModbusTag, Quirks
from edge_agent_drivers.modbus.encode import encode, mask_of
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
        ("float32", "00000001", 1e-45),
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
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if abs(short) < 3.4028236e38 and struct.unpack("f", struct.pack("f", short))[0] == value:
            return short
    raise AssertionError(value)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_float32_is_the_shortest_double_that_gives_it_back(values: list[float]) -> None:
    found = shortest(values)
    assert list(found) == [slow_shortest(value) for value in values]
    assert all(type(value) is float for value in found)


TINY = st.floats(-1e-37, 1e-37)
COARSE = st.floats(9.5e-4, 1e-3) | st.floats(8.5e9, 1e10) | st.floats(8e-19, 1e-18)


@given(st.lists((TINY | COARSE).map(lambda value: struct.unpack("f", struct.pack("f", value))[0]), min_size=1))
def test_it_is_so_where_seven_digits_are_too_many(values: list[float]) -> None:
    assert list(shortest(values)) == [slow_shortest(value) for value in values]


@pytest.mark.parametrize("entered", [1e-40, 1e-45, 8.6e9, 9e9, 9.76577e-4, -9.76577e-4, 9.73e-7, 9.08e15, 1e28])
def test_no_digit_is_added_to_what_was_entered(entered: float) -> None:
    numbers = [0.1, entered, 12.3]
    as_float32 = struct.unpack("3f", struct.pack("3f", *numbers))
    assert list(shortest(as_float32)) == numbers


@given(st.integers(-(10**6), 10**6), st.integers(0, 6))
def test_what_was_entered_with_six_digits_comes_back_as_entered(digits: int, decimals: int) -> None:
    entered = digits / 10**decimals
    (as_float32,) = struct.unpack("f", struct.pack("f", entered))
    assert list(shortest([as_float32])) == [entered]


# --- whole blocks against one tag at a time ------------------------------------------------------------------

KINDS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
KINDS += ["bcd16", "bcd32", "string"]


@st.composite
def register_tags(draw: st.DrawFn) -> list[ModbusTag]:
    """Tags anywhere in registers 0-99: overlapping, in any order, of any type, bits, bytes, arrays, codes."""
    tags = []
    for _ in range(draw(st.integers(1, 20))):
        number, kind = draw(st.integers(0, 99)), draw(st.sampled_from([*KINDS, "bit"]))
        address, keys = f"holding:{number}", {"order": draw(st.sampled_from(list(ORDERS)))}
        count = draw(st.sampled_from([None, None, 1, 3]))
        if kind == "bit":
            address += f".{draw(st.integers(0, 15))}"
        elif kind == "string":
            keys["length"] = draw(st.integers(1, 9))
        elif kind in ("int8", "uint8") and count is None:
            del keys["order"]
            address += draw(st.sampled_from(["", ".low", ".high"]))
        elif kind != "bool":
            keys["scale"] = draw(st.sampled_from([1.0, 1.0, 0.1]))
        if kind != "bit":
            keys["type"] = kind
        if kind != "string" and count is not None:
            keys["count"] = count
        if kind not in ("string", "float32", "float64") and keys.get("scale", 1.0) == 1.0 and draw(st.booleans()):
            keys["enum"] = {0: "off", 1: "on", 255: "all", 4096: "many"}
        tags.append(tag(address, **keys))
    return tags


def alone(memory: bytes, its: ModbusTag) -> tuple[Value, str | None]:
    """The value of one tag by its own block: no layer, no neighbour."""
    field = field_of(0, its)
    part = memory[2 * field.start : 2 * field.end]
    (block,) = plan([field], Quirks())
    status: dict[int, str] = {}
    (value,) = decode(block.layers, part, status)
    return value, status.get(0)


@given(tags=register_tags(), seed=st.binary(min_size=256, max_size=256))
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


# --- bytes, BCD, arrays, names -----------------------------------------------------------------------------------


def test_a_byte_is_the_low_one_of_its_register_unless_the_other_is_named() -> None:
    tags = (
        tag("holding:0", type="uint8"),
        tag("holding:0.low"),
        tag("holding:0.high"),
        tag("holding:1.high", type="int8"),
    )
    assert read(b"\x12\x34\xff\x00", *tags)[0] == [0x34, 0x34, 0x12, -1]


def test_bytes_of_an_array_stand_two_a_register() -> None:
    assert read(b"\1\2\3\4", tag("holding:0", type="uint8", count=3))[0] == [[1, 2, 3]]
    assert read(b"\1\2\3\4", tag("holding:0", type="uint8", count=4, order="BADC"))[0] == [[2, 1, 4, 3]]


@pytest.mark.parametrize(
    ("kind", "order", "wire", "value"),
    [
        ("bcd16", "ABCD", "1234", 1234),
        ("bcd16", "BADC", "3412", 1234),
        ("bcd32", "ABCD", "12345678", 12345678),
        ("bcd32", "CDAB", "56781234", 12345678),
        ("bcd16", "ABCD", "0000", 0),
        ("bcd16", "ABCD", "12A4", None),
        ("bcd32", "ABCD", "F0000000", None),
    ],
)
def test_bcd_is_the_decimal_digits_or_nothing(kind: str, order: str, wire: str, value: int | None) -> None:
    found = read(bytes.fromhex(wire), tag("holding:0", type=kind, order=order))
    assert found == ([value], {} if value is not None else {0: "not BCD"})


def test_scaled_bcd_is_scaled_and_stays_nothing_when_it_is_none() -> None:
    tags = tag("holding:0", type="bcd16", scale=0.1), tag("holding:1", type="bcd16", scale=0.1)
    assert read(bytes.fromhex("0123 FFFF"), *tags) == ([12.3, None], {1: "not BCD"})


def test_codes_have_their_names_and_one_without_is_never_passed_in_silence() -> None:
    names = {0: "idle", 1: "running", 65535: "fault"}
    tags = [tag(f"holding:{number}", enum=names) for number in range(4)]
    payload = bytes.fromhex("0000 0001 FFFF 0007")
    assert read(payload, *tags) == (["idle", "running", "fault", None], {3: "code 7 has no name"})
    assert read(b"\1", tag("coil:0", enum={0: "open", 1: "closed"}))[0] == ["closed"]
    whole = tag("holding:0", enum=names, count=4)
    assert read(payload, whole) == ([["idle", "running", "fault", None]], {0: "element 3: code 7 has no name"})


def test_bits_of_an_array_run_on_into_the_next_register() -> None:
    values, _ = read(b"\x80\x00\x00\x03", tag("holding:0.14", count=5))
    assert values == [[False, True, True, True, False]]
    assert read(b"\5", tag("coil:0", count=3))[0] == [[True, False, True]]


def test_an_element_that_is_no_number_is_none_in_its_place() -> None:
    its = tag("holding:0", type="float32", count=3)
    assert read(struct.pack(">3f", 0.1, math.nan, -1.5), its) == ([[0.1, None, -1.5]], {0: "element 1: not a number"})
    assert its.recorded_type == "float32[]"


@given(
    kind=st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bcd16", "bcd32"]),
    order=st.sampled_from(list(ORDERS)),
    count=st.integers(1, 20),
    data=st.data(),
)
def test_arrays_of_whole_numbers_come_back_as_they_were_written(
    kind: str, order: str, count: int, data: st.DataObject
) -> None:
    digits = {"bcd16": 4, "bcd32": 8}.get(kind)
    width = 0 if digits else int(kind.removeprefix("u").removeprefix("int"))
    low = -(2 ** (width - 1)) if kind.startswith("int") else 0
    high = 10**digits - 1 if digits else low + 2**width - 1
    values = data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    said = [value if abs(value) <= 2**53 else str(value) for value in values]
    its = tag("holding:0", type=kind, order=order, count=count)
    assert read(written(its, said), its) == ([said], {})  # type: ignore[arg-type]  # lists are invariant


@given(
    kind=st.sampled_from(["float32", "float64"]),
    order=st.sampled_from(list(ORDERS)),
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
)
def test_arrays_of_floats_come_back_as_they_were_written(kind: str, order: str, values: list[float]) -> None:
    its = tag("holding:0", type=kind, order=order, count=len(values))
    found, status = read(written(its, values), its)  # type: ignore[arg-type]  # lists are invariant
    assert status == {}
    assert found == [list(shortest(values)) if kind == "float32" else values]


@given(bit=st.integers(0, 15), count=st.integers(1, 16), order=st.sampled_from(["ABCD", "BADC"]), data=st.data())
def test_a_mask_write_sets_just_the_bits_of_the_tag(bit: int, count: int, order: str, data: st.DataObject) -> None:
    count = min(count, 16 - bit)
    values = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    before = data.draw(st.integers(0, 65535))
    its = tag(f"holding:0.{bit}", count=count, order=order)
    field = field_of(0, its)
    (set_,) = encode(field, values)  # type: ignore[arg-type]  # lists are invariant
    mask = mask_of(field)
    after = before & ~mask | set_ & mask
    assert set_ & ~mask == 0
    assert read(after.to_bytes(2, "big"), its)[0] == [values]
    others = [tag(f"holding:0.{other}", order=order) for other in range(16) if not bit <= other < bit + count]
    if others:
        assert read(after.to_bytes(2, "big"), *others) == read(before.to_bytes(2, "big"), *others)


@settings(max_examples=50)
@given(
    tags=register_tags(),
    value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
)
def test_what_cannot_be_written_is_a_value_error_and_nothing_else(tags: list[ModbusTag], value: Value) -> None:
    for its in tags:
        with contextlib.suppress(ValueError):
            assert all(0 <= word <= 0xFFFF for word in encode(field_of(0, its), value))


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
    assert written(tag("holding:0", type="int16", scale=0.1), 0.1 + 0.2) == struct.pack(">h", 3)
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
        ({"type": "float64"}, "1e400"),  # would be written as infinity
        ({"type": "float64", "scale": 1e-12}, 1e308),
        ({"type": "uint16"}, 12.7),
        ({"type": "uint16", "scale": 10}, 15),  # the device would show 20
        ({"type": "string", "length": 4}, "a\0b"),
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
