"""What becomes of a verdict of the QMS: applied, duplicate, stale, refused or expired, and the record of it. Pure.

====================  ==============================================================================================
``duplicate``         its ``verdict_id`` was here before: nothing is done. The same id with other content is refused
``stale``             its ``decision_seq`` is not above the last one of that subject and hold, or it is not above the
                      newest snapshot, which would have named it
``expired``           it came after its ``expires_at_ns``. While the clock is not trusted, what stops a unit is applied
                      all the same, and a release with an end is refused
``refused``           a release of a hold that was never heard of; a hold of another source; no room for one more
``applied``           all else, of subjects never seen too: the unit may come later
====================  ==============================================================================================

So any order, repetition and delay of the same verdicts ends in the same open holds. Each arrival is answered with a
``hold_ack`` record; one that keeps coming is answered at its 1st, 2nd, 4th, 8th … repeat. A verdict that stops a unit
which is in work lets its cycle finish: the finding ``hold_in_cycle`` says so, and the next gate stops the unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.holds import LOCAL, OPEN_MAX, Holds, Key, subjects_of
from edge_agent.binding.state import KnownHold, KnownVerdict, Lookup
from edge_agent.binding.units import Unit
from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor

VerdictAction = Literal["hold", "release", "scrap", "rework", "concession"]
State = Literal["applied", "duplicate", "stale", "refused", "expired"]
STOPPING = ("hold", "scrap", "rework")
COMPONENTS_MAX = 1000  # of one unit are looked at


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision of a source. ``apply`` never raises: whatever becomes of it is recorded."""

    source: str
    verdict_id: str
    decision_seq: int | None  # None: a person's, here
    action: VerdictAction
    hold: str
    kind: str
    subject: str
    by: str
    text: str | None = None
    expires_at_ns: int | None = None
    clock_trusted: bool = True

    @property
    def key(self) -> Key:
        """The hold that it is about."""
        return (self.kind, self.subject, self.hold)

    @property
    def content(self) -> tuple[Any, ...]:
        """What may not differ between two arrivals of one verdict_id."""
        return (self.source, self.decision_seq, self.action, self.key)

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Judge it, do it, record it. Answers {state, reason, hold}."""
        known = floor.lookup.verdict(self.verdict_id)
        first = self.content if known is None else _content_of(known)
        arrivals = floor.holds.arrival(self.verdict_id, first, None if known is None else known.state)
        if arrivals.state is None:
            state, reason = self._judge(floor, draft)
            arrivals.state = state
        elif arrivals.content == self.content:
            state, reason = "duplicate", f"it was {arrivals.state} before"
            arrivals.repeats += 1
        else:
            state, reason = "refused", f"verdict_id {self.verdict_id} stands for another decision already"
        self.heard(floor, draft)
        if state != "duplicate" or arrivals.repeats.bit_count() == 1:
            draft.add(Kind.HOLD_ACK, "agent", self.acknowledgement(state, reason))
        if state == "refused":
            self._report_refused(draft, reason or "")
        if state == "applied" and self.action in STOPPING:
            self._report_in_cycle(floor, draft)
        return {"state": state, "reason": reason, "hold": self.hold}

    # --- judging -----------------------------------------------------------------------------------------------

    def _judge(self, floor: Floor, draft: Draft) -> tuple[State, str | None]:
        holds = floor.holds
        ever, last = last_of(holds, floor.lookup, self.key, self.source)
        source = holds.sources.get(self.source)
        if self.decision_seq is not None:
            outdated = last is not None and source is not None and self.outdates(holds, last, source.said)
            if last is not None and self.decision_seq <= last and not outdated:
                return "stale", f"decision {last} about this subject and hold came before"
            if source is not None and self.decision_seq <= source.settled:
                return "stale", f"a snapshot as of decision {source.settled} came before"
        if self.expires_at_ns is not None:
            if self.clock_trusted and draft.at.at_ns >= self.expires_at_ns:
                return "expired", "it came after its expires_at_ns"
            if not self.clock_trusted and self.action not in STOPPING:
                return "refused", "it has an end, and the clock here is not synchronised"
        there = holds.find(self.key)
        if there is not None and there.source != self.source and LOCAL not in (there.source, self.source):
            return "refused", f"a hold {self.hold} of {there.source} stands on this subject"
        if self.action == "release" and not ever:
            if self.decision_seq is not None:
                holds.close(
                    self.key, self.decision_seq, self.source
                )  # the hold, should it come yet, is older than its release
            return "refused", f"no hold {self.hold} was ever known on {self.kind} {self.subject}"
        if there is None and self.action != "release" and len(holds) >= OPEN_MAX:
            if self.action != "concession":
                holds.lacking.add(self.source)
            return "refused", f"{OPEN_MAX} holds are open already"
        self.do(holds, draft)
        return "applied", None

    def outdates(self, holds: Holds, last: int, said: int) -> bool:
        """Whether ``last`` lifted what this one stops, and is from before the source's numbers went back to ``said``.

        The source does not know of it any more, so it compares with nothing. What stands, stands.
        """
        there = holds.find(self.key)
        stands = there is not None and there.action in STOPPING
        return self.action in STOPPING and not stands and last > said

    def do(self, holds: Holds, draft: Draft) -> None:
        """Change what is on hold."""
        if self.action == "release":
            holds.close(self.key, self.decision_seq, self.source)
            return
        there = holds.find(self.key)
        seq = there.decision_seq if self.decision_seq is None and there is not None else self.decision_seq
        hold = KnownHold(
            self.hold, self.kind, self.subject, self.action, self.verdict_id, seq, self.source,
            self.text, self.expires_at_ns, draft.at.at_ns,
        )  # fmt: skip
        holds.open(hold)

    # --- telling -----------------------------------------------------------------------------------------------

    def heard(self, floor: Floor, draft: Draft) -> None:
        """Its number counts as heard, whatever became of it; a number left out is a gap."""
        source = floor.holds.sources.get(self.source)
        if source is not None and self.decision_seq is not None:
            source.heard(self.decision_seq)
            report_gap(floor.holds, self.source, draft)

    def acknowledgement(self, state: State, reason: str | None) -> dict[str, Any]:
        """The body of the ``hold_ack`` record."""
        body: dict[str, Any] = {
            "verdict_id": self.verdict_id,
            "decision_seq": self.decision_seq,
            "action": self.action,
            "hold": self.hold,
            "subject": {"kind": self.kind, "value": self.subject},
            "state": state,
            "text": self.text,
            "reason": reason,
            "source": self.source,
            "by": self.by,
            "expires_at_ns": None if self.expires_at_ns is None else str(self.expires_at_ns),
        }
        return {name: value for name, value in body.items() if value is not None}

    def _report_refused(self, draft: Draft, reason: str) -> None:
        text = f"{self.source}: verdict {self.verdict_id} ({self.action} {self.hold}) was refused: {reason}"
        details = {"source": self.source, "verdict_id": self.verdict_id, "hold": self.hold, "reason": reason}
        report(draft, "agent", "verdict_refused", text, evidence=[draft.seq - 1], details=details)

    def _report_in_cycle(self, floor: Floor, draft: Draft) -> None:
        evidence = [draft.seq - 1]
        for station in floor.stations.values():
            for life in station.positions.values():
                cycle = life.cycle
                if cycle is None or cycle.unit is None:
                    continue
                if not any((self.kind, self.subject) in subjects_of(one) for one in with_components(floor, cycle.unit)):
                    continue
                text = f"{life.name}: {cycle.serial} came under {self.action} {self.hold} while in work"
                report(
                    draft, station.plan.name, "hold_in_cycle", f"{text}; it must not leave", evidence=evidence,
                    cycle=cycle.id, position=life.plan.number, serial=cycle.serial,
                    details={"hold": self.hold, "action": self.action, "verdict_id": self.verdict_id},
                )  # fmt: skip


def holds_on(floor: Floor, unit: Unit) -> list[KnownHold]:
    """What stops this unit: what stands on it, on what went into it, and on its components and theirs.

    A concession for the unit is one for all that is in it; one for a component lets only that one pass by itself.
    """
    if not len(floor.holds):
        return []
    found = {id(hold): hold for one in with_components(floor, unit) for hold in floor.holds.on(one)}
    return floor.holds.standing(unit, found.values())


def with_components(floor: Floor, unit: Unit) -> Iterator[Unit]:
    """The unit, and what is installed in it now, at any depth; at most ``COMPONENTS_MAX``."""
    yield unit
    seen, inside = {unit.unit}, [unit.unit]
    while inside and len(seen) < COMPONENTS_MAX:
        for installed in floor.lookup.children_of(inside.pop()):
            if installed.child in seen:
                continue
            seen.add(installed.child)
            inside.append(installed.child)
            component = floor.units.find(installed.child_serial)
            if component is not None:
                yield component


def last_of(holds: Holds, lookup: Lookup, key: Key, source: str) -> tuple[bool, int | None]:
    """Whether this hold was ever known here, and the last decision of ``source`` about it: each counts for itself."""
    ever, last, whose = holds.remembered(key)
    if last is None or whose not in (source, LOCAL):
        last = lookup.decision_seq(*key, source)
    return ever or last is not None, last


def _content_of(known: KnownVerdict) -> tuple[Any, ...]:
    """As :attr:`Verdict.content`."""
    return (known.source, known.decision_seq, known.action, (known.subject_kind, known.subject, known.hold))


def report_gap(holds: Holds, name: str, draft: Draft) -> None:
    """A finding for a gap that was not told yet."""
    source = holds.sources[name]
    if source.upto is None or not source.gap or source.told_gap >= source.upto + 1:
        return
    source.told_gap = source.upto + 1
    text = f"{name}: decision {source.said} was named, but nothing came after {source.upto}; asking for all open holds"
    details = {"source": name, "known_upto": source.upto, "said": source.said}
    report(draft, "agent", "verdict_gap", text, details=details)
