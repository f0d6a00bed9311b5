"""One byte stream: a serial port, USB as a virtual one, or ``tcp://host:port``. The same surface for all of them.

How it is read: pyserial opens and sets a serial port, a socket is a socket; then the event loop watches the file
descriptor and this module reads it, non-blocking. An unplugged adapter makes the descriptor readable at once (end of
file, or EIO), so the loss is noticed within a millisecond, without a thread that hangs in a read nobody can cancel.
A TCP peer that dies without a word is noticed by keep-alive, within half a minute.

What bounds it: one ``take()`` reads at most CHUNK bytes; a flood waits in the kernel's buffer, and there flow control
(USB's, TCP's, the line's) holds the device back. ``open()`` and ``send()`` end after some seconds.

What is thrown away: bytes that came while the port was closed are stale, they belong to a unit that may have moved on.
``open()`` discards them and returns once the line has been quiet for QUIET_CHARACTERS; False says that it never was,
and what comes first is the tail of a message (``Framer.swallow``).

What is never taken for data: a character with a parity or framing error, a break, and the rest of what an overrun of
the chip's buffer spoilt. They are a :class:`LineError` at their place in the stream; the message around them is void.

The port is ours alone: locked for programs that ask (flock), closed to those that do not (TIOCEXCL; root passes).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import serial  # type: ignore[import-untyped]

from edge_agent.errors import DeviceLost, ReadingRejected
from edge_agent.threads import addresses
from edge_agent_drivers.stream.failure import failure
from edge_agent_drivers.stream.marks import Marks
from edge_agent_drivers.stream.names import resolve
from edge_agent_drivers.stream.settings import StreamSettings

CHUNK = 4096  # bytes; also what the kernel buffers for a tty
QUIET_CHARACTERS = 20  # longer than any device pauses within a message
QUIET_TCP_S = 0.05  # the same where no baud rate is known
QUIET_TRIES = 10  # a line that never falls quiet is joined in mid-stream
CONNECT_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 5.0
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}  # dead after 25 s
SILENCE_MS = 20_000  # what was sent and not acknowledged for so long never will be

_PARITIES = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}
_COUNTERS = struct.Struct("11i9i")  # struct serial_icounter_struct; [7] overrun, [10] buf_overrun
_TIOCGICOUNT = 0x545D

Line: TypeAlias = serial.Serial | socket.socket


class LineError(ReadingRejected):
    """Characters came damaged or were lost: the message they belong to is void."""


class Port:
    """See the module docstring. One task may ``take`` while another sends."""

    def __init__(self, device: str, settings: StreamSettings) -> None:
        self.where = settings.port
        self._device = device
        self._settings = settings
        self._line: Line | None = None
        self._fd = -1
        self._marks = Marks()
        self._parts: deque[bytes | None] = deque()  # of the last chunk: what was not taken yet
        self._overruns: int | None = None  # None: this port does not count them
        self._waiting: dict[asyncio.Future[bool], Callable[[], object]] = {}  # and how each stops to watch

    @property
    def is_open(self) -> bool:
        """Between a good ``open`` and ``close``."""
        return self._line is not None

    async def open(self) -> bool:
        """Open for us alone, discard what is stale; False if the line never fell quiet.

        Raises DeviceUnavailable or DeviceRefused. May be called again.
        """
        self.close()
        try:
            await (self._open_serial() if self._settings.address is None else self._connect(*self._settings.address))
            return await self._fall_quiet()
        except (OSError, ValueError, termios.error) as error:
            self.close()
            raise failure(self._device, self.where, error) from error

    async def take(self, timeout_s: float | None = None) -> bytes:
        """What has arrived, at least one byte; b"" when ``timeout_s`` passed first. Cancelling it loses no byte.

        Raises DeviceLost, and LineError in the place of damaged bytes.
        """
        fd = self._opened()
        while not self._parts:
            if not await self._ready(fd, timeout_s, writing=False):
                return b""
            self._read(fd)
        part = self._parts.popleft()
        if part is None:
            hint = "look at baud, data_bits, parity and stop_bits; then at the cable's shield and ground"
            raise LineError(self._device, f"{self.where}: characters with a parity or framing error", hint=hint)
        return part

    async def send(self, data: bytes) -> None:
        """Hand all of ``data`` to the port, in bounded time. Raises DeviceLost."""
        fd = self._opened()
        left = memoryview(data)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                while left:
                    try:
                        left = left[os.write(fd, left) :]
                    except BlockingIOError:
                        await self._ready(fd, None, writing=True)
        except TimeoutError as error:
            hint = "flow control holds it back: look at flow:, the CTS wire, and whether the device is on"
            raise DeviceLost(self._device, f"{self.where}: takes no data", hint=hint) from error
        except OSError as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """Close, and forget what was not taken; who waits is told of the loss. Idempotent."""
        for ready, unwatch in self._waiting.items():  # before the number of the descriptor is another port's
            unwatch()
            _settle(ready, False)
        self._waiting.clear()
        line, self._line, self._fd = self._line, None, -1
        self._marks, self._overruns = Marks(), None
        self._parts.clear()
        if line is not None:
            _shut(line)

    # --- opening -----------------------------------------------------------------------------------------------

    async def _open_serial(self) -> None:
        opening = asyncio.get_running_loop().run_in_executor(None, _opened_serial, self._settings)
        try:  # in a thread: USB adapters may take their time
            line = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else _shut(done.result())
            )
            raise
        self._line, self._fd = line, line.fd
        self._overruns = _overruns(line.fd)

    async def _connect(self, host: str, port: int) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            line = await connected(host, port)
        self._line, self._fd = line, line.fileno()

    async def _fall_quiet(self) -> bool:
        """Discard what is stale, until nothing comes for some characters' time."""
        pause_s = QUIET_TCP_S
        if self._settings.address is None:
            pause_s = QUIET_CHARACTERS * 10 / self._settings.baud
        for _ in range(QUIET_TRIES):
            _discard(self._fd)
            await asyncio.sleep(pause_s)
            if not _waiting(self._fd):
                return True
        return False

    # --- bytes -------------------------------------------------------------------------------------------------

    def _opened(self) -> int:
        if self._line is None:
            raise DeviceLost(self._device, f"{self.where}: is not open")
        return self._fd

    async def _ready(self, fd: int, timeout_s: float | None, *, writing: bool) -> bool:
        """Wait until ``fd`` can be read or written, or is lost; False when ``timeout_s`` passed first."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[bool] = loop.create_future()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(fd, _settle, ready, True)
        self._waiting[ready] = partial(remove, fd)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _settle, ready, False)
        try:
            readable = await ready
            if ready not in self._waiting:
                raise DeviceLost(self._device, f"{self.where}: was closed meanwhile")
            return readable
        finally:
            if unwatch := self._waiting.pop(ready, None):
                unwatch()
            if timer is not None:
                timer.cancel()

    def _read(self, fd: int) -> None:
        """One chunk off the port. Raises DeviceLost, and LineError when characters before or in it were lost."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return  # somebody else who reads this port was quicker
        except OSError as error:
            raise self._lost(error) from error
        if not data:
            raise self._lost(None)
        if self._settings.address is not None:
            self._parts.append(data)
            return
        self._parts.extend(self._marks.feed(data))
        if self._overruns is not None and (overruns := _overruns(fd)) != self._overruns:
            self._overruns = overruns
            self._parts.clear()  # nobody knows where in them the hole is
            hint = "the PC did not fetch them in time: a slower baud rate, flow: rtscts, or a better USB adapter"
            raise LineError(self._device, f"{self.where}: characters were lost in the port (overrun)", hint=hint)

    def _lost(self, error: OSError | None) -> DeviceLost:
        if self._settings.address is None:
            hint = "plug it in again; look at the cable and its power"
            return DeviceLost(self._device, f"{self.where}: unplugged", hint=hint)
        if error is None or isinstance(error, ConnectionError):
            hint = "it restarted, or serves another client: look at its connections"
            return DeviceLost(self._device, f"{self.where}: closed by the other end", hint=hint)
        hint = "look at the device, its network cable and its power"
        return DeviceLost(self._device, f"{self.where}: connection lost: {error.strerror}", hint=hint)


