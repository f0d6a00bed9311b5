"""A barcode reader: waits for bytes, makes frames of them, gives scans. The port is :mod:`edge_agent_drivers.stream`'s.

Whoever waits first, ``read()`` for codes or ``write()`` for the answer to its command, takes the next chunk off the
port and sorts all that is in it; the other one finds what is its own. One chunk at a time: what was not read out is
bounded, and cancelling either loses nothing. The unfinished frame of a lost connection is dropped, and a frame with a
damaged character in it is none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from edge_agent import clock
from edge_agent.errors import DeviceLost, DeviceRefused, ReadingRejected
from edge_agent.model import Scan, Value
from edge_agent_drivers.scanner.codes import Answer, Reading, framer_of, spoken
from edge_agent_drivers.scanner.config import TRIGGER, ScannerSettings
from edge_agent_drivers.stream.frames import ENDLESS, ENDLESS_HINT, Endless
from edge_agent_drivers.stream.port import LineError, Port

DEFAULT_IDLE_S = 0.5  # with ``end``: what stays unfinished that long is garbage
ANSWER_S = 2.0  # readers answer within some ms
UNREAD = 10_000  # scans that may wait while nobody reads


class ScannerDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: ScannerSettings) -> None:
        frame = settings.frame
        self._device = device
        self._settings = settings
        self._framer = framer_of(settings)
        self._reading = Reading(settings)
        self._idle_s = DEFAULT_IDLE_S if frame is None or frame.idle is None else frame.idle
        self._port = Port(device, settings)
        self._taking = asyncio.Lock()
        self._endless = Endless()
        self._unread: deque[Scan | ReadingRejected] = deque()
        self._answer: Answer | None = None

    async def open(self) -> None:
        """Open the port for us alone. Raises DeviceUnavailable or DeviceRefused."""
        await self.close()
        if not await self._port.open():
            self._framer.swallow()

    async def read(self, group: str | None = None) -> Sequence[Scan]:
        """The next scans, at least one. Raises DeviceLost, ReadingRejected. Cancelling it loses no byte."""
        while not self._unread:
            async with self._taking:
                if not self._unread:
                    await self._take()
        scans: list[Scan] = []
        while self._unread and not isinstance(item := self._unread[0], ReadingRejected):
            scans.append(item)
            self._unread.popleft()
        if not scans and isinstance(damage := self._unread.popleft(), ReadingRejected):
            raise damage
        return scans

    async def write(self, tag: str, value: Value) -> None:
        """``trigger``: true begins a read, false ends it. Returns once the reader has taken it, where it says so."""
        settings = self._settings
        if tag != TRIGGER:
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=f"a reader has one tag: {TRIGGER}")
        if not settings.command_on:
            hint = 'write the command that begins a read: trigger: {on: "…"}'
            raise DeviceRefused(self._device, f"profile {settings.profile} has no trigger command", hint=hint)
        if not isinstance(value, bool):
            raise DeviceRefused(self._device, f"{TRIGGER} is true or false, not {value!r}", hint="write true or false")
        command = settings.command_on if value else settings.command_off
        if not command:
            return  # a reader that ends its read by itself
        self._answer = None
        await self._port.send(command)
        if settings.awaits_answer:
            await self._answered(spoken(command))

    async def close(self) -> None:
        """Close and forget an unfinished frame. Idempotent."""
        self._framer.reset()
        self._endless = Endless()
        self._unread.clear()
        self._port.close()

    async def _answered(self, command: bytes) -> None:
        """Wait for the answer to this command and judge it."""
        name = command.decode("latin-1")
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._answer is None or self._answer.command not in (None, command):
                    async with self._taking:
                        if self._answer is None or self._answer.command not in (None, command):
                            await self._take()
        except TimeoutError as error:
            hint = "set the reader to answer commands, or write trigger: {answers: false}"
            raise DeviceLost(self._device, f"no answer to {name}", hint=hint) from error
        if self._answer.refused:
            hint = "look at the reader's mode: it must take triggers from this port"
            raise DeviceRefused(self._device, f"the reader refuses {name}: {self._answer.refused}", hint=hint)

    async def _take(self) -> None:
        """Take the next chunk, or the pause after one, off the port and sort what it completes."""
        if len(self._unread) > UNREAD:
            raise DeviceLost(self._device, "codes come faster than they are fetched", hint="look at the reader's mode")
        try:
            data = await self._port.take(self._idle_s if self._framer.pending else None)
        except LineError as error:
            self._framer.swallow()
            self._unread.append(error)
            return
        at = clock.now()
        frames = self._framer.feed(data) if data else self._framer.gap()
        if not data:
            self._endless = Endless()
        elif self._endless.came(len(data), frames):
            self._unread.append(ReadingRejected(self._device, f"{self._port.where}: {ENDLESS}", hint=ENDLESS_HINT))
        for frame in frames:
            for item in self._reading.judge(frame):
                if isinstance(item, Answer):
                    self._answer = item
                else:
                    self._unread.append(Scan(self._device, at, item.raw, item.status, item.symbology))
