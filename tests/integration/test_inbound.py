"""Verdicts and unit status over a real mosquitto into the real binder and buffer: outages, kills, gaps, hostility."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock
from edge_agent.binding import Binder
from edge_agent.binding.units import Unit
from edge_agent.buffer import Buffer
from edge_agent.inbound.settings import InboundSettings
from edge_agent.inbound.source import Source, matches
from edge_agent.line import Line
from edge_agent.model import Kind
from support.binding_rig import plan
from support.delivery import IDENTITY, ROOT, Watcher, buffer, running, scenario, settings, until
from support.mosquitto import Mosquitto

VERDICTS = "acme/qms/verdicts"
REQUESTS = f"{VERDICTS}/request"
MES = "acme/mes/status"
CYCLES = "acme/sz/as/+/+/cycle_closed"
BINDINGS = "acme/sz/as/+/+/binding"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for snapshots at once."""
    monkeypatch.setattr("edge_agent.inbound.source.WATCH_S", 0.1)


class Heard:
    """A source at work, and what it has done."""

    def __init__(self, buffer: Buffer, url: str, more: dict[str, Any]) -> None:
        given = {"url": url, "verdicts": VERDICTS, "heartbeat": "30s", "status": [MES, CYCLES, BINDINGS],
                 "ack_timeout": "2s", "keepalive": "5s"}  # fmt: skip
        self.buffer = buffer
        self.binder = Binder(plan(), buffer.log, "cfg", buffer.lookup, buffer.restored())
        self.status.steps = frozenset(("glue", "wash"))
        self.source = Source("qms", InboundSettings.model_validate(given | more), IDENTITY, Line(self.binder, buffer))

    @property
    def holds(self) -> Any:
        return self.binder._floor.holds

    @property
    def status(self) -> Any:
        return self.binder._floor.status

    def on(self, serial: str) -> list[str]:
        return sorted(hold.hold for hold in self.holds.on(Unit("u", serial)))

    def count(self, what: str) -> int:
        return int(self.source.status()["counts"].get(what, 0))


@contextlib.asynccontextmanager
async def hearing(buffer: Buffer, url: str, **more: Any) -> AsyncIterator[Heard]:
    """A source at work; ended as a crash would end it."""
    heard = Heard(buffer, url, more)
    heard.source.begin()
    task = asyncio.create_task(heard.source.run())
    try:
        yield heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def verdict(number: int, action: str = "hold", hold: str = "H1", serial: str = "SN1", **more: Any) -> dict[str, Any]:
    said = {
        "v": 1, "verdict_id": f"v{number}", "decision_seq": number, "at_ns": str(clock.now().at_ns), "action": action,
        "hold": hold, "subject": {"kind": "serial", "value": serial}, "text": "scratched", "by": "qa.chen",
    }  # fmt: skip
    return said | more


def heartbeat(last: int) -> dict[str, Any]:
    return {"v": 1, "heartbeat": True, "last_decision_seq": last, "at_ns": str(clock.now().at_ns)}


def standing(number: int, hold: str, serial: str = "SN1") -> dict[str, Any]:
    return {
        "verdict_id": f"v{number}", "decision_seq": number, "action": "hold", "hold": hold,
        "subject": {"kind": "serial", "value": serial}, "by": "qa.chen",
    }  # fmt: skip


def part(request: dict[str, Any], last: int, holds: list[dict[str, Any]], number: int = 1, of: int = 1) -> Any:
    return {"v": 1, "snapshot": request["snapshot"], "last_decision_seq": last, "part": number, "parts": of,
            "holds": holds}  # fmt: skip


async def asked(qms: Watcher, times: int = 1) -> dict[str, Any]:
    """The newest request for a snapshot, once there were so many."""

    def requests() -> list[dict[str, Any]]:
        return [body for topic, body in list(qms.messages) if topic == REQUESTS]

    await until(lambda: len(requests()) >= times, requests)
    return requests()[-1]


async def answer(qms: Watcher, last: int, holds: list[dict[str, Any]], times: int = 1) -> None:
    request = await asked(qms, times)
    qms.publish(request["topic"], part(request, last, holds))


