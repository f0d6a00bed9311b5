"""Command barcodes: an operator without a keyboard enters the result by scanning a printed sheet.

=============  ================================================================================================
command        what it does to the open cycle of the position whose reader it was
=============  ================================================================================================
PASS, FAIL     are its result. They end it, unless a PLC or a tester ends the cycles here: then they wait for that
DEFECT:<code>  adds a defect code, up to ``DEFECTS``: a cycle with a defect has not passed
END            ends it, judged by what was collected
CANCEL         closes it as Aborted (``cancelled``)
REWORK         marks this unit's next cycle at this step as rework; both cycles say so in their context (``rework``)
=============  ================================================================================================

A command is refused, and changes nothing (``unmatched_scan`` says why), if no cycle is open, if the open one is
interrupted (who is there?), if the next unit's scan is just being settled, if an operator is required and none has
shown the badge since, if PASS contradicts a defect, or if END would go before the PLC's own end.

Limits: a mark for rework is in memory: over a restart only the attempt number tells. What a command said of a cycle
that was then interrupted by a restart is gone with it; the scan is in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.binding.context import StationContext
from edge_agent.binding.cycle import Cycle
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.judge import Judgement
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.plan import Commands
from edge_agent.binding.position import PositionLife
from edge_agent.binding.seen import Reads, Seen
from edge_agent.model import BindingState, Result

DEFECTS = 32
MARKED = 1000  # units that wait for their rework
REWORK = "rework"
_RESULTS = {"PASS": Result.PASSED, "FAIL": Result.FAILED}


class OperatorCommands(Part):
    """See the module docstring."""

    def __init__(self, plan: Commands, context: StationContext, positions: Mapping[int, PositionLife]) -> None:
        self._plan = plan
        self._context = context
        self._lives = {scanner: positions[number] for number, scanner in plan.scanners.items()}
        self._said: dict[str, tuple[Result, int]] = {}  # cycle -> its result, and the scan that said so
        self._defects: dict[str, list[str]] = {}  # cycle -> codes
        self._marked: dict[str, dict[str, Any]] = {}  # serial -> context of its next cycle

    def scanners(self) -> set[str]:
        return set(self._lives)

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        if device not in self._lives:
            return None
        return Reads(device, None, self._plan.rules, "command").match(device, seen)

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        life, command = self._lives[scan.device], found["command"]
        cycle = life.cycle
        refusal = self._refusal(life, command)
        if cycle is None or refusal:
            why = refusal or "no cycle is open"
            text = f"{life.name}: the command {command} was not followed: {why}"
            report(
                draft, life.station.name, "unmatched_scan", text,
                evidence=[scan.seq], position=life.plan.number, cycle=cycle.id if cycle else None,
                serial=cycle.serial if cycle else None, details={"command": command},
            )  # fmt: skip
            return
        life.counts["commands"] += 1
        if command == "DEFECT":
            codes = self._defects.setdefault(cycle.id, [])
            if found["defect"] not in codes:
                codes.append(found["defect"])
        elif command == "REWORK":
            self._mark(cycle, scan)
        elif command == "CANCEL":
            life.close(draft, "cancelled", scan.at, judged=False, evidence=[scan.seq])
        else:
            if command in _RESULTS:
                self._said[cycle.id] = (_RESULTS[command], scan.seq)
            if life.trigger is None:
                life.close(draft, "command", scan.at, judged=True, evidence=[scan.seq])

    def _refusal(self, life: PositionLife, command: str) -> str:
        """Why this command cannot be followed now; "" if it can."""
        cycle = life.cycle
        if cycle is None:
            return "no cycle is open"
        if cycle.suspended:
            return "nobody watched since; scan the unit again first"
        if life.waiting:
            return "the next unit's scan is being settled; scan the command again"
        operator = self._context.snapshot().get("operator")
        if self._plan.operator and (operator is None or operator.get("stale")):
            return "nobody is signed in; scan the operator's badge first"
        codes = self._defects.get(cycle.id, [])
        if command == "PASS" and codes:
            return f"it has the defect {', '.join(codes)}; scan FAIL or END, or CANCEL and begin again"
        if command == "DEFECT" and len(codes) >= DEFECTS:
            return f"it has {DEFECTS} defects already"
        if command == "END" and life.trigger is not None:
            return "the PLC or the tester ends the cycles here"
        if command == "REWORK" and (cycle.state is not BindingState.BOUND or cycle.unit is None):
            return "its unit is not known"
        return ""

    def _mark(self, cycle: Cycle, scan: ScanAt) -> None:
        item = {"source": scan.device, "since_ns": str(scan.at.at_ns)}
        cycle.remarks[REWORK] = item | {"value": "ordered"}
        self._marked[str(cycle.serial)] = item | {"value": "done"}
        if len(self._marked) > MARKED:
            del self._marked[next(iter(self._marked))]

    # --- a cycle's life ----------------------------------------------------------------------------------------

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        if cycle.state is BindingState.BOUND and (mark := self._marked.pop(str(cycle.serial), None)) is not None:
            cycle.remarks[REWORK] = mark

    def closing(self, life: PositionLife, cycle: Cycle, judgement: Judgement, draft: Draft) -> None:
        said = self._said.pop(cycle.id, None)
        judgement.defects += self._defects.pop(cycle.id, [])
        if judgement.result is Result.ABORTED:
            return
        if said is not None:
            judgement.result, scan_seq = said
            if judgement.result is Result.PASSED and judgement.violated:
                names = ", ".join(judgement.violated)
                text = f"{life.name}: the operator passed {cycle.serial or 'a unit'} with {names} outside its limits"
                report(
                    draft, life.station.name, "limit_violated", text, evidence=[scan_seq], cycle=cycle.id,
                    position=life.plan.number, serial=cycle.serial, details={"violated": judgement.violated},
                )  # fmt: skip
        if judgement.defects and judgement.result is Result.PASSED:
            judgement.result = Result.FAILED
