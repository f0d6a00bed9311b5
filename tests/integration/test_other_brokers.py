"""The same outages with brokers of other makes, over MQTT 3.1.1: with ``confirm: receiver`` nothing is lost.

A real receiver commits and confirms; it is asked what it has. Skipped where the broker is not installed.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge_agent.receiver import Receiver
from edge_agent.routes import Route
from support import nats, rabbitmq
from support.broker import Broker
from support.delivery import buffer, running, scans, settings, settled, threaded, until
from support.proxy import Proxy

MAKES = [
    pytest.param(
        nats.Nats,
        ["killed", "hung", "slow", "forgot"],
        marks=pytest.mark.skipif(not nats.installed, reason="apt-get install nats-server"),
        id="nats",
    ),
    pytest.param(
        rabbitmq.RabbitMq,  # each start of it takes some ten seconds: `make fault` kills it
        ["hung", "slow"],
        marks=pytest.mark.skipif(not rabbitmq.installed, reason="apt-get install rabbitmq-server"),
        id="rabbitmq",
    ),
]


def received(database: Path) -> Counter[str]:
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("SELECT body FROM record WHERE kind = 'scan'").fetchall()
        return Counter(json.loads(body)["text"] for (body,) in rows)
    finally:
        connection.close()


async def hurt(how: str, broker: Broker, proxy: Proxy, route: Route) -> None:
    """What happens to the broker while records are on their way; returns when it is over."""
    match how:
        case "killed" | "forgot":
            await asyncio.to_thread(broker.kill)
            if how == "forgot":
                broker.forget()
            await asyncio.to_thread(broker.start)
        case "hung":
            broker.hang()
            await until(lambda: route.status()["last_error"] is not None, route.status)
            broker.wake()
        case "slow":
            proxy.out.bytes_per_s = proxy.back.bytes_per_s = 20_000
            await asyncio.sleep(1)
            proxy.out.bytes_per_s = proxy.back.bytes_per_s = None


@pytest.mark.long
@pytest.mark.parametrize(("make", "outages"), MAKES)
def test_nothing_is_lost_when_the_broker_is_killed_hangs_or_forgets(
    make: type[Broker], outages: list[str], tmp_path: Path
) -> None:
    database = tmp_path / "records.db"

    async def scenario() -> dict[str, Any]:
        with make(tmp_path) as broker:
            receiver = Receiver(broker.url, "acme/#", database, version="3.1.1", client_id="receiver")
            async with Proxy(broker.port) as proxy:
                url = f"mqtt://127.0.0.1:{proxy.port}"
                given = settings(url, version="3.1.1", confirm_timeout="2s", plain_topics=True)
                with threaded(receiver.run, receiver.stop):
                    async with buffer(tmp_path) as store, running(store, given) as route:
                        store.append(scans(200, "press.result"))  # a dot, as every sample's source has one
                        await settled(route, store)
                        for how in outages:
                            store.append(scans(200, f"{how} 1"))
                            await hurt(how, broker, proxy, route)
                            store.append(scans(200, f"{how} 2"))
                            await settled(route, store)
                        return route.status()

    status = asyncio.run(scenario())
    sources = ["press.result", *(f"{how} {part}" for how in outages for part in (1, 2))]
    assert received(database) == Counter(f"{source}-{number}" for source in sources for number in range(200))
    assert (status["dead"], status["refused_confirmations"]) == (0, 0)
