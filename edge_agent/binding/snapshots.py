"""A source's heartbeats, and its snapshots of all open holds, which end a gap. Pure.

A snapshot comes in parts, as the answer to a request of ours; one that nobody asked for changes nothing. What a part
names is opened as the part comes, unless something newer is known of that hold. With the last part, the open holds of
that source that no part names are closed, but for those of decisions newer than the snapshot: in steps of ``STEP``, so
that nothing stands still meanwhile. Only then is the source known again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_agent.binding.decisions import Asked, Decisions
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.binding.holds import OPEN_MAX, Holds
from edge_agent.binding.verdicts import Verdict, last_of, report_gap
from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor

STEP = 500
_TOLD_REFUSED_CHARS = 200


@dataclass(frozen=True, slots=True)
class Expect:
    """A source is configured: from now on it is stale until its first snapshot."""

    source: str
    heartbeat_ns: int

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Begin to keep an eye on it."""
        last = floor.lookup.last_decision(self.source)
        floor.holds.sources[self.source] = Decisions(self.source, self.heartbeat_ns, last, last or 0)
        return {}


@dataclass(frozen=True, slots=True)
class Watch:
    """Time passes: is a snapshot to be asked for? Answers {request, ...what status shows}."""

    source: str
    ask: bool  # there is a way to ask

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Note the request, if there is one."""
        source = floor.holds.sources[self.source]
        asks = self.ask and source.ask(draft.at, f"{draft.log}.{self.source}.{source.asked_ever + 1}")
        request = source.asked.request if asks and source.asked is not None else None
        return {"request": request} | _told(floor.holds, source, draft)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The source lives, and this was its last decision."""

    source: str
    last_decision_seq: int
    at_ns: int

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Believe it; what it names and is not here is a gap."""
        source = floor.holds.sources[self.source]
        said = source.said
        if source.beat(self.last_decision_seq, self.at_ns, draft.at):
            _report_back(self.source, said, self.last_decision_seq, draft)
        else:
            report_gap(floor.holds, self.source, draft)
        return {"stale": source.stale}


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """One part of the answer to ``request``; ``holds`` are what is open as of ``last_decision_seq``."""

    source: str
    request: str
    last_decision_seq: int
    part: int  # from 1
    parts: int
    holds: tuple[Verdict, ...]

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Open what it names. Answers {state, left}: while ``left``, apply :class:`CloseAbsent`."""
        source = floor.holds.sources[self.source]
        asked = source.asked
        if asked is None or asked.request != self.request or asked.closing:
            return {"state": "unasked", "left": False}
        if asked.upto is None:
            asked.upto, asked.parts = self.last_decision_seq, self.parts
            if self.last_decision_seq < asked.said and source.went_back():
                _report_back(self.source, asked.said, self.last_decision_seq, draft)
        if (asked.upto, asked.parts) != (self.last_decision_seq, self.parts):
            source.asked = None
            return {"state": "contradicts itself", "left": False}
        asked.came.add(self.part)
        room = True
        for hold in self.holds:
            asked.named.add(hold.key)
            room = self._take(hold, floor, draft) and room
        if not room:
            floor.holds.lacking.add(self.source)
        if len(asked.came) == asked.parts:
            asked.closing = True
            if room:
                floor.holds.lacking.discard(self.source)
        return {"state": "taken", "left": asked.closing}

    def _take(self, hold: Verdict, floor: Floor, draft: Draft) -> bool:
        """One open hold; False if there is no room for it."""
        holds = floor.holds
        _, last = last_of(holds, floor.lookup, hold.key, self.source)
        there = holds.find(hold.key)
        if last is not None and hold.decision_seq is not None and hold.decision_seq <= last:
            source = holds.sources[self.source]
            if not source.back or not hold.outdates(holds, last, self.last_decision_seq):
                return True
        if there is not None and there.source not in (self.source, "local"):
            return True
        if there is None and len(holds) >= OPEN_MAX:
            return False
        hold.do(holds, draft)
        draft.add(Kind.HOLD_ACK, "agent", hold.acknowledgement("applied", f"in snapshot {self.request}"))
        return True


@dataclass(frozen=True, slots=True)
class CloseAbsent:
    """One step of closing what a complete snapshot does not name."""

    source: str

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Close at most ``STEP``. Answers {left}."""
        source = floor.holds.sources[self.source]
        asked = source.asked
        if asked is None or not asked.closing:
            return {"left": False}
        absent = self._absent(floor.holds, asked)
        for key in absent[:STEP]:
            release = Verdict(
                self.source, f"{asked.request}:{draft.seq}", asked.upto, "release", key[2], key[0], key[1], self.source
            )
            release.do(floor.holds, draft)
            body = release.acknowledgement("applied", f"not in snapshot {asked.request}")
            draft.add(Kind.HOLD_ACK, "agent", body)
        if len(absent) > STEP:
            return {"left": True}
        source.take_snapshot(asked)
        return {"left": False}

    def _absent(self, holds: Holds, asked: Asked) -> list[tuple[str, str, str]]:
        upto = asked.upto or 0
        return [
            key
            for key, hold in holds.of(self.source)
            if key not in asked.named and (hold.decision_seq is None or hold.decision_seq <= upto)
        ]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is none: malformed, of another version, or on a topic where it may not stand."""

    source: str
    topic: str
    reason: str
    size: int
    count: int  # of its kind so far, from 1

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """A finding at the 1st, 2nd, 4th, 8th …; all are counted."""
        floor.holds.refused += 1
        if self.count.bit_count() == 1:
            reason = self.reason[:_TOLD_REFUSED_CHARS]
            text = f"{self.source}: a message on {self.topic[:100]} was refused: {reason}"
            details = {"source": self.source, "topic": self.topic, "reason": reason, "size": self.size}
            report(draft, "agent", "verdict_refused", text, details=details | {"count": self.count})
        return {}


def _report_back(source: str, said: int, last: int, draft: Draft) -> None:
    text = f"{source}: its decisions went back from {said} to {last}; a restored backup?"
    details = {"source": source, "known_upto": said, "said": last}
    report(draft, "agent", "verdict_gap", text, details=details)


def _told(holds: Holds, source: Decisions, draft: Draft) -> dict[str, Any]:
    """What ``status`` shows of a source."""
    age_ns = None if source.as_of_mono_ns is None else draft.at.mono_ns - source.as_of_mono_ns
    snapshot = "taken" if source.whole else "asked" if source.asked is not None else "wanted"
    return {
        "last_decision_seq": source.upto,
        "said": source.said,
        "stale": source.stale,
        "silent": source.silent(draft.at),
        "heartbeat_age_s": None if age_ns is None else round(age_ns / 1e9, 1),
        "snapshot": snapshot,
        "open_holds": sum(1 for _ in holds.of(source.source)),
        "known": holds.known,
    }
