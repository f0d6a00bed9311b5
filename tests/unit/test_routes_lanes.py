"""What the log says of dead letters: each reason once, however many records it costs."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from edge_agent.buffer import Buffer, Lane
from edge_agent.routes.delivery import REASONS, Delivery
from edge_agent.routes.lanes import Lanes
from edge_agent.routes.message import Batch, Message, TooLarge
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
    too_large = [TooLarge(n, n, 10_000 + n) for n in numbers]
    with caplog.at_level(logging.DEBUG, "edge_agent"):
        delivery.take(Batch(numbers, numbers, [], too_large, read_seq=50, last_n=50))
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
