"""A buffer with records, a route, a watcher and a hostile hand: what tests of delivery are made of.

The buffer and the broker are the real ones. Everything is awaited with a deadline, so that a test that fails ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import paho.mqtt.client as mqtt

from edge_agent import clock
from edge_agent.buffer import Buffer, BufferSettings, open_buffer
from edge_agent.model import Kind, Record
from edge_agent.routes import AgentIdentity, Route
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings
from edge_agent.routes.words import Words

IDENTITY = AgentIdentity("pc1", "acme", "sz", "as", "L3", "0.1.0")
ROOT = "acme/sz/as/L3"
CONFIRM = f"{ROOT}/_agent/pc1/confirm"
DEADLINE_S = 60.0  # of what comes about in a second, on a machine that is busy with other things
P = ParamSpec("P")


def scenario(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of an asynchronous function: it runs in a loop of its own."""

    @functools.wraps(test)
    def run(*arguments: P.args, **more: P.kwargs) -> None:
        asyncio.run(test(*arguments, **more))

    return run


def settings(url: str, **more: Any) -> MqttRouteSettings:
    """A quick route: oldest first, samples and scans, short time-outs."""
    given = {"sink": "mqtt", "url": url, "start": "oldest", "send": ["sample", "scan"], "confirm_timeout": "1s",
             "ack_timeout": "2s", "keepalive": "5s"}  # fmt: skip
    return MqttRouteSettings.model_validate(given | more)


def scans(count: int, source: str = "gate", **body: Any) -> list[Record]:
    """Records that are told apart by ``text``."""
    now = clock.now()
    return [Record(Kind.SCAN, source, now, {"status": "read", "text": f"{source}-{i}", **body}) for i in range(count)]


@contextlib.asynccontextmanager
async def buffer(folder: Path) -> AsyncIterator[Buffer]:
    """The agent's buffer, open; a second time it begins the next log."""
    opened = await asyncio.to_thread(open_buffer, folder / "data", "pc1", BufferSettings())
    try:
        yield opened
    finally:
        await opened.close()


@contextlib.asynccontextmanager
async def running(
    buffer: Buffer, settings: RouteSettings, name: str = "mes", words: Words | None = None
) -> AsyncIterator[Route]:
    """A route at work. Ends it the hard way, as a crash would; drain it first to end it in order."""
    route = Route(name, settings, IDENTITY, buffer, words=words)
    task = asyncio.create_task(route.run())
    try:
        yield route
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(
    condition: Callable[[], bool], what: Callable[[], Any] = lambda: "", deadline_s: float = DEADLINE_S
) -> None:
    """Wait for ``condition``; fail with ``what()`` after ``deadline_s``."""
    try:
        async with asyncio.timeout(deadline_s):
            asked_s = time.monotonic()
            while not condition():  # what is waited for may happen in any process
                await asyncio.sleep(max(0.01, 3 * (time.monotonic() - asked_s)))  # asking may cost what is waited for
                asked_s = time.monotonic()
    except TimeoutError:
        raise AssertionError(f"did not come about in {deadline_s:g} s: {what()}") from None


async def settled(route: Route, buffer: Buffer) -> None:
    """Wait until everything that is durable now was settled by ``route``."""
    seq = buffer.next_seq - 1
    await buffer.committed(seq)
    await until(lambda: route.status()["stream"] is not None and route.status()["pending"] == 0, route.status)


class Watcher:
    """A client that records every message and can publish anything."""

    def __init__(self, url: str, topic: str = "#", **login: str) -> None:
        self.messages: list[tuple[str, Any]] = []
        self._ready = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if login:
            self._client.username_pw_set(**login)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._take(message)
        self._client.connect("127.0.0.1", int(url.rpartition(":")[2]))
        self._client.loop_start()

    def _take(self, message: mqtt.MQTTMessage) -> None:
        try:
            self.messages.append((message.topic, json.loads(message.payload)))
        except ValueError:
            self.messages.append((message.topic, message.payload))

    def publish(self, topic: str, payload: Any) -> None:
        """Returns when the broker has it."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, data, qos=1).wait_for_publish(5)

    def records(self, kind: str = "scan") -> list[dict[str, Any]]:
        """All records of one kind, in the order of arrival, doubles included; each with its stream."""
        return [
            {**record, "stream": message["stream"]}
            for _, message in list(self.messages)
            if isinstance(message, dict) and message.get("kind") == kind
            for record in message["records"]
        ]

    def texts(self) -> set[str]:
        return {record["text"] for record in self.records()}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Watcher:
        assert self._ready.wait(5), "no subscription"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def threaded(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """``run`` in a thread; its failure is the test's."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  handed to the test below
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(10)
        assert not thread.is_alive(), "did not stop"
    if failed:
        raise failed[0]


class Poisoned:
    """Between agent and broker: closes the connection at every message that holds ``POISON``."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0

    async def __aenter__(self) -> Poisoned:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            tail = b""
            try:
                while data := await source.read(65536):
                    if b"POISON" in tail + data:
                        break
                    tail = data[-6:]
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            writer.close()
            up_writer.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))
