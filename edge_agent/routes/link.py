"""One MQTT connection on the event loop: made, used, thrown away. paho-mqtt does the protocol, the loop the sockets.

paho by itself would re-send a poisonous packet for ever, notice a half-open broker only after two keep-alives, ignore
what the broker announced it can take, and block on DNS, TCP and TLS. So here

- a link connects once, in a thread of its own, within ``CONNECT_S``; it never reconnects: make a new one;
- ``publish`` returns with the broker's PUBACK and judges its reason code;
- when neither an acknowledgement nor a byte has moved for ``ack_timeout`` while something is unacknowledged, the
  link is lost. A slow uplink keeps moving bytes (the kernel's send queue tells), a hung broker does not;
- when a link is lost, for whatever reason, everybody who waits on it gets BrokerUnavailable.

TLS is verified, always; there is no way to fall back to clear.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import ssl
import termios
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.errors import BrokerUnavailable, EdgeAgentError, MessageRejected
from edge_agent.routes.settings import MqttRouteSettings, SecretMissing
from edge_agent.routes.sink import SinkRefused

CONNECT_S = 10.0
CLOSE_S = 2.0
TICK_S = 0.5  # keep-alive and ack_timeout are looked at this often
SEND_BUFFER_BYTES = 2**20  # of the socket; the kernel's own sizing would hide a slow uplink for minutes
SESSION_S = 7 * 24 * 3600  # how long a broker keeps our subscription while we are away

# Refusals that the same message would meet again (MQTT 5, section 2.4)
_TOPIC_REFUSED = {0x87: "not authorized to publish on this topic", 0x90: "the broker takes no such topic"}
_MESSAGE_REFUSED = {0x95: "larger than the broker takes", 0x99: "the broker finds the payload invalid"}
_CREDENTIALS = {0x86, 0x87, 0x8A, 0x8C}
_HINTS = {
    0x84: "the broker does not speak this version: set `version: 3.1.1` in the route",
    0x85: "the broker refuses this client id: set `client_id` in the route",
    0x8E: "another client uses the same client id: give each agent its own `agent.id`, or set `client_id`",
}


class TopicRefused(MessageRejected):
    """The broker denies this topic, whatever the message."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this link dies."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message of a subscription. Hand it to ``ack`` once it needs no second delivery."""

    topic: str
    payload: bytes
    mid: int


class Link:
    """One connection. ``await connect()``, use it, ``await close()``. Not to be used again after that."""

    def __init__(
        self, settings: MqttRouteSettings, client_id: str, *, persistent: bool = False, will: Will | None = None
    ) -> None:
        self.receive_maximum = 65535
        self.packet_bytes = 2**28 - 1
        self._settings = settings
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
        self._client = self._make_client(client_id, will)

    # --- life --------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect and wait for the CONNACK. Raises BrokerUnavailable or SinkRefused."""
        secure, host, port = broker_address(self._settings.url)
        try:
            async with asyncio.timeout(CONNECT_S):
                if secure:
                    self._client.tls_set_context(await asyncio.to_thread(self._tls))
                await _in_thread(lambda: self._open(host, port))
                self._attach()
                await self._until(self._connected)
        except TimeoutError as error:
            raise BrokerUnavailable(f"{host}:{port} does not answer", hint=f"is {self._settings.url} right?") from error
        except ssl.SSLError as error:
            raise SinkRefused(f"{host}:{port}: TLS: {error}", hint=_tls_hint(error)) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host can look so
            hint = f"is a broker listening at {self._settings.url}?"
            why = getattr(error, "strerror", None) or error
            raise BrokerUnavailable(f"{host}:{port}: {why}", hint=hint) from error

    def _open(self, host: str, port: int) -> None:
        """In the connecting thread: DNS, TCP, TLS, and CONNECT on its way."""
        self._client.connect(host, port, self._keepalive(), **self._session())
        opened = self._client.socket()
        if self._lost.done() and opened is not None:
            opened.close()  # nobody waits for it any more

    async def close(self) -> None:
        """Say goodbye if that is still possible, and let go of everything. Idempotent, bounded by ``CLOSE_S``."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._socket is not None and not self._lost.done():
            self._client.disconnect()
            await asyncio.wait((self._lost,), timeout=CLOSE_S)
        self._lose("closed")

    # --- use ---------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1; returns with the PUBACK. Raises MessageRejected or BrokerUnavailable."""
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
        if code.value in _TOPIC_REFUSED:
            reason = f"{topic}: {_TOPIC_REFUSED[code.value]} (0x{code.value:02X})"
            raise TopicRefused(reason, hint=f"allow {topic} on the broker")
        if code.value in _MESSAGE_REFUSED:
            raise MessageRejected(f"{topic}: {_MESSAGE_REFUSED[code.value]} (0x{code.value:02X})")
        if code.is_failure:
            raise BrokerUnavailable(f"{topic}: refused for now: {code} (0x{code.value:02X})")

    async def subscribe(self, topic: str) -> None:
        """Subscribe with QoS 1. Raises SinkRefused when the broker denies it, or BrokerUnavailable."""
        self._check()
        self._subscribed = self._loop.create_future()
        self._client.subscribe(topic, qos=1)
        await self._until(self._subscribed)

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
        if not self._lost.done():
            self._client.ack(message.mid, 1)

    # --- making it ---------------------------------------------------------------------------------------------

    def _make_client(self, client_id: str, will: Will | None) -> mqtt.Client:
        v5 = self._settings.version == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
            clean_session=None if v5 else not self._persistent,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_S / 2  # of each address tried, and of the TLS handshake
        client.max_inflight_messages_set(0)  # the route bounds what is in flight; paho must not queue
        if self._settings.username is not None:
            secret = self._settings.password
            try:
                client.username_pw_set(self._settings.username, secret.reveal() if secret else None)
            except SecretMissing as error:
                raise SinkRefused(str(error.args[0]), hint=error.hint) from error
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _session(self) -> dict[str, Any]:
        if self._settings.version != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S if self._persistent else 0
        return {"clean_start": not self._persistent, "properties": properties}

    def _keepalive(self) -> int:
        return max(1, round(self._settings.keepalive))

    def _tls(self) -> ssl.SSLContext:
        tls = self._settings.tls
        try:
            context = ssl.create_default_context(cafile=tls.ca)
            if tls.cert is not None:
                context.load_cert_chain(tls.cert, tls.key)
        except OSError as error:
            where = ", ".join(path for path in (tls.ca, tls.cert, tls.key) if path)
            raise SinkRefused(f"TLS files ({where}): {error}", hint="check the route's `tls:` section") from error
        return context

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
                self._lose(f"no acknowledgement for {self._settings.ack_timeout:g} s")

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
        if code.is_failure:
            who = f" {self._settings.username!r}" if self._settings.username else ""
            hint = _HINTS.get(code.value, "")
            if code.value in _CREDENTIALS:
                hint = f"check `username`{who} and `password` of the route, and the broker's list of users"
            error = SinkRefused if hint else BrokerUnavailable
            self._connected.set_exception(error(f"the broker refuses the connection: {code}", hint=hint))
            return
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.packet_bytes = getattr(properties, "MaximumPacketSize", self.packet_bytes)
        self._connected.set_result(None)

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._lose(f"the broker closed the connection: {code}", hint=_HINTS.get(code.value, ""))
        else:  # paho's code says no more than that
            self._lose("the connection to the broker was lost")

    def _on_publish(self, client: Any, data: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        self._acks += 1
        waiting = self._publishing.get(mid)
        if waiting is not None and not waiting.done():
            waiting.set_result(code)

    def _on_subscribe(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        if self._subscribed is None or self._subscribed.done():
            return
        if any(code.is_failure for code in codes):
            error = SinkRefused(f"the broker denies the subscription: {codes[0]}", hint="allow it in the broker's ACL")
            self._subscribed.set_exception(error)
        else:
            self._subscribed.set_result(None)

    def _on_message(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        if message.qos == 1:
            self._incoming.append(Incoming(topic, bytes(message.payload), message.mid))
            self._arrived.set()

    # --- losing it ---------------------------------------------------------------------------------------------

    async def _until(self, wanted: asyncio.Future[None]) -> None:
        await asyncio.wait((wanted, self._lost), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            self._check()
        await wanted

    def _check(self) -> None:
        if self._lost.done():
            self._lost.result()

    def _lose(self, why: str, *, hint: str = "") -> None:
        if self._lost.done():
            return
        error = BrokerUnavailable(why, hint=hint)
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


def broker_address(url: str) -> tuple[bool, str, int]:
    """(TLS?, host, port) of ``mqtt://host[:port]`` or ``mqtts://…``. Raises SinkRefused when it cannot be read."""
    try:
        parts = urlsplit(url)
        secure = {"mqtt": False, "mqtts": True}[parts.scheme]
        return secure, parts.hostname or "localhost", parts.port or (8883 if secure else 1883)
    except (KeyError, ValueError) as error:
        raise SinkRefused(
            f"{url!r} is no broker address", hint="write mqtt://host:1883 or mqtts://host:8883"
        ) from error


def _tls_hint(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "put the CA that signed the broker's certificate into `tls: {ca: /path}`; the url must name its host"
    return "does the broker speak TLS on this port? mqtts:// is usually port 8883"


async def _in_thread(work: Callable[[], object]) -> None:
    """Run ``work`` in a thread of its own, and abandon it when cancelled: a resolver may hang for half a minute, and
    must not hold up the end of the process as a thread of the loop's pool would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except (OSError, ValueError, EdgeAgentError) as failed:
            error = failed
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="mqtt connect", daemon=True).start()
    await done
