"""A camera: what it sees as scans, what else is known of a picture as samples.

The parts: ``config`` says what may be written, ``live`` and ``folder`` are the two kinds of source, ``decode`` makes
codes of a picture, ``results`` decides what is news, ``photos`` keeps pictures, and ``frames`` is the thread that does
all of that, one after the other. Here is only what the event loop sees of it: nothing here blocks, and ``close`` waits
no longer than CLOSE_S for a thread that hangs in a dead stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable
from edge_agent.model import Sample, Scan, Value
from edge_agent_drivers.camera.config import TRIGGER, CameraSettings, describe
from edge_agent_drivers.camera.folder import Folder
from edge_agent_drivers.camera.frame import Source
from edge_agent_drivers.camera.frames import Frames, Job
from edge_agent_drivers.camera.live import Live
from edge_agent_drivers.camera.properties import Properties

CLOSE_S = 2.0
JOIN_S = 0.1
_threads: dict[str, threading.Thread] = {}  # by device: its frame loop, or one that hangs in a network share for ever


class CameraDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: CameraSettings) -> None:
        self._device = device
        self._settings = settings
        self._shape = describe(device, settings)
        every = {**settings.tags, **{tag: its for group in settings.groups.values() for tag, its in group.tags.items()}}
        self._writable = {tag: its.value or tag for tag, its in every.items() if its.write}
        self._frames: Frames | None = None
        self._properties: Properties | None = None
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Start the frame loop and wait until its source is open. Raises DeviceUnavailable or DeviceRefused."""
        await self.close()
        before = _threads.get(self._device)
        if before is not None and before.is_alive():
            where = [self._settings.source, *([self._settings.photos.folder] if self._settings.photos else [])]
            hint = f"does a network share hang? try: ls {' '.join(where)}"
            raise DeviceUnavailable(self._device, f"{self._settings.source}: still hangs in the last try", hint=hint)
        source: Source
        if self._settings.kind == "folder":
            source, self._properties = Folder(self._device, self._settings), None
        else:
            source = live = Live(self._device, self._settings)
            self._properties = live.properties
        news = self._news = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
                loop.call_soon_threadsafe(news.set)

        frames = Frames(self._device, self._settings, self._shape, source, self._properties, tell)
        self._frames = frames
        _threads[self._device] = frames.thread
        frames.thread.start()
        while not frames.opened:
            await news.wait()
            news.clear()
            if not frames.opened and frames.failure is not None:
                await self.close()
                raise frames.failure

    async def read(self, group: str | None = None) -> Sequence[Sample | Scan]:
        """The next results, at least one; or a new picture of this group. Raises DeviceLost or ReadingRejected."""
        frames = self._open_frames()
        if group is not None:
            job = Job(group)
            frames.ask(job)
            return [await asyncio.wrap_future(job.sample)]
        while True:
            self._news.clear()
            taken = frames.take()
            if taken:
                return taken
            await self._news.wait()

    async def write(self, tag: str, value: Value) -> None:
        """Trigger, or set exposure or gain. Raises DeviceLost or DeviceRefused."""
        facet = self._writable.get(tag)
        if facet is None:
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=f"mark it with write: true, under {tag}:")
        frames = self._open_frames()
        if facet == TRIGGER:
            if value:
                frames.ask(Job(""))
            return
        if self._properties is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise DeviceRefused(self._device, f"{tag}: {value!r} is no number", hint="write a number")
        try:
            async with asyncio.timeout(self._settings.timeout):
                await asyncio.wrap_future(self._properties.ask(facet, float(value)))
        except TimeoutError as error:
            what = f"{tag}: not set within {self._settings.timeout:g} s"
            raise DeviceLost(self._device, what, hint="does the camera give pictures?") from error

    async def close(self) -> None:
        """End the threads; one that hangs is left to its own time-out. Idempotent."""
        frames, self._frames = self._frames, None
        if frames is None:
            return
        frames.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not frames.ended:
                    await self._news.wait()
                    self._news.clear()
                frames.thread.join(JOIN_S)  # it has said its last word: this takes microseconds

    def _open_frames(self) -> Frames:
        if self._frames is None:
            raise DeviceLost(self._device, f"{self._settings.source}: is not open")
        return self._frames
