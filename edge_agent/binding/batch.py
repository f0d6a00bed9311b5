"""Several units at once at one station: an oven, a wash, a burn-in. Each is there from its entry to its exit.

A reader at the entry lets a unit in; its place is the lowest free one and means nothing but that there is room. The
reader at the exit closes the cycle of the unit that it reads, wherever its place; or a tag closes all at once. A
reading of the station is everybody's who is in.

===================================  ==========================================================================
what happens                         what comes of it
===================================  ==========================================================================
the label is read at the entry again it is in already: counted
all places are taken                 an exit is missing: refused, ``skipped_scan``
an exit without an entry             ``skipped_scan``; the unit that just left is only scanned again
no exit until the time-out           nobody knows when it left: ambiguous, ``cycle_timeout``
it is identified at another station  the same: ambiguous, ``skipped_scan``
the exit's reader was lost, restart  all that are in are interrupted; the exit scan shows that this unit stayed, and
                                     ends its cycle. What was read since the gap began stays unbound
===================================  ==========================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.part import Part, ScanAt
from edge_agent.binding.places import Batch
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.seen import Seen
from edge_agent.model import BindingState, Instant

LEFT = 64  # units that left last: their exit is no exit without an entry


class InAndOut(Part):
    """See the module docstring."""

    def __init__(self, floor: Floor, plan: Batch, positions: Mapping[int, PositionLife]) -> None:
        self._floor = floor
        self._plan = plan
        self._positions = positions
        self._left: deque[str] = deque(maxlen=LEFT)

    def scanners(self) -> set[str]:
        return {reads.scanner for reads in (self._plan.entry, self._plan.exit) if reads is not None}

    def blinding(self) -> set[str]:
        return {self._plan.exit.scanner} if self._plan.exit is not None else set()

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        for reads in (self._plan.entry, self._plan.exit):
            if reads is not None and (found := reads.match(device, seen)) is not None:
                return found
        return None

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        if scan.device == self._plan.entry.scanner:
            self._enter(found, scan, draft)
        else:
            self._exit(found["serial"], scan, draft)

    def _enter(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        serial = found["serial"]
        life = self._of(serial) or next((one for one in self._positions.values() if _free(one)), None)
        station = next(iter(self._positions.values())).station.name
        if life is None:
            report(
                draft, station, "skipped_scan",
                f"{station}: {serial} came in, and all {len(self._positions)} places are taken: an exit is missing",
                evidence=[scan.seq], serial=serial,
            )  # fmt: skip
            return
        self._floor.stations[station].on_scan(life, found, scan.at, scan.seq, draft)

    def _exit(self, serial: str, scan: ScanAt, draft: Draft) -> None:
        life = self._of(serial)
        if life is None or life.cycle is None:
            self._without_entry(serial, scan, draft)
            return
        if life.cycle.suspended:
            life.resume(draft, "resume:scan", [scan.seq])
        self._left.append(serial)
        life.close(draft, "scan_out", scan.at, judged=True, evidence=[scan.seq])

    def _without_entry(self, serial: str, scan: ScanAt, draft: Draft) -> None:
        life = next(iter(self._positions.values()))
        if serial in self._left:
            life.counts["rescans"] += 1
            return
        report(
            draft, life.station.name, "skipped_scan",
            f"{life.station.name}: {serial} came out, and nobody scanned it in", evidence=[scan.seq], serial=serial,
        )  # fmt: skip

    def _of(self, serial: str) -> PositionLife | None:
        """Where this unit is in, or about to be."""
        for life in self._positions.values():
            waiting = any(scan.identifiers.get("serial") == serial for scan in life.waiting)
            if waiting or (life.cycle is not None and life.cycle.serial == serial):
                return life
        return None


def _free(life: PositionLife) -> bool:
    return life.cycle is None and not life.waiting


def gone_unseen(life: PositionLife, at: Instant, seq: int, draft: Draft) -> None:
    """The unit was identified elsewhere while it was in: it left, and nobody knows when."""
    cycle = life.cycle
    assert cycle is not None, "it is in"
    reason = f"it was identified elsewhere: when it left {life.station.name} nobody knows"
    if cycle.state is BindingState.BOUND:
        life.bind(draft, BindingState.AMBIGUOUS, "skipped_scan", [seq], reason=reason)
    if cycle.suspended:
        life.close_interrupted(draft)
    else:
        life.close(draft, "next_scan", at, judged=False, evidence=[seq])
    report(
        draft, life.station.name, "skipped_scan", f"{life.station.name}: {cycle.serial} left without a scan",
        evidence=[seq], cycle=cycle.id, position=life.plan.number, serial=cycle.serial,
    )  # fmt: skip
