"""The salvage as it runs beside the agent: which slice is next, when it waits, and what is said at the end.

One task of ``Buffer.maintain``. It takes at most half of the time: after each slice it rests as long as the slice
took. It waits while the disk's floor or ``max_size`` is reached; what was delivered long ago is then left aside.

It writes far more than a line does, at places all over the file. So it moves the write-ahead log into the database
itself, on a worker thread; left to the commits, this held up one in some hundreds for up to a second.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent import clock
from edge_agent.buffer import chunks, lanes, salvage
from edge_agent.buffer.chunks import Chunk
from edge_agent.buffer.holes import Range
from edge_agent.buffer.queries import connect
from edge_agent.buffer.recovery import SALVAGE, Aside, Place, plausible
from edge_agent.buffer.registry import CameTo
from edge_agent.buffer.slices import Pace
from edge_agent.errors import StorageError, StorageFull
from edge_agent.logs import Log, Outage
from edge_agent.model import Kind, Record

if TYPE_CHECKING:
    from edge_agent.buffer.log import Buffer

T = TypeVar("T")

ROOM = 0.95  # of max_size: the salvage takes no more
WAIT_S = 5.0
REST = 1.0  # seconds of rest for a second of work
FOLD_S = 0.2  # so often at most the write-ahead log is moved into the database
FOLD_BYTES = 4 * 2**20  # when it is as large as this
COMMITS_FOLD, SALVAGE_FOLDS = 1000, 4000  # pages in it at which a commit does that: SQLite's own, and meanwhile
LOST_RECORDS = 50  # drop records that name lost ranges, at most; the last one spans the rest
TOLD_RANGES = 20  # in the finding

log = Log(__name__)


class Former:
    """The registry as the damaged file still has it, for questions while it is being taken over. One thread's."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._asides = [Aside(directory) for directory in reversed(directories)]

    def close(self) -> None:
        for aside in self._asides:
            aside.close()

    def unit(self, kind: str, value: str) -> str | None:
        """The unit that carried this identifier. Where its index is damaged, the tables themselves are searched."""
        where = "kind = ? AND value = ? AND removed_seq IS NULL ORDER BY seq DESC LIMIT 1"
        for aside in self._asides:
            for table in ("identifier", "identifier NOT INDEXED"):
                found, whole = aside.answer(f"SELECT unit FROM {table} WHERE {where}", (kind, value))
                if found and type(found[0][0]) is str:
                    return str(found[0][0])
                if whole:
                    break
        return None

    def identifiers(self, unit: str) -> list[tuple[int, str, str, int | None]]:
        """(seq, kind, value, removed_seq) of each of the unit's identifiers."""
        sql = "SELECT seq, kind, value, removed_seq FROM identifier WHERE unit = ?"
        rows = [row for aside in self._asides for row in aside.query(sql, (unit,))]
        return [row for row in rows if plausible(row, ("INTEGER", "TEXT", "TEXT", "INTEGER")) and None not in row[:3]]

    def cycles(self, unit: str) -> dict[str, CameTo]:
        """The unit's cycles, and what each came to."""
        sql = "SELECT cycle, step, result, complete, ended_at_ns, closed_by FROM cycle WHERE unit = ?"
        rows = [row for aside in self._asides for row in aside.query(sql, (unit,))]
        types = ("TEXT", "TEXT", "TEXT", "INTEGER", "INTEGER", "TEXT")
        return {row[0]: (row[1], *row[2:]) for row in rows if plausible(row, types) and None not in row[:2]}

    def take(self, db: sqlite3.Connection, table: str, key: str) -> None:
        """Bring in what a new fact is about, inside that fact's transaction."""
        for aside in self._asides:
            salvage.take(db, aside, table, key)


