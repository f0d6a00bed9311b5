"""The receiver's loop: MQTT in, one transaction a batch, then the confirmations out.

::

    broker ──message──► batch ──COMMIT (FULL)──► PUBACK to the broker, confirmation to the agent

The broker gets its PUBACK only after the commit, and keeps a persistent session for us: killed at any moment, we get
again what we had not committed. Killed between commit and confirmation, the agent or the broker sends again, the key
(agent, log, seq) removes the double, and it is confirmed then.

Single-threaded: paho's loop, the database and the callback share the caller's thread. A batch is committed when it is
``BATCH_S`` old, holds ``BATCH_BYTES``, or nothing more has come for ``QUIET_S``.
"""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.errors import BrokerUnavailable
from edge_agent.logs import Log, Outage
from edge_agent.receiver.message import BadMessage, Message, parse
from edge_agent.receiver.store import Gap, OnRecord, Store

BATCH_S = 0.05
BATCH_BYTES = 4 * 2**20
QUIET_S = 0.005
IDLE_S = 0.25
SESSION_S = 7 * 24 * 3600  # the broker keeps what comes for us while we are away
UNACKED = 200  # messages the broker may have on the way to us
CONFIRMING = 100  # confirmations without PUBACK; a later one says more, so further ones wait for it
KEEPALIVE_S = 15
BACKOFF_S, BACKOFF_MAX_S = 0.2, 15.0

log = Log(__name__)


class ReceiverRefused(BrokerUnavailable):
    """The broker answers but will not serve us: credentials, certificate, or the topic."""


