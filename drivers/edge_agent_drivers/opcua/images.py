"""The image of a group: the newest value of each tag, and the samples that its changes make. Pure.

A publish response makes one sample of a group, with ``source_ns`` naming what was news in it. Where it brings several
values of one tag (a queue on the server, sampled faster than sent), it makes several samples, in the order of the
source times, so that each value is in exactly one of them and each tag's values stay in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.model import Instant, Sample, TagSet, Value
from edge_agent_drivers.opcua.values import NO_VALUE_YET


class News(NamedTuple):
    """What was said of one tag. Times are UTC ns; None where the server gave none."""

    place: int  # in the tagset
    value: Value
    status: str
    source_ns: int | None
    server_ns: int | None


@dataclass(slots=True)
class Memory:
    """What was known of a group when its last connection ended."""

    last_ns: dict[int, int] = field(default_factory=dict)  # by place: the newest source time
    values: tuple[Value, ...] = ()
    told_ns: dict[int, int] = field(default_factory=dict)  # by place: when that came, on our monotonic clock
    heard_ns: int = 0  # when the newest of all came

    def copy(self) -> Memory:
        """What is remembered now, whatever is kept later."""
        return Memory(dict(self.last_ns), self.values, dict(self.told_ns), self.heard_ns)

    def keep(self, sample: Sample) -> None:
        """Remember what this sample says."""
        if not sample.history:  # the past says nothing of the others: theirs may still be to come
            self.heard_ns = sample.at.mono_ns
        if sample.source_ns:
            self.last_ns.update(sample.source_ns)
            self.told_ns.update(dict.fromkeys(sample.source_ns, self.heard_ns))
        self.values = sample.values

    def heard_until_ns(self, place: int) -> int:
        """Up to here this tag was heard, by the clock that its own source times are of: they may differ by hours."""
        return self.last_ns[place] + max(0, self.heard_ns - self.told_ns.get(place, self.heard_ns))


class GroupImage:
    """See the module docstring."""

    def __init__(self, tagset: TagSet) -> None:
        self.tagset = tagset
        self.values: list[Value] = [None] * len(tagset.tags)
        self.status: dict[int, str] = dict.fromkeys(range(len(tagset.tags)), NO_VALUE_YET)

    def samples(self, news: Sequence[News], at: Instant, started_mono_ns: int, history: bool = False) -> list[Sample]:
        """Take the news of one answer in; the samples that follow."""
        together = len({each.place for each in news}) == len(news)
        steps = [news] if together else steps_of(news)
        return [self._sample(step, at, started_mono_ns, history) for step in steps]

    def _sample(self, news: Sequence[News], at: Instant, started_mono_ns: int, history: bool) -> Sample:
        values, status = self.values, self.status
        source: dict[int, int] = {}
        server: dict[int, int] = {}
        for index, value, reason, source_ns, server_ns in news:
            values[index] = value
            if reason:
                status[index] = reason
            elif status:
                status.pop(index, None)
            if source_ns is None:
                source_ns = server_ns  # when the server saw it is then the best that is known
            elif server_ns is not None and server_ns != source_ns:
                server[index] = server_ns
            if source_ns is not None:
                source[index] = source_ns
        return Sample(
            self.tagset,
            at,
            started_mono_ns,
            tuple(values),
            dict(status) or None,
            source or None,
            server or None,
            history,
        )


def steps_of(news: Sequence[News]) -> list[list[News]]:
    """The news in the order of their times, cut wherever a tag would come twice. A tag's own order never changes."""
    latest: dict[int, int] = {}
    timed: list[tuple[int, News]] = []
    for each in news:
        when = max(each.source_ns or each.server_ns or 0, latest.get(each.place, 0))
        latest[each.place] = when
        timed.append((when, each))
    timed.sort(key=lambda pair: pair[0])  # stable: what is of one time stays as it came
    steps: list[list[News]] = [[]]
    seen: set[int] = set()
    for _, each in timed:
        if each.place in seen:
            steps.append([])
            seen.clear()
        seen.add(each.place)
        steps[-1].append(each)
    return steps
