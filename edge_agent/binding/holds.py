"""What is on hold: the open holds of all sources side by side, by what they are about. Pure.

A hold is known by (subject kind, subject, hold id): one release lifts one, whatever else stands on the same unit. It
covers a unit by its serial, by any identifier that it carries now (carrier, part number …), and by every lot and
package in it, those that join later too: nothing is worked out when a hold arrives, all of it when it is asked for.

An open entry's action is ``hold``, ``scrap`` or ``rework``, which stop a unit, or ``concession``, which lets a unit
pass in spite of the hold of that id, be it on the unit itself or on its lot: as it stood when that was decided, not one
that is put under the same id again later. Nothing opens or closes by time.

**Bounded, and closed when in doubt.** At most ``OPEN_MAX`` are open; one more is refused, and from then on ``known`` is
False, for every unit, until a complete snapshot of that source fits; as it is after damage to the buffer that may have
taken a hold (``intact``), until a person confirms what is listed. Of closed holds the newest ``CLOSED_MAX`` are
remembered, with the number of the decision that closed them; older ones are asked from the registry.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Literal

from edge_agent.binding.decisions import Decisions
from edge_agent.binding.state import KnownHold
from edge_agent.binding.units import Unit
from edge_agent.model import Instant

OPEN_MAX = 20_000
CLOSED_MAX = 10_000
VERDICTS_MAX = 10_000
LOCAL = "local"  # the source of what people decide at this agent

Key = tuple[str, str, str]  # subject kind, subject, hold id
Basis = Literal["live", "cached", "stale"]


class Holds:
    """The open holds, and how far each source of them is known."""

    def __init__(self, restored: Iterable[KnownHold] = (), *, intact: bool = True) -> None:
        self.sources: dict[str, Decisions] = {}
        self.lacking: set[str] = set()  # sources of which a hold was refused for want of room
        self.verdicts: OrderedDict[str, Arrivals] = OrderedDict()  # by id
        self.refused = 0  # messages that were no verdict at all
        self.intact = intact
        self._open: dict[Key, KnownHold] = {}
        self._about: dict[tuple[str, str], dict[str, KnownHold]] = {}
        self._closed: OrderedDict[Key, tuple[int | None, str]] = OrderedDict()  # last decision, and whose
        for hold in restored:
            self.open(hold)

    # --- what the gate asks ------------------------------------------------------------------------------------

    def on(self, unit: Unit) -> list[KnownHold]:
        """What stops this unit: every open hold, scrap and rework on it, and on what is in it."""
        if not self._open:
            return []
        return self.standing(unit, self._covering(unit))

    def standing(self, unit: Unit, holds: Iterable[KnownHold]) -> list[KnownHold]:
        """Those of ``holds`` that stop, after what was conceded for this unit."""
        conceded = [one for one in self._covering(unit) if one.action == "concession"]
        return [
            hold for hold in holds if hold.action != "concession" and not any(_meant(one, hold) for one in conceded)
        ]

    def _covering(self, unit: Unit) -> list[KnownHold]:
        return [hold for about in subjects_of(unit) for hold in self._about.get(about, {}).values()]

    @property
    def known(self) -> bool:
        """False: holds exist, or may, that could not be kept. Then nothing may pass for want of a hold."""
        return self.intact and not self.lacking

    @property
    def stale(self) -> bool:
        """A source has decided something that did not arrive, or may have."""
        return any(source.stale for source in self.sources.values())

    def basis(self, now: Instant) -> Basis:
        """On what "no hold" rests: ``stale`` (a gap), ``cached`` (a source is silent), or ``live``."""
        if self.stale:
            return "stale"
        return "cached" if any(source.silent(now) for source in self.sources.values()) else "live"

    def as_of_ns(self, now: Instant) -> int | None:
        """How old the oldest source's word is, in UTC ns; None: without any source, or not heard since the start."""
        heard = [source.as_of_mono_ns for source in self.sources.values()]
        if not heard or None in heard:
            return None
        return now.at_ns - (now.mono_ns - min(one for one in heard if one is not None))

    # --- what verdicts change ----------------------------------------------------------------------------------

    def find(self, key: Key) -> KnownHold | None:
        """The open one of this key."""
        return self._open.get(key)

    def named(self, hold: str) -> list[KnownHold]:
        """The open ones of this id, on whatever subject."""
        return [one for key, one in self._open.items() if key[2] == hold]

    def of(self, source: str) -> Iterator[tuple[Key, KnownHold]]:
        """The open ones of a source."""
        return ((key, hold) for key, hold in self._open.items() if hold.source == source)

    def __iter__(self) -> Iterator[KnownHold]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def open(self, hold: KnownHold) -> None:
        """Open it, or change what is open under its key."""
        key = (hold.subject_kind, hold.subject, hold.hold)
        self._open[key] = hold
        self._about.setdefault(key[:2], {})[hold.hold] = hold
        self._closed.pop(key, None)

    def close(self, key: Key, decision_seq: int | None, source: str) -> None:
        """Close it, if it is open, and remember up to which decision of whom it is."""
        hold = self._open.pop(key, None)
        if hold is not None:
            there = self._about[key[:2]]
            del there[hold.hold]
            if not there:
                del self._about[key[:2]]
            if decision_seq is None:
                source = hold.source
            decision_seq = max((one for one in (decision_seq, hold.decision_seq) if one is not None), default=None)
        self._closed[key] = decision_seq, source
        self._closed.move_to_end(key)
        while len(self._closed) > CLOSED_MAX:
            self._closed.popitem(last=False)

    def remembered(self, key: Key) -> tuple[bool, int | None, str]:
        """Whether this key is in memory, open or closed, the last decision about it, and whose that was."""
        if key in self._open:
            return True, self._open[key].decision_seq, self._open[key].source
        return key in self._closed, *self._closed.get(key, (None, LOCAL))

    def arrival(self, verdict_id: str, content: object, state: str | None) -> Arrivals:
        """Note that this verdict arrived; of one that the registry knows, what it said first and its ``state``."""
        seen = self.verdicts.get(verdict_id)
        if seen is None:
            seen = self.verdicts[verdict_id] = Arrivals(content, state)
        self.verdicts.move_to_end(verdict_id)
        while len(self.verdicts) > VERDICTS_MAX:
            self.verdicts.popitem(last=False)
        return seen


class Arrivals:
    """One verdict_id: what it said, what became of it, how often it came again."""

    __slots__ = ("content", "repeats", "state")

    def __init__(self, content: object, state: str | None) -> None:
        self.content = content
        self.state = state
        self.repeats = 0


def _meant(concession: KnownHold, hold: KnownHold) -> bool:
    """Whether the concession is in spite of this hold: it has its id, and was decided after it."""
    if concession.hold != hold.hold:
        return False
    if concession.source == hold.source and concession.decision_seq is not None and hold.decision_seq is not None:
        return hold.decision_seq <= concession.decision_seq
    return hold.at_ns <= concession.at_ns


def subjects_of(unit: Unit) -> set[tuple[str, str]]:
    """Everything under which this unit may be on hold."""
    found = {(unit.kind, unit.serial)} | set(unit.identifiers.items())
    found |= {("lot", lot) for lot in unit.lots}
    found |= {("package", package) for package in unit.packages}
    return found
