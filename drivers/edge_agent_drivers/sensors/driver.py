"""Sensors that the kernel shows as files, read one after the other in one thread of this device's own.

A 1-wire conversion takes 0.75 s and a dead I²C bus seconds, so no file is read on the event loop. A read that hangs
in the kernel hangs this device alone: its thread is left behind when the device is closed, and never more than one,
as a device whose thread has not come back is unavailable until it does. It is a daemon: it does not hold up the end of
the process either.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from edge_agent import clock
from edge_agent.driver import Group
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable
from edge_agent.model import Sample, Value
from edge_agent_drivers.sensors.config import SensorsSettings, SensorTag, describe, parse_source
from edge_agent_drivers.sensors.files import NotThere, folder_of, read_tag

TIMEOUT_S = 10.0  # for all sensors of a group; a dozen 1-wire thermometers take nine seconds

Read = list[tuple[Value, str]]

_reading: dict[str, Future[Read]] = {}  # by device: what its thread is at, perhaps for ever; a reopened one must know


class SensorsDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: SensorsSettings) -> None:
        self._device = device
        self._root = Path(settings.root)
        self._shape = describe(device, settings)
        self._open = False

    async def open(self) -> None:
        """Read every group once. Raises DeviceUnavailable when none of the sensors is there."""
        await self.close()
        if self._hangs():
            raise DeviceUnavailable(self._device, "a sensor hangs", hint="look at the kernel's log: dmesg | tail")
        self._open = True
        try:
            for group in self._shape.groups.values():
                await self._sample(group)
                return
        except DeviceLost as error:
            await self.close()
            raise DeviceUnavailable(self._device, "none of its sensors is there", hint=error.hint) from error

    async def read(self, group: str | None = None) -> Sequence[Sample]:
        """A fresh sample of this group, or of every polled one. Raises DeviceLost when no sensor of it is there."""
        if not self._open:
            raise DeviceLost(self._device, "is not open")
        groups = self._shape.groups
        wanted = [groups[group]] if group else [each for each in groups.values() if each.poll_s is not None]
        return [await self._sample(each) for each in wanted]

    async def write(self, tag: str, value: Value) -> None:
        """A sensor has nothing to write."""
        raise DeviceRefused(self._device, f"{tag} is not writable", hint="a sensor can only be read")

    async def close(self) -> None:
        """Idempotent. What hangs in the kernel is left behind."""
        self._open = False

    async def _sample(self, group: Group) -> Sample:
        started_mono_ns = time.monotonic_ns()
        tags = [tag for tag in group.tags.values() if isinstance(tag, SensorTag)]
        found = await self._in_thread(tags)
        status = {index: reason for index, (_, reason) in enumerate(found) if reason}
        if len(status) == len(found) and set(status.values()) == {"not there"}:
            raise DeviceLost(self._device, f"no sensor of {group.tagset.group} is there", hint=self._hint(tags[0]))
        return Sample(group.tagset, clock.now(), started_mono_ns, tuple(value for value, _ in found), status or None)

    async def _in_thread(self, tags: Sequence[SensorTag]) -> Read:
        if self._hangs():
            raise DeviceLost(self._device, "a sensor hangs", hint="look at the kernel's log: dmesg | tail")
        reading = _reading[self._device] = Future[Read]()

        def work() -> None:
            try:
                found = [read_tag(self._root, tag) for tag in tags]
            except BaseException as error:
                reading.set_exception(error)
                raise
            reading.set_result(found)

        threading.Thread(target=work, name=f"sensors {self._device}", daemon=True).start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.shield(asyncio.wrap_future(reading))
        except TimeoutError as error:
            hint = "look at the kernel's log: dmesg | tail"
            raise DeviceLost(self._device, f"a sensor did not answer within {TIMEOUT_S:.0f} s", hint=hint) from error

    def _hangs(self) -> bool:
        before = _reading.get(self._device)
        return before is not None and not before.done()

    def _hint(self, tag: SensorTag) -> str:
        source = parse_source(tag.source)
        if source.kind in ("hwmon", "iio"):
            try:
                folder_of(self._root, source)
            except NotThere as reason:
                return f"{reason}; see all: edge-agent devices scan"
        return f"{tag.source} leads to no file; see what there is: edge-agent devices scan"
