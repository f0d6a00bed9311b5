"""One thread for the calls of a library that blocks: a database's driver, a file system on a network.

The calls run one after the other. Who waits for one waits a bounded time; the call itself cannot be ended, so while
one that was given up still runs, ``busy`` says so and a sink does not begin anew. The thread is a daemon: a share that
never answers must not hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from edge_agent.errors import EdgeAgentError

T = TypeVar("T")
_Call = tuple[asyncio.Future[Any], Callable[[], Any]]


class Blocking:
    """``await call(...)``; ``end()`` when it is needed no more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] | None = None  # of the thread there is
        self._unfinished = 0
        self._counting = threading.Lock()

    @property
    def busy(self) -> bool:
        """A call is under way, or waits for one."""
        return self._unfinished > 0

    async def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """What ``work`` returns or raises. Raises TimeoutError when that takes longer; it goes on all the same."""
        if self._calls is None:
            self._calls = SimpleQueue()
            threading.Thread(target=self._run, args=(self._calls,), name=self._name, daemon=True).start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._count(1)
        self._calls.put((future, work))
        async with asyncio.timeout(timeout_s):
            return await future

    def end(self) -> None:
        """Let the thread end after what it does."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def _count(self, change: int) -> None:
        with self._counting:
            self._unfinished += change

    def _run(self, calls: SimpleQueue[_Call | None]) -> None:
        while (call := calls.get()) is not None:
            future, work = call
            if future.cancelled():
                self._count(-1)
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except EdgeAgentError as failed:
                error = failed
            except BaseException as failed:  # a mistake of ours: it ends this thread, and whoever waits
                error = failed
                raise
            finally:
                self._count(-1)
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