def records(folder: Path, kind: Kind) -> list[dict[str, Any]]:
    connection = sqlite3.connect(folder / "data" / "buffer.db")
    try:
        rows = connection.execute("SELECT body FROM record WHERE kind = ? ORDER BY seq", (int(kind),))
        return [json.loads(body) for (body,) in rows]
    finally:
        connection.close()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@scenario
async def test_a_verdict_is_applied_and_acknowledged_by_the_routes(tmp_path: Path, version: str) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as qms:
        async with (
            buffer(tmp_path) as store,
            hearing(store, broker.url, version=version) as heard,
            running(store, settings(broker.url, send=["hold_ack"], confirm="broker")),
        ):
            await answer(qms, 0, [])
            await until(lambda: heard.holds.basis(clock.now()) == "live", heard.source.status)
            qms.publish(VERDICTS, verdict(1))
            await until(lambda: heard.on("SN1") == ["H1"])
            qms.publish(VERDICTS, verdict(2, "release"))
            await until(lambda: len(qms.records("hold_ack")) == 2, lambda: qms.messages)
            acks = qms.records("hold_ack")
            assert [(one["verdict_id"], one["state"], one["source"]) for one in acks] == [
                ("v1", "applied", "qms"), ("v2", "applied", "qms"),
            ]  # fmt: skip
            assert heard.on("SN1") == []
            status = heard.source.status()
            assert (status["state"], status["counts"]["applied"]) == ("connected", 2)


@scenario
async def test_what_was_decided_while_the_agent_was_away_comes_when_it_is_back(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as qms:
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await answer(qms, 0, [])
            await until(lambda: not heard.holds.stale)
        qms.publish(VERDICTS, verdict(1))
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await until(lambda: heard.on("SN1") == ["H1"])
            assert heard.holds.stale, "not before a snapshot said that this is all"
            await answer(qms, 1, [standing(1, "H1")], times=2)
            await until(lambda: not heard.holds.stale, heard.source.status)
        async with buffer(tmp_path) as store:  # and without any broker
            assert [one.hold for one in store.restored().holds] == ["H1"]


@scenario
async def test_a_broker_that_is_down_is_waited_for_and_holds_stand(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            with Watcher(broker.url) as qms:
                await until(lambda: heard.source.status()["state"] == "connected", heard.source.status)
                qms.publish(VERDICTS, verdict(1))
                await until(lambda: heard.on("SN1") == ["H1"])
            broker.kill()
            await until(lambda: "listening" in heard.source.status()["hint"], heard.source.status)
            assert heard.source.status()["state"] in ("waiting", "connecting")
            assert heard.on("SN1") == ["H1"]
            broker.start()
            with Watcher(broker.url) as qms:
                await until(lambda: heard.source.status()["state"] == "connected", heard.source.status)
                qms.publish(VERDICTS, verdict(2, hold="H2"))
                await until(lambda: heard.on("SN1") == ["H1", "H2"])


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from edge_agent.buffer import Buffer
from edge_agent.inbound.source import Source
from test_inbound import buffer, hearing

take = Source._take

async def killed(self, message):
    await take(self, message)  # appended, not committed: the writer has had no time
    os.kill(os.getpid(), signal.SIGKILL)

async def waits(self, seq):
    await asyncio.sleep(0.3)  # time enough for whatever was said to the broker before to reach it
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with buffer(Path(sys.argv[2])) as store:
        async with hearing(store, sys.argv[3]):
            await asyncio.sleep(60)

if sys.argv[4] == "appended":
    Source._take = killed
else:
    Buffer.committed = waits
asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["appended", "committing"])
@scenario
async def test_killed_before_it_is_durable_the_agent_gets_the_verdict_again(tmp_path: Path, moment: str) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as qms:
        script = tmp_path / "killed.py"
        script.write_text(KILLED)
        tests = Path(__file__).parent
        argv = [sys.executable, str(script), str(tests), str(tmp_path), broker.url, moment]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent), *filter(None, sys.path)])
        }
        with subprocess.Popen(argv, env=environment) as process:  # noqa: ASYNC220  it is waited for in a thread
            await asked(qms)  # it is connected and has subscribed
            qms.publish(VERDICTS, verdict(1))
            assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await until(lambda: heard.on("SN1") == ["H1"], heard.source.status)
            await until(lambda: heard.count("applied") + heard.count("duplicate") == 1, heard.source.status)
        states = [body["state"] for body in records(tmp_path, Kind.HOLD_ACK)]
        assert states in (["applied"], ["applied", "duplicate"])


