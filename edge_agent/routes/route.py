"""One route: the loop that owns retry, progress and dead letters. A sink only hands over what it is given.

Some kinds of tasks live while a connection lives, and end with it::

    tend     opens the lanes that are to be delivered (``lanes`` says which), and cuts a live one with a backlog
    fill     one an open lane: reads it through the buffer's Reader into its window (``filling``)
    send     Limits.in_flight of them: the next message of all windows → Sink.send; one waits for the connection's end
    hear     confirmations → window → Buffer.progress; ``answer`` makes lanes of what a receiver asks for (``hearing``)
    resend   what stays unconfirmed for confirm_timeout goes into the line again, with the same n

A connection that ends takes its windows with it; the next one reads from the last progress again, so a reconnect and a
restart are the same thing, and records keep their n.

Bounds: ``WINDOW_BYTES`` of records between progress and the last read, plus one batch a lane; ``Limits.in_flight``
messages handed over but not acknowledged; ``max_rate``; back-off between 0 and ``BACKOFF_MAX_S`` with full jitter, so
that a hundred lines do not come back in the same instant.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_agent.errors import BrokerUnavailable, MessageRejected, StorageFull
from edge_agent.logs import Log, Outage
from edge_agent.model import Kind
from edge_agent.routes.delivery import Delivery
from edge_agent.routes.file_settings import FileRouteSettings
from edge_agent.routes.filling import Filling
from edge_agent.routes.hearing import Hearing
from edge_agent.routes.lanes import Lanes
from edge_agent.routes.message import TOMBSTONE, AgentIdentity, Message, Stream
from edge_agent.routes.presence import AtBroker, share
from edge_agent.routes.rate import Rate
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings
from edge_agent.routes.sink import Limits, Outgoing, RecordsRejected, Sink, SinkAway, SinkRefused
from edge_agent.routes.sql_settings import SqlRouteSettings
from edge_agent.routes.words import Words

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, RouteFilter

BACKOFF_S, BACKOFF_MAX_S, BACKOFF_REFUSED_S = 0.2, 10.0, 60.0  # 10 s spreads a plant and is soon back
HOPELESS_DRAIN_S = 1.0  # at stop, while nobody takes anything: what is pending is safe where it is
LANES_SHOWN = 20

_ALWAYS = frozenset({Kind.LOG_OPENED, Kind.CONFIG, Kind.DROP, Kind.CHECKPOINT})

log = Log(__name__)


def route_filter(settings: RouteSettings) -> RouteFilter:
    """What a route sends: its ``send`` list, and what a consumer needs to read and to prove it."""
    from edge_agent.buffer import RouteFilter

    kinds = {Kind[name.upper()] for name in settings.send} | _ALWAYS
    if Kind.SAMPLE in kinds:
        kinds.add(Kind.TAGSET)
    return RouteFilter(frozenset(kinds), None if settings.stations is None else frozenset(settings.stations))


class Route:
    """One destination. ``await run()`` as a task; ``await drain()`` before the buffer closes."""

    def __init__(
        self,
        name: str,
        settings: RouteSettings,
        identity: AgentIdentity,
        buffer: Buffer,
        sink: Sink | None = None,
        *,
        at_broker: AtBroker | None = None,
        words: Words | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._identity = identity
        self._buffer = buffer
        self._sink = sink or _sink(name, settings, identity, buffer, at_broker)
        self._by_receiver = bool(self._sink.confirm_topic)
        self._counts: Counter[str] = Counter()
        timeout_s = settings.confirm_timeout if isinstance(settings, MqttRouteSettings) else float("inf")
        self._lanes = Lanes(name, identity.agent, buffer, strict=settings.order == "strict")
        self._hearing = Hearing(name, identity.agent, self._lanes, buffer, self._sink, timeout_s, self._counts)
        self._filling = Filling(name, self._lanes, buffer, lambda: self._hearing.silent, words)
        self._rate = Rate(settings.max_rate)
        self._pace = asyncio.Lock()
        self._flying: dict[Message, tuple[Message, Delivery, Outgoing]] = {}  # given to the sink, not answered
        self._one_at_a_time = asyncio.Lock()
        self._draining = asyncio.Event()
        self._drained = asyncio.Event()
        self._failures = 0
        self._doubted = False  # it opened, but did not take what it was given: only taking that shows the end of it
        self._outage = Outage(log, "route", route=name)
        self._state = "starting"
        self._error: BrokerUnavailable | StorageFull | None = None  # while the sink is away, or there are no lanes
        self._refusal: MessageRejected | None = None  # the last one

    # --- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled, or until drained. Raises StorageError if the buffer fails."""
        try:
            await self._begin()
            while not (self._draining.is_set() and self._lanes.all_settled):
                await self._connection()
        finally:
            self._state = "stopped"
            self._drained.set()
            try:
                await self._sink.close()
            finally:
                self._filling.close()

    async def drain(self, timeout_s: float) -> bool:
        """Deliver what is durable now, for at most ``timeout_s``. True if all of it is settled; ends ``run()``."""
        if self._state != "connected" or self._hearing.silent:
            timeout_s = min(timeout_s, HOPELESS_DRAIN_S)
        try:
            async with asyncio.timeout(timeout_s):
                await self._buffer.committed(self._buffer.next_seq - 1)
                self._draining.set()
                self._lanes.tend()
                await self._drained.wait()
        except TimeoutError:
            return False
        return self._lanes.all_settled

    def status(self) -> dict[str, Any]:
        """For `edge-agent status`: how it stands and, if it fails, what to type."""
        stats = self._buffer.stats()
        error = self._error or self._refusal
        first = next(iter(self._lanes.wanted()), None)
        return {
            "state": self._state,
            "stream": None if first is None else first.lane.stream,
            "confirmed_n": 0 if first is None else first.window.upto,
            "pending": stats["pending"].get(self.name, 0),
            "in_flight": len(self._flying),
            "dead": stats["dead_letters"].get(self.name, 0),
            "last_error": None if error is None else str(error.args[0]),
            "hint": "" if error is None else error.hint,
            "confirm": "delivered" if self._by_receiver or self._sink.commits else "handed over",
            "receiver_silent": self._hearing.silent,
            "sent_again": self._counts["sent_again"],
            "refused_confirmations": self._counts["refused_confirmations"],
            "refused_requests": self._counts["refused_requests"],
            "connections": self._counts["connections"],
            "order": self._settings.order,
            "rate": self._rate.average(asyncio.get_running_loop().time()),
            "max_rate": self._settings.max_rate,
            "lanes": self._lane_status(),
            **self._sink.status(),
        }

    def _lane_status(self) -> list[dict[str, Any]]:
        pending = self._buffer.pending_of(self.name) if self._lanes.all else {}
        return [
            {
                "stream": each.lane.stream,
                "purpose": each.lane.purpose,
                "pending": pending.get(each.lane.id, 0),
                "replayed": each.lane.replayed,
            }
            for each in self._lanes.all[:LANES_SHOWN]
        ]

    async def _begin(self) -> None:
        settings = self._settings
        if settings.was is not None and await self._buffer.rename_route(settings.was, self.name):
            log.info("route renamed", route=self.name, was=settings.was)
        wanted = (self.name, settings.start, route_filter(settings))
        lanes = partial(self._buffer.lanes, *wanted, max_backlog=settings.max_backlog)
        while True:
            try:
                await self._filling.begin(lanes)
            except StorageFull as error:  # it may pass, and what is accepted is safe where it is
                self._state, self._error = "waiting", error
                self._outage.failed(error)
                await asyncio.sleep(BACKOFF_MAX_S)
            else:
                return

    async def _connection(self) -> None:
        """One connection from open to its end, and the wait after a failure."""
        self._state = "connecting"
        opened_s = float("inf")
        try:
            try:
                limits = await self._sink.open()
                opened_s = asyncio.get_running_loop().time()
                self._counts["connections"] += 1
                self._state = "waiting" if self._doubted else "connected"
                if not self._doubted and not any(each.suspicion.active for each in self._lanes.all):
                    self._let_in()  # otherwise only once the peer has taken what it was last offered
                await self._deliver(limits)
            except* BrokerUnavailable as group:
                lost = group
            else:
                return
        finally:
            await self._sink.close()
        _go_on_if_wanted()
        if asyncio.get_running_loop().time() - opened_s > BACKOFF_MAX_S:
            self._failures = 0
        error = _first(lost)
        if isinstance(error, SinkAway) and self._flying:
            self._doubted = True
        for delivery in () if isinstance(error, SinkAway) else self._lanes.all:
            flying = [message for message, its, sent in self._flying.values() if its is delivery and not sent.put_off]
            delivery.suspicion.connection_ended(min(flying, key=lambda message: message.n, default=None))
        self._flying.clear()
        self._error = error
        self._outage.failed(error)
        await self._back_off(isinstance(error, SinkRefused))

    async def _deliver(self, limits: Limits) -> None:
        """Everything that lives with one connection. Returns when drained."""
        self._lanes.restart()
        work: list[Coroutine[Any, Any, None]] = [self._send() for _ in range(limits.in_flight)]
        work += [self._sink.ended(), self._filling.offered()]
        if self._by_receiver:
            hearing = self._hearing
            work += [hearing.hear(self._moved), hearing.answer(), hearing.resend()]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in work]
            running += await self._filling.tend(tasks, limits, self._draining, self._moved)
            for task in running:
                task.cancel()

    async def _back_off(self, refused: bool) -> None:
        self._state = "refused" if refused else "waiting"
        if refused:
            wait_s = BACKOFF_REFUSED_S * random.uniform(0.5, 1)
        else:
            longest_s = 1.0 if self._lanes.careful else BACKOFF_MAX_S
            wait_s = random.uniform(0, min(longest_s, BACKOFF_S * 2 ** min(self._failures, 10)))
        self._failures += 1
        if self._draining.is_set():
            await asyncio.sleep(min(wait_s, BACKOFF_S))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._draining.wait()

    def _let_in(self) -> None:
        self._state = "connected"
        self._outage.recovered()
        self._error = None

    def _recovered(self) -> None:
        """The peer takes something. To be let in is not enough: it may throw us out at once, again and again."""
        self._failures = 0
        self._doubted = False
        self._let_in()

    # --- send --------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            await self._lanes.in_line.acquire()
            if self._lanes.careful:
                async with self._one_at_a_time:
                    await self._send_next()
            else:
                await self._send_next()

    async def _send_next(self) -> None:
        """Choose only when it may go out, so that live records never wait behind what was chosen before them."""
        await self._allowed()
        chosen = self._lanes.next()
        if chosen is None:
            return
        delivery, message = chosen
        if message.n == delivery.suspicion.condemned and message.count == 1:
            delivery.suspicion.buried()
            self._bury(delivery, message, MessageRejected("the connection ended each time this record was sent"))
            return
        delivery.sending(message)
        payload = message.payload(self._stream(delivery), delivery.window.upto)
        outgoing = Outgoing(message.source, message.kind, payload, delivery.lane.purpose == "retry")
        self._flying[message] = message, delivery, outgoing
        self._rate.spend(len(payload), asyncio.get_running_loop().time())
        try:
            await self._sink.send(outgoing)
        except RecordsRejected as refusal:
            del self._flying[message]
            self._refusal = refusal
            delivery.refused(message, refusal.refused)
            self._handed_over(delivery, message)
        except MessageRejected as refusal:
            del self._flying[message]
            self._bury(delivery, message, refusal)
        else:
            del self._flying[message]
            self._handed_over(delivery, message)

    async def _allowed(self) -> None:
        """Wait until ``max_rate`` allows one message."""
        if self._rate.limit is not None:
            async with self._pace:
                while (wait_s := self._rate.wait_s(asyncio.get_running_loop().time())) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(wait_s)

    def _handed_over(self, delivery: Delivery, message: Message) -> None:
        message.waiting = False
        message.sent_s = asyncio.get_running_loop().time()
        delivery.suspicion.handed_over(message)
        if self._failures:
            self._recovered()
        if not self._by_receiver:
            delivery.window.settle(message)
            self._moved()
        else:
            self._hearing.handed_over(delivery, message)

    def _moved(self) -> None:
        """A window moved: report progress, and wake whoever waits for that."""
        self._lanes.report()
        self._lanes.changed.set()
        if self._draining.is_set():
            self._lanes.tend()

    def _bury(self, delivery: Delivery, message: Message, refusal: MessageRejected) -> None:
        """Make its records dead letters; a tombstone takes their numbers. A refused tombstone is only asked again.

        Not if they were confirmed meanwhile: then the numbers stand for nothing.
        """
        if not delivery.window.holds(message):
            return
        self._refusal = refusal
        message.waiting = False
        message.sent_s = asyncio.get_running_loop().time()
        if message.kind != TOMBSTONE:
            self._lanes.put(delivery, delivery.bury(message, refusal.reason))
        elif not self._by_receiver:
            delivery.window.settle(message)
            self._moved()

    def _stream(self, delivery: Delivery) -> Stream:
        lane, agent = delivery.lane, self._identity.agent
        topic = self._sink.confirm_topic
        return Stream(agent, lane.stream, lane.log, lane.boot, topic, lane.replayed, lane.request)


def _sink(
    name: str, settings: RouteSettings, identity: AgentIdentity, buffer: Buffer, at_broker: AtBroker | None
) -> Sink:
    match settings:  # a sink's library is loaded only by who uses it
        case MqttRouteSettings():
            from edge_agent.routes.mqtt import MqttSink

            presence, announces = at_broker or share({name: settings}, identity, buffer, buffer.append)[name]
            return MqttSink(name, settings, identity, presence, announces=announces)
        case SqlRouteSettings():
            from edge_agent.routes.sql import SqlSink

            return SqlSink(name, settings)
        case FileRouteSettings():
            from edge_agent.routes.file import FileSink

            return FileSink(name, settings, identity.agent)
        case _:
            raise TypeError(settings.sink)


def _go_on_if_wanted() -> None:
    """Raises CancelledError if we were cancelled while a connection ended: Python 3.11's TaskGroup forgets that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _first(group: BaseExceptionGroup[BrokerUnavailable]) -> BrokerUnavailable:
    """The most telling of several that came at once: a refusal, else the first."""
    found: list[BrokerUnavailable] = []
    for error in group.exceptions:
        found.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in found if isinstance(error, SinkRefused)), found[0])
