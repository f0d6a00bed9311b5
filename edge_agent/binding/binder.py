"""The binder: every input of every device in, records and effects out. Pure."""

from __future__ import annotations

from typing import Any

from edge_agent.binding.plan import Plan
from edge_agent.binding.state import Lookup, Outcome, Restored
from edge_agent.model import Instant, Sample, Scan


class Binder:
    """See the module docstring."""

    def __init__(self, plan: Plan, log: str, config: str, lookup: Lookup, restored: Restored) -> None:
        self._plan = plan

    def start(self, now: Instant, seq: int) -> Outcome:
        """Begin. Cycles that were open become interrupted."""
        raise NotImplementedError

    def on_sample(self, sample: Sample, seq: int) -> Outcome:
        """One sample. ``records[0]`` is the sample's own record if and only if it is to be stored."""
        raise NotImplementedError

    def on_scan(self, scan: Scan, seq: int) -> Outcome:
        """One scan."""
        raise NotImplementedError

    def on_gap(self, device: str, since: Instant, now: Instant, cause: str, seq: int) -> Outcome:
        """The device was not observed from ``since`` on; ``cause``: lost or stall."""
        raise NotImplementedError

    def on_tick(self, now: Instant, seq: int) -> Outcome:
        """Time-outs. Call about four times a second."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """What ``status`` shows."""
        raise NotImplementedError
