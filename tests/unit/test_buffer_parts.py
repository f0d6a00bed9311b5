"""The buffer's parts by themselves: the chain, ranges, filters, the look at a write-ahead log, migrations, steps."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.buffer import RouteFilter, schema, wal, witness
from edge_agent.buffer.holes import without
from edge_agent.buffer.ledger import GENESIS, link
from edge_agent.errors import StorageError
from edge_agent.model import Kind

if TYPE_CHECKING:
    import sqlite_utils


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "buffer.db", isolation_level=None)
    schema.create(connection)
    yield connection
    connection.close()


def test_the_link_is_what_the_contract_says() -> None:
    text = GENESIS + b"7|4|press.result|1795293977820854877|773254142335|1|" + b'{"values":[1]}'
    digest = link(GENESIS, 7, Kind.SAMPLE, "press.result", 1795293977820854877, 773254142335, 1, b'{"values":[1]}')
    assert digest == hashlib.sha256(text).digest()


RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10)).map(lambda r: (r[0], r[0] + r[1])), max_size=6)


@given(whole=st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda r: (r[0], r[0] + r[1])), holes=RANGES)
def test_without_leaves_exactly_the_rest(whole: tuple[int, int], holes: list[tuple[int, int]]) -> None:
    rest = without(whole, sorted(holes))
    gone = {seq for first, last in holes for seq in range(first, last + 1)}
    assert [seq for first, last in rest for seq in range(first, last + 1)] == [
        seq for seq in range(whole[0], whole[1] + 1) if seq not in gone
    ]


def test_a_filter_survives_storing_and_narrows_only_what_stations_say() -> None:
    wanted = RouteFilter(frozenset({Kind.SAMPLE, Kind.BINDING}), frozenset({"OP20"}))
    assert RouteFilter.of(*wanted.columns()) == wanted
    refused = wanted.refused(["OP10", "OP20"])
    assert wanted.passes(Kind.BINDING, "OP20", refused)
    assert not wanted.passes(Kind.BINDING, "OP10", refused)
    assert wanted.passes(Kind.SAMPLE, "press.result", refused)
    assert not wanted.passes(Kind.FINDING, "OP20", refused)


def test_the_view_never_scans_the_records(db: sqlite3.Connection) -> None:
    for condition in ("serial = 'SN1'", "cycle = 'c'", "unit = 'u'"):
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM reading WHERE {condition}")]
        assert any(step.startswith("SEARCH r USING INTEGER PRIMARY KEY") for step in plan), plan
        assert not any("AUTOMATIC" in step for step in plan), plan
        assert [step for step in plan if step.startswith("SCAN")] == ["SCAN v VIRTUAL TABLE INDEX 3:"], plan


def objects(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')"))


def test_a_migration_keeps_views_and_triggers_though_transform_drops_them(db: sqlite3.Connection) -> None:
    def with_shift(database: sqlite_utils.Database) -> None:
        database["record"].transform(types={"synced": int}, rename={"synced": "synced"})
        database["cycle"].add_column("shift", str)

    before = objects(db)
    schema.migrate(db, {schema.VERSION + 1: with_shift}, schema.VERSION + 1)
    assert objects(db) == before
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 1,)
    assert "shift" in [row[1] for row in db.execute("PRAGMA table_info(cycle)")]


def test_a_migration_that_fails_leaves_the_file_as_it_was(db: sqlite3.Connection) -> None:
    def half(database: sqlite_utils.Database) -> None:
        database.execute("DROP TABLE finding")
        raise RuntimeError("power cut")

    before = objects(db)
    with pytest.raises(RuntimeError):
        schema.migrate(db, {schema.VERSION + 1: half}, schema.VERSION + 1)
    assert objects(db) == before
    assert db.execute("SELECT count(*) FROM finding").fetchone() == (0,)
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_a_newer_file_is_refused_with_what_to_do(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(StorageError, match="newer edge-agent"):
        schema.migrate(db)


def test_the_running_agent_does_not_load_sqlite_utils() -> None:
    code = "import edge_agent.buffer, sys; sys.exit('sqlite_utils' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wal_is_read_as_sqlite_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        for number in range(5):
            db.execute("INSERT INTO t VALUES (?)", (number,))
        log = wal.look(tmp_path / "a.db-wal")
        _, frames, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert log is not None and log.valid
        assert len(log.commits) == frames and log.commits.count(True) == 6
        assert not log.lost(frames)
        assert not log.lost(frames - 1)  # the last commit alone may be torn
        assert log.lost(frames - 2)
    assert wal.look(tmp_path / "a.db-wal") is None  # a clean close removes it


def test_a_wal_of_zeros_was_never_synced(tmp_path: Path) -> None:
    (tmp_path / "wal").write_bytes(bytes(9000))
    assert wal.look(tmp_path / "wal") is None


def test_a_witness_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "witness.json"
    witness.write(path, witness.Witness(agent="a", log="l", seq=5, hash="00"))
    assert witness.read(path) == witness.Witness(agent="a", log="l", seq=5, hash="00")
    path.write_text(path.read_text().replace('"seq":5', '"seq":6'))
    assert witness.read(path) is None
    path.write_text("{")
    assert witness.read(path) is None


def test_a_step_kills_at_the_hit_that_was_asked_for() -> None:
    code = "from edge_agent.buffer.steps import step\nfor n in range(5): print(n, flush=True); step('after_commit')"
    environment = os.environ | {"EDGE_AGENT_KILL_AT": "after_commit:3"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL
    assert run.stdout.split() == ["0", "1", "2"]
