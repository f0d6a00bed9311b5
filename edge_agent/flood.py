"""When a device sends more than can be meant: a trigger that is stuck, noise that a line turns into characters.

Each scan and each sample that a device sends unasked goes to the disk before anything else happens: a babbling one
would fill the disk and take the time of the others. What honest ones send stays far below this, also as a burst. What
was asked for has the pace of the configuration, what was read from a device's memory has an end: neither is counted.
"""

from __future__ import annotations

from edge_agent.errors import DriverError
from edge_agent.model import Instant, Sample, Scan, ScanStatus

SCANS_PER_S = 1000  # for longer than a burst: more than 115200 baud carry of any real code
SCANS_BURST = 5 * SCANS_PER_S
GARBAGE_COST = 20  # bytes that are no code, and "I saw nothing", may come 50 times a second
SAMPLES_PER_S = 5000  # of up to 1,000 values each: a server with 100 groups at 10 Hz sends a fifth of them
SAMPLES_BURST = 10 * SAMPLES_PER_S  # what waited in a broker comes at once


class DeviceFloods(DriverError):
    """The device sends more than can be meant. It is left alone for a while: long back-off, health FAULTED."""


class Flood:
    """A bucket that fills by ``SCANS_PER_S`` and holds a burst, and one like it for samples."""

    def __init__(self, device: str, now: Instant) -> None:
        self._device = device
        self._scans = _Bucket(now)
        self._samples = _Bucket(now)

    def scan(self, scan: Scan, now: Instant) -> None:
        """Count a scan. Raises DeviceFloods for the one too many; from then on the count begins anew."""
        cost = 1 if scan.status is ScanStatus.READ else GARBAGE_COST
        if not self._scans.take(cost, now, SCANS_PER_S, SCANS_BURST):
            most, none = SCANS_PER_S, SCANS_PER_S // GARBAGE_COST
            what = f"sends more than {most} scans a second without an end, or {none} that are none"
            hint = "set the reader to one read a trigger; look for noise on the line: edge-agent listen-serial PORT"
            raise DeviceFloods(self._device, what, hint=hint)

    def sample(self, sample: Sample, now: Instant, *, asked: bool) -> None:
        """Count a sample, as above."""
        if asked or sample.history:
            return
        if not self._samples.take(1, now, SAMPLES_PER_S, SAMPLES_BURST):
            what = f"sends more than {SAMPLES_PER_S} samples a second without an end"
            hint = "set the device to send on a change or less often; see what it sends: edge-agent watch"
            raise DeviceFloods(self._device, what, hint=hint)


class _Bucket:
    """Begins full; its size is told at each take, and it is full again after the take that found too little."""

    def __init__(self, now: Instant) -> None:
        self._taken = 0.0
        self._at = now

    def take(self, cost: float, now: Instant, per_s: int, burst: int) -> bool:
        """Whether there was enough."""
        earned = (now.mono_ns - self._at.mono_ns) * per_s / 1e9
        self._at = now
        self._taken = max(0.0, self._taken - earned) + cost
        if self._taken <= burst:
            return True
        self._taken = 0.0
        return False
