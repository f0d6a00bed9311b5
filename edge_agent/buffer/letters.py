"""Dead letters as people look at them: which record was refused, by whom, when and why, and whether it was retried.

A dead letter is *standing* until it is retried; then it no longer counts as dead, but stays listed with when that was.
Refused again, a new one stands. Its id is the record's, ``<log>-<seq>``: several routes may have refused one record.
Rows are read one by one; only ``Archive.dead_letters`` makes a list.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from edge_agent.model import Kind


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record. ``kind`` None: the record itself is no longer kept."""

    id: str
    route: str
    n: int
    log: str
    seq: int
    kind: str | None
    source: str | None
    at_ns: int | None
    refused_at_ns: int
    reason: str
    retried_at_ns: int | None
    body: Any


_COLUMNS = (
    "d.route, d.n, l.log, d.seq, r.kind, s.name, r.at_ns, d.at_ns, d.reason, d.retried_at_ns, r.body FROM dead_letter d"
    " LEFT JOIN lane l ON l.id = d.lane LEFT JOIN record r ON r.seq = d.seq LEFT JOIN source s ON s.id = r.source"
)


def letters(
    connection: sqlite3.Connection,
    route: str | None = None,
    *,
    seq: int | None = None,
    reason: str = "",
    retried: bool = False,
) -> Iterator[DeadLetter]:
    """Oldest first; those of ``route``, of record ``seq``, whose reason contains ``reason``; ``retried`` ones, too."""
    sql = (
        f"SELECT {_COLUMNS} WHERE (?1 IS NULL OR d.route = ?1) AND (?2 IS NULL OR d.seq = ?2)"
        " AND (?3 = '' OR instr(lower(d.reason), lower(?3))) AND (?4 OR d.retried_at_ns IS NULL)"
        " ORDER BY d.at_ns, d.seq"
    )
    for row in connection.execute(sql, (route, seq, reason, retried)):
        name, n, log, number, kind, source, at_ns, refused_at_ns, why, retried_at_ns, body = row
        yield DeadLetter(
            id=f"{log}-{number}", route=name, n=n, log=log, seq=number,
            kind=None if kind is None else Kind(kind).label, source=source, at_ns=at_ns,
            refused_at_ns=refused_at_ns, reason=why, retried_at_ns=retried_at_ns,
            body=None if body is None else orjson.loads(body),
        )  # fmt: skip


def standing(
    connection: sqlite3.Connection, route: str, *, ids: frozenset[str] | None, reason: str, limit: int
) -> tuple[dict[str, int], int, int]:
    """What a retry would take: (id -> seq of those still kept, at most ``limit``; how many more; how many are gone)."""
    sql = (
        "SELECT DISTINCT l.log, d.seq, r.seq IS NOT NULL FROM dead_letter d JOIN lane l ON l.id = d.lane"
        " LEFT JOIN record r ON r.seq = d.seq WHERE d.route = ?1 AND d.retried_at_ns IS NULL"
        " AND (?2 = '' OR instr(lower(d.reason), lower(?2))) ORDER BY d.seq"
    )
    kept: dict[str, int] = {}
    more = gone = 0
    for log, seq, there in connection.execute(sql, (route, reason)):
        if ids is not None and f"{log}-{seq}" not in ids:
            continue
        if not there:
            gone += 1
        elif len(kept) < limit:
            kept[f"{log}-{seq}"] = seq
        else:
            more += 1
    return kept, more, gone
