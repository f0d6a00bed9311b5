"""Numbers that did not come: noticed, asked for again, found or given up. Judged over the database.

::

    open ──► asked ──► filled        every number has come, or every record that they named is here
      │        └─────► given_up      the agent does not keep them any more, or does not answer
      └──────────────► filled        the agent sent them again by itself

A hole below numbers that came (``lost`` False) is the sender's to close: it sends again what nobody confirmed, so we
ask only after ``ask_after_s``. What the sender has settled without us (``lost``: we came back from an older backup)
comes no more by itself; that is asked for at once. We ask for seqs, between the neighbours that we hold, and take
for an answer as many new records in that range as numbers are missing: a replay is a stream of its own, with
its own numbers.

Several receivers that share a database share its table ``gap``; a row's change is one receiver's, which tells and asks.

Bounds: ``ASKED`` requests open for a route of an agent; ``ASKS`` for a gap, each after twice the wait of the one
before; ``WATCHED`` gaps looked at a time; ``KEPT`` that have ended.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from edge_agent.receiver.database import Database
from edge_agent.receiver.message import TOMBSTONE, Message, route_of
from edge_agent.receiver.tracker import Range, Tracker

ASKED = 2
ASKS = 4
WATCHED = 200
KEPT = 10_000
WAIT_MAX_S = 600.0
_S = 10**9


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers of a stream that did not come although later ones did.

    ``lost``: the sender will not send them by itself any more. ``state``: open, asked, filled, given_up, with the
    ``reason`` of the last. The records lie between ``first_seq`` and ``last_seq`` of ``log`` (0: not known).
    """

    agent: str
    stream: str
    first_n: int
    last_n: int
    lost: bool
    state: str = "open"
    log: str = ""
    first_seq: int = 0
    last_seq: int = 0
    reason: str = ""


@dataclass(slots=True)
class Watch:
    """What one look at the gaps found: what to tell, and what to publish (topic, payload)."""

    gaps: list[Gap] = field(default_factory=list)
    requests: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _Row:
    """A gap as the table has it."""

    gap: Gap
    held: int
    asked: int
    asked_at_ns: int
    heard_at_ns: int
    reason: str
    confirm: str


_WATCHED = """
SELECT g.agent, g.stream, g.first_n, g.last_n, g.lost, g.state, g.log, g.first_seq, g.last_seq,
       g.held, g.asked, g.asked_at_ns, g.heard_at_ns, g.reason, g.noticed_at_ns, s.confirm
FROM gap g JOIN stream s ON s.agent = g.agent AND s.stream = g.stream
WHERE g.ended_at_ns IS NULL ORDER BY g.noticed_at_ns, g.first_n LIMIT ?
"""
_INSERT = """
INSERT INTO gap (agent, stream, first_n, last_n, lost, state, log, first_seq, last_seq, held, noticed_at_ns)
VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?, ?, ?) ON CONFLICT (agent, stream, first_n) DO UPDATE SET
  last_n = excluded.last_n, lost = excluded.lost, state = 'open', log = excluded.log, first_seq = excluded.first_seq,
  last_seq = excluded.last_seq, held = excluded.held, noticed_at_ns = excluded.noticed_at_ns, asked = 0, request = NULL,
  asked_at_ns = NULL, heard_at_ns = NULL, ended_at_ns = NULL, reason = NULL
WHERE gap.ended_at_ns IS NOT NULL OR (excluded.lost AND NOT gap.lost)
"""
_HERE = " WHERE agent = ? AND stream = ? AND first_n = ?"


