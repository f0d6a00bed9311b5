"""The file sink: records into files of a folder, for a system that imports files. Handed over, each record once.

Messages wait together until ``every`` has passed since the first of them, or they are ``max_size``, or as many as may
be in flight; then each stream, source and kind among them becomes a file, all at once. ``send`` returns when the
message's file is in the folder and the folder is synced: nothing waits in memory that the route takes for sent. What
``Folder`` knows to be in a file is left out, so a message that comes again after a crash changes nothing.

The file system may be a share that hangs, so it is used in the sink's own thread. No failure here is a message's.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, NoReturn

from edge_agent.errors import BrokerUnavailable
from edge_agent.routes.blocking import Blocking
from edge_agent.routes.file_folder import Folder, NewFile, file_name
from edge_agent.routes.file_formats import FORMATS, Numbered, rows_of
from edge_agent.routes.file_settings import FileRouteSettings
from edge_agent.routes.flat import flatten
from edge_agent.routes.sink import Limits, Outgoing, SinkAway

MESSAGE_BYTES = 128 * 1024
IN_FLIGHT = 200
LOOK_S = 15.0  # an idle folder is looked at this often
CLOSE_S = 2.0


class FileSink:
    """See :class:`edge_agent.routes.sink.Sink` for what each method promises."""

    commits = False
    confirm_topic = ""

    def __init__(self, name: str, settings: FileRouteSettings, agent: str) -> None:
        self._settings = settings
        self._agent = agent
        self._blocking = Blocking(f"route-{name}-file")
        self._folder = Folder(settings.folder, settings.mount, f"{agent}-{name}")
        self._waiting: list[tuple[Outgoing, asyncio.Future[None]]] = []
        self._bytes = 0
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._publishing: asyncio.Task[NoReturn] | None = None
        self._files = 0

    async def open(self) -> Limits:
        await self.close()
        if self._blocking.busy:
            raise self._silent()
        await self._call(self._folder.open)
        self._publishing = asyncio.create_task(self._publish_for_ever(), name="file sink")
        return Limits(MESSAGE_BYTES, IN_FLIGHT)

    async def send(self, message: Outgoing) -> None:
        if self._publishing is None:
            raise BrokerUnavailable("not open")
        in_file: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, in_file))
        self._bytes += len(message.payload)
        self._some.set()
        if self._bytes >= self._settings.max_size or len(self._waiting) >= IN_FLIGHT:
            self._enough.set()
        await in_file

    async def confirmed(self) -> NoReturn:
        """Never: a file has no way back."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def ended(self) -> None:
        if self._publishing is None:
            raise BrokerUnavailable("not open")
        await asyncio.shield(self._publishing)

    async def close(self) -> None:
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.cancel()
            await asyncio.wait([publishing])
            if not publishing.cancelled():
                publishing.exception()  # who waits in ended() has it
            with contextlib.suppress(TimeoutError):
                await self._blocking.call(self._folder.close, CLOSE_S)
        self._blocking.end()
        for _, in_file in self._waiting:
            in_file.cancel()
        self._waiting.clear()
        self._bytes = 0
        self._some.clear()
        self._enough.clear()

    def status(self) -> dict[str, Any]:
        return {"files": self._files}

    # --- publishing --------------------------------------------------------------------------------------------

    async def _publish_for_ever(self) -> NoReturn:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._some.wait()
            except TimeoutError:
                await self._call(self._folder.look)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.every):
                    await self._enough.wait()
            taken, self._waiting, self._bytes = self._waiting, [], 0
            self._some.clear()
            self._enough.clear()
            try:
                self._files += await self._call(partial(self._publish, [message for message, _ in taken]))
            finally:
                self._waiting = taken + self._waiting  # for close(), unless they are done
            for _, in_file in taken:
                if not in_file.done():
                    in_file.set_result(None)
            del self._waiting[: len(taken)]

    def _publish(self, messages: list[Outgoing]) -> int:
        """In the thread. Returns how many files it became."""
        settings = self._settings
        groups: dict[tuple[str, str, str], list[Numbered]] = {}
        for message in messages:
            flat = flatten(message.payload)
            rows = [one for one in rows_of(flat) if not self._folder.has(flat.stream, one.last)]
            if rows:
                groups.setdefault((flat.stream, flat.source, flat.kind), []).extend(rows)
        files = []
        for (stream, source, kind), rows in groups.items():
            data = FORMATS[settings.format]((one.row for one in rows), settings.encoding)
            first, last = min(one.first for one in rows), max(one.last for one in rows)
            parts = {"agent": self._agent, "stream": stream, "source": source, "kind": kind}
            name = file_name(settings.name, settings.format, **parts, first=first, last=last)
            files.append(NewFile(name, data, stream, [(one.first, one.last) for one in rows]))
        if files:
            self._folder.publish(files)
        return len(files)

    async def _call(self, work: Any) -> Any:
        try:
            return await self._blocking.call(work, self._settings.answer_timeout)
        except TimeoutError as error:
            raise self._silent() from error

    def _silent(self) -> SinkAway:
        why = f"{self._settings.folder} does not answer within {self._settings.answer_timeout:g} s"
        return SinkAway(why, hint=f"is the server of the share running? ls {self._settings.folder}")
