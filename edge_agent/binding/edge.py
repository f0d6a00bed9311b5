"""A cycle that ends with the edge of a tag, without acknowledge.

=========  ======================================  ===========================================
state      leaves when                             does
=========  ======================================  ===========================================
unknown    first level of the tag → idle           nothing: a level after a gap is no edge
idle       the edge → reading                      asks for the result group; without one the
                                                   sample that shows the edge is the result
reading    a read that began after the edge        gives the result
=========  ======================================  ===========================================

Where it goes wrong: an edge shorter than the poll is never seen, and its cycle waits for its time-out; a second edge
before the first one's result was read means that those values are gone (the first ends without a result).
"""

from __future__ import annotations

from enum import StrEnum

from edge_agent.binding.draft import Draft
from edge_agent.binding.plan import Edge, TagRef
from edge_agent.binding.trigger import ASK_AGAIN_NS, Ended, device_of
from edge_agent.model import Instant, Sample


class _State(StrEnum):
    UNKNOWN = "unknown"
    IDLE = "idle"
    READING = "reading"


class EdgeTrigger:
    """See the module docstring."""

    def __init__(self, plan: Edge) -> None:
        self.tag: TagRef | None = plan.tag
        self.watched = plan.tag.group
        self.read = plan.read
        self.devices = frozenset({device_of(plan.tag.group)} | ({device_of(plan.read)} if plan.read else set()))
        self.lost = False
        self._plan = plan
        self._state = _State.UNKNOWN
        self._active = False  # the level that the edge leads to
        self._from_mono_ns = 0
        self._asked_mono_ns = 0
        self._fired: tuple[Instant, int] | None = None

    @property
    def label(self) -> str:
        return self._state.value

    @property
    def busy(self) -> bool:
        return self._state is not _State.IDLE

    @property
    def unknown(self) -> bool:
        return self._state is _State.UNKNOWN

    def observe(self, sample: Sample, seq: int, draft: Draft) -> Ended | None:
        source = sample.tagset.source
        ended: Ended | None = None
        if source == self.watched and sample.started_mono_ns >= self._from_mono_ns:
            ended = self._level(sample, seq, draft)
        if ended is None and self._state is _State.READING and source == self.read:
            ended = self._result(sample, seq)
        return ended

    def _level(self, sample: Sample, seq: int, draft: Draft) -> Ended | None:
        value = sample.values[self._plan.tag.index]
        if value is None:
            return None
        self.lost = False
        active = bool(value) is self._plan.rising
        before, self._active = self._active, active
        if self._state is _State.UNKNOWN:
            self._state = _State.IDLE
            return None
        if not active or before:
            return None
        unread = self._end(None, 0, "the tag fired again before the result was read") if self._fired else None
        if self.read is None:
            return Ended("edge", False, sample.at, sample, seq, (seq,))
        self._fired = (sample.at, seq)
        self._state = _State.READING
        self._asked_mono_ns = sample.at.mono_ns
        draft.keep()
        draft.read(self.read)
        return unread

    def _result(self, sample: Sample, seq: int) -> Ended | None:
        if self._fired is None or sample.started_mono_ns < self._fired[0].mono_ns:
            return None
        self._state = _State.IDLE
        return self._end(sample, seq, "")

    def _end(self, sample: Sample | None, seq: int, torn: str) -> Ended | None:
        fired, self._fired = self._fired, None
        if fired is None:
            return None
        at, edge_seq = fired
        evidence = (edge_seq,) if sample is None else (edge_seq, seq)
        return Ended("edge", False, at, sample, seq, evidence, torn=torn)

    def gap(self, now: Instant) -> None:
        self._state = _State.UNKNOWN
        self._fired = None
        self._from_mono_ns = now.mono_ns

    def tick(self, now: Instant, draft: Draft) -> None:
        if self._state is _State.READING and now.mono_ns - self._asked_mono_ns >= ASK_AGAIN_NS and self.read:
            self._asked_mono_ns = now.mono_ns
            draft.read(self.read)

    def ask(self, draft: Draft) -> None:
        draft.read(self.watched)

    def seen_since(self, mono_ns: int) -> int | None:
        return None

    def follows(self, counter: int, seen: int) -> bool:
        return True