class Gaps:
    """The gaps of one database. ``tracker`` gives the numbers of a stream as they are stored."""

    def __init__(self, database: Database, tracker: Callable[[str, str], Tracker]) -> None:
        self._database = database
        self._tracker = tracker
        self._since: dict[tuple[str, str, Range], float] = {}  # holes that this process sees, and since when

    # --- inside a batch ----------------------------------------------------------------------------------------

    def note_lost(self, message: Message, lost: Range) -> Gap:
        """These numbers of the message's stream were settled without us."""
        sql = "DELETE FROM gap WHERE agent = ? AND stream = ? AND first_n >= ? AND last_n <= ? AND ended_at_ns IS NULL"
        self._database.execute(sql, (message.agent, message.stream, lost.first, lost.last))
        first_seq = lost.low_seq
        if (
            lost.first == first_seq == 1
        ):  # no neighbour below: as many as must lie in this log, which may have begun much later
            first_seq = max(1, lost.high_seq - (lost.last - lost.first))
        gap = Gap(
            message.agent, message.stream, lost.first, lost.last, True, "open", message.log, first_seq, lost.high_seq
        )
        self._insert(gap)
        return gap

    def heard(self, message: Message) -> None:
        """The answer to a request has begun to come, or goes on. Its tombstones say what is not kept any more."""
        if not message.replay:
            return
        sql = "UPDATE gap SET heard_at_ns = ? WHERE agent = ? AND request = ?"
        self._database.execute(sql, (time.time_ns(), message.agent, message.replay))
        if message.kind == TOMBSTONE:
            reason = str(message.records[-1].get("reason", "")).replace("\0", "")[:500]
            sql = "UPDATE gap SET reason = ? WHERE agent = ? AND request = ?"
            self._database.execute(sql, (reason, message.agent, message.replay))

    # --- now and then ------------------------------------------------------------------------------------------

    def look(self, *, gap_after_s: float, ask_after_s: float, ask: bool) -> Watch:
        """Notice new gaps, see which have ended, ask for what is due. In one transaction, if there is anything."""
        aged = self._aged(gap_after_s)
        rows = self._rows()
        found = Watch()
        if not aged and not rows:
            return found
        agents = {gap.agent for gap in aged} | {row.gap.agent for row in rows}
        with self._database.transaction(agents):
            for gap in aged:
                if not self._is_noted(gap) and self._insert(gap):
                    found.gaps.append(gap)
            rows = self._rows()  # as they are now that nobody else changes them
            asking = Counter(_route(row.gap) for row in rows if row.gap.state == "asked")
            for row in rows:
                ended = self._ended(row, gap_after_s, ask_after_s, ask)
                if ended is not None:
                    asking[_route(row.gap)] -= row.gap.state == "asked"
                    found.gaps.append(ended)
                elif ask and row.confirm and row.gap.last_seq and self._is_due(row, ask_after_s, asking):
                    asking[_route(row.gap)] += row.gap.state != "asked"
                    found.requests.append((row.confirm, self._ask(row)))
                    if row.asked == 0:
                        found.gaps.append(_as(row.gap, "asked"))
            self._forget()
        return found

    def _aged(self, gap_after_s: float) -> list[Gap]:
        """The holes that have stood for so long."""
        now_s = time.monotonic()
        sql = "SELECT agent, stream, log FROM stream WHERE highest > upto ORDER BY heard_at_ns DESC LIMIT ?"
        streams = self._database.execute(sql, (WATCHED,)).fetchall()
        since: dict[tuple[str, str, Range], float] = {}
        aged: list[Gap] = []
        for agent, stream, log in streams:
            for hole in self._tracker(agent, stream).holes()[:WATCHED]:
                key = (agent, stream, hole)
                since[key] = self._since.get(key, now_s)
                if now_s - since[key] >= gap_after_s:
                    aged.append(
                        Gap(agent, stream, hole.first, hole.last, False, "open", log, hole.low_seq, hole.high_seq)
                    )
        self._since = since
        return aged

    def _is_noted(self, gap: Gap) -> bool:
        sql = (
            "SELECT 1 FROM gap WHERE agent = ? AND stream = ? AND first_n <= ? AND last_n >= ?"
            " AND (ended_at_ns IS NULL OR NOT lost) LIMIT 1"
        )
        values = (gap.agent, gap.stream, gap.first_n, gap.last_n)
        return self._database.execute(sql, values).fetchone() is not None

    def _insert(self, gap: Gap) -> bool:
        values = (gap.agent, gap.stream, gap.first_n, gap.last_n, gap.lost, gap.log, gap.first_seq, gap.last_seq)
        return self._database.execute(_INSERT, (*values, self._held(gap), time.time_ns())).rowcount > 0

    def _held(self, gap: Gap) -> int:
        sql = "SELECT count(*) FROM record WHERE agent = ? AND log = ? AND seq BETWEEN ? AND ?"
        values = (gap.agent, gap.log, gap.first_seq, gap.last_seq)
        return int(self._database.execute(sql, values).fetchone()[0])

    def _rows(self) -> list[_Row]:
        rows = []
        for row in self._database.execute(_WATCHED, (WATCHED,)).fetchall():
            agent, stream, first_n, last_n, lost, state, log, first_seq, last_seq = row[:9]
            gap = Gap(agent, stream, first_n, last_n, bool(lost), state, log, first_seq, last_seq)
            held, asked, asked_at_ns, heard_at_ns, reason, noticed_at_ns, confirm = row[9:]
            last_ns = asked_at_ns or noticed_at_ns
            rows.append(_Row(gap, held, asked, last_ns, max(heard_at_ns or 0, last_ns), reason or "", confirm))
        return rows

    def _ended(self, row: _Row, gap_after_s: float, ask_after_s: float, ask: bool) -> Gap | None:
        gap, count = row.gap, row.gap.last_n - row.gap.first_n + 1
        if not gap.lost and not self._is_missing(gap):
            return self._end(gap, "filled", "")
        came = self._held(gap) - row.held
        if came >= count and (gap.lost or row.asked):
            return self._end(gap, "filled", "")
        quiet_s = (time.time_ns() - row.heard_at_ns) / _S
        if row.reason and quiet_s > max(gap_after_s, 1.0):
            return self._end(gap, "given_up", f"{row.reason}; {came} of {count} came")
        if row.asked >= ASKS and quiet_s > _wait_s(row.asked, ask_after_s):
            return self._end(gap, "given_up", f"asked {ASKS} times; {came} of {count} came")
        if gap.lost and not (ask and row.confirm and gap.last_seq):
            return self._end(gap, "given_up", "cannot be asked for")
        return None

    def _is_missing(self, gap: Gap) -> bool:
        holes = self._tracker(gap.agent, gap.stream).holes()
        return any(hole.first <= gap.last_n and gap.first_n <= hole.last for hole in holes)

    def _end(self, gap: Gap, state: str, reason: str) -> Gap:
        sql = "UPDATE gap SET state = ?, reason = ?, ended_at_ns = ?" + _HERE
        self._database.execute(sql, (state, reason, time.time_ns(), gap.agent, gap.stream, gap.first_n))
        return _as(gap, state, reason)

    def _is_due(self, row: _Row, ask_after_s: float, asking: Counter[tuple[str, str]]) -> bool:
        if row.gap.state == "open":
            waited_s = (time.time_ns() - row.asked_at_ns) / _S
            return asking[_route(row.gap)] < ASKED and (row.gap.lost or waited_s >= ask_after_s)
        waited_s = (time.time_ns() - row.heard_at_ns) / _S
        return row.asked < ASKS and waited_s >= _wait_s(row.asked, ask_after_s)

    def _ask(self, row: _Row) -> bytes:
        gap, asked = row.gap, row.asked + 1
        request = f"{gap.stream[:80]}-{gap.first_n}-{row.asked_at_ns // 10**6 % 10**6}-{asked}"
        sql = "UPDATE gap SET state = 'asked', asked = ?, request = ?, asked_at_ns = ?, reason = NULL" + _HERE
        self._database.execute(sql, (asked, request, time.time_ns(), gap.agent, gap.stream, gap.first_n))
        wanted: dict[str, str | int] = {"id": request, "route": _route(gap)[1], "log": gap.log}
        wanted |= {"first_seq": gap.first_seq, "last_seq": gap.last_seq}
        return orjson.dumps({"v": 1, "agent": gap.agent, "replay": wanted})

    def _forget(self) -> None:
        """Keep the newest of those that have ended."""
        sql = "SELECT noticed_at_ns FROM gap WHERE ended_at_ns IS NOT NULL ORDER BY noticed_at_ns DESC LIMIT 1 OFFSET ?"
        row = self._database.execute(sql, (KEPT,)).fetchone()
        if row is not None:
            sql = "DELETE FROM gap WHERE ended_at_ns IS NOT NULL AND noticed_at_ns <= ?"
            self._database.execute(sql, row)


def _route(gap: Gap) -> tuple[str, str]:
    return gap.agent, route_of(gap.stream)


def _as(gap: Gap, state: str, reason: str = "") -> Gap:
    return Gap(
        gap.agent, gap.stream, gap.first_n, gap.last_n, gap.lost, state, gap.log, gap.first_seq, gap.last_seq, reason
    )


def _wait_s(asked: int, ask_after_s: float) -> float:
    return float(min(WAIT_MAX_S, max(ask_after_s, 0.1) * 2 ** max(0, asked - 1)))
