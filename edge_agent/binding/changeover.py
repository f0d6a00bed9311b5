"""Lots that follow each other at one equipment: a scan says which lot comes, not when the last one is out.

For ``changeover`` after the scan of another lot, readings are of either: a cycle of their own holds them, ambiguous,
with both lots as candidates. Then the new lot's cycle opens. Read during the changeover, the same label changes
nothing, a third lot begins it anew, with three candidates. A gap meanwhile leaves the changeover undecided: the next
scan of the lot begins it again.
"""

from __future__ import annotations

from edge_agent.binding.draft import Draft
from edge_agent.binding.part import Part
from edge_agent.binding.position import Floor, PositionLife, Waiting
from edge_agent.model import BindingState


class Changeover(Part):
    """See the module docstring. For all positions of one station."""

    def __init__(self, floor: Floor, changeover_s: float) -> None:
        self._floor = floor
        self._for_ns = int(changeover_s * 1e9)
        self._next: dict[PositionLife, tuple[str, Waiting]] = {}  # cycle in changeover -> the lot that comes

    def coming(self, life: PositionLife) -> str | None:
        """The lot that is being changed to."""
        cycle, found = life.cycle, self._next.get(life)
        if cycle is None or found is None or found[0] != cycle.id or cycle.suspended:
            return None
        return found[1].identifiers["lot"]

    def begin(self, life: PositionLife, scan: Waiting, before: list[dict[str, str]], draft: Draft) -> None:
        """The lot before may still be in; ``before``: which that is, as candidates."""
        unit = self._floor.units.know(draft, life.station.name, scan.identifiers, [scan.seq], "lot")
        candidates = [*before, {"unit": unit.unit, "serial": unit.serial}]
        cycle = life.open(draft, "scan", None, [scan.seq], scanned=scan.at)
        reason = f"{unit.serial} was scanned: the lot before may not be out"
        life.bind(draft, BindingState.AMBIGUOUS, "changeover", [scan.seq], reason=reason, candidates=candidates)
        self._next[life] = (cycle.id, scan)

    def tick(self, draft: Draft) -> None:
        for life, (cycle_id, scan) in list(self._next.items()):
            if life.cycle is None or life.cycle.id != cycle_id or life.cycle.suspended:
                del self._next[life]
            elif draft.at.mono_ns - scan.at.mono_ns >= self._for_ns:
                del self._next[life]
                life.close(draft, "next_scan", draft.at, judged=False, evidence=[scan.seq])
                unit = self._floor.units.know(draft, life.station.name, scan.identifiers, [scan.seq], "lot")
                life.open(draft, "scan", unit, [scan.seq], scanned=scan.at)
                life.bind(draft, BindingState.BOUND, "scan", [scan.seq])
