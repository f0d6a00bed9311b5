"""A poisonous record is found by halving; a broker that dies of everything costs only a few records."""

from __future__ import annotations

import pytest

from edge_agent.routes.message import Message
from edge_agent.routes.suspicion import DEATHS, ROW, Condemned, Suspicion


def message(n: int, count: int) -> Message:
    return Message("press.state", "sample", n, n + count - 1, count, b"{}")


class Peer:
    """Takes records one after the other; ends the connection at a poisonous one."""

    def __init__(self, records: int, poison: set[int]) -> None:
        self.records, self.poison = records, poison
        self.next_n, self.dead, self.connections = 1, [], 0

    def run(self, suspicion: Suspicion, most: int = 200) -> None:
        while self.next_n <= self.records and self.connections < most:
            self.connections += 1
            self._connection(suspicion)

    def _connection(self, suspicion: Suspicion) -> None:
        while self.next_n <= self.records:
            count = min(100, suspicion.cap, self.records - self.next_n + 1)
            offered = message(self.next_n, count)
            if suspicion.condemned == offered.n and count == 1:
                suspicion.buried()
                self.dead.append(offered.n)
                self.next_n += 1
            elif self.poison & set(range(offered.n, offered.last_n + 1)):
                suspicion.connection_ended(offered)
                return
            else:
                suspicion.handed_over(offered)
                self.next_n = offered.last_n + 1


@pytest.mark.parametrize("poison", [{1}, {57}, {100}, {101}, {57, 58}, {3, 250}, {300}])
def test_exactly_the_poisonous_records_become_dead_letters(poison: set[int]) -> None:
    suspicion = Suspicion()
    peer = Peer(300, poison)
    peer.run(suspicion)
    assert peer.next_n == 301, "the rest goes on"
    assert set(peer.dead) == poison
    assert peer.connections <= 16 * len(poison) + 1
    assert not suspicion.careful


def test_a_broker_that_dies_of_everything_does_not_cost_everything() -> None:
    peer = Peer(300, set(range(1, 301)))
    peer.run(Suspicion())
    assert len(peer.dead) == ROW


def test_a_broker_that_dies_of_every_lane_costs_no_more() -> None:
    shared, dead = Condemned(), 0
    lanes = [Suspicion(shared) for _ in range(4)]
    for _ in range(60):
        for lane in lanes:
            lane.connection_ended(message(1 + 10 * dead, 1))
            if lane.condemned is not None:
                lane.buried()
                dead += 1
    assert dead == ROW


def test_outages_that_hit_other_messages_raise_no_suspicion() -> None:
    suspicion = Suspicion()
    for n in range(1, 1000, 100):
        suspicion.connection_ended(message(n, 100))
    assert not suspicion.careful
    suspicion.connection_ended(None)
    assert not suspicion.careful


def test_a_message_that_passes_in_the_end_is_forgiven() -> None:
    suspicion = Suspicion()
    for _ in range(DEATHS):
        suspicion.connection_ended(message(1, 100))
    assert suspicion.careful
    suspicion.handed_over(message(1, 50))
    assert suspicion.careful, "the other half may be the one"
    suspicion.handed_over(message(51, 50))
    assert not suspicion.careful
