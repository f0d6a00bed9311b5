"""Receiver, route, buffer and broker together: nothing lost, nothing double, through kills on every side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock
from edge_agent.errors import StorageError
from edge_agent.model import Kind, Record
from edge_agent.receiver import Gap, Received, Receiver, RecordRejected
from edge_agent.receiver.receiver import ReceiverRefused
from support.delivery import ROOT, Watcher, buffer, running, scans, settings, settled, threaded, until
from support.mosquitto import Mosquitto, free_port
from support.postgres import Postgres

PAGE = (Path(__file__).parents[2] / "docs" / "receiver.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)  # SQLite, PostgreSQL, by hand
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)  # for both, but for one of SQLite's and one of PostgreSQL's
(SQLITES,) = [query for query in QUERIES if "json_extract" in query]
(POSTGRES,) = [query for query in QUERIES if "json_array_elements" in query]
BOTH = [one for query in QUERIES if query not in (SQLITES, POSTGRES) for one in query.split(";") if one.strip()]


def texts(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("SELECT body FROM record WHERE kind = 'scan'").fetchall()
        return sorted(json.loads(body)["text"] for (body,) in rows)
    finally:
        connection.close()


@contextlib.contextmanager
def receiving(url: str, database: Path | None, **more: Any) -> Iterator[Receiver]:
    receiver = Receiver(url, "acme/#", database, **more)
    with threaded(receiver.run, receiver.stop):
        yield receiver


@contextlib.contextmanager
def child(*arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process that does not outlive the test."""
    process = subprocess.Popen([sys.executable, *arguments], text=True, stdout=subprocess.PIPE, **more)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_broker_agent_and_receiver_are_killed_and_everything_is_there_once(tmp_path: Path) -> None:
    database = tmp_path / "records.db"

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            with receiving(broker.url, database):
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(300, "one"))
                    await settled(route, store)
                    broker.kill()
                    store.append(scans(300, "two"))
                    await asyncio.sleep(0.2)
                    broker.start()
                    store.append(scans(300, "three"))
                    await asyncio.sleep(0.1)
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(300, "four"))
                    await settled(route, store)
                    assert route.status()["confirm"] == "delivered"
            with receiving(broker.url, database) as receiver:
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(300, "five"))
                    await settled(route, store)
                assert receiver.counts["gaps"] == 0

    asyncio.run(scenario())
    expected = sorted(f"{name}-{i}" for name in ("one", "two", "three", "four", "five") for i in range(300))
    assert texts(database) == expected


KILLED = """
import os, signal, sys
from edge_agent.receiver import Receiver, store
commit = store.Store.take
def take(self, messages, *more):
    outcome = commit(self, messages, *more)
    if messages:
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome
store.Store.take = take
Receiver(sys.argv[1], "acme/#", sys.argv[2]).run()
"""


def test_a_receiver_killed_between_commit_and_confirmation_makes_no_double(tmp_path: Path) -> None:
    database = tmp_path / "records.db"

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, child("-c", KILLED, broker.url, str(database)) as victim:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(50))
                await until(lambda: victim.poll() == -signal.SIGKILL)
                connection = sqlite3.connect(database)
                assert connection.execute("SELECT count(*) FROM record").fetchone()[0] > 0, "it had committed"
                connection.close()
                assert route.status()["confirmed_n"] == 0, "committed, but nobody said so"
                with receiving(broker.url, database) as receiver:
                    await settled(route, store)
                    assert receiver.counts["duplicates"] > 0

    asyncio.run(scenario())
    assert texts(database) == sorted(f"gate-{i}" for i in range(50))


def test_a_refusal_travels_back_and_the_rest_is_delivered(tmp_path: Path) -> None:
    def on_record(db: sqlite3.Connection, record: Received) -> None:
        if record.body.get("text") == "gate-7":
            raise RecordRejected("unknown part number")

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, receiving(broker.url, tmp_path / "records.db", on_record=on_record):
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(20))
                await settled(route, store)
                await until(lambda: route.status()["dead"] == 1)

    asyncio.run(scenario())
    assert len(texts(tmp_path / "records.db")) == 19


def test_a_new_receiver_begins_where_the_stream_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                with receiving(broker.url, tmp_path / "old.db"):
                    store.append(scans(50, "old"))
                    await settled(route, store)
                with receiving(broker.url, tmp_path / "new.db") as receiver:
                    store.append(scans(50, "new"))
                    await settled(route, store)
                    assert receiver.counts["gaps"] == 0

    asyncio.run(scenario())
    assert texts(tmp_path / "new.db") == sorted(f"new-{i}" for i in range(50))


def test_a_receiver_restored_from_a_backup_says_what_it_lost_and_goes_on(tmp_path: Path) -> None:
    gaps: list[Gap] = []

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                with receiving(broker.url, tmp_path / "records.db"):
                    store.append(scans(10, "saved"))
                    await settled(route, store)
                backup = (tmp_path / "records.db").read_bytes()
                with receiving(broker.url, tmp_path / "records.db"):
                    store.append(scans(10, "lost"))
                    await settled(route, store)
                (tmp_path / "records.db").write_bytes(backup)
                with receiving(broker.url, tmp_path / "records.db", on_gap=gaps.append):
                    store.append(scans(10, "after"))
                    await settled(route, store)

    asyncio.run(scenario())
    assert [(gap.first_n, gap.last_n, gap.lost, gap.state) for gap in gaps[:1]] == [(12, 21, True, "open")]


