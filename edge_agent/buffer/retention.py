"""What may be deleted, when, and in which order. Every step is a slice of some milliseconds between commits.

By age: what every route has done and is older than ``keep``. Undelivered records never go by age, and nothing does
while the clock is not trusted.

By size, when ``max_size`` or the disk's floor is reached, in this order:

1. what every attached route has done, whatever its age (what a detached route still wanted becomes a recorded drop);
2. undelivered samples of no cycle, a recorded drop;
3. new samples of no cycle are not stored, a recorded drop;
4. nothing more: the writer is held, ``room()`` holds the collectors, the status says so.

A route's own ``max_backlog`` gives up its oldest records for that route only, recorded as well.

Samples of a cycle that is not closed, and dead letters of the last 30 days, stay in any case. A drop's record, the
deletion and the holes in the lanes are one transaction. Deleted ranges keep their last hash (``gap``), so that the
ledger stays verifiable.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from edge_agent import clock
from edge_agent.buffer.files import give_up_ballast
from edge_agent.buffer.holes import Range, delete, floor, loose_runs, make_holes, overdue, protected, without
from edge_agent.buffer.steps import step
from edge_agent.errors import StorageFull
from edge_agent.logs import Log
from edge_agent.model import Kind, Record

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer
    from edge_agent.buffer.writer import Drop

SLICE_S = 0.008
SLICE_ROWS = (100, 5000)
TICK_SLICES = 200  # a tick does no more than this
HIGH, LOW = 0.98, 0.95  # of max_size: deleting begins, and ends
VACUUM_PAGES = 256
SHED_S, SHED_ROWS = 60.0, 100_000  # samples that are not stored are recorded as a drop this often
SWEEP_S = 3600.0  # what was protected is looked at again this often

T = TypeVar("T")

log = Log(__name__)


@dataclass(slots=True)
class Plan:
    """What one drop gives up: whole runs of seq, and how many records of each kind they hold."""

    runs: list[Range]
    kinds: dict[str, int] = field(default_factory=dict)


class Retention:
    """Deletes in slices. ``step`` is called about once a second, by one task."""

    def __init__(self, buffer: Buffer, used: Callable[[], int]) -> None:
        self.dropped = 0  # undelivered records given up in this run
        self.backlogs: dict[str, int] = {}  # route -> max_backlog in bytes
        self._buffer = buffer
        self._used = used  # bytes that hold something
        self._rows = 500  # a slice's size, adapted to what SLICE_S allows
        self._next = 0  # deleting goes on here; earlier seqs are gone or protected
        self._loose = 0  # the same for samples of no cycle
        self._sweep_s = self._shed_s = time.monotonic()

    async def step(self) -> None:
        """One tick: the backlogs, then size or age, then free pages back to the file system."""
        if time.monotonic() - self._sweep_s > SWEEP_S:
            self._next = self._loose = 0
            self._sweep_s = time.monotonic()
        for route, limit in self.backlogs.items():
            await self._limit_backlog(route, limit)
        if self._used() > HIGH * self._buffer.settings.max_size or self._below_floor():
            await self._make_room()
        elif clock.synchronised():
            await self._by_age()
        if self._buffer.writer.held and not self._is_over():
            self._hold(False)
        if self._buffer.shedding and not (self._used() > HIGH * self._buffer.settings.max_size or self._below_floor()):
            self._buffer.shedding = False
        self._record_shed()
        await self._give_back()

    # --- how full --------------------------------------------------------------------------------------------

    def _below_floor(self) -> bool:
        return self._buffer.files.free() < self._buffer.settings.min_free

    def _is_over(self) -> bool:
        return self._used() > self._buffer.settings.max_size or self._below_floor()

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
            log.info("buffer has room again")

    # --- by age ----------------------------------------------------------------------------------------------

    async def _by_age(self) -> None:
        cutoff_ns = clock.now().at_ns - round(self._buffer.settings.keep * 1e9)
        for _ in range(TICK_SLICES):
            if not await self._chore(lambda db: self._delete_old(db, cutoff_ns)):
                return

    def _delete_old(self, db: sqlite3.Connection, cutoff_ns: int) -> bool:
        """Delete what is older than the cutoff in one slice of delivered records. False when none is.

        Younger ones in between (a clock that was set) stay behind until the next sweep.
        """
        found = self._slice(db, self._next, floor(db, attached_only=False))
        if found is None:
            return False
        first, last = found
        young = _young(db, first, last, cutoff_ns)
        if young and young[-1] == last and len(young) == last - young[0] + 1:  # from here on all are
            last = young[0] - 1
            young = []
        if first <= last:
            self._delete(db, first, last, [(seq, seq) for seq in young])
        return first <= last

    # --- by size ---------------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        give_up_ballast(self._buffer.files)
        for _ in range(TICK_SLICES):
            if self._used() < LOW * self._buffer.settings.max_size and not self._below_floor():
                return
            if await self._chore(self._delete_delivered) or await self._drop_detached() or await self._drop_loose():
                await self._give_back(must=self._below_floor())
            else:
                self._buffer.shedding = True
                self._hold(self._is_over())
                return

    def _delete_delivered(self, db: sqlite3.Connection) -> bool:
        found = self._slice(db, self._next, floor(db, attached_only=False))
        if found is not None:
            self._delete(db, *found)
        return found is not None

    async def _drop_detached(self) -> bool:
        """Give up what only detached routes still want."""

        def plan(db: sqlite3.Connection) -> Plan | None:
            found = self._slice(db, self._next, floor(db, attached_only=True))
            return None if found is None else planned(db, self._spared(db, *found))

        found = await self._chore(plan)
        if found is not None:
            await self._drop(found, "full; wanted by detached routes only")
        return found is not None

    async def _drop_loose(self) -> bool:
        """Give up samples of no cycle, oldest first."""

        def plan(db: sqlite3.Connection) -> Plan | None:
            found = self._slice(db, self._loose, self._buffer.writer.durable_seq)
            if found is None:
                return None
            self._loose = found[1] + 1
            return planned(db, loose_runs(db, *found))

        for _ in range(TICK_SLICES):
            found = await self._chore(plan)
            if found is None:
                return False
            if found.runs:
                await self._drop(found, "full; samples of no cycle")
                return True
        return True

    async def _drop(self, plan: Plan, reason: str) -> None:
        """Delete ``plan``'s runs, make the holes and record it, all in one transaction."""
        passed = self._buffer.passed.seq

        def effect(db: sqlite3.Connection) -> None:
            step("retention_before_delete")
            for first, last in plan.runs:
                make_holes(db, first, last, passed, reason)
                delete(db, first, last, "dropped")
            step("retention_after_delete")

        if plan.runs:
            await self._record(plan, {"reason": reason}, effect)

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

    async def _record(self, plan: Plan, body: dict[str, object], effect: Drop) -> None:
        self._hold(False)  # the drop itself has to be committed
        body |= {"first_seq": plan.runs[0][0], "last_seq": plan.runs[-1][1], "kinds": plan.kinds}
        self.dropped += sum(plan.kinds.values())
        await self._buffer.committed(self._buffer.append_drop(Record(Kind.DROP, "agent", clock.now(), body), effect))

    # --- by route --------------------------------------------------------------------------------------------

    async def _limit_backlog(self, route: str, limit: int) -> None:
        """Give up the oldest that ``route`` has pending beyond ``limit`` bytes; for this route only."""
        reason, target, passed = f"max_backlog of route {route}", limit, self._buffer.passed.seq
        for _ in range(TICK_SLICES):
            span = await self._chore(lambda db, target=target: overdue(db, route, target, self._used()))  # type: ignore[misc]
            if span is None:
                return
            target = round(LOW * limit)
            lane, first, last = span
            last = min(last, first + SLICE_ROWS[1] - 1)
            plan = await self._chore(lambda db, run=(first, last): planned(db, [run]))  # type: ignore[misc]

            def effect(db: sqlite3.Connection, lane: int = lane, first: int = first, last: int = last) -> None:
                make_holes(db, first, last, passed, reason, only=lane)

            await self._record(plan, {"reason": reason, "route": route}, effect)

    # --- slices ----------------------------------------------------------------------------------------------

    def _slice(self, db: sqlite3.Connection, start: int, limit: int) -> Range | None:
        """The next range of existing records from ``start`` up to ``limit``, at most a slice long."""
        sql = "SELECT min(seq), max(seq) FROM (SELECT seq FROM record WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?)"
        first, last = db.execute(sql, (start, limit, self._rows)).fetchone()
        return None if first is None else (first, last)

    def _spared(self, db: sqlite3.Connection, first: int, last: int, young: Sequence[Range] = ()) -> list[Range]:
        """What of a slice may go; the sweep moves on behind it."""
        self._next = last + 1
        return without((first, last), sorted([*protected(db, first, last), *young]))

    def _delete(self, db: sqlite3.Connection, first: int, last: int, young: Sequence[Range] = ()) -> None:
        started_s = time.perf_counter()
        step("retention_before_delete")
        for run in self._spared(db, first, last, young):
            delete(db, *run, "delivered")
        step("retention_after_delete")
        took_s = max(1e-4, time.perf_counter() - started_s)
        low, high = SLICE_ROWS
        self._rows = max(low, min(high, int(self._rows * min(2.0, SLICE_S / took_s))))

    async def _give_back(self, *, must: bool = False) -> None:
        """Return free pages to the file system: all of them below the disk's floor, else when they are many."""

        def vacuum(db: sqlite3.Connection) -> bool:
            (free,), (pages,) = (
                db.execute("PRAGMA freelist_count").fetchone(),
                db.execute("PRAGMA page_count").fetchone(),
            )
            if free == 0 or (not must and free <= max(4096, pages // 5)):
                return False
            db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            return True

        gave = 0
        while gave < TICK_SLICES and await self._chore(vacuum):
            gave += 1
        if gave:
            await asyncio.wrap_future(self._buffer.writer.shrink())

    async def _chore(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._buffer.writer.chore(work))


def planned(db: sqlite3.Connection, runs: Iterable[Range]) -> Plan:
    """A plan over ``runs``, with its records counted by kind."""
    plan = Plan(list(runs))
    for first, last in plan.runs:
        sql = "SELECT kind, count(*) FROM record WHERE seq BETWEEN ? AND ? GROUP BY kind"
        for kind, count in db.execute(sql, (first, last)):
            label = Kind(kind).label
            plan.kinds[label] = plan.kinds.get(label, 0) + count
    return plan


def _young(db: sqlite3.Connection, first: int, last: int, cutoff_ns: int) -> list[int]:
    """The seqs in [first, last] that are not certain to be older than the cutoff.

    What was taken while the clock was not synchronised may claim to be of 1970: it is old if a later record is.
    """
    sql = "SELECT seq, at_ns < ?, synced FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq DESC"
    young: list[int] = []
    later_is_old = False
    for seq, old, synced in db.execute(sql, (cutoff_ns, first, last + SLICE_ROWS[1])):
        later_is_old = later_is_old or bool(old and synced)
        if seq <= last and not (old if synced else later_is_old):
            young.append(seq)
    return young[::-1]
