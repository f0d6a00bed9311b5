"""Notices that the wall clock was stepped, and says so in the log.

The two clocks are compared once a second. A slewing NTP moves them apart by less than a millisecond in that
time; half a second is a step: somebody set the clock, or NTP answered for the first time since the PC booted with an
empty clock battery. Nothing is re-timed or re-ordered: durations are monotonic, records keep the time they had.

A PC that was suspended has watched nothing meanwhile, and its monotonic clock does not show it: every device is then
reported as not observed, since connections may well survive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NoReturn

from edge_agent import clock
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.line import Line
from edge_agent.logs import Log
from edge_agent.model import Instant, Kind

LOOK_S = 1.0
STEP_NS = 500_000_000

log = Log(__name__)


class ClockWatch:
    """Owns the last offset between the two clocks."""

    def __init__(self, line: Line, devices: Iterable[str] = ()) -> None:
        self._line = line
        self._devices = list(devices)
        self._last = clock.now()
        self._slept_ns = clock.slept_ns()

    async def run(self) -> NoReturn:
        """Look once a second, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.wake(clock.now(), clock.slept_ns())
            self.look(clock.now(), clock.synchronised())

    def wake(self, now: Instant, slept_ns: int) -> None:
        """Report every device as unobserved if the PC was suspended since the last look."""
        suspended_ns, self._slept_ns = slept_ns - self._slept_ns, slept_ns
        if suspended_ns < STEP_NS:
            return
        log.warning("the PC was suspended", for_s=round(suspended_ns / 1e9, 1))
        for device in self._devices:
            self._line.gap(device, self._last, now, "stall")

    def look(self, now: Instant, synced: bool) -> None:
        """Record a ``clock_offset`` and a finding ``clock_step`` if the clocks parted since the last look."""
        step_ns = (now.at_ns - self._last.at_ns) - (now.mono_ns - self._last.mono_ns)
        self._last = now
        if abs(step_ns) < STEP_NS:
            return
        log.warning("clock stepped", step_s=round(step_ns / 1e9, 3))
        buffer = self._line.buffer
        draft = Draft(buffer.log, now, buffer.next_seq)
        seq = draft.add(Kind.CLOCK_OFFSET, "agent", {"step_ns": str(step_ns), "clock_synced": synced})
        text = f"the clock was stepped by {step_ns / 1e9:+.3f} s; records keep the time they were given"
        report(draft, "agent", "clock_step", text, evidence=[seq])
        self._line.record(draft.records)