def test_a_gap_is_noticed_while_it_is_open_and_forgotten_when_it_is_filled(tmp_path: Path) -> None:
    gaps: list[Gap] = []

    def message(n: int) -> dict[str, Any]:
        record = {"n": n, "seq": n, "at_ns": "1", "mono_ns": "1", "text": f"t{n}"}
        return {"v": 1, "agent": "pc1", "stream": "aaaaaaaaaaaa.mes.1", "log": "aaaaaaaaaaaa", "boot": "b", "n": n,
                "after": 0, "source": "gate", "kind": "scan", "confirm": "", "records": [record]}  # fmt: skip

    async def scenario() -> None:
        database = tmp_path / "records.db"
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as hand:
            with receiving(broker.url, database, on_gap=gaps.append, gap_after_s=0.3) as receiver:
                await until(lambda: receiver.connected)
                for n in (1, 4):
                    await asyncio.to_thread(hand.publish, f"{ROOT}/gate/scan", message(n))
                await until(lambda: len(gaps) == 1)
                assert (gaps[0].first_n, gaps[0].last_n, gaps[0].lost) == (2, 3, False)
                assert (gaps[0].log, gaps[0].first_seq, gaps[0].last_seq) == ("aaaaaaaaaaaa", 2, 3)
                for n in (2, 3):
                    await asyncio.to_thread(hand.publish, f"{ROOT}/gate/scan", message(n))
                await until(lambda: len(gaps) == 2)
                assert (gaps[1].state, receiver.counts["gaps_filled"]) == ("filled", 1)
            connection = sqlite3.connect(database)
            assert connection.execute("SELECT first_n, last_n, state FROM gap").fetchall() == [(2, 3, "filled")]
            connection.close()

    asyncio.run(scenario())


def test_hostile_messages_are_set_aside_and_the_rest_is_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = tmp_path / "records.db"
        hostile = [b"", b"{", b"[]", b"\xff" * 1000, b'{"v":1}', b'{"v":1,"records":[{}]}', b"[" * 50_000,
                   b'{"v":1,"agent":"x","stream":"s","log":"aaaaaaaaaaaa","source":"s","kind":"scan","n":1,'
                   b'"confirm":"plc/write","records":[{"n":1,"seq":1,"at_ns":"1","mono_ns":"1"}]}']  # fmt: skip
        with Mosquitto(tmp_path) as broker, Watcher(broker.url, "plc/#") as hand:
            with receiving(broker.url, database) as receiver:
                await until(lambda: receiver.connected)
                for payload in hostile:
                    await asyncio.to_thread(hand.publish, f"{ROOT}/gate/scan", payload)
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(10))
                    await settled(route, store)
                assert receiver.counts["bad_messages"] == len(hostile)
            assert hand.messages == [], "nobody can make the receiver publish to a topic of his choice"
        assert len(texts(database)) == 10

    asyncio.run(scenario())


def test_refusals_and_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, users={"mes": "right"}) as broker:
        wrong = Receiver(broker.url, "acme/#", tmp_path / "r.db", username="mes", password="wrong")
        with pytest.raises(ReceiverRefused) as caught:
            wrong.run()
        assert "password" in caught.value.hint
    (tmp_path / "text.db").write_text("this is no database, but a long enough text\n" * 100)
    with pytest.raises(StorageError):
        Receiver("mqtt://127.0.0.1:1", "#", tmp_path / "text.db").run()


# --- docs/receiver.md -------------------------------------------------------------------------------------------


CLOSED: dict[str, Any] = {
    "cycle": "aaaaaaaaaaaa-1", "config": "c", "station": "OP20", "step": "press", "position": 1, "opened_at_ns": "1",
    "ended_at_ns": "2", "closed_by": "edge", "result": "Failed", "complete": True, "missing": [], "collected": [],
    "context": {}, "attempt": 1, "windows": {}, "binding": {"state": "orphan"},
}  # fmt: skip


@contextlib.contextmanager
def program_running(program: str, folder: Path, port: int, database: str) -> Iterator[None]:
    """A program of the page with its addresses replaced."""
    here = program.replace("127.0.0.1:1883", f"127.0.0.1:{port}").replace('1", 1883', f'1", {port}')
    assert here != program
    with child("-c", here.replace("postgresql://mes@db-server:5432/mes", database), cwd=folder):
        yield


async def two_outages(folder: Path, broker: Mosquitto) -> None:
    """60 scans and a failed cycle, with the broker killed between."""
    failed = Record(Kind.CYCLE_CLOSED, "OP20", clock.now(), CLOSED)
    async with buffer(folder) as store:
        more = {"send": ["scan", "cycle_closed"]}
        async with running(store, settings(broker.url, **more)) as route:
            store.append([*scans(30), failed])
            await settled(route, store)
            broker.kill()
            store.append(scans(30, "later"))
            broker.start()
            await settled(route, store)
            assert route.status()["dead"] == 0


