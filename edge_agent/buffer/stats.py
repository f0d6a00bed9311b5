"""How full the buffer is, what each route has pending, and how long it would last. Reads no records.

Pending is counted, not scanned: a lane knows how many records passed its filter (``total``) and how many are done
(``n``). Where the count is behind (a route that begins with old logs), the span of seq stands in: an upper bound.

*Hours left* is the time until the first record that an attached route still wants would have to give way, if nothing
were delivered any more and records came as in the last five minutes. What they may take is ``max_size`` up to the
mark where room is made, or what the disk has above its floor, the ballast included; whatever was delivered already, or
only detached routes and replays want, would go first and so does not count. A record is taken for what the file
really grew by, its indexes and the registry included, as seen while nothing was deleted.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from edge_agent.buffer import holes
from edge_agent.buffer.files import Files
from edge_agent.buffer.settings import BufferSettings

HIGH, LOW = 0.98, 0.95  # of max_size: making room begins, and ends
RATE_POINTS = 31  # five minutes, one every ten seconds
GAPS = 20_000  # more are not added up but taken to be like the others
LETTERS = 50_000  # dead letters are counted up to here
CALIBRATE_BYTES = 2**17

_PENDING = "SELECT route, id, seq, n, to_seq, total, total_seq FROM lane WHERE to_seq IS NULL OR seq < to_seq"


class Growth:
    """How fast the file would grow if nothing was deleted."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=RATE_POINTS)
        self._last: tuple[int, int, int] | None = None
        self._factor = 1.15  # bytes of the file by counted byte

    def note(self, counted: int, used: int, deletions: int) -> None:
        """Once in a while: bytes that were committed, bytes of the file in use, and how often something was deleted."""
        self._points.append((time.monotonic(), counted))
        if self._last is None or self._last[2] != deletions:
            self._last = (counted, used, deletions)
        elif counted - self._last[0] >= CALIBRATE_BYTES:
            seen = (used - self._last[1]) / (counted - self._last[0])
            self._factor += (min(4.0, max(1.0, seen)) - self._factor) / 2
            self._last = (counted, used, deletions)

    def per_hour(self, counted: int) -> float | None:
        """Bytes an hour; None in the first second."""
        since_s, before = self._points[0]
        passed_s = time.monotonic() - since_s
        return (counted - before) * self._factor * 3600 / passed_s if passed_s >= 1.0 else None


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the database that hold something."""
    execute = connection.execute
    (size,), (pages,) = execute("PRAGMA page_size").fetchone(), execute("PRAGMA page_count").fetchone()
    (free,) = execute("PRAGMA freelist_count").fetchone()
    return int(size * (pages - free))


def undelivered(connection: sqlite3.Connection, files: Files, settings: BufferSettings) -> tuple[int, int]:
    """Bytes that attached routes have not had yet, and the bytes that such records may take."""
    (first,) = connection.execute("SELECT coalesce(min(seq), 1) FROM record").fetchone()
    (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
    rows = _rows(connection, first - 1, last)
    share = _rows(connection, holes.floor(connection, first_time=True), last) / rows if rows else 0.0
    room = files.size() + files.ballast_size() + files.free() - settings.min_free
    return round(used_bytes(connection) * min(1.0, share)), max(0, min(round(HIGH * settings.max_size), room))


def _rows(connection: sqlite3.Connection, after_seq: int, last: int) -> int:
    """Records in (after_seq, last]."""
    sql = "SELECT count(*), coalesce(sum(last_seq - first_seq + 1), 0), max(last_seq) FROM (SELECT first_seq, last_seq"
    sql += " FROM gap WHERE first_seq > ? ORDER BY first_seq LIMIT ?)"
    gaps, missing, end = connection.execute(sql, (after_seq, GAPS)).fetchone()
    if gaps == GAPS:
        missing = round(missing * (last - after_seq) / (end - after_seq))
    return max(0, last - after_seq - int(missing))


def measure(
    connection: sqlite3.Connection,
    files: Files,
    settings: BufferSettings | None,
    totals: Mapping[int, tuple[int, int]],
    bytes_per_hour: float | None,
) -> dict[str, Any]:
    """``totals``: lane id -> (total, total_seq) where the writer knows better than the table."""
    execute = connection.execute
    sql = f"SELECT seq, at_ns FROM record WHERE kind NOT IN {holes.DESCRIBING} ORDER BY seq LIMIT 1"
    first = execute(sql).fetchone() or (0, 0)  # what describes the others stays longer than they do
    last = execute("SELECT seq, at_ns FROM record ORDER BY seq DESC LIMIT 1").fetchone() or (0, 0)
    attached = {name: bool(flag) for name, flag in execute("SELECT name, attached FROM route ORDER BY name")}
    standing = "SELECT route FROM dead_letter WHERE retried_at_ns IS NULL LIMIT ?"
    letters = f"SELECT route, count(*) FROM ({standing}) GROUP BY route"
    result: dict[str, Any] = {
        "rows": _rows(connection, first[0] - 1, last[0]) if last[0] else 0,
        "bytes": files.size(),
        "used_bytes": used_bytes(connection),
        "free_disk_bytes": files.free(),
        "first_seq": first[0],
        "last_seq": last[0],
        "oldest_at_ns": str(first[1]),
        "newest_at_ns": str(last[1]),
        "pending": _pending(connection, last[0], totals),
        "attached": attached,
        "dead_letters": dict(execute(letters, (LETTERS,))),
        "bytes_per_hour": None if bytes_per_hour is None else round(bytes_per_hour),
        "limit_bytes": None,
        "limited_by": None,
        "hours_left": None,
    }
    if settings is not None:
        held, room = undelivered(connection, files, settings)
        result["limit_bytes"] = room
        result["limited_by"] = "max_size" if room == round(HIGH * settings.max_size) else "disk"
        if bytes_per_hour:
            result["hours_left"] = round(max(0, room - held) / bytes_per_hour, 2)
    return result


def _pending(connection: sqlite3.Connection, head_seq: int, totals: Mapping[int, tuple[int, int]]) -> dict[str, int]:
    """Records by route that are not done."""
    pending = {name: 0 for (name,) in connection.execute("SELECT name FROM route ORDER BY name")}
    for route, lane, seq, n, to_seq, total, total_seq in connection.execute(_PENDING):
        end = head_seq if to_seq is None else to_seq
        total, total_seq = totals.get(lane, (total, total_seq))
        left = end - seq if total_seq < seq else total - n + max(0, end - total_seq)
        pending[route] = pending.get(route, 0) + max(0, left)
    return pending