class Receiver:
    """Receive, commit, confirm. ``run()`` returns after ``stop()``, which any thread or signal handler may call.

    ``topics``: one filter or several; a route's records must all come (filter in the agent's route, not here), or the
    missing numbers stay gaps. ``database`` None keeps records in memory and confirms nothing. ``on_record(db,
    record)`` runs in the transaction that stores the record, once for each; it may raise RecordRejected. ``on_gap``
    hears of numbers that are missing for ``gap_after_s`` while later ones came, or that were lost to us for good.
    """

    def __init__(
        self,
        url: str,
        topics: str | Sequence[str],
        database: str | Path | None,
        *,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        ca: str | None = None,
        version: Literal["5", "3.1.1"] = "5",
        confirm: bool = True,
        on_record: OnRecord | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        on_batch: Callable[[Receiver, Sequence[Message]], None] | None = None,
        gap_after_s: float = 5.0,
    ) -> None:
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        self.confirm = confirm and database is not None
        self.connected = False
        self._url = url
        self._database = None if database is None else Path(database)
        self._client_id = client_id or _client_id(self._database)
        self._username, self._password, self._ca = username, password, ca
        self._v5 = version == "5"
        self._on_record, self._on_gap, self._on_batch = on_record, on_gap, on_batch
        self._gap_after_s = gap_after_s
        self._stop = threading.Event()
        self._store: Store | None = None
        self._client: mqtt.Client | None = None
        self._lost: BrokerUnavailable | None = None
        self._batch: list[Message] = []
        self._bad: list[tuple[str, str, bytes]] = []
        self._states: list[tuple[str, str, bytes]] = []
        self._mids: list[int] = []
        self._batch_bytes, self._batch_s = 0, 0.0
        self._confirming = 0
        self._holes: dict[tuple[str, str, int, int], float] = {}  # seen since; infinite once reported
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Counter[str]:
        """messages, records, duplicates, refused, bad_messages, tombstones, deferred, gaps; connections."""
        return self._counts + (self._store.counts if self._store is not None else Counter())

    def stop(self) -> None:
        """End ``run()`` after the batch at hand."""
        self._stop.set()

    def run(self) -> None:
        """Receive until ``stop()``. Reconnects by itself.

        Raises StorageError if the database cannot be written, ReceiverRefused if the broker refuses us at the first
        attempt, and whatever ``on_record`` raises (but for RecordRejected).
        """
        outage = Outage(log, "broker", url=self._url)
        failures = 0
        self._store = Store(self._database, self._on_record)
        try:
            while not self._stop.is_set():
                try:
                    self._connect()
                    outage.recovered()
                    failures = 0
                    self._serve()
                except BrokerUnavailable as error:
                    if isinstance(error, ReceiverRefused) and not self._counts["connections"]:
                        raise
                    outage.failed(error)
                    self._stop.wait(random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(failures, 10))))
                    failures += 1
                finally:
                    self._disconnect()
        finally:
            self._store.close()

    # --- connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        url = urlsplit(self._url)
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=mqtt.MQTTv5 if self._v5 else mqtt.MQTTv311,
            clean_session=None if self._v5 else not self.confirm,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(0)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        if self._username is not None:
            client.username_pw_set(self._username, self._password)
        self._lost, self._confirming = None, 0
        try:
            if url.scheme == "mqtts":
                client.tls_set_context(ssl.create_default_context(cafile=self._ca))
            port = url.port or (8883 if url.scheme == "mqtts" else 1883)
            client.connect(url.hostname or "", port, KEEPALIVE_S, **self._session())
        except ssl.SSLError as error:
            raise ReceiverRefused(f"{self._url}: TLS: {error}", hint="name the broker's CA file") from error
        except (OSError, ValueError) as error:
            hint = "is a broker listening there? write mqtt://host:1883 or mqtts://host:8883"
            what = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise BrokerUnavailable(f"{self._url}: {what}", hint=hint) from error

    def _session(self) -> dict[str, Any]:
        if not self._v5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S if self.confirm else 0
        properties.ReceiveMaximum = UNACKED
        return {"clean_start": not self.confirm, "properties": properties}

    def _disconnect(self) -> None:
        """What is in the batch was not acknowledged, so it comes again; forget it."""
        self.connected = False
        if self._client is not None:
            self._client.disconnect()
            self._client = None
        self._forget()

    def _serve(self) -> None:
        deadline_s = time.monotonic() + KEEPALIVE_S
        while not self._stop.is_set():
            before = self._batch_bytes
            assert self._client is not None
            code = self._client.loop(QUIET_S if before else IDLE_S)
            if self._lost is not None:
                raise self._lost
            if code != mqtt.MQTT_ERR_SUCCESS:
                raise BrokerUnavailable(f"connection lost: {mqtt.error_string(code)}")
            if not self.connected and time.monotonic() > deadline_s:
                raise BrokerUnavailable(f"{self._url} does not answer")
            if before and (self._batch_bytes == before or self._is_due()):
                self._commit()
            self._notice_gaps()
        if self._batch_bytes:
            self._commit()

    def _is_due(self) -> bool:
        return self._batch_bytes >= BATCH_BYTES or time.monotonic() - self._batch_s >= BATCH_S

    # --- what comes (called by paho inside loop) ---------------------------------------------------------------

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            hint = "check user name and password, and the broker's list of users"
            self._lost = ReceiverRefused(f"{self._url}: the broker refuses the connection: {code}", hint=hint)
            return
        options: Any = SubscribeOptions(qos=1, noLocal=True) if self._v5 else 1
        client.subscribe([(topic, options) for topic in self.topics])

    def _on_subscribe(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        denied = [topic for topic, code in zip(self.topics, codes, strict=False) if code.is_failure]
        if denied:
            hint = f"allow {denied[0]} in the broker's ACL"
            self._lost = ReceiverRefused(f"{self._url}: the broker denies the subscription", hint=hint)
            return
        self.connected = True
        self._counts["connections"] += 1

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if self._lost is None:
            from_broker = flags.is_disconnect_packet_from_server
            self._lost = (
                BrokerUnavailable(f"{self._url}: the broker closed the connection: {code}")
                if from_broker
                else BrokerUnavailable(f"connection lost: {self._url}")
            )

    def _on_publish(self, client: Any, data: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        self._confirming -= 1
        if code.is_failure:
            log.warning("confirmation refused by the broker", reason=code, hint="allow …/_agent/+/confirm in its ACL")

    def _on_message(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        if not self._batch_bytes:
            self._batch_s = time.monotonic()
        self._batch_bytes += len(message.payload) + 1
        if message.qos:
            self._mids.append(message.mid)
        payload = bytes(message.payload)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "?"
        if topic.endswith("/confirm") and "/_agent/" in topic:
            return  # another receiver's
        try:
            if topic.endswith("/state") and "/_agent/" in topic:
                self._states.append(_state(payload))
                if message.retain:  # comes once after each subscription
                    self._resume(topic, self._states[-1][0])
            else:
                self._batch.append(parse(payload))
        except BadMessage as error:
            self._bad.append((topic, str(error), payload))

    def _resume(self, state_topic: str, agent: str) -> None:
        """Tell an agent that we are (back) there: what the broker took for us meanwhile may be gone."""
        if self.confirm and self._client is not None:
            self._confirming += 1
            payload = orjson.dumps({"v": 1, "agent": agent, "resume": True})
            self._client.publish(f"{state_topic.removesuffix('/state')}/confirm", payload, qos=1)

    # --- what follows ------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Store the batch, then acknowledge it to the broker and confirm it to the agents."""
        assert self._store is not None and self._client is not None
        outcome = self._store.take(self._batch, self._bad)
        for state in self._states:
            self._store.note_state(*state)
        for mid in self._mids:
            self._client.ack(mid, 1)
        if self.confirm:
            for topic, payload in outcome.confirmations:
                if self._confirming < CONFIRMING:
                    self._confirming += 1
                    self._client.publish(topic, payload, qos=1)
        batch = self._batch
        self._forget()
        for gap in outcome.gaps:
            self._tell(gap)
        if self._on_batch is not None:
            self._on_batch(self, batch)

    def _forget(self) -> None:
        self._batch, self._bad, self._states, self._mids = [], [], [], []
        self._batch_bytes = 0

    def _notice_gaps(self) -> None:
        assert self._store is not None
        now_s = time.monotonic()
        holes = {hole: self._holes.get(hole, now_s) for hole in self._store.holes()}
        for (agent, stream, first_n, last_n), since_s in self._holes.items():
            if since_s == float("inf") and (agent, stream, first_n, last_n) not in holes:
                self._store.forget_gap(agent, stream, first_n)
        self._holes = holes
        for hole, since_s in holes.items():
            if now_s - since_s >= self._gap_after_s:
                gap = Gap(*hole, lost=False)
                self._holes[hole] = float("inf")
                self._store.note_gap(gap)
                self._tell(gap)

    def _tell(self, gap: Gap) -> None:
        self._counts["gaps"] += 1
        log.warning("gap", agent=gap.agent, stream=gap.stream, first_n=gap.first_n, last_n=gap.last_n, lost=gap.lost)
        if self._on_gap is not None:
            self._on_gap(gap)


def _state(payload: bytes) -> tuple[str, str, bytes]:
    try:
        body = orjson.loads(payload)
        agent, state = body["agent"], body["state"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadMessage(f"no state: {error}") from error
    if not isinstance(agent, str) or not isinstance(state, str):
        raise BadMessage("no state")
    return agent, state, payload


def _client_id(database: Path | None) -> str:
    """The same for the same file on the same host, since the broker's session hangs on it."""
    if database is None:
        return ""
    identity = f"{socket.gethostname()}:{database.absolute()}"
    return f"edge-receiver-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
