"""Work that may hang, in a thread of its own: the loop's pool is small, and all would wait for who hangs in it.

A name server that is gone holds a lookup for half a minute. In the pool some of those would keep everything that goes
there (the disk's upkeep, serial ports, certificates) waiting, and the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from edge_agent.errors import EdgeAgentError

T = TypeVar("T")
Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


async def in_thread(work: Callable[[], T], name: str) -> T:
    """What ``work`` gives, or what it raises of the errors that are foreseen; any other is a RuntimeError here, and
    told by the thread. Cancelled, it is left behind: it holds up nobody, not even the process's end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(error: Exception | None, result: Any) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(result)

    def run() -> None:
        error: Exception | None = RuntimeError(f"the thread {name} broke off")
        result: T | None = None
        try:
            result = work()
            error = None
        except (OSError, ValueError, EdgeAgentError) as failed:
            error = failed
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, error, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done


async def addresses(host: str, port: int | None) -> list[Address]:
    """Of a host, as ``getaddrinfo`` tells them; a literal address needs no thread. Raises OSError."""

    def look_up(flags: int = 0) -> list[Address]:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))

    try:
        try:
            return look_up(socket.AI_NUMERICHOST)
        except socket.gaierror:
            return await in_thread(look_up, f"look up {host}")
    except UnicodeError as error:  # no name of a host can look so
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
