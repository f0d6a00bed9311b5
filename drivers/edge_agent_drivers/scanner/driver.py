"""A barcode reader on a serial port: waits for bytes, makes frames of them, gives scans.

How the port is read: pyserial opens and configures it, then the event loop watches its file descriptor and this module
reads it, non-blocking. An unplugged adapter makes the descriptor readable at once (end of file, or EIO), so the loss is
noticed within a millisecond, without a thread that hangs in a read nobody can cancel, and without another library.

What bounds it: one ``read()`` takes at most CHUNK bytes off the port and returns all their frames before it takes more;
a flood therefore waits in the kernel's buffer of 4 KiB, and there the flow control of USB holds the reader back.

What is thrown away: bytes that came while the port was closed are stale, they belong to a unit that may have moved on.
``open()`` discards them and returns once the line has been quiet for QUIET_CHARACTERS, so that the tail of a code under
way is never taken for a whole one. The unfinished frame of a lost connection is dropped.
"""

from __future__ import annotations

import asyncio
import errno
import getpass
import grp
import os
import re
import termios
from collections.abc import Sequence
from pathlib import Path

import serial  # type: ignore[import-untyped]

from edge_agent import clock
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError
from edge_agent.model import Instant, Scan, ScanStatus, Value
from edge_agent_drivers.scanner.config import ScannerSettings
from edge_agent_drivers.scanner.frames import Frame, Framer

CHUNK = 4096  # bytes; also what the kernel buffers for a tty
QUIET_CHARACTERS = 20  # longer than any reader pauses within a code
QUIET_TRIES = 10  # a line that never falls quiet is joined in mid-stream
DEFAULT_IDLE_S = 0.5  # with ``end``: what stays unfinished that long is garbage

_PARITIES = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}
_AIM = re.compile(rb"\][A-Za-z][0-9A-Za-z]")
_BY_ID = Path("/dev/serial/by-id")
_BUSY = (errno.EBUSY, errno.EAGAIN)


class ScannerDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: ScannerSettings) -> None:
        frame = settings.frame
        end = None if frame.end is None else frame.end.encode("latin-1")
        self._device = device
        self._settings = settings
        self._framer = Framer(end, frame.start.encode("latin-1"), frame.max_length)
        self._idle_s = DEFAULT_IDLE_S if frame.idle is None else frame.idle
        self._no_read = frozenset(text.encode("latin-1").strip() for text in settings.no_read)
        self._port: serial.Serial | None = None

    async def open(self) -> None:
        """Open the port for us alone and wait until it is quiet. Raises DeviceUnavailable or DeviceRefused."""
        await self.close()
        settings = self._settings
        port = serial.Serial(
            port=None,
            baudrate=settings.baud,
            bytesize=settings.data_bits,
            parity=_PARITIES[settings.parity],
            stopbits=settings.stop_bits,
            exclusive=True,
            inter_byte_timeout=0,  # VMIN = 1: else "nothing there" would read like "unplugged", as no bytes
        )
        port.port = settings.port
        opening = asyncio.get_running_loop().run_in_executor(None, port.open)  # USB adapters may take their time
        try:
            await asyncio.shield(opening)
            self._port = port
            await self._fall_quiet(port)
        except (OSError, ValueError, termios.error) as error:
            await self.close()
            raise self._failure(error) from error
        finally:
            if self._port is None:  # failed, or cancelled while the thread is at it
                opening.add_done_callback(lambda done: None if done.cancelled() or done.exception() else port.close())

    async def read(self, group: str | None = None) -> Sequence[Scan]:
        """The next scans, at least one. Raises DeviceLost. Cancelling it loses no byte."""
        while True:
            if self._port is None:
                raise DeviceLost(self._device, f"{self._settings.port}: is not open")
            if not await self._readable(self._port.fd, self._idle_s if self._framer.pending else None):
                frames = self._framer.gap()
            else:
                frames = self._framer.feed(self._take(self._port.fd))
            if frames:
                at = clock.now()
                return [self._scan(frame, at) for frame in frames]

    async def write(self, tag: str, value: Value) -> None:
        """A reader has nothing to write."""
        raise DeviceRefused(self._device, f"{tag} is not writable", hint="a scanner has no tags")

    async def close(self) -> None:
        """Close and forget an unfinished frame. Idempotent."""
        self._framer.reset()
        port, self._port = self._port, None
        if port is not None:
            port.close()

    async def _fall_quiet(self, port: serial.Serial) -> None:
        """Discard what is stale, until nothing comes for some characters' time."""
        for _ in range(QUIET_TRIES):
            port.reset_input_buffer()
            await asyncio.sleep(QUIET_CHARACTERS * 10 / self._settings.baud)
            if not port.in_waiting:
                return
        self._framer.swallow()

    async def _readable(self, fd: int, timeout_s: float | None) -> bool:
        """Wait for bytes or the loss of the port; False when ``timeout_s`` passed first."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[bool] = loop.create_future()
        loop.add_reader(fd, _settle, ready, True)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _settle, ready, False)
        try:
            return await ready
        finally:
            loop.remove_reader(fd)
            if timer is not None:
                timer.cancel()

    def _take(self, fd: int) -> bytes:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return b""  # somebody else who reads this port was quicker
        except OSError as error:
            raise self._lost() from error
        if not data:
            raise self._lost()
        return data

    def _scan(self, frame: Frame, at: Instant) -> Scan:
        if frame.garbage:
            return Scan(self._device, at, frame.raw, ScanStatus.GARBAGE)
        raw, symbology = frame.raw, ""
        if self._settings.aim and _AIM.match(raw):
            raw, symbology = raw[3:], raw[:3].decode("ascii")
        status = ScanStatus.NO_READ if raw.strip() in self._no_read else ScanStatus.READ
        return Scan(self._device, at, raw, status, symbology)

    # --- errors ----------------------------------------------------------------------------------------------

    def _lost(self) -> DeviceLost:
        return DeviceLost(
            self._device, f"{self._settings.port}: unplugged", hint="plug it in again; look at the cable and its power"
        )

    def _failure(self, error: Exception) -> DriverError:
        """What a port that did not open says, as one of our errors."""
        port, number = self._settings.port, _errno_of(error)
        if isinstance(error, ValueError):
            return DeviceRefused(self._device, f"{port}: {error}", hint="look at baud, data_bits, parity, stop_bits")
        if number in (errno.EACCES, errno.EPERM):
            hint = f"sudo usermod -aG {_group_of(port)} {getpass.getuser()}, then restart the agent"
            return DeviceRefused(self._device, f"{port}: permission denied", hint=hint)
        if number in _BUSY:
            hint = f"another program or device of this config has it open: sudo fuser -v {port}"
            return DeviceRefused(self._device, f"{port}: in use", hint=hint)
        if number == errno.ENOTTY:
            return DeviceRefused(self._device, f"{port}: is no serial port", hint=_present())
        what = "does not exist" if number == errno.ENOENT else os.strerror(number) if number else str(error)
        return DeviceUnavailable(self._device, f"{port}: {what}", hint=_present())


def _settle(ready: asyncio.Future[bool], readable: bool) -> None:
    if not ready.done():
        ready.set_result(readable)


def _errno_of(error: BaseException | None) -> int:
    """The errno of the first error in the chain that has one; pyserial hides termios' in its text."""
    while error is not None:
        number = error.args[0] if isinstance(error, termios.error) and error.args else getattr(error, "errno", None)
        if isinstance(number, int):
            return number
        error = error.__context__
    return 0


def _group_of(port: str) -> str:
    try:
        return grp.getgrgid(os.stat(port).st_gid).gr_name
    except (OSError, KeyError):
        return "dialout"


def _present() -> str:
    try:
        names = sorted(os.listdir(_BY_ID))[:8]
    except OSError:
        names = []
    if not names:
        return f"no USB reader is plugged in: ls -l {_BY_ID}"
    return "plug it in, or write one of these: " + ", ".join(str(_BY_ID / name) for name in names)
