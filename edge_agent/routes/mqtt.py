"""The MQTT sink: two links, one that publishes, one that hears confirmations.

The publisher starts clean and carries the last will. The subscriber has a persistent session, so that a confirmation
published while we were away still comes, and acknowledges each only after it moved progress. If either is lost, both
are: the route opens the sink anew. With ``confirm: broker`` there is no subscriber.

A topic that the broker denies is not tried again for a minute: mosquitto 2.0.11 closes the connection at each attempt,
after it has answered.

Topics come from the route's template; a source that holds ``/``, ``+`` or ``#`` cannot make levels of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable

import orjson

from edge_agent import clock
from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.logs import Log
from edge_agent.routes.link import Incoming, Link, TopicRefused, Will
from edge_agent.routes.message import AgentIdentity
from edge_agent.routes.settings import MqttRouteSettings
from edge_agent.routes.sink import Limits, Outgoing, SinkRefused

_PACKET_OVERHEAD = 32  # fixed header, packet id, property length; the topic comes on top
_TOPIC_MAX = 512
_SMALLEST = 4096  # bytes of a message, as in the settings: less would not hold a record and its head
_GOODBYE_S = 1.0
_ASK_AGAIN_S = 60.0  # a denied topic is tried this often

log = Log(__name__)


class MqttSink:
    """See :class:`edge_agent.routes.sink.Sink` for what each method promises."""

    def __init__(
        self,
        name: str,
        settings: MqttRouteSettings,
        identity: AgentIdentity,
        log: str,
        boot: str,
        seq: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._log, self._boot, self._seq = log, boot, seq
        self._client_id = settings.client_id or f"edge-agent-{identity.agent}-{name}"
        self._topics: dict[tuple[str, str], str] = {}
        self._state_denied = False
        self._refused: dict[str, tuple[float, TopicRefused]] = {}  # by topic: since when (monotonic), and the answer
        self._publisher: Link | None = None
        self._subscriber: Link | None = None
        self._unacknowledged: Incoming | None = None
        root = f"{identity.enterprise}/{identity.site}/{identity.area}/{identity.line}/_agent/{identity.agent}"
        self._state_topic = f"{root}/state"
        self.confirm_topic = f"{root}/confirm" if settings.confirm == "receiver" else ""

    async def open(self) -> Limits:
        await self.close()
        will = Will(self._state_topic, self._state("lost"))
        publisher = self._publisher = Link(self._settings, self._client_id, will=will)
        await publisher.connect()
        if self.confirm_topic:
            self._subscriber = Link(self._settings, f"{self._client_id}-confirm", persistent=True)
            await self._subscriber.connect()
            await self._subscriber.subscribe(self.confirm_topic)
        message_bytes = min(self._settings.message_size, publisher.packet_bytes - _PACKET_OVERHEAD - _TOPIC_MAX)
        if message_bytes < _SMALLEST:  # not to make dead letters of what only this setting refuses
            why = f"the broker takes no packet above {publisher.packet_bytes} bytes"
            raise SinkRefused(why, hint=f"set max_packet_size on the broker to {self._settings.message_size + 1024}")
        await self._announce(publisher, "online")
        return Limits(message_bytes, min(self._settings.in_flight, publisher.receive_maximum))

    async def send(self, message: Outgoing) -> None:
        if self._publisher is None:
            raise BrokerUnavailable("not connected")
        topic, now_s = self.topic(message.source, message.kind), time.monotonic()
        refused_s, refusal = self._refused.get(topic, (-_ASK_AGAIN_S, None))
        if refusal is not None and now_s - refused_s < _ASK_AGAIN_S:
            raise TopicRefused(refusal.reason, hint=refusal.hint)
        try:
            await self._publisher.publish(topic, message.payload)
        except TopicRefused as error:
            self._refused[topic] = (now_s, error)
            raise

    async def confirmed(self) -> bytes:
        if self._subscriber is None:
            raise BrokerUnavailable("not connected")
        if self._unacknowledged is not None:
            self._subscriber.ack(self._unacknowledged)
            self._unacknowledged = None
        self._unacknowledged = await self._subscriber.arrived()
        return self._unacknowledged.payload

    async def ended(self) -> None:
        links = [link.lost for link in (self._publisher, self._subscriber) if link is not None]
        if not links:
            raise BrokerUnavailable("not connected")
        done, _ = await asyncio.wait(links, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()

    async def close(self) -> None:
        publisher, subscriber = self._publisher, self._subscriber
        self._publisher = self._subscriber = self._unacknowledged = None
        if publisher is not None:
            with contextlib.suppress(BrokerUnavailable, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._announce(publisher, "offline")
        await asyncio.gather(*(link.close() for link in (publisher, subscriber) if link is not None))

    async def _announce(self, publisher: Link, state: str) -> None:
        """Publish the retained state. A broker that denies the topic costs us only that."""
        try:
            await publisher.publish(self._state_topic, self._state(state), retain=True)
        except MessageRejected as refusal:
            if not self._state_denied:
                log.warning("state not published", error=refusal)
            self._state_denied = True

    def topic(self, source: str, kind: str) -> str:
        """Where records of this source and kind go."""
        known = self._topics.get((source, kind))
        if known is None:
            known = self._topics[source, kind] = self._fill(source, kind)
        return known

    def _fill(self, source: str, kind: str) -> str:
        at = self._identity
        return self._settings.topic.format(
            enterprise=at.enterprise,
            site=at.site,
            area=at.area,
            line=at.line,
            agent=at.agent,
            source=re.sub(r"[/+#\x00]", "_", source)[:200],
            station=re.sub(r"[/+#\x00]", "_", source)[:200],
            kind=kind,
        )

    def _state(self, state: str) -> bytes:
        return orjson.dumps(
            {
                "v": 1,
                "agent": self._identity.agent,
                "state": state,
                "log": self._log,
                "boot": self._boot,
                "version": self._identity.version,
                "at_ns": str(clock.now().at_ns),
                "seq": self._seq(),
            }
        )
