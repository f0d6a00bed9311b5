"""What became of everything that was accepted: confirmed, pending, dead, dropped and recorded, or lost.

The truth is the simulators', the receiver's database says what is confirmed, and the agent's buffer, read from
outside with plain SQL, what is pending, dead or given up. ``accepted = confirmed + pending + dead + dropped_recorded``
must hold to the last one; what is in none of them is lost.

**The writer** (:func:`of_writer`): every promise is a record with its key; it must be at the receiver with the number
it was promised with. A record counts as ``dropped_recorded`` only if the receiver was told: by a ``drop`` record, by
a ``storage`` finding that names its range (or a ledger gap that such a finding announces), or by the next
``log_opened`` that names an end of its log before it.

**The line** (:func:`of_line`): what the PLC and the readers saw accepted, see :mod:`edge_agent.demo.counting`. It is
counted with what the receiver holds, then again with what is dead and with what is pending beside it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.demo.counting import Counts, ReceivedReading, ReceivedRecord, compare
from edge_agent.demo.received import read_readings, read_records
from edge_agent.demo.truth import TruthReader
from fault.outside import BufferFile, Key, Owed

DETAILS = 30
SAMPLES = 5  # that the writer takes of a unit
FIELDS = ("accepted", "confirmed", "pending", "dead", "dropped_recorded", "lost", "duplicates_after_dedup", "misbound")


@dataclass(slots=True)
class Tally:
    """The figures of one scenario. ``details`` names what is lost, doubled or misbound (the first of them)."""

    accepted: int = 0
    confirmed: int = 0
    pending: int = 0
    dead: int = 0
    dropped_recorded: int = 0
    lost: int = 0
    duplicates_after_dedup: int = 0
    misbound: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        return self.accepted == self.confirmed + self.pending + self.dead + self.dropped_recorded + self.lost

    @property
    def faults(self) -> int:
        return self.lost + self.duplicates_after_dedup + self.misbound

    def line(self) -> str:
        return " ".join(f"{name}={getattr(self, name)}" for name in FIELDS)

    def detail(self, text: str) -> None:
        if len(self.details) < DETAILS:
            self.details.append(text)

    def add(self, other: Tally) -> None:
        """Sum up, for a scenario with two routes."""
        for name in FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.details += other.details


def serial_of(number: int) -> str:
    """The writer's unit that a sample with this value belongs to."""
    return f"SN{number // SAMPLES:09d}"


class Promise(NamedTuple):
    """Records ``first`` to ``last`` of ``log`` were durable; samples count up from ``number``, others have -1."""

    log: str
    first: int
    last: int
    number: int


def promises(truth: Path) -> Iterator[Promise]:
    """What the writer was promised, in order; a line that a kill cut off was not said."""
    if not truth.exists():
        return
    for line in truth.read_text().rpartition("\n")[0].splitlines():
        log, first, last, number = line.split()
        yield Promise(log, int(first), int(last), int(number))


def of_writer(truth: Path, database: Path, buffer: BufferFile, route: str = "mes") -> Tally:
    """Count promise by promise."""
    tally = Tally()
    held = {(record.log, record.seq): record for record in _stored(database, tally)}
    owed = buffer.owed(route)
    told = Told(route, [*held.values(), *buffer.drops()], buffer.damaged())
    for promise in promises(truth):
        for seq in range(promise.first, promise.last + 1):
            tally.accepted += 1
            number = -1 if promise.number < 0 else promise.number + seq - promise.first
            _place(tally, (promise.log, seq), number, held, owed, told)
    _count_numbers(held.values(), tally)
    for row in read_readings(database):
        if row.binding_state == "bound" and row.tag == "press.force" and row.serial != serial_of(row.value):
            tally.misbound += 1
            tally.detail(f"misbound: {row.value} (seq {row.seq}) is {serial_of(row.value)}'s, not {row.serial}'s")
    return tally


def stored(database: Path) -> int:
    """How many records the receiver holds; 0 while it has no database."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            (count,) = db.execute("SELECT count(*) FROM record").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(count)


def newest(database: Path) -> int:
    """The highest seq that the receiver holds."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()[0])


