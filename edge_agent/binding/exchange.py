"""How the gate's answer reaches the PLC, and how it is taken back: by request id, or as a pulse of one coil. Pure.

**By request.** The PLC writes a new number beside which nothing else changes, the agent answers::

    PLC    request = 17 ─────────────────────────────── starts (answer = request, verdict = 1) ── request = 0 ──
    agent               └► decides, commits ► verdict ► reason ► answer = 17 ─────────────────────────── answer = 0

The answer's number is written last, with verdict and reason before it as one unit that nothing overtakes. So whatever
stands in the PLC from before (another unit's permit, that of an agent that was killed) carries another number, which
the PLC does not honour. The number is brought to 0 whenever the device was away, when the agent stops, and when the
unit that it permits leaves or falls into doubt while the request still stands. A number
that stands after a gap is a level: it is answered anew, for a unit that is identified anew.

**By coil.** A bit that is set with the permit and cleared again; only by its being short does it say for whom. It is
cleared when the device was away, at a stop, at an interruption. It is no interlock: a PLC that looks away misses it,
one that latches it keeps it.
"""

from __future__ import annotations

from edge_agent.binding.draft import Draft
from edge_agent.binding.gate import Decision
from edge_agent.binding.plan import Exchange
from edge_agent.model import Instant, Sample, Value


class Desk:
    """The requests of one position. ``asked`` None: not seen since the last gap; 0: the PLC asks nothing."""

    def __init__(self, plan: Exchange) -> None:
        self.plan = plan
        self.asked: int | None = None
        self.since_mono_ns = 0
        self._answered = False
        self._permits = False  # the newest answer does, and nobody took it back
        self._unsure = True  # an answer of before may stand in the PLC

    @property
    def waiting(self) -> int | None:
        """The request that is not answered yet."""
        return self.asked if self.asked and not self._answered else None

    def see(self, sample: Sample, draft: Draft) -> int | None:
        """Take what the request tag shows; returns the request before, if it went away without an answer."""
        number = _number(sample.values[self.plan.request.index])
        if number is None or number == self.asked:
            return None
        lapsed = self.waiting
        if number == 0:
            if self.asked is not None:  # else it was taken back already, with the gap
                self._clear(draft)
            self._unsure = False
        elif self._permits:  # a PLC that comes back to the number before, which it must not, would take it
            self._clear(draft)
        self.asked, self.since_mono_ns, self._answered = number, sample.at.mono_ns, False
        return lapsed

    def answer(self, decision: Decision, draft: Draft) -> None:
        """Answer what is asked, once for each number."""
        before: list[tuple[str, Value]] = [(self.plan.answer, 0)] if self._unsure else []
        if self.plan.verdict is not None:
            before.append((self.plan.verdict, decision.permit))
        if self.plan.reason is not None:
            before.append((self.plan.reason, decision.code))
        draft.write(self.plan.answer, self.asked, tuple(before))
        self._answered, self._unsure, self._permits = True, False, decision.permit

    def take_back(self, draft: Draft) -> bool:
        """Bring a permit that the PLC may not have seen yet to nothing: its unit left, or may be another one."""
        stood = bool(self.asked) and self._permits
        if stood:
            self._clear(draft)
        return stood

    def forget(self, draft: Draft) -> int | None:
        """Nothing is known of the PLC any more: no answer may stand there. Returns what was not answered."""
        lapsed = self.waiting
        self._clear(draft)
        self.asked, self._answered, self._unsure = None, False, True
        return lapsed

    def _clear(self, draft: Draft) -> None:
        self._permits = False
        draft.write(self.plan.answer, 0)


class Coil:
    """The permit bit of one position."""

    def __init__(self, tag: str, pulse_ns: int) -> None:
        self.tag = tag
        self._pulse_ns = pulse_ns
        self._until_mono_ns: int | None = None

    @property
    def on(self) -> bool:
        """A pulse is under way."""
        return self._until_mono_ns is not None

    def pulse(self, draft: Draft) -> None:
        """Set it for a while. What was not written by the end of that while is not written at all."""
        self._until_mono_ns = draft.at.mono_ns + self._pulse_ns
        draft.write(self.tag, True)

    def clear(self, draft: Draft) -> None:
        """Take it back."""
        self._until_mono_ns = None
        draft.write(self.tag, False)

    def tick(self, now: Instant, draft: Draft) -> None:
        """End the pulse when it is time."""
        if self._until_mono_ns is not None and now.mono_ns >= self._until_mono_ns:
            self.clear(draft)


def _number(value: Value) -> int | None:
    """A request's number; what is no whole number says nothing."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, int) else None
