"""Calls that block, in a thread that may be given up."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge_agent.errors import BrokerUnavailable
from edge_agent.routes.blocking import Blocking
from support.delivery import scenario, until


@scenario
async def test_calls_run_one_after_the_other_and_raise_where_they_are_waited_for() -> None:
    blocking, order = Blocking("test"), list[int]()
    await asyncio.gather(*(blocking.call(lambda i=i: order.append(i), 5) for i in range(20)))  # type: ignore[misc]
    assert order == list(range(20))

    def fail() -> None:
        raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable, match="away"):
        await blocking.call(fail, 5)
    assert await blocking.call(lambda: 7, 5) == 7
    blocking.end()
    assert not blocking.busy


@scenario
async def test_a_call_that_hangs_is_waited_for_no_longer_than_said_and_known_to_be_under_way() -> None:
    blocking, answers, done = Blocking("test"), threading.Event(), list[str]()
    with pytest.raises(TimeoutError):
        await blocking.call(lambda: (answers.wait(20), done.append("late")), 0.05)
    with pytest.raises(TimeoutError):
        await blocking.call(lambda: done.append("never"), 0.05)  # given up before its turn: it must not run at all
    assert blocking.busy
    blocking.end()
    answers.set()
    await until(lambda: not blocking.busy)
    assert done == ["late"]
    assert await blocking.call(threading.active_count, 5) > 1  # a new thread
    blocking.end()
