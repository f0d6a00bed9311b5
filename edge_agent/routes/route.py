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
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.logs import Log, Outage
from edge_agent.model import Kind
from edge_agent.routes.confirmation import BadConfirmation, Confirmation, parse
from edge_agent.routes.message import (
    BATCH_BYTES,
    BATCH_ROWS,
    TOMBSTONE,
    AgentIdentity,
    Batch,
    Message,
    Stream,
    build,
    tombstone,
)
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings
from edge_agent.routes.sink import Limits, Outgoing, Sink, SinkRefused
from edge_agent.routes.suspicion import Suspicion
from edge_agent.routes.window import Window

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Lane, Reader, RouteFilter

WINDOW_BYTES = 8 * 2**20
PACE_S = 0.02  # after news, wait this long for more: waking at every commit costs more than it gives
BACKOFF_S, BACKOFF_MAX_S, BACKOFF_REFUSED_S = 0.2, 30.0, 60.0
CAREFUL_ROWS = 256

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
        settings: MqttRouteSettings,
        identity: AgentIdentity,
        buffer: Buffer,
        sink: Sink | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._identity = identity
        self._buffer = buffer
        self._sink = sink or _sink(name, settings, identity, buffer)
        self._by_receiver = settings.confirm == "receiver"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"route-{name}")
        self._reader: Reader | None = None
        self._lanes: deque[Lane] = deque()
        self._sent_n: dict[str, int] = {}  # by stream of this run, the highest n ever given to the sink
        self._window = Window(0, 0, 0)
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._flying: dict[int, Message] = {}  # by n: given to the sink, which has not answered
        self._dead: dict[int, str] = {}  # n → reason: above the lane's upto, and dead letters already
        self._suspicion = Suspicion()
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._draining = asyncio.Event()
        self._drained = asyncio.Event()
        self._reported = (0, 0)
        self._asked_s: float | None = None  # when we first sent something that the receiver has not answered
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
            while not (self._draining.is_set() and self._settled_all()):
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
        self._draining.set()
        self._changed.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._buffer.committed(self._buffer.next_seq - 1)
                await self._drained.wait()
        except TimeoutError:
            return False
        return self._settled_all()

    def status(self) -> dict[str, Any]:
        """For `edge-agent status`: how it stands and, if it fails, what to type."""
        stats = self._buffer.stats()
        error = self._error or self._refusal
        return {
            "state": self._state,
            "stream": self._stream.name if self._lanes else None,
            "confirmed_n": self._window.upto,
            "pending": stats["pending"].get(self.name, 0),
            "in_flight": len(self._flying),
            "dead": stats["dead_letters"].get(self.name, 0),
            "last_error": None if error is None else str(error.args[0]),
            "hint": "" if error is None else error.hint,
            "confirm": "delivered" if self._by_receiver else "handed over",
            "receiver_silent": self._silent(),
            "sent_again": self._counts["sent_again"],
            "refused_confirmations": self._counts["refused_confirmations"],
            "connections": self._counts["connections"],
        }

    async def _begin(self) -> None:
        arguments = (self.name, self._settings.start, route_filter(self._settings))
        self._lanes.extend(await self._in_thread(self._buffer.lanes, *arguments))
        self._reader = await self._in_thread(self._buffer.reader)
        self._enter_lane()

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
        self._suspicion.connection_ended(min(self._flying.values(), key=lambda message: message.n, default=None))
        self._flying.clear()
        self._error = error
        self._outage.failed(error)
        await self._back_off(isinstance(error, SinkRefused))

    async def _deliver(self, limits: Limits) -> None:
        """Everything that lives with one connection. Returns when drained."""
        lane = self._lanes[0]
        seq, n = self._reported
        self._window = Window(seq, n, self._sent_n.get(lane.stream, n))
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

    # --- lanes -------------------------------------------------------------------------------------------------

    @property
    def _stream(self) -> Stream:
        lane = self._lanes[0]
        return Stream(self._identity.agent, lane.stream, lane.log, lane.boot, self._sink.confirm_topic)

    def _enter_lane(self) -> None:
        lane = self._lanes[0]
        self._reported = (lane.seq, lane.n)
        self._sent_n[lane.stream] = lane.n
        self._dead = {}
        self._window = Window(lane.seq, lane.n, lane.n)

    def _settled_all(self) -> bool:
        return len(self._lanes) == 1 and self._window.progress()[0] >= self._buffer.durable_seq

    def _report(self) -> None:
        """Tell the buffer how far this lane is, if it moved; wake whoever waits for room or for the end."""
        progress = self._window.progress()
        if progress != self._reported:
            self._reported = progress
            self._buffer.progress(self._lanes[0], *progress)
            for n in [n for n in self._dead if n <= progress[1]]:
                del self._dead[n]
        self._changed.set()

    # --- fill --------------------------------------------------------------------------------------------------

    async def _fill(self, limits: Limits) -> None:
        """Keep the window filled, lane after lane. Returns when draining and all of it is settled."""
        while True:
            lane, window = self._lanes[0], self._window
            await self._room()
            end = self._buffer.durable_seq if lane.to_seq is None else lane.to_seq
            if window.read_seq < end:
                careful = self._suspicion.careful or self._silent()
                batch = await self._in_thread(self._read, lane, window, end, limits, careful)
                self._take(lane, window, batch)
            elif lane.to_seq is not None:
                await self._empty()
                self._lanes.popleft()
                self._enter_lane()
            elif self._draining.is_set():
                await self._empty()
                if self._settled_all():
                    return
            else:
                await self._news(window.read_seq)

    def _read(self, lane: Lane, window: Window, end: int, limits: Limits, careful: bool) -> Batch:
        """In the route's thread. The window's end stands still meanwhile: only ``_fill`` moves it."""
        max_rows = CAREFUL_ROWS if careful else BATCH_ROWS
        assert self._reader is not None
        rows = self._reader.rows(lane, window.read_seq, end, max_rows, limits.message_bytes if careful else BATCH_BYTES)
        read_seq = rows[-1].seq if rows else end
        return build(rows, window.last_n, read_seq, limits.message_bytes, self._suspicion.cap, self._dead)

    def _take(self, lane: Lane, window: Window, batch: Batch) -> None:
        for item in batch.too_large:
            reason = f"{item.size} bytes: larger than a message may be"
            self._buffer.dead_letter(lane, item.n, item.seq, reason)
            log.warning("dead letter", route=self.name, stream=lane.stream, n=item.n, seq=item.seq, reason=reason)
        window.add(batch)
        for message in batch.messages:
            self._queue.put_nowait(message)
        self._report()

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
        window = self._window
        if not window.holds(message):
            return
        if message.n == self._suspicion.condemned and message.count == 1:
            self._suspicion.buried()
            self._bury(message, MessageRejected("the connection ended each time this record was sent"))
            return
        window.sending(message)
        self._sent_n[self._lanes[0].stream] = window.sent_n
        self._flying[message.n] = message
        try:
            outgoing = Outgoing(message.source, message.kind, message.payload(self._stream, window.upto))
            await self._sink.send(outgoing)
        except MessageRejected as refusal:
            del self._flying[message.n]
            self._bury(message, refusal)
        else:
            del self._flying[message.n]
            self._handed_over(message)

    def _handed_over(self, message: Message) -> None:
        now_s = asyncio.get_running_loop().time()
        message.waiting = False
        message.sent_s = now_s
        self._suspicion.handed_over(message)
        if self._failures:
            self._recovered()
        if not self._by_receiver:
            self._window.settle(message)
            self._report()
        elif self._asked_s is None and self._window.holds(message):
            self._asked_s = now_s

    def _bury(self, message: Message, refusal: MessageRejected) -> None:
        """Make its records dead letters; a tombstone takes their numbers. A refused tombstone is only asked again."""
        self._refusal = refusal
        message.waiting = False
        message.sent_s = asyncio.get_running_loop().time()
        if message.kind == TOMBSTONE:
            if not self._by_receiver:
                self._window.settle(message)
                self._report()
            return
        reason = refusal.reason
        numbers = message.numbers()
        for n in numbers:  # they are of this window, so their seqs are known
            self._dead_letter(n, reason)
        log.warning("dead letters", route=self.name, source=message.source, kind=message.kind, records=len(numbers),
                    first_n=message.n, reason=reason)  # fmt: skip
        stone = tombstone([(n, 1, reason) for n in numbers])
        self._window.replace(message, stone)
        self._queue.put_nowait(stone)

    def _dead_letter(self, n: int, reason: str) -> None:
        seq = self._window.seq_of(n)
        if seq is not None:
            self._dead[n] = reason
            self._buffer.dead_letter(self._lanes[0], n, seq, reason)

    # --- hear, and send again ----------------------------------------------------------------------------------

    async def _hear(self) -> None:
        while True:
            payload = await self._sink.confirmed()
            try:
                self._confirmed(parse(payload))
            except BadConfirmation as error:
                self._counts["refused_confirmations"] += 1
                log.debug("confirmation refused", route=self.name, error=error)

    def _confirmed(self, said: Confirmation) -> None:
        lane, window = self._lanes[0], self._window
        parts = said.stream.split(".")
        if len(parts) == 3 and parts[1] != self.name and said.agent == self._identity.agent:
            return  # another route's: routes of one agent share the topic
        if said.agent != self._identity.agent or said.stream not in self._sent_n:
            raise BadConfirmation(f"stream {said.stream!r} of {said.agent!r} is not ours")
        if said.stream != lane.stream:
            return  # a lane that is finished: late, and harmless
        # A lane of an earlier run may have been sent further than this run has; it cannot hold more than its seqs.
        highest = window.sent_n if lane.to_seq is None else lane.n + lane.to_seq - lane.seq
        if said.upto > highest:
            raise BadConfirmation(f"upto {said.upto} was never sent")
        self._asked_s = None
        for n, reason in said.nack.items():
            if window.upto < n <= window.sent_n and n not in self._dead:
                self._dead_letter(n, f"receiver: {reason}")
                log.warning("dead letter", route=self.name, stream=said.stream, n=n, reason=reason)
        window.confirm(said.upto)
        self._report()

    async def _resend(self) -> None:
        timeout_s = self._settings.confirm_timeout
        while True:
            await asyncio.sleep(min(1.0, timeout_s / 4))
            now_s = asyncio.get_running_loop().time()
            overdue = [
                message
                for message in self._window
                if not message.waiting and message.sent_s is not None and now_s - message.sent_s >= timeout_s
            ]
            for message in overdue[:1] if self._silent() else overdue:
                message.waiting = True
                self._counts["sent_again"] += 1
                self._queue.put_nowait(message)
            self._changed.set()

    def _silent(self) -> bool:
        if self._asked_s is None:
            return False
        return asyncio.get_running_loop().time() - self._asked_s > self._settings.confirm_timeout

    # --- waiting -----------------------------------------------------------------------------------------------

    async def _room(self) -> None:
        while self._window.bytes >= (1 if self._silent() else WINDOW_BYTES):
            self._changed.clear()
            await self._changed.wait()

    async def _empty(self) -> None:
        while len(self._window):
            self._changed.clear()
            await self._changed.wait()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _sink(name: str, settings: MqttRouteSettings, identity: AgentIdentity, buffer: Buffer) -> Sink:
    from edge_agent.routes.mqtt import MqttSink  # a protocol library is loaded only by who uses it

    return MqttSink(name, settings, identity, buffer.log, buffer.boot, lambda: buffer.durable_seq)


def _first(group: BaseExceptionGroup[BrokerUnavailable]) -> BrokerUnavailable:
    """The most telling of several that came at once: a refusal, else the first."""
    found: list[BrokerUnavailable] = []
    for error in group.exceptions:
        found.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in found if isinstance(error, SinkRefused)), found[0])
