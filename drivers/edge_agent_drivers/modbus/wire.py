"""What carries frames to a device: a TCP or TLS connection, or a serial port. Bytes out, bytes in, and its loss.

The only place that turns what sockets, TLS and the port raise into this driver's own :class:`WireError`. A wire knows
nothing of Modbus; one exchange at a time goes over it, which is the bus's business.

The serial side is the port that all serial drivers share: exclusive, its parity errors told, an unplug noticed at
once. The TCP side is a plain asyncio protocol. pymodbus's client is not used: it would open a tty on the event loop,
take a TLS chunk for a frame, and hide why it could not connect.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import Protocol

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.connection import TlsSettings
from edge_agent_drivers.stream.port import LineError, Port, connected
from edge_agent_drivers.stream.settings import StreamSettings

FLOOD = 1 << 17  # bytes that nobody asked for
QUIET_S = 0.1  # in a serial line's frame nobody pauses so long, USB adapters included
_FRAME_GAP_CHARACTERS = 3.5
_CERT_HINT = "it ends the TLS connection before it says anything: does it want a certificate of ours, tls: cert_file?"
_FRAME_GAP_S = 0.00175  # from 19200 baud on


class Garbled(ReadingRejected):
    """Something came, and no answer could be found in it."""


class WireError(Exception):
    """Why there is no answer: which of our errors it is, and for whom. ``fatal``: the wire is gone."""

    def __init__(self, kind: type[DriverError], what: str, hint: str = "", *, fatal: bool = False) -> None:
        super().__init__(what)
        self.kind, self.what, self.hint, self.fatal = kind, what, hint, fatal


class Wire(Protocol):
    """See the module docstring."""

    character_s: float  # that one character takes; 0 where it is as good as nothing
    gap_s: float  # of silence between two frames
    quiet_s: float | None  # a pause that ends an answer, however it looks; None: only the time-out does

    @property
    def is_lost(self) -> bool:
        """It is known to be gone."""

    async def open(self, timeout_s: float) -> None:
        """Connect. Raises WireError."""

    async def send(self, data: bytes) -> None:
        """Hand over all of it. Raises WireError."""

    async def take(self, timeout_s: float) -> bytes:
        """What has come; b"" when nothing did in time. Cancelling it loses no byte. Raises WireError."""

    def close(self) -> None:
        """At once. Idempotent."""


def wire_of(settings: ModbusSettings) -> Wire:
    """What the settings' connection needs."""
    return SerialWire(settings) if settings.parsed.tty else TcpWire(settings)


# --- TCP and TLS -----------------------------------------------------------------------------------------------


