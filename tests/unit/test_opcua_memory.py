"""Where the gap of a tag begins: what the memory of a group says of each, whatever its clock shows."""

from __future__ import annotations

from edge_agent.model import Instant, Sample, Tag, TagSet
from edge_agent_drivers.opcua.images import Memory

S = 1_000_000_000
AHEAD = 3600 * S
GROUP = TagSet("plc", "state", (Tag("rare", "float64"), Tag("often", "float64")))


def heard(at_s: int, source_ns: dict[int, int], history: bool = False) -> Sample:
    return Sample(GROUP, Instant(0, at_s * S), at_s * S, (1.0, 2.0), None, source_ns, None, history)


def test_a_tag_that_did_not_change_was_heard_as_long_as_the_others() -> None:
    """Else what a recorder wrote of it all the time, which is no news, would fill the history of a short gap."""
    memory = Memory()
    memory.keep(heard(0, {0: 100 * S, 1: 100 * S + AHEAD}))
    memory.keep(heard(50, {1: 150 * S + AHEAD}))
    assert memory.heard_until_ns(0) == 150 * S
    assert memory.heard_until_ns(1) == 150 * S + AHEAD


def test_the_past_of_one_tag_says_nothing_of_the_others() -> None:
    memory = Memory()
    memory.keep(heard(0, {0: 100 * S, 1: 100 * S}))
    copied = memory.copy()
    memory.keep(heard(60, {0: 110 * S}, history=True))
    assert (memory.heard_until_ns(0), memory.heard_until_ns(1)) == (110 * S, 100 * S)
    assert copied.heard_until_ns(0) == 100 * S
