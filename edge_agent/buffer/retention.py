"""What may be deleted, when, and in which order. Every step is a slice of some milliseconds between commits.

By age: what every route has done and is older than ``keep``. Undelivered records never go by age, and nothing does
while the clock is not trusted.

By size, when ``max_size`` or the disk's floor is reached, or the database file may not grow any more, in this order:

1. the ballast; then what every route has done, whatever its age;
2. what only detached routes and replays still want, a recorded drop;
3. undelivered samples of no cycle, a recorded drop;
4. new samples of no cycle are not stored, a recorded drop;
5. nothing more: the writer is held, ``room()`` holds the collectors, the status says so.

A route's own ``max_backlog`` gives up its oldest records for that route only, recorded as well; so does ``drop_route``.

Samples of a cycle that is not closed, dead letters of the last 30 days and what a route has in flight stay in any
case. A drop's record, the deletion and the holes in the lanes are one transaction. Deleted ranges keep their last hash
(``gap``), so that the ledger stays verifiable. From 2 on it is a ``storage`` finding: one as it begins, a line in the
log as it ends.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from edge_agent import clock
from edge_agent.buffer.files import give_up_ballast
from edge_agent.buffer.holes import Range, delete, existing, floor, give_up, in_hand, loose_runs, protected, without
from edge_agent.buffer.queries import connect
from edge_agent.buffer.route_drops import Body, RouteDrops, drop_body
from edge_agent.buffer.slices import TICK_SLICES, Pace
from edge_agent.buffer.stats import HIGH, LOW
from edge_agent.buffer.steps import step
from edge_agent.errors import StorageFull
from edge_agent.logs import Log
from edge_agent.model import Kind, Record

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer

GRANT_BYTES = 2**18  # the least that is written between two looks
QUIET_S = 60.0  # being full is over when nothing had to give way for so long, and
RELIEVED = 0.9  # undelivered records take no more than this of what there is
SHED_S, SHED_ROWS = 60.0, 100_000  # samples that are not stored are recorded as a drop this often
SWEEP_S, FULL_SWEEP_S = 3600.0, 30.0  # what was protected is looked at again this often

T = TypeVar("T")

log = Log(__name__)


class Retention:
    """Deletes in slices. ``step`` is called about once a second, by one task."""

    def __init__(self, buffer: Buffer, used: Callable[[], int]) -> None:
        self.dropped = 0  # undelivered records given up in this run
        self.backlogs: dict[str, int] = {}  # route -> max_backlog in bytes
        self.deleted = 0  # slices of records deleted in this run
        self.stuck: sqlite3.Error | None = None  # why the database file may not grow, though the disk has room
        self._buffer = buffer
        self._used = used  # bytes that hold something
        self.routes = RouteDrops(self, buffer)
        self._delivered, self.pace, self._pages = Pace(200, 20, 5000), Pace(200, 20, 5000), Pace(32, 4, 256)
        self._next = 0  # deleting goes on here; earlier seqs are gone or protected
        self._loose = 0  # the same for samples of no cycle
        self._sweep_s = self._shed_s = time.monotonic()
        self._full_since_s: float | None = None  # something undelivered had to give way
        self._dropped_before = 0
        self._gave_way_s = 0.0

    async def step(self) -> None:
        """One tick: the backlogs, then size or age, then free pages back to the file system."""
        if time.monotonic() - self._sweep_s > (SWEEP_S if self._full_since_s is None else FULL_SWEEP_S):
            self._next = self._loose = 0
            self._sweep_s = time.monotonic()
            await self.routes.expire()
        for route, limit in list(self.backlogs.items()):
            await self.routes.limit(route, limit)
        if self.is_full():
            await self._make_room()
        elif clock.synchronised():
            await self._by_age()
        if not self._is_over():
            self._hold(False)
        if self._buffer.shedding and not self.is_full():
            self._buffer.shedding = False
        self._record_shed()
        await self._give_back()
        self._relieve()

    # --- how full --------------------------------------------------------------------------------------------

    def _below_floor(self) -> bool:
        return self._buffer.files.free() < self._buffer.settings.min_free

    def is_full(self) -> bool:
        """Whether something has to go."""
        return self._used() > HIGH * self._buffer.settings.max_size or self._below_floor() or self._cannot_grow()

    def _is_over(self) -> bool:
        return self._used() > self._buffer.settings.max_size or self._below_floor() or self.stuck is not None

    def grant(self) -> float:
        """Up to which counted byte the writer may go on before the next look: a quarter of the room, a counted byte
        being at most four of the file. So ``max_size`` holds within ``GRANT_BYTES`` however fast it writes.
        """
        writer, settings = self._buffer.writer, self._buffer.settings
        if writer.held is not None or writer.trouble is not None:
            return math.inf  # it is held in another way
        room = min(settings.max_size - self._used(), self._buffer.files.free() - settings.min_free)
        return writer.counts.bytes + max(GRANT_BYTES, room // 4)

    def _cannot_grow(self) -> bool:
        return self.stuck is not None or isinstance(self._buffer.writer.trouble, StorageFull)

    def _hold(self, held: bool) -> None:
        writer = self._buffer.writer
        if held == (writer.held is not None):
            return
        if held:
            writer.held = StorageFull(
                "the buffer is full of records that no route has delivered; collecting waits",
                hint="bring the receiver back, free disk space, or raise buffer.max_size",
            )
            log.error("buffer full", why="nothing more may be deleted", hint=writer.held.hint)
        else:
            writer.held = None
            log.info("buffer takes records again")

    def _announce(self, what: str) -> None:
        """Something undelivered gives way: a finding, once until that is over."""
        self._gave_way_s = time.monotonic()
        if self._full_since_s is not None:
            return
        self._full_since_s, self._dropped_before = time.monotonic(), self.dropped
        buffer = self._buffer
        details = {"used_bytes": self._used(), "max_size": buffer.settings.max_size,
                   "free_disk_bytes": buffer.files.free(), "min_free": buffer.settings.min_free}  # fmt: skip
        text = f"the buffer is full: {what}"
        log.error(text, hint="bring the receiver back, free disk space, or raise buffer.max_size", **details)
        body = {"finding": f"{buffer.log}-{buffer.next_seq}", "code": "storage", "severity": "error", "text": text,
                "evidence": [], "details": details}  # fmt: skip
        buffer.append([Record(Kind.FINDING, "agent", clock.now(), body)])

    def _relieve(self) -> None:
        """Being full is over when there is room again, and not only because something was just given up."""
        if self._full_since_s is None or self.is_full() or self._buffer.shedding or self._buffer.writer.held:
            return
        if time.monotonic() - self._gave_way_s < QUIET_S:
            return
        undelivered, room = self._buffer.upkeep.undelivered()
        if undelivered <= RELIEVED * room:
            after_s = round(time.monotonic() - self._full_since_s, 1)
            log.info("buffer has room again", after_s=after_s, given_up=self.dropped - self._dropped_before)
            self._full_since_s = None

    # --- by age ----------------------------------------------------------------------------------------------

    async def _by_age(self) -> None:
        cutoff_ns = clock.now().at_ns - round(self._buffer.settings.keep * 1e9)
        for _ in range(TICK_SLICES):
            if not await self.chore(lambda db: self._delete_old(db, cutoff_ns)):
                return

    def _delete_old(self, db: sqlite3.Connection, cutoff_ns: int) -> bool:
        """Delete what is older than the cutoff in one slice of delivered records. False when none is.

        Younger ones in between (a clock that was set) stay behind until the next sweep.
        """
        with self._delivered.slice() as rows:
            found = existing(db, self._next, floor(db), rows)
            if found is None:
                return False
            first, last = found
            young = _young(db, first, last, cutoff_ns, rows)
            if young and young[-1] == last and len(young) == last - young[0] + 1:  # from here on all are
                last = young[0] - 1
                young = []
            if first <= last:
                self._delete(db, self._spared(db, first, last, [(seq, seq) for seq in young]), "delivered")
            return first <= last

    # --- by size ---------------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        give_up_ballast(self._buffer.files)
        ways: Sequence[Callable[[], Awaitable[bool]]] = (
            self._delete_delivered,
            self._drop_unattached,
            self._drop_loose,
        )
        if self._buffer.writer.trouble is not None:
            self._announce("it cannot be written, records wait")
            ways = ways[:1]  # a drop could not be committed
        target = LOW * min(self._buffer.settings.max_size, self._used() if self._cannot_grow() else 2**63)
        for _ in range(TICK_SLICES):
            if self._used() < target and not self._short():
                break
            for way in ways:
                if await way():
                    break
            else:
                if self._buffer.writer.trouble is None:
                    self._announce("new samples of no cycle are not stored")
                    self._buffer.shedding = True
                    self._hold(self._is_over())
                break
        await self._give_back(must=self._below_floor() or self._cannot_grow())

    def _short(self) -> bool:
        """Whether the disk stays below its floor when what is free inside the file has been given back."""
        files = self._buffer.files
        return files.free() + max(0, files.db_size() - self._used()) < self._buffer.settings.min_free

    async def _delete_delivered(self) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            with self._delivered.slice() as rows:
                found = existing(db, self._next, floor(db), rows)
                if found is not None:
                    self._delete(db, self._spared(db, *found), "delivered")
                return found is not None

        return await self.chore(work)

    async def _drop_unattached(self) -> bool:
        """Give up what only detached routes and replays still want."""

        def found(db: sqlite3.Connection) -> Range | None:
            return existing(db, self._next, floor(db, first_time=True), self.pace.rows)

        def work(db: sqlite3.Connection) -> Body:
            span = found(db)
            return (
                self._give_up(db, self._spared(db, *span), "full; wanted by detached routes or replays only")
                if span
                else {}
            )

        if self.look(found) is None:
            return False
        self._announce("what only detached routes and replays want is given up")
        await self.drop(work)
        return True

    async def _drop_loose(self) -> bool:
        """Give up samples of no cycle, oldest first. The windows are read beside the writer, not on it."""
        for _ in range(TICK_SLICES):
            planned_seq = self._buffer.writer.durable_seq
            span = self.look(lambda db, upto=planned_seq: existing(db, self._loose, upto, self.pace.rows))  # type: ignore[misc]
            if span is None:
                return False
            runs = await self.ask(lambda db, span=span: loose_runs(db, *span))  # type: ignore[misc]

            def work(
                db: sqlite3.Connection, seq: int = planned_seq, runs: list[Range] = runs, span: Range = span
            ) -> Body:
                sql = "SELECT 1 FROM record WHERE seq > ? AND kind = ? LIMIT 1"
                if db.execute(sql, (seq, int(Kind.CYCLE_CLOSED))).fetchone():
                    return {}  # its windows are not known yet: look again
                self._loose = span[1] + 1
                spared = sorted([*protected(db, *span), *in_hand(db, self._buffer.passed.seq)])
                return self._give_up(
                    db, [rest for run in runs for rest in without(run, spared)], "full; samples of no cycle"
                )

            if runs:
                self._announce("samples of no cycle are given up")
                await self.drop(work)
                return True
            self._loose = span[1] + 1
        return True

    def _record_shed(self) -> None:
        """A drop record for what was not stored: when it is over, or now and then."""
        shed = self._buffer.shed
        if shed and (not self._buffer.shedding or time.monotonic() - self._shed_s > SHED_S or len(shed) > SHED_ROWS):
            self._shed_s = time.monotonic()
            body = {"reason": "full; samples of no cycle were not stored", "first_seq": shed[0], "last_seq": shed[-1]}
            self.dropped += len(shed)
            self._buffer.append(
                [Record(Kind.DROP, "agent", clock.now(), body | {"kinds": {Kind.SAMPLE.label: len(shed)}})]
            )
            shed.clear()

    # --- slices ----------------------------------------------------------------------------------------------

    def _spared(self, db: sqlite3.Connection, first: int, last: int, young: Sequence[Range] = ()) -> list[Range]:
        """What of a slice may go; the sweep moves on behind it."""
        self._next = last + 1
        stay = [*protected(db, first, last), *in_hand(db, self._buffer.passed.seq), *young]
        return without((first, last), sorted(stay))

    def _delete(self, db: sqlite3.Connection, runs: Sequence[Range], reason: str) -> None:
        step("retention_before_delete")
        for first, last in runs:
            delete(db, first, last, reason)
        self.deleted += 1
        step("retention_after_delete")

    def _give_up(self, db: sqlite3.Connection, runs: Sequence[Range], reason: str) -> Body:
        """Make the holes and delete; what is recorded is what some lane still wanted."""
        given: list[tuple[int, int]] = []
        for first, last in runs:
            given += give_up(db, first, last, self._buffer.passed.seq, reason)
        self._delete(db, runs, "dropped")
        return drop_body(reason, runs[0][0], runs[-1][1], given) if given else {}

    async def drop(self, work: Callable[[sqlite3.Connection], Body]) -> Body:
        """Let ``work`` give up something and record what it was, in one transaction; the record's body."""
        result: Body = {}

        def effect(db: sqlite3.Connection) -> Body:
            nonlocal result
            with self.pace.slice():
                result = work(db)
            return {key: value for key, value in result.items() if key != "bytes"}

        writer = self._buffer.writer
        was_held, grant = writer.held is not None, writer.grant
        self._hold(False)  # the drop itself has to be committed
        writer.grant = math.inf
        await self._durable(self._buffer.append_drop(Record(Kind.DROP, "agent", clock.now(), {}), effect))
        writer.grant = grant
        if was_held:
            self._hold(self._is_over())
        self.dropped += sum(result.get("kinds", {}).values())
        return result

    async def _durable(self, seq: int) -> None:
        """Wait for ``seq``; if the disk fills up just then, make what room can be made."""
        while True:
            try:
                async with asyncio.timeout(1.0):
                    return await self._buffer.committed(seq)
            except TimeoutError:
                if self._buffer.writer.trouble is not None and await self._delete_delivered():
                    await self._give_back(must=True)

    async def _give_back(self, *, must: bool = False) -> None:
        """Return free pages to the file system: all of them below the disk's floor, else when they are many."""

        def vacuum(db: sqlite3.Connection) -> bool:
            (free,), (pages,) = (
                db.execute("PRAGMA freelist_count").fetchone(),
                db.execute("PRAGMA page_count").fetchone(),
            )
            if free == 0 or (not must and free <= max(4096, pages // 5)):
                return False
            with self._pages.slice() as some:
                db.execute(f"PRAGMA incremental_vacuum({some})").fetchall()
            return True

        gave = 0
        while gave < TICK_SLICES and await self.chore(vacuum):
            gave += 1
        if gave:
            await self._buffer.upkeep.shrink()

    async def chore(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._buffer.writer.chore(work))

    def look(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask beside the writer: what is short, on the event loop."""
        with closing(connect(self._buffer.files.db)) as db:
            return question(db)

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """A long one, in a worker thread."""
        return await asyncio.to_thread(self.look, question)


def _young(db: sqlite3.Connection, first: int, last: int, cutoff_ns: int, ahead: int) -> list[int]:
    """The seqs in [first, last] that are not certain to be older than the cutoff.

    What was taken while the clock was not synchronised may claim to be of 1970: it is old if a later record is.
    """
    sql = "SELECT EXISTS (SELECT 1 FROM record WHERE seq BETWEEN ? AND ? AND (at_ns >= ? OR NOT synced))"
    if not db.execute(sql, (first, last, cutoff_ns)).fetchone()[0]:
        return []
    sql = "SELECT seq, at_ns < ?, synced FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq DESC"
    young: list[int] = []
    later_is_old = False
    for seq, old, synced in db.execute(sql, (cutoff_ns, first, last + ahead)):
        later_is_old = later_is_old or bool(old and synced)
        if seq <= last and not (old if synced else later_is_old):
            young.append(seq)
    return young[::-1]
