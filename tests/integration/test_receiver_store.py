"""The receiver's database: once each, whatever the order; refused by number; readings with their serial.

Every test runs on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
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
    "DROP TRIGGER on_attempt; DROP TRIGGER on_attempt_kept; ALTER TABLE cycle DROP COLUMN bound_attempt;"
    "ALTER TABLE cycle DROP COLUMN attempt_seq;"
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


# --- traceability ------------------------------------------------------------------------------------------------


def closed_with(cycle: str, unit: str, serial: str, *lots: str) -> dict[str, Any]:
    materials = [{"name": "solder", "lot": lot, "certain": True} for lot in lots]
    return {"cycle": cycle, "config": "c1", "station": "OP20", "step": "s", "position": 1, "opened_at_ns": "1",
            "ended_at_ns": "2", "closed_by": "edge", "result": "Passed", "complete": True, "missing": [], "windows": {},
            "completeness": "suspect", "materials": materials, "context": {}, "collected": [], "attempt": 1,
            "binding": {"state": "bound", "unit": unit, "serial": serial}}  # fmt: skip


def built(op: str, parent: str, child: str) -> dict[str, Any]:
    return {"genealogy": f"g-{op}-{parent}", "op": op, "parent": f"u-{parent}", "parent_serial": parent,
            "child": f"u-{child}", "child_serial": child, "name": "board", "evidence": [], "by": "agent"}  # fmt: skip


def verdict(number: int, action: str, state: str = "applied") -> dict[str, Any]:
    return {"verdict_id": f"v{number}", "decision_seq": number, "action": action, "hold": "H1", "state": state,
            "subject": {"kind": "serial", "value": "CAR"}, "source": "qms", "by": "qms"}  # fmt: skip


def traced() -> list[Message]:
    """A lot in a piston, that in an engine, that in a car (and taken out of another); a hold lifted; a finding."""
    bound = {"binding": "b9", "cycle": "c-2", "state": "bound", "unit": "u-P2", "serial": "P2", "rule": "manual",
             "attempt": 3}  # fmt: skip
    finding = {"finding": "f-1", "code": "missing_step", "severity": "error", "text": "t", "serial": "CAR"}
    said = {"serial": "CAR", "step": "weld", "said_by": "mes", "result": "Passed", "complete": True, "evidence": []}
    theirs = said | {"said_by": "pc2", "cycle": "c-9", "status_at_ns": "40"}  # bound to another unit since, or to none
    return [
        message("cycle_closed", "OP20", closed_with("c-1", "u-P1", "P1", "L-1", "L-2"), seqs=[11]),
        message("cycle_closed", "OP20", closed_with("c-2", "u-P1", "P1", "L-3"), seqs=[12]),
        message("binding", "OP20", bound, seqs=[13]),
        message("genealogy", "OP20", built("install", "ENGINE", "P1"), seqs=[14]),
        message("genealogy", "OP20", built("install", "CAR", "ENGINE"), seqs=[15]),
        message("genealogy", "OP20", built("install", "OTHER", "ENGINE"), seqs=[16]),
        message("genealogy", "OP20", built("uninstall", "OTHER", "ENGINE"), seqs=[17]),
        message("hold_ack", "agent", verdict(1, "hold"), seqs=[18]),
        message("hold_ack", "agent", verdict(2, "release"), seqs=[19]),
        message("hold_ack", "agent", verdict(3, "hold", "stale"), seqs=[20]),
        message("finding", "OP20", finding, seqs=[21]),
        message("audit", "agent", {"who": "li", "action": "finding_ack", "reason": "seen", "new": {"finding": "f-1"}},
                seqs=[22]),
        message("unit_status", "agent", said | {"status_at_ns": "30"}, seqs=[23]),
        message("unit_status", "agent", said | {"status_at_ns": "20", "result": "Failed"}, seqs=[24]),
        message("unit_status", "agent", theirs | {"state": "bound"}, seqs=[26]),
        message("unit_status", "agent", theirs | {"state": "voided"}, seqs=[27]),
        message("material", "OP20", {"material": "m-1", "op": "load", "name": "solder", "lot": "L-1", "quantity": 2.5,
                                     "evidence": [], "by": "agent"}, seqs=[25]),
    ]  # fmt: skip


def asked(store: Store) -> dict[str, list[Any]]:
    """What the two queries of docs/receiver.md and the tables say."""
    page = (Path(__file__).parents[2] / "docs" / "receiver.md").read_text(encoding="utf-8")
    forward, backward = (
        sql for sql in re.findall(r"```sql\n(.*?);?\n```", page, re.S) if sql.startswith("WITH RECURSIVE")
    )
    rows = lambda sql: [tuple(row) for row in store.database.execute(sql).fetchall()]  # noqa: E731
    return {
        "forward": rows(forward.replace("L-4711", "L-1")),
        "moved": rows(forward.replace("L-4711", "L-3")),
        "backward": rows(backward.replace("SN00000042", "CAR")),
        "hold": rows("SELECT hold, subject, action, state FROM hold"),
        "finding": rows("SELECT code, serial, acknowledged_by, acknowledged_reason FROM line_finding"),
        "status": rows("SELECT serial, step, said_by, result, state FROM unit_status"),
        "cycle": rows("SELECT cycle, completeness, serial, attempt FROM cycle_current ORDER BY cycle"),
        "material": rows("SELECT station, op, lot, quantity FROM material"),
    }


TRACED = {
    "forward": [("CAR", 2), ("ENGINE", 1), ("P1", 0)],
    "moved": [("P2", 0)],
    "backward": [(0, "CAR", None, None, None), (1, "ENGINE", None, None, None), (2, "P1", "solder", "L-1", None),
                 (2, "P1", "solder", "L-2", None)],
    "hold": [("H1", "CAR", "release", "released")],
    "finding": [("missing_step", "CAR", "li", "seen")],
    "status": [("CAR", "weld", "mes", "Passed", None), ("CAR", "weld", "pc2", "Passed", "voided")],
    "cycle": [("c-1", "suspect", "P1", 1), ("c-2", "suspect", "P2", 3)],
    "material": [("OP20", "load", "L-1", 2.5)],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_traces_go_both_ways_whatever_the_order_of_arrival(store: Store, seed: int) -> None:
    messages = traced()
    random.Random(seed).shuffle(messages)
    store.take([*messages, *traced()[:3]])
    assert {name: sorted(found, key=str) for name, found in asked(store).items()} == TRACED


def test_what_came_before_the_tables_were_there_is_in_them(place: str) -> None:
    store = Store(place)
    store.take(traced())
    if "psycopg" in type(store.connection).__module__:
        for name in ("genealogy", "consumption", "material", "hold_ack", "unit_status", "finding", "finding_ack",
                     "attempt", "attempt_kept"):  # fmt: skip
            store.connection.execute(f"DROP FUNCTION edge_agent.on_{name} CASCADE")
        store.connection.execute(
            "DROP VIEW cycle_current; DROP TABLE genealogy, consumption, material, hold, unit_status, line_finding;"
            "ALTER TABLE cycle DROP COLUMN completeness, DROP COLUMN bound_attempt, DROP COLUMN attempt_seq;"
            "UPDATE format SET version = 2;"
            "CREATE VIEW cycle_current AS SELECT * FROM cycle WHERE state <> 'unknown'"
        )
    else:
        store.connection.executescript(f"{WITHOUT_VERSION_3} PRAGMA user_version = 2")
    store.close()
    store = Store(place)
    assert {name: sorted(found, key=str) for name, found in asked(store).items()} == TRACED
    assert count(store) == len(traced())
    store.take(traced())
    assert count(store) == len(traced())
    store.close()
