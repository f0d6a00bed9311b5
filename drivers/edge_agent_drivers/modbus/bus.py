"""One master for a connection: requests strictly one after the other, first come first served.

Devices on one serial line, behind one serial server, or behind a gateway that takes a single connection, share a bus
(:func:`bus_of`); a device with a TCP connection of its own has one to itself. The bus opens its wire for the first
that joins and closes it behind the last. A wire that is lost is a loss for all who joined it: each finds out at its
next request, and joins again.

An exchange ends in one of four ways: the answer; no answer in time; an answer that is none (garbled, on RTU and ASCII
lines), which says nothing of the next; or the loss of the wire. One that was cancelled still owes its answer: whoever
is next waits for that first, at most as long as the time-out had left. Nothing is retried.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakKeyDictionary

from edge_agent.errors import DeviceLost
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.frames import FRAMINGS, Framing, Mbap, NotFramed, Request
from edge_agent_drivers.modbus.patience import OWED_TIMEOUTS, Owed, Patience
from edge_agent_drivers.modbus.wire import Garbled, Wire, WireError, wire_of

HEARD_MAX = 4096  # bytes that come while one answer is waited for; the longest is 513
SHORTEST = 5  # bytes of an answer; fewer are a stray one or two, as the line turns around
STALE_TRIES = 20  # a line that is never quiet is no line to speak on
SILENT_GATEWAY = 11  # the exception that says: the unit behind me does not answer
_NUMBERS = 0xFFFF
_GARBLED = (
    "do baud, data_bits, parity and stop_bits of serial: match the device? Are A and B swapped, the ends of the line "
    "terminated, two devices set to one unit_id?"
)


class NotModbus(DeviceLost):
    """What answers there does not speak Modbus TCP, or no longer."""


class NoAnswer(WireError):
    """Nothing came in time."""


class _Asked(NamedTuple):
    """A request that is under way."""

    request: Request
    number: int
    frame: bytes
    until_s: float


class Bus:
    """See the module docstring."""

    def __init__(self, settings: ModbusSettings) -> None:
        at = settings.parsed
        self.patience = Patience()
        self._settings = settings
        self._framing: Framing = FRAMINGS[at.framing]() if at.is_line else Mbap(lenient=not settings.is_shared)
        self._turn = asyncio.Lock()  # fair: waiters are served in the order they came
        self._wire: Wire | None = None
        self._users = 0
        self._number = 0
        self._heard = b""
        self._quiet_since_s = 0.0
        self._echoes: bool | None = None  # a two-wire adapter gives back what it sends; learnt from a read
        self._under_way: _Asked | None = None
        self._owed = Owed()

    @property
    def is_used(self) -> bool:
        """Somebody has joined."""
        return self._users > 0

    async def join(self, timeout_s: float) -> Wire:
        """The wire, opened if need be; pass it to ``ask`` and ``leave``. Raises WireError."""
        async with self._turn:
            if self._wire is None or self._wire.is_lost:
                self._hang_up()
                wire = wire_of(self._settings)
                try:
                    await wire.open(timeout_s)
                except BaseException:
                    wire.close()
                    raise
                self._wire, self._echoes = wire, None
            self._users += 1
            return self._wire

    def leave(self, wire: Wire) -> None:
        """The last one closes it."""
        if wire is self._wire:
            self._users -= 1
            if not self._users:
                self._hang_up()

    async def ask(self, wire: Wire, request: Request, timeout_s: float, pause_s: float) -> bytes:
        """The pdu that answers, an exception included. Raises WireError."""
        async with self._turn:
            if wire is not self._wire:
                raise WireError(DeviceLost, "connection lost")
            began_s = _now_s()
            try:
                answer = await self._answer(wire, request, timeout_s, pause_s)
            except WireError as error:
                if error.fatal:
                    self._hang_up()
                else:
                    self.patience.missed(request.unit_id, _now_s() - began_s, _now_s())
                raise
            if answer[0] & 0x80 and answer[1] == SILENT_GATEWAY:
                self.patience.missed(request.unit_id, _now_s() - began_s, _now_s())
            else:
                self.patience.answered(request.unit_id)
            return answer

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        self._users, self._heard, self._under_way = 0, b"", None
        if wire is not None:
            wire.close()

    # --- one exchange --------------------------------------------------------------------------------------------

    async def _answer(self, wire: Wire, request: Request, timeout_s: float, pause_s: float) -> bytes:
        await self._hear_out(wire)
        if not self._framing.numbered and self._is_unsure(request):
            asides = request.asides()
            aside = next((each for each in asides if not self._is_unsure(each)), asides[0])
            await self._exchange(wire, aside, timeout_s, pause_s)
            if self._is_unsure(request):
                hint = f"it is slower than it is waited for: write timeout: {2 * timeout_s:g}s"
                raise NoAnswer(DeviceLost, "answers come later than its timeout", hint)
        if not self._framing.numbered and self._echoes is None and request.is_own_answer:
            with suppress(NoAnswer):  # a device may be silent to a read; an adapter's echo comes all the same
                await self._exchange(wire, request.sound(), timeout_s, pause_s)
        return await self._exchange(wire, request, timeout_s, pause_s)

    def _is_unsure(self, request: Request) -> bool:
        return self._owed.is_unsure(request.unit_id, request.function, _now_s())

    async def _exchange(self, wire: Wire, request: Request, timeout_s: float, pause_s: float) -> bytes:
        await self._be_quiet(wire, max(wire.gap_s, pause_s))
        self._number = self._number % _NUMBERS + 1
        frame = self._framing.build(request, self._number)
        now_s = _now_s()
        on_line_s = (len(frame) + self._framing.length(request)) * wire.character_s
        asked = self._under_way = _Asked(request, self._number, frame, now_s + timeout_s + on_line_s)
        if not self._framing.numbered:
            self._owed.asked(request.unit_id, request.function, now_s + OWED_TIMEOUTS * timeout_s, now_s)
        await wire.send(frame)
        answer, damaged = await self._hear(wire, asked)
        self._under_way = None
        if request.is_read and (answer is not None or not self._heard):
            self._echoes = bool(self._echoes)  # there was one, or there is none
        if answer is not None:
            return answer
        if damaged is not None:
            raise damaged
        if len(self._heard) >= SHORTEST and not self._framing.numbered:
            raise WireError(Garbled, "what came is no answer to the request", _GARBLED)
        if (other := self._framing.other_unit) is not None:
            raise NoAnswer(DeviceLost, f"unit {other} answers instead", f"unit {other} answers, write unit_id: {other}")
        raise NoAnswer(DeviceLost, "no answer within its timeout")

    async def _hear(self, wire: Wire, asked: _Asked) -> tuple[bytes | None, WireError | None]:
        """The answer, if it comes; else what is wrong with what came, as far as the wire knows."""
        damaged: WireError | None = None
        echo = asked.frame if self._echoes else b""  # which looks like the answer to a single write
        while (left_s := asked.until_s - _now_s()) > 0:
            if wire.quiet_s is not None and len(self._heard) >= SHORTEST:
                left_s = min(left_s, wire.quiet_s + 2 * wire.character_s)
            try:
                heard = await wire.take(left_s)
            except WireError as error:
                if error.fatal:
                    raise
                damaged, self._heard = error, b""
                continue
            if not heard:
                break
            self._quiet_since_s = _now_s()
            self._heard += heard
            if echo and self._heard.startswith(echo):
                self._heard, echo = self._heard[len(echo) :], b""
            try:
                answer, self._heard = self._framing.find(self._heard, asked.request, asked.number)
            except NotFramed as error:
                raise WireError(NotModbus, "what answers does not speak Modbus TCP", fatal=True) from error
            if answer is not None:
                self._owed.answered(asked.request.unit_id, asked.request.function)
                return answer, None
            if asked.request.is_read and self._heard.startswith(asked.frame):
                self._heard, self._echoes = self._heard[len(asked.frame) :], True
            if len(self._heard) > HEARD_MAX:
                raise WireError(DeviceLost, "far more comes than was asked for", _GARBLED, fatal=True)
        return None, damaged

    async def _hear_out(self, wire: Wire) -> None:
        """Let the answer to a cancelled request come, which would else meet the next."""
        if self._under_way is not None:
            await self._hear(wire, self._under_way)
            self._under_way = None

    async def _be_quiet(self, wire: Wire, gap_s: float) -> None:
        """Keep the silence between two frames, and throw away what came unasked. Modbus TCP sorts that out itself."""
        for _ in range(STALE_TRIES):
            if (wait_s := self._quiet_since_s + gap_s - _now_s()) > 0:
                await asyncio.sleep(wait_s)
            if self._framing.numbered:
                return
            self._heard = b""
            try:
                stale = await wire.take(0)
            except WireError as error:
                if error.fatal:
                    raise
                stale = b"?"
            if not stale:
                return
            self._quiet_since_s = _now_s()
        raise WireError(Garbled, "the line is never quiet", "does another master speak on it?")


_BUSES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], Bus]] = WeakKeyDictionary()


def bus_of(settings: ModbusSettings) -> Bus:
    """The bus of this connection: the one that all share, or a new one. It is kept, as what it knows of late answers
    and dead devices must outlive a connection; there are as many as lines in the configuration."""
    if not settings.is_shared:
        return Bus(settings)
    for loop in [loop for loop in _BUSES if loop.is_closed()]:
        del _BUSES[loop]
    buses = _BUSES.setdefault(asyncio.get_running_loop(), {})
    key = (settings.parsed, settings.serial, settings.tls)
    if key not in buses:
        buses[key] = Bus(settings)
    return buses[key]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
