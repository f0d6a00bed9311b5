"""What one route gives up: beyond its ``max_backlog``, or all of it at a word of command.

Nothing is deleted here: the route's lanes get holes, and the records go when no other route wants them. Oldest first,
in slices, each recorded in the transaction that makes its hole. What the route has in flight is left to the receiver.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_agent import clock
from edge_agent.buffer.backlog import Backlog
from edge_agent.buffer.holes import DEAD_LETTER_NS, ROW_BYTES, done, existing, give_up
from edge_agent.buffer.lanes import UNFINISHED, WITHHELD
from edge_agent.buffer.slices import TICK_SLICES
from edge_agent.buffer.stats import LOW
from edge_agent.errors import StorageError
from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer
    from edge_agent.buffer.retention import Retention

LETTERS = 200  # dead letters that go in one drop

Body = dict[str, Any]
"""What a drop says of itself; ``bytes`` is for us only."""


class RouteDrops:
    """Gives up for routes, through the drops of ``Retention``."""

    def __init__(self, retention: Retention, buffer: Buffer) -> None:
        self._retention, self._buffer = retention, buffer
        self._pending: dict[str, Backlog] = {}

    async def limit(self, route: str, limit: int) -> None:
        """Give up the oldest that ``route`` has pending beyond ``limit`` bytes; for this route only."""
        if self._buffer.upkeep.used() <= limit or self._buffer.writer.trouble is not None:
            return
        backlog = self._pending.setdefault(route, Backlog(self._buffer.files.db, route, self._buffer.passed.seq))
        excess = await self._pending_bytes(backlog) - limit
        if excess > 0 and not backlog.is_exact:
            backlog.forget()
            excess = await self._pending_bytes(backlog) - limit
        if excess <= 0:
            return
        excess += round((1 - LOW) * limit)
        reason, upto = f"max_backlog of route {route}", self._buffer.writer.durable_seq
        for _ in range(TICK_SLICES):
            if (
                excess <= 0
                or self._retention.look(lambda db: self._first_pending(db, route, upto, only_new=True)) is None
            ):
                break
            given = await self._retention.drop(lambda db: self._give_up_for(db, route, upto, reason, excess))  # noqa: B023
            excess -= given.pop("bytes", 0)
        backlog.forget()

    async def _pending_bytes(self, backlog: Backlog) -> int:
        while (found := await asyncio.to_thread(backlog.look)) is None:
            pass
        return found

    async def drop(self, route: str, reason: str) -> int:
        """See ``Buffer.drop_route``."""
        attached = self._retention.look(
            lambda db: db.execute("SELECT attached FROM route WHERE name = ?", (route,)).fetchone()
        )
        if attached is None:
            raise LookupError(f"no route is named {route}")
        upto, given = self._buffer.writer.durable_seq, 0
        while self._retention.look(lambda db: self._first_pending(db, route, upto)) is not None:
            body = await self._retention.drop(lambda db: self._give_up_for(db, route, upto, reason))
            given += sum(body.get("kinds", {}).values())
        if not attached[0]:
            self._must_be_whole(route, given)
            while body := await self._retention.drop(lambda db: self._forget_letters(db, route, reason)):
                given += sum(body["kinds"].values())
            await self._retention.chore(lambda db: _forget_route(db, route))
        return given

    def _must_be_whole(self, route: str, given: int) -> None:
        """Raises StorageError while something of the route is being salvaged: it could not be counted."""
        sql = f"SELECT 1 FROM lane WHERE route = ? AND {UNFINISHED} AND {WITHHELD} LIMIT 1"
        if self._retention.look(lambda db: db.execute(sql, (route,)).fetchone()) is not None:
            what = f"{given} records were given up; the rest of route {route} is still being salvaged"
            raise StorageError(
                what, hint="type the same again when `edge-agent buffer stats` shows no salvage any more"
            )

    def _give_up_for(self, db: sqlite3.Connection, route: str, upto: int, reason: str, most: int | None = None) -> Body:
        """One slice of what a route has pending, at most ``most`` bytes of it, its oldest first."""
        found = self._first_pending(db, route, upto, only_new=most is not None)
        if found is None:
            return {}
        lane, first, end = found
        span = existing(db, first, end, self._retention.pace.rows)
        last = span[1] if span and existing(db, span[1] + 1, end, 1) else end
        if most is not None:
            last = _within(db, first, last, most)
        given = give_up(db, first, last, self._buffer.passed.seq, reason, only=lane)
        return drop_body(reason, first, last, given) | {"route": route} if given else {}

    def _first_pending(
        self, db: sqlite3.Connection, route: str, upto: int, *, only_new: bool = False
    ) -> tuple[int, int, int] | None:
        """(lane, first_seq, last_seq) of the oldest that a route has pending and not in flight.

        ``only_new``: not in its replays.
        """
        sql = f"SELECT id, seq, min(coalesce(to_seq, ?1), ?1) FROM lane WHERE route = ?2 AND {UNFINISHED}"
        sql += f" AND NOT {WITHHELD}"  # of what is still being salvaged nobody knows what is in it
        sql += " AND purpose = 'log'" if only_new else ""
        for lane, seq, end in db.execute(sql + " ORDER BY from_seq, id", (upto, route)).fetchall():
            first = done(db, lane, max(seq, self._buffer.passed.seq.get(lane, 0))) + 1
            if first <= end:
                return lane, first, end
        return None

    async def expire(self) -> None:
        """Let dead letters go that are past their time; a recorded drop. Not while the clock is not trusted."""
        cutoff_ns = clock.now().at_ns - DEAD_LETTER_NS
        sql = "SELECT route FROM dead_letter WHERE synced AND at_ns < ? LIMIT 1"
        while clock.synchronised():
            row = await self._retention.ask(lambda db: db.execute(sql, (cutoff_ns,)).fetchone())
            if row is None:
                return
            await self._retention.drop(
                lambda db, route=row[0]: self._forget_letters(  # type: ignore[misc]
                    db, route, "dead letters, not retried for 30 days", cutoff_ns
                )
            )

    def _forget_letters(self, db: sqlite3.Connection, route: str, reason: str, before_ns: int = 2**63 - 1) -> Body:
        """One slice of a route's dead letters from before then; those that were retried are no loss."""
        sql = (
            "SELECT d.lane, d.n, d.seq, r.kind, d.retried_at_ns FROM dead_letter d LEFT JOIN record r ON r.seq = d.seq"
            " WHERE d.route = ? AND d.at_ns < ? AND (d.synced OR ?) LIMIT ?"
        )
        rows = db.execute(sql, (route, before_ns, before_ns == 2**63 - 1, LETTERS)).fetchall()
        db.executemany("DELETE FROM dead_letter WHERE lane = ? AND n = ?", [row[:2] for row in rows])
        lost = [(seq, kind) for _, _, seq, kind, retried in rows if kind is not None and retried is None]
        seqs = [seq for seq, _ in lost] or [0]
        body = drop_body(reason, min(seqs), max(seqs), [(kind, 0) for _, kind in lost]) | {"route": route}
        return body if rows else {}


def _within(db: sqlite3.Connection, first: int, last: int, most: int) -> int:
    """Where in [first, last] the records come to ``most`` bytes; at least one goes."""
    sql = "SELECT seq, length(body) + ? FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq"
    for seq, size in db.execute(sql, (ROW_BYTES, first, last)):
        most -= size
        if most <= 0:
            return int(seq)
    return last


def _forget_route(db: sqlite3.Connection, route: str) -> None:
    """A detached route that was given up is listed no more. Its lanes are finished, and go with their logs."""
    db.execute("UPDATE lane SET seq = to_seq WHERE route = ? AND seq < to_seq", (route,))
    db.execute("DELETE FROM route WHERE name = ? AND NOT attached", (route,))


def drop_body(reason: str, first: int, last: int, given: Sequence[tuple[int, int]]) -> Body:
    """What a drop says; ``bytes`` is for us only."""
    kinds = Counter(Kind(kind).label for kind, _ in given)
    return {"reason": reason, "first_seq": first, "last_seq": last, "kinds": dict(kinds),
            "bytes": sum(size for _, size in given)}  # fmt: skip