class Salvaging:
    """What is left to take over from ``directories``, oldest first; ``await run()`` takes it over."""

    def __init__(self, buffer: Buffer, directories: Sequence[Path]) -> None:
        self.waits: str | None = None  # what it waits for
        self._buffer = buffer
        self._directories = list(directories)
        self._asides = [Aside(directory) for directory in reversed(directories)]
        self._connection = connect(buffer.files.db)
        self._rows, self._spans = Pace(200, 20, 2000), Pace(200, 20, 2000)
        self._names: dict[int, str] = {}
        self._candidates: list[str] = []
        self._known, _ = salvage.head(self._connection) or (0, b"")
        self._registry = bool(self._parts())
        self._gaps = self._open_gaps()
        self._outage = Outage(log, "salvage")
        self._folded_s = time.monotonic()
        self.former = Former(directories) if self._registry else None
        self._former_writes = Former(directories) if self._registry else None
        if self._former_writes is not None:
            buffer.writer.recall(self._former_writes.take)

    def close(self) -> None:
        """End with it, done or not; the next start goes on."""
        self._connection.close()
        for aside in self._asides:
            aside.close()
        self._close_former()
        if self._former_writes is not None:
            self._former_writes.close()

    def _close_former(self) -> None:
        if self.former is not None:
            self.former.close()
            self.former = None

    @property
    def registry_known(self) -> bool:
        """All of the registry that can be read is here."""
        return not self._registry

    def withholds(self, lane: lanes.Lane) -> bool:
        """Some of the lane's range is not here yet; it is offered when it is."""
        return any(first <= (lane.to_seq or first) and last > lane.seq for first, last, _ in self._gaps)

    def status(self) -> dict[str, Any]:
        """How far it is, in seqs of the records; for status."""
        left = sum(max(0, min(last, self._known) - first + 1) for first, last, _ in self._gaps)
        phase = "registry" if self._registry else "records"
        return {
            "place": self._directories[-1].name, "phase": phase, "done": self._known - left, "total": self._known,
            "waits": self.waits,
        }  # fmt: skip

    async def run(self) -> None:
        """Take over what there is, then say what is missing. Raises StorageError once the writer has failed."""
        done = False
        await self._fold_at(SALVAGE_FOLDS)
        while not done:
            began_s = time.monotonic()
            try:
                done = await self._step()
                await self._fold()
            except (sqlite3.Error, StorageError, OSError) as error:
                if self._buffer.writer.failed is not None:
                    raise self._buffer.writer.failed from error
                self._outage.failed(error)
                await asyncio.sleep(WAIT_S)
            else:
                if self.waits is None:
                    self._outage.recovered()
                await asyncio.sleep(WAIT_S if self.waits else REST * (time.monotonic() - began_s))
        await self._fold_at(COMMITS_FOLD)

    async def _fold(self) -> None:
        if time.monotonic() - self._folded_s >= FOLD_S and self._buffer.files.wal_size() >= FOLD_BYTES:
            await self._buffer.upkeep.shrink()
            self._folded_s = time.monotonic()

    async def _fold_at(self, pages: int) -> None:
        await self._chore(lambda db: db.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall())

    async def _step(self) -> bool:
        """One slice. True when all is done and said."""
        parts = self._parts()
        if not parts and self._registry:
            await self._chore(salvage.trust)
            self._registry = False
            self._close_former()
            await self._chore(lambda db: self._buffer.writer.recall(None))
        start = None if parts else await asyncio.to_thread(self._start)
        wanted = bool(parts) or any(last >= (start or 0) for _, last, _ in self._gaps)
        if self._gaps or parts:
            if self._is_full():
                if wanted:
                    self._wait()
                    return False
            elif await self._slice(parts, start or 0):
                return False
        await self._end()
        return True

    async def _slice(self, parts: Sequence[tuple[Aside, str, Place]], start: int) -> bool:
        """Take over a slice; False where what is left was delivered long ago."""
        self.waits = None
        if parts:
            await self._table(*parts[0])
            return True
        part = await asyncio.to_thread(self._read, start)
        if part is None or (part.last < start and self._is_old(part)):
            return False
        await self._apply(part)
        return True

    # --- room ----------------------------------------------------------------------------------------------------

    def _is_full(self) -> bool:
        settings = self._buffer.settings
        return (
            self._buffer.upkeep.used() > ROOM * settings.max_size
            or self._buffer.files.free() < settings.min_free + settings.ballast
            or self._buffer.writer.trouble is not None
        )

    def _wait(self) -> None:
        self.waits = "room"
        hint = f"free disk space, or raise buffer.max_size; see df -h {self._buffer.files.data_dir}"
        self._outage.failed(StorageFull("what was set aside waits for room to be taken over", hint=hint))

    def _is_old(self, part: Chunk) -> bool:
        """Nothing of it, nor of anything before, would be kept."""
        cutoff_ns = clock.now().at_ns - round(self._buffer.settings.keep * 1e9)
        return bool(part.rows) and clock.synchronised() and all(row[3] < cutoff_ns for row in part.rows.values())

    # --- the registry --------------------------------------------------------------------------------------------

    def _parts(self) -> list[tuple[Aside, str, Place]]:
        """The tables that are not taken over yet: small before large, the newest place first."""
        sql = "SELECT place, part, state FROM salvage WHERE place <> '' AND state <> ''"
        left = {(place, part): state for place, part, state in self._connection.execute(sql)}
        return [
            (aside, table, Place.decoded(left[aside.directory.name, table]))
            for table in (*salvage.SMALL, *salvage.LARGE)
            for aside in self._asides
            if (aside.directory.name, table) in left
        ]

    async def _table(self, aside: Aside, table: str, place: Place) -> None:
        limit = self._rows.rows
        rows, after, names = await asyncio.to_thread(salvage.read, self._connection, aside, table, place, limit)

        def insert(db: sqlite3.Connection) -> None:
            with self._rows.slice():
                salvage.take_rows(db, aside, table, names, rows, after)

        await self._chore(insert)

    # --- records -------------------------------------------------------------------------------------------------

    def _open_gaps(self) -> list[tuple[int, int, bytes]]:
        sql = "SELECT first_seq, last_seq, hash FROM gap WHERE reason = ? ORDER BY first_seq"
        return self._connection.execute(sql, (SALVAGE,)).fetchall()

    def _start(self) -> int:
        """What is above was not delivered everywhere: the first seq that a withheld lane waits for."""
        self._gaps = self._open_gaps()
        sql = f"SELECT min(seq) + 1 FROM lane WHERE {lanes.UNFINISHED} AND {lanes.WITHHELD}"
        (start,) = self._connection.execute(sql).fetchone()
        return self._known + 1 if start is None else int(start)

    def _read(self, start: int) -> Chunk | None:
        """The next chunk: what is wanted upwards, then the rest downwards. On a worker thread."""
        if not self._gaps:
            return None
        if not self._candidates:
            self._names = chunks.source_names(self._connection)
            self._candidates = chunks.candidates(self._connection, self._names)
        above = [gap for gap in self._gaps if gap[1] >= start]
        gap = above[0] if above else self._gaps[-1]
        span: Range = chunks.bounds(self._asides, gap, start, self._spans.rows, self._known)
        part = chunks.chunk(self._asides, gap, span, self._names, self._candidates, self._known)
        self._names |= part.learned
        return part

    async def _apply(self, part: Chunk) -> None:
        def apply(db: sqlite3.Connection) -> list[lanes.Lane]:
            with self._spans.slice():
                return self._given_out(db, chunks.apply(db, part))

        self._buffer.offer(await self._chore(apply))

    def _given_out(self, db: sqlite3.Connection, complete: Sequence[int]) -> list[lanes.Lane]:
        """Of lanes that are complete, those whose routes have begun; the others find them when they do."""
        found = [lanes.lane(db, id) for id in complete]
        return [lane for lane in found if lane.route in self._buffer.seated and lane.seq < (lane.to_seq or 0)]

    # --- the end -------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Say what is missing, range by range, then the counts; each is said once, whenever a kill comes."""
        lost = await self._chore(salvage.lost_ranges)
        for first, last in _spans(await self._chore(lambda db: salvage.lost_ranges(db, told=False))):
            body = {"reason": "lost", "first_seq": first, "last_seq": last, "kinds": {}}
            self._append("drop", body, lambda db, span=(first, last): salvage.tell(db, span))  # type: ignore[misc]
        taken, rows, gone = await self._chore(salvage.counts)
        total = sum(last - first + 1 for first, last in lost)
        text = f"{taken} records were taken over from {', '.join(each.name for each in self._directories)}"
        text += f"; of those not delivered yet {total} are lost"
        details = {
            "set_aside": [each.name for each in self._directories], "salvaged": taken, "registry_rows": rows,
            "lost": total, "unreadable": [list(span) for span in lost[:TOLD_RANGES]], "gone": gone,
        }  # fmt: skip
        body = {
            "finding": f"{self._buffer.log}-{self._buffer.next_seq}", "code": "storage",
            "severity": "error" if total else "warning", "text": text, "evidence": [], "details": details,
        }  # fmt: skip
        complete: list[lanes.Lane] = []

        def end(db: sqlite3.Connection) -> None:
            complete[:] = self._given_out(db, salvage.end(db, self._directories))

        await self._buffer.committed(self._append("finding", body, end))
        self._buffer.damage.append(text)
        self._buffer.offer(complete)
        self._gaps = []
        await asyncio.wrap_future(
            self._buffer.writer.chore(lambda db: salvage.finish(db, self._directories), alone=True)
        )
        log.warning("salvage ended", what=text)

    def _append(self, kind: str, body: dict[str, Any], effect: Callable[[sqlite3.Connection], None]) -> int:
        return self._buffer.append_drop(Record(Kind[kind.upper()], "agent", clock.now(), body), effect)

    async def _chore(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._buffer.writer.chore(work))


def _spans(lost: Sequence[Range]) -> list[Range]:
    """The ranges to be told one by one; the last spans what would be too many."""
    if len(lost) <= LOST_RECORDS:
        return list(lost)
    return [*lost[: LOST_RECORDS - 1], (lost[LOST_RECORDS - 1][0], lost[-1][1])]
