"""Rows become messages: numbered densely, spliced not re-encoded, bounded."""

from __future__ import annotations

from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.buffer import Row
from edge_agent.model import Kind
from edge_agent.routes.message import HEAD_BYTES, Batch, Stream, build

STREAM = Stream("l3-pc1", "9f2c41d07ab3.mes.1", "9f2c41d07ab3", "boot", "a/b/c/d/_agent/l3-pc1/confirm")
NO_CAP = 2**31


def row(seq: int, source: str = "press.state", kind: int = Kind.SAMPLE, synced: int = 1, size: int = 0) -> Row:
    body = orjson.dumps({"tagset": "t", "values": [seq, "x" * size]})
    return Row(seq, kind, source, 1_795_293_977_820_854_877, 773_254_142_335, synced, body)


def hole(last_seq: int, count: int) -> Row:
    return Row(last_seq, 0, "", 0, 0, 1, orjson.dumps({"count": count, "reason": "max_backlog"}))


def parsed(batch: Batch) -> list[dict]:
    return [orjson.loads(message.payload(STREAM, 90)) for message in batch.messages]


def test_a_record_is_its_body_with_the_envelope_before_it() -> None:
    (message,) = parsed(build([row(90211)], 117, 90211, 131072, NO_CAP))
    assert message == {
        "v": 1, "agent": "l3-pc1", "stream": STREAM.name, "log": STREAM.log, "boot": "boot", "source": "press.state",
        "kind": "sample", "n": 118, "after": 90, "confirm": STREAM.confirm,
        "records": [{"n": 118, "seq": 90211, "at_ns": "1795293977820854877", "mono_ns": "773254142335",
                     "tagset": "t", "values": [90211, ""]}],
    }  # fmt: skip


def test_a_record_of_an_untrusted_clock_says_so() -> None:
    (message,) = parsed(build([row(1, synced=0), row(2)], 0, 2, 131072, NO_CAP))
    assert [record.get("synced") for record in message["records"]] == [False, None]


def test_a_record_larger_than_a_message_leaves_a_tombstone_and_the_rest_goes_on() -> None:
    batch = build([row(1), row(2, size=9000), row(3)], 0, 3, 8192, NO_CAP)
    assert [(item.n, item.seq) for item in batch.unsendable] == [(2, 2)]
    assert [(m["kind"], [r["n"] for r in m["records"]]) for m in parsed(batch)] == [
        ("sample", [1, 3]),
        ("tombstone", [2]),
    ]


def test_recorded_drops_use_up_their_numbers() -> None:
    batch = build([row(1), hole(40, 30), row(41)], 0, 41, 131072, NO_CAP)
    records = [(m["kind"], record["n"], record.get("count")) for m in parsed(batch) for record in m["records"]]
    assert records == [("sample", 1, None), ("sample", 32, None), ("tombstone", 2, 30)]
    assert batch.last_n == 32
    assert batch.mark(20) == (1, 1), "the middle of a tombstone is no place to stop at"
    assert batch.mark(31) == (40, 31)
    assert batch.seq_of(32) == 41


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["press.state", "press.result", "OP20", "oven.zone1"]),
        st.sampled_from([Kind.SAMPLE, Kind.BINDING, Kind.SCAN, None]),
        st.integers(0, 5000),
    ),
    max_size=60,
)


@given(ROWS, st.integers(0, 10**9), st.integers(4096, 9000), st.integers(1, 10))
def test_every_number_is_in_exactly_one_message_and_no_message_is_too_large(
    shape: list[tuple[str, Kind | None, int]], last_n: int, limit: int, cap: int
) -> None:
    rows = [
        hole(seq, size % 7 + 1) if kind is None else row(seq, source, kind, size % 2, size)
        for seq, (source, kind, size) in enumerate(shape, 1)
    ]
    batch = build(rows, last_n, len(rows), limit, cap)
    covered = []
    for message, made in zip(parsed(batch), batch.messages, strict=True):
        assert len(made.payload(STREAM, 90)) <= limit
        assert message["kind"] == "tombstone" or len(message["records"]) <= cap
        assert message["n"] == message["records"][0]["n"] == made.n
        for record in message["records"]:
            covered += range(record["n"], record["n"] + record.get("count", 1))
        assert covered[-1] == made.last_n
    assert sorted(covered) == list(range(last_n + 1, batch.last_n + 1))
    assert [message.n for message in batch.messages] == sorted(message.n for message in batch.messages)


def test_many_small_records_of_an_untrusted_clock_and_a_long_log_fit_too() -> None:
    rows = [row(seq, synced=0)._replace(mono_ns=10**18) for seq in range(10**15, 10**15 + 3000)]
    batch = build(rows, 10**15 - 1, rows[-1].seq, 131072, NO_CAP)
    assert len(batch.messages) > 1
    assert max(len(message.payload(STREAM, 10**15)) for message in batch.messages) <= 131072


def test_a_repeated_record_says_so_and_whose_request_it_answers() -> None:
    (message,) = build([row(1)], 0, 1, 131072, NO_CAP).messages
    plain = orjson.loads(message.payload(STREAM, 0))
    assert "replayed" not in plain and "replay" not in plain
    backlog = orjson.loads(message.payload(replace(STREAM, replayed=True), 0))
    assert backlog == plain | {"replayed": True}
    asked = orjson.loads(message.payload(replace(STREAM, replayed=True, replay="ask-1"), 0))
    assert asked == plain | {"replayed": True, "replay": "ask-1"}


def test_the_head_fits_into_the_room_kept_for_it() -> None:
    name = "n" * 64
    topic = "/".join([name] * 6) + "/confirm"
    stream = Stream(name, f"9f2c41d07ab3.{name}.r9999999", "9f2c41d07ab3", "b" * 36, topic, True, "\u00e9" * 64)
    (message,) = build([row(1, source=f"{name}.{name}")], 10**15, 1, 131072, NO_CAP).messages
    assert len(message.payload(stream, 10**15)) - len(message.records) <= HEAD_BYTES
