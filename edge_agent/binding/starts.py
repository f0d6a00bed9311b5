"""The start of a cycle by a tag's edge, where the unit is not known yet (identity ``after`` and ``in_data``).

The cycle opens anonymous, so that its readings have a window; the end names its unit or leaves it to a late scan. A
start while a cycle is open means that its end was not seen: that one closes as Aborted and stays nobody's. A start that
is seen while the result of the unit before is still being read waits for that.
"""

from __future__ import annotations

from edge_agent.binding.draft import Draft
from edge_agent.binding.edge import EdgeTrigger
from edge_agent.binding.position import PositionLife
from edge_agent.binding.trigger import Ended
from edge_agent.model import BindingState, Sample


class Start:
    """One tag whose edge opens the cycles of ``lives``."""

    def __init__(self, trigger: EdgeTrigger, lives: list[PositionLife]) -> None:
        self.trigger = trigger
        self.lives = lives
        self._due: dict[PositionLife, Ended] = {}

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        """Take a sample, after the ends did."""
        begun = self.trigger.observe(sample, seq, draft)
        if begun is not None:
            self._due |= dict.fromkeys(self.lives, begun)
            draft.keep()
        for life in list(self._due):
            if life.trigger is None or not life.trigger.busy or life.trigger.unknown:
                self._begin(life, self._due.pop(life), draft)

    def forget(self) -> None:
        """An observation gap: what was due is not known to be so any more."""
        self._due.clear()

    def _begin(self, life: PositionLife, begun: Ended, draft: Draft) -> None:
        cycle = life.cycle
        if cycle is not None and cycle.suspended:
            life.close_interrupted(draft)
        elif cycle is not None:
            life.close(draft, "start", begun.fired_at, judged=False, evidence=begun.evidence)
        life.open(draft, "start", None, begun.evidence)
        life.bind(draft, BindingState.PENDING, "start", begun.evidence)
