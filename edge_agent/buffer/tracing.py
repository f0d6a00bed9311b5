"""From records to the registry, continued: what went into units, what holds them, what others say of them.

Each projection depends on nothing but the records before it, in the order of seq:

- ``genealogy``: an install is a row, an uninstall ends the rows of that parent and child (not of another).
- ``consumption``: the materials of a ``cycle_closed``. They are the cycle's, so they follow its newest binding.
- ``material_load``: a load is active; a splice makes those before it at that place *spliced*, which they stay (one of
  both is in use, nobody knows which) until a deplete or unload ends them. Without a lot or package that ends all there.
- ``hold``: a row for each (hold, subject), with the newest action that was applied. Only a release of that hold on that
  subject closes it; scrap, rework and concession stand until then too. Without a hold id, the verdict's id is it.
- ``verdict``: the first acknowledgement of each; a repeated one changes nothing.
- ``unit_status``: the newest word of each source on a (serial, step). One older by that source's clock is left out.
- A finding is acknowledged by an ``audit`` record {action: finding_ack, new: {finding}}; the doubt about holds after a
  damage ends by one {action: holds_confirmed}.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from edge_agent.model import Kind, Record

Fact = Callable[[int, Record, Mapping[str, Any]], None]
Recall = Callable[[str, str], object]
"""Brings in, while a damaged file is taken over, the rows that a new fact is about: table, key."""


def tracing(db: sqlite3.Connection, recall: Recall) -> Mapping[int, Fact]:
    """The projections of this module, by kind."""
    facts = _Tracing(db, recall)
    return {
        Kind.GENEALOGY: facts.genealogy,
        Kind.MATERIAL: facts.material,
        Kind.HOLD_ACK: facts.hold_ack,
        Kind.UNIT_STATUS: facts.unit_status,
        Kind.GATE: facts.gate,
        Kind.AUDIT: facts.audit,
    }


def consume(db: sqlite3.Connection, cycle: str, materials: Sequence[Mapping[str, Any]]) -> None:
    """The lots and packages that a cycle consumed, as it closed."""
    db.execute("DELETE FROM consumption WHERE cycle = ?", (cycle,))
    db.executemany(
        "INSERT INTO consumption VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (cycle, i, one["name"], one.get("lot"), one.get("package"), one.get("part_number"), one["certain"])
            for i, one in enumerate(materials)
        ],
    )


class _Tracing:
    """One method a kind."""

    def __init__(self, db: sqlite3.Connection, recall: Recall) -> None:
        self._db = db
        self._recall = recall

    def genealogy(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        for end in ("parent", "child"):
            self._recall("unit", body[end])
            sql = "INSERT OR IGNORE INTO unit (unit, serial, seq, at_ns) VALUES (?, ?, ?, ?)"
            self._db.execute(sql, (body[end], body[f"{end}_serial"], seq, record.at.at_ns))
        pair = (body["parent"], body["child"])
        if body["op"] == "install":
            row = (*pair, seq, body["name"], body.get("cycle"), record.at.at_ns)
            self._db.execute("INSERT OR REPLACE INTO genealogy VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        else:
            sql = "UPDATE genealogy SET removed_seq = ? WHERE parent = ? AND child = ? AND removed_seq IS NULL"
            self._db.execute(sql, (seq, *pair))

    def material(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        op, place = body["op"], (record.source, body["name"])
        lot, package = body.get("lot"), body.get("package")
        there = "station = ?1 AND name = ?2 AND ended_seq IS NULL"
        if op == "splice":
            self._db.execute(f"UPDATE material_load SET state = 'spliced' WHERE {there} AND state = 'active'", place)
        if op in ("load", "splice"):
            self._db.execute(
                "INSERT OR REPLACE INTO material_load VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'active', ?, NULL)",
                (
                    seq, *place, package, lot, body.get("part_number"), body.get("supplier"), body.get("expiry"),
                    body.get("quantity"), record.at.at_ns,
                ),
            )  # fmt: skip
        else:
            self._db.execute(
                f"UPDATE material_load SET state = ?3, ended_seq = ?4 WHERE {there}"
                " AND (?5 IS NULL OR lot IS ?5) AND (?6 IS NULL OR package IS ?6)",
                (*place, "depleted" if op == "deplete" else "unloaded", seq, lot, package),
            )

    def hold_ack(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        kind, subject, action = body["subject"]["kind"], body["subject"]["value"], body["action"]
        hold, decision = body.get("hold"), body.get("decision_seq")
        self._db.execute(
            "INSERT OR IGNORE INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                body["verdict_id"], body["source"], decision, body["state"], action, kind, subject, hold, seq,
                record.at.at_ns,
            ),
        )  # fmt: skip
        if body["state"] != "applied":
            return
        name = hold if hold is not None else body["verdict_id"]
        self._recall("hold", name)
        if action == "release":
            self._db.execute(
                "UPDATE hold SET state = 'released', decision_seq = coalesce(?, decision_seq), seq = ?"
                " WHERE hold = ? AND subject_kind = ? AND subject = ?",
                (decision, seq, name, kind, subject),
            )
            return
        expires = body.get("expires_at_ns")
        self._db.execute(
            "INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?, 'open', ?, ?, ?, ?, ?, ?, ?)",
            (
                name, kind, subject, action, body["verdict_id"], decision, body["source"], body.get("text"),
                None if expires is None else int(expires), seq, record.at.at_ns,
            ),
        )  # fmt: skip

    def gate(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO gate VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                body["gate"], body["station"], body["position"], body.get("cycle"), body.get("unit"),
                body.get("serial"), body["verdict"], body["code"], orjson.dumps(body["reasons"]).decode(),
                body["basis"], body.get("by"), seq, record.at.at_ns,
            ),
        )  # fmt: skip

    def unit_status(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        said_at = body.get("status_at_ns")
        self._db.execute(
            "INSERT INTO unit_status VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " result = excluded.result, complete = excluded.complete, attempt = excluded.attempt,"
            " status_at_ns = excluded.status_at_ns, station = excluded.station, cycle = excluded.cycle,"
            " state = excluded.state, seq = excluded.seq, at_ns = excluded.at_ns"
            " WHERE excluded.status_at_ns IS NULL OR status_at_ns IS NULL OR excluded.status_at_ns >= status_at_ns",
            (
                body["serial"], body["step"], body["said_by"], body["result"], body.get("complete"),
                body.get("attempt"), None if said_at is None else int(said_at), body.get("station"),
                body.get("cycle"), body.get("state"), seq, record.at.at_ns,
            ),
        )  # fmt: skip

    def audit(self, seq: int, record: Record, body: Mapping[str, Any]) -> None:
        new = body.get("new")
        if body.get("action") == "finding_ack" and isinstance(new, Mapping) and new.get("finding"):
            self._recall("finding", new["finding"])
            self._db.execute(
                "UPDATE finding SET acknowledged_at_ns = ?, acknowledged_by = ?, acknowledged_reason = ?"
                " WHERE finding = ?",
                (record.at.at_ns, body.get("who"), body.get("reason"), new["finding"]),
            )
        elif body.get("action") == "holds_confirmed":
            self._db.execute("DELETE FROM doubt WHERE what = 'holds'")