def _stored(database: Path, tally: Tally) -> list[ReceivedRecord]:
    records = list(read_records(database))
    for key, times in Counter((record.agent, record.log, record.seq) for record in records).items():
        if times > 1:
            tally.duplicates_after_dedup += times - 1
            tally.detail(f"duplicate: {key} is there {times} times")
    return records


def _place(tally: Tally, key: Key, number: int, held: dict[Key, ReceivedRecord], owed: Owed, told: Told) -> None:
    record = held.get(key)
    if record is not None:
        if number >= 0 and (record.kind != "sample" or record.body["values"][0] != number):
            tally.lost += 1
            tally.detail(f"lost: {key} was promised as number {number}, and the receiver has {record.body}")
        else:
            tally.confirmed += 1
    elif key in owed.pending:
        tally.pending += 1
    elif key in owed.dead:
        tally.dead += 1
    elif told.dropped(key):
        tally.dropped_recorded += 1
    else:
        tally.lost += 1
        tally.detail(f"lost: record {key} was promised (number {number})")


def _count_numbers(records: Iterable[ReceivedRecord], tally: Tally) -> None:
    numbers = Counter(record.body["values"][0] for record in records if record.kind == "sample")
    for number, times in numbers.items():
        if times > 1:
            tally.duplicates_after_dedup += times - 1
            tally.detail(f"duplicate: number {number} is stored under {times} keys")


class Told:
    """What the receiver was told of records that it will not get."""

    def __init__(self, route: str, records: Iterable[ReceivedRecord], damaged: list[tuple[int, int]]) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._ends: dict[str, int] = {}  # log -> its last seq, as the next log names it after damage
        announced = False
        for record in records:
            body: Any = record.body
            if record.kind == "drop" and body.get("route", route) == route:
                self._ranges.append((body["first_seq"], body["last_seq"]))
            elif record.kind == "finding" and body["code"] == "storage":
                announced = True
                details = body.get("details") or {}
                self._ranges += [(first, last) for first, last in details.get("unreadable", [])]
                if "lost_first_seq" in details:
                    self._ranges.append((details["lost_first_seq"], details["lost_last_seq"]))
            elif record.kind == "log_opened" and body["reason"] != "start" and body.get("previous"):
                before = body["previous"]
                self._ends[before["log"]] = min(before["seq"], self._ends.get(before["log"], before["seq"]))
        if announced:
            self._ranges += damaged

    def dropped(self, key: Key) -> bool:
        log, seq = key
        return seq > self._ends.get(log, seq) or any(first <= seq <= last for first, last in self._ranges)


def of_line(truth: Path, database: Path, buffer: BufferFile, route: str = "mes") -> tuple[Tally, Counts]:
    """Count what PLC and readers saw; the counts are those of everything together."""
    events = TruthReader(truth).new()
    records, rows = list(read_records(database)), list(read_readings(database))
    owed = buffer.owed(route)
    have = {(record.log, record.seq) for record in records}
    counts = compare(events, records, rows)
    accounted = [counts.accepted - counts.lost]
    for keys in (owed.dead - have, owed.pending - have):
        if keys:
            extra = [ReceivedRecord(records[0].agent, *row) for row in buffer.rows(keys)]
            records += extra
            rows += _rows_of(buffer, extra)
            counts = compare(events, records, rows)
        accounted.append(counts.accepted - counts.lost)
    confirmed, with_dead, with_pending = accounted
    tally = Tally(
        counts.accepted, confirmed, with_pending - with_dead, with_dead - confirmed, 0, counts.lost, counts.duplicates,
        counts.misbound, counts.details,
    )  # fmt: skip
    return tally, counts


def _rows_of(buffer: BufferFile, records: list[ReceivedRecord]) -> list[ReceivedReading]:
    """The readings that these samples, or the ends of these cycles, stand for."""
    seqs = {record.seq for record in records}
    cycles = {record.body.get("cycle") for record in records if record.kind == "cycle_closed"}
    columns = ", ".join(ReceivedReading._fields)
    found = (ReceivedReading(*row) for row in buffer.readings(columns))
    return [row for row in found if row.seq in seqs or row.cycle in cycles]
