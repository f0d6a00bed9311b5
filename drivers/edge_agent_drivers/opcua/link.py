"""The connection to one server: asyncua for the channel and the session, our own eyes on what comes back.

What asyncua would do, and what is done about it:

- It reconnects by itself and says nothing of the gap. Here it does not: a loss is raised, the next ``open`` makes a
  fresh client.
- A server that hangs is noticed by nobody. Its supervisor asks for the server's state every ``timeout`` and reports
  through ``connection_lost_callback``; then, as when the socket breaks, ``lost`` is set and whoever waits is told.
- Its publish loop keeps one request under way, drops an answer that it cannot decode, and overlooks a gap in the
  sequence numbers. It is not used: see ``publishing``.
- It logs each failure with a traceback, and closing a connection to a server that hangs takes as long again. Its logs
  are off; closing is bounded and then cuts the socket.
- It takes the limits of what a server receives for limits of what it sends: then it refuses a small server's large
  answers, and sends what that server cannot take. Our own limits hold for what comes, the server's for what goes.
- It compares the server's clock with ours to tell whether a renewed channel's old key still holds. Ours alone counts.
- It believes any length that a message's header states and collects bytes until they are there. A header that
  announces more than the chunk we agreed to ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from asyncua import ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.common.connection import MessageChunk, SecureConnection
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from edge_agent import clock
from edge_agent.errors import DeviceLost, ReadingRejected
from edge_agent_drivers.opcua import answers
from edge_agent_drivers.opcua.answers import Failed
from edge_agent_drivers.opcua.binary import DataValue, Malformed
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.faults import TOO_MUCH, Refused, lost, on_asking, on_opening
from edge_agent_drivers.opcua.nodeid import Identifier, NodeName
from edge_agent_drivers.opcua.security import SecureClient, secure

logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

MAX_CHUNK = 65_535  # bytes; what asyncua's Hello allows a server
MAX_MESSAGE = 32 * 1024 * 1024  # bytes of an answer in all its chunks
CLOSE_S = 1.5  # for a polite goodbye
SESSION_MS = 60_000  # a session of an agent that was killed blocks a place on the server no longer than this
MOST_NODES = 10_000  # in one request, whatever the server allows
_LIMITS = (
    11705,
    12165,
    11714,
)  # OperationLimits: MaxNodesPerRead, MaxNodesPerHistoryReadData, MaxMonitoredItemsPerCall
_NAMESPACE_ARRAY = 2255

T = TypeVar("T")


class Link:
    """See the module docstring. ``open`` may be called again after ``close``."""

    def __init__(self, device: str, settings: OpcuaSettings) -> None:
        self.device = device
        self.settings = settings
        self.namespaces: list[str] = []
        self.read_limit = self.history_limit = self.items_limit = MOST_NODES
        self.on_lost: Callable[[], None] = _nothing  # called once, when the connection goes away by itself
        self._client: SecureClient | None = None
        self._loss = ""

    async def open(self) -> None:
        """Connect, log in, ask for the namespaces and the limits. Raises DeviceUnavailable, DeviceRefused."""
        await self.close()
        settings = self.settings
        client = SecureClient(settings.url, settings.timeout)
        client._watchdog_intervall = settings.timeout
        client.session_timeout = SESSION_MS
        client.max_messagesize = MAX_MESSAGE
        client.connection_lost_callback = self._on_lost
        _bound(client)
        self._client, self._loss = client, ""
        opened = False
        try:
            await plainly(secure(client, self.device, settings.security))
            await plainly(client.connect(auto_reconnect=False))
            await self._look_around()
            opened = True
        except Exception as error:
            raise on_opening(self.device, settings, error) from error
        finally:
            if not opened:
                await self.close()

    async def close(self) -> None:
        """Log out if the server still answers, then cut the connection. Bounded; never raises."""
        client, self._client = self._client, None
        if client is None:
            return
        protocol = client.uaclient.protocol
        client.connection_lost_callback = None
        if self._loss:
            _cut(protocol)  # asyncua then asks nobody, and only ends its tasks
        try:
            async with asyncio.timeout(min(CLOSE_S, self.settings.timeout)):
                await plainly(client.disconnect())
        except (TimeoutError, OSError, UaError):
            pass  # it is cut below, whatever it said
        finally:
            _cut(protocol)

    async def ask(self, request: Awaitable[T]) -> T:
        """One request. Raises DeviceLost, or Refused when the server will not and the connection is well."""
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        try:
            answer = await plainly(request)
        except Exception as error:
            mapped = on_asking(self.device, self.settings, error)
            if isinstance(mapped, DeviceLost):
                self._loss = self._loss or "no answer any more"  # then nobody is asked for a goodbye either
            raise mapped from error
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError  # Python 3.11's wait_for loses one that meets its result
        return answer

    async def send(self, request: Any, timeout_s: float | None = None) -> bytes:
        """The bytes of the answer to a request; ``timeout_s=0`` waits as long as the connection lasts."""
        protocol = self._open_client().uaclient.protocol
        if protocol is None:
            raise self.lost()
        return bytes(await self.ask(protocol.send_request(request, timeout_s)))

    async def request(self, response: Any, request: Any) -> Any:
        """A request and its answer as asyncua's objects. Raises DeviceLost, Refused."""
        data = await self.send(request)
        try:
            answer: Any = struct_from_binary(response, Buffer(data))
            answer.ResponseHeader.ServiceResult.check()
        except Exception as error:
            raise on_asking(self.device, self.settings, error) from error
        return answer

    def decoded(self, decode: Callable[[bytes], T], data: bytes) -> T:
        """What ``decode`` makes of an answer. Raises DeviceLost for nonsense, Refused for a failure."""
        try:
            return decode(data)
        except Failed as error:
            raise on_asking(self.device, self.settings, status_error(error.code)) from error
        except Malformed as error:
            raise self.lost(f"an answer that is not OPC UA: {error}") from error

    def lost(self, what: str = "") -> DeviceLost:
        """The error of a connection that is gone, for its first known reason."""
        return lost(self.device, self.settings, self._loss or what or "connection lost")

    def check(self) -> None:
        """Raise DeviceLost when the connection is known to be gone."""
        if self._loss or self._client is None:
            raise self.lost("not connected")

    async def read(self, nodes: Sequence[ua.NodeId], attribute: int = AttributeIds.Value) -> list[DataValue]:
        """One attribute of each node, fresh from the device; in one request, so of one instant, if the server lets us.

        Raises DeviceLost, ReadingRejected, Refused.
        """
        found: list[DataValue] = []
        while len(found) < len(nodes):
            part = nodes[len(found) : len(found) + self.read_limit]
            try:
                found += await self._read(part, attribute)
            except Refused as error:
                if error.code not in TOO_MUCH or len(part) == 1:
                    raise
                self.read_limit = max(1, len(part) // 2)  # it did not say so before
        return found

    async def _read(self, nodes: Sequence[ua.NodeId], attribute: int) -> list[DataValue]:
        parameters = ua.ReadParameters(
            MaxAge=0,
            TimestampsToReturn=ua.TimestampsToReturn.Both,
            NodesToRead=[ua.ReadValueId(node, AttributeIds(attribute)) for node in nodes],
        )
        data = await self.send(ua.ReadRequest(Parameters=parameters))
        values = self.decoded(answers.read, data)
        if len(values) != len(nodes):
            what = f"{self.settings.connection}: {len(values)} values came where {len(nodes)} were asked for"
            raise ReadingRejected(self.device, what, hint="the server breaks the protocol: is there an update for it?")
        return values

    def node(self, name: NodeName) -> ua.NodeId | None:
        """The node id that the server knows; None when it has no such namespace."""
        if isinstance(name.namespace, int):
            return node_id(name.namespace, name.identifier)
        try:
            return node_id(self.namespaces.index(name.namespace), name.identifier)
        except ValueError:
            return None

    async def _look_around(self) -> None:
        nodes = [node_id(0, number) for number in (_NAMESPACE_ARRAY, *_LIMITS)]
        self.read_limit = len(nodes)
        array, *limits = await self.read(nodes)
        names = array.raw if array.is_array and isinstance(array.raw, list) else []
        self.namespaces = [name if isinstance(name, str) else "" for name in names]
        self.read_limit, self.history_limit, self.items_limit = (_limit(said) for said in limits)

    def _open_client(self) -> SecureClient:
        if self._client is None:
            raise self.lost("not connected")
        return self._client

    async def _on_lost(self, error: Exception) -> None:
        """asyncua's supervisor: the socket broke, or the server did not answer for two periods."""
        silent = isinstance(error, TimeoutError)
        self._loss = "the server does not answer any more" if silent else "connection lost"
        self.on_lost()


def _cut(protocol: UASocketProtocol | None) -> None:
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abort()


async def plainly(call: Awaitable[T]) -> T:
    """A call whose cancelling is a CancelledError; asyncua's may be a subclass, which asyncio.timeout overlooks."""
    try:
        return await call
    except asyncio.CancelledError:
        raise asyncio.CancelledError from None


def status_error(code: int) -> UaStatusCodeError:
    """What asyncua raises for a ServiceFault with this code."""
    make: Any = UaStatusCodeError
    made: UaStatusCodeError = make(code)
    return made


def _nothing() -> None:
    return None


def _limit(said: DataValue) -> int:
    """An operation limit; a server that states none, or 0, has none."""
    stated = said.raw if isinstance(said.raw, int) and not said.code else 0
    return min(stated, MOST_NODES) if stated > 0 else MOST_NODES


def node_id(namespace: int, identifier: Identifier) -> ua.NodeId:
    """asyncua's node id, in the shortest form that the wire has for it."""
    kinds = {str: ua.NodeIdType.String, bytes: ua.NodeIdType.ByteString, uuid.UUID: ua.NodeIdType.Guid}
    kind = kinds.get(type(identifier), ua.NodeIdType.Numeric)
    if isinstance(identifier, int) and namespace == 0 and identifier < 256:
        kind = ua.NodeIdType.TwoByte
    elif isinstance(identifier, int) and namespace < 256 and identifier < 65536:
        kind = ua.NodeIdType.FourByte
    make: Any = ua.NodeId  # asyncua's own number types are not Python's
    made: ua.NodeId = make(identifier, namespace, kind)
    return made


def _bound(client: SecureClient) -> None:
    """Let the client give up a peer whose header announces more than a chunk may hold; and let it take a fault in
    place of a channel for the refusal that it is, where asyncua sees an answer without end."""
    make = client.uaclient._make_protocol

    def bounded() -> UASocketProtocol:
        protocol = make()
        _limit_messages(protocol._connection)
        received, processed = protocol.data_received, protocol._process_received_message

        def data_received(data: bytes) -> None:
            received(data)
            rest = protocol.receive_buffer
            if rest and len(rest) >= 8 and int.from_bytes(rest[4:8], "little") > MAX_CHUNK and protocol.transport:
                protocol.transport.abort()

        def process(msg: Any) -> None:
            header = getattr(msg, "SecurityHeader", None)  # of a message; an Acknowledge has none
            if header is not None and isinstance(header(), ua.AsymmetricAlgorithmHeader):
                protocol.check_answer(msg.body(), "")  # raises what a fault says
            processed(msg)

        protocol.data_received = data_received  # type: ignore[method-assign]
        protocol._process_received_message = process  # type: ignore[method-assign]
        return protocol

    client.uaclient._make_protocol = bounded  # type: ignore[method-assign]


def _limit_messages(connection: SecureConnection) -> None:
    """Keep the limits of both directions apart, and the time of a key by our own clock. See the module docstring."""
    limits = connection._limits
    limits.max_recv_buffer, limits.max_message_size = MAX_CHUNK, MAX_MESSAGE
    set_channel, encoded = connection.set_channel, connection.message_to_binary
    most_bytes = most_chunks = 0  # 0: the server takes any

    def acknowledged(said: ua.Acknowledge) -> None:
        nonlocal most_bytes, most_chunks
        most_bytes, most_chunks = int(said.MaxMessageSize), int(said.MaxChunkCount)
        limits.max_send_buffer = min(int(said.ReceiveBufferSize) or MAX_CHUNK, MAX_CHUNK)

    def message_to_binary(message: bytes, *how: Any, **named: Any) -> bytes:
        if named.get("message_type") == ua.MessageType.SecureOpen:  # always one chunk, and before there are any keys
            return encoded(message, *how, **named)
        size = MessageChunk.max_body_size(connection.security_policy.symmetric_cryptography, limits.max_send_buffer)
        if (most_bytes and len(message) > most_bytes) or (most_chunks and len(message) > most_chunks * size):
            raise status_error(StatusCodes.BadRequestTooLarge)  # it would hang up; so a smaller one is tried
        return encoded(message, *how, **named)

    def new_channel(params: Any, *how: Any) -> None:
        params.SecurityToken.CreatedAt = datetime.fromtimestamp(clock.now().at_ns / 1e9, UTC)
        set_channel(params, *how)

    ours: Any = connection
    ours._limits.update_client_limits = acknowledged
    ours.message_to_binary = message_to_binary
    ours.set_channel = new_channel