class TcpWire(asyncio.Protocol):
    """A connection over the network."""

    character_s = 0.0
    gap_s = 0.0
    quiet_s: float | None = None

    def __init__(self, settings: ModbusSettings) -> None:
        at = settings.parsed
        self._host, self._port = at.host, at.port
        self._listener = "is the PLC's Modbus server switched on?"
        if at.is_line:
            self._listener = "is the serial server set to TCP server, and does another client have it?"
        self._tls = settings.tls if at.tls else None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._heard = b""
        self._was_heard = False  # anything ever came
        self._waiting: asyncio.Future[None] | None = None
        self._lost: WireError | None = None

    @property
    def is_lost(self) -> bool:
        return self._lost is not None or self._transport is None

    async def open(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                context = None if self._tls is None else await asyncio.to_thread(_context, self._tls)
                name = None if self._tls is None else self._tls.server_name or self._host
                line = await connected(self._host, self._port)
                self._transport, _ = await self._loop.create_connection(
                    lambda: self, sock=line, ssl=context, server_hostname=name
                )
        except (OSError, TimeoutError) as error:
            raise self._unavailable(error) from error

    async def send(self, data: bytes) -> None:
        if self._transport is None or self._lost is not None:
            raise self._lost or WireError(DeviceLost, "not connected", fatal=True)
        self._transport.write(data)

    async def take(self, timeout_s: float) -> bytes:
        if not self._heard and self._lost is None and timeout_s > 0:
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, self._wake)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        if not self._heard and self._lost is not None:
            raise self._lost
        heard, self._heard = self._heard, b""
        return heard

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # --- called by asyncio -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Keep it; a peer that goes on and on is cut off."""
        self._heard += data
        self._was_heard = True
        if len(self._heard) > FLOOD and self._transport is not None:
            self._lost = WireError(DeviceLost, "sends without being asked", fatal=True)
            self._transport.abort()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """The other side's doing, or ours."""
        if self._lost is None:
            what = f"connection lost: {error}" if isinstance(error, ssl.SSLError) else "connection lost"
            refused = self._tls is not None and self._tls.cert_file is None and not self._was_heard
            self._lost = WireError(DeviceLost, what, _CERT_HINT if refused else "", fatal=True)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- errors ------------------------------------------------------------------------------------------------

    def _unavailable(self, error: OSError | TimeoutError) -> WireError:
        host, port = self._host, self._port
        if isinstance(error, _TlsFiles):
            return WireError(DeviceRefused, str(error), "look at the files of the tls: section; keys are not encrypted")
        if isinstance(error, ssl.SSLCertVerificationError):
            what = f"its certificate is not trusted: {error.verify_message}"
            hint = "tls: ca_file is the CA that signed it, server_name the name in it; is this PC's clock right?"
            return WireError(DeviceRefused, what, hint)
        if isinstance(error, ssl.SSLError):
            what, hint = f"no TLS: {error.reason}", f"does port {port} speak TLS? Without it: tcp://{host}:{port}"
        elif isinstance(error, TimeoutError):
            what, hint = "no answer", f"ping {host}; is a firewall between, and is the address right?"
            hint += f" Does port {port} speak TLS? Without it: tcp://{host}:{port}" if self._tls else ""
        elif error.errno == errno.ECONNREFUSED:
            what = "connection refused"
            hint = f"the host is there, but nothing listens on port {port}: {self._listener}"
        elif error.errno is None or error.errno < 0:
            what, hint = f"unknown host {host}", f"write its IP address, or ask the name server: getent hosts {host}"
        else:
            what, hint = error.strerror or str(error), f"ping {host}; is the cable in, and the subnet right?"
        return WireError(DeviceUnavailable, what, hint)


class _TlsFiles(OSError):
    """The certificates cannot be used."""


def _context(tls: TlsSettings) -> ssl.SSLContext:
    """What verifies the device and shows our certificate, of the files as they are now."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: "")
    except (OSError, ValueError) as error:
        files = ", ".join(each for each in (tls.ca_file, tls.cert_file, tls.key_file) if each)
        raise _TlsFiles(f"TLS files ({files}): {error}") from error
    return context


# --- serial ----------------------------------------------------------------------------------------------------


class SerialWire:
    """A serial port."""

    quiet_s: float | None = QUIET_S

    def __init__(self, settings: ModbusSettings) -> None:
        at, line = settings.parsed, settings.serial
        self.character_s = line.character_s
        self.gap_s = 0.0
        if at.framing == "rtu":
            self.gap_s = _FRAME_GAP_S if line.baud > 19200 else _FRAME_GAP_CHARACTERS * line.character_s
        self._where = at.tty
        self._port = Port(
            self._where,
            StreamSettings(
                port=at.tty,
                baud=line.baud,
                data_bits=line.data_bits,
                parity=line.parity,
                stop_bits=line.stop_bits,
            ),
        )
        self._is_lost = False

    @property
    def is_lost(self) -> bool:
        return self._is_lost or not self._port.is_open

    async def open(self, timeout_s: float) -> None:
        try:
            await self._port.open()
        except DriverError as error:
            raise self._mapped(error) from error

    async def send(self, data: bytes) -> None:
        try:
            await self._port.send(data)
        except DriverError as error:
            raise self._mapped(error) from error

    async def take(self, timeout_s: float) -> bytes:
        try:
            return await self._port.take(timeout_s)
        except DriverError as error:
            raise self._mapped(error) from error

    def close(self) -> None:
        self._port.close()

    def _mapped(self, error: DriverError) -> WireError:
        """Damaged characters are no loss: a stray one often stands before a good answer."""
        what = str(error.args[0]).removeprefix(f"{self._where}: ").removeprefix(f"{self._where}: ")
        if isinstance(error, LineError):
            return WireError(Garbled, what, error.hint)
        self._is_lost = True
        return WireError(type(error), what, error.hint, fatal=True)
