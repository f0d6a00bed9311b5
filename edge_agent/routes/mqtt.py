"""The MQTT sink: two links, one that publishes, one that hears confirmations.

The publisher starts clean; of the route that announces the agent it carries the last will. The subscriber has a
persistent session, so that a confirmation published while we were away still comes, and acknowledges each only after
it moved progress. If either is lost, both are: the route opens the sink anew. With ``confirm: broker`` there is no
subscriber.

A topic that the broker denies is not tried again for a minute: mosquitto 2.0.11 closes the connection at each attempt,
after it has answered. A broker whose quota is exceeded is asked again, slower and slower, on the connection there is.

Certificates and tokens are looked at once a minute (see tls); one that was renewed ends the connection in order, and
the route makes the next one at once.

Topics come from the route's template; a source that holds ``/``, ``+`` or ``#`` cannot make levels of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any, NoReturn

from edge_agent.driver import SecretMissing
from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.logs import Log
from edge_agent.routes import tls
from edge_agent.routes.link import Incoming, Link
from edge_agent.routes.message import AgentIdentity, level
from edge_agent.routes.presence import Presence
from edge_agent.routes.settings import MqttRouteSettings
from edge_agent.routes.sink import Limits, Notice, Outgoing, SinkRefused
from edge_agent.routes.verdicts import NothingRetained, QuotaExceeded, TopicRefused

_PACKET_OVERHEAD = 32  # fixed header, packet id, property length; the topic comes on top
_TOPIC_MAX = 512
_SMALLEST = 4096  # bytes of a message, as in the settings: less would not hold a record and its head
_GOODBYE_S = 1.0
_ASK_AGAIN_S = 60.0  # a denied topic is tried this often
_QUOTA_S, _QUOTA_MAX_S = 0.5, 30.0

log = Log(__name__)


class MqttSink:
    """See :class:`edge_agent.routes.sink.Sink` for what each method promises."""

    commits = False  # a broker only takes

    def __init__(
        self, name: str, settings: MqttRouteSettings, identity: AgentIdentity, presence: Presence, *, announces: bool
    ) -> None:
        self._name = name
        self._settings = settings
        self._identity = identity
        self._presence = presence
        self._announces = announces
        self._client_id = settings.client_id or f"edge-agent-{identity.agent}-{name}"
        self._topics: dict[tuple[str, str], str] = {}
        self._denied: set[str] = set()  # what of the state the broker denies, told once
        self._retain = True
        self._refused: dict[str, tuple[float, TopicRefused]] = {}  # by topic: since when (monotonic), and the answer
        self._publisher: Link | None = None
        self._subscriber: Link | None = None
        self._unacknowledged: Incoming | None = None
        self._unheard = 0  # by earlier connections
        self._over_quota: set[asyncio.Task[Any] | None] = set()
        self._notices: list[Notice] = []
        self.confirm_topic = f"{presence.root}/confirm" if settings.confirm == "receiver" else ""

    async def open(self) -> Limits:
        await self.close()
        self._notices = await asyncio.to_thread(tls.file_notices, self._settings.tls)
        publisher = await self._publish_through()
        if self.confirm_topic:
            self._subscriber = Link(self._settings, f"{self._client_id}-confirm", self._presence, persistent=True)
            await self._subscriber.connect()
            await self._subscriber.subscribe(self.confirm_topic)
        granted = publisher.granted
        message_bytes = min(self._settings.message_size, granted.packet_bytes - _PACKET_OVERHEAD - _TOPIC_MAX)
        if message_bytes < _SMALLEST:  # not to make dead letters of what only this setting refuses
            why = f"the broker takes no packet above {granted.packet_bytes} bytes"
            raise SinkRefused(why, hint=f"set max_packet_size on the broker to {self._settings.message_size + 1024}")
        self._retain = self._retain and granted.retain
        await self._announce(publisher, "online")
        self._notices += tls.connection_notices(self._settings, publisher.used)
        return Limits(message_bytes, max(1, min(self._settings.in_flight, granted.receive_maximum)))

    async def send(self, message: Outgoing) -> None:
        topic, now_s = self.topic(message.source, message.kind), time.monotonic()
        refused_s, refusal = self._refused.get(topic, (-_ASK_AGAIN_S, None))
        if refusal is not None and not message.retried and now_s - refused_s < _ASK_AGAIN_S:
            raise TopicRefused(refusal.reason, hint=refusal.hint)
        try:
            await self._publish(topic, message)
        except TopicRefused as error:
            self._refused[topic] = (now_s, error)
            raise
        self._refused.pop(topic, None)

    async def _publish(self, topic: str, message: Outgoing) -> None:
        """Publish, however often the broker asks to come back later."""
        me, wait_s = asyncio.current_task(), _QUOTA_S
        try:
            while True:
                if self._publisher is None:
                    raise BrokerUnavailable("not connected")
                message.put_off = False
                try:
                    await self._publisher.publish(topic, message.payload)
                    return
                except QuotaExceeded:
                    message.put_off = True
                    self._over_quota.add(me)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                wait_s = min(2 * wait_s, _QUOTA_MAX_S)
        finally:
            self._over_quota.discard(me)

    async def confirmed(self) -> bytes:
        if self._subscriber is None:
            raise BrokerUnavailable("not connected")
        if self._unacknowledged is not None:
            self._subscriber.ack(self._unacknowledged)
            self._unacknowledged = None
        self._unacknowledged = await self._subscriber.arrived()
        return self._unacknowledged.payload

    async def ended(self) -> None:
        ends: list[asyncio.Future[Any]] = [
            link.lost for link in (self._publisher, self._subscriber) if link is not None
        ]
        if self._publisher is None:
            raise BrokerUnavailable("not connected")
        beside = [asyncio.create_task(self._watch(self._publisher), name=f"route {self._name} credentials")]
        if self._announces:
            beside.append(asyncio.create_task(self._answer(self._publisher), name=f"route {self._name} state"))
        try:
            done, _ = await asyncio.wait([*ends, *beside], return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def close(self) -> None:
        publisher, subscriber = self._publisher, self._subscriber
        self._publisher = self._subscriber = self._unacknowledged = None
        if publisher is not None:
            self._unheard += publisher.unheard
            with contextlib.suppress(BrokerUnavailable, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._announce(publisher, "offline")
        await asyncio.gather(*(link.close() for link in (publisher, subscriber) if link is not None))

    def status(self) -> dict[str, Any]:
        notices = list(self._notices)
        if self._over_quota:
            hint = "see why the broker's queue is full: does every subscriber fetch its messages?"
            notices.append(Notice("the broker takes no more for now: quota exceeded", hint))
        if not self._retain and self._announces:
            what = "the broker keeps no retained messages: a receiver that comes back waits for confirm_timeout"
            notices.append(Notice(what, "allow retained messages on the broker"))
        publisher = self._publisher
        return {
            "warnings": [notice._asdict() for notice in notices],
            "unheard": self._unheard + (publisher.unheard if publisher else 0),
            "broker": publisher.granted.describe() if publisher else None,
        }

    # --- who we are --------------------------------------------------------------------------------------------

    async def _publish_through(self) -> Link:
        """The publisher, connected; without a retained will where the broker takes none."""
        if self._announces:
            await self._presence.begin()
        while True:
            retain, announces = self._retain, self._announces
            self._publisher = Link(self._settings, self._client_id, self._presence, announces=announces, retain=retain)
            try:
                await self._publisher.connect()
            except NothingRetained:
                if not retain:
                    raise
                self._retain = False
                await self._publisher.close()
            else:
                return self._publisher

    async def _announce(self, publisher: Link, state: str) -> None:
        """Publish the retained state, and listen who else does. A broker that denies the topic costs us only that."""
        if not self._announces:
            return
        presence = self._presence
        if state == "online":
            try:
                await publisher.subscribe(presence.topic, qos=0)
            except SinkRefused as refusal:
                self._note_denied("another agent with our id would not be noticed", refusal)
        try:
            await publisher.publish(presence.topic, presence.state(state), retain=self._retain)
        except MessageRejected as refusal:
            self._note_denied("state not published", refusal)

    def _note_denied(self, what: str, refusal: Exception) -> None:
        if what not in self._denied:
            self._denied.add(what)
            log.warning(what, route=self._name, error=refusal)

    async def _answer(self, publisher: Link) -> NoReturn:
        """Another agent of our id came online: say once that we are there, so that it notices as well."""
        while True:
            await self._presence.answer()
            await self._announce(publisher, "online")

    async def _watch(self, publisher: Link) -> NoReturn:
        """Raises BrokerUnavailable when a certificate or token was renewed, so that the next connection uses it."""
        settings = self._settings
        while True:
            await asyncio.sleep(tls.LOOK_S)
            try:
                why = await asyncio.to_thread(tls.replaced, settings, publisher.used)
            except (SinkRefused, SecretMissing) as error:
                unusable = [Notice(f"the next connection will fail: {error.args[0]}", error.hint)]
            else:
                unusable = []
                if why:
                    raise BrokerUnavailable(f"{why}: reconnecting with it")
            notices = await asyncio.to_thread(tls.file_notices, settings.tls)
            self._notices = unusable + notices + tls.connection_notices(settings, publisher.used)

    # --- topics ------------------------------------------------------------------------------------------------

    def topic(self, source: str, kind: str) -> str:
        """Where records of this source and kind go."""
        known = self._topics.get((source, kind))
        if known is None:
            known = self._topics[source, kind] = self._fill(source, kind)
        return known

    def _fill(self, source: str, kind: str) -> str:
        plain = self._settings.plain_topics
        about = level(source, plain)
        return self._settings.topic.format(**self._identity.levels(plain), source=about, station=about, kind=kind)
