"""The agent's side of the control socket.

A handler is called on the event loop with the caller and the request; it returns the answer, or an awaitable of it
for what takes longer. What blocks goes into a thread. It may raise EdgeAgentError to refuse. Anything else it raises
is logged and closes that connection only: a fault in `status` must not stop the line from being recorded.

Bounds: a request comes and is answered within ``CONNECTION_TIMEOUT_S``, but for the handler's own work, which has
``HANDLER_TIMEOUT_S``; what is not done by then is cancelled, and the caller is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from edge_agent.control.client import short_path
from edge_agent.errors import EdgeAgentError, StorageError

log = logging.getLogger(__name__)

REQUEST_MAX_BYTES = 64 * 1024
CONNECTIONS_MAX = 16
CONNECTION_TIMEOUT_S = 5.0
HANDLER_TIMEOUT_S = 120.0
_MODE = 0o660
_SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module does not name it
_GROUPS_MAX = 256  # as many as Python lets one getsockopt bring back; who is in more has no role


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel knows it: the credentials of the process that connected."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int] = frozenset()

    @property
    def user(self) -> str:
        """The login name, or the number where there is none. May ask the name service: not for the hot path."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


Answer = Mapping[str, Any]
Handler = Callable[[Caller, dict[str, Any]], Answer | Awaitable[Answer]]


class Control:
    """The socket at ``path`` and the verbs it answers. ``serve()`` runs until it is cancelled."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = dict(handlers)
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer requests until cancelled; then close every connection and remove the socket file.

        A socket file left by a killed agent is replaced; that no other agent uses it is what the lock on data_dir
        has made sure of. Raises StorageError when the socket cannot be created.
        """
        listener = self._bind()
        server = await asyncio.start_unix_server(self._connected, sock=listener, limit=REQUEST_MAX_BYTES)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.unlink(missing_ok=True)
            os.fchmod(listener.fileno(), 0o600)  # what the file is born with; nobody else connects before the chmod
            with short_path(self._path) as path:
                listener.bind(path)
            self._path.chmod(_MODE)
            listener.listen(CONNECTIONS_MAX)
        except OSError as error:
            listener.close()
            raise StorageError(
                f"cannot create {self._path}: {error.strerror or error}",
                hint="the agent's user must be able to write in data_dir",
            ) from error
        return listener

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve_one(reader, writer), name="control connection")
        self._connections.add(connection)
        connection.add_done_callback(self._finished)

    def _finished(self, connection: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        if not connection.cancelled() and (error := connection.exception()) is not None:
            log.error("a control verb failed", exc_info=error)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) > CONNECTIONS_MAX:
                reply = _error("too many callers at once", "try again in some seconds")
            else:
                async with asyncio.timeout(CONNECTION_TIMEOUT_S):
                    request = await _request(reader)
                reply = await self._reply(_caller(writer), request)
            async with asyncio.timeout(CONNECTION_TIMEOUT_S):
                writer.write(orjson.dumps(reply, option=orjson.OPT_NON_STR_KEYS) + b"\n")
                await writer.drain()
        except _RequestRejected as error:
            writer.write(orjson.dumps(_error(str(error))) + b"\n")
        except (TimeoutError, ConnectionError):
            pass  # a caller that went away or says nothing; it knows, and nobody else needs to
        finally:
            writer.close()

    async def _reply(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        verb = request["verb"]
        if verb not in self._handlers:
            return _error(f"no verb named {verb!r}", f"this agent knows: {', '.join(sorted(self._handlers))}")
        try:
            answer = self._handlers[verb](caller, request)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(HANDLER_TIMEOUT_S):
                    answer = await answer
            return {"answer": answer}
        except TimeoutError:
            hint = "see what became of it: edge-agent route list"
            return _error(f"{verb} was not done within {HANDLER_TIMEOUT_S:.0f} s", hint)
        except EdgeAgentError as error:
            return _error(str(error.args[0]), error.hint)


class _RequestRejected(EdgeAgentError):
    """This is no request."""


async def _request(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        request = orjson.loads(await reader.readline())
    except ValueError as error:  # longer than the limit, or no JSON
        text = f"the request must be one line of JSON of at most {REQUEST_MAX_BYTES} bytes"
        raise _RequestRejected(text) from error
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
        raise _RequestRejected('the request must be an object with a "verb"')
    return request


def _error(message: str, hint: str = "") -> dict[str, Any]:
    return {"error": message, "hint": hint}


def _caller(writer: asyncio.StreamWriter) -> Caller:
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", credentials)
    return Caller(uid, gid, pid, frozenset((gid, *_groups(peer))))


def _groups(peer: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of the process that connected (Linux 4.13; unix(7) SO_PEERGROUPS)."""
    try:
        raw = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX * 4)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)
