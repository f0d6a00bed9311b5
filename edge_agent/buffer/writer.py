"""The one thread that writes the buffer: takes what waits in the inbox and commits it together.

::

    event loop:  append ──► inbox ──┐                                 ┌──► durable up to seq (one wake-up a commit)
                 progress ──────────┼──► BEGIN insert project COMMIT ─┤
                 chores ────────────┘        (synchronous=FULL)       └──► the chore's future

*Group commit.* What waits together commits together. The thread lingers up to 5 ms for more, but only while more than
one sample waits and no fact does: a fact, or a single sample, commits at once. Seqs become durable strictly in order.

*Chores* (retention slices, new lanes, salvage) run on this thread between commits, one at a time and never while
records wait longer than one of them takes; each is to last some milliseconds.

*Trouble.* A full disk keeps the batch and tries again with a bounded back-off, for as long as it takes; the inbox then
fills and ``Buffer.room`` holds the collectors. A damaged file or anything unexpected ends the thread: everything that
waits is told, and later appends raise.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import orjson

from edge_agent import clock
from edge_agent.buffer import holes
from edge_agent.buffer.counting import Tracked
from edge_agent.buffer.projection import Entry, Projection, Sources
from edge_agent.buffer.queries import DAMAGE_HINT, Passed, can_pass, is_damage
from edge_agent.buffer.steps import step
from edge_agent.errors import StorageCorrupt, StorageDisplaced, StorageError, StorageFull
from edge_agent.logs import Log, Outage
from edge_agent.model import Kind

LINGER_S = 0.005
PROGRESS_S = 0.2  # progress waits this long for a commit to go with
TOTALS_S = 5.0  # lanes' totals are stored this often; a restart counts no more than what came after
BATCH_ROWS = 4096
IDLE_S = 1.0  # the thread shows that it lives at least this often
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)

T = TypeVar("T")
Drop = Callable[[sqlite3.Connection], dict[str, Any] | None]
"""What the transaction of a drop record does. It returns the record's body as it turned out (an empty one: nothing
was given up, nothing is recorded), or None for a record that is right as it is."""

_INSERT = "INSERT INTO record (seq, kind, source, at_ns, mono_ns, synced, body, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SAMPLE = Kind.SAMPLE


@dataclass(slots=True)
class Counts:
    """What the writer has done in this run."""

    rows: int = 0
    bytes: int = 0
    commits: int = 0
    batch: int = 0  # rows of the last commit
    commit_s: float = 0.0  # duration of the last commit
    drops: int = 0


@dataclass(slots=True)
class _Inbox:
    appends: deque[list[Entry]] = field(default_factory=deque)  # each is one transaction's, never split
    hurry: bool = False


class Writer:
    """Owns the writing connection from ``start`` to ``stop``. For the event loop unless a method says otherwise."""

    def __init__(self, connection: sqlite3.Connection, passed: Passed, head_seq: int, head_hash: bytes) -> None:
        self.durable_seq = head_seq
        self.head_hash = head_hash  # of durable_seq; read together through ``head``
        self.head = (head_seq, head_hash)
        self.trouble: StorageError | None = None  # why nothing can be committed at the moment
        self.failed: StorageError | None = None  # why nothing ever will
        self.held: StorageFull | None = None  # by policy: full, and nothing may be deleted
        self.grant: float = math.inf  # counted bytes that may be committed until retention has looked again
        self.counts = Counts()
        self.beat_s = time.monotonic()
        self.on_commit: Callable[[int], None] = lambda seq: None
        self.on_damage: Callable[[str], None] = lambda why: None  # on the writer's thread: mark the file
        self.on_full: Callable[[], None] = lambda: None  # on the writer's thread: give up the ballast
        self.on_grant_spent: Callable[[], None] = lambda: None  # on the writer's thread: let retention look now
        self.untrusted_letters = True  # there may be dead letters of a clock that was not set
        self.lanes: dict[int, Tracked] = {}  # the writer thread's own
        self.drops: dict[int, Drop] = {}  # seq of a drop record -> what its transaction, which is its own, deletes
        self._connection = connection
        self._passed = passed
        self._sources = Sources(connection)
        self._projection = Projection(connection, self._sources)
        self._inbox = _Inbox()
        self._wake = threading.Event()
        self._waiting = False
        self._stopping = False
        self._progress: dict[int, tuple[int, int]] = {}
        self._dead: list[tuple[str, int, int, int, str, int]] = []
        self._chores: deque[tuple[Callable[[sqlite3.Connection], Any], Future[Any], bool]] = deque()
        self._committed_s = self._totals_s = time.monotonic()
        self._outage = Outage(Log(__name__), "commit")
        self._synced = 0
        self._synced_s = -1.0
        self._thread = threading.Thread(target=self._run, name="buffer", daemon=True)

    # --- the event loop's side -------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def put(self, entries: list[Entry], hurry: bool) -> None:
        """Hand over numbered entries; ``hurry`` ends the linger."""
        inbox = self._inbox
        inbox.appends.append(entries)
        if hurry:
            inbox.hurry = True
        if self._waiting and (hurry or len(inbox.appends) == 1):
            self._wake.set()

    def progress(self, lane: int, seq: int, n: int) -> None:
        """A lane's new cursor; durable within a commit or PROGRESS_S."""
        first = not self._progress
        self._progress[lane] = (seq, n)
        if first and self._waiting:
            self._wake.set()

    def dead_letter(self, route: str, lane: int, n: int, seq: int, reason: str) -> None:
        """A refused record; durable before any progress that is reported after it."""
        letter = (route, lane, n, seq, reason, clock.now().at_ns)
        self._dead.append(letter)  # the list last: the thread may take it away while the clock is asked

    def chore(self, work: Callable[[sqlite3.Connection], T], *, alone: bool = False) -> Future[T]:
        """Run ``work`` on the writer's thread between commits, in a transaction of its own. Any thread may ask.

        ``alone``: outside any transaction.
        """
        future: Future[T] = Future()
        if self.failed is not None or not self._thread.is_alive():
            future.set_exception(self.failed or StorageError("the buffer is closed"))
            return future
        self._chores.append((work, future, alone))
        self._wake.set()
        return future

    def recall(self, take: Callable[[sqlite3.Connection, str, str], None] | None) -> None:
        """Let ``take(connection, "unit" or "cycle", id)`` bring in what is not salvaged yet, before each fact."""
        self._projection.recall = take

    def shrink(self) -> Future[None]:
        """Move the write-ahead log into the database, and cut off what was vacuumed."""
        return self.chore(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").close(), alone=True)

    def stop(self, timeout_s: float) -> bool:
        """Commit what waits and end the thread. Blocks; False if it did not end in time."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread's end, however long that takes."""
        self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread still uses the connection."""
        return self._thread.is_alive()

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._finished():
                self._wait()
                batch = self._take()
                if batch or self._progress_is_due():
                    self._commit_until_done(batch)
                self._one_chore()
            self.store_totals()
        except StorageError as error:
            self._fail(error)
        except Exception as error:  # whatever it was: nobody may wait for a thread that has ended
            self._fail(StorageError(f"the buffer's writer failed: {type(error).__name__}: {error}"))
            raise  # unexpected: shown by threading's hook; the agent ends, systemd starts it again
        finally:
            while self._chores:
                future = self._chores.popleft()[1]
                if future.set_running_or_notify_cancel():  # nobody waits for one that was cancelled
                    future.set_exception(self.failed or StorageError("the buffer is closed"))

    def _finished(self) -> bool:
        return self._stopping and not (self._inbox.appends or self._progress or self._dead or self._chores)

    def _wait(self) -> None:
        """Until there is something to do; then, while several samples and no fact wait, linger for more."""
        inbox = self._inbox
        self._waiting = True
        try:
            while not (inbox.appends or self._chores or self._stopping or self._progress_is_due()):
                self.beat_s = time.monotonic()
                pending = self._progress or self._dead
                self._wake.wait(PROGRESS_S - (self.beat_s - self._committed_s) if pending else IDLE_S)
                self._wake.clear()
            if 1 < len(inbox.appends) < BATCH_ROWS and not inbox.hurry and not self._stopping:
                self._wake.clear()
                if not inbox.hurry:
                    self._wake.wait(LINGER_S)
        finally:
            self._waiting = False
            self._wake.clear()
            self.beat_s = time.monotonic()

    def _take(self) -> list[Entry]:
        if self.held is not None and not self._stopping:
            if not self._chores:  # they are what makes room
                self._wake.wait(0.02)  # room() holds the collectors meanwhile; progress goes on
            return []
        appends = self._inbox.appends
        self._inbox.hurry = False
        batch: list[Entry] = []
        while appends and len(batch) < BATCH_ROWS:
            if appends[0][0][0] in self.drops:  # alone: its transaction keeps the routes from reading
                return batch or appends.popleft()
            batch += appends.popleft()
        return batch

    def _progress_is_due(self) -> bool:
        if not (self._progress or self._dead):
            return False
        return self._stopping or time.monotonic() - self._committed_s >= PROGRESS_S

    def _commit_until_done(self, batch: list[Entry]) -> None:
        """Commit, whatever it takes. Raises StorageError when trying again is pointless."""
        progress, self._progress = self._progress, {}
        dead, self._dead = self._dead, []
        for attempt in range(2**62):
            try:
                self._commit(batch, progress, dead)
            except sqlite3.Error as error:
                self._recover(error)
                if self._stopping and attempt >= len(RETRY_S):
                    raise self.trouble or StorageFull(str(error)) from error
                time.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                self.beat_s = time.monotonic()
                self._one_chore()
            else:
                self._outage.recovered()
                self.trouble = None
                return

    def _commit(self, batch: list[Entry], progress: dict[int, tuple[int, int]], dead: list[Any]) -> None:
        drop = self.drops.get(batch[0][0]) if batch and self.drops else None
        started_s = time.perf_counter()
        self._projection.begin()
        step("before_begin")
        with self._passed.lock if drop else nullcontext():  # no route may read rows while they become a hole
            self._connection.execute("BEGIN IMMEDIATE")
            self._store_progress(progress, dead)  # first: what is done or refused is not given up
            if drop:
                batch = [_given_up(batch[0], drop(self._connection))]
            rows, digest = self._store(batch)
            self._connection.execute("COMMIT")
        step("after_commit")
        if drop:
            del self.drops[batch[0][0]]
        self._after_commit(batch, rows, digest, started_s)

    def _store(self, batch: list[Entry]) -> tuple[list[tuple[Any, ...]], bytes]:
        """Insert and project the batch; returns its rows and the new head's hash."""
        rows, digest, shed = self._rows(batch)
        self._connection.executemany(_INSERT, rows)
        for first, last, anchor in shed:
            holes.extend_gap(self._connection, first, last, anchor, "shed")
        step("after_insert")
        self._projection.apply(batch)
        step("after_projection")
        step("before_commit")
        return rows, digest

    def _rows(self, batch: list[Entry]) -> tuple[list[tuple[Any, ...]], bytes, list[tuple[int, int, bytes]]]:
        """The table's rows with their hashes, the new head's hash, and the runs of seq that are not stored."""
        source_id, synced, digest = self._sources.id, self._is_synced(), self.head_hash
        rows: list[tuple[Any, ...]] = []
        shed: list[tuple[int, int, bytes]] = []
        for seq, record, body in batch:
            if not body:
                first = shed.pop()[0] if shed and shed[-1][1] == seq - 1 else seq
                shed.append((first, seq, digest))
                continue
            kind, name, (at_ns, mono_ns) = int(record.kind), record.source, record.at
            text = f"{seq}|{kind}|{name}|{at_ns}|{mono_ns}|{synced}|".encode()
            digest = sha256(digest + text + body).digest()
            rows.append((seq, kind, source_id(name), at_ns, mono_ns, synced, body, digest))
        return rows, digest, shed

    def _is_synced(self) -> int:
        now_s = time.monotonic()
        if now_s - self._synced_s >= 1.0:
            self._synced, self._synced_s = int(clock.synchronised()), now_s
        return self._synced

    def _store_progress(self, progress: dict[int, tuple[int, int]], dead: list[Any]) -> None:
        if dead:
            self.untrusted_letters |= not self._is_synced()
            sql = "INSERT OR REPLACE INTO dead_letter (route, lane, n, seq, reason, at_ns, synced)"
            self._connection.executemany(f"{sql} VALUES (?, ?, ?, ?, ?, ?, {self._is_synced()})", dead)
        if progress:
            step("progress_before")
            self._connection.executemany(
                "UPDATE lane SET seq = max(seq, ?), n = max(n, ?) WHERE id = ?",
                [(seq, n, lane) for lane, (seq, n) in progress.items()],
            )
            step("progress_after")
        if self._committed_s - self._totals_s >= TOTALS_S:
            self._totals_s = self._committed_s
            self.store_totals()

    def store_totals(self) -> None:
        """What the growing lanes count, up to the last commit. On the writer's thread."""
        self._connection.executemany(
            "UPDATE lane SET total = ?, total_seq = ? WHERE id = ?",
            [(lane.total, lane.total_seq, id) for id, lane in self.lanes.items()],
        )

    def _after_commit(self, batch: list[Entry], rows: list[Any], digest: bytes, started_s: float) -> None:
        self._committed_s = self.beat_s = time.monotonic()
        counts = self.counts
        counts.commits += 1
        counts.commit_s = time.perf_counter() - started_s
        if not batch:
            return
        seq = batch[-1][0]
        counts.rows += len(batch)
        counts.batch = len(batch)
        counts.bytes += sum([len(entry[2]) for entry in batch]) + holes.ROW_BYTES * len(batch)
        for lane in self.lanes.values():
            kinds, refused = lane.filter.kinds, lane.refused
            if refused:
                passes = lane.filter.passes
                lane.add(sum(passes(record.kind, record.source, refused) for _, record, body in batch if body), seq)
            else:
                lane.add(sum([row[1] in kinds for row in rows]), seq)
        self.head_hash = digest
        self.durable_seq = seq
        self.head = (seq, digest)
        step("before_notify")
        self.on_commit(seq)

    def _one_chore(self) -> None:
        if not self._chores:
            return
        work, future, alone = self._chores.popleft()
        if not future.set_running_or_notify_cancel():
            return
        connection = self._connection
        try:
            if not alone:
                connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            if not alone:
                connection.execute("COMMIT")
        except StorageDisplaced as error:  # whatever is committed from now on would be lost
            self.failed = error  # before anybody hears of it
            future.set_exception(error)
            raise
        except (sqlite3.Error, StorageError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and is_damage(error):
                future.set_exception(error)
                raise StorageCorrupt(f"the buffer is damaged: {error}", hint=DAMAGE_HINT) from error
            future.set_exception(error)
        except BaseException as error:  # ends this thread: whoever waits for the chore must not wait for ever
            future.set_exception(error)
            raise
        else:
            future.set_result(result)

    # --- trouble ---------------------------------------------------------------------------------------------

    def _recover(self, error: sqlite3.Error) -> None:
        """After a failed transaction: roll back, and say what is wrong. Raises when there is no going on."""
        if self._connection.in_transaction:  # a full disk has rolled it back already
            self._connection.execute("ROLLBACK")
        self._projection.undo()
        self._sources.reload()
        if is_damage(error):
            raise StorageCorrupt(f"the buffer is damaged: {error}", hint=DAMAGE_HINT) from error
        if not can_pass(error):
            raise StorageError(f"the buffer cannot be written: {error}") from error
        self.trouble = StorageFull(
            f"the buffer cannot be written: {error}", hint="free disk space; nothing is lost meanwhile"
        )
        self._outage.failed(self.trouble)
        self.on_full()

    def _fail(self, error: StorageError) -> None:
        self.failed = self.trouble = error
        if isinstance(error, StorageCorrupt):
            self.on_damage(str(error.args[0]))
        self.on_commit(self.durable_seq)


def _given_up(entry: Entry, body: dict[str, Any] | None) -> Entry:
    """A drop's entry with what it turned out to be; one that gave up nothing is not stored."""
    seq, record, _ = entry
    return entry if body is None else (seq, replace(record, body=body), orjson.dumps(body) if body else b"")


def open_writing(path: Path) -> sqlite3.Connection:
    """The connection for writing; used by one thread at a time, so sqlite3's own check of that is off."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -4096")
    connection.execute(f"PRAGMA journal_size_limit = {8 * 2**20}")  # what a burst left is cut off again
    return connection
