"""Where every input meets the binder, and its outcome the log: one synchronous step, then the effects.

Devices, timers and the clock all enter here, on the event loop, one after the other. A step asks the binder, appends
what it says and hands its effects to the collectors of the devices they concern. There is no queue and no ``await``
between asking and appending, so the sequence numbers that the binder wrote into its records are the log's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.binding import Binder, Outcome, ReadGroup
from edge_agent.binding.action import Action
from edge_agent.buffer import Buffer
from edge_agent.model import Instant, Kind, Record, Sample, Scan, Value


@dataclass(frozen=True, slots=True)
class WriteTag:
    """A value for a device, to be written once everything up to ``after_seq`` is durable; ``before`` it, those."""

    tag: str
    value: Value
    after_seq: int
    before: tuple[tuple[str, Value], ...] = ()


Request = ReadGroup | WriteTag


class Line:
    """The binder and the log of one agent, and the way from an outcome back to the devices."""

    def __init__(self, binder: Binder, buffer: Buffer) -> None:
        self.buffer = buffer
        self.findings: Counter[str] = Counter()
        self._binder = binder
        self._requests: dict[str, Callable[[Request], None]] = {}

    def attach(self, device: str, request: Callable[[Request], None]) -> None:
        """Tell who carries out effects on ``device``. ``request`` must not block."""
        self._requests[device] = request

    def sample(self, sample: Sample) -> int:
        """Take a sample; returns the last seq that was used (unchanged if nothing was worth a record)."""
        return self._take(self._binder.on_sample(sample, self.buffer.next_seq))

    def scan(self, scan: Scan) -> int:
        """Take a scan; returns the last seq that was used."""
        return self._take(self._binder.on_scan(scan, self.buffer.next_seq))

    def gap(self, device: str, since: Instant, now: Instant, cause: str) -> int:
        """Nobody watched ``device`` between the two instants."""
        return self._take(self._binder.on_gap(device, since, now, cause, self.buffer.next_seq))

    def tick(self, now: Instant) -> int:
        """Let time pass for time-outs; about four times a second."""
        return self._take(self._binder.on_tick(now, self.buffer.next_seq))

    def opened(self, device: str, now: Instant) -> int:
        """``device`` was (re)connected and can be written."""
        return self._take(self._binder.on_open(device, now, self.buffer.next_seq))

    def act(self, action: Action, now: Instant) -> tuple[dict[str, Any], int]:
        """Do what was asked; its answer, and the seq that must be durable before it is given. Raises ActionRefused."""
        outcome, answer = self._binder.act(action, now, self.buffer.next_seq)
        return answer, self._take(outcome)

    def stop(self, now: Instant) -> int:
        """Take back what must not stay written; before the devices are closed."""
        return self._take(self._binder.stop(now, self.buffer.next_seq))

    def start(self, now: Instant) -> int:
        """Settle what an earlier run left open. Once, before any device is opened."""
        return self._take(self._binder.start(now, self.buffer.next_seq))

    def record(self, records: Sequence[Record]) -> int:
        """Append records that no station made (config, tagsets, clock steps)."""
        return self._take(Outcome(list(records), []))

    def snapshot(self) -> dict[str, object]:
        """The stations, for ``status``."""
        return self._binder.snapshot()

    def _take(self, outcome: Outcome) -> int:
        records = outcome.records
        seq = self.buffer.append(records) if records else self.buffer.next_seq - 1
        for record in records:
            if record.kind is Kind.FINDING:
                self.findings[record.body["code"]] += 1
        for effect in outcome.effects:
            if isinstance(effect, ReadGroup):
                self._requests[effect.group.partition(".")[0]](effect)
            else:
                device, _, tag = effect.tag.partition(".")
                before = tuple((name.partition(".")[2], value) for name, value in effect.before)
                self._requests[device](WriteTag(tag, effect.value, after_seq=seq, before=before))
        return seq
