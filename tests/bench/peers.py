"""Who the agent talks to in a benchmark: a PLC, scanners on ptys, a broker, a subscriber, a receiver."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from rig import HERE, PEER_CORE, Process, child, status, wait_for

from support.mosquitto import Mosquitto


@contextlib.contextmanager
def peer_plc(port: int, *options: str) -> Iterator[Process]:
    """The bench PLC on the peers' core."""
    with child(str(HERE / "plc.py"), str(port), *options, core=PEER_CORE, ready=True) as process:
        yield process


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A mosquitto on the peers' core; its port."""
    with Mosquitto(folder) as mosquitto:
        os.sched_setaffinity(mosquitto.pid, {PEER_CORE})
        yield mosquitto.port


@contextlib.contextmanager
def receiver(port: int, database: Path) -> Iterator[Process]:
    """The reference receiver, committing to SQLite and confirming, on the peers' core."""
    arguments = ("listen", f"mqtt://127.0.0.1:{port}", "--topic", "acme/#", "--db", str(database))
    with child("-m", "edge_agent", *arguments, core=PEER_CORE, log=database.with_suffix(".log")) as process:
        yield process


@contextlib.contextmanager
def subscriber(port: int, topic: str, on_message: Callable[[bytes], None]) -> Iterator[None]:
    """Call ``on_message`` with each payload, in a thread of this process."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    ready = threading.Event()
    client.on_connect = lambda *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: on_message(message.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert ready.wait(5), "the broker did not answer the subscription"
        yield
    finally:
        client.disconnect()
        client.loop_stop()


class Readers:
    """Barcode readers on ptys, one a station, each scanning a serial of its own."""

    def __init__(self, *names: str) -> None:
        self._ptys = {name: os.openpty() for name in names}
        self.paths = {name: os.ttyname(slave) for name, (_, slave) in self._ptys.items()}

    def open_cycles(self, folder: Path) -> None:
        """Scan once the agent has every device, and wait until each station's nest is occupied."""

        def connected() -> bool:
            return all(device["state"] == "connected" for device in look(folder)["devices"].values())

        def occupied() -> bool:
            nests = [nest for item in look(folder)["stations"].values() for nest in item["positions"].values()]
            return all(nest["serial"] for nest in nests)

        wait_for(connected, 10, folder / "agent.log")
        for number, (master, _) in enumerate(self._ptys.values(), start=1):
            os.write(master, b"SN%08d\r\n" % number)
        wait_for(occupied, 10, folder / "agent.log")

    def close(self) -> None:
        """Unplug them."""
        for master, slave in self._ptys.values():
            os.close(master)
            os.close(slave)


def look(folder: Path) -> dict[str, Any]:
    """The agent's status; it must answer."""
    answer = status(folder / "data")
    assert answer is not None, (folder / "agent.log").read_text()[-2000:]
    return answer


def samples(folder: Path) -> int:
    """Samples the agent has taken from ``plc`` so far."""
    return int(look(folder)["devices"]["plc"]["samples"])
