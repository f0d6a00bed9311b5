"""A route against a real mosquitto and the real buffer: outages, hangs, refusals, restarts, hostile confirmations."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import MessageRejected
from edge_agent.routes import Route, route_filter
from edge_agent.routes.message import Batch, Message
from support.delivery import (
    CONFIRM,
    IDENTITY,
    ROOT,
    Poisoned,
    Watcher,
    buffer,
    running,
    scans,
    settings,
    settled,
    until,
)
from support.mosquitto import Mosquitto, free_port


def dead_letters(folder: Path) -> list[tuple[int, str]]:
    connection = sqlite3.connect(folder / "data" / "buffer.db")
    try:
        return connection.execute("SELECT n, reason FROM dead_letter ORDER BY n").fetchall()
    finally:
        connection.close()


def confirmation(route: Route, upto: int, **more: Any) -> dict[str, Any]:
    return {"v": 1, "agent": "pc1", "stream": route.status()["stream"], "upto": upto, **more}


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_everything_arrives_once_in_dense_numbers(tmp_path: Path, version: str) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url, f"{ROOT}/#") as watcher:
            async with (
                buffer(tmp_path) as store,
                running(store, settings(broker.url, version=version, confirm="broker")) as route,
            ):
                for part in range(3):
                    store.append(scans(200, f"gate{part}"))
                await settled(route, store)
                await until(lambda: len(watcher.texts()) == 600)
                assert await route.drain(5)
                await until(lambda: any(topic.endswith("/state") for topic, _ in watcher.messages))
                status = route.status()
            assert status["confirm"] == "handed over"
            records = [r for kind in ("scan", "log_opened") for r in watcher.records(kind)]
            assert sorted(record["n"] for record in records) == list(range(1, 602))
            states = [body["state"] for topic, body in watcher.messages if topic == f"{ROOT}/_agent/pc1/state"]
            assert states == ["online", "offline"]

    asyncio.run(scenario())


def test_a_killed_broker_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                store.append(scans(50, "before"))
                await settled(route, store)
                broker.kill()
                store.append(scans(50, "during"))
                await until(lambda: "listening" in route.status()["hint"], route.status)
                assert route.status()["state"] in ("waiting", "connecting")
                broker.start()
                with Watcher(broker.url) as watcher:
                    await settled(route, store)
                    await until(lambda: {f"during-{i}" for i in range(50)} <= watcher.texts())
                assert route.status()["state"] == "connected"
                assert route.status()["last_error"] is None

    asyncio.run(scenario())


def test_a_broker_that_hangs_with_its_socket_open_is_left_after_ack_timeout(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with (
                buffer(tmp_path) as store,
                running(store, settings(broker.url, confirm="broker", ack_timeout="1s")) as route,
            ):
                store.append(scans(5, "before"))
                await settled(route, store)
                broker.hang()
                store.append(scans(5, "during"))
                await until(lambda: route.status()["last_error"] is not None)
                assert "no acknowledgement" in route.status()["last_error"]
                broker.wake()
                await settled(route, store)
                await until(lambda: {f"during-{i}" for i in range(5)} <= watcher.texts())

    asyncio.run(scenario())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_refused_credentials_are_told_with_what_to_check(tmp_path: Path, version: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")

    async def scenario() -> None:
        with Mosquitto(tmp_path, users={"line": "right"}) as broker:
            login = {"username": "line", "password": {"file": str(secret)}, "version": version}
            async with buffer(tmp_path) as store, running(store, settings(broker.url, **login)) as route:
                await until(lambda: route.status()["state"] == "refused", route.status)
                assert "username" in route.status()["hint"]
                assert "'line'" in route.status()["hint"]
                assert "wrong" not in str(route.status())

    asyncio.run(scenario())


def test_a_denied_topic_makes_dead_letters_and_the_rest_goes_on(tmp_path: Path) -> None:
    acl = f"topic readwrite {ROOT}/open/#\ntopic readwrite {ROOT}/agent/#\ntopic readwrite {ROOT}/_agent/#\n"

    async def scenario() -> None:
        with Mosquitto(tmp_path, acl=acl) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                store.append(scans(5, "open"))
                store.append(scans(3, "denied"))
                store.append(scans(5, "open", more=1))
                await settled(route, store)
                assert route.status()["dead"] == 3
                assert f"allow {ROOT}/denied/scan" in route.status()["hint"]
                await until(lambda: len({record["n"] for record in watcher.records()}) == 10)
                await until(lambda: len({record["n"] for record in watcher.records("tombstone")}) == 3)
            numbers = {record["n"] for kind in ("scan", "log_opened", "tombstone") for record in watcher.records(kind)}
            assert numbers == set(range(1, 15)), "a tombstone has each dead letter's number"
        assert [n for n, _ in dead_letters(tmp_path)] == [7, 8, 9]
        assert "not authorized" in dead_letters(tmp_path)[0][1]

    asyncio.run(scenario())


def test_who_mended_the_access_list_and_retries_is_not_told_the_old_refusal(tmp_path: Path) -> None:
    acl = f"topic readwrite {ROOT}/agent/#\ntopic readwrite {ROOT}/_agent/#\n"

    async def scenario() -> None:
        with Mosquitto(tmp_path, acl=acl) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                first = store.append(scans(3, "denied")) - 2
                await settled(route, store)
                assert route.status()["dead"] == 3
                broker.allow(f"topic readwrite {ROOT}/#\n")
                seqs = [first, first + 1, first + 2]
                again = partial(store.replay, "mes", purpose="retry", first_seq=first, last_seq=first + 2, seqs=seqs)
                await asyncio.to_thread(again)
                await settled(route, store)
                assert route.status()["dead"] == 0
                store.append(scans(3, "denied"))  # and nobody else is
                await settled(route, store)
                assert route.status()["dead"] == 0

    asyncio.run(scenario())


def test_a_restart_sends_what_was_not_confirmed_with_the_numbers_it_had(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(100, "first"))
                await until(lambda: len(watcher.texts()) == 100)
                await asyncio.to_thread(watcher.publish, CONFIRM, confirmation(route, 40))
                await until(lambda: route.status()["confirmed_n"] == 40)
                await until(lambda: route.status()["pending"] <= 61)  # progress is durable
            before = {record["seq"]: record["n"] for record in watcher.records()}
            watcher.messages.clear()
            async with buffer(tmp_path) as store, running(store, settings(broker.url, order="strict")) as route:
                await until(lambda: len({record["n"] for record in watcher.records()}) >= 60)
                again = {record["seq"]: record["n"] for record in watcher.records()}
                assert again == {seq: n for seq, n in before.items() if n > 40}
                # the receiver had more than this run has sent: an earlier run's numbers are no lie
                await asyncio.to_thread(watcher.publish, CONFIRM, confirmation(route, 102))
                store.append(scans(10, "second"))
                await until(lambda: "second-9" in watcher.texts(), route.status)
                (stream,) = {record["stream"] for record in watcher.records() if record["text"] == "second-0"}
                assert stream == route.status()["stream"]
                assert stream.startswith(store.log), "a new log is a new stream, after the old one is finished"

    asyncio.run(scenario())


def test_hostile_confirmations_are_refused_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(10))
                await until(lambda: len(watcher.texts()) == 10)
                good = confirmation(route, 5)
                hostile = [b"no json", b"[]", b"\xff\x00", good | {"upto": 12}, good | {"upto": 2**62}, good | {"v": 2},
                           good | {"agent": "other"}, good | {"stream": "000000000000.mes.1"}, good | {"upto": True},
                           good | {"nack": [{"n": "x"}]}]  # fmt: skip
                for payload in hostile:
                    await asyncio.to_thread(watcher.publish, CONFIRM, payload)
                await asyncio.to_thread(watcher.publish, CONFIRM, good | {"stream": f"{store.log}.erp.1", "upto": 500})
                await asyncio.to_thread(watcher.publish, CONFIRM, good)
                await until(lambda: route.status()["confirmed_n"] == 5)
                assert route.status()["refused_confirmations"] == len(hostile)
                for upto in (3, 11, 5):  # late and repeated
                    await asyncio.to_thread(watcher.publish, CONFIRM, good | {"upto": upto})
                await settled(route, store)
                assert route.status()["confirmed_n"] == 11
                assert route.status()["confirm"] == "delivered"

    asyncio.run(scenario())


def test_a_refused_record_becomes_a_dead_letter_with_the_receivers_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(10))
                await until(lambda: len(watcher.texts()) == 10)
                said = confirmation(route, 11, nack=[{"n": 4, "reason": "unknown part number"}])
                await asyncio.to_thread(watcher.publish, CONFIRM, said)
                await settled(route, store)
        assert dead_letters(tmp_path) == [(4, "receiver: unknown part number")]

    asyncio.run(scenario())


def test_a_silent_receiver_is_only_asked_and_gets_the_rest_when_it_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with (
                buffer(tmp_path) as store,
                running(store, settings(broker.url, message_size="4KiB")) as route,
            ):
                store.append(scans(300))
                await until(lambda: len(watcher.texts()) == 300)
                await until(lambda: route.status()["sent_again"] >= 2)
                assert route.status()["receiver_silent"]
                doubled = {n for n in (r["n"] for r in watcher.records()) if n > 100}
                assert len([r for r in watcher.records() if r["n"] > 100]) == len(doubled), (
                    "only the oldest was asked for"
                )
                await asyncio.to_thread(watcher.publish, CONFIRM, confirmation(route, 2))
                await until(lambda: len([r for r in watcher.records() if r["n"] > 250]) >= 100, route.status)
                await asyncio.to_thread(watcher.publish, CONFIRM, confirmation(route, 301))
                await settled(route, store)

    asyncio.run(scenario())


def test_a_confirmation_given_while_the_agent_was_away_still_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store:
                async with running(store, settings(broker.url)) as route:
                    store.append(scans(10))
                    await until(lambda: len(watcher.texts()) == 10)
                await asyncio.to_thread(watcher.publish, CONFIRM, confirmation(route, 11))
                async with running(store, settings(broker.url)) as route:
                    await until(lambda: len(watcher.records()) >= 11 or route.status()["confirmed_n"] == 11)

    asyncio.run(scenario())


def test_draining_is_bounded_and_says_whether_it_was_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            buffer(tmp_path) as store,
            running(store, settings(f"mqtt://127.0.0.1:{free_port()}", confirm="broker")) as route,
        ):
            store.append(scans(10))
            assert not await route.drain(0.5)
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                store.append(scans(10))
                assert await route.drain(10)
                assert route.status()["state"] == "stopped"

    asyncio.run(scenario())


def test_the_broker_says_lost_when_the_agent_dies(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                await settled(route, store)
                sink: Any = route._sink
                sink._publisher._socket.shutdown(2)  # as a pulled cable would, seen from the broker
                await until(lambda: "lost" in [m["state"] for t, m in watcher.messages if t.endswith("/state")])
                await until(lambda: [m["state"] for t, m in watcher.messages if t.endswith("/state")][-1] == "online")

    asyncio.run(scenario())


def test_a_record_that_ends_every_connection_is_found_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with Poisoned(broker.port) as between, buffer(tmp_path) as store:
                store.append(scans(20, "before"))
                store.append(scans(1, "bad", poison="POISON"))
                store.append(scans(20, "after"))
                url = f"mqtt://127.0.0.1:{between.port}"
                async with running(store, settings(url, confirm="broker")) as route:
                    await settled(route, store)
                await until(lambda: len(watcher.texts()) == 40)
        ((n, reason),) = dead_letters(tmp_path)
        assert n == 22
        assert "connection ended" in reason

    asyncio.run(scenario())


def test_a_brokers_own_limits_are_kept(tmp_path: Path) -> None:
    options = ("max_packet_size 6000", "max_inflight_messages 3")

    async def scenario() -> None:
        with Mosquitto(tmp_path, options=options) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, confirm="broker")) as route:
                store.append(scans(200, more="x" * 100))
                store.append(scans(1, "huge", more="x" * 7000))
                await settled(route, store)
                await until(lambda: len(watcher.texts()) == 200)
                assert route.status()["connections"] == 1
        assert [reason for _, reason in dead_letters(tmp_path)] == ["7043 bytes: larger than a message may be"]

    asyncio.run(scenario())


def test_a_broker_that_takes_next_to_nothing_is_refused_and_makes_no_dead_letters(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path, options=("max_packet_size 1000",)) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                store.append(scans(3))
                await until(lambda: route.status()["state"] == "refused")
                assert "max_packet_size" in route.status()["hint"]
        assert dead_letters(tmp_path) == []

    asyncio.run(scenario())


def test_a_name_that_no_host_can_have_only_stops_its_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store, running(store, settings("mqtt://plant..local:1883")) as route:
            # between two tries it is "connecting" again, with the last error still shown
            await until(lambda: route.status()["state"] == "waiting", route.status)
            assert route.status()["last_error"] is not None

    asyncio.run(scenario())


def test_a_refusal_that_comes_after_the_confirmation_touches_no_other_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with buffer(tmp_path) as store:
            route = Route("mes", settings("mqtt://127.0.0.1:1"), IDENTITY, store)
            (lane,) = store.lanes("mes", "oldest", route_filter(settings("mqtt://127.0.0.1:1")))
            route._lanes.add([lane])
            (delivery,) = route._lanes.all
            delivery.begin({})
            confirmed, other = (Message("gate", "scan", n, n, 1, b'{"n":%d}' % n) for n in (1, 2))
            window = delivery.window
            for message in (confirmed, other):
                window.add(Batch([message.n], [message.n], [message], [], message.n, message.n))
                window.sending(message)
            window.confirm(1)
            route._bury(delivery, confirmed, MessageRejected("denied by now"))
            assert delivery.dead == {} and route._lanes.next() is None
        assert dead_letters(tmp_path) == []

    asyncio.run(scenario())


def test_one_read_looks_at_a_bounded_part_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.routes.filling.SCAN_SEQS", 7)

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store:
                others = settings(broker.url, send=["finding"], confirm="broker")
                async with running(store, others) as route:
                    store.append(scans(100))
                    await settled(route, store)
                async with running(store, settings(broker.url, confirm="broker"), "scans") as route:
                    await settled(route, store)
                    await until(lambda: len(watcher.texts()) == 100)

    asyncio.run(scenario())
