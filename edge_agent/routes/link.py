"""One MQTT connection on the event loop: made, used, thrown away. paho-mqtt does the protocol, the loop the sockets.

paho by itself would re-send a poisonous packet for ever, notice a half-open broker only after two keep-alives, ignore
what the broker announced it can take, and block on DNS, TCP and TLS. So here

- a link connects once, in a thread of its own, within ``CONNECT_S``; it never reconnects: make a new one;
- ``publish`` returns with the broker's PUBACK, whose reason code is judged (see verdicts);
- what the CONNACK grants is kept: receive maximum, packet size, QoS, retained messages, keep-alive, session expiry;
- when neither an acknowledgement nor a byte has moved for ``ack_timeout`` while something is unacknowledged, the
  link is lost. A slow uplink keeps moving bytes (the kernel's send queue tells), a hung broker does not;
- when a link is lost, for whatever reason, everybody who waits on it gets BrokerUnavailable.

The files of TLS and the password are read at each connect. ``mqtts`` never falls back to clear.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import ssl
import termios
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.driver import SecretMissing
from edge_agent.errors import BrokerUnavailable
from edge_agent.routes import tls, verdicts
from edge_agent.routes.presence import Presence
from edge_agent.routes.settings import BrokerSettings
from edge_agent.routes.sink import SinkRefused
from edge_agent.threads import in_thread

CONNECT_S = 10.0
CLOSE_S = 2.0
TICK_S = 0.5  # keep-alive and ack_timeout are looked at this often
SEND_BUFFER_BYTES = 2**20  # of the socket; the kernel's own sizing would hide a slow uplink for minutes
SESSION_S = 7 * 24 * 3600  # how long a broker keeps our subscription while we are away

HEARD_MAX = 100  # confirmations on their way to us; a broker that speaks 3.1.1 cannot be told
OVERFLOW = 100 * HEARD_MAX
HEARD_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message of a subscription. Hand it to ``ack`` once it needs no second delivery."""

    topic: str
    payload: bytes
    mid: int
    retained: bool = False  # the broker kept it: as old as may be


@dataclass(slots=True)
class Granted:
    """What the broker said it takes, or the protocol's defaults."""

    receive_maximum: int = 65535
    packet_bytes: int = 2**28 - 1
    maximum_qos: int = 2
    retain: bool = True
    keepalive_s: int = 0
    session_s: int = 0

    def take(self, properties: Properties | None) -> None:
        """What a CONNACK of version 5 says otherwise."""
        said = {
            "receive_maximum": "ReceiveMaximum",
            "packet_bytes": "MaximumPacketSize",
            "maximum_qos": "MaximumQoS",
            "retain": "RetainAvailable",
            "keepalive_s": "ServerKeepAlive",
            "session_s": "SessionExpiryInterval",
        }
        for name, theirs in said.items():
            if hasattr(properties, theirs):
                setattr(self, name, type(getattr(self, name))(getattr(properties, theirs)))

    def describe(self) -> dict[str, Any]:
        """For ``status --json``."""
        return asdict(self)


