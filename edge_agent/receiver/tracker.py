"""Which numbers of one stream are here: everything up to ``upto``, and ranges above it. Pure.

``after`` in a message says what its sender has settled for good: a receiver that never saw the stream takes that as its
beginning; for one that came back from an older backup, what it missed below is lost unless it asks for it.

A range also knows the lowest and highest ``seq`` of its records. Numbers ascend with seq, so the neighbours of a hole
bound the seqs that are missing: that is what can be asked for. A tombstone has no seq (0), and so tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_RANGES = 100_000  # holes of one stream; interleaved sources make many small ones for a moment


class Range(NamedTuple):
    """Numbers, inclusive at both ends, and the lowest and highest seq among them (0: not known)."""

    first: int
    last: int
    low_seq: int = 0
    high_seq: int = 0


class TooManyHoles(Exception):
    """The ranges are at their bound: this message is not taken now; its sender sends it again."""


class Tracker:
    """The numbers of one stream. ``known`` False: nothing of it was ever taken."""

    def __init__(
        self, upto: int = 0, ranges: Sequence[Sequence[int]] = (), *, known: bool = True, upto_seq: int = 0
    ) -> None:
        self.upto = upto
        self.upto_seq = upto_seq  # the highest seq up to there
        self.ranges: list[Range] = [Range(*each) for each in ranges]
        self._known = known

    @property
    def highest(self) -> int:
        """The highest number that is here."""
        return self.ranges[-1].last if self.ranges else self.upto

    def holes(self) -> list[Range]:
        """The numbers that are missing although later ones are here, with the seqs that they must lie between."""
        return self._holes_below(self.highest, 0)

    def settled(self, after: int, low_seq: int = 0) -> list[Range]:
        """The sender will not send anything up to ``after`` again. Returns what is therefore lost to us.

        ``low_seq``: the lowest seq of the message that says so; what it does not send again was before that.
        """
        if after <= self.upto:
            return []
        lost = self._holes_below(after, low_seq) if self._known else []
        self._known = True
        self._take([Range(self.upto + 1, after)])
        return lost

    def add(self, ranges: Sequence[Range]) -> None:
        """These numbers are here now. Raises TooManyHoles, and then nothing has changed."""
        self._known = True
        self._take(ranges)

    def _holes_below(self, end: int, end_seq: int) -> list[Range]:
        """The holes up to ``end``; beyond the last range, the seqs are taken to be below ``end_seq``."""
        ceilings: list[int] = []  # the lowest known seq at or above each range
        ceiling = end_seq
        for each in reversed(self.ranges):
            ceiling = each.low_seq or ceiling
            ceilings.append(ceiling)
        ceilings.reverse()
        found: list[Range] = []
        expected, floor = self.upto + 1, self.upto_seq
        for each, above in zip(self.ranges, ceilings, strict=True):
            if each.first > end:
                end_seq = above
                break
            if each.first > expected:
                found.append(_hole(expected, each.first - 1, floor, above))
            expected, floor = each.last + 1, max(floor, each.high_seq)
        if expected <= end:
            found.append(_hole(expected, end, floor, end_seq))
        return found

    def _take(self, ranges: Sequence[Range]) -> None:
        merged: list[Range] = []
        current = Range(0, self.upto, 0, self.upto_seq)
        for more in sorted([*self.ranges, *ranges]):
            if more.first <= current.last + 1:
                low = min(filter(None, (current.low_seq, more.low_seq)), default=0)
                high = max(current.high_seq, more.high_seq)
                current = Range(current.first, max(current.last, more.last), low, high)
            else:
                merged.append(current)
                current = more
        merged.append(current)
        if len(merged) - 1 > MAX_RANGES:
            raise TooManyHoles
        self.upto, self.upto_seq = merged[0].last, merged[0].high_seq
        self.ranges = merged[1:]


def _hole(first: int, last: int, floor: int, ceiling: int) -> Range:
    return Range(first, last, floor + 1, ceiling - 1 if ceiling else 0)
