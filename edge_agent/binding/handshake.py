"""The PLC handshake: ready rises, the result is read after it and committed, ack rises; ready falls, ack falls.

============  ====================================================  ==========================================
state         leaves when                                           does
============  ====================================================  ==========================================
unknown       first level of ready: 0 → idle, 1 → reading as level  0: writes ack=0
idle          ready rises → reading                                 asks for the result group
reading       one read, or two successive with one counter          the result, then ack=1 → committing
committing    the next sight of ready (the agent reads nothing of   nothing
              this device before commit and ack are done)
acknowledged  ready falls → idle                                    writes ack=0
============  ====================================================  ==========================================

**The counter.** Values between two equal counters belong to that counter. It stands in the result group (two
successive reads must agree; the second is the result) or beside ``ready`` (seen before and after the result). After
three pairs that differ the result is taken as *torn*. A counter that equals the last committed one is a *double*: the
agent died, or lost the PLC, between commit and acknowledge. It is acknowledged again and not recorded. (If the counter
was seen elsewhere since that commit, it went round or was reset: that is a new result, of a new epoch.) On an edge that
was seen to rise, a double is only believed after a second: some PLCs raise ready some scans before they count.

Where it goes wrong: a PLC that drops ready before the acknowledge (the counter tells whether the values are still of
one unit; without one they are torn); a PLC that was reset (a new epoch); an acknowledge that never arrived (it is
written again while ready stands, and anew after every gap).
"""

from __future__ import annotations

from enum import StrEnum

from edge_agent.binding.draft import Draft
from edge_agent.binding.plan import Handshake, TagRef
from edge_agent.binding.trigger import ASK_AGAIN_NS, Counting, Ended, device_of
from edge_agent.model import Instant, Sample, Value

PAIRS = 3
ACK_AGAIN_NS = 2_000_000_000
COUNT_WITHIN_NS = 1_000_000_000  # a counter that has not moved so long after a seen edge means a double
_WRAP_SLACK = 100  # a counter that fell by nearly its whole range has wrapped, not been reset


