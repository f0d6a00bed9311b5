"""Progress is contiguous, and reading again from it gives every record the number it had."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.buffer import Row
from edge_agent.model import Kind
from edge_agent.routes.message import Batch, Message, build, tombstone
from edge_agent.routes.window import Window

BODY = orjson.dumps({"values": [1.5] * 20})


def lane(count: int) -> list[Row]:
    """A lane: even seqs only (the odd ones do not pass the filter), three sources, a hole of 5 now and then."""
    rows = []
    for index in range(count):
        seq = 2 * (index + 1)
        if index % 11 == 10:
            rows.append(Row(seq, 0, "", 0, 0, 1, orjson.dumps({"count": 5, "reason": "dropped"})))
        else:
            rows.append(Row(seq, Kind.SAMPLE, f"d{index % 3}.g", 1, 1, 1, BODY))
    return rows


def read(rows: list[Row], after_seq: int, last_n: int, count: int) -> Batch:
    chosen = [row for row in rows if row.seq > after_seq][:count]
    return build(chosen, last_n, chosen[-1].seq if chosen else 10**6, 4096, 4)


def numbers(rows: list[Row]) -> dict[int, int]:
    """seq → the last n it uses."""
    batch = read(rows, 0, 0, 10**6)
    return dict(zip(batch.seqs, batch.numbers, strict=True))


LANE = lane(90)
NUMBER = numbers(LANE)


def check(window: Window, before: tuple[int, int]) -> tuple[int, int]:
    seq, n = window.progress()
    assert (seq, n) >= before, "progress never goes back"
    used = max((number for at, number in NUMBER.items() if at <= seq), default=0)
    assert n == used, "n is what the records up to seq have used"
    return seq, n


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=80))
def test_broker_acknowledgements_in_any_order_move_only_what_is_contiguous(steps: list[tuple[bool, int]]) -> None:
    window, settled, progress = Window(0, 0, 0), set(), (0, 0)
    for reading, chance in steps:
        if reading or not len(window):
            window.add(read(LANE, window.read_seq, window.last_n, 1 + chance % 17))
        else:
            message = list(window)[chance % len(window)]
            settled |= {record["n"] for record in orjson.loads(b"[" + message.records + b"]")}
            window.settle(message)
        progress = check(window, progress)
        open_n = min((message.n for message in window), default=window.last_n + 1)
        assert window.upto == open_n - 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 700)), max_size=80))
def test_confirmations_late_repeated_or_reordered_are_harmless(steps: list[tuple[bool, int]]) -> None:
    window, highest, progress = Window(0, 0, 0), 0, (0, 0)
    for reading, number in steps:
        if reading:
            window.add(read(LANE, window.read_seq, window.last_n, 1 + number % 17))
            for message in list(window)[:-1]:  # the last one waits in the queue
                window.sending(message)
        else:
            window.confirm(number)
            highest = max(highest, min(number, window.sent_n))
            assert window.upto <= window.sent_n, "what was not sent cannot be confirmed"
        progress = check(window, progress)
        assert all(message.last_n > window.upto for message in window)


def test_a_restart_at_progress_gives_the_same_numbers() -> None:
    window = Window(0, 0, 0)
    window.add(read(LANE, 0, 0, 40))
    for message in window:
        window.sending(message)
    window.confirm(23)
    seq, n = window.progress()
    again = read(LANE, seq, n, 10**6)
    assert {at: number for at, number in NUMBER.items() if at > seq} == dict(
        zip(again.seqs, again.numbers, strict=True)
    )


def test_what_does_not_pass_the_filter_is_settled_with_what_stands_before_it() -> None:
    window = Window(0, 0, 0)
    window.add(read(LANE, 0, 0, 3))
    assert window.progress() == (0, 0)
    for message in list(window):
        window.settle(message)
    window.add(Batch([], [], [], [], 500, window.last_n))
    assert window.progress() == (500, 3)


def test_a_tombstone_takes_the_place_of_a_refused_message() -> None:
    window = Window(0, 0, 0)
    window.add(read(LANE, 0, 0, 3))
    refused = window.head
    assert isinstance(refused, Message)
    stone = tombstone([(n, 1, "no") for n in refused.numbers()])
    window.replace(refused, stone)
    window.settle(refused)
    assert window.head is stone, "the refused one is settled by its tombstone only"
    for message in list(window):
        window.settle(message)
    assert window.upto == 3
    assert window.bytes == 0