# --- the operating system's side -------------------------------------------------------------------------------------


def _opened_serial(settings: StreamSettings) -> serial.Serial:
    """The port, open and set. Blocks for as long as the adapter's driver likes."""
    line = serial.Serial(
        port=None,
        baudrate=settings.baud,
        bytesize=settings.data_bits,
        parity=_PARITIES[settings.parity],
        stopbits=settings.stop_bits,
        xonxoff=settings.flow == "xonxoff",
        rtscts=settings.flow == "rtscts",
        exclusive=True,
        inter_byte_timeout=0,  # VMIN = 1: else "nothing there" would read like "unplugged", as no bytes
    )
    line.dtr, line.rts = settings.dtr, settings.rts
    line.port = resolve(settings.port)
    line.open()
    try:
        attributes = termios.tcgetattr(line.fd)
        attributes[0] &= ~(termios.BRKINT | termios.IGNPAR | termios.ISTRIP)
        attributes[0] |= termios.INPCK | termios.PARMRK
        termios.tcsetattr(line.fd, termios.TCSANOW, attributes)
        fcntl.ioctl(line.fd, termios.TIOCEXCL)
    except BaseException:
        line.close()
        raise
    return line


async def connected(host: str, port: int) -> socket.socket:
    """A connection to the first of the host's addresses that takes it. Raises OSError."""
    loop = asyncio.get_running_loop()
    failed: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, address in await addresses(host, port):
        line = socket.socket(family, kind, protocol)
        try:
            line.setblocking(False)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEP_ALIVE.items():
                line.setsockopt(socket.IPPROTO_TCP, option, value)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
            await loop.sock_connect(line, address)
        except OSError as error:
            line.close()
            failed = error
        except BaseException:
            line.close()
            raise
        else:
            return line
    raise failed


def _shut(line: Line) -> None:
    """Close at once: what waits to be sent would hold up the close of a tty for half a minute."""
    if not isinstance(line, socket.socket):
        with contextlib.suppress(OSError, termios.error):  # unplugged: nothing to give back
            fcntl.ioctl(line.fd, termios.TIOCNXCL)
            termios.tcflush(line.fd, termios.TCOFLUSH)
    line.close()


def _discard(fd: int) -> None:
    """Read away what waits, at most some chunks of it."""
    for _ in range(QUIET_TRIES):
        try:
            if not os.read(fd, CHUNK):
                return  # lost: the first take tells
        except BlockingIOError:
            return


def _waiting(fd: int) -> int:
    """How many bytes can be read now."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])


def _overruns(fd: int) -> int | None:
    """How often the port has lost characters since the PC started; None where it does not count."""
    try:
        counters = _COUNTERS.unpack(fcntl.ioctl(fd, _TIOCGICOUNT, bytes(_COUNTERS.size)))
    except OSError:
        return None
    return int(counters[7] + counters[10])


def _settle(ready: asyncio.Future[bool], readable: bool) -> None:
    if not ready.done():
        ready.set_result(readable)
