"""The receiver's loop: MQTT in, one transaction a batch, then the confirmations out.

::

    broker ──message──► batch ──COMMIT (FULL)──► PUBACK to the broker, confirmation to the agent

The broker gets its PUBACK only after the commit, and keeps a persistent session for us: killed at any moment, we get
again what we had not committed. Killed between commit and confirmation, the agent or the broker sends again, the key
(agent, log, seq) removes the double, and it is confirmed then.

With a ``group``, several receivers share the load (MQTT 5 shared subscriptions) into one database. Their sessions end
with the connection, so what one of them had not acknowledged goes to the others, or comes again by the agent's
``confirm_timeout``; a session that lived on would keep its share of what comes from everybody.

While the database is away (a server that restarts), the broker is left too: what it holds for us waits there.

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
from edge_agent.receiver.database import DatabaseUnavailable
from edge_agent.receiver.gaps import Gap
from edge_agent.receiver.ledger import Finding
from edge_agent.receiver.message import BadMessage, Message, parse
from edge_agent.receiver.store import OnRecord, Store

BATCH_S = 0.05
BATCH_BYTES = 4 * 2**20
QUIET_S = 0.005
IDLE_S = 0.25
LOOK_S = 1.0  # how often the gaps are looked at
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
    missing numbers stay gaps. ``database``: an SQLite file or postgresql://…; None keeps records in memory and confirms
    nothing. ``group``: share the load with all receivers that name the same group and database. ``on_record(db,
    record)`` runs in the transaction that stores the record, once for each; it may raise RecordRejected. ``on_gap``
    hears of numbers that are missing for ``gap_after_s`` while later ones came, or that were settled without us, and
    again when they were asked for (after ``ask_after_s``, if the sender still has to send them by itself), have come,
    or are given up. ``on_finding`` hears of forks and of records that were changed.
    """

    def __init__(
        self,
        url: str,
        topics: str | Sequence[str],
        database: str | Path | None,
        *,
        group: str | None = None,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        ca: str | None = None,
        version: Literal["5", "3.1.1"] = "5",
        confirm: bool = True,
        on_record: OnRecord | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        on_finding: Callable[[Finding], None] | None = None,
        on_batch: Callable[[Receiver, Sequence[Message]], None] | None = None,
        gap_after_s: float = 5.0,
        ask_after_s: float = 60.0,
    ) -> None:
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        self.confirm = confirm and database is not None
        self.connected = False
        self._url = url
        self._database = database
        self._group = group
        self._client_id = client_id or ("" if group else _client_id(database))
        self._username, self._password, self._ca = username, password, ca
        self._v5 = version == "5"
        self._keeps_session = self.confirm and not group
        self._on_record, self._on_gap, self._on_finding, self._on_batch = on_record, on_gap, on_finding, on_batch
        self._gap_after_s, self._ask_after_s = gap_after_s, ask_after_s
        self._stop = threading.Event()
        self._store: Store | None = None
        self._client: mqtt.Client | None = None
        self._lost: BrokerUnavailable | None = None
        self._batch: list[Message] = []
        self._bad: list[tuple[str, str, bytes]] = []
        self._states: list[tuple[str, str, bytes]] = []
        self._mids: list[int] = []
        self._batch_bytes, self._batch_s, self._looked_s = 0, 0.0, 0.0
        self._confirming = 0
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Counter[str]:
        """messages, records, duplicates, refused, bad_messages, tombstones, deferred; gaps, gaps_asked, gaps_filled,
        gaps_given_up, findings; connections."""
        return self._counts + (self._store.counts if self._store is not None else Counter())

    def stop(self) -> None:
        """End ``run()`` after the batch at hand."""
        self._stop.set()

    def run(self) -> None:
        """Receive until ``stop()``. Reconnects by itself, to the broker and to a database server.

        Raises StorageError if the database cannot be written (or not reached, at the first attempt), ReceiverRefused if
        the broker refuses us at the first attempt, and whatever ``on_record`` raises (but for RecordRejected).
        """
        broker, database = Outage(log, "broker", url=self._url), Outage(log, "database")
        failures = 0
        self._store = Store(self._database, self._on_record)
        try:
            while not self._stop.is_set():
                try:
                    if failures:
                        self._reopen()
                    database.recovered()
                    self._connect()
                    broker.recovered()
                    failures = 0
                    self._serve()
                except (BrokerUnavailable, DatabaseUnavailable) as error:
                    if isinstance(error, ReceiverRefused) and not self._counts["connections"]:
                        raise
                    (database if isinstance(error, DatabaseUnavailable) else broker).failed(error)
                    self._stop.wait(random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(failures, 10))))
                    failures += 1
                finally:
                    self._disconnect()
        finally:
            self._store.close()

    def _reopen(self) -> None:
        """A database server may have dropped us as well."""
        assert self._store is not None
        if isinstance(self._database, str) and "://" in self._database:
            counts = self._store.counts
            self._store.close()
            self._store = Store(self._database, self._on_record)
            self._store.counts = counts

    # --- connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        url = urlsplit(self._url)
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=mqtt.MQTTv5 if self._v5 else mqtt.MQTTv311,
            clean_session=None if self._v5 else not self._keeps_session,
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
        properties.SessionExpiryInterval = SESSION_S if self._keeps_session else 0
        properties.ReceiveMaximum = UNACKED
        return {"clean_start": not self._keeps_session, "properties": properties}

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
            self._watch(idle=not before)
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
        options: Any = SubscribeOptions(qos=1, noLocal=not self._group) if self._v5 else 1
        client.subscribe([(topic, options) for topic in self._filters()])

    def _filters(self) -> list[str]:
        """What to subscribe to. The retained states come to no shared subscription, so each receiver takes those."""
        if not self._group:
            return self.topics
        shared = [f"$share/{self._group}/{topic}" for topic in self.topics]
        return shared + sorted({_states_of(topic) for topic in self.topics})

    def _on_subscribe(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        denied = [topic for topic, code in zip(self._filters(), codes, strict=False) if code.is_failure]
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
            payload = orjson.dumps({"v": 1, "agent": agent, "resume": True})
            self._publish(f"{state_topic.removesuffix('/state')}/confirm", payload)

    # --- what follows ------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Store the batch, then acknowledge it to the broker and confirm it to the agents."""
        assert self._store is not None and self._client is not None
        outcome = self._store.take(self._batch, self._bad, self._states)
        for mid in self._mids:
            self._client.ack(mid, 1)
        if self.confirm:
            for topic, payload in outcome.confirmations:
                if self._confirming < CONFIRMING:
                    self._publish(topic, payload)
        batch = self._batch
        self._forget()
        for gap in outcome.gaps:
            self._tell(gap)
        self._report(outcome.findings)
        if self._on_batch is not None:
            self._on_batch(self, batch)

    def _forget(self) -> None:
        self._batch, self._bad, self._states, self._mids = [], [], [], []
        self._batch_bytes = 0

    def _publish(self, topic: str, payload: bytes) -> None:
        assert self._client is not None
        self._confirming += 1
        self._client.publish(topic, payload, qos=1)

    def _watch(self, *, idle: bool) -> None:
        """Between batches: the gaps, and a slice of the proof."""
        assert self._store is not None
        now_s = time.monotonic()
        if now_s - self._looked_s >= min(LOOK_S, self._gap_after_s / 2):
            self._looked_s = now_s
            watch = self._store.look_at_gaps(self._gap_after_s, self._ask_after_s, ask=self.confirm)
            for gap in watch.gaps:
                self._tell(gap)
            for topic, payload in watch.requests:
                self._publish(topic, payload)
        if idle:
            self._report(self._store.ledger.step())

    def _tell(self, gap: Gap) -> None:
        self._counts["gaps" if gap.state == "open" else f"gaps_{gap.state}"] += 1
        about = {"stream": gap.stream, "first_n": gap.first_n, "last_n": gap.last_n, "lost": gap.lost}
        log.warning("gap", agent=gap.agent, **about, state=gap.state, reason=gap.reason)
        if self._on_gap is not None:
            self._on_gap(gap)

    def _report(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._counts["findings"] += 1
            log.error("finding", agent=finding.agent, code=finding.code, what=finding.text)
            if self._on_finding is not None:
                self._on_finding(finding)


def _states_of(topic: str) -> str:
    """The filter of the states of the agents whose records ``topic`` takes: enterprise/site/area/line/_agent/agent."""
    levels = topic.split("/")
    named = [level for level in levels[:4] if level != "#"]
    return "/".join([*named, *["+"] * (4 - len(named)), "_agent", "+", "state"])


def _state(payload: bytes) -> tuple[str, str, bytes]:
    try:
        body = orjson.loads(payload)
        agent, state = body["agent"], body["state"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadMessage(f"no state: {error}") from error
    if not isinstance(agent, str) or not isinstance(state, str):
        raise BadMessage("no state")
    return agent, state, payload


def _client_id(database: str | Path | None) -> str:
    """The same for the same database on the same host, since the broker's session hangs on it."""
    if database is None:
        return ""
    where = database if "://" in str(database) else Path(database).absolute()
    identity = f"{socket.gethostname()}:{where}"
    return f"edge-receiver-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
