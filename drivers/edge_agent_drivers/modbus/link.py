"""One TCP connection to one Modbus device: requests in, payloads out, every failure one of our errors.

The only file that imports pymodbus, and the only place that maps its exceptions (:class:`_Mapped`). What pymodbus
leaves to its user, and what is done about it here:

- It decodes register by register in Python. Our response classes keep the payload as bytes, and the block's decoder
  unpacks it in one go; this makes a read cheaper than the bare client's.
- Short replies pass. Here the length of every reply must be what was asked for.
- A connection that drops in mid-read would wait for the time-out. Here the waiting future fails at once.
- Bytes that are no Modbus TCP end in a logged traceback or in a time-out. Here each chunk's header is looked at
  first, and a stream that lost its framing is given up.
- A reply that comes too late could meet the next request. A request that was cancelled or timed out closes the
  connection: what the device still says goes nowhere.
- It retries, reconnects and logs. Here it does none of them: the collector does, once, for every driver.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import WriteSingleCoilRequest
from pymodbus.pdu.register_message import WriteMultipleRegistersRequest, WriteSingleRegisterRequest

from edge_agent.errors import DeviceLost, DeviceUnavailable, ReadingRejected
from edge_agent_drivers.modbus.config import ModbusSettings, Table

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL + 1)  # a hex dump at ERROR for each failure

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
Request = ModbusPDU
BUSY = frozenset({5, 6})
GATEWAY = frozenset({10, 11})
_NOT_MODBUS = "what answers does not speak Modbus TCP"
_MBAP = 8  # bytes of the header and the function code
_WRITES = (5, 6, 16)
_WRITE_LENGTH = 6  # what follows the length in the reply to a write
_FRAME_LENGTHS = range(3, 255)  # unit id, function code and at least one byte more


def exception_text(code: int) -> str:
    """ "exception 2 (illegal data address)"."""
    return f"exception {code} ({EXCEPTIONS.get(code, 'unknown to the standard')})"


class _Raw(ModbusPDU):
    """A reply that keeps its payload: the byte count and the bytes."""

    payload: bytes = b""

    def decode(self, data: bytes) -> None:
        self.payload = data

    def __str__(self) -> str:  # pymodbus builds this text for every reply, though it does not log it
        return "reply"


class _RawCoils(_Raw):
    function_code = 1


class _RawDiscretes(_Raw):
    function_code = 2


class _RawHoldings(_Raw):
    function_code = 3


class _RawInputs(_Raw):
    function_code = 4


class _ReadRequest(ModbusPDU):
    def encode(self) -> bytes:
        return self.address.to_bytes(2, "big") + self.count.to_bytes(2, "big")


_READ = {"coil": _RawCoils, "discrete": _RawDiscretes, "holding": _RawHoldings, "input": _RawInputs}


def read_request(table: Table, start: int, count: int, unit_id: int) -> Request:
    """A read request; it can be sent again and again."""
    request = _ReadRequest(dev_id=unit_id, address=start, count=count)
    request.function_code = _READ[table].function_code
    return request


def is_framed(stream: bytes, function: int, transaction: int) -> bool:
    """Whether these received bytes can be the beginning of Modbus TCP frames that answer this request."""
    while len(stream) >= _MBAP:
        length = int.from_bytes(stream[4:6], "big")
        if stream[2:4] != b"\0\0" or length not in _FRAME_LENGTHS:
            return False
        if int.from_bytes(stream[:2], "big") in (transaction, 0):
            if stream[7] & 0x7F != function:
                return False
            if stream[7] in _WRITES and length != _WRITE_LENGTH:
                return False
        stream = stream[6 + length :]
    return True


class NotModbus(DeviceLost):
    """What answers there does not speak Modbus TCP, or no longer."""


class _Mapped:
    """The one place that turns what pymodbus and sockets raise into DeviceLost, and closes what is then unusable."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        link = self._link
        reason, link.broken = link.broken, ""
        link.drop()  # cancelled, too: the reply is still on its way, and must not meet the next request
        if isinstance(error, (ModbusException, OSError, TimeoutError)):
            lost = NotModbus if reason == _NOT_MODBUS else DeviceLost
            what = reason or ("no answer within its timeout" if "No response" in str(error) else "connection lost")
            raise lost(link.device, f"{link.where}: {what}", hint=link.lost_hint) from error


