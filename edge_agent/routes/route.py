"""One route: the loop that owns retry, progress and dead letters. A sink only hands over what it is given.

Four kinds of tasks live while a connection lives, and end with it::

    fill     reads the lane through the buffer's Reader (in the route's own thread) into the window
    send     Limits.in_flight of them: queue → Sink.send; and one that waits for the end of the connection
    hear     confirmations → window → Buffer.progress
    resend   what stays unconfirmed for confirm_timeout goes into the queue again, with the same n

A connection that ends takes its window with it; the next one reads from the last progress again, so a reconnect and a
restart are the same thing, and records keep their n. While a receiver is silent (nothing heard for confirm_timeout)
only the oldest message is sent again, to ask; the rest follows when it answers.

Bounds: ``WINDOW_BYTES`` of records between progress and the last read, plus one batch; ``Limits.in_flight`` messages
handed over but not acknowledged; back-off between 0 and ``BACKOFF_MAX_S`` with full jitter, so that a hundred lines do
not come back in the same instant. Lanes go oldest first; one is finished when all of it is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.logs import Log, Outage
from edge_agent.model import Kind
from edge_agent.routes.confirmation import BadConfirmation, Resume, parse
from edge_agent.routes.lanes import Lanes
from edge_agent.routes.message import (
    BATCH_BYTES,
    BATCH_ROWS,
    TOMBSTONE,
    AgentIdentity,
    Batch,
    Message,
    Stream,
    build,
)
from edge_agent.routes.presence import AtBroker, Presence
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings
from edge_agent.routes.sink import Limits, Outgoing, RecordsRejected, Sink, SinkRefused
from edge_agent.routes.suspicion import Suspicion
from edge_agent.routes.window import Window

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Lane, Reader, RouteFilter

WINDOW_BYTES = 8 * 2**20
SCAN_SEQS = 200_000  # that one read of the buffer looks at, some 50 ms
PACE_S = 0.02  # after news, wait this long for more: waking at every commit costs more than it gives
BACKOFF_S, BACKOFF_MAX_S, BACKOFF_REFUSED_S = 0.2, 10.0, 60.0  # 10 s spreads a plant and is soon back
CAREFUL_ROWS = 256
HOPELESS_DRAIN_S = 1.0  # at stop, while nobody takes anything: what is pending is safe where it is
RESUME_EVERY_S = 2.0  # a receiver that says so more often is not believed

_ALWAYS = frozenset({Kind.LOG_OPENED, Kind.CONFIG, Kind.DROP, Kind.CHECKPOINT})

log = Log(__name__)
T = TypeVar("T")


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
    ) -> None:
        self.name = name
        self._settings = settings
        self._identity = identity
        self._buffer = buffer
        self._sink = sink or _sink(name, settings, identity, buffer, at_broker)
        self._by_receiver = bool(self._sink.confirm_topic)
        self._confirm_timeout_s = settings.confirm_timeout if isinstance(settings, MqttRouteSettings) else float("inf")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"route-{name}")
        self._reader: Reader | None = None
        self._lanes = Lanes(name, identity.agent, buffer)
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._flying: set[Message] = set()  # two lanes may share an n; given to the sink, which has not answered
        self._suspicion = Suspicion()
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._draining = asyncio.Event()
        self._drained = asyncio.Event()
        self._asked_s: float | None = None  # when we first sent something that the receiver has not answered
        self._resumed_s = float("-inf")
        self._failures = 0
        self._outage = Outage(log, "route", route=name)
        self._state = "starting"
        self._error: BrokerUnavailable | None = None  # while the sink is away
        self._refusal: MessageRejected | None = None  # the last one
        self._counts: Counter[str] = Counter()

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
                if self._reader is not None:
                    self._thread.submit(self._reader.close)
                self._thread.shutdown(wait=False)

    async def drain(self, timeout_s: float) -> bool:
        """Deliver what is durable now, for at most ``timeout_s``. True if all of it is settled; ends ``run()``."""
        if self._state != "connected" or self._silent():
            timeout_s = min(timeout_s, HOPELESS_DRAIN_S)
        try:
            async with asyncio.timeout(timeout_s):
                await self._buffer.committed(self._buffer.next_seq - 1)
                self._draining.set()
                self._changed.set()
                await self._drained.wait()
        except TimeoutError:
            return False
        return self._lanes.all_settled

    def status(self) -> dict[str, Any]:
        """For `edge-agent status`: how it stands and, if it fails, what to type."""
        stats = self._buffer.stats()
        error = self._error or self._refusal
        return {
            "state": self._state,
            "stream": self._lanes.lane.stream if self._lanes else None,
            "confirmed_n": self._lanes.window.upto,
            "pending": stats["pending"].get(self.name, 0),
            "in_flight": len(self._flying),
            "dead": stats["dead_letters"].get(self.name, 0),
            "last_error": None if error is None else str(error.args[0]),
            "hint": "" if error is None else error.hint,
            "confirm": "delivered" if self._by_receiver or self._sink.commits else "handed over",
            "receiver_silent": self._silent(),
            "sent_again": self._counts["sent_again"],
            "refused_confirmations": self._counts["refused_confirmations"],
            "connections": self._counts["connections"],
            **self._sink.status(),
        }

    async def _begin(self) -> None:
        settings = self._settings
        wanted = (self.name, settings.start, route_filter(settings))
        lanes = await self._in_thread(partial(self._buffer.lanes, *wanted, max_backlog=settings.max_backlog))
        self._reader = await self._in_thread(self._buffer.reader)
        self._lanes.begin(lanes)

    async def _connection(self) -> None:
        """One connection from open to its end, and the wait after a failure."""
        self._state = "connecting"
        try:
            try:
                limits = await self._sink.open()
                self._counts["connections"] += 1
                self._state = "connected"
                if not self._suspicion.active:
                    self._recovered()  # otherwise only once the peer has taken what it was last offered
                await self._deliver(limits)
            except* BrokerUnavailable as group:
                lost = group
            else:
                return
        finally:
            await self._sink.close()
        error = _first(lost)
        self._suspicion.connection_ended(min(self._flying, key=lambda message: message.n, default=None))
        self._flying.clear()
        self._error = error
        self._outage.failed(error)
        await self._back_off(isinstance(error, SinkRefused))

    async def _deliver(self, limits: Limits) -> None:
        """Everything that lives with one connection. Returns when drained."""
        self._lanes.restart()
        self._queue = asyncio.Queue()
        work: list[Coroutine[Any, Any, None]] = [self._send() for _ in range(limits.in_flight)]
        work.append(self._sink.ended())
        if self._by_receiver:
            work += [self._hear(), self._resend()]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in work]
            await self._fill(limits)
            for task in running:
                task.cancel()

    async def _back_off(self, refused: bool) -> None:
        self._state = "refused" if refused else "waiting"
        if refused:
            wait_s = BACKOFF_REFUSED_S * random.uniform(0.5, 1)
        else:
            longest_s = 1.0 if self._suspicion.careful else BACKOFF_MAX_S
            wait_s = random.uniform(0, min(longest_s, BACKOFF_S * 2 ** min(self._failures, 10)))
        self._failures += 1
        if self._draining.is_set():
            await asyncio.sleep(min(wait_s, BACKOFF_S))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._draining.wait()

    def _recovered(self) -> None:
        self._failures = 0
        self._outage.recovered()
        self._error = None

    # --- fill --------------------------------------------------------------------------------------------------

    async def _fill(self, limits: Limits) -> None:
        """Keep the window filled, lane after lane. Returns when draining and all of it is settled."""
        while True:
            lanes, window = self._lanes, self._lanes.window
            await self._room()
            if window.read_seq < lanes.end:
                careful = self._suspicion.careful or self._silent()
                batch = await self._in_thread(self._read, lanes.lane, window, lanes.end, limits, careful)
                lanes.take(batch)
                for message in batch.messages:
                    self._queue.put_nowait(message)
                self._moved()
            elif lanes.lane.to_seq is not None:
                await self._empty()
                lanes.advance()
            elif self._draining.is_set():
                await self._empty()
                if lanes.all_settled:
                    return
            else:
                await self._news(window.read_seq)

    def _read(self, lane: Lane, window: Window, end: int, limits: Limits, careful: bool) -> Batch:
        """In the route's thread. The window's end stands still meanwhile: only ``_fill`` moves it.

        However little passes the filter, one read looks at ``SCAN_SEQS``: a drop has to wait for it.
        """
        end = min(end, window.read_seq + SCAN_SEQS)
        max_rows = CAREFUL_ROWS if careful else BATCH_ROWS
        assert self._reader is not None
        rows = self._reader.rows(lane, window.read_seq, end, max_rows, limits.message_bytes if careful else BATCH_BYTES)
        read_seq = rows[-1].seq if rows else end
        return build(rows, window.last_n, read_seq, limits.message_bytes, self._suspicion.cap, self._lanes.dead)

    def _moved(self) -> None:
        """Report progress; wake whoever waits for room or for the end."""
        self._lanes.report()
        self._changed.set()

    async def _news(self, seq: int) -> None:
        """Wait until something after ``seq`` is durable, or draining begins."""
        waits = [asyncio.ensure_future(wait) for wait in (self._buffer.beyond(seq), self._draining.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                waits[0].result()  # StorageError, if the writer has failed
        finally:
            for wait in waits:
                wait.cancel()
        if not self._draining.is_set():
            await asyncio.sleep(PACE_S)

    # --- send --------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            message = await self._queue.get()
            if self._suspicion.careful:
                async with self._one_at_a_time:
                    await self._hand_over(message)
            else:
                await self._hand_over(message)

    async def _hand_over(self, message: Message) -> None:
        if not self._lanes.window.holds(message):
            return
        if message.n == self._suspicion.condemned and message.count == 1:
            self._suspicion.buried()
            self._bury(message, MessageRejected("the connection ended each time this record was sent"))
            return
        self._lanes.sending(message)
        self._flying.add(message)
        try:
            payload = message.payload(self._stream(), self._lanes.window.upto)
            await self._sink.send(Outgoing(message.source, message.kind, payload))
        except RecordsRejected as refusal:
            self._flying.discard(message)
            self._refusal = refusal
            self._lanes.refused(message, refusal.refused)
            self._handed_over(message)
        except MessageRejected as refusal:
            self._flying.discard(message)
            self._bury(message, refusal)
        else:
            self._flying.discard(message)
            self._handed_over(message)

    def _handed_over(self, message: Message) -> None:
        now_s = asyncio.get_running_loop().time()
        message.waiting = False
        message.sent_s = now_s
        self._suspicion.handed_over(message)
        if self._failures:
            self._recovered()
        if not self._by_receiver:
            self._lanes.window.settle(message)
            self._moved()
        elif self._asked_s is None and self._lanes.window.holds(message):
            self._asked_s = now_s

    def _bury(self, message: Message, refusal: MessageRejected) -> None:
        """Make its records dead letters; a tombstone takes their numbers. A refused tombstone is only asked again.

        Not if they were confirmed meanwhile: then the numbers stand for nothing, or for records of the next lane.
        """
        if not self._lanes.window.holds(message):
            return
        self._refusal = refusal
        message.waiting = False
        message.sent_s = asyncio.get_running_loop().time()
        if message.kind != TOMBSTONE:
            self._queue.put_nowait(self._lanes.bury(message, refusal.reason))
        elif not self._by_receiver:
            self._lanes.window.settle(message)
            self._moved()

    def _stream(self) -> Stream:
        lane = self._lanes.lane
        return Stream(self._identity.agent, lane.stream, lane.log, lane.boot, self._sink.confirm_topic)

    # --- hear, and send again ----------------------------------------------------------------------------------

    async def _hear(self) -> None:
        while True:
            payload = await self._sink.confirmed()
            try:
                said = parse(payload)
                if isinstance(said, Resume):
                    self._resume(said)
                elif self._lanes.confirmed(said):
                    self._asked_s = None
                    self._moved()
            except BadConfirmation as error:
                self._counts["refused_confirmations"] += 1
                log.debug("confirmation refused", route=self.name, error=error)

    def _resume(self, said: Resume) -> None:
        """The receiver came back: what it has not confirmed may never have reached it."""
        now_s = asyncio.get_running_loop().time()
        if said.agent != self._identity.agent or now_s - self._resumed_s < RESUME_EVERY_S:
            return
        self._resumed_s = now_s
        self._asked_s = None
        self._send_again(self._handed_over_before(now_s))

    async def _resend(self) -> None:
        timeout_s = self._confirm_timeout_s
        while True:
            await asyncio.sleep(min(1.0, timeout_s / 4))
            overdue = self._handed_over_before(asyncio.get_running_loop().time() - timeout_s)
            self._send_again(overdue[:1] if self._silent() else overdue)

    def _handed_over_before(self, time_s: float) -> list[Message]:
        """What the broker has had since then, and the receiver has not confirmed."""
        return [
            message
            for message in self._lanes.window
            if not message.waiting and message.sent_s is not None and message.sent_s <= time_s
        ]

    def _send_again(self, messages: Sequence[Message]) -> None:
        for message in messages:
            message.waiting = True
            self._counts["sent_again"] += 1
            self._queue.put_nowait(message)
        self._changed.set()

    def _silent(self) -> bool:
        if self._asked_s is None:
            return False
        return asyncio.get_running_loop().time() - self._asked_s > self._confirm_timeout_s

    # --- waiting -----------------------------------------------------------------------------------------------

    async def _room(self) -> None:
        while self._lanes.window.bytes >= (1 if self._silent() else WINDOW_BYTES):
            self._changed.clear()
            await self._changed.wait()

    async def _empty(self) -> None:
        while len(self._lanes.window):
            self._changed.clear()
            await self._changed.wait()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _sink(
    name: str, settings: RouteSettings, identity: AgentIdentity, buffer: Buffer, at_broker: AtBroker | None
) -> Sink:
    match settings:  # a sink's library is loaded only by who uses it
        case MqttRouteSettings():
            from edge_agent.routes.mqtt import MqttSink

            presence, announces = at_broker or AtBroker(Presence(identity, buffer, buffer.append), True)
            return MqttSink(name, settings, identity, presence, announces=announces)
        case _:
            raise TypeError(settings.sink)


def _first(group: BaseExceptionGroup[BrokerUnavailable]) -> BrokerUnavailable:
    """The most telling of several that came at once: a refusal, else the first."""
    found: list[BrokerUnavailable] = []
    for error in group.exceptions:
        found.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in found if isinstance(error, SinkRefused)), found[0])
