"""How each route stands, for `route list`: attached or not, what is pending, its dead letters, and its lanes.

Read from the tables, beside a running agent or from a stopped one's; what the writer knows better (the counts of
growing lanes) comes as ``totals``, as for ``measure``. Lanes that are finished are not told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.buffer import lanes, replays


@dataclass(frozen=True, slots=True)
class LaneStanding:
    """One lane that has something to deliver, or grows (``last_seq`` None)."""

    stream: str
    purpose: str  # log, replay, retry
    request: str | None
    first_seq: int
    last_seq: int | None
    done_seq: int
    pending: int


@dataclass(frozen=True, slots=True)
class RouteStanding:
    """A route that this buffer knows; a detached one is no longer in the configuration."""

    route: str
    attached: bool
    pending: int
    dead_letters: int
    lanes: tuple[LaneStanding, ...]


def standings(
    connection: sqlite3.Connection, totals: Mapping[int, tuple[int, int]] | None = None, head_seq: int | None = None
) -> list[RouteStanding]:
    """Every route by name. ``totals``: lane id -> (total, total_seq), as of when ``head_seq`` was the last one."""
    execute = connection.execute
    if head_seq is None:
        (head_seq,) = execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
    sql = "SELECT route, count(*) FROM dead_letter WHERE retried_at_ns IS NULL GROUP BY route"
    dead = dict(execute(sql).fetchall())
    found = []
    for route, attached in execute("SELECT name, attached FROM route ORDER BY name").fetchall():
        left = replays.pending(connection, route, int(head_seq or 0), totals or {})
        told = tuple(
            LaneStanding(
                lane.stream, lane.purpose, lane.request, lane.from_seq, lane.to_seq, lane.seq, left.get(lane.id, 0)
            )
            for lane in lanes.unfinished(connection, route)
        )
        found.append(RouteStanding(route, bool(attached), sum(left.values()), dead.get(route, 0), told))
    return found
