"""What the buffer does beside storing: checkpoints, the witness, retention, the disk's floor, its own figures.

One coroutine of the agent runs it, so that its records go through the one appender. Whatever touches the database
for writing is a chore of the writer's thread, whatever blocks goes to a worker thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent import clock
from edge_agent.buffer import counting, displaced, lanes, replays, witness
from edge_agent.buffer import files as files_of
from edge_agent.buffer.queries import can_pass, connect, is_damage
from edge_agent.buffer.retention import Retention
from edge_agent.buffer.slices import Pace
from edge_agent.buffer.stats import Growth, measure, undelivered, used_bytes
from edge_agent.buffer.tidy import Sweep, tidy, tidy_lanes, trust_letters
from edge_agent.errors import StorageError, StorageFull
from edge_agent.logs import Log, Outage

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer

TICK_S = 1.0
WITNESS_S = 5.0
CHECKPOINT_S = 300.0
DETACH_S = 30.0  # routes that did not ask for their lanes by then are gone from the config
RATE_S = 10.0
BALLAST_S = 60.0
TIDY_S = 3600.0
TRUST_S = 10.0
SWEEP = 500  # slices of the registry's tidying in one go
WAL_BYTES = 16 * 2**20  # four times what it takes until it is moved into the database
LETTERS = 200  # dead letters that get another date in one go

log = Log(__name__)


class Upkeep:
    """The buffer's own housekeeping."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._connection = connect(buffer.files.db)
        self._home = displaced.Home.of(buffer.files)
        self.retention = Retention(buffer, self.used)
        self._witnessed = -1  # commits when the witness was last written
        self._checkpointed = buffer.next_seq - 1
        self._growth = Growth()
        self._counted = Pace(500, 100, 5000)
        self._outage = Outage(log, "buffer upkeep")
        self.witness_due = False
        self._sweep = Sweep()
        self._spent = asyncio.Event()  # the writer may not go on before retention has looked

    async def run(self) -> None:
        """Tick until cancelled. Raises StorageError once the writer has failed."""
        now_s = time.monotonic()
        every = {
            "witness": (WITNESS_S, now_s, lambda: asyncio.to_thread(self.write_witness)),
            "ballast": (BALLAST_S, now_s, self._keep_ballast),
            "rate": (RATE_S, now_s, self._sample_rate),
            "detach": (float("inf"), now_s + DETACH_S, self.detach),
            "checkpoint": (CHECKPOINT_S, now_s + CHECKPOINT_S, self._checkpoint),
            "tidy": (TIDY_S, now_s + DETACH_S, self._tidy),
            "trusted": (TRUST_S, now_s, self._trust_letters),
        }
        due = {name: first_s for name, (_, first_s, _) in every.items()}
        loop, writer = asyncio.get_running_loop(), self._buffer.writer
        writer.on_grant_spent = lambda: _call(loop, self._spent.set)
        try:
            while True:
                now_s, worked = time.monotonic(), True
                if self.witness_due:  # a hold must not wait for its turn
                    self.witness_due, due["witness"] = False, now_s
                for name, (interval_s, _, work) in every.items():
                    if now_s >= due[name]:
                        due[name] = now_s + interval_s
                        worked &= await self._try(work)
                for step in (self.stay_at_home, self._see_whether_it_grows, self.retention.step, self._count_on):
                    worked &= await self._try(step)
                if worked:
                    self._outage.recovered()
                writer.grant = self.retention.grant()
                await self._pause()
        finally:
            writer.grant = math.inf  # nobody looks any more

    async def _pause(self) -> None:
        """Until the next tick; shorter when the writer has used up what it may write before."""
        self._spent.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._spent.wait()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do it. A full disk refuses even housekeeping, for a while; a writer that failed ends the agent."""
        try:
            await work()
        except (StorageError, sqlite3.Error) as error:
            if self._buffer.writer.failed is not None:
                raise self._buffer.writer.failed from error
            self._outage.failed(error)
            return False
        return True

    def close(self) -> None:
        self._connection.close()

    # --- chores ----------------------------------------------------------------------------------------------

    async def stay_at_home(self) -> None:
        """End the run if its files were taken away under it. Raises StorageDisplaced."""
        files, writer = self._buffer.files, self._buffer.writer
        if await asyncio.to_thread(displaced.Home.of, files) == self._home:
            return

        def beat() -> None:
            writer.beat_s = time.monotonic()

        def rescue(db: sqlite3.Connection) -> None:
            displaced.rescue(db, files, self._home, self._buffer.agent, self._buffer.settings.min_free, beat)

        await asyncio.wrap_future(writer.chore(rescue, alone=True))

    async def _count_on(self) -> None:
        """Finish the counts of lanes that an earlier run left behind."""
        writer = self._buffer.writer

        def count(db: sqlite3.Connection) -> bool:
            with self._counted.slice() as rows:
                return counting.count_on(db, writer.lanes, rows)

        while counting.is_behind(self._connection, writer.lanes):
            await asyncio.wrap_future(writer.chore(count))

    async def _tidy(self) -> None:
        """Let what is past its time go; by the clock only while that is trusted."""
        if self._buffer.salvage is not None:  # what has no records may be about to get them back
            return
        await self._slices(tidy_lanes)
        cutoff_ns = clock.now().at_ns - round(self._buffer.settings.keep_units * 1e9)
        if clock.synchronised():
            await self._slices(lambda db: tidy(db, cutoff_ns, self._sweep), SWEEP)

    async def _slices(self, work: Callable[[sqlite3.Connection], bool], most: int = 2**62) -> None:
        """Repeat a chore until it says that nothing is left, ``most`` times at most."""
        while most > 0 and await asyncio.wrap_future(self._buffer.writer.chore(work)):
            most -= 1

    async def _trust_letters(self) -> None:
        """The 30 days of a dead letter from before the clock was set begin with the first time that is trusted."""
        while self._buffer.writer.untrusted_letters and clock.synchronised():
            letters = await asyncio.to_thread(_untrusted, self._buffer.files.db)
            self._buffer.writer.untrusted_letters = bool(letters)
            chore = self._buffer.writer.chore(lambda db, letters=letters: trust_letters(db, letters))  # type: ignore[misc]
            await asyncio.wrap_future(chore)

    async def _see_whether_it_grows(self) -> None:
        """A write-ahead log beyond its usual size is a reader that takes its time, or a file that may not grow."""
        if self.retention.stuck is None and self._buffer.files.wal_size() < WAL_BYTES:
            return
        await self.shrink()

    async def shrink(self) -> None:
        """Move the write-ahead log into the database, as far as readers allow, and cut off what was vacuumed.

        Beside the writer, which goes on meanwhile. A database file that may not grow makes the buffer full.
        """
        try:
            await asyncio.to_thread(_checkpoint, self._buffer.files.db)
        except sqlite3.Error as error:
            if is_damage(error) or not can_pass(error):
                raise
            self.retention.stuck = error
        else:
            self.retention.stuck = None

    async def _keep_ballast(self) -> None:
        settings, files = self._buffer.settings, self._buffer.files
        if self._buffer.writer.trouble is None and not self.retention.is_full():
            await asyncio.to_thread(files_of.keep_ballast, files, settings.ballast, settings.min_free)

    async def _checkpoint(self) -> None:
        buffer = self._buffer
        if buffer.writer.durable_seq > self._checkpointed:
            self._checkpointed = buffer.append([buffer.checkpoint()])

    async def detach(self) -> None:
        """Detach the routes that did not ask for their lanes in this run: the config no longer has them."""
        buffer = self._buffer

        def detach(db: sqlite3.Connection) -> list[str]:
            buffer.writer.store_totals()  # what ended is counted up to its end, and no further
            gone = lanes.detach(db, buffer.attached, buffer.writer.durable_seq)
            buffer.track(db)
            return gone

        for name in await asyncio.wrap_future(buffer.writer.chore(detach)):
            log.warning("route detached", route=name, why="not in the config; what it did not deliver is kept")

    async def _sample_rate(self) -> None:
        self._growth.note(
            self._buffer.writer.counts.bytes, self.used(), self.retention.deleted + self.retention.dropped
        )

    # --- figures ---------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """See ``Buffer.stats``."""
        buffer, writer = self._buffer, self._buffer.writer
        totals = {id: (lane.total, lane.total_seq) for id, lane in writer.lanes.items()}
        result = measure(
            self._connection, buffer.files, buffer.settings, totals, self._growth.per_hour(writer.counts.bytes)
        )
        trouble = writer.failed or writer.trouble or writer.held
        if isinstance(trouble, StorageFull) and result["hours_left"] is not None:
            result["hours_left"] = 0.0  # it is full now, whatever room the figures still see
        return result | {
            "inbox": buffer.next_seq - 1 - writer.durable_seq,
            "commits": writer.counts.commits,
            "commit_ms": round(writer.counts.commit_s * 1000, 3),
            "dropped": self.retention.dropped,
            "trouble": None if trouble is None else {"error": str(trouble.args[0]), "hint": trouble.hint},
        }

    def pending_of(self, route: str) -> dict[int, int]:
        """See ``Buffer.pending_of``."""
        writer = self._buffer.writer
        totals = {id: (lane.total, lane.total_seq) for id, lane in writer.lanes.items()}
        return replays.pending(self._connection, route, writer.durable_seq, totals)

    def undelivered(self) -> tuple[int, int]:
        """Bytes that no attached route has had yet, and the bytes that they may take."""
        return undelivered(self._connection, self._buffer.files, self._buffer.settings)

    def used(self) -> int:
        """Bytes of the database that hold something."""
        return used_bytes(self._connection)

    def write_witness(self) -> None:
        """Write the witness if anything was committed since. Blocking."""
        commits = self._buffer.writer.counts.commits
        if commits == self._witnessed:
            return
        connection = connect(self._buffer.files.db)
        try:
            witness.write(self._buffer.files.witness, witness.collect(connection, self._buffer.agent))
            self._witnessed = commits
        except OSError as error:  # a full disk: the older witness still stands
            log.warning("witness not written", error=str(error))
        finally:
            connection.close()


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], object]) -> None:
    """From the writer's thread. A loop that has ended needs no telling."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work)


def _checkpoint(path: Path) -> None:
    with closing(connect(path, query="mode=rw")) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _untrusted(path: Path) -> list[tuple[int, int]]:
    with closing(connect(path)) as db:
        return db.execute("SELECT lane, n FROM dead_letter WHERE NOT synced LIMIT ?", (LETTERS,)).fetchall()