class State(StrEnum):
    """The states of docs/contracts.md."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    READING = "reading"
    COMMITTING = "committing"
    ACKNOWLEDGED = "acknowledged"


def count(counter: int, committed: int | None, bits: int) -> tuple[Counting, int]:
    """A counter against the last committed one: what it is, and how many results lie between that nobody saw."""
    if committed is None:
        return Counting.FIRST, 0
    ahead = (counter - committed) % (1 << bits)
    if ahead == 0:
        return Counting.DOUBLE, 0
    if ahead == 1:
        return Counting.NEXT, 0
    if counter > committed or ahead <= _WRAP_SLACK:
        return Counting.JUMP, ahead - 1
    return Counting.RESET, 0


class HandshakeTrigger:
    """See the module docstring. ``peers``: other handshakes of the station that write the same ack."""

    def __init__(self, plan: Handshake, committed: int | None, epoch: int) -> None:
        self.tag: TagRef | None = plan.ready
        self.watched = plan.ready.group
        self.read: str | None = plan.read
        names = {plan.ready.group, plan.read, plan.ack} | ({plan.counter.group} if plan.counter else set())
        self.devices = frozenset(map(device_of, names))
        self.lost = False
        self.peers: list[HandshakeTrigger] = []
        self.plan = plan
        self.state = State.UNKNOWN
        self.committed = committed
        self.epoch = epoch
        self._from_mono_ns = 0  # a read that began earlier shows nothing of the time after the gap
        self._ready = False
        self._seen: tuple[int, int] | None = None  # (began mono, counter) of the newest read that shows one
        self._moved = False  # since the last commit the counter was seen at another value
        self._acked_mono_ns = 0
        self._forget()

    def _forget(self) -> None:
        """No result is being read."""
        self._level_fired = False
        self._fired: tuple[Instant, int] = (Instant(0, 0), 0)
        self._asked_mono_ns = 0
        self._asked_group = ""
        self._again_mono_ns = 0
        self._before: int | None = None
        self._held: tuple[Sample, int] | None = None
        self._reads = 0
        self._fell = False

    @property
    def label(self) -> str:
        return self.state.value

    @property
    def busy(self) -> bool:
        return self.state in (State.UNKNOWN, State.READING)

    @property
    def unknown(self) -> bool:
        return self.state is State.UNKNOWN

    # --- inputs ------------------------------------------------------------------------------------------------

    def observe(self, sample: Sample, seq: int, draft: Draft) -> Ended | None:
        source = sample.tagset.source
        if sample.started_mono_ns < self._from_mono_ns:
            return None
        counter = self._counter_in(sample)
        if counter is not None:
            self._seen = (sample.started_mono_ns, counter)
            self._moved = self._moved or counter != self.committed
        if source == self.watched:
            self._see_ready(sample, seq, counter, draft)
        if self.state is not State.READING or source != self._asked_group:
            return None
        if sample.started_mono_ns < self._asked_mono_ns:
            return None
        return self._see_result(sample, seq, counter, draft)

    def gap(self, now: Instant) -> None:
        self.state = State.UNKNOWN
        self._from_mono_ns = now.mono_ns
        self._seen = None
        self._forget()

    def tick(self, now: Instant, draft: Draft) -> None:
        if self.state is State.READING and now.mono_ns - self._again_mono_ns >= ASK_AGAIN_NS:
            self._again_mono_ns = now.mono_ns
            draft.read(self._asked_group)
        elif self.state in (State.COMMITTING, State.ACKNOWLEDGED) and now.mono_ns - self._acked_mono_ns >= ACK_AGAIN_NS:
            self._write_ack(now, draft)

    def ask(self, draft: Draft) -> None:
        draft.read(self.watched)
        if self.plan.counter is not None:
            draft.read(self.plan.counter.group)

    def seen_since(self, mono_ns: int) -> int | None:
        return self._seen[1] if self._seen is not None and self._seen[0] >= mono_ns else None

    def follows(self, counter: int, seen: int) -> bool:
        return (counter - seen) % (1 << self.plan.counter_bits) == 1

    # --- ready -------------------------------------------------------------------------------------------------

    def _see_ready(self, sample: Sample, seq: int, counter: int | None, draft: Draft) -> None:
        value = sample.values[self.plan.ready.index]
        if value is None:
            return
        self.lost = False
        self._ready = ready = bool(value)
        if self.state is State.UNKNOWN or (self.state is State.IDLE and ready):
            if ready:
                self._begin(sample, seq, counter, draft)
            else:
                self._rest(draft)
        elif self.state is State.READING:
            self._fell = self._fell or not ready
        elif self.state is State.COMMITTING and ready:
            self.state = State.ACKNOWLEDGED
        elif self.state is not State.IDLE and not ready:
            self._rest(draft)

    def _rest(self, draft: Draft) -> None:
        self.state = State.IDLE
        draft.write(self.plan.ack, False)

    def _begin(self, sample: Sample, seq: int, counter: int | None, draft: Draft) -> None:
        level = self.state is State.UNKNOWN
        self.state = State.READING
        self._forget()
        self._level_fired = level
        self._fired = (sample.at, seq)
        self._before = counter if self._counter_beside_ready else None
        draft.keep()
        self._ask_for(self.plan.read, sample.at, draft)

    def _ask_for(self, group: str, after: Instant, draft: Draft) -> None:
        self._asked_group = group
        self._asked_mono_ns = self._again_mono_ns = after.mono_ns
        draft.read(group)

    # --- the result --------------------------------------------------------------------------------------------

    @property
    def _counter_beside_ready(self) -> bool:
        return self.plan.counter is not None and self.plan.counter.group != self.plan.read

    def _counter_in(self, sample: Sample) -> int | None:
        tag = self.plan.counter
        if tag is None or tag.group != sample.tagset.source:
            return None
        return _whole(sample.values[tag.index])

    def _see_result(self, sample: Sample, seq: int, counter: int | None, draft: Draft) -> Ended | None:
        if self.plan.counter is None:
            return self._finish(sample, seq, None, "ready fell before the result was read" if self._fell else "", draft)
        if self._counter_beside_ready and self._held is None:
            self._held = (sample, seq)
            draft.keep()
            self._ask_for(self.plan.counter.group, sample.at, draft)
            return None
        result, result_seq = self._held or (sample, seq)
        if counter is not None and counter == self._before:
            if self._may_still_count(counter, sample):
                return None  # ``tick`` has it read again
            return self._finish(result, result_seq, counter, "", draft)
        self._reads += 1
        self._before = counter
        if self._reads >= PAIRS + (0 if self._counter_beside_ready else 1):
            return self._finish(result, result_seq, counter, f"its counter changed in {PAIRS} reads", draft)
        self._held = None
        self._ask_for(self.plan.read, sample.at, draft)
        return None

    def _may_still_count(self, counter: int, sample: Sample) -> bool:
        """A fresh edge with the old counter: a double, or a PLC that raises ready before it counts."""
        if self._level_fired or counter != self.committed or self._moved:
            return False
        return sample.started_mono_ns - self._fired[0].mono_ns < COUNT_WITHIN_NS

    def _finish(self, sample: Sample, seq: int, counter: int | None, torn: str, draft: Draft) -> Ended:
        counting, missing = Counting.NONE, 0
        if counter is not None:
            counting, missing = count(counter, self.committed, self.plan.counter_bits)
            if counting is Counting.DOUBLE and self._moved:
                counting = Counting.RESET
            self.committed, self._moved = counter, False
            self.epoch += counting is Counting.RESET
        fired_at, edge_seq = self._fired
        ended = Ended(
            by="handshake",
            level=self._level_fired,
            fired_at=fired_at,
            sample=sample,
            seq=seq,
            evidence=(edge_seq, seq),
            counter=counter,
            epoch=None if counter is None else self.epoch,
            counting=counting,
            missing=missing,
            torn=torn,
        )
        self._forget()
        if self._ready:
            self.state = State.COMMITTING
            self._write_ack(draft.at, draft)
        else:
            self._rest(draft)
        return ended

    def _write_ack(self, now: Instant, draft: Draft) -> None:
        """Set ack; when other handshakes share it, the last one to have its result does."""
        self._acked_mono_ns = now.mono_ns
        if not any(peer.state is State.READING for peer in self.peers):
            draft.write(self.plan.ack, True)


def _whole(value: Value) -> int | None:
    """A counter's value; what is no whole number is no counter."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
