"""``Buffer``: what the rest of the agent sees of the log. Lives on the event loop; its writer is a thread.

One appender (the loop) numbers the records, one thread commits them. The numbers are known before the commit, so that
records can name each other, and become durable in order; ``committed(seq)`` is the moment of acceptance.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, TypeVar

import orjson

from edge_agent import clock
from edge_agent.binding.state import Lookup, Restored
from edge_agent.buffer import counting, replays
from edge_agent.buffer import lanes as lanes_sql
from edge_agent.buffer.files import Files, condemn, give_up_ballast
from edge_agent.buffer.lanes import Lane, RouteFilter
from edge_agent.buffer.projection import Entry
from edge_agent.buffer.queries import Passed, Reader, connect
from edge_agent.buffer.registry import Registry
from edge_agent.buffer.restoring import restored
from edge_agent.buffer.salvaging import Salvaging
from edge_agent.buffer.settings import BufferSettings
from edge_agent.buffer.upkeep import Upkeep
from edge_agent.buffer.witness import Head
from edge_agent.buffer.writer import Drop, Writer
from edge_agent.errors import StorageDisplaced, StorageError, StorageFull
from edge_agent.model import Kind, Record

INBOX_ROWS = 4096
INBOX_BYTES = 8 * 2**20
STOP_S = 10.0
LANES_S = 30.0
SILENT_S = 15.0  # a writer that shows no sign of life for so long does not answer
T = TypeVar("T")
_QUIET = frozenset({Kind.SAMPLE, Kind.TAGSET, Kind.CONFIG, Kind.CHECKPOINT})  # may linger for company


class Buffer:
    """The log of one run. Made by ``open_buffer``; every method is the event loop's."""

    def __init__(
        self, files: Files, lock: int, connection: sqlite3.Connection, settings: BufferSettings, agent: str,
        log: str, boot: str, head: tuple[int, bytes],
    ) -> None:  # fmt: skip
        self.log = log
        self.boot = boot
        self.next_seq = head[0] + 1
        self.files = files
        self.settings = settings
        self.agent = agent
        self.passed = Passed()
        self.writer = Writer(connection, self.passed, *head)
        self.writer.on_commit = self._on_commit
        self.writer.on_full = lambda: give_up_ballast(files)
        self.writer.on_damage = self._condemn
        self._connection = connection
        self._lock = lock
        self._head = Head(files.head, log)
        self._registry = Registry(connect(files.db))
        self.lookup: Lookup = self._registry
        self._loop: asyncio.AbstractEventLoop | None = None
        self._durable = head[0]
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiter_count = 0
        self._room: list[asyncio.Future[None]] = []
        self._inbox_bytes = 0  # of what is appended and not durable
        self._sizes: list[tuple[int, int]] = []  # (last seq, bytes) of each append that is not durable
        self._handed: set[int] = set()  # lanes given out in this run
        self.damage: list[str] = []  # what this run found damaged at its start, and what became of it
        self.shedding = False  # full: samples of no cycle are not stored
        self.shed: list[int] = []  # seqs that were not stored and are not recorded as a drop yet
        self._offers: deque[Lane] = deque()  # any thread appends
        self._offer_waiters: dict[str, asyncio.Future[None]] = {}
        self.attached: set[str] = set()  # routes that asked for their lanes in this run
        self.seated: set[str] = set()  # routes that have them; the writer thread's own
        self.salvage: Salvaging | None = None  # what is still being taken over from a damaged file
        self.upkeep = Upkeep(self)
        self.writer.start()

    # --- appending -------------------------------------------------------------------------------------------

    @property
    def durable_seq(self) -> int:
        """The last seq that is committed."""
        return self.writer.durable_seq

    def append(self, records: Sequence[Record], *, urgent: bool = False) -> int:
        """Number the records and hand them to the writer; returns the last seq. Never blocks.

        Raises StorageError once the writer has failed, and TypeError for a body that is not JSON: then nothing was
        appended. Await ``room()`` now and then: the inbox is bounded by it, not here.
        """
        writer = self.writer
        if writer.failed is not None:
            raise writer.failed
        seq, size, hurry = self.next_seq, 0, urgent
        entries: list[Entry] = []
        for record in records:
            body = orjson.dumps(record.body)
            if self.shedding and record.kind is Kind.SAMPLE and not record.cycles:
                body = b""  # the number is used, as others may name it; the record is not stored
                self.shed.append(seq)
            entries.append((seq, record, body))
            size += len(body)
            if record.kind not in _QUIET:
                hurry = True
                self._registry.appended(seq, record)
                self.upkeep.witness_due |= record.kind is Kind.HOLD_ACK
            seq += 1
        if not entries:
            return seq - 1
        self.next_seq = seq
        self._inbox_bytes += size
        self._sizes.append((seq - 1, size))
        writer.put(entries, hurry)
        return seq - 1

    def append_drop(self, record: Record, drop: Drop) -> int:
        """Append a drop record whose transaction also does the deletion."""
        self.writer.drops[self.next_seq] = drop
        return self.append([record])

    async def room(self) -> None:
        """Wait while the inbox is at its bound. Raises StorageError once the writer has failed."""
        while self._is_full():
            if self.writer.failed is not None:
                raise self.writer.failed
            future = self._future()
            self._room.append(future)
            await future

    def _is_full(self) -> bool:
        return self.next_seq - 1 - self.writer.durable_seq >= INBOX_ROWS or self._inbox_bytes >= INBOX_BYTES

    async def committed(self, seq: int) -> None:
        """Wait until everything up to ``seq`` is durable. Raises StorageError once the writer has failed."""
        while self.writer.durable_seq < seq:
            if self.writer.failed is not None:
                raise self.writer.failed
            future = self._future()
            self._waiter_count += 1
            heappush(self._waiters, (seq, self._waiter_count, future))
            await future

    async def beyond(self, seq: int) -> int:
        """Wait until something after ``seq`` is durable; returns the last durable seq."""
        await self.committed(seq + 1)
        return self.writer.durable_seq

    def _future(self) -> asyncio.Future[None]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.create_future()

    def _on_commit(self, seq: int) -> None:
        """The writer's thread tells: durable up to ``seq``, or that it has failed."""
        self._head.note(*self.writer.head)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._settle, seq)

    def _settle(self, seq: int) -> None:
        failed, sizes = self.writer.failed is not None, self._sizes
        done = 0
        while done < len(sizes) and sizes[done][0] <= seq:
            self._inbox_bytes -= sizes[done][1]
            done += 1
        del sizes[:done]
        self._registry.committed(seq)
        while self._waiters and (failed or self._waiters[0][0] <= seq):
            _wake(heappop(self._waiters)[2])
        if self._room and (failed or not self._is_full()):
            waiting, self._room = self._room, []
            for future in waiting:
                _wake(future)

    # --- routes ----------------------------------------------------------------------------------------------

    def lanes(self, route: str, start: str, filter: RouteFilter, *, max_backlog: int | None = None) -> list[Lane]:
        """The route's unfinished lanes, oldest first, after giving it one for every log it lacked.

        ``start`` ("now" or "oldest") matters for a route that was never seen. The last lane is the running log's.
        ``max_backlog``: bytes; the oldest undelivered records beyond it are given up, for this route only, recorded.
        Blocks for some milliseconds: call it when the route starts or its filter changes. Raises StorageError.
        """
        handed = self._handed
        self.attached.add(route)
        if max_backlog is not None:
            self.upkeep.retention.backlogs[route] = max_backlog

        def attach(connection: sqlite3.Connection) -> list[Lane]:
            head_seq = self.writer.durable_seq
            open_id = connection.execute("SELECT id FROM lane WHERE route = ? AND to_seq IS NULL", (route,)).fetchone()
            found = lanes_sql.attach(connection, route, start, filter, head_seq, bool(open_id and open_id[0] in handed))
            self.track(connection)
            self.seated.add(route)
            return found

        found = self._lane_chore(route, attach)
        handed.update(lane.id for lane in found)
        return found

    def replay(
        self, route: str, *, purpose: str = "replay", first_seq: int, last_seq: int, seqs: Sequence[int] | None = None,
        request: str | None = None, log: str | None = None,
    ) -> list[Lane]:  # fmt: skip
        """Give ``route`` a range once more, or (``purpose`` "retry") only ``seqs`` of it: one lane a log, offered.

        With ``log``, only what of the range is in that one. A ``request`` that waits to be salvaged is not made again.
        Blocks for some milliseconds: for worker threads. Raises LookupError when there is no such route, nothing of the
        range in that log, or too many requests wait, and StorageError.
        """
        span = (max(first_seq, 1), min(last_seq, self.writer.durable_seq))

        def make(db: sqlite3.Connection) -> list[Lane] | LookupError:
            try:
                return replays.replay(db, route, purpose, span, seqs, request, log)
            except LookupError as error:  # the asker's: it must not end the writer
                return error

        made = self._lane_chore(route, make)
        if isinstance(made, LookupError):
            raise made
        self.offer([lane for lane in made if self.salvage is None or not self.salvage.withholds(lane)])
        return made

    def split(self, lane: Lane, least: int = 1) -> Lane | None:
        """End the growing ``lane`` at the durable head and begin the next, if ``least`` records or more are pending.

        None when not. Blocks for some milliseconds: for worker threads. Raises StorageError.
        """

        def cut(db: sqlite3.Connection) -> Lane | None:
            known = self.writer.lanes.get(lane.id)
            head_seq = self.writer.durable_seq
            if known is None or known.total_seq != head_seq:
                return None
            new = replays.split(db, lane.id, known.total, head_seq, least)
            if new is not None:
                self.track(db)
            return new

        new = self._lane_chore(lane.route, cut)
        if new is not None:
            self._handed.add(new.id)
        return new

    def _lane_chore(self, route: str, work: Callable[[sqlite3.Connection], T]) -> T:
        future = self.writer.chore(work)
        try:
            try:
                return future.result(timeout=LANES_S)
            except TimeoutError as error:
                if future.cancel():
                    raise StorageError(f"no lane for route {route}: the writer does not answer") from error
                return future.result()  # it has begun: what it makes must not come to be behind our back
        except sqlite3.Error as error:
            self.writer.chore(self.track)  # what the failed one counted is not there
            raise StorageFull(f"no lane for route {route}: {error}", hint="free disk space") from error

    def offer(self, lanes: Sequence[Lane]) -> None:
        """New lanes for running routes to take up. Any thread may call."""
        self._offers.extend(lane for lane in lanes if lane.route in self.attached)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell_offers)

    async def offered(self, route: str) -> list[Lane]:
        """Wait for lanes that were offered to ``route`` since it last asked."""
        while not (found := [lane for lane in list(self._offers) if lane.route == route]):
            self._offer_waiters[route] = future = self._future()
            await future
        for lane in found:
            self._offers.remove(lane)
        return found

    def _tell_offers(self) -> None:
        waiters, self._offer_waiters = self._offer_waiters, {}
        for future in waiters.values():
            _wake(future)

    async def rename_route(self, old: str, new: str) -> bool:
        """Let ``new`` take over what ``old`` had, with an audit record, if ``new`` was never seen and ``old`` was."""
        if not await asyncio.wrap_future(self.writer.chore(lambda db: replays.can_rename(db, old, new))):
            return False
        body = {"who": "agent", "action": "route_rename", "reason": "was: in the config", "old": old, "new": new}
        record = Record(Kind.AUDIT, "agent", clock.now(), body)
        await self.committed(self.append_drop(record, lambda db: replays.rename(db, old, new)))
        return True

    def pending_of(self, route: str) -> dict[int, int]:
        """Records that ``route`` has not delivered, by lane id. Cheap: reads no records."""
        return self.upkeep.pending_of(route)

    def track(self, connection: sqlite3.Connection) -> None:
        """Let the writer count, from now on, what passes each growing lane. On the writer's thread."""
        self.writer.lanes = counting.track(connection, self.writer.lanes, self.writer.durable_seq)

    async def drop_route(self, route: str, reason: str) -> int:
        """Give up what ``route`` has pending now, in recorded drops; returns how many records that were.

        A route that is detached is forgotten with it, its dead letters included. Raises LookupError if there is none
        of that name, and StorageError if it cannot be forgotten yet, as something of it is still being salvaged.
        """
        return await self.upkeep.retention.routes.drop(route, reason)

    def progress(self, lane: Lane, seq: int, n: int) -> None:
        """Everything of ``lane`` up to ``seq`` is done and used the numbers up to ``n``. Durable within 200 ms."""
        self.writer.progress(lane.id, seq, n)

    def dead_letter(self, lane: Lane, n: int, seq: int, reason: str) -> None:
        """Record ``seq`` was refused under number ``n``. Durable before any progress reported after it."""
        self.writer.dead_letter(lane.route, lane.id, n, seq, reason)

    def reader(self) -> Reader:
        """A new reader for one route's worker thread."""
        return Reader(self.files.db, self.passed, self._condemn)

    def logs(self) -> frozenset[str]:
        """The logs that this buffer holds something of. Blocks for a moment: call it in a thread."""
        connection = connect(self.files.db)
        try:
            return frozenset(log for (log,) in connection.execute("SELECT id FROM log"))
        finally:
            connection.close()

    def _condemn(self, why: str) -> None:
        condemn(self.files, why)

    # --- the agent's -----------------------------------------------------------------------------------------

    def restored(self) -> Restored:
        """What the last run left open: cycles and counters."""
        connection = connect(self.files.db)
        try:
            return restored(connection)
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether the writer is alive. Waiting for room, by policy, counts as answering."""
        writer = self.writer
        return writer.failed is None and time.monotonic() - writer.beat_s < SILENT_S

    def stats(self) -> dict[str, Any]:
        """Rows, bytes, rate, what each route has pending, hours left. Cheap: reads no records."""
        return self.upkeep.stats() | {"salvage": self.salvaging, "damage": self.damage}

    @property
    def salvaging(self) -> dict[str, Any] | None:
        """How far the taking over of a damaged file is: {place, phase, done, total, waits}; None when there is none."""
        return None if self.salvage is None else self.salvage.status()

    @property
    def holds_known(self) -> bool:
        """Whether all is known that may hold a unit.

        False while the registry of a damaged file is not here, and from then on if a hold may have been lost with it:
        until an ``audit`` {action: holds_confirmed} says that somebody who knows has told them all again.
        """
        is_here = self.salvage is None or self.salvage.registry_known
        return is_here and not self._registry.doubts("holds")

    def begin_salvage(self, directories: Sequence[Path]) -> None:
        """Take over what these hold, as part of ``maintain``. Before anything else uses the buffer."""
        self.salvage = salvage = Salvaging(self, directories)
        self._registry.former = lambda: salvage.former

    async def maintain(self) -> None:
        """Checkpoints, retention, the witness, the disk's floor. Runs until cancelled; one task of the agent."""
        tasks = [asyncio.create_task(work) for work in (self.upkeep.run(), self._end_salvage())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_salvage(self) -> None:
        if self.salvage is not None:
            await self.salvage.run()
            salvage, self.salvage = self.salvage, None
            salvage.close()

    def checkpoint(self) -> Record:
        """A record of the chain's head as it is durable now."""
        seq, digest = self.writer.head
        return Record(Kind.CHECKPOINT, "agent", clock.now(), {"upto": seq, "hash": digest.hex()})

    async def close(self) -> None:
        """Commit what waits, with a last checkpoint; then give the directory back. Closing twice is harmless.

        Raises StorageError if what waited could not be committed.
        """
        if self._lock < 0:
            return
        lock, self._lock = self._lock, -1
        try:
            if self.writer.failed is None:
                with contextlib.suppress(StorageDisplaced):  # raised below, once the thread has ended
                    await self.upkeep.stay_at_home()
            await self._last_checkpoint()
            if not await asyncio.to_thread(self.writer.stop, STOP_S):
                raise StorageError("the buffer's writer did not end in time", hint="see whether the disk still answers")
            if isinstance(self.writer.failed, StorageDisplaced):  # nothing is where it was
                raise self.writer.failed
            await asyncio.to_thread(self.upkeep.write_witness)
            if self.writer.failed is not None:
                raise self.writer.failed
        finally:
            self.writer.failed = self.writer.failed or StorageError("the buffer is closed")  # for who comes too late
            self._settle(self.writer.durable_seq)
            self._registry.close()
            if self.salvage is not None:
                self.salvage.close()
            self.upkeep.close()
            if self.writer.is_alive():  # a disk that does not answer: the lock outlives whoever may still write
                threading.Thread(target=self._release, args=(lock,), name="buffer-release", daemon=True).start()
            else:
                await asyncio.to_thread(self._release, lock)

    def _release(self, lock: int) -> None:
        self.writer.join()
        self._connection.close()  # the last connection: it empties the write-ahead log
        self._head.close()
        os.close(lock)

    async def _last_checkpoint(self) -> None:
        if self.writer.failed is None and self.writer.trouble is None:
            self.append([self.checkpoint()])


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
