"""Rework: the same unit again at a step is its next attempt. All are kept, the latest governs; too many are a finding.

"Retest until it passes" shows as attempts beyond ``most``: the gate, where there is one, blocks the next; without one
(or if it was overridden) the cycle is recorded as it was, with the finding ``retest_limit``.
"""

from __future__ import annotations

from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.part import Part
from edge_agent.binding.plan import Attempts
from edge_agent.binding.position import PositionLife
from edge_agent.model import BindingState


class AttemptLimit(Part):
    """See the module docstring."""

    def __init__(self, plan: Attempts) -> None:
        self._plan = plan

    def closed(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        self.named(life, cycle, draft)

    def named(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        attempt = cycle.attempt or 0
        if not self._plan.flag or cycle.state is not BindingState.BOUND or attempt <= self._plan.most:
            return
        text = f"{life.name}: {cycle.serial} was here {attempt} times, and may be {self._plan.most} times"
        report(
            draft, life.station.name, "retest_limit", text, cycle=cycle.id, position=life.plan.number,
            serial=cycle.serial, details={"attempt": attempt, "max": self._plan.most},
        )  # fmt: skip
