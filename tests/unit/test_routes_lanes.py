"""Which lanes are delivered and in which order; and what the log says of dead letters: each reason once."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.buffer import Buffer, Lane
from edge_agent.routes.confirmation import BadConfirmation, Confirmation
from edge_agent.routes.delivery import REASONS, Delivery
from edge_agent.routes.lanes import LANES_MAX, WINDOW_BYTES, Lanes
from edge_agent.routes.message import BATCH_BYTES, Batch, Message, Unsendable
from support.delivery import settings


class _Buffer:
    """As much of the buffer as is told of a dead letter."""

    durable_seq = 1000

    def dead_letter(self, lane: Lane, n: int, seq: int, reason: str) -> None: ...


@pytest.fixture
def delivery() -> Delivery:
    lanes = Lanes("mes", "pc1", cast("Buffer", _Buffer()))
    lanes.add([Lane("mes", 1, "log", "boot", 1, None, 0, 0, cast("Any", None), 1)])
    return lanes.all[0]


def test_a_reason_is_warned_of_once_and_then_only_for_debug(
    delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = range(1, 51)
    unsendable = [Unsendable(n, n, f"{10_000 + n} bytes: larger than a message may be") for n in numbers]
    with caplog.at_level(logging.DEBUG, "edge_agent"):
        delivery.take(Batch(numbers, numbers, [], unsendable, read_seq=50, last_n=50))
    assert [record.levelname for record in caplog.records] == ["WARNING", *["DEBUG"] * 49]


def test_a_receiver_that_makes_up_reasons_does_not_fill_the_log(
    delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message("gate", "scan", 1, 1, 1, b'{"n":1}')
    with caplog.at_level(logging.WARNING, "edge_agent"):
        for letter in map(chr, range(0x100, 0x100 + 2 * REASONS)):
            delivery.bury(message, f"not the part {letter}")
    assert len(caplog.records) == REASONS


def test_a_backlog_smaller_than_its_own_drop_records_is_refused() -> None:
    assert settings("mqtt://h", max_backlog="1MiB").max_backlog == 2**20
    with pytest.raises(ValueError, match="max_backlog"):
        settings("mqtt://h", max_backlog="100B")


def lane(id: int, from_seq: int, to_seq: int | None, purpose: str = "log") -> Lane:
    return Lane(
        "mes", id, "log", "boot", from_seq, to_seq, from_seq - 1, 0, cast("Any", None), id, purpose,
        None if purpose == "log" else f"ask-{id}",
    )  # fmt: skip


def lanes(*them: Lane, strict: bool = False) -> Lanes:
    made = Lanes("mes", "pc1", cast("Buffer", _Buffer()), strict=strict)
    made.add(them)
    return made


def ids(deliveries: list[Delivery]) -> list[int]:
    return [each.lane.id for each in deliveries]


BACKLOG = (lane(3, 500, None), lane(2, 300, 499), lane(1, 1, 299))


def test_live_first_delivers_the_live_lane_and_the_oldest_of_the_backlog() -> None:
    assert ids(lanes(*BACKLOG).wanted()) == [3, 1]


def test_strict_delivers_one_lane_of_the_log_after_the_other() -> None:
    made = lanes(*BACKLOG, strict=True)
    for expected in (1, 2, 3):
        assert ids(made.wanted()) == [expected]
        assert made.to_cut() is None
        made.finish(made.wanted()[0])


@pytest.mark.parametrize("strict", [True, False])
def test_a_few_asked_lanes_go_beside_in_the_order_of_asking(strict: bool) -> None:
    asked = [lane(10 + number, 400 - number, 400, "replay") for number in range(6)]
    wanted = lanes(*BACKLOG, *asked, strict=strict).wanted()
    assert [id for id in ids(wanted) if id >= 10] == [10, 11, 12, 13]


def test_live_goes_first_then_the_oldest() -> None:
    made = lanes(*BACKLOG, lane(9, 100, 200, "replay"))
    for delivery in made.wanted():
        delivery.begin({})
        for n in (1, 2):
            message = Message("gate", "scan", n, n, 1, b'{"n":%d}' % n)
            made.take(delivery, Batch([n], [n], [message], [], n, n))
    order = []
    while (found := made.next()) is not None:
        order.append((found[0].lane.id, found[1].n))
    assert order == [(3, 1), (3, 2), (1, 1), (1, 2), (9, 1), (9, 2)]


def test_a_lane_is_taken_once_however_often_it_is_offered() -> None:
    made = lanes(*BACKLOG)
    made.add(BACKLOG)
    made.finish(made.wanted()[1])
    made.add(BACKLOG)
    assert ids(made.all) == [2, 3]


def test_a_route_with_many_lanes_is_not_cut_again() -> None:
    made = lanes(*(lane(id, id * 100, id * 100 + 99) for id in range(1, LANES_MAX - 1)), lane(50, 5000, None))
    live = made.to_cut()
    assert live is not None and live.lane.id == 50
    made.cut(live, lane(51, 6000, None))
    assert live.lane.to_seq == 5999
    assert made.to_cut() is None


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 2 * 2**20)), max_size=60),
    st.booleans(),
)
def test_the_windows_together_are_bounded_and_nobody_waits_for_ever(
    steps: list[tuple[int, int]], beside_live: bool
) -> None:
    own = BACKLOG if beside_live else BACKLOG[1:]
    made = lanes(*own, *(lane(10 + number, 10, 20, "replay") for number in range(4)))
    opened = made.wanted()
    for delivery in opened:
        delivery.begin({})
        assert made.has_room(delivery)
    for place, size in steps:
        delivery = opened[place % len(opened)]
        if made.has_room(delivery):
            n = delivery.window.last_n + 1
            message = Message("gate", "scan", n, n, 1, bytes(min(size, BATCH_BYTES)))
            made.take(delivery, Batch([n], [n], [message], [], n, n))
        assert made.outstanding <= WINDOW_BYTES + len(opened) * BATCH_BYTES
        assert all(made.has_room(each) for each in opened if not each.window.bytes)


def test_a_late_confirmation_of_a_finished_lane_is_no_lie() -> None:
    made = lanes(*BACKLOG)
    oldest = made.wanted()[1]
    made.finish(oldest)
    assert made.confirmed(Confirmation("pc1", oldest.lane.stream, 5, {})) is False
    with pytest.raises(BadConfirmation, match="not ours"):
        made.confirmed(Confirmation("pc1", "000000000000.mes.7", 5, {}))


def test_what_was_never_sent_goes_before_what_is_sent_again(delivery: Delivery) -> None:
    """Or a link slower than ``confirm_timeout`` carries the same few messages for ever."""
    messages = [Message("gate", "scan", n, n, 1, b'{"n":1}') for n in (1, 2, 3)]
    delivery.take(Batch(range(1, 4), range(1, 4), messages, [], read_seq=3, last_n=3))
    for message in messages:
        delivery.put(message)
    overdue = delivery.next()
    assert overdue is messages[0]
    overdue.sent_s = 1.0
    delivery.put(overdue)
    assert [delivery.next() for _ in range(4)] == [messages[1], messages[2], messages[0], None]


def test_what_is_sent_again_takes_turns(delivery: Delivery) -> None:
    """The last of a window has its turn, though the first ones are overdue again before that."""
    messages = [Message("gate", "scan", n, n, 1, b'{"n":1}') for n in (1, 2, 3)]
    delivery.take(Batch(range(1, 4), range(1, 4), messages, [], read_seq=3, last_n=3))
    for message, sent_s in zip(messages, (7.0, 8.0, 2.0), strict=True):
        message.sent_s = sent_s
        delivery.put(message)
    assert [delivery.next() for _ in range(4)] == [messages[2], messages[0], messages[1], None]
