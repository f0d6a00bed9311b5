"""What a server recorded while we were away (HistoryRead of raw values), as samples of the past.

A gap begins for each tag where it was last heard, by the clock of its own source times, and ends at the value that the
new connection read first. What is known of the time before stays in this process, by device and group: the collector
makes a new driver for each connection. A restart of the agent forgets it.

Bounds: MOST_VALUES a node and MOST_IN_ALL a group; what is beyond is said in the status. Nodes that have no history, or
a server that refuses to read it, are no error: their tags are *no history* in these samples, and the counts tell.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from edge_agent import clock
from edge_agent.model import Sample, TagSet
from edge_agent_drivers.opcua import answers
from edge_agent_drivers.opcua.binary import UNIX_EPOCH_TICKS, DataValue
from edge_agent_drivers.opcua.codes import is_bad
from edge_agent_drivers.opcua.faults import Refused
from edge_agent_drivers.opcua.groups import BoundGroup
from edge_agent_drivers.opcua.images import GroupImage, Memory, News, steps_of
from edge_agent_drivers.opcua.link import Link
from edge_agent_drivers.opcua.typebook import TypeBook

MOST_VALUES = 1000  # of one node
MOST_IN_ALL = 100_000  # of one group
BATCH = 100  # nodes in one request
SLICE = 64  # samples that one read() gives
NO_HISTORY = "no history"
MORE = "more history is on the server"
_HISTORY_READ = 0x04  # bit of the attribute AccessLevel


_memories: dict[tuple[str, str, TagSet], Memory] = {}


def memory_of(device: str, connection: str, tagset: TagSet) -> Memory:
    """The memory of a group, for as long as the process runs."""
    return _memories.setdefault((device, connection, tagset), Memory())


@dataclass(slots=True)
class Past:
    """What one node's history gave."""

    place: int
    node: ua.NodeId
    start_ns: int
    values: list[DataValue] = field(default_factory=list)
    continuation: bytes = b""
    refused: bool = False


async def past(link: Link, types: TypeBook, group: BoundGroup, before: Memory, level: Sample) -> Iterator[list[Sample]]:
    """The samples of a gap, some at a time: from what was remembered up to the level. Raises DeviceLost."""
    nodes = await _with_history(link, group, before)
    times = [*(level.source_ns or {}).values(), *(level.server_ns or {}).values()]
    end_ns = max(times, default=clock.now().at_ns) + 1_000_000_000
    total = 0
    left_out: set[int] = set()
    for part in _batches(nodes, min(BATCH, link.history_limit)):
        if total < MOST_IN_ALL:
            await _fetch(link, part, min(each.start_ns for each in part), end_ns)
        else:
            left_out |= {each.place for each in part}
        total += sum(len(each.values) for each in part)
    until = level.source_ns or {}
    news: list[News] = []
    for each in nodes:
        since_ns = max(before.last_ns[each.place], each.start_ns)
        until_ns = until.get(each.place, math.inf)
        said = [one for one in each.values if one.source_ns is not None and since_ns < one.source_ns < until_ns]
        found = await group.understood([(each.place, one) for one in said], types)
        if each.continuation and found:
            found[-1] = found[-1]._replace(status="; ".join(filter(None, [found[-1].status, MORE])))
        news += found
    places = {each.place for each in nodes if not each.refused and each.place not in left_out}
    return _samples(group, before, places, news, left_out)


def _samples(
    group: BoundGroup, before: Memory, places: set[int], news: Sequence[News], left_out: set[int]
) -> Iterator[list[Sample]]:
    image = GroupImage(group.image.tagset)
    for place in range(len(image.values)):
        image.status[place] = MORE if place in left_out else NO_HISTORY
        if place in places and before.values and before.values[place] is not None:
            image.values[place] = before.values[place]
            del image.status[place]
    steps = steps_of(news) if news else []
    for at in range(0, len(steps), SLICE):
        now = clock.now()
        yield [
            sample for step in steps[at : at + SLICE] for sample in image.samples(step, now, now.mono_ns, history=True)
        ]


async def _with_history(link: Link, group: BoundGroup, before: Memory) -> list[Past]:
    """The nodes that were known before and say that their history may be read."""
    slack_ns = int((2 * (group.settings.subscribe or 0.0) + link.settings.timeout) * 1e9)
    known = [
        Past(place, node, before.heard_until_ns(place) - slack_ns)
        for place, node in group.nodes
        if place in before.last_ns
    ]
    if not known:
        return []
    levels = await link.read([each.node for each in known], AttributeIds.AccessLevel)
    return [
        each
        for each, level in zip(known, levels, strict=True)
        if isinstance(level.raw, int) and not is_bad(level.code) and level.raw & _HISTORY_READ
    ]


def _batches(nodes: Sequence[Past], size: int) -> Iterator[list[Past]]:
    """Those of one request have one start: no node is asked from more than twice as far back as it must be."""
    newest = max((each.start_ns for each in nodes), default=0)
    alike: dict[int, list[Past]] = {}
    for each in nodes:
        alike.setdefault(((newest - each.start_ns) // 1_000_000_000).bit_length(), []).append(each)
    for _, some in sorted(alike.items()):
        for at in range(0, len(some), size):
            yield some[at : at + size]


async def _fetch(link: Link, nodes: Sequence[Past], start_ns: int, end_ns: int) -> None:
    """Fill in the values of these nodes, up to MOST_VALUES each."""
    asked = list(nodes)
    while asked:
        try:
            parts = link.decoded(answers.history, await link.send(_request(asked, start_ns, end_ns)))
        except Refused:
            for each in asked:
                each.refused = True
            return
        for each in asked[len(parts) :]:
            each.refused = True
        for each, part in zip(asked, parts, strict=False):
            each.refused = is_bad(part.code)
            each.values += part.values
            each.continuation = part.continuation
        asked = [each for each in asked if each.continuation and len(each.values) < MOST_VALUES]
    left = [each for each in nodes if each.continuation]
    if left:
        with contextlib.suppress(Refused):  # then it keeps them until the session ends
            await link.send(_request(left, start_ns, end_ns, release=True))


def _request(nodes: Sequence[Past], start_ns: int, end_ns: int, release: bool = False) -> ua.HistoryReadRequest:
    details = ua.ReadRawModifiedDetails()
    details.IsReadModified = False
    details.StartTime = ua.win_epoch_to_datetime(start_ns // 100 + UNIX_EPOCH_TICKS)
    details.EndTime = ua.win_epoch_to_datetime(end_ns // 100 + UNIX_EPOCH_TICKS)
    details.NumValuesPerNode = MOST_VALUES
    details.ReturnBounds = False
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = details
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    request.Parameters.ReleaseContinuationPoints = release
    for each in nodes:
        wanted = ua.HistoryReadValueId()
        wanted.NodeId = each.node
        wanted.ContinuationPoint = each.continuation or None
        request.Parameters.NodesToRead.append(wanted)
    return request