@pytest.mark.parametrize(("program", "database"), [(PROGRAMS[0], "records.db"), (PROGRAMS[2], "mine.db")])
def test_the_programs_of_the_page_receive_and_confirm(tmp_path: Path, program: str, database: str) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, program_running(program, tmp_path, broker.port, ""):
            await two_outages(tmp_path, broker)

    asyncio.run(scenario())
    assert len(texts(tmp_path / database)) == 60
    if database == "records.db":
        with contextlib.closing(sqlite3.connect(tmp_path / database)) as connection:
            assert connection.execute("SELECT * FROM rework").fetchall() == [(CLOSED["cycle"], "OP20")]


def test_the_program_of_the_page_and_its_queries_on_postgresql(tmp_path: Path, server: Postgres) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, program_running(PROGRAMS[1], tmp_path, broker.port, server.place):
            await two_outages(tmp_path, broker)

    asyncio.run(scenario())
    found = server.sql("SELECT body ->> 'text' FROM edge_agent.record WHERE kind = 'scan'")
    assert len({text for (text,) in found}) == len(found) == 60
    assert server.sql("SELECT * FROM rework") == [(CLOSED["cycle"], "OP20")]
    for query in [*BOTH, POSTGRES, *(f"SELECT * FROM {name}" for name in tables())]:
        server.sql("SET search_path = edge_agent, public;" + query)


def test_the_queries_of_the_page_run(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, receiving(broker.url, tmp_path / "records.db"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        for query in [*BOTH, SQLITES, *(f"SELECT * FROM {name}" for name in tables())]:
            connection.execute(query)


def tables() -> list[str]:
    """The tables and views that the page lists."""
    table = PAGE.partition("| table or view |")[2].partition("\n\n")[0]
    return re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)))


# --- edge-agent listen ------------------------------------------------------------------------------------------


def listen(*arguments: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return child("-m", "edge_agent", "listen", *arguments, stderr=subprocess.STDOUT, env=environment)


def test_listen_stores_confirms_and_ends_with_0(tmp_path: Path) -> None:
    async def scenario() -> str:
        with Mosquitto(tmp_path) as broker:
            database = str(tmp_path / "records.db")
            with listen(broker.url, "--topic", "acme/#", "--db", database, "--json") as process:
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(10))
                    await settled(route, store)
                process.send_signal(signal.SIGTERM)
                out, _ = await asyncio.to_thread(process.communicate, timeout=10)
                assert process.returncode == 0, out
                return out

    last = json.loads(asyncio.run(scenario()).splitlines()[-1])
    assert last["event"] == "counts"
    assert last["records"] >= 11
    assert len(texts(tmp_path / "records.db")) == 10


def test_listen_without_a_database_only_watches(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, listen(broker.url, "--records", "--json") as process:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(3))
                out = ""
                while "gate-2" not in out:
                    out += await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)  # type: ignore[union-attr]
                assert route.status()["confirmed_n"] == 0

    asyncio.run(scenario())


def test_listen_says_why_it_cannot(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, users={"mes": "right"}) as broker,
        listen(broker.url, "--db", str(tmp_path / "r.db")) as process,
    ):
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 69
        assert "check user name and password" in out
    (tmp_path / "text.db").write_text("no database\n" * 1000)
    with listen(f"mqtt://127.0.0.1:{free_port()}", "--db", str(tmp_path / "text.db")) as process:
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 73


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["foo"], "'foo' names no broker\n  → write mqtt://host:1883 or mqtts://host:8883\n"),
        (["mqtt://host", "--topic", "acme/#/a"], "'acme/#/a' is no topic filter\n  → write e.g. --topic 'acme/#'"),
        (["mqtt://host", "--topic", "ac+/#"], "'ac+/#' is no topic filter"),
        (["mqtt://host", "--topic", ""], "'' is no topic filter"),
        (["mqtt://host", "--group", "mes", "--old-mqtt"], "a group needs MQTT 5\n  → leave --old-mqtt out"),
        (["mqtt://"], "'mqtt://' names no broker"),
        (["mqtt://host:x"], "'mqtt://host:x' names no broker"),
        (["mqtt://127.0.0.1:1", "--password-file", "/nope"], "/nope cannot be read: No such file or directory\n  → "),
        (["mqtts://127.0.0.1:1", "--ca", "/nope"], "/nope cannot be read: No such file or directory\n  → "),
    ],
)
def test_listen_says_at_once_what_is_wrong_with_its_command_line(arguments: list[str], told: str) -> None:
    with listen(*arguments, "--lang", "en") as process:
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 2
    assert out.startswith(told)


def test_listen_waits_for_a_broker_and_says_why_in_words() -> None:
    with listen(f"mqtt://127.0.0.1:{free_port()}") as process:
        line = process.stdout.readline()  # type: ignore[union-attr]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert "Connection refused" in line
    assert "Errno" not in line
