"""A device that is not there: each value is a pure function of the sample's instant, so anybody can recompute it.

What a driver author needs to see: ``open`` connects, ``read`` gives whole samples with both instants, ``write``
takes what is marked writable, ``close`` may be called at any time. Errors are raised, never logged or retried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from edge_agent import clock
from edge_agent.driver import Group
from edge_agent.errors import DeviceLost, DeviceRefused
from edge_agent.model import Sample, Value
from edge_agent_drivers.simulated.config import SimulatedSettings, SimulatedTag, describe


def value_at(tag: SimulatedTag, at_ns: int) -> Value:
    """What ``tag`` shows at this instant (UTC nanoseconds)."""
    periods, rest_ns = divmod(at_ns, round(tag.period * 1e9))
    phase = rest_ns / (tag.period * 1e9)  # 0 up to 1
    match tag.wave:
        case "count":
            return periods
        case "square":
            return phase < 0.5
        case "saw":
            return tag.low + (tag.high - tag.low) * phase
        case "sine":
            return tag.low + (tag.high - tag.low) * (1 - math.cos(2 * math.pi * phase)) / 2


class SimulatedDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: SimulatedSettings) -> None:
        self._device = device
        self._shape = describe(device, settings)
        self._open = False

    async def open(self) -> None:
        self._open = True

    async def read(self, group: str | None = None) -> Sequence[Sample]:
        if not self._open:
            raise DeviceLost(self._device, "is not open")
        groups = self._shape.groups
        wanted = [groups[group]] if group else [each for each in groups.values() if each.poll_s is not None]
        return [self._sample(each) for each in wanted]

    def _sample(self, group: Group) -> Sample:
        started_mono_ns = time.monotonic_ns()
        at = clock.now()
        values = tuple(value_at(tag, at.at_ns) for tag in group.tags.values() if isinstance(tag, SimulatedTag))
        return Sample(group.tagset, at, started_mono_ns, values)

    async def write(self, tag: str, value: Value) -> None:
        if not self._open:
            raise DeviceLost(self._device, "is not open")
        if tag not in self._shape.writable:
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=f"mark it with write: true, under {tag}:")

    async def close(self) -> None:
        self._open = False
