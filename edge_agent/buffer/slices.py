"""How long work on the writer's thread may take: a slice of some milliseconds, sized by what the last one took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SLICE_S = 0.004  # aimed at; 10 ms is the promise, and what was in memory a moment ago may have to come from the disk
GROWTH = 1.25  # the next rows may be twice as dear as the last ones
TICK_SLICES = 200  # a tick of retention does no more than this


class Pace:
    """The rows of one kind of slice: a quarter more at most after each, so that it lasts ``SLICE_S``."""

    def __init__(self, rows: int, least: int, most: int) -> None:
        self.rows = rows
        self._least, self._most = least, most

    @contextmanager
    def slice(self) -> Iterator[int]:
        """Yield how many rows to take; what the block takes decides about the next."""
        began_s = time.perf_counter()
        yield self.rows
        took_s = max(1e-5, time.perf_counter() - began_s)
        self.rows = max(self._least, min(self._most, int(self.rows * min(GROWTH, SLICE_S / took_s))))
