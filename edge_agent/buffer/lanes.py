"""Routes' progress: a lane is a range of one log that one route is to deliver, under one filter.

A route has one lane a log; a changed filter closes the open lane and begins another number, and so does a split (see
``replays``). A lane's cursor ``(seq, n)`` says: everything up to ``seq`` is done, ``n`` numbers were used for it.
Numbers count the records that pass the filter, and a *hole* (dropped records) counts for as many as it held, so
re-reading from the cursor gives every record the number it had.

A stream's name never comes back for other records: numbers of the log's own lanes only grow while there is the log. A
lane that repeats something has a random one: it may be of a log long finished, and may be forgotten (when it is done,
or with a lost tail of the write-ahead log) while receivers still know of it.

The functions here take the writing connection, inside the caller's transaction.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from edge_agent.model import Kind

STATION_KINDS = frozenset(
    {
        Kind.CYCLE_OPENED, Kind.CYCLE_CLOSED, Kind.BINDING, Kind.IDENTIFIER, Kind.MATERIAL, Kind.GENEALOGY, Kind.GATE,
        Kind.FINDING,
    }
)  # fmt: skip
"""Kinds whose source is (or may be) a station: only these are subject to a route's list of stations."""


@dataclass(frozen=True, slots=True)
class RouteFilter:
    """Which records a route sends. ``stations`` narrows what stations say; what devices say is sent by kind."""

    kinds: frozenset[Kind]
    stations: frozenset[str] | None = None

    def columns(self) -> tuple[str, str | None]:
        """As stored: JSON arrays, sorted, so that equal filters are equal text."""
        kinds = orjson.dumps(sorted(int(kind) for kind in self.kinds)).decode()
        return kinds, None if self.stations is None else orjson.dumps(sorted(self.stations)).decode()

    @classmethod
    def of(cls, kinds: str, stations: str | None) -> RouteFilter:
        """The filter of stored columns."""
        known = frozenset(Kind(number) for number in orjson.loads(kinds))
        return cls(known, None if stations is None else frozenset(orjson.loads(stations)))

    def refused(self, stations: Iterable[str]) -> frozenset[str]:
        """Of all ``stations`` there are, those whose records do not pass."""
        return frozenset() if self.stations is None else frozenset(stations) - self.stations

    def passes(self, kind: int, source: str, refused: frozenset[str]) -> bool:
        """Whether a record passes; ``refused`` comes from the method of that name."""
        return kind in self.kinds and not (refused and kind in STATION_KINDS and source in refused)


@dataclass(frozen=True, slots=True)
class Lane:
    """One range with its cursor as of when it was asked for. ``to_seq`` None: it grows with the running log."""

    route: str
    number: int
    log: str
    boot: str
    from_seq: int
    to_seq: int | None
    seq: int
    n: int
    filter: RouteFilter
    id: int
    purpose: str = "log"  # or "replay" (a range once more), "retry" (dead letters once more: only its picks)
    request: str | None = None  # the id by which somebody asked for it

    @property
    def stream(self) -> str:
        """The stream's name in messages."""
        return f"{self.log}.{self.route}.{self.number if self.number > 0 else f'r{-self.number}'}"

    @property
    def replayed(self) -> bool:
        """What it delivers is history: it does not grow, or repeats what the route had."""
        return self.to_seq is not None or self.purpose != "log"


_COLUMNS = "route, number, log, boot, from_seq, to_seq, seq, n, kinds, stations, id, purpose, request"
_GROWING = 2**63 - 1
STREAMS = 2**40
UNFINISHED = "(to_seq IS NULL OR seq < to_seq)"
WITHHELD = (
    "EXISTS (SELECT 1 FROM gap WHERE gap.reason = 'salvage' AND gap.last_seq > lane.seq"
    f" AND gap.first_seq <= coalesce(lane.to_seq, {_GROWING}))"
)
"""Some of the lane's range is still being taken over from a damaged file."""


