"""The shared master against a line that loses, delays, damages and doubles answers, and users who give up anywhere.

By random but seeded, in virtual time: the loop's clock jumps to the next timer, so minutes take a second. Each value
that the line answers names its unit, table, address and when the device made it; so every value that a user is given
can be told right or wrong.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from typing import Any

import pytest
from pymodbus.framer import FramerRTU

from edge_agent.errors import DeviceLost, DriverError
from edge_agent_drivers.modbus import bus as bus_module
from edge_agent_drivers.modbus.bus import bus_of
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.frames import read_request
from edge_agent_drivers.modbus.link import Link
from edge_agent_drivers.modbus.wire import WireError

SECONDS = 80
UNITS = (1, 2, 3, 4, 2)  # two devices of the config are one unit
DEAD = 4
LATEST_S = 9.5  # the bus believes an answer lost after ten time-outs
REFUSED = 60  # of 64 addresses each
SCHEMES = {"rtu": "rtu+tcp://h:1", "ascii": "ascii+tcp://h:1", "mbap": "tcp://h:1"}


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time passes only when there is nothing else to do, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            assert timeout is not None, "nothing is left to wait for: somebody waits for ever"
            found = select(0)
            self._now += 0.0 if found else max(timeout, 0.0)
            return found

        selector.select = jump

    def time(self) -> float:
        return self._now


class Line:
    """The units, their line, and what goes wrong on it. ``doubles``: an answer that comes twice, together."""

    def __init__(self, framing: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.wire: FakeWire | None = None
        self.faults: Counter[str] = Counter()
        self._framing = framing
        self._busy_until: dict[int, float] = {}  # a unit answers in order

    def sent(self, frame: bytes) -> None:
        unit, pdu, number = self._parsed(frame)
        loop = asyncio.get_running_loop()
        if unit == DEAD or self._happens("lost", 0.03):
            return
        at = max(loop.time(), self._busy_until.get(unit, 0.0)) + self.random.uniform(0.001, 0.02)
        if self._happens("late", 0.03):
            at += self.random.uniform(0, 5)
        self._busy_until[unit] = at = max(min(at, loop.time() + LATEST_S), self._busy_until.get(unit, 0.0))
        loop.call_at(at, self._answer, unit, pdu, number)

    def _answer(self, unit: int, pdu: bytes, number: bytes) -> None:
        frame = self._frame(unit, self._said(unit, pdu), number)
        at = asyncio.get_running_loop().time()
        if self._framing != "mbap" and self._happens("damaged", 0.05):
            place = self.random.randrange(len(frame))
            flipped = bytes([frame[place] ^ 1 << self.random.randrange(8)])
            ways = (frame[:place], frame[:place] + flipped + frame[place + 1 :], b"\x02" + frame)
            frame = self.random.choice(ways)
        cut = self.random.randrange(len(frame) + 1) if self._framing != "mbap" else 0
        if self._happens("doubled", 0.03):
            frame, cut = frame + frame, 0
        self._put(frame[:cut], at)
        self._put(frame[cut:], at + (self.random.choice([0.0, 0.003]) if cut else 0.0))

    def _put(self, data: bytes, at: float) -> None:
        asyncio.get_running_loop().call_at(at, lambda: self.wire.feed(data) if self.wire is not None else None)

    def _happens(self, what: str, chance: float) -> bool:
        happens = self.random.random() < chance
        self.faults[what] += happens
        return happens

    @staticmethod
    def _said(unit: int, pdu: bytes) -> bytes:
        function, address, count = struct.unpack(">BHH", pdu)
        if address % 64 == REFUSED:
            return bytes([function | 0x80, 2])
        now_ms = int(asyncio.get_running_loop().time() * 1000)
        if function in (1, 2):
            return bytes([function, 1, 1])
        data = b"".join(struct.pack(">BBHI", unit, function, at, now_ms) for at in range(address, address + count, 4))
        return bytes([function, 2 * count]) + data[: 2 * count]

    def _frame(self, unit: int, pdu: bytes, number: bytes) -> bytes:
        body = bytes([unit]) + pdu
        if self._framing == "rtu":
            return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")
        if self._framing == "ascii":
            return b":" + (body + bytes([-sum(body) & 0xFF])).hex().upper().encode() + b"\r\n"
        return number + b"\0\0" + len(body).to_bytes(2, "big") + body

    def _parsed(self, frame: bytes) -> tuple[int, bytes, bytes]:
        if self._framing == "mbap":
            return frame[6], frame[7:], frame[:2]
        body = frame[:-1] if self._framing == "rtu" else bytes.fromhex(frame[1:-2].decode())
        return body[0], body[1:-1], b""


class FakeWire:
    """A connection to the line. At most one is open."""

    character_s = 0.0
    gap_s = 0.0
    quiet_s: float | None = None

    def __init__(self, line: Line) -> None:
        self._line = line
        self._heard = b""
        self._news = asyncio.Event()
        self._lost: WireError | None = None

    @property
    def is_lost(self) -> bool:
        return self._lost is not None or self._line.wire is not self

    async def open(self, timeout_s: float) -> None:
        await asyncio.sleep(self._line.random.choice([0, 0.05]))
        assert self._line.wire is None, "the bus has two connections"
        self._line.wire = self

    async def send(self, data: bytes) -> None:
        await asyncio.sleep(self._line.random.choice([0, 0.001]))
        self._line.sent(data)
        if self._line._happens("hung up", 0.02):
            self._lost = WireError(DeviceLost, "hung up", fatal=True)
            self._news.set()

    def feed(self, data: bytes) -> None:
        self._heard += data
        self._news.set()

    async def take(self, timeout_s: float) -> bytes:
        until_s = asyncio.get_running_loop().time() + timeout_s
        while not self._heard and self._lost is None:
            self._news.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await self._news.wait()
            except TimeoutError:
                break
        if not self._heard and self._lost is not None:
            raise self._lost
        heard, self._heard = self._heard, b""
        return heard

    def close(self) -> None:
        if self._line.wire is self:
            self._line.wire = None


def settings_of(framing: str, unit: int) -> ModbusSettings:
    keys: dict[str, Any] = {"connection": SCHEMES[framing], "unit_id": unit, "timeout": "1s"}
    if framing == "mbap":
        keys["quirks"] = {"single_connection": True}
    return ModbusSettings.model_validate(keys)


async def use(settings: ModbusSettings, chance: random.Random, until_s: float, told: Counter[str]) -> None:
    """Read here and there, give up now and then, open again after a loss."""
    loop = asyncio.get_running_loop()
    link = Link("unit", settings)
    is_open = False
    while loop.time() < until_s:
        began_s = loop.time()
        try:
            if not is_open:
                await link.open()
            is_open = True
            table, function = chance.choice([("holding", 3), ("holding", 3), ("input", 4)])
            address, count = 4 * chance.randrange(64), chance.choice([4, 4, 8])
            request = read_request(table, address, count, settings.unit_id)  # type: ignore[arg-type]
            reading = asyncio.ensure_future(link.fetch(request, 2 * count))
            if chance.random() < 0.1:
                loop.call_later(chance.choice([0, chance.uniform(0, 0.03), chance.uniform(0, 1.5)]), reading.cancel)
            await asyncio.wait([reading])
            if reading.cancelled():
                is_open = False
                continue
            told[judged(reading.result(), settings.unit_id, function, address, int(began_s * 1000))] += 1
        except DriverError as error:
            told[type(error).__name__] += 1
            is_open = is_open and link._wire is not None
            await asyncio.sleep(0 if is_open else chance.uniform(0.3, 1))
        await asyncio.sleep(chance.choice([0, 0, 0.05]))
    link.drop()


def judged(answer: bytes | int, unit: int, function: int, address: int, since_ms: int) -> str:
    if isinstance(answer, int):
        return "refused" if address % 64 == REFUSED else "wrongly refused"
    for place in range(0, len(answer), 8):
        its_unit, its_function, its_address, at_ms = struct.unpack(">BBHI", answer[place : place + 8])
        if (its_unit, its_function, its_address) != (unit, function, address + place // 2) or at_ms < since_ms:
            return "wrong"
    return f"right {unit}"


@pytest.mark.parametrize("framing", SCHEMES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_value_is_of_its_unit_and_address_and_of_after_the_request(
    framing: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, told = Line(framing, seed), Counter[str]()
    monkeypatch.setattr(bus_module, "wire_of", lambda _settings: FakeWire(line))

    async def test() -> None:
        until_s = asyncio.get_running_loop().time() + SECONDS
        users = [settings_of(framing, unit) for unit in UNITS]
        chances = [random.Random(seed * 100 + number) for number in range(len(users))]
        async with asyncio.timeout(2 * SECONDS):
            await asyncio.gather(*(use(one, chance, until_s, told) for one, chance in zip(users, chances, strict=True)))
        bus = bus_of(users[0])
        assert not bus.is_used
        assert not bus._turn.locked()
        assert line.wire is None
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(test())
    assert told["wrong"] == told["wrongly refused"] == 0
    assert all(told[f"right {unit}"] > 20 for unit in UNITS if unit != DEAD), told
    assert min(line.faults.values()) > 0, line.faults


def test_one_connection_is_one_however_it_is_written() -> None:
    async def test() -> None:
        first, second, other = (
            ModbusSettings.model_validate({"connection": text, "quirks": {"single_connection": True}})
            for text in ("tcp://plc-3", "tcp://PLC-3:502", "tcp://plc-3:503")
        )
        assert bus_of(first) is bus_of(second)
        assert bus_of(first) is not bus_of(other)

    asyncio.run(test())
