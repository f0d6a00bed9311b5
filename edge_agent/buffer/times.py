"""From instants to seqs: which part of the log was recorded between two of them. By binary search, never by a scan.

Within one log ``mono_ns`` only grows; ``at_ns`` grows but where the clock was stepped. So a log is cut where its wall
clock fell behind its monotonic one (each step back costs some twenty look-ups), every piece is searched by ``at_ns``,
and the log as a whole once more by what its last record's clock says of the earlier ones: what was recorded while a
PC believed to be in 1970 is found by its true time as well as by the time it was given.

The answer is the widest range: it may hold records of other instants, it lacks none. One case escapes: a clock that
was stepped forward and back by the same amount within one log may hide its own records from the search by ``at_ns``,
not from the one by ``mono_ns``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

STEP_NS = 500_000_000  # a clock that fell behind by more was stepped
PIECES = 64  # of one log; one that is stepped more often is taken by its last clock alone

Point = tuple[int, int, int]
"""(seq, at_ns, mono_ns) of a record."""
_WALL, _MONO = 1, 2  # places in it


def seqs_between(connection: sqlite3.Connection, since_ns: int, until_ns: int) -> tuple[int, int] | None:
    """The first and last seq of what was recorded from ``since_ns`` to ``until_ns``; None when nothing was."""
    found: list[tuple[int, int]] = []
    for first, last in _logs(connection):
        start, end = _at(connection, first, last), _last(connection, first, last)
        if start is None or end is None:
            continue
        offset_ns = _offset(end)
        spans = [_search(connection, start[0], end[0], _MONO, since_ns - offset_ns, until_ns - offset_ns)]
        spans += [_search(connection, *piece, _WALL, since_ns, until_ns) for piece in _pieces(connection, start, end)]
        found += [span for span in spans if span is not None]
    if not found:
        return None
    return min(first for first, _ in found), max(last for _, last in found)


def _logs(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """The range of each log, oldest first."""
    starts = [seq for (seq,) in connection.execute("SELECT first_seq FROM log ORDER BY first_seq")]
    (head,) = connection.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
    if not starts or starts[0] > 1:
        starts.insert(0, 1)  # records of logs that are forgotten
    for first, following in zip(starts, [*starts[1:], head + 1], strict=True):
        if first < following:
            yield first, following - 1


def _at(connection: sqlite3.Connection, seq: int, last: int) -> Point | None:
    """The first record at or after ``seq``, up to ``last``."""
    sql = "SELECT seq, at_ns, mono_ns FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT 1"
    found: Point | None = connection.execute(sql, (seq, last)).fetchone()
    return found


def _last(connection: sqlite3.Connection, first: int, last: int) -> Point | None:
    sql = "SELECT seq, at_ns, mono_ns FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT 1"
    found: Point | None = connection.execute(sql, (first, last)).fetchone()
    return found


def _pieces(connection: sqlite3.Connection, start: Point, end: Point) -> list[tuple[int, int]]:
    """[start, end] cut where the wall clock was stepped back; nothing if that happened too often."""
    pieces: list[tuple[int, int]] = []
    waiting = [(start, end)]
    while waiting:
        low, high = waiting.pop()
        if low[0] == high[0] or _offset(high) >= _offset(low) - STEP_NS:
            pieces.append((low[0], high[0]))
            continue
        middle = (low[0] + high[0]) // 2
        left, right = _last(connection, low[0], middle), _at(connection, middle + 1, high[0])
        if left is None or right is None or len(waiting) + len(pieces) > PIECES:
            return []
        waiting += [(right, high), (low, left)]
    return pieces


def _offset(point: Point) -> int:
    return point[1] - point[2]


def _search(
    connection: sqlite3.Connection, first: int, last: int, column: int, since: int, until: int
) -> tuple[int, int] | None:
    """The seqs of a piece whose time in ``column``, which only grows there, is within the two."""

    def boundary(wanted: Callable[[int], bool]) -> int:
        """The lowest seq from which on all times are ``wanted``; ``last + 1`` when none is."""
        low, high = first, last + 1
        while low < high:
            middle = (low + high) // 2
            point = _at(connection, middle, last)
            if point is None or wanted(point[column]):
                high = middle
            else:
                low = point[0] + 1
        return low

    begin, end = boundary(lambda at: at >= since), boundary(lambda at: at > until)
    return (begin, end - 1) if begin < end and _at(connection, begin, end - 1) is not None else None
