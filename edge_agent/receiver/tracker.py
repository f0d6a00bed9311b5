"""Which numbers of one stream are here: everything up to ``upto``, and ranges above it. Pure.

``after`` in a message says what its sender has settled for good: a receiver that never saw the stream, or came back
from an older backup, takes that as its beginning, and what it missed below is reported as lost to it.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_RANGES = 100_000  # holes of one stream; interleaved sources make many small ones for a moment

Range = tuple[int, int]


class TooManyHoles(Exception):
    """The ranges are at their bound: this message is not taken now; its sender sends it again."""


class Tracker:
    """The numbers of one stream. ``known`` False: nothing of it was ever taken."""

    def __init__(self, upto: int = 0, ranges: Sequence[Range] = (), *, known: bool = True) -> None:
        self.upto = upto
        self.ranges: list[Range] = [(first, last) for first, last in ranges]
        self._known = known

    @property
    def highest(self) -> int:
        """The highest number that is here."""
        return self.ranges[-1][1] if self.ranges else self.upto

    @property
    def hole(self) -> Range | None:
        """The first numbers that are missing although later ones are here."""
        return (self.upto + 1, self.ranges[0][0] - 1) if self.ranges else None

    def settled(self, after: int) -> list[Range]:
        """The sender will not send anything up to ``after`` again. Returns what is therefore lost to us."""
        if after <= self.upto:
            return []
        lost: list[Range] = []
        if self._known:
            expected = self.upto + 1
            for first, last in self.ranges:
                if first > after:
                    break
                if first > expected:
                    lost.append((expected, first - 1))
                expected = last + 1
            if expected <= after:
                lost.append((expected, after))
        self._known = True
        self._take([(self.upto + 1, after)])
        return lost

    def add(self, ranges: Sequence[Range]) -> None:
        """These numbers are here now. Raises TooManyHoles, and then nothing has changed."""
        self._known = True
        self._take(ranges)

    def _take(self, ranges: Sequence[Range]) -> None:
        merged: list[Range] = []
        first, last = 0, self.upto
        for more_first, more_last in sorted([*self.ranges, *ranges]):
            if more_first <= last + 1:
                last = max(last, more_last)
            else:
                merged.append((first, last))
                first, last = more_first, more_last
        merged.append((first, last))
        if len(merged) - 1 > MAX_RANGES:
            raise TooManyHoles
        self.upto = merged[0][1]
        self.ranges = merged[1:]