def _lane(row: tuple[Any, ...]) -> Lane:
    route, number, log, boot, from_seq, to_seq, seq, n, kinds, stations, id, purpose, request = row
    wanted = RouteFilter.of(kinds, stations)
    return Lane(route, number, log, boot, from_seq, to_seq, seq, n, wanted, id, purpose, request)


def unfinished(connection: sqlite3.Connection, route: str) -> list[Lane]:
    """A route's lanes that have something to deliver and are complete, oldest first; the open one is among them."""
    sql = f"SELECT {_COLUMNS} FROM lane WHERE route = ? AND {UNFINISHED} AND NOT {WITHHELD} ORDER BY from_seq, number"
    return [_lane(row) for row in connection.execute(sql, (route,))]


def lane(connection: sqlite3.Connection, id: int) -> Lane:
    """The lane of that id."""
    return _lane(connection.execute(f"SELECT {_COLUMNS} FROM lane WHERE id = ?", (id,)).fetchone())


def attach(
    connection: sqlite3.Connection, route: str, start: str, wanted: RouteFilter, head_seq: int, handed: bool
) -> list[Lane]:
    """Give ``route`` a lane for every log it lacks one for, all under ``wanted``; returns the unfinished ones.

    A new route begins with the running log (``start`` "now") or with the oldest record ("oldest"); one that comes back
    goes on where it was detached. ``head_seq`` is the last stored record. ``handed``: the open lane was already given
    out in this run, so numbers may be in use.
    """
    columns = wanted.columns()
    known = connection.execute("SELECT 1 FROM route WHERE name = ?", (route,)).fetchone()
    connection.execute("INSERT OR REPLACE INTO route VALUES (?, 1, ?, ?)", (route, *columns))
    after: int | None = 0 if start == "oldest" else None
    if known is not None:
        _refilter(connection, route, columns, head_seq, handed)
        after = _had(connection, route)
    logs = connection.execute("SELECT id, first_seq, boot FROM log ORDER BY first_seq").fetchall()
    (oldest,) = connection.execute(
        "SELECT min(first) FROM (SELECT min(seq) AS first FROM record"
        " UNION ALL SELECT min(first_seq) FROM gap WHERE reason = 'salvage')"
    ).fetchone()
    for place, (log, first, boot) in enumerate(logs):
        last = logs[place + 1][1] - 1 if place + 1 < len(logs) else None
        missing = last is None if after is None else last is None or last > after
        if missing and after != _GROWING and (last is None or last >= (oldest or 0)):
            insert(connection, route, log, boot, max(first, (after or 0) + 1, oldest or first), last, columns)
    return unfinished(connection, route)


def _had(connection: sqlite3.Connection, route: str) -> int | None:
    """The last seq that is in a lane of the route; the rest of a log that it was detached in is in none."""
    sql = f"SELECT max(coalesce(to_seq, {_GROWING})) FROM lane WHERE route = ? AND number > 0"
    (last,) = connection.execute(sql, (route,)).fetchone()  # not the newest: one that was cut off may hold nothing
    return None if last is None else int(last)


def _refilter(
    connection: sqlite3.Connection, route: str, columns: tuple[str, str | None], head_seq: int, handed: bool
) -> None:
    """Let the open lane follow a changed filter: in place while no number of it was used, else by a new lane."""
    sql = "SELECT id, log, boot, from_seq, seq, kinds, stations FROM lane WHERE route = ? AND to_seq IS NULL"
    row = connection.execute(sql, (route,)).fetchone()
    if row is None or row[5:] == columns:
        return
    lane, log, boot, from_seq, seq = row[:5]
    if seq < from_seq and not handed:
        connection.execute(
            "UPDATE lane SET kinds = ?, stations = ?, total = 0, total_seq = from_seq - 1 WHERE id = ?",
            (*columns, lane),
        )
    else:
        connection.execute("UPDATE lane SET to_seq = ? WHERE id = ?", (max(head_seq, seq), lane))
        insert(connection, route, log, boot, max(head_seq, seq) + 1, None, columns)


