"""The subscriptions of a device: one a group, its monitored items created in batches the server bears.

An item that the server refuses (an unknown node, a filter it does not have) is that tag's status alone; it is tried
again rarely. What the server revises (intervals, counts, queue sizes) is taken as it says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from edge_agent_drivers.opcua.codes import words
from edge_agent_drivers.opcua.config import FilterSettings, OpcuaGroup, OpcuaTag
from edge_agent_drivers.opcua.faults import TOO_MUCH, Refused
from edge_agent_drivers.opcua.link import Link

LIFETIME_S = 60.0  # how long the server keeps a subscription that nobody asks after
BATCH = 1000  # items in one request, if the server allows so many
NO_ANSWER = "the server did not answer for this node"

_TRIGGERS = {
    "status": ua.DataChangeTrigger.Status,
    "value": ua.DataChangeTrigger.StatusValue,
    "timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}
_DEADBANDS = {"absolute": ua.DeadbandType.Absolute, "percent": ua.DeadbandType.Percent}


@dataclass(frozen=True, slots=True)
class Subscribed:
    """One subscription as the server revised it."""

    id: int
    interval_s: float
    silent_s: float  # it is heard of at least this often, were it only a keep-alive


@dataclass(frozen=True, slots=True)
class Item:
    """A node to monitor; ``handle`` comes back with each of its values."""

    handle: int
    node: ua.NodeId
    tag: OpcuaTag


class Monitored(NamedTuple):
    """What became of items, by their handles: the server's numbers of those it made, why it refused the others."""

    made: Mapping[int, int]
    refused: Mapping[int, str]


async def subscribe(link: Link, group: OpcuaGroup) -> Subscribed:
    """Create a subscription without items. Raises DeviceLost, Refused."""
    interval_s = group.subscribe or 1.0
    keep_alive = max(1, math.ceil(link.settings.timeout / interval_s))
    request = ua.CreateSubscriptionRequest()
    request.Parameters.RequestedPublishingInterval = interval_s * 1000.0
    request.Parameters.RequestedMaxKeepAliveCount = keep_alive
    request.Parameters.RequestedLifetimeCount = max(3 * keep_alive, math.ceil(LIFETIME_S / interval_s))
    request.Parameters.MaxNotificationsPerPublish = 0  # as many as there are
    request.Parameters.PublishingEnabled = True
    answer = await link.request(ua.CreateSubscriptionResponse, request)
    revised = answer.Parameters
    interval_s = max(revised.RevisedPublishingInterval / 1000.0, 0.001)
    return Subscribed(revised.SubscriptionId, interval_s, interval_s * max(revised.RevisedMaxKeepAliveCount, 1))


async def monitor(link: Link, subscription: int, group: OpcuaGroup, items: Sequence[Item]) -> Monitored:
    """Create the items. Raises DeviceLost, Refused."""
    refused: dict[int, str] = {}
    made: dict[int, int] = {}
    size, at = min(BATCH, link.items_limit), 0
    while at < len(items):
        part = items[at : at + size]
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [_wanted(item, group) for item in part]
        try:
            answer = await link.request(ua.CreateMonitoredItemsResponse, request)
        except Refused as error:
            if error.code not in TOO_MUCH or len(part) == 1:
                raise
            size = max(1, len(part) // 2)  # it did not say so before
            continue
        results = answer.Results or []
        codes = [result.StatusCode.value for result in results]
        refused |= {item.handle: words(code) for item, code in zip(part, codes, strict=False) if code & 0x8000_0000}
        refused |= {item.handle: NO_ANSWER for item in part[len(codes) :]}
        each = zip(part, results, strict=False)
        made |= {item.handle: result.MonitoredItemId for item, result in each if item.handle not in refused}
        at += len(part)
    return Monitored(made, refused)


async def forget(link: Link, subscription: int, numbers: Sequence[int]) -> None:
    """Delete items of a subscription; what the server no longer has is no error. Raises DeviceLost, Refused."""
    size = min(BATCH, link.items_limit)
    for at in range(0, len(numbers), size):
        request = ua.DeleteMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.MonitoredItemIds = list(numbers[at : at + size])
        await link.request(ua.DeleteMonitoredItemsResponse, request)


def _wanted(item: Item, group: OpcuaGroup) -> ua.MonitoredItemCreateRequest:
    sampling_s = group.subscribe if group.sampling is None else group.sampling
    wanted = ua.MonitoredItemCreateRequest()
    wanted.ItemToMonitor = ua.ReadValueId(item.node, AttributeIds.Value)
    wanted.MonitoringMode = ua.MonitoringMode.Reporting
    parameters = wanted.RequestedParameters
    parameters.ClientHandle = item.handle
    parameters.SamplingInterval = (sampling_s or 0.0) * 1000.0
    parameters.QueueSize = group.queue
    parameters.DiscardOldest = True
    if item.tag.filter is not None:
        parameters.Filter = _filter(item.tag.filter)
    return wanted


def _filter(settings: FilterSettings) -> ua.DataChangeFilter:
    made = ua.DataChangeFilter()
    made.Trigger = _TRIGGERS[settings.trigger]
    if settings.deadband is not None:
        made.DeadbandType = _DEADBANDS[settings.kind].value
        made.DeadbandValue = settings.deadband
    return made
