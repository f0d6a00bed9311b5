"""The opcua codec: bytes that asyncua encodes, read by ours; any other bytes; what becomes of values."""

from __future__ import annotations

import contextlib
import math
import struct
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.model import Instant, Tag, TagSet
from edge_agent_drivers.opcua import answers
from edge_agent_drivers.opcua import binary as b
from edge_agent_drivers.opcua.codes import words
from edge_agent_drivers.opcua.images import GroupImage, News, steps_of
from edge_agent_drivers.opcua.nodeid import node_text, parse_node
from edge_agent_drivers.opcua.structures import Form, Layout, Member, Structures
from edge_agent_drivers.opcua.values import EXACT, Taker, shortest
from edge_agent_drivers.opcua.writing import encodable

ANY: Any = ua  # its number types are not Python's

TEXT = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
NODES = st.one_of(
    st.builds(lambda ns, i: ANY.NodeId(i, ns), st.integers(0, 65535), st.integers(0, 2**32 - 1)),
    st.builds(lambda ns, s: ANY.NodeId(s, ns), st.integers(0, 65535), TEXT.filter(bool)),
    st.builds(lambda ns, g: ANY.NodeId(g, ns), st.integers(0, 65535), st.uuids()),
)
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


Made = tuple[ua.DataValue, str, Any, bool]
"""What asyncua encodes, and what it was made of: built-in type, value, whether an array."""


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


RAW: dict[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    **{f"Int{bits}": integers(bits, True) for bits in (16, 32, 64)},
    **{f"UInt{bits}": integers(bits, False) for bits in (16, 32, 64)},
    "SByte": integers(8, True),
    "Byte": integers(8, False),
    "Float": st.floats(width=32),
    "Double": st.floats(),
    "String": TEXT,
    "Guid": st.uuids(),
    "ByteString": st.one_of(st.none(), st.binary(max_size=20)),
    "DateTime": TIMES,
}