DEEP = b'{"v":1,"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
HOSTILE: list[Any] = [
    b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"v":1', DEEP, b"x" * 900_000, b'{"v":1,"v":NaN}',
    {"v": 2, "verdict_id": "v1"}, {"v": "1"}, {"v": True}, {"v": 1.0},
    verdict(1) | {"decision_seq": "1"}, verdict(1) | {"decision_seq": 0}, verdict(1) | {"decision_seq": 2**63},
    verdict(1) | {"decision_seq": True}, verdict(1) | {"action": "explode"}, verdict(1) | {"hold": ""},
    verdict(1) | {"hold": None}, verdict(1) | {"subject": {"kind": "planet", "value": "x"}},
    verdict(1) | {"subject": {"kind": "serial", "value": "SN1\n"}}, verdict(1) | {"subject": "SN1"},
    verdict(1) | {"subject": {"kind": "serial", "value": "x" * 257}}, verdict(1) | {"expires_at": "1"},
    verdict(1) | {"expires_at_ns": 5}, verdict(1) | {"expires_at_ns": "-5"}, verdict(1) | {"by": "\x1b[31m"},
    verdict(1) | {"text": "x" * 501}, verdict(1) | {"verdict_id": ["v1"]},
    {key: value for key, value in verdict(1).items() if key != "subject"},
    heartbeat(0) | {"heartbeat": False}, heartbeat(0) | {"last_decision_seq": -1}, heartbeat(0) | {"at_ns": 1},
    {"v": 1, "snapshot": "x", "last_decision_seq": 9, "part": 1, "parts": 1, "holds": []},
]  # fmt: skip


@scenario
async def test_hostile_messages_are_refused_counted_and_told_and_the_next_good_one_counts(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url, REQUESTS) as qms:
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            own = (await asked(qms))["topic"]
            for payload in HOSTILE:
                qms.publish(VERDICTS, payload)
            elsewhere = [(MES, verdict(1)), (MES, heartbeat(3)), (own, verdict(1)), (own, b"{}")]
            elsewhere += [(own, part({"snapshot": "s"}, 1, [], 2, 1)), (own, part({"snapshot": "s"}, 1, [{}]))]
            for topic, payload in elsewhere:
                qms.publish(topic, payload)
            qms.publish(VERDICTS, verdict(1, serial="SN9"))
            await until(lambda: heard.on("SN9") == ["H1"], heard.source.status)
            await until(lambda: heard.count("refused") == len(HOSTILE) + len(elsewhere), heard.source.status)
            assert len(heard.holds) == 1
            qms.publish(own, part({"snapshot": "never asked"}, 99, []))
            await until(lambda: heard.count("snapshot_unasked") == 1, heard.source.status)
            assert heard.on("SN9") == ["H1"]
        told = [body for body in records(tmp_path, Kind.FINDING) if body["code"] == "verdict_refused"]
        assert [one["details"]["count"] for one in told] == [1, 2, 4, 8, 16, 32]
        assert all(len(one["text"]) < 500 for one in told)


