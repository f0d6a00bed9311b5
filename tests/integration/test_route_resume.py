"""A receiver that comes back is served at once; a lane may end while its PUBACKs are still on their way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from edge_agent.buffer import Buffer
from edge_agent.receiver import Receiver
from edge_agent.routes import Route
from edge_agent.routes.sink import Limits, Outgoing
from support.delivery import CONFIRM, IDENTITY, Watcher, buffer, running, scans, settings, settled, threaded, until
from support.mosquitto import Mosquitto

LONG = {"confirm_timeout": "10min"}  # what arrives in these tests does not wait for it


def test_a_receiver_that_comes_late_gets_at_once_what_the_broker_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as log, running(log, settings(broker.url, **LONG)) as route:
                log.append(scans(50))
                await until(lambda: route.status()["in_flight"] == 0 and route.status()["rate"] > 0)
                assert route.status()["confirmed_n"] == 0, "nobody was there to confirm"
                receiver = Receiver(broker.url, "acme/#", tmp_path / "records.db")
                with threaded(receiver.run, receiver.stop):
                    await settled(route, log)
                assert route.status()["sent_again"] > 0

    asyncio.run(scenario())


def test_resume_is_not_believed_too_often_nor_for_another_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as log, running(log, settings(broker.url, **LONG)) as route:
                log.append(scans(5))
                await until(lambda: len(watcher.texts()) == 5)
                watcher.publish(CONFIRM, {"v": 1, "agent": "another", "resume": True})
                for _ in range(20):
                    watcher.publish(CONFIRM, {"v": 1, "agent": IDENTITY.agent, "resume": True})
                await until(lambda: len(watcher.records()) > 5)
                await asyncio.sleep(0.5)
                assert len(watcher.records()) == 10, "once, however often it was asked"
                assert route.status()["refused_confirmations"] == 0

    asyncio.run(scenario())


class LateAck:
    """A sink whose receiver confirms before its broker acknowledges."""

    confirm_topic = CONFIRM

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []
        self.release = asyncio.Event()
        self._said: asyncio.Queue[bytes] = asyncio.Queue()

    async def open(self) -> Limits:
        return Limits(in_flight=20, message_bytes=128 * 1024)

    async def send(self, outgoing: Outgoing) -> None:
        said = json.loads(outgoing.payload)
        self.sent.append(said)
        upto = said["records"][-1]["n"]
        body = {"v": 1, "agent": said["agent"], "stream": said["stream"], "upto": upto}
        self._said.put_nowait(json.dumps(body).encode())
        await self.release.wait()

    async def confirmed(self) -> bytes:
        return await self._said.get()

    async def ended(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        return None

    def status(self) -> dict[str, object]:
        return {}


def test_a_lane_may_end_before_its_acknowledgements_come(tmp_path: Path) -> None:
    async def fill(log: Buffer) -> None:
        await log.committed(log.append(scans(3)))

    async def scenario() -> None:
        quiet = settings("mqtt://127.0.0.1:1883", **LONG)
        async with buffer(tmp_path) as first:
            await fill(first)
        async with buffer(tmp_path) as second:
            await fill(second)
            sink = LateAck()
            route = Route("mes", quiet, IDENTITY, second, sink)
            task = asyncio.create_task(route.run())
            try:
                await until(lambda: len({message["stream"] for message in sink.sent}) == 2, lambda: sink.sent)
                sink.release.set()
                await settled(route, second)
                await asyncio.sleep(0.1)
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
