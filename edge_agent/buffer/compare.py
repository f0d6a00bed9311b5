"""A buffer against what a receiver holds: who computes the whole chain anew is found out, and what he did is named.

The receiver may hold less than the buffer (a route's filter, what is not delivered yet) and more (what the buffer has
deleted since); the two are compared as far as both have it. How its file is opened: ``theirs``.

Checkpoints: the hash that the receiver was told of a seq, with the one that the buffer keeps there. Between the last
that agrees and the first that does not, something was changed. Records: one by one, in SQL; only where they differ
does ``_Alignment`` look closer. Whoever removes or inserts a record and numbers the rest anew shifts what follows: the
records are found again some numbers further on, since at_ns, mono_ns and body tell them apart, and what is too few or
too many is named.

Ranges that were deleted or lost and are noted as such (gaps) are passed over and counted. Windows of ``WINDOW`` records
bound what is looked at around a difference; after ``ledger.DAMAGES`` damages it stops.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from edge_agent.buffer.ledger import DAMAGES, Progress, Verdict, hash_at, label, span
from edge_agent.buffer.queries import is_damage
from edge_agent.buffer.theirs import open_theirs
from edge_agent.errors import StorageError
from edge_agent.model import Kind

WINDOW = 64
SLICE = 50_000  # seqs a query looks at

# The checkpoint's and the log's own hashes follow from what they sum up; they are judged as checkpoints.
_DERIVED = {"checkpoint": ("upto", "hash"), "log_opened": ("previous",), "clock_offset": ("synced",)}


class Row(NamedTuple):
    """A record of either side, its body parsed, without what follows from other records."""

    seq: int
    kind: str
    source: str
    at_ns: int
    mono_ns: int
    synced: bool
    body: bytes

    def differs(self, other: Row) -> tuple[str, ...]:
        """Names of what is not the same, but for seq."""
        return tuple(name for name in self._fields[1:] if getattr(self, name) != getattr(other, name))


_UNREADABLE = Row(0, "", "", 0, 0, False, b"")


class Log(NamedTuple):
    """A log of the buffer and the seqs it holds there."""

    id: str
    first: int
    last: int


def compare(connection: sqlite3.Connection, path: Path, verdict: Verdict, progress: Progress) -> None:
    """Add to ``verdict`` what differs. Raises StorageError when ``path`` cannot be compared with."""
    try:
        open_theirs(connection, path)
    except sqlite3.DatabaseError as error:
        hint = "name the SQLite file of a receiver, or JSON Lines of checkpoints or records"
        raise StorageError(f"{path} cannot be compared with: {error}", hint=hint) from error
    try:
        _Comparison(connection, path, verdict, progress).run()
    except sqlite3.DatabaseError as error:
        verdict.add("unreadable", f"the comparison ended early: {error}")


class _Comparison:
    def __init__(self, connection: sqlite3.Connection, path: Path, verdict: Verdict, progress: Progress) -> None:
        self._connection = connection
        self._verdict = verdict
        self._progress = progress
        self._logs = _logs(connection)
        self._agent = self._find_agent(path)
        self.told: dict[str, Any] = {
            "path": str(path), "agent": self._agent, "records": 0, "no_longer_kept": 0, "checkpoints": 0,
            "checkpoints_no_longer_kept": 0,
        }  # fmt: skip

    def run(self) -> None:
        """Forks first, then checkpoints, then records."""
        self._verdict.against = self.told
        self._forks()
        self._checkpoints()
        shift = 0
        for log in self._logs:
            alignment = _Alignment(self._connection, self._agent, log, shift, self._verdict, self.told)
            shift = alignment.run(lambda done: self._progress("against", done, self._logs[-1].last))
        if not self._checkpoints_seen() and not self.told["records"]:
            raise StorageError(
                f"{self.told['path']} and this buffer have nothing in common",
                hint="is it of this agent, and of the same weeks? edge-agent buffer stats says what is kept",
            )

    def _checkpoints_seen(self) -> int:
        return int(self.told["checkpoints"] + self.told["checkpoints_no_longer_kept"] + self.told["no_longer_kept"])

    def _find_agent(self, path: Path) -> str:
        execute = self._connection.execute
        row = execute("SELECT agent FROM log ORDER BY first_seq DESC LIMIT 1").fetchone()
        agent = str(row[0]) if row is not None else ""
        sql = "SELECT 1 FROM theirs WHERE agent = ?1 UNION ALL SELECT 1 FROM their_checkpoint WHERE agent IN ('', ?1)"
        if execute(f"{sql} LIMIT 1", (agent,)).fetchone() is None:
            raise StorageError(
                f"{path} holds nothing of agent {agent}", hint="name the file of a receiver of this agent"
            )
        return agent

    # --- logs that only they know --------------------------------------------------------------------------------

    def _forks(self) -> None:
        """Logs of this agent that this buffer does not have: forks, another buffer's, or long deleted."""
        mine = {log.id for log in self._logs}
        parents = {parent: id for id, parent in self._parents() if parent}
        (oldest,) = self._connection.execute("SELECT coalesce(min(seq), 0) FROM record").fetchone()
        sql = "SELECT log, min(seq), max(seq), count(*) FROM theirs WHERE agent = ? GROUP BY log ORDER BY min(seq)"
        for log, first, last, count in self._connection.execute(sql, (self._agent,)).fetchall():
            if log in mine:
                continue
            opened = self._opened(log)
            previous = (opened or {}).get("previous") or {}
            parent = previous.get("log")
            if parent in parents or parent == self._logs[-1].id:
                host = (opened or {}).get("host", "?")
                text = (
                    f"log {log} (host {host}) also goes on from log {parent} after record {previous.get('seq')}:"
                    f" a copy of this data_dir was started, or this one is an older copy"
                )
                self._verdict.add("fork", text, first, last, log=log)
            elif last >= oldest:
                text = (
                    f"the receiver has {count} records of log {log} ({first} to {last}), which is not known here:"
                    f" this is another buffer, or an older copy"
                )
                self._verdict.add("lost", text, first, last, log=log)
            else:
                self.told["no_longer_kept"] += count

    def _parents(self) -> Iterator[tuple[str, str | None]]:
        """(log, the log it names as its predecessor) of this buffer, as far as that is kept."""
        for log in self._logs:
            sql = "SELECT body FROM record WHERE seq BETWEEN ? AND ? AND kind = ? ORDER BY seq LIMIT 1"
            row = self._connection.execute(sql, (log.first, log.first + WINDOW, int(Kind.LOG_OPENED))).fetchone()
            body = _parsed(row[0]) if row is not None else {}
            yield log.id, (body.get("previous") or {}).get("log")
        for before, after in zip(self._logs, self._logs[1:], strict=False):
            yield after.id, before.id

    def _opened(self, log: str) -> dict[str, Any] | None:
        sql = "SELECT body FROM theirs WHERE agent = ? AND log = ? AND kind = 'log_opened' ORDER BY seq LIMIT 1"
        row = self._connection.execute(sql, (self._agent, log)).fetchone()
        return None if row is None else _parsed(row[0])

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _checkpoints(self) -> None:
        """Each that they hold; of a run that differs the first is named, since all later ones follow from it."""
        agreed, differing = 0, False
        mine = {log.id: log for log in self._logs}
        for log, upto, digest in self._their_checkpoints():
            if log and log not in mine:
                continue
            if log and upto > mine[log].last:
                last = mine[log].last
                text = f"the receiver was told of record {upto} of log {log}; this buffer has it up to {last} only"
                self._verdict.add("lost", text, last + 1, upto, log=log)
                continue
            stored = hash_at(self._connection, upto)
            if stored is None:
                self.told["checkpoints_no_longer_kept"] += 1
                continue
            self.told["checkpoints"] += 1
            if stored == digest:
                agreed, differing = upto, False
            elif not differing:
                differing = True
                text = (
                    f"seq {span(agreed + 1, upto)} was changed somewhere: the receiver was told another hash of {upto}"
                )
                self._verdict.add("checkpoint", text, agreed + 1, upto, log=log or None)

    def _their_checkpoints(self) -> Iterator[tuple[str, int, bytes]]:
        sql = (
            "SELECT log, body, NULL FROM theirs WHERE agent = ?1 AND kind = 'checkpoint' UNION ALL"
            " SELECT log, upto, hash FROM their_checkpoint WHERE agent IN ('', ?1)"
        )
        found: list[tuple[int, str, bytes]] = []
        for log, said, digest in self._connection.execute(sql, (self._agent,)):
            body = _parsed(said) if digest is None else {"upto": said, "hash": digest}
            try:
                found.append((int(body["upto"]), log, bytes.fromhex(body["hash"])))
            except (KeyError, TypeError, ValueError):
                self._verdict.add("checkpoint", f"a checkpoint of log {log} at the receiver cannot be read", log=log)
        for upto, log, digest in sorted(found):
            yield log, upto, digest