@scenario
async def test_retained_and_repeated_messages_do_no_harm(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as qms:
        qms._client.publish(VERDICTS, json.dumps(verdict(1)), qos=1, retain=True).wait_for_publish(5)
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await until(lambda: heard.on("SN1") == ["H1"])
            qms.publish(VERDICTS, verdict(2, "release"))
            await until(lambda: heard.on("SN1") == [])
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await until(lambda: heard.count("duplicate") == 1, heard.source.status)
            assert heard.on("SN1") == []


@scenario
async def test_after_a_gap_a_snapshot_in_parts_makes_it_whole(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as qms:
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await answer(qms, 1, [standing(1, "H1")])
            await until(lambda: not heard.holds.stale, heard.source.status)
            qms.publish(VERDICTS, heartbeat(4))  # 2, 3 and 4 never came
            await until(lambda: heard.holds.stale, heard.source.status)
            request = await asked(qms, 2)
            assert request["last_decision_seq"] == 1
            own = request["topic"]
            qms.publish(own, part(request, 4, [standing(3, "H3", "SN3")], 2, 2))
            await until(lambda: heard.on("SN3") == ["H3"])
            assert heard.holds.stale and heard.on("SN1") == ["H1"]
            qms.publish(own, part(request, 4, [standing(4, "H4", "SN4")], 1, 2))
            await until(lambda: not heard.holds.stale, heard.source.status)
            assert (heard.on("SN1"), heard.on("SN3"), heard.on("SN4")) == ([], ["H3"], ["H4"])
            await until(lambda: heard.source.status()["snapshot"] == "taken")
        assert [body["code"] for body in records(tmp_path, Kind.FINDING)] == ["verdict_gap"]


def closed(serial: str, result: str = "Passed", cycle: int = 7, seq: int = 9, **more: Any) -> dict[str, Any]:
    """A ``cycle_closed`` of another agent, as it comes."""
    body = {
        "n": 1, "seq": seq, "at_ns": "5", "mono_ns": "5", "cycle": f"9f2c41d07ab3-{cycle}", "config": "c",
        "station": "OP10", "step": "glue", "position": 1, "opened_at_ns": "1", "ended_at_ns": "1795293977820854877",
        "closed_by": "scan_out", "result": result, "complete": True, "missing": [], "collected": [], "context": {},
        "windows": {}, "attempt": 1, "binding": {"state": "bound", "unit": "9f2c41d07ab3-1", "serial": serial},
        "a_field_of_next_year": {"x": 1},
    }  # fmt: skip
    return message("cycle_closed", body | more)


def message(kind: str, body: dict[str, Any], agent: str = "pc2") -> dict[str, Any]:
    return {"v": 1, "agent": agent, "stream": "s", "log": "9f2c41d07ab3", "boot": "b", "source": "OP10", "n": 1,
            "after": 0, "confirm": "", "kind": kind, "records": [body]}  # fmt: skip


@scenario
async def test_status_of_other_agents_and_of_the_mes_comes_in(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as line:
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await asked(line)
            line.publish(f"{ROOT}/OP10/cycle_closed", closed("SN1"))
            line.publish(f"{ROOT}/OP10/cycle_closed", closed("SN8") | {"agent": "pc1"})  # our own, come back
            line.publish(MES, {"v": 1, "serial": "SN5", "step": "wash", "result": "Failed", "by": "mes-suzhou"})
            await until(lambda: heard.status.said("SN5", "wash") is not None, heard.source.status)
            said = heard.status.said("SN1", "glue")
            assert (said.result, said.source, said.state) == ("Passed", "pc2", "bound")
            assert heard.status.said("SN5", "wash").source == "mes-suzhou"
            assert heard.status.said("SN8", "glue") is None
        async with buffer(tmp_path) as store, hearing(store, broker.url) as heard:
            await until(lambda: heard.source.status()["state"] == "connected")
            assert heard.status.said("SN1", "glue").result == "Passed"  # over a restart
            rebound = {"n": 2, "seq": 40, "binding": "x-40", "cycle": "9f2c41d07ab3-7", "state": "bound",
                       "unit": "9f2c41d07ab3-2", "serial": "SN2"}  # fmt: skip
            line.publish(f"{ROOT}/OP10/binding", message("binding", rebound))
            await until(lambda: heard.status.said("SN2", "glue") is not None, heard.source.status)
            assert heard.status.said("SN1", "glue") is None
        bodies = records(tmp_path, Kind.UNIT_STATUS)
        assert [(one["serial"], one.get("state")) for one in bodies] == [
            ("SN1", "bound"), ("SN5", None), ("SN1", "superseded"), ("SN2", "bound"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("filter", "topic", "covers"),
    [
        ("a/b", "a/b", True), ("a/b", "a/b/c", False), ("a/+", "a/b", True), ("a/+", "a", False), ("a/#", "a", True),
        ("a/#", "a/b/c", True), ("+/+/c", "a/b/c", True), ("+/+/c", "a/b/d", False), ("#", "a", True),
        ("a/+/c", "a//c", True), ("a/b", "a", False),
    ],
)  # fmt: skip
def test_topic_filters(filter: str, topic: str, covers: bool) -> None:
    assert matches(filter, topic) is covers