class Link:
    """One connection. ``await connect()``, use it, ``await close()``. Not to be used again after that."""

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        presence: Presence | None,
        *,
        persistent: bool = False,
        announces: bool = False,
        retain: bool = True,
    ) -> None:
        self.granted = Granted(keepalive_s=max(1, round(settings.keepalive)), session_s=SESSION_S if persistent else 0)
        self.used = tls.InUse.of(settings, None)
        self.unheard = 0  # messages that nobody subscribes to
        self.dropped = 0  # messages of QoS 0 that came faster than they were read: nobody promised them to us
        self._settings = settings
        self._client_id = client_id
        self._presence = presence
        self._persistent = persistent
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._lost.add_done_callback(lambda lost: lost.cancelled() or lost.exception())  # nobody need be waiting
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] | None = None
        self._publishing: dict[int, asyncio.Future[ReasonCode]] = {}
        self._incoming: deque[Incoming] = deque()
        self._arrived = asyncio.Event()
        self._socket: socket.socket | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._acks = 0
        self._said = ""  # what paho logged of an error before the CONNACK: a TLS alert says why we are not wanted
        self._client = self._make_client()
        if announces and presence is not None:
            self._client.will_set(presence.topic, presence.state("lost"), qos=1, retain=retain)

    # --- life --------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect and wait for the CONNACK. Raises BrokerUnavailable or SinkRefused."""
        secure, host, port = self._settings.broker
        try:
            async with asyncio.timeout(CONNECT_S):
                await in_thread(self._identify, "mqtt connect")
                await in_thread(lambda: self._open(host, port), "mqtt connect")
                self._attach()
                await self._until(self._connected)
        except TimeoutError as error:
            raise BrokerUnavailable(f"{host}:{port} does not answer", hint=f"is {self._settings.url} right?") from error
        except ssl.SSLError as error:
            raise SinkRefused(f"{host}:{port}: TLS: {error}", hint=tls.handshake_hint(error)) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host can look so
            hint = f"is a broker listening at {self._settings.url}?"
            if secure and isinstance(error, ConnectionResetError):
                hint = "does the broker speak TLS on this port? mqtts:// is usually port 8883"
            why = getattr(error, "strerror", None) or error
            raise BrokerUnavailable(f"{host}:{port}: {why}", hint=hint) from error

    def _identify(self) -> None:
        """In the connecting thread: read what says who we are, as it is now."""
        settings, token = self._settings, None
        if settings.username is not None:
            try:
                token = settings.password.reveal() if settings.password else None
            except SecretMissing as error:
                raise SinkRefused(str(error.args[0]), hint=error.hint) from error
            self._client.username_pw_set(settings.username, token)
        self.used = tls.InUse.of(settings, token)  # before the files are read: a change meanwhile is then noticed
        if settings.broker[0]:
            self._client.tls_set_context(tls.context(settings.tls))

    def _open(self, host: str, port: int) -> None:
        """In the connecting thread: DNS, TCP, TLS, and CONNECT on its way."""
        self._client.connect(host, port, self.granted.keepalive_s, **self._session())
        opened: Any = self._client.socket()
        self.used = replace(self.used, peer_ends_ns=tls.peer_ends_ns(opened))
        if self._lost.done() and opened is not None:
            opened.close()  # nobody waits for it any more

    async def close(self) -> None:
        """Say goodbye if that is still possible, and let go of everything. Idempotent, bounded by ``CLOSE_S``."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._socket is not None and not self._lost.done():
            self._client.disconnect()
            await asyncio.wait((self._lost,), timeout=CLOSE_S)
        self._lose(BrokerUnavailable("closed"))

    # --- use ---------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1; returns with the PUBACK. Raises MessageRejected, QuotaExceeded or BrokerUnavailable."""
        self._check()
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise BrokerUnavailable(f"publish: {mqtt.error_string(info.rc)}")
        acknowledged: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._publishing[info.mid] = acknowledged
        try:
            code = await acknowledged
        finally:
            self._publishing.pop(info.mid, None)
        if code.value == verdicts.NO_SUBSCRIBERS:
            self.unheard += 1
        elif code.is_failure:
            raise verdicts.publish_refused(topic, code.value, str(code))

    async def subscribe(self, topic: str, *, qos: int = 1) -> None:
        """Subscribe. QoS 1 is heard by ``arrived``, QoS 0 by the presence (or, without one, by ``arrived`` too).

        Raises SinkRefused, BrokerUnavailable.
        """
        self._check()
        self._subscribed = self._loop.create_future()
        self._client.subscribe(topic, qos=qos)
        try:
            async with asyncio.timeout(self._settings.ack_timeout):
                await self._until(self._subscribed)
        except TimeoutError as error:
            raise BrokerUnavailable(f"no answer to a subscription for {self._settings.ack_timeout:g} s") from error

    @property
    def waiting(self) -> int:
        """How many messages ``arrived`` has at hand."""
        return len(self._incoming)

    async def arrived(self) -> Incoming:
        """The next message. Raises BrokerUnavailable when the link is lost and nothing is left."""
        while not self._incoming:
            self._check()
            self._arrived.clear()
            await self._arrived.wait()
        return self._incoming.popleft()

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done, with BrokerUnavailable, when this link has ended. Not to be cancelled: use asyncio.wait."""
        return self._lost

    def ack(self, message: Incoming) -> None:
        """The broker need not deliver this again."""
        if message.mid and not self._lost.done():
            self._client.ack(message.mid, 1)

    # --- making it ---------------------------------------------------------------------------------------------

    def _make_client(self) -> mqtt.Client:
        v5 = self._settings.version == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
            clean_session=None if v5 else not self._persistent,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_S / 2  # of each address tried, and of the TLS handshake
        client.max_inflight_messages_set(0)  # the route bounds what is in flight; paho must not queue
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_log = self._on_log
        return client

    def _session(self) -> dict[str, Any]:
        if self._settings.version != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self.granted.session_s
        if self._persistent or self._presence is None:
            properties.ReceiveMaximum = HEARD_MAX
            properties.MaximumPacketSize = HEARD_BYTES
        return {"clean_start": not self._persistent, "properties": properties}

    # --- the loop's side ---------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Let the event loop drive the socket that the connecting thread opened."""
        opened: Any = self._client.socket()
        if opened is None:
            raise BrokerUnavailable("the broker closed the connection at once")
        self._socket = opened
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._client.on_socket_register_write = lambda *_: self._loop.add_writer(opened, self._client.loop_write)
        self._client.on_socket_unregister_write = lambda *_: self._unregister(opened)
        self._client.on_socket_close = lambda *_: self._detach()
        self._loop.add_reader(opened, self._on_readable)
        if self._client.want_write():
            self._loop.add_writer(opened, self._client.loop_write)
        self._ticker = asyncio.create_task(self._tick(), name="mqtt keep-alive")

    def _unregister(self, opened: socket.socket) -> None:
        self._loop.remove_writer(opened)

    def _detach(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    def _on_readable(self) -> None:
        self._client.loop_read()
        pending: Callable[[], int] | None = getattr(self._socket, "pending", None)  # TLS may hold whole packets
        while pending is not None and self._socket is not None and pending() > 0:
            self._client.loop_read()

    async def _tick(self) -> None:
        """Keep-alive by paho; and the deadline for acknowledgements, which paho does not have."""
        loop = self._loop
        seen, moved_s = self._movement(), loop.time()
        while not self._lost.done():
            await asyncio.sleep(TICK_S)
            self._client.loop_misc()
            now = self._movement()
            if now != seen or not self._publishing:
                seen, moved_s = now, loop.time()
            elif loop.time() - moved_s > self._settings.ack_timeout:
                self._lose(BrokerUnavailable(f"no acknowledgement for {self._settings.ack_timeout:g} s"))

    def _movement(self) -> tuple[int, int]:
        """Changes whenever an acknowledgement came, or the peer's kernel took bytes of ours."""
        unsent = array.array("i", [0])
        if self._socket is not None:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, unsent)
        return self._acks, unsent[0]

    # --- paho's side: called on the loop, inside loop_read, loop_write and loop_misc ---------------------------

    def _on_connect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Properties | None) -> None:
        if self._connected.done():
            return
        self._client.on_log = None
        self.granted.take(properties)
        if code.is_failure:
            moved_to = getattr(properties, "ServerReference", None)
            who = self._settings.username
            self._connected.set_exception(verdicts.connect_refused(code.value, str(code), who, moved_to))
        elif self.granted.maximum_qos == 0:
            self._connected.set_exception(verdicts.connect_refused(verdicts.QOS_NOT_SUPPORTED, "maximum QoS 0", None))
        else:
            self._connected.set_result(None)

    def _on_log(self, client: Any, data: Any, level: int, text: str) -> None:
        """Until the CONNACK: paho keeps a TLS alert, by which a broker refuses a certificate, to its log."""
        if level == mqtt.MQTT_LOG_ERR:
            self._said = text

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            if code.value == verdicts.TAKEN_OVER and self._presence is not None:
                self._presence.taken_over(self._client_id)
            self._lose(verdicts.disconnected(code.value, str(code), getattr(properties, "ServerReference", None)))
        elif not self._connected.done():
            self._lose(tls.not_let_in(self._settings, self._said))
        else:  # paho's code says no more than that
            self._lose(BrokerUnavailable("the connection to the broker was lost"))

    def _on_publish(self, client: Any, data: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        self._acks += 1
        waiting = self._publishing.get(mid)
        if waiting is not None and not waiting.done():
            waiting.set_result(code)

    def _on_subscribe(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        if self._subscribed is None or self._subscribed.done():
            return
        if any(code.is_failure for code in codes):
            self._subscribed.set_exception(verdicts.subscription_refused(str(codes[0])))
        else:
            self._subscribed.set_result(None)

    def _on_message(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        if message.qos == 0 and self._presence is not None:
            if topic == self._presence.topic:
                self._presence.hear(bytes(message.payload), message.retain)
        elif message.qos == 0 and len(self._incoming) >= HEARD_MAX:
            self.dropped += 1
        elif message.qos <= 1:
            self._incoming.append(Incoming(topic, bytes(message.payload), message.mid, message.retain))
            self._arrived.set()
            if len(self._incoming) > OVERFLOW:  # they come again, and we have time for them meanwhile
                self._lose(BrokerUnavailable("more confirmations than can be read"))

    # --- losing it ---------------------------------------------------------------------------------------------

    async def _until(self, wanted: asyncio.Future[None]) -> None:
        await asyncio.wait((wanted, self._lost), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            self._check()
        await wanted

    def _check(self) -> None:
        if self._lost.done():
            self._lost.result()

    def _lose(self, error: BrokerUnavailable) -> None:
        if self._lost.done():
            return
        if self._presence is not None:
            error = self._presence.contested(error.args[0]) or error
        self._lost.set_exception(error)
        opened = self._client.socket()
        self._detach()
        if opened is not None:
            self._loop.call_soon(opened.close)  # soon: paho may be in the middle of using it
        for waiting in self._publishing.values():
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # its publisher may be cancelled before it looks
        self._arrived.set()
