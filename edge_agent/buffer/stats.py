"""How full the buffer is, what each route has pending, and how long it would last. Reads no records.

Pending is counted, not scanned: a lane knows how many records passed its filter (``total``) and how many are done
(``n``). Where the count is behind (a route that begins with old logs), the span of seq stands in: an upper bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from edge_agent.buffer.files import Files
from edge_agent.buffer.settings import BufferSettings

_PENDING = "SELECT route, id, seq, n, to_seq, total, total_seq FROM lane WHERE to_seq IS NULL OR seq < to_seq"


def measure(
    connection: sqlite3.Connection,
    files: Files,
    settings: BufferSettings | None,
    totals: Mapping[int, tuple[int, int]],
    bytes_per_hour: float | None,
) -> dict[str, Any]:
    """``totals``: lane id -> (total, total_seq) where the writer knows better than the table."""
    execute = connection.execute
    first = execute("SELECT seq, at_ns FROM record ORDER BY seq LIMIT 1").fetchone() or (0, 0)
    last = execute("SELECT seq, at_ns FROM record ORDER BY seq DESC LIMIT 1").fetchone() or (0, 0)
    (missing,) = execute(
        "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM gap WHERE first_seq > ?", (first[0],)
    ).fetchone()
    rows = last[0] - first[0] + 1 - missing if last[0] else 0
    (page_size,), (free_pages,) = execute("PRAGMA page_size").fetchone(), execute("PRAGMA freelist_count").fetchone()
    used = files.size() - page_size * free_pages
    pending, floor = _pending(connection, last[0], totals)
    standing = "SELECT route, count(*) FROM dead_letter WHERE retried_at_ns IS NULL GROUP BY route"
    result: dict[str, Any] = {
        "rows": rows,
        "bytes": files.size(),
        "used_bytes": used,
        "free_disk_bytes": files.free(),
        "first_seq": first[0],
        "last_seq": last[0],
        "oldest_at_ns": str(first[1]),
        "newest_at_ns": str(last[1]),
        "pending": pending,
        "attached": {name: bool(flag) for name, flag in execute("SELECT name, attached FROM route ORDER BY name")},
        "dead_letters": dict(execute(standing)),
        "bytes_per_hour": None if bytes_per_hour is None else round(bytes_per_hour),
        "limit_bytes": None,
        "hours_left": None,
    }
    if settings is not None:
        limit = min(settings.max_size, files.size() + max(0, files.free() - settings.min_free))
        held = used * (last[0] - floor) / rows if rows else 0.0
        result["limit_bytes"] = limit
        if bytes_per_hour:
            result["hours_left"] = round(max(0.0, limit - held) / bytes_per_hour, 2)
    return result


def _pending(
    connection: sqlite3.Connection, head_seq: int, totals: Mapping[int, tuple[int, int]]
) -> tuple[dict[str, int], int]:
    """Records by route that are not done, and the seq up to which every route is done."""
    pending = {name: 0 for (name,) in connection.execute("SELECT name FROM route ORDER BY name")}
    floor = head_seq
    for route, lane, seq, n, to_seq, total, total_seq in connection.execute(_PENDING):
        end = head_seq if to_seq is None else to_seq
        total, total_seq = totals.get(lane, (total, total_seq))
        left = end - seq if total_seq < seq else total - n + max(0, end - total_seq)
        pending[route] = pending.get(route, 0) + max(0, left)
        floor = min(floor, seq)
    return pending, floor
