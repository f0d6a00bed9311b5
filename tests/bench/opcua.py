"""OPC UA: the whole agent beside a bare asyncua subscription, in CPU a notification and in values that went missing.

A real asyncua server in a process of its own changes 1,000 Doubles each 100 ms; every value is the number of the turn,
so that each one that does not arrive is known. The yardstick is asyncua's own client with a handler that does nothing
but count. The agent reads, binds, commits (FULL, ledger) and publishes to a broker; what arrived is counted there.

As a program: ``opcua.py URL NODES SECONDS`` is the yardstick, and prints notifications and their CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from configs import head, route
from peers import broker, look, subscriber
from rig import AGENT_CORE, HERE, PEER_CORE, agent, output, wait_for

from support.opcua_server import OpcuaServer

NODES = 1000
PERIOD_S = 0.1
TOPIC = "acme/here/bench/L1/#"


def device(url: str) -> str:
    """The configuration, its tags one by one."""
    text = f"devices:\n  plc:\n    driver: opcua\n    connection: {url}\n    groups:\n      all:\n"
    text += f"        subscribe: {PERIOD_S * 1000:.0f}ms\n        tags:\n"
    for number in range(NODES):
        text += f'          n{number}: {{node: "ns=2;s=n{number}", type: float64, store: always}}\n'
    return text


def turns(server: OpcuaServer, seconds: float) -> threading.Thread:
    """Let the server change its values for so long, meanwhile."""
    thread = threading.Thread(target=server.run, args=(round(seconds / PERIOD_S), PERIOD_S))
    thread.start()
    return thread


def bare(server: OpcuaServer, seconds: float) -> float:
    """µs of CPU a notification of asyncua alone."""
    running = turns(server, seconds + 4)
    count, cpu_s = output(str(HERE / "opcua.py"), server.url, str(NODES), str(seconds), core=AGENT_CORE).split()
    running.join()
    return 1e6 * float(cpu_s) / int(count)


def whole(server: OpcuaServer, folder: Path, seconds: float) -> tuple[float, int]:
    """µs of CPU a notification of the agent, and how many values of the run never arrived at the broker."""
    folder.mkdir()
    messages: list[bytes] = []
    with ExitStack() as stack:
        port = stack.enter_context(broker(folder))
        stack.enter_context(subscriber(port, TOPIC, messages.append))
        config = head(folder) + device(server.url) + "stations: {}\n" + route(port, "broker", "sample")
        process = stack.enter_context(agent(config, folder))
        wait_for(lambda: look(folder)["devices"]["plc"]["state"] == "connected", 20, folder / "agent.log")
        time.sleep(1)
        cpu_s, count = process.cpu_s, round(seconds / PERIOD_S)
        server.run(count, PERIOD_S)
        time.sleep(5 * PERIOD_S)  # the last are still on their way
        wait_for(lambda: look(folder)["routes"]["mes"]["pending"] == 0, 20, folder / "agent.log")
        cpu_s = process.cpu_s - cpu_s
        time.sleep(0.5)
    return 1e6 * cpu_s / (count * NODES), count * NODES - arrived(messages)


def arrived(messages: list[bytes]) -> int:
    """Different values of all tags, the zero that they begin with left out."""
    seen: list[set[float]] = [set() for _ in range(NODES)]
    for payload in messages:
        for record in orjson.loads(payload).get("records", ()):
            for each, value in zip(seen, record.get("values", ()), strict=False):
                each.add(value)
    return sum(len(each - {0.0, None}) for each in seen)


def subscriptions(report: Any, folder: Path, options: argparse.Namespace) -> None:
    """(l) 1,000 OPC UA nodes x 10 Hz, server → asyncua → bind → commit → QoS 1, in turn with asyncua's own client."""
    ratios, costs, missing = [], [], 0
    for turn in range(options.pairs):
        with OpcuaServer("--count", str(NODES)) as server:
            os.sched_setaffinity(server.pid, {PEER_CORE})
            alone_us = bare(server, options.seconds)
        with OpcuaServer("--count", str(NODES)) as server:
            os.sched_setaffinity(server.pid, {PEER_CORE})
            cost_us, lost = whole(server, folder / str(turn), options.seconds)
        print(f"    bare {alone_us:6.1f} µs, agent {cost_us:6.1f} µs a notification, {lost} missing", flush=True)
        ratios.append(alone_us / cost_us)
        costs.append(cost_us)
        missing += lost
    report.say("opcua_ratio", statistics.median(ratios), "notifications per CPU second, agent / bare asyncua")
    report.say("opcua_cpu_us", statistics.median(costs), "µs CPU a notification, all of the agent")
    report.say("opcua_missing", missing, "values that did not arrive", 0)


# --- the yardstick -------------------------------------------------------------------------------------------


class Counter:
    """asyncua's handler."""

    def __init__(self) -> None:
        self.count = 0

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.count += 1


async def yardstick(url: str, nodes: int, seconds: float) -> None:
    """Subscribe with asyncua alone; print notifications and CPU seconds after a second's warm-up."""
    from asyncua.client.client import Client

    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    counter = Counter()
    async with Client(url) as client:
        subscription = await client.create_subscription(PERIOD_S * 1000, counter)
        every = [client.get_node(f"ns=2;s=n{number}") for number in range(nodes)]
        await subscription.subscribe_data_change(every, queuesize=10)
        await asyncio.sleep(1)
        count, cpu_s = counter.count, time.process_time()
        await asyncio.sleep(seconds)
        print(counter.count - count, time.process_time() - cpu_s)


if __name__ == "__main__":
    asyncio.run(yardstick(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
