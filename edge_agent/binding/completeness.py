"""Is a cycle complete, and is what was collected surely its unit's? Steps before, limits by part number.

*Incomplete* names what is missing: a characteristic by its name, and ``material:solder``, ``component:pcb``,
``context:operator``, ``limits:1234-A`` (a part number that the config does not know). *Suspect* names why it may not be
so: the binding (``ambiguous``, ``orphan``), ``interrupted``, ``torn_read``, a material that was one of several
(``material:solder``) or the wrong one (``wrong_material:solder``), context that was not confirmed since a gap
(``context:operator``) or that contradicts the label (``part_number``). What is suspect may be incomplete too. None of
it changes the result, which says whether the work was good: only a required value that it is judged by does.

The part number is the context's item ``part_number`` as of the cycle's opening, else the one on the unit's label. It
decides the limits, and the collected items say so (``limits_from``). What it adds to ``require`` is added.

A step before (``previous``) is missing if no cycle of it was ever closed for this unit, here or, as far as it was heard
of, elsewhere. That it was passed is the gate's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from edge_agent.binding.context import StationContext
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.genealogy import children_of, part_number_of
from edge_agent.binding.judge import Judgement
from edge_agent.binding.needs import Required, Variant
from edge_agent.binding.part import Part
from edge_agent.binding.plan import Characteristic, Station
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.state import StepStatus
from edge_agent.binding.units import Unit
from edge_agent.model import BindingState, Result

PART_NUMBER = "part_number"


def missing_steps(unit: Unit, previous: Iterable[str], status: Iterable[StepStatus]) -> list[str]:
    """Of the steps before, those of which no result is known: not by this agent, not by others (``status``)."""
    done = set(unit.results) | {one.step for one in status}
    return [step for step in previous if step not in done]


class Completeness(Part):
    """See the module docstring. Every station has it."""

    def __init__(self, floor: Floor, station: Station, context: StationContext) -> None:
        self._floor = floor
        self._station = station
        self._context = context
        self._needs = station.needs
        self._asked: dict[int, str] = {}  # position -> cycle whose steps before were looked at
        self._same: dict[tuple[int, str], tuple[Any, str, int]] = {}  # (position, characteristic) -> value, serial, run

    # --- steps before --------------------------------------------------------------------------------------------

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """Were the steps before done?"""
        self._look_back(life, cycle, draft)

    def rebound(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """The same, if it was not known before which unit it is."""
        self._look_back(life, cycle, draft)

    def named(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """The same, of a unit that was scanned after the work."""
        self._look_back(life, cycle, draft)

    def _look_back(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        number, unit = life.plan.number, cycle.unit
        if not self._needs.previous or unit is None or cycle.state is not BindingState.BOUND:
            return
        if self._asked.get(number) == cycle.id:
            return
        self._asked[number] = cycle.id
        missing = missing_steps(unit, self._needs.previous, self._floor.status.of(unit.serial))
        if missing:
            report(
                draft, self._station.name, "missing_step",
                f"{life.name}: {unit.serial} is here, and no result of {', '.join(missing)} is known",
                evidence=[int(cycle.id.rpartition("-")[2])], cycle=cycle.id, position=number, serial=unit.serial,
                details={"missing": missing, "known": sorted(unit.results)},
            )  # fmt: skip

    # --- what is collected ---------------------------------------------------------------------------------------

    def _variant(self, cycle: Cycle) -> Variant | None:
        return self._needs.variants.get(part_number_of(cycle) or "")

    def collect(self, cycle: Cycle, collect: Sequence[Characteristic]) -> Sequence[Characteristic]:
        """With the limits of the part number."""
        variant = self._variant(cycle)
        if variant is None or not variant.limits:
            return collect
        number = part_number_of(cycle) or ""
        limits = variant.limits
        return [
            replace(one, low=limits[one.name][0], high=limits[one.name][1], limits_from=number)
            if one.name in limits
            else one
            for one in collect
        ]

    def closing(self, life: PositionLife, cycle: Cycle, judgement: Judgement, draft: Draft) -> None:
        """What is missing, and what is in doubt. Comes after the parts that say what went in."""
        if cycle.blocked:
            judgement.missing.clear()  # nothing is due of a visit without work
            return
        needs, number = self._needs, part_number_of(cycle)
        variant = self._variant(cycle)
        if needs.variants and variant is None:
            judgement.missing.append(f"limits:{number}" if number else f"context:{PART_NUMBER}")
        extra = variant.require if variant is not None else Required()
        context, now = cycle.context, self._context.snapshot()
        for name in sorted(needs.context | extra.context):
            item = context.get(name) or now.get(name)
            if item is None or item.get("value") in (None, ""):
                judgement.missing.append(f"context:{name}")
            elif item.get("stale") and now.get(name, item).get("stale"):
                judgement.suspect.append(f"context:{name}")
        loaded = {item["name"] for item in judgement.materials}
        for name in sorted((needs.required.materials | extra.materials) - loaded):
            judgement.missing.append(f"material:{name}")
        self._components(cycle, needs.required.components | extra.components, judgement)
        label = cycle.unit.identifiers.get(PART_NUMBER) if cycle.unit is not None else None
        if number is not None and label is not None and label != number:
            judgement.suspect.append(PART_NUMBER)
        if cycle.state in (BindingState.AMBIGUOUS, BindingState.ORPHAN):
            judgement.suspect.append(cycle.state.value)
        if cycle.suspended:
            judgement.suspect.append("interrupted")
        if needs.identical and judgement.result is not Result.ABORTED:
            self._identical(life, cycle, judgement, draft)

    def _components(self, cycle: Cycle, required: frozenset[str], judgement: Judgement) -> None:
        if not required:
            return
        bound = cycle.unit is not None and cycle.state is BindingState.BOUND
        links = children_of(self._floor, cycle.unit).values() if cycle.unit is not None and bound else ()
        inside = [link.name for link in links]
        counts = {one.name: one.count for one in self._needs.components}
        for name in sorted(required):
            if inside.count(name) < counts.get(name, 1):
                judgement.missing.append(f"component:{name}")

    # --- values that are too much alike --------------------------------------------------------------------------

    def _identical(self, life: PositionLife, cycle: Cycle, judgement: Judgement, draft: Draft) -> None:
        """The same value for one unit after the other: somebody enters it without measuring. Told once a run."""
        if cycle.serial is None:
            return
        for item in judgement.collected:
            limit, key = self._needs.identical.get(item["name"]), (life.plan.number, item["name"])
            if limit is None or item["value"] is None:
                continue
            value, serial, run = self._same.get(key, (None, "", 0))
            if value != item["value"]:
                run = 1
            elif serial != cycle.serial:
                run += 1
            else:
                continue
            self._same[key] = (item["value"], cycle.serial, run)
            if run == limit:
                report(
                    draft, self._station.name, "identical_entries",
                    f"{life.name}: {item['name']} was {item['value']} for {run} units in a row",
                    evidence=[int(cycle.id.rpartition("-")[2])], cycle=cycle.id, position=life.plan.number,
                    serial=cycle.serial, details={"name": item["name"], "value": item["value"], "count": run},
                )  # fmt: skip
