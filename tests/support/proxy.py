"""A TCP proxy on loopback between a client and a broker, which a test can slow down, stall, cut, or let lie.

It runs in the caller's event loop, at no cost while nothing flows. ``out`` is the way from the client to the server,
``back`` the way from the server; each is a :class:`Way` whose attributes take effect at once, on open connections too.

::

    async with Proxy(broker.port) as proxy:
        proxy.back.rule = swallow_pubacks      # whole MQTT packets, one by one
        proxy.out.bytes_per_s = 4000
        proxy.out.stalled = proxy.back.stalled = True
        proxy.cut()                            # resets every connection

A rule is given one whole MQTT packet and says what goes on instead: pairs of (seconds to wait, packet).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType

CONNECT, PUBLISH, PUBACK = 1, 3, 4
Rule = Callable[[bytes], Iterable[tuple[float, bytes]]]


class Way:
    """One direction of all connections."""

    def __init__(self) -> None:
        self.bytes_per_s: float | None = None
        self.rule: Rule | None = None
        self.bytes = 0
        self._open = asyncio.Event()
        self._open.set()

    @property
    def stalled(self) -> bool:
        """While true nothing passes; what was sent waits in the sender's and in our sockets."""
        return not self._open.is_set()

    @stalled.setter
    def stalled(self, value: bool) -> None:
        if value:
            self._open.clear()
        else:
            self._open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one of the two ends."""
        rest = b""
        while True:
            await self._open.wait()
            data = await reader.read(4096 if self.bytes_per_s else 65536)
            if not data:
                return
            await self._open.wait()
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            self.bytes += len(data)
            packets, rest = split(rest + data)
            if self.rule is None:
                writer.write(b"".join(packets))
            else:
                for packet in packets:
                    self._judge(packet, writer)
            await writer.drain()

    def _judge(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        assert self.rule is not None
        for wait_s, said in self.rule(packet):
            if wait_s:
                asyncio.get_running_loop().call_later(wait_s, _write, writer, said)
            else:
                writer.write(said)


class Proxy:
    """One listener, any number of connections. While ``refusing``, whoever connects is reset at once."""

    def __init__(self, target_port: int, target: str = "127.0.0.1", port: int = 0) -> None:
        self.port = port
        self.out, self.back = Way(), Way()
        self.refusing = False
        self.connections = 0
        self._target = (target, target_port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Proxy:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            if self.refusing:
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            writers.append(far_writer)
            self._writers.update(writers)
            self.connections += 1
            ways = [
                asyncio.create_task(self.out.carry(reader, far_writer)),
                asyncio.create_task(self.back.carry(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the broker is away: so is the connection
        finally:
            for each in writers:
                each.transport.abort()
            self._writers.difference_update(writers)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(RuntimeError):  # the connection ended meanwhile
        if not writer.is_closing():
            writer.write(data)


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole MQTT packets at the beginning of ``data``, and what is left."""
    packets, start = [], 0
    while (end := _end(data, start)) is not None:
        packets.append(data[start:end])
        start = end
    return packets, data[start:]


def _end(data: bytes, start: int) -> int | None:
    length, place = 0, start + 1
    for shift in (0, 7, 14, 21):
        if place >= len(data):
            return None
        byte = data[place]
        length |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return place + length if place + length <= len(data) else None
    raise ValueError("this is not MQTT")


def kind(packet: bytes) -> int:
    """The packet's type: CONNECT, PUBLISH, PUBACK ..."""
    return packet[0] >> 4


def topic(publish: bytes) -> str:
    """Where a PUBLISH goes to."""
    place = 1
    while publish[place] >= 0x80:
        place += 1
    length = int.from_bytes(publish[place + 1 : place + 3], "big")
    return publish[place + 3 : place + 3 + length].decode(errors="replace")
