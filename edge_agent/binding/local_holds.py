"""Holds by people: put something on hold here, lift a hold, see what is on hold. Each with an ``audit`` record. Pure.

A person may lift any hold, a QMS's too: the hold's last ``decision_seq`` stays, so a repeated or restored message of
the QMS does not put it back, and only a newer decision does. What is decided here has the source ``local``, no number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from edge_agent.binding.action import ActionRefused
from edge_agent.binding.draft import Draft
from edge_agent.binding.holds import LOCAL, OPEN_MAX
from edge_agent.binding.state import KnownHold
from edge_agent.binding.verdicts import Verdict
from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor

SHOWN_MAX = 1000


@dataclass(frozen=True, slots=True)
class Hold:
    """A person puts a subject on hold (or says that it is scrap, or to be reworked)."""

    who: str
    action: Literal["hold", "scrap", "rework"]
    kind: str
    subject: str
    reason: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Open a hold of its own. Answers {hold, open_here: cycles in work now}."""
        if len(floor.holds) >= OPEN_MAX:
            raise ActionRefused(f"{OPEN_MAX} holds are open already", hint="see which: edge-agent holds")
        new = {"action": self.action, "subject": {"kind": self.kind, "value": self.subject}}
        draft.add(Kind.AUDIT, "agent", {"who": self.who, "action": "hold", "reason": self.reason, "new": new})
        hold = draft.next_id
        Verdict(
            LOCAL, hold, None, self.action, hold, self.kind, self.subject, self.who, self.reason
        ).apply(floor, draft)  # fmt: skip
        in_work = [record.body["serial"] for record in draft.records if record.kind is Kind.FINDING]
        return {"hold": hold, "in_work": in_work}


@dataclass(frozen=True, slots=True)
class Release:
    """A person lifts a hold, on every subject that it stands on; or lets what it stops pass in spite of it."""

    who: str
    hold: str
    reason: str
    concession: bool = False

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Close it. Answers {hold, subjects}."""
        there = floor.holds.named(self.hold)
        if not there:
            raise ActionRefused(f"no hold {self.hold} is open", hint="see which are: edge-agent holds")
        action: Literal["concession", "release"] = "concession" if self.concession else "release"
        old = [{"kind": one.subject_kind, "value": one.subject, "source": one.source} for one in there]
        body = {"who": self.who, "action": action, "reason": self.reason, "old": {"hold": self.hold, "subjects": old}}
        draft.add(Kind.AUDIT, "agent", body)
        for one in there:
            Verdict(
                LOCAL, draft.next_id, None, action, self.hold, one.subject_kind, one.subject, self.who, self.reason
            ).apply(floor, draft)  # fmt: skip
        return {"hold": self.hold, "subjects": old}


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The registry's holds, once more: what was read from a damaged file comes after the start."""

    holds: tuple[KnownHold, ...]
    intact: bool  # no hold can have been lost with it

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Open what is not known here, open or closed."""
        for hold in self.holds:
            if not floor.holds.remembered((hold.subject_kind, hold.subject, hold.hold))[0]:
                floor.holds.open(hold)
        floor.holds.intact = self.intact
        return {}


@dataclass(frozen=True, slots=True)
class ConfirmHolds:
    """A person who knows says that what is open here now is all there is: after damage, or when there was no room."""

    who: str
    reason: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """From now on a unit without a hold may pass. Answers {open}."""
        holds = floor.holds
        if holds.known:
            raise ActionRefused("nothing is in doubt about what is on hold", hint="see: edge-agent holds")
        new = {"open": len(holds)}
        draft.add(
            Kind.AUDIT, "agent", {"who": self.who, "action": "holds_confirmed", "reason": self.reason, "new": new}
        )
        holds.intact = True
        holds.lacking.clear()
        return new


@dataclass(frozen=True, slots=True)
class ListHolds:
    """What is on hold, newest first, at most ``SHOWN_MAX``."""

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Answers {holds, more, known, stale}; changes nothing."""
        found = sorted(floor.holds, key=lambda hold: hold.at_ns, reverse=True)
        shown = []
        for hold in found[:SHOWN_MAX]:
            told = asdict(hold)
            for name in ("at_ns", "expires_at_ns"):
                told[name] = None if told[name] is None else str(told[name])
            shown.append(told)
        holds = floor.holds
        return {
            "holds": shown, "more": max(0, len(found) - SHOWN_MAX), "known": holds.known,
            "basis": holds.basis(draft.at),
        }  # fmt: skip
