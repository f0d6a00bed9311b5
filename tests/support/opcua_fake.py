"""An OPC UA server that does as it is told, also what no real one would: for answers that no library makes.

::

    async with fake() as server:                       # opc.tcp://127.0.0.1:server.port, in this loop, no security
        server.values["ns=2;s=force"] = ua.DataValue(ua.Variant(1.5, ua.VariantType.Double))
        server.does[ua.PublishRequest] = lambda asked: ...     # instead of the answer: another one, bytes, a code, None
        await server.published(1)                      # until so many Publish requests lie here
        server.notify(1, [(handle, value)], sequence=7)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import asyncua.ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import extensionobject_to_binary, nodeid_from_binary, struct_from_binary, struct_to_binary
from asyncua.ua.uaprotocol_auto import extension_objects_by_typeid

from support.mosquitto import free_port

ua: Any = asyncua.ua  # its number types are not Python's
URI = "http://edge-agent.example/fake"
CHUNK = 8192
_NAMESPACES, _LIMITS, _STATE = "i=2255", ("i=11705", "i=12165", "i=11714"), "i=2259"


def value_of(value: Any, kind: str = "Double", **how: Any) -> Any:
    """A DataValue with both times; how: StatusCode_, SourceTimestamp, ServerTimestamp."""
    now = datetime.now(UTC)
    times = {"SourceTimestamp": now, "ServerTimestamp": now} | how
    return ua.DataValue(ua.Variant(value, ua.VariantType[kind]), **times)


class Fake:
    """See the module docstring."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self.values: dict[str, Any] = {
            _NAMESPACES: value_of(["http://opcfoundation.org/UA/", "urn:fake", URI], "String"),
            _STATE: value_of(0, "Int32"),
            **{limit: value_of(0, "UInt32") for limit in _LIMITS},
        }
        self.does: dict[type, Callable[[Any], Any]] = {}
        self.asked: list[Any] = []
        self.publishing: deque[tuple[Any, int]] = deque()  # (writer, request id)
        self.acknowledged: list[int] = []
        self.handles: dict[int, str] = {}  # client handle → node
        self.subscriptions = 0
        self.sequence: dict[int, int] = {}
        self.acknowledge = ua.Acknowledge(0, 65535, 65535, 0, 0)
        self.lifetime_ms = 3_600_000
        self.created_at: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.opened = 0  # secure channels, renewals too
        self._number = self._last = 0
        self._token = 0
        self._writer: asyncio.StreamWriter | None = None

    def asked_for(self, kind: type) -> list[Any]:
        """The requests of this kind."""
        return [each for each in self.asked if isinstance(each, kind)]

    async def published(self, count: int) -> None:
        """Wait until so many Publish requests lie here."""
        async with asyncio.timeout(10):
            while len(self.publishing) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def came(self, kind: type, count: int) -> None:
        """Wait until so many requests of this kind were asked."""
        await _until(lambda: len(self.asked_for(kind)) >= count)

    def answer_last(self, answer: Any) -> None:
        """Answer the newest request, which lies here."""
        assert self._writer is not None
        self._send(self._writer, self._last, answer)

    def notify(self, subscription: int, items: list[tuple[int, Any]], sequence: int | None = None) -> None:
        """A data change."""
        said = [ua.MonitoredItemNotification(handle, value) for handle, value in items]
        self.tell(subscription, [ua.DataChangeNotification(said)], sequence)

    def tell(self, subscription: int, what: list[Any], sequence: int | None = None) -> None:
        """A message with these parts; none: a keep-alive."""
        self.publish(self.message(subscription, what, sequence))

    def message(self, subscription: int, what: list[Any], sequence: int | None = None) -> Any:
        """Made, numbered, not sent."""
        answer = ua.PublishResponse()
        answer.Parameters.SubscriptionId = subscription
        answer.Parameters.NotificationMessage = self.notification(subscription, what, sequence)
        return answer

    def notification(self, subscription: int, what: list[Any], sequence: int | None = None) -> Any:
        """A NotificationMessage."""
        if sequence is None:
            sequence = self.sequence.get(subscription, 0) + 1
        if what:
            self.sequence[subscription] = sequence
        return ua.NotificationMessage(sequence, datetime.now(UTC), what)

    def publish(self, answer: Any) -> None:
        """Answer the oldest Publish request with this: an answer, bytes, a code."""
        writer, request_id = self.publishing.popleft()
        self._send(writer, request_id, answer)

    def hang_up(self) -> None:
        """Cut the connection."""
        if self._writer is not None:
            self._writer.transport.abort()

    def send_raw(self, data: bytes) -> None:
        """Any bytes."""
        assert self._writer is not None
        self._writer.write(data)

    def chunk(self, kind: bytes, request_id: int, body: bytes) -> bytes:
        """One chunk of a message: kind b"F" the last, b"C" not."""
        self._number += 1
        head = (1).to_bytes(4, "little") + self._token.to_bytes(4, "little")
        data = head + self._number.to_bytes(4, "little") + request_id.to_bytes(4, "little") + body
        return b"MSG" + kind + (len(data) + 8).to_bytes(4, "little") + data

    # --- the wire --------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._writer, self._number = writer, 0
        self.publishing.clear()
        parts = b""
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readexactly(8)
                body = await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
                if head[:3] == b"HEL":
                    data = struct_to_binary(self.acknowledge)
                    writer.write(b"ACKF" + (len(data) + 8).to_bytes(4, "little") + data)
                elif head[:3] == b"OPN":
                    self._channel(writer, body)
                elif head[:3] == b"MSG":
                    parts += body[16:]
                    if head[3:4] == b"F":
                        whole, parts = parts, b""
                        self._answer(writer, int.from_bytes(body[12:16], "little"), whole)
                else:
                    break
        writer.close()

    def _channel(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        self._token += 1
        self.opened += 1
        answer = ua.OpenSecureChannelResponse()
        token = answer.Parameters.SecurityToken
        token.ChannelId, token.TokenId, token.RevisedLifetime = 1, self._token, self.lifetime_ms
        token.CreatedAt = self.created_at()
        at = 4 + 4 + int.from_bytes(body[4:8], "little") + 8  # channel, policy, no certificates
        self._number += 1
        head = body[:0] + (1).to_bytes(4, "little") + body[4:at]
        data = head + self._number.to_bytes(4, "little") + body[at + 4 : at + 8] + struct_to_binary(answer)
        writer.write(b"OPNF" + (len(data) + 8).to_bytes(4, "little") + data)

    def _answer(self, writer: asyncio.StreamWriter, request_id: int, data: bytes) -> None:
        buffer = Buffer(data)
        kind = extension_objects_by_typeid[nodeid_from_binary(buffer)]
        request = struct_from_binary(kind, Buffer(data))
        self.asked.append(request)
        if kind is not ua.PublishRequest and kind is not ua.ReadRequest:
            self._last = request_id
        if kind is ua.PublishRequest:
            self.acknowledged += [one.SequenceNumber for one in request.Parameters.SubscriptionAcknowledgements]
        does = self.does.get(kind) or getattr(self, "_" + kind.__name__.removesuffix("Request").lower(), None)
        answer = ua.StatusCodes.BadServiceUnsupported if does is None else does(request)
        if kind is ua.PublishRequest and answer is None:
            self.publishing.append((writer, request_id))
        if answer is not None:
            self._send(writer, request_id, answer)

    def _send(self, writer: asyncio.StreamWriter, request_id: int, answer: Any) -> None:
        if isinstance(answer, int):
            fault = ua.ServiceFault()
            fault.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(answer))
            answer = fault
        data = answer if isinstance(answer, bytes) else struct_to_binary(answer)
        pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        for number, piece in enumerate(pieces, 1):
            writer.write(self.chunk(b"F" if number == len(pieces) else b"C", request_id, piece))

    # --- what it does by itself ------------------------------------------------------------------------------

    def _createsession(self, request: Any) -> Any:
        answer = ua.CreateSessionResponse()
        answer.Parameters.SessionId = answer.Parameters.AuthenticationToken = ua.NodeId(7, 1)
        answer.Parameters.RevisedSessionTimeout = 60_000
        endpoint = ua.EndpointDescription()
        endpoint.EndpointUrl, endpoint.SecurityMode = self.url, ua.MessageSecurityMode.None_
        endpoint.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
        token = ua.UserTokenPolicy()
        token.PolicyId, token.TokenType = "anonymous", ua.UserTokenType.Anonymous
        endpoint.UserIdentityTokens = [token]
        answer.Parameters.ServerEndpoints = [endpoint]
        return answer

    def _activatesession(self, request: Any) -> Any:
        return ua.ActivateSessionResponse()

    def _closesession(self, request: Any) -> Any:
        return ua.CloseSessionResponse()

    def _read(self, request: Any) -> Any:
        answer = ua.ReadResponse()
        unknown = ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNodeIdUnknown)))
        answer.Results = [
            self.values.get(_key(one.NodeId, one.AttributeId), unknown) for one in request.Parameters.NodesToRead
        ]
        return answer

    def _createsubscription(self, request: Any) -> Any:
        self.subscriptions += 1
        answer = ua.CreateSubscriptionResponse()
        answer.Parameters.SubscriptionId = self.subscriptions
        answer.Parameters.RevisedPublishingInterval = request.Parameters.RequestedPublishingInterval
        answer.Parameters.RevisedMaxKeepAliveCount = request.Parameters.RequestedMaxKeepAliveCount
        answer.Parameters.RevisedLifetimeCount = request.Parameters.RequestedLifetimeCount
        return answer

    def _createmonitoreditems(self, request: Any) -> Any:
        answer = ua.CreateMonitoredItemsResponse()
        for one in request.Parameters.ItemsToCreate:
            self.handles[one.RequestedParameters.ClientHandle] = one.ItemToMonitor.NodeId.to_string()
            result = ua.MonitoredItemCreateResult()
            result.MonitoredItemId = one.RequestedParameters.ClientHandle + 1000
            answer.Results.append(result)
        return answer

    def _deletemonitoreditems(self, request: Any) -> Any:
        answer = ua.DeleteMonitoredItemsResponse()
        answer.Results = [ua.StatusCode(0) for _ in request.Parameters.MonitoredItemIds]
        return answer

    def _publish(self, request: Any) -> Any:
        return None


async def _until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def _key(node: Any, attribute: int) -> str:
    return node.to_string() if attribute == ua.AttributeIds.Value else f"{node.to_string()}#{int(attribute)}"


def extension(what: Any) -> bytes:
    """A structure as it stands on the wire."""
    return bytes(extensionobject_to_binary(what))


@asynccontextmanager
async def fake() -> AsyncIterator[Fake]:
    """A server that listens."""
    one = Fake()
    server = await asyncio.start_server(one.serve, "127.0.0.1", one.port)
    try:
        yield one
    finally:
        one.hang_up()
        server.close()
