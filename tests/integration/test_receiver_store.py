"""The receiver's database: once each, whatever the order; refused by number; readings with their serial.

Every test runs on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StorageError
from edge_agent.receiver import tracker
from edge_agent.receiver.message import Message, Received, parse
from edge_agent.receiver.store import RecordRejected, Store
from edge_agent.receiver.tracker import Range
from support.postgres import Postgres

LOG = "aaaaaaaaaaaa"
CONFIRM = "e/s/a/l/_agent/pc1/confirm"


def message(kind: str, source: str, *bodies: dict[str, Any], log: str = LOG, seqs: list[int] | None = None,
            ns: list[int] | None = None, after: int = 0) -> Message:  # fmt: skip
    seqs = seqs or list(range(1, len(bodies) + 1))
    ns = ns or seqs
    records = [
        {"n": n, "seq": seq, "at_ns": str(10**18 + seq), "mono_ns": "5", **body}
        for n, seq, body in zip(ns, seqs, bodies, strict=True)
    ]
    head = {"v": 1, "agent": "pc1", "stream": f"{log}.mes.1", "log": log, "boot": "b", "source": source, "kind": kind,
            "n": ns[0], "after": after, "confirm": CONFIRM, "records": records}  # fmt: skip
    return parse(json.dumps(head).encode())


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    opened = Store(place)
    yield opened
    opened.close()


def confirmed(store: Store, *messages: Message) -> dict[str, Any]:
    ((topic, payload),) = store.take(messages).confirmations
    assert topic == CONFIRM
    said: dict[str, Any] = json.loads(payload)
    return said


def count(store: Store, table: str = "record") -> int:
    return int(store.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_record_is_stored_once_and_confirmed_again(store: Store) -> None:
    bodies = [{"x": 1}, {"x": 2}, {"x": 3}]
    assert confirmed(store, message("scan", "gate", *bodies))["upto"] == 3
    assert confirmed(store, message("scan", "gate", *bodies))["upto"] == 3, "who sends again has not heard us"
    assert count(store) == 3
    assert store.counts["duplicates"] == 3


def test_a_hole_holds_upto_until_it_is_filled(store: Store) -> None:
    assert confirmed(store, message("scan", "gate", {}, {}, seqs=[1, 5]))["upto"] == 1
    assert store.tracker("pc1", f"{LOG}.mes.1").holes() == [(2, 4, 2, 4)]
    stone = parse(
        json.dumps(
            {"v": 1, "agent": "pc1", "stream": f"{LOG}.mes.1", "log": LOG, "boot": "b", "source": "agent",
             "kind": "tombstone", "n": 2, "confirm": CONFIRM, "records": [{"n": 2, "count": 3, "reason": "dropped"}]}
        ).encode()
    )  # fmt: skip
    assert confirmed(store, stone)["upto"] == 5
    assert store.tracker("pc1", f"{LOG}.mes.1").holes() == []


def test_what_is_settled_elsewhere_is_reported_as_lost_and_does_not_block(store: Store) -> None:
    store.take([message("scan", "gate", {}, seqs=[1])])
    outcome = store.take([message("scan", "gate", {}, seqs=[50], after=49)])
    assert [(gap.first_n, gap.last_n, gap.lost) for gap in outcome.gaps] == [(2, 49, True)]
    assert json.loads(outcome.confirmations[0][1])["upto"] == 50


def test_state_survives_closing(place: str) -> None:
    for seq, upto in ((1, 1), (3, 1), (2, 3)):
        store = Store(place)
        assert confirmed(store, message("scan", "gate", {}, seqs=[seq]))["upto"] == upto
        store.close()


def test_the_callback_refuses_one_record_and_its_own_writes_go_with_it(place: str) -> None:
    def on_record(db: Any, record: Received) -> None:
        mark = "?" if isinstance(db, sqlite3.Connection) else "%s"
        db.execute(f"INSERT INTO seen VALUES ({mark})", (record.body["part"],))
        if record.body["part"] == "P?":
            raise RecordRejected("unknown part number")

    store = Store(place, on_record)
    store.database.execute("CREATE TABLE seen (part TEXT)")
    said = confirmed(store, message("scan", "gate", {"part": "P1"}, {"part": "P?"}, {"part": "P2"}))
    assert said["upto"] == 3
    assert said["nack"] == [{"n": 2, "reason": "unknown part number"}]
    assert [row[0] for row in store.database.execute("SELECT part FROM seen")] == ["P1", "P2"]
    assert count(store) == 2
    confirmed(store, message("scan", "gate", {"part": "P1"}))
    assert count(store, "seen") == 2, "the callback sees a record once"
    assert confirmed(store, message("scan", "gate", {"part": "P3"}, seqs=[4], after=3))["nack"] == []
    store.close()


def test_a_callback_that_fails_leaves_nothing_of_the_batch(place: str) -> None:
    def on_record(db: Any, record: Received) -> None:
        if record.seq == 3:
            raise ZeroDivisionError

    store = Store(place, on_record)
    with pytest.raises(ZeroDivisionError):
        store.take([message("scan", "gate", {}, {}, {})])
    assert count(store) == count(store, "stream") == 0
    store.close()


def test_a_body_that_makes_no_sense_refuses_itself_only(store: Store) -> None:
    bad = message("config", "agent", {"config": "c", "stations": {"OP10": {"positions": "a text"}}}, seqs=[2])
    said = confirmed(store, message("scan", "gate", {}, seqs=[1]), bad, message("scan", "gate", {}, seqs=[3]))
    assert said["upto"] == 3
    assert [nack["n"] for nack in said["nack"]] == [2]
    assert count(store) == 2
    assert count(store, "rejected") == 1


def test_what_is_set_aside_is_bounded(store: Store) -> None:
    for _ in range(3):
        store.take([], [("a/b", "no JSON", b"x" * 10_000)] * 600)
    assert count(store, "rejected") == 1000
    assert store.database.execute("SELECT max(length(payload)) FROM rejected").fetchone() == (4096,)


def test_a_user_who_was_given_the_schema_needs_no_right_to_make_one(server: Postgres) -> None:
    server.sql("DROP SCHEMA IF EXISTS edge_agent CASCADE")
    server.sql("DROP ROLE IF EXISTS consumer")
    server.sql("CREATE ROLE consumer LOGIN PASSWORD 'secret'")
    server.sql("CREATE SCHEMA edge_agent AUTHORIZATION consumer")  # as docs/receiver.md says
    for _ in range(2):
        opened = Store(f"postgresql://consumer:secret@127.0.0.1:{server.port}/{server.database}")
        assert confirmed(opened, message("scan", "gate", {"status": "read", "stations": []}))["upto"] == 1
        opened.close()


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE invoice (id)")
    other.commit()
    other.close()
    with pytest.raises(StorageError, match="other tables"):
        Store(tmp_path / "other.db")
    (tmp_path / "noise.db").write_bytes(random.Random(1).randbytes(5000))
    with pytest.raises(StorageError):
        Store(tmp_path / "noise.db")


WITHOUT_VERSION_3 = (
    "".join(
        f"DROP TRIGGER on_{name};"
        for name in ("genealogy", "consumption", "completeness", "material", "hold_ack", "unit_status", "finding",
                     "finding_ack")
    )
    + "DROP TABLE genealogy; DROP TABLE consumption; DROP TABLE material; DROP TABLE hold; DROP TABLE unit_status;"
    "DROP TABLE line_finding; ALTER TABLE cycle DROP COLUMN completeness;"
)  # fmt: skip


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.db")
    store.take([message("scan", "gate", {}, {}, {}, seqs=[1, 2, 5])])
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "records.db")) as old:
        old.executescript(
            WITHOUT_VERSION_3 + "DROP VIEW cycle_current; DROP TABLE gap; DROP TABLE anchor; DROP TABLE finding;"
            "CREATE TABLE gap (agent); ALTER TABLE stream DROP COLUMN upto_seq; ALTER TABLE stream DROP COLUMN log;"
            "ALTER TABLE stream DROP COLUMN confirm; UPDATE stream SET ranges = '[[5,5]]'; PRAGMA user_version = 1"
        )
    store = Store(tmp_path / "records.db")
    assert confirmed(store, message("scan", "gate", {}, seqs=[3]))["upto"] == 3
    outcome = store.take([message("scan", "gate", {}, seqs=[9], after=8)])
    assert [(gap.first_n, gap.last_n, gap.log) for gap in outcome.gaps] == [(4, 4, LOG), (6, 8, LOG)]
    assert count(store) == 5
    store.close()


# --- readings --------------------------------------------------------------------------------------------------

CONFIG = {"config": "c1", "devices": {"press": "modbus"}, "stations": {"OP20": {
    "step": "press-fit", "identity": "before", "positions": {"1": {"claims": {"press.result": ["force"]},
                                                                   "characteristics": ["peak"]}}}}}  # fmt: skip
TAGSET = {"tagset": "t1", "device": "press", "group": "result",
          "tags": [{"name": "force", "type": "float32", "unit": "kN"},
                   {"name": "spare", "type": "int16", "unit": ""}]}  # fmt: skip


def life(log: str, cycle: str, serial: str, first_seq: int) -> list[Message]:
    """A whole cycle: two samples inside, one outside; bound by a scan."""
    samples = [{"tagset": "t1", "took_us": 5, "values": [seq + 0.5, 7]} for seq in range(first_seq, first_seq + 3)]
    samples[1]["status"] = {"0": "not a number"}
    opened = {"cycle": cycle, "config": "c1", "station": "OP20", "step": "press-fit", "position": 1,
              "opened_by": "scan", "attempt": 1, "context": {}, "evidence": []}  # fmt: skip
    closed = opened | {"opened_at_ns": "1", "ended_at_ns": "2", "closed_by": "handshake", "result": "Passed",
                       "complete": True, "windows": {"press.result": [[first_seq, first_seq + 1]]},
                       "binding": {"state": "bound", "unit": "u1", "serial": serial}}  # fmt: skip
    binding = {"binding": "b1", "cycle": cycle, "state": "bound", "unit": "u1", "serial": serial, "rule": "scan"}
    seqs = list(range(first_seq, first_seq + 3))
    return [
        message("config", "agent", CONFIG, log=log, seqs=[2]),
        message("tagset", "press.result", TAGSET, log=log, seqs=[3]),
        message("sample", "press.result", *samples, log=log, seqs=seqs),
        message("cycle_opened", "OP20", opened, log=log, seqs=[first_seq + 10]),
        message("binding", "OP20", binding, log=log, seqs=[first_seq + 11]),
        message("cycle_closed", "OP20", closed, log=log, seqs=[first_seq + 12]),
    ]


def readings(store: Store, serial: str) -> list[tuple[Any, ...]]:
    value = "value::float8" if "psycopg" in type(store.connection).__module__ else "value"
    return store.database.execute(
        f"SELECT station, step, position, cycle, binding_state, tag, {value}, tag_unit, status, seq FROM reading"
        " WHERE serial = ? ORDER BY seq", (serial,)
    ).fetchall()  # fmt: skip


EXPECTED: list[tuple[Any, ...]] = [
    ("OP20", "press-fit", 1, "c-1", "bound", "press.force", 10.5, "kN", None, 10),
    ("OP20", "press-fit", 1, "c-1", "bound", "press.force", 11.5, "kN", "not a number", 11),
]


@pytest.mark.parametrize("seed", range(8))
def test_readings_show_under_their_serial_whatever_the_order_of_arrival(store: Store, seed: int) -> None:
    messages = life(LOG, "c-1", "SN1", 10)
    random.Random(seed).shuffle(messages)
    for each in messages:
        store.take([each])
    assert readings(store, "SN1") == EXPECTED


@pytest.mark.parametrize("late", [True, False])
def test_a_rebind_moves_every_reading(store: Store, late: bool) -> None:
    rebind = message(
        "binding", "OP20", {"binding": "b2", "cycle": "c-1", "state": "bound", "unit": "u2", "serial": "SN8",
                            "rule": "manual", "supersedes": "b1"}, seqs=[900]
    )  # fmt: skip
    messages = life(LOG, "c-1", "SN7", 10)
    for each in [*messages, rebind] if late else [rebind, *messages]:
        store.take([each])
    assert readings(store, "SN7") == []
    assert readings(store, "SN8") == EXPECTED
    row = store.database.execute("SELECT state, serial, rule FROM binding_current").fetchall()
    assert row == [("bound", "SN8", "manual")]


def test_after_a_restored_snapshot_the_same_seq_of_another_log_is_not_mixed_in(store: Store) -> None:
    fork = "bbbbbbbbbbbb"
    store.take([message("log_opened", "agent", {"log": LOG, "agent": "pc1"}, seqs=[1])])
    opened = {"log": fork, "agent": "pc1", "previous": {"log": LOG, "seq": 5, "hash": ""}}
    store.take([message("log_opened", "agent", opened, log=fork, seqs=[6])])
    for each in [*life(LOG, "c-1", "SN1", 10), *life(fork, "c-2", "SN2", 10)]:
        store.take([each])
    assert len(readings(store, "SN1")) == len(readings(store, "SN2")) == 2


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]])
def test_a_cycle_that_lived_through_restarts_finds_its_samples_in_the_earlier_logs(
    store: Store, order: list[int]
) -> None:
    logs = ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"]
    previous = [None, {"log": logs[0], "seq": 12}, {"log": logs[1], "seq": 14}]
    opened = [
        message("log_opened", "agent", {"log": log, "previous": before}, log=log, seqs=[seq])
        for log, before, seq in zip(logs, previous, (1, 13, 15), strict=True)
    ]
    config, tagset, samples, begun, bound, closed = life(logs[0], "c-1", "SN1", 10)
    numbers = [Range(1, 1, 30, 30)]
    closed = Message(
        closed.agent, f"{logs[2]}.mes.1", logs[2], closed.kind, closed.source, 0, "", closed.records, numbers
    )
    for each in [config, tagset, samples, begun, bound, *(opened[index] for index in order), closed]:
        store.take([each])
    assert readings(store, "SN1") == EXPECTED


def test_finding_a_serial_reads_only_what_is_needed(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.db")
    plan = store.database.execute("EXPLAIN QUERY PLAN SELECT * FROM reading WHERE serial = 'SN1'").fetchall()
    scans = [step[3] for step in plan if step[3].startswith("SCAN") and "VIRTUAL TABLE" not in step[3]]
    assert scans == []
    store.close()


def test_a_loss_is_told_even_by_a_message_that_has_to_come_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed(store, message("scan", "gate", {"x": 1}))
    monkeypatch.setattr(tracker, "MAX_RANGES", 0)
    outcome = store.take([message("scan", "gate", {"x": 9}, seqs=[9], after=5)])  # 6 to 8 are yet to come
    assert outcome.confirmations == [] and store.counts["deferred"] == 1
    assert [(gap.first_n, gap.last_n, gap.lost) for gap in outcome.gaps] == [(2, 5, True)]
    assert count(store, "gap") == 1
