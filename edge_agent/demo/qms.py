"""The quality system of the demo: it decides holds and releases, and tells them over MQTT (docs/verdicts.md).

Decisions are numbered without a hole; a heartbeat says the last number; whoever asks is told all open holds. What is
decided while the broker is away is told when it is back.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from edge_agent import clock
from edge_agent.errors import BrokerUnavailable
from edge_agent.routes.link import Link
from edge_agent.routes.settings import BrokerSettings

TOPIC = "qms/verdicts"
HEARTBEAT_S = 2.0
RETRY_S = 0.3
WHO = "qa.chen"


class Qms:
    """``run()`` until cancelled; ``decide`` at any time."""

    def __init__(self, url: str) -> None:
        self._settings = BrokerSettings(url=url)
        self._decisions = 0
        self._open: dict[str, dict[str, Any]] = {}  # by hold
        self._untold: deque[dict[str, Any]] = deque()
        self._news = asyncio.Event()

    def decide(self, action: str, hold: str, serial: str, text: str) -> str:
        """``hold`` or ``release`` a serial; the verdict's id."""
        self._decisions += 1
        verdict = {
            "verdict_id": f"qms-{self._decisions}", "decision_seq": self._decisions, "action": action, "hold": hold,
            "subject": {"kind": "serial", "value": serial}, "text": text, "by": WHO,
        }  # fmt: skip
        if action == "release":
            self._open.pop(hold, None)
        else:
            self._open[hold] = verdict
        self._untold.append({"v": 1, "at_ns": str(clock.now().at_ns), **verdict})
        self._news.set()
        return str(verdict["verdict_id"])

    async def run(self) -> None:
        """Connect, tell and answer; again whenever the connection is lost."""
        while True:
            link = Link(self._settings, "demo-qms", None)
            try:
                async with asyncio.TaskGroup() as group:
                    await link.connect()
                    await link.subscribe(f"{TOPIC}/request")
                    group.create_task(self._tell(link))
                    group.create_task(self._answer(link))
            except* BrokerUnavailable:
                pass
            finally:
                await link.close()
            await asyncio.sleep(RETRY_S)

    async def _tell(self, link: Link) -> None:
        """Decisions as they come, and the heartbeat."""
        while True:
            self._news.clear()
            while self._untold:
                await link.publish(TOPIC, json.dumps(self._untold[0]).encode())
                self._untold.popleft()
            beat = {"heartbeat": True, "last_decision_seq": self._decisions, "at_ns": str(clock.now().at_ns)}
            await link.publish(TOPIC, json.dumps({"v": 1, **beat}).encode())
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _answer(self, link: Link) -> None:
        """All open holds, to whoever asks."""
        while True:
            message = await link.arrived()
            request = json.loads(message.payload)
            snapshot = {
                "v": 1, "snapshot": request["snapshot"], "last_decision_seq": self._decisions, "part": 1, "parts": 1,
                "holds": list(self._open.values()),
            }  # fmt: skip
            await link.publish(request["topic"], json.dumps(snapshot).encode())
            link.ack(message)
