"""Which decisions of one source (a QMS) are known here, and whether any may have been missed. Pure.

A source numbers its decisions: 1, 2, 3 … (``decision_seq``). A number above the next one, or a heartbeat that names a
later one than we have, is a gap: decisions were lost on the way. Until the missing ones came, or a snapshot of all
open holds did, nobody here knows what is on hold, and whatever rests on it is *stale*. The same after each start,
since a gap may have been there before it: so a snapshot is asked for then as well.

``as_of``: how old the knowledge is. A heartbeat that waited in a queue is as old as it says, not as its arrival; the
answer to a request of ours is as old as the request.

Bounded: ``BEYOND_MAX`` numbers above a gap are remembered; more are forgotten, and only a snapshot ends the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.model import Instant

BEYOND_MAX = 1000
SILENT_HEARTBEATS = 3  # so many of them missing: the source is silent
ASK_AGAIN_NS = (10 * 10**9, 600 * 10**9)  # the first repeat of a request, and the longest wait; doubled in between


@dataclass(slots=True)
class Asked:
    """A snapshot that was asked for, and what came of it so far."""

    request: str
    at: Instant
    said: int = 0  # the highest that the source had spoken of by then: a whole answer is not below it
    upto: int | None = None  # the decision that it contains as the last one
    parts: int = 0
    came: set[int] = field(default_factory=set)
    named: set[tuple[str, str, str]] = field(default_factory=set)  # keys of the holds in it
    closing: bool = False  # all parts came; what is absent is being closed


@dataclass(slots=True)
class Decisions:
    """One source. ``upto``: every decision up to it is known here."""

    source: str
    heartbeat_ns: int
    upto: int | None
    said: int = 0  # the highest that the source has spoken of
    settled: int = 0  # the last one in the newest snapshot: what comes of these now is stale
    whole: bool = False  # a snapshot came since the start, or since the numbers went back
    back: bool = False  # the source's numbers went back: the next snapshot is believed, whatever its number
    asked: Asked | None = None
    beyond: set[int] = field(default_factory=set)
    told_gap: int = 0  # the gap up to here was reported
    as_of_mono_ns: int | None = None
    asks: int = 0  # since the last snapshot
    asked_ever: int = 0
    _beat_at_ns: int = 0

    @property
    def gap(self) -> bool:
        """Some decision that the source has spoken of is not known here."""
        return self.said > (self.upto or 0)

    @property
    def stale(self) -> bool:
        """Something may be on hold that is not known here."""
        return not self.whole or self.gap

    def silent(self, now: Instant) -> bool:
        """The source was not heard for longer than it should be."""
        return self.as_of_mono_ns is None or now.mono_ns - self.as_of_mono_ns > SILENT_HEARTBEATS * self.heartbeat_ns

    def heard(self, decision_seq: int) -> None:
        """One decision arrived."""
        self.said = max(self.said, decision_seq)
        if self.upto is not None and decision_seq <= self.upto:
            return
        self.beyond.add(decision_seq)
        if len(self.beyond) > BEYOND_MAX:
            self.beyond.clear()
            self.whole = False
        self._absorb()

    def beat(self, last: int, at_ns: int, now: Instant) -> bool:
        """A heartbeat came. True if the numbers went back; one that is older than another says nothing."""
        if at_ns <= self._beat_at_ns:
            return False
        self._beat_at_ns = min(at_ns, now.at_ns)  # a source with a clock ahead must not deafen us
        self._known_as_of(now.mono_ns - max(0, now.at_ns - at_ns))
        went_back = last < self.said and self.went_back()
        self.said = max(self.said, last)
        return went_back

    def went_back(self) -> bool:
        """The source counts from a lower number now. True, if that is news."""
        if self.back:
            return False
        self.back, self.whole = True, False
        return True

    def ask(self, now: Instant, request: str) -> bool:
        """True, and noted as asked, if a snapshot is to be asked for now."""
        if not self.stale or (self.asked is not None and self.asked.closing):
            return False
        first_ns, longest_ns = ASK_AGAIN_NS
        wait_ns = min(first_ns << min(max(self.asks - 1, 0), 10), longest_ns)
        if self.asked is not None and now.mono_ns - self.asked.at.mono_ns < wait_ns:
            return False
        self.asked = Asked(request, now, self.said)
        self.asks += 1
        self.asked_ever += 1
        return True

    def take_snapshot(self, asked: Asked) -> None:
        """A complete snapshot was applied."""
        last = asked.upto or 0
        if self.back:
            self.upto, self.said, self.back = last, last, False
            self.beyond.clear()
        self.upto = max(self.upto or 0, last)
        self.said = max(self.said, last)
        self.settled, self.whole, self.asked, self.asks = last, True, None, 0
        self._known_as_of(asked.at.mono_ns)
        self._absorb()

    def _known_as_of(self, mono_ns: int) -> None:
        self.as_of_mono_ns = max(mono_ns, self.as_of_mono_ns or mono_ns)

    def _absorb(self) -> None:
        if self.upto is None:
            return
        while self.upto + 1 in self.beyond:
            self.upto += 1
        self.beyond = {seq for seq in self.beyond if seq > self.upto} if self.beyond else self.beyond
