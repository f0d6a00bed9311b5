"""Notices that the wall clock was stepped, and says so in the log.

The two clocks are compared once a second. A slewing NTP moves them apart by less than a millisecond in that
time; half a second is a step: somebody set the clock, or NTP answered for the first time since the PC booted with an
empty clock battery. Nothing is re-timed or re-ordered: durations are monotonic, records keep the time they had.
"""

from __future__ import annotations

import asyncio
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

    def __init__(self, line: Line) -> None:
        self._line = line
        self._last = clock.now()

    async def run(self) -> NoReturn:
        """Look once a second, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(clock.now(), clock.synchronised())

    def look(self, now: Instant, synced: bool) -> None:
        """Record a ``clock_offset`` and a finding ``clock_step`` if the clocks parted since the last look."""
        step_ns = (now.at_ns - self._last.at_ns) - (now.mono_ns - self._last.mono_ns)
        self._last = now
        if abs(step_ns) < STEP_NS:
            return
        log.warning("clock stepped", step_s=round(step_ns / 1e9, 3))
        buffer = self._line.buffer
        draft = Draft(buffer.log, now, buffer.next_seq)
        seq = draft.add(Kind.CLOCK_OFFSET, "agent", {"step_ns": str(step_ns), "synced": synced})
        text = f"the clock was stepped by {step_ns / 1e9:+.3f} s; records keep the time they were given"
        report(draft, "agent", "clock_step", text, evidence=[seq])
        self._line.record(draft.records)
