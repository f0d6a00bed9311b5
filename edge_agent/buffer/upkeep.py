"""What the buffer does beside storing: checkpoints, the witness, retention, the disk's floor, its own figures.

One coroutine of the agent runs it, so that its records go through the one appender. Whatever touches the database
for writing is a chore of the writer's thread, whatever blocks goes to a worker thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edge_agent.buffer import files as files_of
from edge_agent.buffer import holes, lanes, witness
from edge_agent.buffer.queries import connect
from edge_agent.buffer.retention import Retention
from edge_agent.buffer.stats import measure
from edge_agent.errors import StorageError
from edge_agent.logs import Log, Outage

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer

TICK_S = 1.0
WITNESS_S = 5.0
CHECKPOINT_S = 300.0
DETACH_S = 30.0  # routes that did not ask for their lanes by then are gone from the config
RATE_S = 10.0
COUNT_ROWS = 10_000
RATE_POINTS = 31  # five minutes

log = Log(__name__)


class Upkeep:
    """The buffer's own housekeeping."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._connection = connect(buffer.files.db)
        self.retention = Retention(buffer, self.used)
        self._witnessed = -1  # commits when the witness was last written
        self._checkpointed = buffer.next_seq - 1
        self._rate: deque[tuple[float, int]] = deque(maxlen=RATE_POINTS)
        self._counting = True
        self._outage = Outage(log, "retention")
        self._sample_rate()

    async def run(self) -> None:
        """Tick until cancelled."""
        settings, files, started_s = self._buffer.settings, self._buffer.files, time.monotonic()
        await asyncio.to_thread(files_of.keep_ballast, files, settings.ballast, settings.min_free)
        due = {"witness": 0.0, "checkpoint": started_s + CHECKPOINT_S, "rate": 0.0, "detach": started_s + DETACH_S}
        while True:
            now_s = time.monotonic()
            if now_s >= due["witness"]:
                due["witness"] = now_s + WITNESS_S
                await asyncio.to_thread(self.write_witness)
            if now_s >= due["checkpoint"]:
                due["checkpoint"] = now_s + CHECKPOINT_S
                self._checkpoint()
            if now_s >= due["rate"]:
                due["rate"] = now_s + RATE_S
                self._sample_rate()
            if now_s >= due["detach"]:
                due["detach"] = float("inf")
                await self.detach()
            await self._retain()
            await self._count_on()
            await asyncio.sleep(TICK_S)

    async def _retain(self) -> None:
        """One tick of retention. A full disk refuses even that; a writer that failed ends the agent."""
        try:
            await self.retention.step()
        except (StorageError, sqlite3.Error) as error:
            self._outage.failed(error)
        else:
            self._outage.recovered()
        if self._buffer.writer.failed is not None:
            raise self._buffer.writer.failed

    async def _count_on(self) -> None:
        """Finish the counts of lanes that an earlier run left behind."""
        while self._counting and self._buffer.writer.failed is None:
            chore = self._buffer.writer.chore(lambda db: holes.count_on(db, COUNT_ROWS))
            try:
                self._counting = await asyncio.wrap_future(chore)
            except sqlite3.Error:  # a full disk: the counts wait
                return

    def close(self) -> None:
        self._connection.close()

    def stats(self) -> dict[str, Any]:
        """See ``Buffer.stats``."""
        buffer, writer = self._buffer, self._buffer.writer
        totals = {id: (lane.total, lane.total_seq) for id, lane in writer.lanes.items()}
        result = measure(self._connection, buffer.files, buffer.settings, totals, self._bytes_per_hour())
        trouble = writer.failed or writer.trouble or writer.held
        return result | {
            "inbox": buffer.next_seq - 1 - writer.durable_seq,
            "commits": writer.counts.commits,
            "commit_ms": round(writer.counts.commit_s * 1000, 3),
            "dropped": self.retention.dropped,
            "trouble": None if trouble is None else {"error": str(trouble.args[0]), "hint": trouble.hint},
        }

    def used(self) -> int:
        """Bytes of the database that hold something."""
        execute = self._connection.execute
        (size,), (pages,) = execute("PRAGMA page_size").fetchone(), execute("PRAGMA page_count").fetchone()
        (free,) = execute("PRAGMA freelist_count").fetchone()
        return int(size * (pages - free))

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

    def _checkpoint(self) -> None:
        buffer = self._buffer
        if buffer.writer.durable_seq > self._checkpointed:
            self._checkpointed = buffer.append([buffer.checkpoint()])

    def _sample_rate(self) -> None:
        self._rate.append((time.monotonic(), self._buffer.writer.counts.bytes))

    def _bytes_per_hour(self) -> float | None:
        since_s, before = self._rate[0]
        passed_s = time.monotonic() - since_s
        return (self._buffer.writer.counts.bytes - before) * 3600 / passed_s if passed_s >= 1.0 else None

    async def detach(self) -> None:
        buffer = self._buffer
        chore = buffer.writer.chore(lambda db: lanes.detach(db, buffer.attached, buffer.writer.durable_seq))
        gone = await asyncio.wrap_future(chore)
        for name in gone:
            log.warning(
                "route detached", route=name, why="the config no longer has it; what it did not deliver is kept"
            )