class _Alignment:
    """One log, record by record. ``_shift``: what is to be added to their seq to have ours."""

    def __init__(
        self, connection: sqlite3.Connection, agent: str, log: Log, shift: int, verdict: Verdict, told: dict[str, Any]
    ) -> None:
        self._execute = connection.execute
        self._agent = agent
        self._log = log
        self._shift = shift
        self._verdict = verdict
        self._told = told

    def run(self, progress: Callable[[int], None]) -> int:
        """Compare it all; returns the shift that the next log begins with."""
        sql = "SELECT min(seq), max(seq) FROM theirs WHERE agent = ? AND log = ?"
        first, last = self._execute(sql, (self._agent, self._log.id)).fetchone()
        seq = first
        while seq is not None and seq <= last and len(self._verdict.damages) < DAMAGES:
            end = min(last, seq + SLICE - 1)
            found = self._next_difference(seq, end)
            self._count(seq, end if found is None else found - 1)
            seq = end + 1 if found is None else self._look_closer(found, last)
            progress(min(seq, last) + self._shift)
        return self._shift

    def _count(self, first: int, last: int) -> None:
        sql = "SELECT count(*) FROM theirs WHERE agent = ? AND log = ? AND seq BETWEEN ? AND ?"
        (count,) = self._execute(sql, (self._agent, self._log.id, first, last)).fetchone()
        self._told["records"] += count

    def _next_difference(self, first: int, last: int) -> int | None:
        """Their first record of [first, last] that is not ours byte by byte."""
        sql = (
            "SELECT t.seq FROM theirs t LEFT JOIN record r ON r.seq = t.seq + ?1 LEFT JOIN source s ON s.id = r.source"
            " LEFT JOIN kind_label k ON k.id = r.kind WHERE t.agent = ?2 AND t.log = ?3 AND t.seq BETWEEN ?4 AND ?5"
            " AND (r.seq IS NULL OR t.at_ns <> r.at_ns OR t.mono_ns <> r.mono_ns OR t.synced <> r.synced"
            " OR t.kind <> k.label OR t.source <> s.name OR t.body <> CAST(r.body AS TEXT)) ORDER BY t.seq LIMIT 1"
        )
        try:
            row = self._execute(sql, (self._shift, self._agent, self._log.id, first, last)).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            if first == last:
                return None  # the walk has named it
            middle = (first + last) // 2
            found = self._next_difference(first, middle)
            return self._next_difference(middle + 1, last) if found is None else found
        return None if row is None else int(row[0])

    def _look_closer(self, seq: int, last: int) -> int:
        """Judge what begins at ``seq`` of theirs; returns where to go on."""
        place = seq + self._shift
        if place > self._log.last + max(0, self._shift):
            text = (
                f"the receiver has records {seq} to {last} of log {self._log.id}; this buffer has that log up to"
                f" {self._log.last} only: its end is lost, or it is an older copy"
            )
            self._verdict.add("lost", text, seq, last, log=self._log.id)
            return last + 1
        sql = "SELECT last_seq FROM gap WHERE ? BETWEEN first_seq AND last_seq"
        gap = self._execute(sql, (place,)).fetchone()
        theirs = self._theirs(seq)
        if gap is not None and self._ours(place) is None:
            end = min(int(gap[0]) - self._shift, last)
            self._told["no_longer_kept"] += self._number(seq, end)
            return end + 1
        if self._same(theirs[0], self._shift):
            self._told["records"] += 1
            return seq + 1
        return self._align(theirs)

    def _number(self, first: int, last: int) -> int:
        sql = "SELECT count(*) FROM theirs WHERE agent = ? AND log = ? AND seq BETWEEN ? AND ?"
        return int(self._execute(sql, (self._agent, self._log.id, first, last)).fetchone()[0])

    def _theirs(self, seq: int) -> list[Row]:
        sql = (
            "SELECT seq, kind, source, at_ns, mono_ns, synced, body FROM theirs"
            " WHERE agent = ? AND log = ? AND seq >= ? ORDER BY seq LIMIT ?"
        )
        return [_row(*row) for row in self._execute(sql, (self._agent, self._log.id, seq, WINDOW)).fetchall()]

    def _ours(self, seq: int) -> Row | None:
        sql = (
            "SELECT r.seq, r.kind, s.name, r.at_ns, r.mono_ns, r.synced, r.body FROM record r"
            " LEFT JOIN source s ON s.id = r.source WHERE r.seq = ?"
        )
        try:
            row = self._execute(sql, (seq,)).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return _UNREADABLE
        return None if row is None else _row(row[0], label(row[1]), *row[2:])

    def _same(self, theirs: Row, shift: int) -> bool:
        ours = self._ours(theirs.seq + shift)
        return ours is not None and not theirs.differs(ours)

    # --- what was done -------------------------------------------------------------------------------------------

    def _align(self, theirs: list[Row]) -> int:
        """In place first, then shifted: the nearest of theirs that is found again says what happened before it."""
        for index, row in enumerate(theirs):
            if index and self._same(row, self._shift):
                self._in_place(theirs[:index])
                return row.seq
        for index, row in enumerate(theirs):
            for distance in range(1, WINDOW + 1):
                for step in (distance, -distance):
                    if self._same(row, self._shift + step):
                        self._shifted(theirs[:index], row, step)
                        return row.seq
        self._in_place(theirs[:1])
        return theirs[0].seq + 1

    def _in_place(self, run: list[Row]) -> None:
        """Records between two that agree: moved among each other, removed without renumbering, or edited."""
        contents = {self._content(self._ours(row.seq + self._shift)) for row in run}
        for row in run:
            place = row.seq + self._shift
            ours = self._ours(place)
            if ours is None:
                text = f"record {place} ({row.kind}) was removed: the receiver has it"
                self._verdict.add("removed", text, place, kind=row.kind, log=self._log.id)
            elif ours is _UNREADABLE or not (differs := row.differs(ours)):
                continue
            elif self._content(row) in contents:
                text = f"record {place} was moved: the receiver has {row.kind} of {row.source} there"
                self._verdict.add("moved", text, place, kind=row.kind, log=self._log.id, differs=differs)
            else:
                text = f"record {place} ({row.kind}) was edited: {', '.join(_told(row, ours, differs))}"
                self._verdict.add("edited", text, place, kind=row.kind, log=self._log.id, differs=differs)

    def _content(self, row: Row | None) -> tuple[Any, ...] | None:
        return None if row is None else row[1:]

    def _shifted(self, before: list[Row], row: Row, step: int) -> None:
        """``row`` is found ``step`` numbers further on: so many were put in, or taken out, before it."""
        sql = "SELECT coalesce(max(seq), ?) FROM theirs WHERE agent = ? AND log = ? AND seq < ?"
        start = before[0].seq if before else row.seq
        (agreed,) = self._execute(sql, (self._log.first - 1, self._agent, self._log.id, start)).fetchone()
        if step > 0:
            self._inserted(agreed + self._shift + 1, row.seq + self._shift + step - 1, before, step)
        else:
            self._removed(agreed + 1, row.seq - 1, before, -step)
        self._shift += step

    def _inserted(self, first: int, last: int, before: list[Row], count: int) -> None:
        """Which of ours in [first, last] they do not have."""
        known = {self._content(row) for row in before}
        strange = [ours for ours in map(self._ours, range(first, last + 1)) if self._content(ours) not in known]
        if len(strange) == count:
            for ours in strange:
                assert ours is not None or count
                seq, kind = (ours.seq, ours.kind) if ours is not None else (first, "?")
                text = f"record {seq} ({kind}) was inserted: the receiver does not have it, what follows is shifted"
                self._verdict.add("inserted", text, seq, kind=kind, log=self._log.id)
            return
        text = f"{count} of the records {first} to {last} were inserted: what follows is shifted"
        self._verdict.add("inserted", text, first, last, log=self._log.id)

    def _removed(self, first: int, last: int, before: list[Row], count: int) -> None:
        """Which of theirs in [first, last] we do not have; ``before`` are those of them that they hold."""
        if len(before) == count:
            for row in before:
                text = f"record {row.seq} ({row.kind}) was removed: the receiver has it, what follows is shifted"
                self._verdict.add("removed", text, row.seq, kind=row.kind, log=self._log.id)
            return
        text = f"{count} of the records {first} to {last} were removed: what follows is shifted"
        self._verdict.add("removed", text, first, last, log=self._log.id)


