"""The peer of the mqtt driver: a real mosquitto behind a line that can be bad, and a tool that publishes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.mosquitto import Mosquitto, free_port
from support.peers.peer import Peer
from support.proxy import PUBLISH, Proxy, kind


class MqttPeer(Peer):
    """Publishes {"torque": 12.5, "id": "T1"} on tool/result."""

    topic = "tool/result"

    def __init__(self, folder: Path) -> None:
        self.broker = Mosquitto(folder)
        self.line = Proxy(self.broker.port, port=free_port())
        tags = {"torque": {"path": "/torque"}, "id": {"path": "/id", "type": "string"}}
        self.settings = {
            "url": f"mqtt://127.0.0.1:{self.line.port}",
            "groups": {"result": {"topic": self.topic, "tags": tags}},
        }

    async def start(self) -> None:
        await asyncio.to_thread(self.broker.start)
        await self.line.start()

    async def stop(self) -> None:
        await self.line.stop()
        await asyncio.to_thread(self.broker.kill)

    async def publish(self, payload: bytes, *options: str, topic: str = "") -> None:
        """By another program, with QoS 1."""
        command = ["mosquitto_pub", "-p", str(self.broker.port), "-t", topic or self.topic, "-q", "1", "-s", *options]
        await asyncio.to_thread(subprocess.run, command, input=payload, check=True)

    async def speak(self) -> None:
        await self.publish(b'{"torque": 12.5, "id": "T1"}')

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        (sample,) = answer
        assert isinstance(sample, Sample)
        assert (sample.values, sample.status) == ((12.5, "T1"), None)

    def _instead(self, *said: tuple[float, bytes]) -> None:
        """What the driver gets in place of the next messages."""

        def rule(packet: bytes) -> Iterable[tuple[float, bytes]]:
            return said if kind(packet) == PUBLISH else [(0, packet)]

        self.line.back.rule = rule

    async def speak_half_and_vanish(self) -> None:
        def half(packet: bytes) -> Iterable[tuple[float, bytes]]:
            return [(0, packet[: len(packet) // 2])] if kind(packet) == PUBLISH else [(0, packet)]

        self.line.back.rule = half
        await self.speak()
        await asyncio.sleep(0.05)
        self.line.cut()

    async def drip(self) -> None:
        def drop_by_drop(packet: bytes) -> Iterable[tuple[float, bytes]]:
            if kind(packet) != PUBLISH:
                return [(0, packet)]
            return [(0.001 * place, packet[place : place + 1]) for place in range(len(packet))]

        self.line.back.rule = drop_by_drop
        await self.speak()

    async def rave(self) -> None:
        self._instead((0, b"\xff\x00\xfe" * 20))
        await self.speak()

    async def flood(self) -> None:
        self._instead((0, b"\xff\x00\xfe" * 350_000))
        await self.speak()

    async def behave(self) -> None:
        self.line.back.rule = None
