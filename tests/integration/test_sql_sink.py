"""Routes into a database: a real PostgreSQL that is killed, hung and broken, and SQLite for what needs no server.

What arrived is counted from outside, over a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.routes.sink import SinkRefused
from edge_agent.routes.sql import SqlSink
from edge_agent.routes.sql_settings import SqlRouteSettings
from support.delivery import buffer, running, scans, scenario, settled, until
from support.postgres import Postgres
from support.sink_line import accepted, run


@pytest.fixture(autouse=True)
def password(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MES_PASSWORD", server.password)


def settings(server: Postgres, table: str, **more: Any) -> SqlRouteSettings:
    given = {"sink": "sql", "url": server.url, "username": server.user, "password": {"env": "MES_PASSWORD"},
             "start": "oldest", "send": ["scan", "cycle_closed"], "table": table, "create": True,
             "answer_timeout": "2s"}  # fmt: skip
    return SqlRouteSettings.model_validate(given | more)


def texts(server: Postgres, table: str) -> list[str]:
    rows = server.sql(f"select body::json->>'text' from {table} where kind = 'scan' order by seq")
    return [row[0] for row in rows]


def refused(server: Postgres, table: str) -> int:
    """How many numbers were told never to come: a row that is there twice would be one."""
    return int(server.sql(f"select count(*) from {table}_missing")[0][0])


def wanted(count: int, source: str = "gate") -> list[str]:
    return [f"{source}-{i}" for i in range(count)]


@scenario
async def test_each_record_is_one_row_that_a_developer_can_use_at_once(tmp_path: Path, server: Postgres) -> None:
    async with buffer(tmp_path) as log, running(log, settings(server, "plain")) as route:
        log.append(scans(500))
        await settled(route, log)
        status = route.status()
    assert texts(server, "plain") == wanted(500)
    assert status["confirm"] == "delivered"
    assert status["dead"] == 0
    columns = "agent, log, stream, kind, source, synced, extract(epoch from at) * 1000000 - at_ns / 1000"
    (first,) = server.sql(f"select {columns} from plain where kind = 'scan' order by seq limit 1")
    assert first[:5] == ("pc1", log.log, f"{log.log}.mes.1", "scan", "gate")
    assert first[6] == 0


@scenario
async def test_a_killed_server_a_second_run_and_lost_answers_double_nothing(tmp_path: Path, server: Postgres) -> None:
    given = settings(server, "killed", message_size="4KiB")
    async with buffer(tmp_path) as log, running(log, given) as route:
        for part in range(6):
            log.append(scans(200, f"part{part}"))
            await until(lambda: route.status()["pending"] < 150, route.status)
            server.kill()
            server.start()
        await settled(route, log)
    async with buffer(tmp_path) as log, running(log, given) as route:
        await settled(route, log)
    assert sorted(texts(server, "killed")) == sorted(text for part in range(6) for text in wanted(200, f"part{part}"))
    assert refused(server, "killed") == 0


@scenario
async def test_a_message_is_in_the_table_whole_or_not_at_all(tmp_path: Path, server: Postgres) -> None:
    """Killed in mid-transaction: a trigger sleeps at the 30th row of the only message."""
    given = settings(server, "halved", answer_timeout="20s")
    async with buffer(tmp_path) as log:
        async with connected(SqlSink("mes", given)):
            pass
        server.sql(
            "create function nap() returns trigger language plpgsql as"
            " $$ begin if new.body like '%gate-30\"%' then perform pg_sleep(30); end if; return new; end $$"
        )
        server.sql("create trigger nap before insert on halved for each row execute function nap()")
        async with running(log, given) as route:
            log.append(scans(60))
            await until(lambda: asleep(server), route.status)
            assert texts(server, "halved") == []
            server.kill()
            server.start()
            server.sql("drop trigger nap on halved")
            await settled(route, log)
    assert texts(server, "halved") == wanted(60)


@pytest.mark.long
@pytest.mark.parametrize("kill_at", ["progress_before:2", "before_commit:3"])
def test_a_killed_agent_has_each_record_in_one_row(tmp_path: Path, server: Postgres, kill_at: str) -> None:
    """Killed when rows are committed and the progress is not, or the other way about, were it possible."""
    table = kill_at.partition(":")[0]
    route = {"sink": "sql", "url": server.url, "username": server.user, "password": {"env": "MES_PASSWORD"},
             "table": table, "create": True, "start": "oldest", "send": ["scan"]}  # fmt: skip
    for _ in range(2):
        assert run(tmp_path, route, kill_at) == -signal.SIGKILL
    assert run(tmp_path, route) == 0
    found = texts(server, table)
    assert len(found) == len(set(found))
    assert set(found) == accepted(tmp_path)
    assert refused(server, table) == 0


def asleep(server: Postgres) -> bool:
    return bool(server.sql("select 1 from pg_stat_activity where wait_event = 'PgSleep'"))


@scenario
async def test_a_server_that_hangs_costs_one_time_out_and_no_record(tmp_path: Path, server: Postgres) -> None:
    async with buffer(tmp_path) as log, running(log, settings(server, "hung", answer_timeout="1s")) as route:
        log.append(scans(10))
        await settled(route, log)
        server.hang()
        try:
            log.append(scans(10, "late"))
            await until(lambda: route.status()["state"] != "connected", route.status)
            assert "does not answer" in route.status()["last_error"]
        finally:
            server.wake()
        await settled(route, log)
    assert texts(server, "hung") == wanted(10) + wanted(10, "late")


@scenario
async def test_only_the_row_that_a_constraint_refuses_is_a_dead_letter(tmp_path: Path, server: Postgres) -> None:
    given = settings(server, "strict")
    async with buffer(tmp_path) as log:
        async with connected(SqlSink("mes", given)):
            pass
        server.sql("alter table strict add constraint no_7 check (body not like '%gate-7\"%')")
        server.sql("create unique index once on strict ((body::json->>'text'))")
        async with running(log, given) as route:
            log.append([*scans(20), *scans(1)])  # the last has the text of the first
            await settled(route, log)
            await until(lambda: route.status()["dead"] == 2, route.status)
            reason = route.status()["last_error"]
    assert texts(server, "strict") == [text for text in wanted(20) if text != "gate-7"]
    assert "no_7" in reason or "once" in reason
    missing = server.sql("select n, count, reason from strict_missing order by n")
    assert [(row[1], "no_7" in row[2] or "once" in row[2]) for row in missing] == [(1, True), (1, True)]
    numbers = {row[0] for row in server.sql("select n from strict")} | {row[0] for row in missing}
    assert numbers == set(range(1, len(numbers) + 1))


@scenario
async def test_a_row_that_is_there_is_left_as_it_is(tmp_path: Path, server: Postgres) -> None:
    """The reader marks what he took; a message that comes once more must not undo that."""
    given = settings(server, "marked")
    async with buffer(tmp_path) as log, running(log, given) as route:
        log.append(scans(5))
        await settled(route, log)
        server.sql("alter table marked add taken boolean not null default false")
        server.sql("update marked set taken = true")
        lanes = await asyncio.to_thread(log.replay, "mes", first_seq=1, last_seq=log.durable_seq)
        assert lanes
        log.append(scans(1, "after"))
        await settled(route, log)
        await until(lambda: not [lane for lane in route.status().get("lanes", ()) if lane.get("purpose") == "replay"])
    assert texts(server, "marked") == [*wanted(5), "after-0"]
    assert server.sql("select count(*) from marked where not taken") == [(1,)]
    assert refused(server, "marked") == 0


@contextlib.asynccontextmanager
async def connected(sink: SqlSink) -> AsyncIterator[SqlSink]:
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


@pytest.mark.parametrize(
    ("before", "more", "words"),
    [
        ((), {"create": False}, "no table"),
        (("create table {0} (agent text, log text, seq bigint)",), {}, "no column stream, n"),
        (("create table like_{0} (a int)",), {"username": "nobody"}, "authentication failed"),
        ((), {"password": {"env": "NOT_SET"}}, "NOT_SET is not set"),
        ((), {"url": "postgresql://127.0.0.1:{port}/nowhere"}, "does not exist"),
        ((), {"options": {"sslmode": "require"}}, "SSL"),
    ],
)
@scenario
async def test_what_somebody_must_change_is_refused_with_a_hint(
    server: Postgres, before: tuple[str, ...], more: dict[str, Any], words: str
) -> None:
    table = "refused_" + "".join(filter(str.isalnum, words))[:20].lower()
    for statement in before:
        server.sql(statement.format(table))
    given = {key: value.format(port=server.port) if key == "url" else value for key, value in more.items()}
    with pytest.raises(Exception, match=words) as caught:
        async with connected(SqlSink("mes", settings(server, table, **given))):
            pass
    if "SSL" not in words:  # a server without TLS may get it; nobody has to act on this side
        assert isinstance(caught.value, SinkRefused)
    assert getattr(caught.value, "hint", "")
    assert server.password not in str(caught.value)


@scenario
async def test_a_table_that_would_double_or_lose_records_is_refused(server: Postgres) -> None:
    async with connected(SqlSink("mes", settings(server, "odd"))):
        pass
    server.sql("alter table odd drop constraint odd_pkey")
    with pytest.raises(SinkRefused, match="no primary key or unique index over agent, log, seq"):
        async with connected(SqlSink("mes", settings(server, "odd"))):
            pass
    server.sql("create unique index odd_key on odd (log, seq, agent)")
    async with connected(SqlSink("mes", settings(server, "odd"))):
        pass
    server.sql("alter table odd add batch text not null")
    with pytest.raises(SinkRefused, match="demands a value for batch"):
        async with connected(SqlSink("mes", settings(server, "odd"))):
            pass


@scenario
async def test_a_user_who_may_only_insert_needs_nothing_else(tmp_path: Path, server: Postgres) -> None:
    async with connected(SqlSink("mes", settings(server, "narrow"))):
        pass
    server.sql(f"create role writer login password '{server.password}'")
    server.sql("grant insert, select on narrow to writer")
    server.sql("grant insert, select, delete on narrow_missing to writer")
    given = settings(server, "narrow", username="writer", create=False)
    async with buffer(tmp_path) as log, running(log, given) as route:
        log.append(scans(5))
        await settled(route, log)
    assert texts(server, "narrow") == wanted(5)


@scenario
async def test_an_idle_route_notices_that_the_server_is_gone(
    tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.routes.sql.PING_S", 0.05)
    async with buffer(tmp_path) as log, running(log, settings(server, "idle")) as route:
        log.append(scans(1))
        await settled(route, log)
        server.kill()
        try:
            await until(lambda: route.status()["state"] in ("waiting", "connecting"), route.status)
        finally:
            server.start()
        await until(lambda: route.status()["state"] == "connected", route.status)


@scenario
async def test_tls_is_used_as_the_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Postgres(ssl=True) as server:
        monkeypatch.setenv("MES_PASSWORD", server.password)
        ca = tmp_path / "ca.crt"
        ca.write_bytes(server.certificate.read_bytes())
        options = {"sslmode": "verify-full", "sslrootcert": str(ca)}
        async with connected(SqlSink("mes", settings(server, "safe", options=options))):
            assert server.sql("select ssl from pg_stat_ssl join pg_stat_activity using (pid)"
                              " where application_name = 'edge-agent'") == [(True,)]  # fmt: skip
        wrong = {"sslmode": "verify-full", "sslrootcert": "/etc/ssl/certs/ca-certificates.crt"}
        with pytest.raises(Exception, match="certificate verify failed"):
            async with connected(SqlSink("mes", settings(server, "safe", options=wrong))):
                pass


# --- without a server ------------------------------------------------------------------------------------------


@scenario
async def test_sqlite_serves_too_and_a_second_time_doubles_nothing(tmp_path: Path) -> None:
    given = {"sink": "sql", "url": f"sqlite:///{tmp_path}/staging.db", "start": "oldest", "send": ["scan"],
             "create": True}  # fmt: skip
    async with buffer(tmp_path) as log, running(log, SqlRouteSettings.model_validate(given)) as route:
        log.append(scans(1000))
        await settled(route, log)
    async with buffer(tmp_path) as log, running(log, SqlRouteSettings.model_validate(given), "second") as route:
        await settled(route, log)
    with contextlib.closing(sqlite3.connect(tmp_path / "staging.db")) as database:
        rows = database.execute("select count(*), count(distinct body) from edge_records where kind = 'scan'")
        assert rows.fetchone() == (1000, 1000)
