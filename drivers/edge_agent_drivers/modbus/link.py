"""One device's place on its bus: requests in, payloads out, every failure one of our errors, with what to do about it.

The only place that makes errors of this driver's of :class:`WireError`. A link that lost its device has left the bus
and is opened anew with ``open``; the bus goes on for the others. It retries and logs nothing: the collector does, once,
for every driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected
from edge_agent_drivers.modbus.bus import Bus, bus_of
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.frames import Request
from edge_agent_drivers.modbus.wire import Wire, WireError

EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge, not ready yet",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
BUSY = frozenset({5, 6})
GATEWAY = frozenset({10, 11})


def exception_text(code: int) -> str:
    """ "exception 2 (illegal data address)"."""
    return f"exception {code} ({EXCEPTIONS.get(code, 'unknown to the standard')})"


class Link:
    """See the module docstring."""

    def __init__(self, device: str, settings: ModbusSettings) -> None:
        self.device = device
        self.where = settings.connection
        self._settings = settings
        self._bus: Bus | None = None
        self._wire: Wire | None = None

    @property
    def lost_hint(self) -> str:
        """What to look at when nothing comes."""
        unit_id, slower = self._settings.unit_id, f"For a slow one write timeout: {2 * self._settings.timeout:g}s"
        if self._settings.parsed.is_line:
            return (
                f"is the device on, and is unit_id {unit_id} right? Are baud and parity those of the device, A and B "
                f"not swapped, and is no other master on the line? {slower}"
            )
        return (
            f"is the device on, and is unit_id {unit_id} right? Many PLCs serve few connections at a time: close other "
            f"clients, or write quirks: {{single_connection: true}} for all devices behind one gateway. {slower}"
        )

    @property
    def other_hint(self) -> str:
        """What to look at when something else than Modbus comes."""
        return (
            f"is {self._settings.port} the port of its Modbus server? Another server listens there, or a serial "
            "server that passes RTU frames on: switch it to Modbus TCP, or write rtu+tcp:// instead of tcp://"
        )

    async def open(self) -> None:
        """Join the bus. Raises DeviceUnavailable, at once when the line has no time for this device; DeviceRefused."""
        self.drop()
        settings = self._settings
        bus = self._bus if self._bus is not None and not settings.is_shared else bus_of(settings)
        self._bus = bus
        wait_s = bus.patience.wait_s(settings.unit_id, settings.timeout, asyncio.get_running_loop().time())
        if wait_s > 0 and bus.is_used:
            times = bus.patience.times(settings.unit_id)
            what = f"{self.where}: unit_id {settings.unit_id} did not answer {times} times in a row"
            hint = f"it is asked again in {wait_s:.0f} s, as others share its line. {self.lost_hint}"
            raise DeviceUnavailable(self.device, what, hint=hint)
        try:
            self._wire = await bus.join(settings.timeout)
        except WireError as error:
            raise self._error(error) from error

    def drop(self) -> None:
        """Leave the bus at once. Idempotent."""
        wire, self._wire = self._wire, None
        if wire is not None and self._bus is not None:
            self._bus.leave(wire)

    async def fetch(self, request: Request, size: int) -> bytes | int:
        """The payload (exactly ``size`` bytes) that answers a read request, or the Modbus exception code.

        Raises DeviceLost, and ReadingRejected for a reply of the wrong length.
        """
        answer = await self._ask(request)
        if answer[0] & 0x80:
            return answer[1]
        if not request.is_answered_by(answer):
            raise ReadingRejected(
                self.device,
                f"{len(answer) - 2} bytes came where {size} were asked for ({request})",
                hint="lower quirks: {max_registers: ...} if this device cuts long replies short",
            )
        return answer[2:]

    async def send(self, request: Request) -> int:
        """Write. Returns the exception code, 0 for success. Raises DeviceLost or ReadingRejected."""
        answer = await self._ask(request)
        return answer[1] if answer[0] & 0x80 else 0

    async def _ask(self, request: Request) -> bytes:
        if self._wire is not None and self._wire.is_lost and not self._settings.parsed.tty:
            await self._after_an_end()
        wire, bus = self._wire, self._bus
        if wire is None or bus is None:
            raise DeviceLost(self.device, f"{self.where}: not connected")
        try:
            return await bus.ask(wire, request, self._settings.timeout, self._settings.quirks.pause)
        except WireError as error:
            if not issubclass(error.kind, ReadingRejected):
                self.drop()
            raise self._error(error) from error
        except asyncio.CancelledError:
            self.drop()
            raise

    async def _after_an_end(self) -> None:
        """The connection ended before anything was asked: connect anew where the device does so by design.

        Raises DeviceLost.
        """
        if not self._settings.quirks.closes_idle:
            self.drop()
            hint = "did it restart? If it ends idle connections by design, write quirks: {closes_idle: true}"
            raise DeviceLost(self.device, f"{self.where}: connection lost while nothing was asked", hint=hint)
        try:
            await self.open()
        except (DeviceUnavailable, DeviceRefused) as error:
            what = str(error.args[0]).removeprefix(f"{self.device}: ")
            raise DeviceLost(self.device, what, hint=error.hint) from error

    def _error(self, error: WireError) -> DriverError:
        hint = error.hint or self.lost_hint
        return error.kind(self.device, f"{self.where}: {error.what}", hint=hint)

    def judge(self, code: int) -> int:
        """An exception that says something of the addresses, or of this moment; DeviceLost for one of the gateway."""
        if code in GATEWAY:
            self.drop()
            hint = f"look at the device behind the gateway, unit_id {self._settings.unit_id}"
            raise DeviceLost(self.device, f"{self.where}: {exception_text(code)}", hint=hint)
        return code

    def busy(self, code: int) -> ReadingRejected:
        """For a device that answers nothing but that it is busy."""
        hint = "the device is busy: give its groups a longer poll:, and close its other clients"
        return ReadingRejected(self.device, f"{self.where}: {exception_text(code)}", hint=hint)


MANUAL_HOLDING = range(40001, 50000)  # as manuals write the holding registers, with the table's digit in front


def refused_hint(codes: Mapping[int, int], unit_id: int) -> str:
    """What to check when the device answers nothing but exceptions; ``codes`` maps each to an address it came for."""
    if codes.keys() & GATEWAY:
        return f"no device answers behind this gateway: check unit_id (now {unit_id}) and the wiring behind it"
    if codes.keys() & {2, 3}:
        address = codes.get(2, codes.get(3, 0))
        below = f"{address - 1} and {address + 1}" if address else "1"
        if address in MANUAL_HOLDING:
            return (
                f"{address} of a manual is holding:{address - MANUAL_HOLDING.start} here, counted from 0; else check "
                f"the table (coil, discrete, input, holding) and unit_id (now {unit_id})"
            )
        return (
            f"addresses are 0-based: try {below}, the neighbours of {address}; check the table (coil, discrete, "
            f"input, holding) and unit_id (now {unit_id})"
        )
    if 1 in codes:
        return "this device has no such table: try holding instead of input, or coil instead of discrete"
    return f"look at the PLC's own diagnostics; is it in run, and is unit_id {unit_id} right?"
