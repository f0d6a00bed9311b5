"""What a receiver holds, as temporary tables beside a buffer: ``theirs``, ``their_checkpoint`` and ``kind_label``.

Either an SQLite file of ``edge_agent.receiver`` (its table ``record``, attached), or JSON Lines, an object a line: a
record ``{agent, log, seq, kind, source, at_ns, mono_ns, synced, body}``, or just a checkpoint ``{agent, log, upto,
hash}``; agent and log may be left out of that. What `listen --records --json` prints will do, for its checkpoints.
Temporary tables lie on the disk, so a file may be of any size. Nothing is written to either file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import orjson

from edge_agent.errors import StorageError
from edge_agent.model import Kind

_HEADER = b"SQLite format 3\0"
_COLUMNS = "agent, log, seq, kind, source, at_ns, mono_ns, synced, body"


def open_theirs(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of whatever ``path`` is. Raises StorageError, sqlite3.OperationalError."""
    execute = connection.execute
    execute("CREATE TEMP TABLE kind_label (id INTEGER PRIMARY KEY, label TEXT NOT NULL)")
    connection.executemany("INSERT INTO kind_label VALUES (?, ?)", [(int(kind), kind.label) for kind in Kind])
    execute("CREATE TEMP TABLE their_checkpoint (agent TEXT, log TEXT, upto INTEGER, hash TEXT)")
    try:
        with path.open("rb") as file:
            is_database = file.read(len(_HEADER)) == _HEADER
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", hint=f"look at it: ls -l {path}") from error
    if is_database:
        wal = path.with_name(f"{path.name}-wal")
        query = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
        execute("ATTACH ? AS receiver", (f"{path.absolute().as_uri()}?{query}",))
        execute(f"CREATE TEMP VIEW theirs AS SELECT {_COLUMNS} FROM receiver.record")
        execute("SELECT seq FROM theirs LIMIT 1").fetchone()
    else:
        execute(f"CREATE TEMP TABLE theirs ({_COLUMNS}, PRIMARY KEY (agent, log, seq)) WITHOUT ROWID")
        execute("CREATE INDEX temp.their_kind ON theirs (agent, kind)")
        _read_lines(connection, path)


def _read_lines(connection: sqlite3.Connection, path: Path) -> None:
    """JSON Lines into the temporary tables, which SQLite keeps on the disk. Raises StorageError naming the line."""
    execute = connection.execute
    execute("BEGIN")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                _take_line(connection, orjson.loads(line))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
                execute("ROLLBACK")
                hint = "a line is an object with agent, log, upto and hash, or a whole record"
                raise StorageError(f"{path}:{number}: neither a record nor a checkpoint", hint=hint) from error
    execute("COMMIT")


def _take_line(connection: sqlite3.Connection, said: dict[str, Any]) -> None:
    agent, log = str(said.get("agent", "")), str(said.get("log", ""))
    body = said.get("body", said)
    if isinstance(body, str):  # as `row_to_json` of a database gives it
        body = orjson.loads(body)
    if "at_ns" in said and "body" in said and "seq" in said:
        connection.execute(
            "INSERT OR IGNORE INTO theirs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                agent, log, int(said["seq"]), str(said["kind"]), str(said["source"]), int(said["at_ns"]),
                int(said["mono_ns"]), int(bool(said.get("synced", True))), orjson.dumps(body).decode(),
            ),
        )  # fmt: skip
    elif said.get("kind", "checkpoint") == "checkpoint" and said.get("event") in (None, "record"):
        row = (agent, log, int(body["upto"]), bytes.fromhex(body["hash"]).hex())
        connection.execute("INSERT INTO their_checkpoint VALUES (?, ?, ?, ?)", row)
    elif "event" not in said:
        raise KeyError("seq")
