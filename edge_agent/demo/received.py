"""Reads what the receiver committed, out of its database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge_agent.demo.counting import ReceivedReading, ReceivedRecord


def _connect(database: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(database))


def read_records(database: Path) -> Iterator[ReceivedRecord]:
    """Every record."""
    with _connect(database) as db:
        for row in db.execute("SELECT agent, log, seq, kind, source, at_ns, body FROM record"):
            yield ReceivedRecord._make((*row[:6], json.loads(row[6])))


def read_readings(database: Path) -> Iterator[ReceivedReading]:
    """Every row of the view ``reading``: the readings that belong to a cycle."""
    columns = ", ".join(ReceivedReading._fields)
    with _connect(database) as db:
        for row in db.execute(f"SELECT {columns} FROM reading"):
            yield ReceivedReading(*row)


def confirmed(database: Path) -> int:
    """How many records of all streams the receiver has confirmed."""
    with _connect(database) as db:
        (count,) = db.execute("SELECT total(upto) FROM stream").fetchone()
    return int(count)


def hold_told(database: Path, serial: str) -> bool:
    """Whether the receiver has it that a hold of this serial was applied, and that it stopped the unit at a gate."""
    with _connect(database) as db:
        (kinds,) = db.execute(
            "SELECT count(DISTINCT kind) FROM record"
            " WHERE kind = 'hold_ack' AND json_extract(body, '$.subject.value') = :serial"
            " AND json_extract(body, '$.action') = 'hold' AND json_extract(body, '$.state') = 'applied'"
            " OR kind = 'gate' AND json_extract(body, '$.serial') = :serial"
            " AND json_extract(body, '$.reasons[0].code') = 'hold'",
            {"serial": serial},
        ).fetchone()
    return bool(kinds == 2)
