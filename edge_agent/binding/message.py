"""A tester's message as the end of a cycle: each sample of its group is one complete result.

A line on a serial port, a file, a telegram: who tested says so once, when it is done. There is no level to look at and
nothing to ask for, so silence is no gap, and a message is never "found standing".

The same message may be presented again: a file copied twice, a line repeated because no answer came. With a ``key``
(the number of the test) a message of a known key is the same one: counted, and not recorded again; if it says something
else under that key, neither can be told to be right: the first one stands, ``duplicate_message`` says so. Without a key
the very same words within ``repeat_s`` of the last are the same message. The newest ``KEYS`` are remembered. Each
``cycle_closed`` carries its message's key and a hash of its words, so that a restart brings back the newest ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable

from edge_agent.binding.draft import Draft
from edge_agent.binding.plan import Message, TagRef
from edge_agent.binding.state import KnownMessage
from edge_agent.binding.trigger import Counting, Ended, device_of
from edge_agent.model import Instant, Sample

KEYS = 1000


class MessageTrigger:
    """See the module docstring."""

    tag: TagRef | None = None  # none: nothing shows between two messages whether another is due
    label = "listening"
    busy = False
    unknown = False

    def __init__(self, plan: Message, known: Iterable[KnownMessage] = ()) -> None:
        self.watched = plan.read
        self.read: str | None = plan.read
        self.devices = frozenset({device_of(plan.read)})
        self.lost = False
        self._plan = plan
        newest = sorted(known, key=lambda one: one.seq)[-KEYS:]
        self._seen = OrderedDict((one.key, (one.hash, one.seq)) for one in newest)  # newest last
        self._last: tuple[str, int, int] | None = None  # (hash, mono, seq) of the newest message

    def observe(self, sample: Sample, seq: int, draft: Draft) -> Ended | None:
        if sample.tagset.source != self.watched:
            return None
        self.lost = False
        content = _hash(sample)
        value = sample.values[self._plan.key.index] if self._plan.key is not None else None
        key = str(value) if value is not None else None
        before = self._seen.get(key) if key is not None else self._repeated(content, sample.at)
        self._last = (content, sample.at.mono_ns, seq if before is None else before[1])
        if before is None:
            if key is not None:
                self._seen[key] = (content, seq)
                if len(self._seen) > KEYS:
                    self._seen.popitem(last=False)
            said = None if key is None else {"key": key, "hash": content}
            return Ended("message", False, sample.at, sample, seq, (seq,), message=said)
        other = "" if before[0] == content else f"{key} came before, and said something else"
        evidence = (before[1], seq) if other else (before[1],)
        return Ended("message", False, sample.at, sample, seq, evidence, counting=Counting.DOUBLE, torn=other)

    def _repeated(self, content: str, at: Instant) -> tuple[str, int] | None:
        last = self._last
        if last is None or last[0] != content or at.mono_ns - last[1] > self._plan.repeat_s * 1e9:
            return None
        return last[0], last[2]

    def gap(self, now: Instant) -> None:
        """What came before is remembered: a file that is presented again after a reconnect is still the same."""

    def tick(self, now: Instant, draft: Draft) -> None:
        """There is nothing to ask for."""

    def ask(self, draft: Draft) -> None:
        """There is nothing to ask for."""

    def seen_since(self, mono_ns: int) -> int | None:
        return None

    def follows(self, counter: int, seen: int) -> bool:
        return True


def _hash(sample: Sample) -> str:
    words = json.dumps([sample.values, sorted((sample.status or {}).items())])
    return hashlib.sha256(words.encode()).hexdigest()[:16]