def _told(theirs: Row, ours: Row, differs: Iterable[str]) -> Iterator[str]:
    """What differs, with both values where they are short: for the body, by its fields."""
    for name in differs:
        if name != "body":
            yield f"{name} is {getattr(ours, name)}, was {getattr(theirs, name)}"
            continue
        mine, other = _parsed(ours.body), _parsed(theirs.body)
        for key in sorted(mine.keys() | other.keys()):
            if mine.get(key) != other.get(key):
                yield f"body.{key} is {_short(mine.get(key))}, was {_short(other.get(key))}"


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"


def _logs(connection: sqlite3.Connection) -> list[Log]:
    rows = connection.execute("SELECT id, first_seq FROM log ORDER BY first_seq").fetchall()
    (head,) = connection.execute("SELECT coalesce(max(seq), 0) FROM record").fetchone()
    ends = [first - 1 for _, first in rows[1:]] + [head]
    return [Log(id, first, last) for (id, first), last in zip(rows, ends, strict=True)]


def _row(seq: int, kind: str, source: str | None, at_ns: int, mono_ns: int, synced: int, body: bytes | str) -> Row:
    parsed = _parsed(body)
    sure = bool(synced) or "synced" in parsed  # an earlier clock_offset's own, which hid the envelope's
    for key in _DERIVED.get(kind, ()):
        parsed.pop(key, None)
    return Row(seq, kind, source or "", at_ns, mono_ns, sure, orjson.dumps(parsed))


def _parsed(body: bytes | str) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"unreadable": repr(body)[:200]}
    return found if isinstance(found, dict) else {"unreadable": repr(body)[:200]}
