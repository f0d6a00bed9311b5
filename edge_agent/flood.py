"""When a device sends more scans than can be meant: a trigger that is stuck, noise that a line turns into characters.

Each scan of a device is a record, on the disk before anything else happens: a babbling reader would fill the disk and
take the time of the others. What honest readers send stays far below this, also as a burst.
"""

from __future__ import annotations

from edge_agent.errors import DriverError
from edge_agent.model import Instant, Scan, ScanStatus

SCANS_PER_S = 1000  # for longer than a burst: more than 115200 baud carry of any real code
SCANS_BURST = 5 * SCANS_PER_S
GARBAGE_COST = 20  # bytes that are no code, and "I saw nothing", may come 50 times a second


class DeviceFloods(DriverError):
    """The device sends more scans than can be meant. It is left alone for a while: long back-off, health FAULTED."""


class Flood:
    """A bucket that fills by ``SCANS_PER_S`` and holds a burst."""

    def __init__(self, device: str, now: Instant) -> None:
        self._device = device
        self._left = float(SCANS_BURST)
        self._at = now

    def take(self, scan: Scan, now: Instant) -> None:
        """Count a scan. Raises DeviceFloods for the one too many; from then on the count begins anew."""
        earned = (now.mono_ns - self._at.mono_ns) * SCANS_PER_S / 1e9
        self._at = now
        self._left = min(SCANS_BURST, self._left + earned) - (1 if scan.status is ScanStatus.READ else GARBAGE_COST)
        if self._left < 0:
            self._left = SCANS_BURST
            most, none = SCANS_PER_S, SCANS_PER_S // GARBAGE_COST
            what = f"sends more than {most} scans a second without an end, or {none} that are none"
            hint = "set the reader to one read a trigger; look for noise on the line: edge-agent listen-serial PORT"
            raise DeviceFloods(self._device, what, hint=hint)