class Link:
    """See the module docstring. One request at a time; a lost or dropped link is opened anew with ``open``."""

    def __init__(self, device: str, settings: ModbusSettings) -> None:
        self.device = device
        self.where = settings.connection
        self.broken = ""  # why the stream was given up, until the waiting request has said so
        self._settings = settings
        self._client: AsyncModbusTcpClient | None = None
        self._mapped = _Mapped(self)
        self._function = 0  # of the request that waits for its reply; 0: none does

    @property
    def lost_hint(self) -> str:
        return (
            f"is the device on, and is unit_id {self._settings.unit_id} right? Many PLCs serve few connections at a "
            f"time: close other clients. For a slow one write timeout: {2 * self._settings.timeout:g}s"
        )

    @property
    def other_hint(self) -> str:
        return (
            f"is {self._settings.port} the port of its Modbus server? Another server listens there, or a serial "
            "gateway that passes RTU frames on: switch it to Modbus TCP"
        )

    async def open(self) -> None:
        """Connect. Raises DeviceUnavailable."""
        self.drop()
        settings = self._settings
        client = AsyncModbusTcpClient(
            settings.host,
            port=settings.port,
            timeout=settings.timeout,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._on_packet,
            trace_connect=self._on_connect,
        )
        for reply in _READ.values():
            client.register(reply)
        self._client, self.broken = client, ""
        try:
            async with asyncio.timeout(settings.timeout):
                await client.ctx.call_create()  # not connect(), which hides why it failed
        except (OSError, TimeoutError) as error:
            self.drop()
            raise self._unavailable(error) from error

    def drop(self) -> None:
        """Close at once. Idempotent."""
        client, self._client, self._function = self._client, None, 0
        if client is not None:
            client.close()

    async def fetch(self, request: Request, size: int) -> bytes | int:
        """The payload (exactly ``size`` bytes) that answers a read request, or the Modbus exception code.

        Raises DeviceLost, and ReadingRejected for a reply of the wrong length.
        """
        reply = await self._execute(request)
        if isinstance(reply, _Raw):
            payload = reply.payload
            if len(payload) != size + 1 or payload[0] != size:
                asked = f"{request.count} at {request.address} of function {request.function_code}"
                raise ReadingRejected(
                    self.device,
                    f"{len(payload) - 1} bytes came where {size} were asked for ({asked})",
                    hint="lower quirks: {max_registers: ...} if this device cuts long replies short",
                )
            return payload[1:]
        return reply.exception_code

    async def write(self, table: Table, start: int, registers: Sequence[int]) -> int:
        """Write one coil, one register or several. Returns the exception code, 0 for success. Raises DeviceLost."""
        unit, request = self._settings.unit_id, ModbusPDU()
        if table == "coil":
            request = WriteSingleCoilRequest(dev_id=unit, address=start, bits=[bool(registers[0])])
        elif len(registers) == 1:
            request = WriteSingleRegisterRequest(dev_id=unit, address=start, registers=registers)
        else:
            request = WriteMultipleRegistersRequest(dev_id=unit, address=start, registers=registers)
        reply = await self._execute(request)
        return reply.exception_code if reply.isError() else 0

    async def _execute(self, request: ModbusPDU) -> ModbusPDU:
        if self._client is None:
            raise DeviceLost(self.device, f"{self.where}: not connected")
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        with self._mapped:
            self._function = request.function_code
            reply: ModbusPDU = await self._client.execute(False, request)
            if task is not None and task.cancelling() > cancels:
                raise asyncio.CancelledError  # Python 3.11's wait_for loses one that meets its result
            self._function = 0
        return reply

    def judge(self, code: int) -> int:
        """An exception that says something of the addresses; ReadingRejected or DeviceLost for one that does not."""
        if code in BUSY:
            hint = "the device is busy: give its groups a longer poll:, and close its other clients"
            raise ReadingRejected(self.device, f"{self.where}: {exception_text(code)}", hint=hint)
        if code in GATEWAY:
            self.drop()
            hint = f"look at the device behind the gateway, unit_id {self._settings.unit_id}"
            raise DeviceLost(self.device, f"{self.where}: {exception_text(code)}", hint=hint)
        return code

    # --- called by pymodbus ----------------------------------------------------------------------------------

    def _on_connect(self, connected: bool) -> None:
        if not connected:
            self._fail(self.broken or "connection lost")

    def _on_packet(self, sending: bool, data: bytes) -> bytes:
        if sending or self._client is None:
            return data
        if is_framed(data, self._function, self._client.ctx.request_transaction_id):
            return data
        self._fail(_NOT_MODBUS)
        return b""

    def _fail(self, reason: str) -> None:
        """Let the waiting request, if there is one, end at once."""
        if self._client is not None and self._function:
            self.broken = reason
            future = self._client.ctx.response_future
            if not future.done():
                future.set_exception(ModbusException(reason))

    def _unavailable(self, error: OSError | TimeoutError) -> DeviceUnavailable:
        host, port = self._settings.host, self._settings.port
        if isinstance(error, TimeoutError):
            what, hint = "no answer", f"ping {host}; is a firewall between, and is the address right?"
        elif error.errno == errno.ECONNREFUSED:
            what = "connection refused"
            hint = f"the host is there, but nothing listens on port {port}: is the PLC's Modbus server switched on?"
        elif error.errno is None or error.errno < 0:
            what, hint = f"unknown host {host}", f"write its IP address, or ask the name server: getent hosts {host}"
        else:
            what, hint = error.strerror or str(error), f"ping {host}; is the cable in, and the subnet right?"
        return DeviceUnavailable(self.device, f"{self.where}: {what}", hint=hint)


def refused_hint(codes: Mapping[int, int], unit_id: int) -> str:
    """What to check when the device answers nothing but exceptions; ``codes`` maps each to an address it came for."""
    if codes.keys() & GATEWAY:
        return f"no device answers behind this gateway: check unit_id (now {unit_id}) and the wiring behind it"
    if codes.keys() & {2, 3}:
        address = codes.get(2, codes.get(3, 0))
        below = f"{address - 1} and {address + 1}" if address else "1"
        return (
            f"addresses are 0-based: try {below}, the neighbours of {address}; check the table (coil, discrete, "
            f"input, holding) and unit_id (now {unit_id})"
        )
    if 1 in codes:
        return "this device has no such table: try holding instead of input, or coil instead of discrete"
    return f"look at the PLC's own diagnostics; is it in run, and is unit_id {unit_id} right?"
