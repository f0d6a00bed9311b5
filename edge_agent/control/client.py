"""The caller's side of the control socket: ask the running agent one thing, synchronously."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from edge_agent.errors import EdgeAgentError

SOCKET_NAME = "control.sock"  # in data_dir
ANSWER_MAX_BYTES = 16 * 2**20


class ControlError(EdgeAgentError):
    """The agent could not be asked, or refused."""


class AgentRefused(ControlError):
    """The agent answered, and will not do it."""


class AgentNotRunning(ControlError):
    """Nobody listens on the control socket of this data_dir."""


def ask(data_dir: Path, verb: str, *, timeout_s: float = 3.0, **arguments: Any) -> dict[str, Any]:
    """The running agent's answer to ``verb``.

    Raises AgentNotRunning when no agent runs on ``data_dir``, ControlError when it refuses, may not be asked by
    this user or does not answer within ``timeout_s`` (for each step of the exchange).
    """
    path = data_dir / SOCKET_NAME
    request = orjson.dumps({"verb": verb, **arguments}) + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, short_path(path) as address:
            connection.settimeout(timeout_s)
            connection.connect(address)
            with contextlib.suppress(ConnectionError):  # closed on us: what it said before is still to be read
                connection.sendall(request)
            line = _line(connection)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise AgentNotRunning(
            f"no agent is running on {data_dir}", hint="start it: systemctl start edge-agent"
        ) from error
    except PermissionError as error:
        raise ControlError(
            f"you may not ask the agent on {data_dir}",
            hint="use sudo, or join the agent's group: sudo usermod -aG edge-agent $USER (then log in again)",
        ) from error
    except TimeoutError as error:
        raise ControlError(
            f"the agent on {data_dir} runs but does not answer", hint="look at its log: journalctl -u edge-agent -n 50"
        ) from error
    except OSError as error:
        raise ControlError(f"cannot ask the agent on {data_dir}: {error.strerror or error}") from error
    return _answer(line)


def _line(connection: socket.socket) -> bytes:
    """One line, without its end; empty when the agent closed first."""
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
        if received.endswith(b"\n") or len(received) > ANSWER_MAX_BYTES:
            break
    return bytes(received)


def _answer(line: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(line)
        if "error" in reply:
            raise AgentRefused(reply["error"], hint=reply.get("hint", ""))
        answer: dict[str, Any] = reply["answer"]
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError(
            "the agent closed the connection without an answer", hint="look at its log: journalctl -u edge-agent -n 50"
        ) from error
    return answer


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path of any length as one that fits a socket address (108 bytes): through a descriptor of its folder."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
