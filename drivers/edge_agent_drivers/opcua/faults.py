"""What asyncua raises, as our errors: the one place of this driver that knows both.

Three cases: a connection that does not come about (``on_opening``), one that breaks (``on_asking``), and a request
that the server refuses while the connection is well (``Refused``, for the caller to judge).
"""

from __future__ import annotations

import errno
from urllib.parse import urlsplit

from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected
from edge_agent_drivers.opcua.codes import words
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.refusals import refusal


def _codes(names: str) -> frozenset[int]:
    return frozenset(getattr(StatusCodes, name) for name in names.split())


TOO_MUCH = _codes("BadTooManyOperations BadRequestTooLarge BadResponseTooLarge BadEncodingLimitsExceeded")
"""Refusals that a smaller request may not meet."""

_SESSION_GONE = _codes(
    "BadSessionIdInvalid BadSessionClosed BadSessionNotActivated BadSecureChannelIdInvalid BadSecureChannelClosed "
    "BadSecureChannelTokenUnknown BadConnectionClosed BadServerHalted BadShutdown BadCommunicationError "
    "BadConnectionRejected BadServerNotConnected BadSubscriptionIdInvalid BadNoSubscription"
)
_FULL = _codes(
    "BadTooManySessions BadTooManySubscriptions BadMaxConnectionsReached BadTcpNotEnoughResources BadOutOfMemory "
    "BadResourceUnavailable"
)
_BUSY = _SESSION_GONE | _codes(
    "BadTcpServerTooBusy BadServerTooBusy BadTooManyOperations BadTooManyPublishRequests BadStateNotActive BadTimeout"
)
_HINTS = {
    StatusCodes.BadTcpEndpointUrlInvalid: "the server knows no endpoint of this address: add the path of its endpoint",
    StatusCodes.BadServiceUnsupported: "this may be a discovery server only: connect to the server it lists",
    StatusCodes.BadProtocolVersionUnsupported: "what answers speaks another version of OPC UA",
}


class Refused(Exception):
    """The server refused one request; the connection is well."""

    def __init__(self, code: int) -> None:
        super().__init__(words(code))
        self.code = code


def on_opening(device: str, settings: OpcuaSettings, error: Exception) -> DriverError:
    """Why there is no connection: try again soon (DeviceUnavailable), or somebody has to act (DeviceRefused)."""
    where = settings.connection
    if isinstance(error, (DeviceLost, ReadingRejected)):
        what = str(error.args[0]).removeprefix(f"{device}: ")
        return DeviceUnavailable(device, f"connected, and then: {what}", hint=error.hint)
    if isinstance(error, DriverError):
        return error
    if isinstance(error, Refused):
        return _code_on_opening(device, where, error.code)
    if isinstance(error, UaStatusCodeError):
        return refusal(device, error) or _code_on_opening(device, where, int(error.code))
    if isinstance(error, TimeoutError):
        hint = (
            f"ping {_host(settings)}; is a firewall between, and is the server running? A slow one needs timeout: 10s"
        )
        return DeviceUnavailable(device, f"{where}: no answer", hint=hint)
    if isinstance(error, OSError):
        return _socket_on_opening(device, settings, error)
    hint = "is this the port of an OPC UA server? Its endpoint's address stands in the server's settings"
    what = f"{where}: what answers does not speak OPC UA ({type(error).__name__}: {error})"
    return DeviceUnavailable(device, what, hint=hint)


def _code_on_opening(device: str, where: str, code: int) -> DriverError:
    what = f"{where}: {words(code)}"
    if code in _FULL:
        hint = "close other clients of this server; a session of a program that was killed ends by itself in a minute"
        return DeviceUnavailable(device, what, hint=hint)
    if code in _BUSY:
        return DeviceUnavailable(device, what, hint="the server starts, stops or is too busy: look at its own state")
    hint = _HINTS.get(code, "look at the server's own log, and at security: in the configuration")
    return DeviceRefused(device, what, hint=hint)


def _socket_on_opening(device: str, settings: OpcuaSettings, error: OSError) -> DeviceUnavailable:
    host = _host(settings)
    if error.errno == errno.ECONNREFUSED:
        what, hint = "connection refused", "the host is there, but nothing listens on this port: is its server on?"
    elif error.errno is None:
        what, hint = f"broke off ({error})", "is this the port of an OPC UA server, and does it allow another client?"
    elif error.errno < 0:
        what, hint = f"unknown host {host}", f"write its IP address, or ask the name server: getent hosts {host}"
    else:
        what, hint = error.strerror or str(error), f"ping {host}; is the cable in, and the subnet right?"
    return DeviceUnavailable(device, f"{settings.connection}: {what}", hint=hint)


def on_asking(device: str, settings: OpcuaSettings, error: Exception) -> DriverError | Refused:
    """What a request met on an open connection."""
    if isinstance(error, (DriverError, Refused)):
        return error
    if isinstance(error, UaStatusCodeError):
        code = int(error.code)
        if code not in _SESSION_GONE:
            return Refused(code)
        return lost(device, settings, words(code))
    if isinstance(error, TimeoutError):
        return lost(device, settings, "no answer within its timeout")
    if isinstance(error, OSError):
        return lost(device, settings, "connection lost")
    return lost(device, settings, f"an answer that is not OPC UA ({type(error).__name__}: {error})")


def lost(device: str, settings: OpcuaSettings, what: str) -> DeviceLost:
    """The loss of an open connection."""
    hint = f"is the server on, and reachable? For one that is slow to answer write timeout: {2 * settings.timeout:g}s"
    return DeviceLost(device, f"{settings.connection}: {what}", hint=hint)


def _host(settings: OpcuaSettings) -> str:
    return urlsplit(settings.connection).hostname or settings.connection