def ticks(at: datetime) -> int:
    return (at - datetime(1601, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def expected(kind: str, value: Any) -> Any:
    if isinstance(value, list):
        return [expected(kind, each) for each in value]
    return ticks(value) if kind == "DateTime" else value


@st.composite
def data_values(draw: st.DrawFn) -> Made:
    kind = draw(st.sampled_from(sorted(RAW)))
    is_array = draw(st.booleans())
    value = draw(st.lists(RAW[kind], max_size=5) if is_array else RAW[kind])
    said = ANY.DataValue(
        ANY.Variant(value, ua.VariantType[kind], is_array=is_array),
        draw(st.one_of(st.none(), st.sampled_from([0, 0x80340000, 0x40900480]).map(ua.StatusCode))),
        draw(st.one_of(st.none(), TIMES)),
        draw(st.one_of(st.none(), TIMES)),
    )
    return said, kind, value, is_array


def ns_of(at: datetime | None) -> int | None:
    return None if at is None else (ticks(at) - b.UNIX_EPOCH_TICKS) * 100


def agrees(found: b.DataValue, said: ua.DataValue, kind: str, value: Any, is_array: bool) -> None:
    assert found.type == ua.VariantType[kind].value
    assert found.is_array is is_array
    assert same(expected(kind, value), found.raw)
    assert found.code == (said.StatusCode.value if said.StatusCode else 0)
    assert found.source_ns == ns_of(said.SourceTimestamp)
    assert found.server_ns == ns_of(said.ServerTimestamp)


@given(data_values())
def test_a_value_is_what_asyncua_encodes(made: Made) -> None:
    agrees(b.Reader(struct_to_binary(made[0])).datavalue(), *made)


@settings(max_examples=40)
@given(st.lists(data_values(), max_size=8), st.integers(1, 2**32 - 1))
def test_a_publish_response_is_what_asyncua_encodes(made: list[Made], number: int) -> None:
    items = [ANY.MonitoredItemNotification(handle, said) for handle, (said, *_) in enumerate(made)]
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 7  # type: ignore[assignment]
    response.Parameters.NotificationMessage.SequenceNumber = number  # type: ignore[assignment]
    response.Parameters.NotificationMessage.NotificationData = [ANY.DataChangeNotification(items, [])]
    found = answers.published(struct_to_binary(response))
    assert (found.subscription, found.message.sequence, found.message.is_keep_alive) == (7, number, False)
    assert [handle for handle, _ in found.message.items] == list(range(len(made)))
    for (_, value), each in zip(found.message.items, made, strict=True):
        agrees(value, *each)


@given(NODES)
def test_a_node_id_is_what_asyncua_encodes_and_what_the_config_writes(node: ua.NodeId) -> None:
    found = b.Reader(ua.ua_binary.nodeid_to_binary(node)).nodeid()
    assert (found.namespace, found.identifier) == (node.NamespaceIndex, node.Identifier)
    assert parse_node(node_text(found.namespace, found.identifier)) == (found.namespace, found.identifier)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    for read in (
        answers.published, answers.read, answers.history, answers.republished, answers._items,
        lambda data: b.Reader(data).datavalue(),
    ):  # fmt: skip
        with contextlib.suppress(b.Malformed):
            read(data)


@given(data_values(), st.data())
def test_a_damaged_value_is_a_value_or_malformed(made: Made, data: st.DataObject) -> None:
    good = bytearray(struct_to_binary(made[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = b.Reader(bytes(good[: data.draw(st.integers(0, len(good)))])).datavalue()
    except b.Malformed:
        return
    for type_name in ("float64", "string[]", "object", "object[]", "int8", "datetime", "bytes"):
        value, why = Taker(type_name, Structures()).take(found)
        assert value is not None or why


def test_times_keep_their_100_nanoseconds_and_no_time_is_none() -> None:
    data = struct.pack("<BBdqq", 13, b.DOUBLE, 1.5, b.UNIX_EPOCH_TICKS + 12_345_678_901, 0)
    said = b.Reader(data).datavalue()
    assert (said.source_ns, said.server_ns) == (1_234_567_890_100, None)


def test_picoseconds_stand_behind_their_time() -> None:
    # OPC 10000-6, 5.2.2.17; asyncua 2.1 puts both behind both times
    data = struct.pack("<BqHqH", 4 | 8 | 16 | 32, b.UNIX_EPOCH_TICKS + 1, 9900, b.UNIX_EPOCH_TICKS + 2, 100)
    said = b.Reader(data).datavalue()
    assert (said.source_ns, said.server_ns) == (199, 201)


# --- values --------------------------------------------------------------------------------------------------


def taken(type_name: str, kind: int, raw: Any, code: int = 0) -> tuple[Any, str]:
    return Taker(type_name, Structures()).take(b.DataValue(kind, isinstance(raw, list), raw, code))


@pytest.mark.parametrize(
    ("type_name", "kind", "raw", "value", "why"),
    [
        ("float32", b.FLOAT, struct.unpack("<f", struct.pack("<f", 0.1))[0], 0.1, ""),
        ("float64", b.FLOAT, struct.unpack("<f", struct.pack("<f", 0.1))[0], 0.1, ""),
        ("float64", b.DOUBLE, math.nan, None, "not a number"),
        ("float64", b.INT32, -7, -7.0, ""),
        ("float64", b.INT64, 7, None, "the server has Int64, the config says float64"),
        ("float32", b.DOUBLE, 0.5, None, "the server has Double, the config says float32"),
        ("int64", b.INT64, -(2**60), str(-(2**60)), ""),
        ("int64", b.UINT32, 5, 5, ""),
        ("int16", b.INT32, 5, None, "the server has Int32, the config says int16"),
        ("int32", b.INT32, [1], None, "the server has Int32[], the config says int32"),
        ("int32[]", b.INT32, [[1, 2], [3, 4]], [[1, 2], [3, 4]], ""),
        ("float64[]", b.DOUBLE, [1.5, math.inf], [1.5, None], "not a number"),
        ("bool", b.BYTE, 1, None, "the server has Byte, the config says bool"),
        ("string", b.STRING, None, None, "null"),
        ("string", b.STRING, b"\xff", None, "not text"),
        ("string", b.LOCALIZED_TEXT, b.LocalizedText("de", "Presse"), "Presse", ""),
        ("object", b.LOCALIZED_TEXT, b.LocalizedText("de", "Presse"), {"locale": "de", "text": "Presse"}, ""),
        ("string", b.NODEID, b.NodeIdValue(2, "a"), "ns=2;s=a", ""),
        ("string", b.STATUSCODE, 0x80340000, "Bad_NodeIdUnknown", ""),
        ("string", b.GUID, uuid.UUID(int=5), str(uuid.UUID(int=5)), ""),
        ("datetime", b.DATETIME, b.UNIX_EPOCH_TICKS + 1_234_567, "1970-01-01T00:00:00.1234567Z", ""),
        ("datetime", b.DATETIME, 0, None, "no time"),
        ("bytes", b.BYTESTRING, b"\x00\xff", "AP8=", ""),
        ("int32", b.NULL, None, None, "null"),
        (
            "object[]",
            b.VARIANT,
            [b.VariantValue(b.INT32, False, 5), b.VariantValue(b.STRING, True, ["a", None])],
            [5, ["a", None]],
            "",
        ),
    ],
)  # fmt: skip
def test_a_value_in_the_tags_type(type_name: str, kind: int, raw: Any, value: Any, why: str) -> None:
    assert taken(type_name, kind, raw) == (value, why)


@pytest.mark.parametrize(
    ("code", "value", "why"),
    [
        (0, 1.5, ""),
        (0x480, 1.5, "overflow"),
        (0x00960000, 1.5, "Good_LocalOverride"),
        (0x40900000, 1.5, "Uncertain_LastUsableValue"),
        (0x40900480, 1.5, "Uncertain_LastUsableValue, overflow"),
        (0x808C0000, None, "Bad_SensorFailure"),
    ],
)
def test_a_status_is_said_in_words(code: int, value: Any, why: str) -> None:
    assert taken("float64", b.DOUBLE, 1.5, code) == (value, why)


def test_a_code_of_the_makers_own_is_said_as_a_number() -> None:
    assert words(0x92340000) == "Bad_0x92340000"


@pytest.mark.parametrize("entered", [8.6e9, 1e-40, 0.000976577, 0.1, 23.5, 16777216.0, 3.4028235e38, 0.0])
def test_a_float_prints_as_it_was_entered(entered: float) -> None:
    (stored,) = struct.unpack("<f", struct.pack("<f", entered))
    assert shortest(stored) == entered


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_double_is_the_same_float(raw: float) -> None:
    short = shortest(raw)
    assert struct.pack("<f", short) == struct.pack("<f", raw)
    assert len(Decimal(repr(short)).normalize().as_tuple().digits) <= 9


def test_an_enumeration_is_told_by_name() -> None:
    taker = Taker("string", Structures(), {0: "Off", 1: "Auto"})
    assert taker.take(b.DataValue(b.INT32, False, 1)) == ("Auto", "")
    assert taker.take(b.DataValue(b.INT32, False, 9)) == (None, "the enumeration has no name for 9")


# --- structures ----------------------------------------------------------------------------------------------


def known() -> Structures:
    inner = Layout(Form.OPTIONAL, (Member("name", b.STRING), Member("limit", b.DOUBLE, optional=True)))
    union = Layout(Form.UNION, (Member("number", b.INT64), Member("text", b.STRING)))
    outer = Layout(
        Form.PLAIN,
        (
            Member("id", b.UINT64),
            Member("steps", b.EXTENSION_OBJECT, (2, "inner"), dimensions=1),
            Member("either", b.EXTENSION_OBJECT, (2, "union")),
            Member("grid", b.INT16, dimensions=2),
        ),
    )
    return Structures({(2, 1): outer}, {(2, "inner"): inner, (2, "union"): union, (2, "outer"): outer})


BODY = (
    struct.pack("<Q", 2**63)
    + struct.pack("<i", 2)
    + struct.pack("<Ii", 0, 1) + b"a"
    + struct.pack("<Ii", 1, 1) + b"b" + struct.pack("<d", 0.5)
    + struct.pack("<I", 2) + struct.pack("<i", 2) + b"hi"
    + struct.pack("<iii", 2, 2, 2) + struct.pack("<4h", 1, 2, 3, 4)
)  # fmt: skip


def test_a_structure_is_its_fields() -> None:
    said = b.DataValue(b.EXTENSION_OBJECT, False, b.Extension(b.NodeIdValue(2, 1), BODY))
    assert Taker("object", known()).take(said) == (
        {
            "id": str(2**63),
            "steps": [{"name": "a"}, {"name": "b", "limit": 0.5}],
            "either": {"text": "hi"},
            "grid": [[1, 2], [3, 4]],
        },
        "",
    )


@given(st.data())
def test_a_damaged_structure_keeps_its_bytes(data: st.DataObject) -> None:
    body = bytearray(BODY)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    value, why = Taker("object", known()).take(
        b.DataValue(b.EXTENSION_OBJECT, False, b.Extension(b.NodeIdValue(2, 1), cut))
    )
    assert isinstance(value, dict)
    assert why or set(value) == {"id", "steps", "either", "grid"}


def test_a_structure_that_nobody_described_keeps_its_bytes_and_is_asked_for() -> None:
    structures = known()
    said = b.DataValue(b.EXTENSION_OBJECT, False, b.Extension(b.NodeIdValue(3, 9), b"\x01"))
    value, why = Taker("object", structures).take(said)
    assert value == {"encoding": "ns=3;i=9", "body": "AQ=="}
    assert why == "the server does not describe this structure"
    assert structures.unknown == {(3, 9)}


# --- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "type_name", "value", "raw"),
    [
        (b.BOOLEAN, "bool", 1, True),
        (b.UINT16, "uint16", True, 1),  # a gate's verdict
        (b.BYTE, "int32", 255, 255),
        (b.UINT64, "uint64", str(2**63), 2**63),
        (b.INT16, "float64", 3.0, 3),
        (b.DOUBLE, "float64", 3, 3.0),
        (b.FLOAT, "float32", 0.1, struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        (b.BYTESTRING, "bytes", "AP8=", b"\x00\xff"),
        (b.INT16, "int16[]", [[1], [2]], [[1], [2]]),
        (b.DATETIME, "datetime", "1970-01-01T00:00:00Z", b.UNIX_EPOCH_TICKS),
    ],
)
def test_a_value_goes_out_in_the_nodes_type(kind: int, type_name: str, value: Any, raw: Any) -> None:
    assert encodable(kind, type_name, value).raw == raw


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (b.BYTE, 256), (b.UINT16, -1), (b.INT32, 1.5), (b.BOOLEAN, "on"), (b.DOUBLE, math.nan),
        (b.FLOAT, 1e39), (b.STRING, 5), (b.STRING, "\ud800"), (b.GUID, "x"), (b.BYTESTRING, "!"), (b.DATETIME, "soon"),
        (b.EXTENSION_OBJECT, {}), (b.NULL, 1), (b.DOUBLE, [1.0, "x"]), (b.DOUBLE, None),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused(kind: int, value: Any) -> None:
    with pytest.raises(ValueError):
        encodable(kind, "float64[]" if isinstance(value, list) else "float64", value)


# --- samples -------------------------------------------------------------------------------------------------

SET = TagSet("plc", "state", (Tag("a", "int64"), Tag("b", "int64"), Tag("c", "int64")))
NEWS = st.builds(
    News, st.integers(0, 2), st.integers(), st.just(""), st.one_of(st.none(), st.integers(1, 20)), st.none()
)


@given(st.lists(NEWS, min_size=1, max_size=30))
def test_every_notified_value_is_in_exactly_one_sample_in_its_tags_order(news: list[News]) -> None:
    steps = steps_of(news)
    for place in range(3):
        assert [each for step in steps for each in step if each.place == place] == [
            each for each in news if each.place == place
        ]
    assert all(len({each.place for each in step}) == len(step) for step in steps)


def test_samples_carry_the_newest_of_all_and_the_times_of_the_news() -> None:
    image = GroupImage(SET)
    news = [News(0, 1, "", 10, 11), News(1, 5, "", 10, 10), News(0, 2, "", 20, None), News(0, 3, "overflow", None, 30)]
    samples = image.samples(news, Instant(100, 50), 40)
    assert [sample.values for sample in samples] == [(1, 5, None), (2, 5, None), (3, 5, None)]
    assert [sample.source_ns for sample in samples] == [{0: 10, 1: 10}, {0: 20}, {0: 30}]
    assert samples[0].server_ns == {0: 11}
    assert samples[2].status == {0: "overflow", 2: "no value yet"}


def test_integers_are_exact_up_to_what_json_readers_agree_on() -> None:
    assert taken("int64", b.INT64, EXACT) == (EXACT, "")
    assert taken("int64", b.INT64, EXACT + 1) == (str(EXACT + 1), "")


# --- bytes made to hurt --------------------------------------------------------------------------------------


def int32s(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


def nested(count: int) -> b.Extension:
    """A structure that holds itself so often, each time in an ExtensionObject of its own."""
    data = b"\0\0\0"
    for _ in range(count):
        data = struct.pack("<BBHBi", 1, 0, 900, 1, len(data)) + data
    found = b.Reader(data).extension()
    assert found is not None
    return found


def structures(member: Member) -> Structures:
    made = Structures()
    made.by_encoding[0, 900] = Layout(Form.PLAIN, (member,))
    return made


def test_what_is_nested_without_end_is_undecodable_and_nothing_worse() -> None:
    taker = Taker("object", structures(Member("x", b.EXTENSION_OBJECT)))
    fine, why = taker.take(b.DataValue(b.EXTENSION_OBJECT, False, nested(5)))
    assert (fine, why) == ({"x": {"x": {"x": {"x": {"x": None}}}}}, "")
    for depth in (300, 3000):
        assert taker.take(b.DataValue(b.EXTENSION_OBJECT, False, nested(depth)))[1].startswith("undecodable")


@pytest.mark.parametrize("count", [900, 5000])
def test_an_array_of_too_many_dimensions_is_malformed(count: int) -> None:
    with pytest.raises(b.Malformed, match="dimensions"):
        b.Reader(b"\xc6" + int32s(1, 5, count, *[1] * count)).variant()
    matrix = b.Extension(b.NodeIdValue(0, 900), int32s(count, *[2**31 - 1] * count))
    taker = Taker("object", structures(Member("x", b.INT32, None, 2)))
    assert taker.take(b.DataValue(b.EXTENSION_OBJECT, False, matrix))[1].startswith("undecodable")


def test_an_answer_of_more_objects_than_are_sane_is_malformed() -> None:
    for code in (b.VARIANT, b.DATAVALUE, b.LOCALIZED_TEXT):
        few = b.Reader(bytes([0x80 | code]) + int32s(1000) + bytes(1000)).variant()
        assert len(few.raw) == 1000
        with pytest.raises(b.Malformed, match="more than"):
            b.Reader(bytes([0x80 | code]) + int32s(b.MAX_OBJECTS + 1) + bytes(b.MAX_OBJECTS + 1)).variant()


def test_a_notification_of_more_items_than_are_sane_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ELEMENTS", 10)
    item = struct.pack("<IBBd", 7, 1, b.DOUBLE, 1.5)
    assert len(answers._items(int32s(10) + item * 10)) == 10
    with pytest.raises(b.Malformed, match=r"a notification of 11 items$"):
        answers._items(int32s(11) + item * 11)


@pytest.mark.parametrize("ticks", [1, b.FIRST_TICKS - 1, b.LAST_TICKS + 1, 2_650_467_743_990_000_000, 2**63 - 1])
def test_a_time_that_fits_in_no_record_is_none(ticks: int) -> None:
    assert b.ticks_to_ns(ticks) is None
    body = struct.pack("<iIBBdqq", 1, 7, 13, b.DOUBLE, 1.5, ticks, ticks)
    ((_, said),) = answers._items(body)
    assert (said.raw, said.source_ns, said.server_ns) == (1.5, None, None)
    assert all(-(2**63) <= (b.ticks_to_ns(edge) or 0) < 2**63 for edge in (b.FIRST_TICKS, b.LAST_TICKS))
