"""What a broker grants is kept, what it refuses is judged: limits by a real mosquitto, rare answers by a scripted one.

The scripted broker speaks as much MQTT 5 as it needs to give the answers that mosquitto 2.0 never gives.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.routes import verdicts
from edge_agent.routes.sink import SinkRefused
from support.delivery import ROOT, Watcher, buffer, running, scans, settings, settled, until
from support.mosquitto import Mosquitto
from support.scripted import Scripted

QUICK = {"confirm": "broker"}


def dead_letters(folder: Path) -> int:
    connection = sqlite3.connect(folder / "data" / "buffer.db")
    try:
        count: int = connection.execute("SELECT count(*) FROM dead_letter").fetchone()[0]
        return count
    finally:
        connection.close()


def test_what_a_broker_grants_is_kept_and_shown(tmp_path: Path) -> None:
    options = ("max_keepalive 60", "max_inflight_messages 7", "max_packet_size 9000", "persistent_client_expiration 1h")

    async def scenario() -> None:
        with Mosquitto(tmp_path, options=options) as broker:
            given = settings(broker.url, keepalive="10min", **QUICK)
            async with buffer(tmp_path) as store, running(store, given) as route:
                await until(lambda: route.status()["state"] == "connected", route.status)
                granted = route.status()["broker"]
                assert (granted["receive_maximum"], granted["packet_bytes"]) == (7, 9000)
                sink: Any = route._sink
                assert granted["keepalive_s"] == 60 == sink._publisher._client.keepalive

    asyncio.run(scenario())


def test_a_broker_that_retains_nothing_gets_everything_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path, options=("retain_available false",)) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, **QUICK)) as route:
                store.append(scans(20))
                await settled(route, store)
                assert "keeps no retained messages" in route.status()["warnings"][0]["what"]
                await until(lambda: any(topic.endswith("/state") for topic, _ in watcher.messages))

    asyncio.run(scenario())


def test_a_broker_without_qos_1_is_refused_with_what_to_change(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Scripted(lambda _: 0, connack=b"\x24\x00") as broker,
            buffer(tmp_path) as store,
            running(store, settings(broker.url, **QUICK)) as route,
        ):
            await until(lambda: route.status()["state"] == "refused", route.status)
            assert "QoS 1" in route.status()["hint"]
        assert dead_letters(tmp_path) == 0
        with Mosquitto(tmp_path, options=("max_qos 0",)) as mosquitto:
            async with buffer(tmp_path) as store, running(store, settings(mosquitto.url, **QUICK)) as route:
                await until(lambda: route.status()["state"] == "refused", route.status)
                assert "QoS 1" in route.status()["hint"]

    asyncio.run(scenario())


def test_an_exceeded_quota_is_waited_for_and_makes_no_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_QUOTA_S", "_QUOTA_MAX_S"):
        monkeypatch.setattr(f"edge_agent.routes.mqtt.{name}", 0.05)
    full = [True]

    async def scenario() -> None:
        async with (
            Scripted(lambda _: 0x97 if full[0] else 0) as broker,
            buffer(tmp_path) as store,
            running(store, settings(broker.url, **QUICK)) as route,
        ):
            store.append(scans(5))
            await until(lambda: broker.published > 20)
            assert "quota" in route.status()["warnings"][0]["what"]
            full[0] = False
            await settled(route, store)
            assert (route.status()["connections"], route.status()["dead"]) == (1, 0)
            assert route.status()["warnings"] == []

    asyncio.run(scenario())


def test_what_nobody_subscribes_to_is_handed_over_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, **QUICK)) as route:
                store.append(scans(5))
                await settled(route, store)
                assert route.status()["unheard"] > 0, "mosquitto says 0x10"
                before = route.status()["unheard"]
                with Watcher(broker.url, f"{ROOT}/#"):
                    store.append(scans(5))
                    await settled(route, store)
                assert route.status()["unheard"] == before

    asyncio.run(scenario())


def test_one_message_of_which_the_broker_cannot_say_why_is_found_by_halving(tmp_path: Path) -> None:
    """0x80 says nothing: trouble of the broker, or of this message. Only asking again can tell."""

    async def scenario() -> None:
        async with (
            Scripted(lambda count: 0x80 if count <= 2 else 0) as broker,
            buffer(tmp_path) as store,
            running(store, settings(broker.url, **QUICK)) as route,
        ):
            store.append(scans(5))
            await settled(route, store)
            assert route.status()["dead"] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x80, BrokerUnavailable),
        (0x83, BrokerUnavailable),
        (0x87, verdicts.TopicRefused),
        (0x90, verdicts.TopicRefused),
        (0x91, BrokerUnavailable),
        (0x97, verdicts.QuotaExceeded),
        (0x99, MessageRejected),
    ],
)
def test_every_refusal_of_a_publish_is_judged(code: int, kind: type[Exception]) -> None:
    assert type(verdicts.publish_refused("a/b", code, "name")) is kind


@pytest.mark.parametrize("code", [0x81, 0x82, 0x83, 0x88, 0x89, 0x8B, 0x8D, 0x93, 0x95, 0x97, 0x98, 0x9F, 0xA0])
def test_what_passes_by_itself_is_no_refusal(code: int) -> None:
    assert type(verdicts.connect_refused(code, "name", None)) is BrokerUnavailable
    assert type(verdicts.disconnected(code, "name")) is BrokerUnavailable


@pytest.mark.parametrize("code", [0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9A, 0x9B, 0x9D])
def test_what_a_person_must_change_is_refused_with_a_hint(code: int) -> None:
    refusal = verdicts.connect_refused(code, "name", "line")
    assert isinstance(refusal, SinkRefused) and refusal.hint


def test_a_broker_that_moved_says_where_to() -> None:
    assert "mqtts://new:8883" in verdicts.disconnected(0x9D, "moved", "mqtts://new:8883").hint
    assert "mqtts://new:8883" in verdicts.connect_refused(0x9C, "use another", None, "mqtts://new:8883").hint
