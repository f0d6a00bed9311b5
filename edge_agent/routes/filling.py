"""From the buffer into the windows: opens the lanes that are to be delivered and reads each of them ahead.

The buffer's Reader is used in one thread of the route's own, so however many lanes are open, one read runs at a time.
``tend`` is the task that decides: it opens, suspends and cuts lanes when something changed (a lane is finished, one was
offered, a silent receiver answered), and runs one ``fill`` for each open lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent.errors import StorageError
from edge_agent.logs import Log
from edge_agent.routes.delivery import Delivery
from edge_agent.routes.lanes import Lanes
from edge_agent.routes.message import BATCH_BYTES, BATCH_ROWS, Batch, build
from edge_agent.routes.sink import Limits
from edge_agent.routes.words import Words

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Lane, Reader

SCAN_SEQS = 200_000  # that one read of the buffer looks at, some 50 ms
PACE_S = 0.02  # after news, wait this long for more: waking at every commit costs more than it gives
CAREFUL_ROWS = 256
CUT_RECORDS = 1000  # pending in a growing lane: what is less is soon sent, and not worth a lane of its own

log = Log(__name__)
T = TypeVar("T")


class Filling:
    """``tend`` and ``offered`` are tasks of one connection; the reader and its thread outlive it."""

    def __init__(
        self, name: str, lanes: Lanes, buffer: Buffer, silent: Callable[[], bool], words: Words | None = None
    ) -> None:
        self._name, self._lanes, self._buffer, self._silent = name, lanes, buffer, silent
        self._words = words
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"route-{name}")
        self._reader: Reader | None = None
        self._moved: Callable[[], None] = lambda: None
        self._cutting: asyncio.Task[None] | None = None

    async def begin(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        """Ask the buffer for the route's lanes and a reader. Raises StorageError."""
        self._lanes.add(await self._in_thread(lanes))
        self._reader = await self._in_thread(self._buffer.reader)

    def close(self) -> None:
        """Give the reader and the thread back, without waiting for them."""
        if self._reader is not None:
            self._thread.submit(self._reader.close)
        self._thread.shutdown(wait=False)

    async def tend(
        self, tasks: asyncio.TaskGroup, limits: Limits, draining: asyncio.Event, moved: Callable[[], None]
    ) -> Iterable[asyncio.Task[None]]:
        """Keep the right lanes open and filled. Returns the tasks that fill when draining and all of it is settled."""
        self._moved = moved
        filling: dict[Delivery, asyncio.Task[None]] = {}
        while not (draining.is_set() and self._lanes.all_settled):
            if self._lanes.tended():
                await self._cut_live()
            wanted = self._lanes.wanted()
            for delivery in [each for each in self._lanes.all if each.open and each not in wanted]:
                filling.pop(delivery).cancel()
                delivery.suspend()
            filling = {delivery: task for delivery, task in filling.items() if not task.done()}
            for delivery in [each for each in wanted if not each.open]:
                delivery.begin(await self._in_thread(self._dead_letters, delivery))
                filling[delivery] = tasks.create_task(self._fill(delivery, limits))
            await self._lanes.to_tend.wait()
        return filling.values()

    async def offered(self) -> None:
        """Take up lanes that come while we run."""
        while True:
            self._lanes.add(await self._buffer.offered(self._name))
            self._lanes.tend()

    async def _cut_live(self) -> None:
        """Let what the live lane has pending drain beside what comes from now on.

        The buffer cuts even if our connection ends meanwhile. So a cut outlives the connection, and the next one waits
        for it before anything is read: else what comes from now on would be sent in the old lane, and in the new one.
        """
        if self._cutting is None:
            live = self._lanes.to_cut()
            if live is None:
                return
            async with live.reading:  # or records of the new lane might be read in the old one
                self._cutting = asyncio.create_task(self._cut(live), name=f"route {self._name} cut")
                await asyncio.shield(self._cutting)
        else:
            await asyncio.shield(self._cutting)
        self._cutting = None

    async def _cut(self, live: Delivery) -> None:
        try:
            new = await asyncio.to_thread(self._buffer.split, live.lane, CUT_RECORDS)
        except StorageError as error:  # full, or slow: then the lane is delivered as it is
            log.debug("live lane not cut", route=self._name, error=error)
            return
        if new is not None:
            self._lanes.cut(live, new)
            log.info("live goes beside the backlog", route=self._name, stream=new.stream, backlog=live.lane.stream)

    async def _fill(self, delivery: Delivery, limits: Limits) -> None:
        """Keep its window filled. Returns when the lane is finished; one that grows never is."""
        while True:
            await self._lanes.until(lambda: self._has_room(delivery))
            if delivery.window.read_seq < delivery.end:
                careful = delivery.suspicion.careful or self._silent()
                async with delivery.reading:
                    batch = await self._in_thread(self._read, delivery, delivery.end, limits, careful)
                    self._lanes.take(delivery, batch)
                if self._words is not None:
                    self._words.report()
                self._moved()
            elif delivery.grows:
                await self._news(delivery)
            else:
                await self._lanes.until(lambda: not len(delivery.window))
                self._moved()
                self._lanes.finish(delivery)
                return

    def _has_room(self, delivery: Delivery) -> bool:
        return not self._lanes.outstanding if self._silent() else self._lanes.has_room(delivery)

    def _read(self, delivery: Delivery, end: int, limits: Limits, careful: bool) -> Batch:
        """In the route's thread. The window's end stands still meanwhile: only ``_fill`` moves it.

        However little passes the filter, one read looks at ``SCAN_SEQS``: a drop has to wait for it.
        """
        window = delivery.window
        end = min(end, window.read_seq + SCAN_SEQS)
        rows, size = (CAREFUL_ROWS, limits.message_bytes) if careful else (BATCH_ROWS, BATCH_BYTES)
        assert self._reader is not None
        found = self._reader.rows(delivery.lane, window.read_seq, end, rows, size)
        read_seq = found[-1].seq if found else end
        refused: Mapping[int, str] = {}
        if self._words is not None:
            found, refused = self._words.put(found)
        dead, cap = delivery.dead, delivery.suspicion.cap
        return build(found, window.last_n, read_seq, limits.message_bytes, cap, dead, refused)

    def _dead_letters(self, delivery: Delivery) -> dict[int, str]:
        assert self._reader is not None
        return self._reader.dead(delivery.lane, delivery.reported[1])

    async def _news(self, delivery: Delivery) -> None:
        """Wait until something that was not read is durable, or the lane grows no more."""
        news = asyncio.ensure_future(self._buffer.beyond(delivery.window.read_seq))
        cut = asyncio.ensure_future(self._lanes.until(lambda: not delivery.grows))
        try:
            await asyncio.wait((news, cut), return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                news.result()  # StorageError, if the writer has failed
        finally:
            news.cancel()
            cut.cancel()
        await asyncio.sleep(PACE_S)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
