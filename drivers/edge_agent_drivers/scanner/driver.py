"""A barcode reader: waits for bytes, makes frames of them, gives scans. The port is :mod:`edge_agent_drivers.stream`'s.

One ``read()`` takes at most one chunk off the port and returns all its frames before it takes more. The unfinished
frame of a lost connection is dropped, and one with a damaged character in it is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_agent import clock
from edge_agent.errors import DeviceRefused
from edge_agent.model import Instant, Scan, ScanStatus, Value
from edge_agent_drivers.scanner.config import ScannerSettings
from edge_agent_drivers.stream.frames import Frame, Framer
from edge_agent_drivers.stream.port import LineError, Port

DEFAULT_IDLE_S = 0.5  # with ``end``: what stays unfinished that long is garbage

_AIM = re.compile(rb"\][A-Za-z][0-9A-Za-z]")


class ScannerDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: ScannerSettings) -> None:
        frame = settings.frame
        end = None if frame.end is None else frame.end.encode("latin-1")
        self._device = device
        self._settings = settings
        self._framer = Framer(end, frame.start.encode("latin-1"), frame.max_length)
        self._idle_s = DEFAULT_IDLE_S if frame.idle is None else frame.idle
        self._no_read = frozenset(text.encode("latin-1").strip() for text in settings.no_read)
        self._port = Port(device, settings)

    async def open(self) -> None:
        """Open the port for us alone. Raises DeviceUnavailable or DeviceRefused."""
        self._framer.reset()
        if not await self._port.open():
            self._framer.swallow()

    async def read(self, group: str | None = None) -> Sequence[Scan]:
        """The next scans, at least one. Raises DeviceLost, ReadingRejected. Cancelling it loses no byte."""
        while True:
            try:
                data = await self._port.take(self._idle_s if self._framer.pending else None)
            except LineError:
                self._framer.swallow()
                raise
            frames = self._framer.feed(data) if data else self._framer.gap()
            if frames:
                at = clock.now()
                return [self._scan(frame, at) for frame in frames]

    async def write(self, tag: str, value: Value) -> None:
        """A reader has nothing to write."""
        raise DeviceRefused(self._device, f"{tag} is not writable", hint="a scanner has no tags")

    async def close(self) -> None:
        """Close and forget an unfinished frame. Idempotent."""
        self._framer.reset()
        self._port.close()

    def _scan(self, frame: Frame, at: Instant) -> Scan:
        if frame.garbage:
            return Scan(self._device, at, frame.raw, ScanStatus.GARBAGE)
        raw, symbology = frame.raw, ""
        if self._settings.aim and _AIM.match(raw):
            raw, symbology = raw[3:], raw[:3].decode("ascii")
        status = ScanStatus.NO_READ if raw.strip() in self._no_read else ScanStatus.READ
        return Scan(self._device, at, raw, status, symbology)
