"""A cycle in memory: its windows, its binding, whether it is interrupted.

A window is a list of inclusive ranges of seq of one group's samples. Its ends are only known afterwards: that a
unit had left, or that nobody was watching, is noticed later than it happened. So each window remembers the instants
of its newest samples (all of the last ``TAIL``, before that one in ``TAIL``), and ``trim`` takes back what came
after an instant. Beyond that memory it takes back more than needed, never less: an unbound reading can be bound
by hand, a wrong one misleads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from edge_agent.binding.state import StepResult
from edge_agent.binding.units import Unit
from edge_agent.model import BindingState, Instant, Sample, Value

WORKED = ("handshake", "edge", "message", "command")  # closed_by: an end that says more than that the unit left
TAIL = 64
_MARKS = 1024
_NUMBERS = 8


class Window:
    """The samples of one group that are one cycle's."""

    __slots__ = ("_marks", "_tail", "ranges", "running")

    def __init__(self, ranges: list[list[int]] | None = None) -> None:
        self.ranges = ranges or []
        self.running = False  # the last range may still grow
        self._tail: deque[tuple[int, int | None, Sample]] = deque()  # (finished mono, seq if stored, sample)
        self._marks: deque[tuple[int, int]] = deque(maxlen=_MARKS)  # (finished mono, newest seq then)

    @property
    def latest(self) -> Sample | None:
        """The newest sample, stored or not."""
        return self._tail[-1][2] if self._tail else None

    def extend(self, sample: Sample, seq: int | None) -> None:
        """Take this sample in; ``seq`` None: seen, but not stored."""
        tail = self._tail
        tail.append((sample.at.mono_ns, seq, sample))
        if len(tail) > 2 * TAIL:
            self._forget()
        if seq is None:
            return
        if self.running:
            self.ranges[-1][1] = seq
        else:
            self.ranges.append([seq, seq])
            self.running = True

    def _forget(self) -> None:
        """Drop the older half of the tail, keeping one mark of it."""
        newest: tuple[int, int] | None = None
        for _ in range(TAIL):
            mono_ns, seq, _sample = self._tail.popleft()
            if seq is not None:
                newest = (mono_ns, seq)
        if newest is not None:
            self._marks.append(newest)

    def include(self, seq: int) -> None:
        """Take in exactly the sample ``seq``: a trigger of the cycle caused its read."""
        if not any(first <= seq <= last for first, last in self.ranges):
            self.ranges.append([seq, seq])
            self.running = False

    def trim(self, mono_ns: int) -> None:
        """Take back every sample that finished after ``mono_ns``."""
        cut: int | None = None  # the first seq that goes
        while self._tail and self._tail[-1][0] > mono_ns:
            seq = self._tail.pop()[1]
            cut = cut if seq is None else seq
        if not self._tail and self._marks and self._marks[-1][0] > mono_ns:
            while self._marks and self._marks[-1][0] > mono_ns:
                self._marks.pop()
            cut = self._marks[-1][1] + 1 if self._marks else self.ranges[-1][0]
        if cut is not None:
            newest = max([seq for _, seq, _ in self._tail if seq is not None], default=cut - 1)
            self.ranges = [[first, min(last, newest)] for first, last in self.ranges if first < cut]
            self.running = False

    def stop(self) -> None:
        """End the running range; the next sample begins another."""
        self.running = False
        self._tail.clear()
        self._marks.clear()


@dataclass(slots=True, eq=False)
class Cycle:
    """One open cycle at one position."""

    id: str
    opened_at_ns: int
    opened_by: str
    context: dict[str, Any]
    attempt: int | None
    deadline_mono_ns: int
    watched_from_mono_ns: int  # a sample whose read began earlier is not this cycle's
    scanned_mono_ns: int
    counter_from_mono_ns: int  # a read of the PLC's counter that began earlier is of the time before
    unit: Unit | None = None
    state: BindingState = BindingState.PENDING
    binding: str | None = None  # id of its newest binding record
    candidates: list[dict[str, str]] = field(default_factory=list)
    windows: dict[str, Window] = field(default_factory=dict)
    interrupted: Instant | None = None  # since when nobody watched
    evidence_from_mono_ns: int = 0  # a read that began earlier is no evidence that the unit stayed
    counter_seen: int | None = None  # the PLC's counter when the unit was here and its result was not
    numbers: deque[tuple[int, Value]] = field(default_factory=lambda: deque(maxlen=_NUMBERS))  # (mono, cycle number)
    resumed_by: str | None = None
    confirmed: Instant | None = None  # when the tag it was resumed on last agreed
    doubt: tuple[str, str] | None = None  # (rule, reason): why its result may not be that of whoever is scanned
    fired_mono_ns: int = 0  # when its end was seen
    counted: bool = False  # the PLC's counter shows that no result before it went by unseen
    remarks: dict[str, Any] = field(default_factory=dict)  # more items of the context it closes with
    let_in: bool | None = None  # by the gate, at least once; None: it did not decide on this visit
    blocked: bool = False  # it closed as a visit that the gate turned away
    done: StepResult | None = None  # once it is closed: what it came to

    @property
    def suspended(self) -> bool:
        """True while interrupted: samples do not extend the windows."""
        return self.interrupted is not None

    @property
    def serial(self) -> str | None:
        """The serial of the unit it is bound to, or may be."""
        return None if self.unit is None else self.unit.serial

    def turn_away(self, step: str, closed_by: str) -> bool:
        """True if it ends as a visit that the gate blocked: no attempt, no result of the step, nothing consumed."""
        self.blocked = self.let_in is False and closed_by not in WORKED
        if self.blocked and self.attempt is not None:
            if self.unit is not None:
                self.unit.uncount(step)
            self.attempt = None
        return self.blocked

    def owns(self, sample: Sample) -> bool:
        """True if this sample, of a claimed group, was read wholly within the cycle."""
        return self.interrupted is None and sample.started_mono_ns >= self.watched_from_mono_ns

    def take(self, source: str, sample: Sample, seq: int | None) -> None:
        """Extend the window of ``source`` by a sample that it owns."""
        window = self.windows.get(source)
        if window is None:
            window = self.windows[source] = Window()
        window.extend(sample, seq)

    def trim(self, mono_ns: int) -> None:
        """Give back what finished after ``mono_ns``."""
        for window in self.windows.values():
            window.trim(mono_ns)

    def interrupt(self, since: Instant, now: Instant) -> None:
        """Nobody watched from ``since`` on. Samples up to then stay; the number the PLC showed then is remembered."""
        self.evidence_from_mono_ns = now.mono_ns
        if self.interrupted is not None:
            return
        self.trim(since.mono_ns)
        for window in self.windows.values():
            window.stop()
        while self.numbers and self.numbers[-1][0] > since.mono_ns:
            self.numbers.pop()
        self.interrupted = since

    def resume(self, rule: str, now: Instant) -> None:
        """Go on: from now, its samples count again."""
        self.interrupted = None
        self.watched_from_mono_ns = now.mono_ns
        self.counter_from_mono_ns = now.mono_ns
        self.counter_seen = None
        self.resumed_by = rule
        self.confirmed = now
