"""Scan in, scan out: a reader at the exit ends the cycle of the unit that it reads.

===============================  ==========================================================================
at the position                  a scan at the exit
===============================  ==========================================================================
that unit's cycle is open        ends it: its readings are those between the two scans
it is open and interrupted       the unit is here, so it stayed: the cycle resumes, and ends
another unit's cycle is open     one of the two scans, or one in between, is missing: the cycle ends ambiguous,
                                 both units are candidates (``skipped_scan``)
none is open                     an exit without an entry: nothing is known of its work (``skipped_scan``);
                                 the unit that left just before is only scanned again
===============================  ==========================================================================

A unit whose exit was not scanned is ended by the next entry, as Aborted: when it left nobody knows (``skipped_scan``).
"""

from __future__ import annotations

from collections.abc import Iterable

from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.seen import Reads, Seen
from edge_agent.model import BindingState, Instant


class ScanOut(Part):
    """See the module docstring. One for each station; each position has an exit reader of its own."""

    def __init__(self, floor: Floor, lives: Iterable[PositionLife]) -> None:
        self._floor = floor
        self._lives = {life.plan.out: life for life in lives if life.plan.out is not None}

    def scanners(self) -> set[str]:
        return set(self._lives)

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        if device not in self._lives:
            return None
        plan = self._lives[device].station
        return Reads(device, plan.pattern, plan.rules, plan.of).match(device, seen)

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        life = self._lives[scan.device]
        serial, cycle = found[life.station.of], life.cycle
        if cycle is None:
            self._nobody(life, serial, scan, draft)
            return
        if cycle.serial == serial:
            if cycle.suspended:
                life.resume(draft, "resume:scan", [scan.seq])
        elif cycle.suspended:
            life.close_interrupted(draft)
            self._nobody(life, serial, scan, draft)
            return
        else:
            self._another(life, found, scan, draft)
        life.close(draft, "scan_out", scan.at, judged=True, evidence=[scan.seq])

    def _another(self, life: PositionLife, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        """One unit came in and another goes out: whose the readings between are, nobody can tell."""
        cycle, serial = life.cycle, found[life.station.of]
        assert cycle is not None
        before = [] if cycle.unit is None else [{"unit": cycle.unit.unit, "serial": cycle.unit.serial}]
        unit = self._floor.units.know(draft, life.station.name, found, [scan.seq], life.station.of)
        reason = f"{serial} was scanned at the exit, {cycle.serial or 'an unknown unit'} at the entry"
        candidates = [*before, {"unit": unit.unit, "serial": unit.serial}]
        life.bind(draft, BindingState.AMBIGUOUS, "skipped_scan", [scan.seq], reason=reason, candidates=candidates)
        report(
            draft, life.station.name, "skipped_scan", f"{life.name}: {reason}; a scan between is missing",
            evidence=[scan.seq], cycle=cycle.id, position=life.plan.number, serial=serial,
        )  # fmt: skip

    def _nobody(self, life: PositionLife, serial: str, scan: ScanAt, draft: Draft) -> None:
        if life.last is not None and life.last["serial"] == serial:
            life.counts["rescans"] += 1
            return
        report(
            draft, life.station.name, "skipped_scan", f"{life.name}: {serial} left, and nobody scanned it in",
            evidence=[scan.seq], position=life.plan.number, serial=serial,
        )  # fmt: skip


def displace(life: PositionLife, at: Instant, seq: int, draft: Draft, by: str = "next_scan") -> None:
    """Another unit is scanned in here, or this one elsewhere: the open cycle ends with that scan, ``seq``."""
    cycle = life.cycle
    assert cycle is not None
    if cycle.suspended:
        life.close_interrupted(draft)
        return
    left_unseen = life.plan.out is not None
    life.close(draft, by, at, judged=life.trigger is None and not left_unseen, evidence=[seq])
    if left_unseen:
        report(
            draft, life.station.name, "skipped_scan", f"{life.name}: {cycle.serial or 'a unit'} left without a scan",
            evidence=[seq], cycle=cycle.id, position=life.plan.number, serial=cycle.serial,
        )  # fmt: skip