def insert(
    connection: sqlite3.Connection,
    route: str,
    log: str,
    boot: str,
    from_seq: int,
    to_seq: int | None,
    columns: tuple[str, str | None],
    purpose: str = "log",
    request: str | None = None,
) -> int:
    """A new lane, its cursor before its first seq; returns its id. ``columns`` are the filter's."""
    if purpose == "log":
        sql = "SELECT max(coalesce(max(number), 0), 0) + 1 FROM lane WHERE route = ? AND log = ?"
        (number,) = connection.execute(sql, (route, log)).fetchone()
    else:
        number = -secrets.randbelow(STREAMS) - 1
    connection.execute(
        "INSERT INTO lane (route, number, log, boot, from_seq, to_seq, seq, n, kinds, stations, total, total_seq,"
        " purpose, request) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, ?, ?, ?)",
        (route, number, log, boot, from_seq, to_seq, from_seq - 1, *columns, from_seq - 1, purpose, request),
    )
    (id,) = connection.execute("SELECT last_insert_rowid()").fetchone()
    return int(id)


def open_log(connection: sqlite3.Connection, log: str, boot: str, first_seq: int, previous_seq: int) -> None:
    """End every open lane with the previous log, and begin one in the new log for every attached route."""
    connection.execute("UPDATE lane SET to_seq = max(?, seq) WHERE to_seq IS NULL", (previous_seq,))
    for route, kinds, stations in connection.execute(
        "SELECT name, kinds, stations FROM route WHERE attached"
    ).fetchall():
        insert(connection, route, log, boot, first_seq, None, (kinds, stations))


def renumber(connection: sqlite3.Connection, lane: int) -> None:
    """End a lane where its cursor stands; another one goes on from there, numbered from 1."""
    sql = "SELECT route, log, boot, seq, to_seq, kinds, stations, purpose, request FROM lane WHERE id = ?"
    route, log, boot, seq, to_seq, kinds, stations, *why = connection.execute(sql, (lane,)).fetchone()
    new = insert(connection, route, log, boot, seq + 1, to_seq, (kinds, stations), *why)
    connection.execute("UPDATE hole SET lane = ? WHERE lane = ? AND first_seq > ?", (new, lane, seq))
    connection.execute("UPDATE pick SET lane = ? WHERE lane = ? AND seq > ?", (new, lane, seq))
    connection.execute("UPDATE lane SET to_seq = seq WHERE id = ?", (lane,))


def count(
    connection: sqlite3.Connection,
    first: int,
    last: int,
    wanted: RouteFilter,
    refused: frozenset[str],
    lane: int | None = None,
) -> int:
    """How many records of [first, last] pass; with ``lane``, if that one has picks, how many of those."""
    picks = "SELECT seq FROM pick WHERE lane = ?"
    if lane is not None and connection.execute(picks + " LIMIT 1", (lane,)).fetchone() is not None:
        sql = f"SELECT count(*) FROM ({picks} AND seq BETWEEN ? AND ?) JOIN record USING (seq)"
        return int(connection.execute(sql, (lane, first, last)).fetchone()[0])
    sql = (
        "SELECT r.kind, s.name, count(*) FROM record r JOIN source s ON s.id = r.source WHERE r.seq BETWEEN ? AND ?"
        " GROUP BY r.kind, r.source"
    )
    found = connection.execute(sql, (first, last))
    return sum(number for kind, name, number in found if wanted.passes(kind, name, refused))


def detach(connection: sqlite3.Connection, attached: Iterable[str], head_seq: int) -> list[str]:
    """Detach routes that the config no longer has; their lanes end here and keep what is undelivered."""
    names = [name for (name,) in connection.execute("SELECT name FROM route WHERE attached")]
    gone = sorted(set(names) - set(attached))
    for name in gone:
        connection.execute("UPDATE route SET attached = 0 WHERE name = ?", (name,))
        connection.execute("UPDATE lane SET to_seq = max(?, seq) WHERE route = ? AND to_seq IS NULL", (head_seq, name))
    return gone
