"""The positions of the simulated line: a unit enters, is scanned, is worked, and its result is handed over.

Some do more: a gate asks the agent before the work; a board is built in and its own label scanned; what failed comes
once more; at a ``late`` station the unit is scanned only after its result.

The program follows the PLC's side of the handshake in docs/contracts.md: results, counter, ``ready``; wait for
``ack``; drop ``ready``; wait until ``ack`` is gone; next unit. With a time-out the PLC may give up on a result
(``not_taken``); it then keeps ``ready`` low for ``LOW_S``, since an acknowledge bit that carries no counter cannot
tell for which result a late one was meant.

Values tell where they come from: cycle number n shows ``base + n/1024``, exact in float32 and unique for 4,096 cycles
of a position, so a reading under a wrong serial is noticed by its value alone.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edge_agent.demo.gate import ON_HOLD, STEP_BEFORE, PlcGate
from edge_agent.demo.plc import Image
from edge_agent.demo.scanners import PtyScanner
from edge_agent.demo.truth import Truth

LOW_S = 1.0
STAY_S = 0.3  # longer than two polls: nothing leaves before the agent could have seen that it is done
ASK_AGAIN_S = 0.8  # longer than the agent's ``bounce``: an earlier scan of the same label would be the same scan
CANCEL = "%CANCEL"  # the command barcode that ends a cycle in which nothing was done
ROOM = 2  # units that may wait before a station
_VALUES = 4096


@dataclass(slots=True)
class Unit:
    """One product on its way. ``quirks``: what will go wrong with it, as "station:quirk", at the first position."""

    serial: str
    quirks: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where a position's signals are in its PLC's image, and what its values look like.

    The result block is: count uint16, two float32 ``values`` (tag name, base), ok; six registers from ``result``.
    """

    station: str
    position: int
    device: str
    scanner: str
    done: int  # coil: `ready` of the handshake, or `done` where ``ack`` is None
    ack: int | None
    result: int
    values: tuple[tuple[str, float], tuple[str, float]]
    work_s: float
    counter_start: int
    late: bool = False  # the unit is scanned after its result, not before the work
    board: bool = False  # a board is built into each unit
    reworks: bool = False  # what fails comes here once more


class Intake:
    """What waits before a station. What came back goes first, and there is always room for it."""

    def __init__(self) -> None:
        self._back: deque[Unit] = deque()
        self._fresh: deque[Unit] = deque()
        self._room = asyncio.Semaphore(ROOM)
        self._some = asyncio.Event()

    async def put(self, unit: Unit) -> None:
        """Add a unit once there is room for it."""
        await self._room.acquire()
        self._fresh.append(unit)
        self._some.set()

    def give_back(self, unit: Unit) -> None:
        """A unit that is to be worked on again, or was not yet."""
        self._back.append(unit)
        self._some.set()

    async def get(self) -> Unit:
        """The next unit, waiting for it."""
        while not (self._back or self._fresh):
            self._some.clear()
            await self._some.wait()
        if self._back:
            return self._back.popleft()
        self._room.release()
        return self._fresh.popleft()


class Cell:
    """One position: its PLC program, its reader and the operator's hands."""

    def __init__(
        self,
        wiring: Wiring,
        image: Image,
        scanner: PtyScanner,
        truth: Truth,
        *,
        intake: Intake,
        onward: Callable[[Unit], Awaitable[None]],
        turned_away: Callable[[Unit, int], None],
        gate: PlcGate | None,
        pace: float,
        give_up_s: float | None,
    ) -> None:
        self.wiring = wiring
        self.unit: Unit | None = None
        self._image, self._scanner, self._truth = image, scanner, truth
        self._intake, self._onward, self._turned_away = intake, onward, turned_away
        self._gate = gate
        self._pace, self._give_up_s = pace, give_up_s
        self._number = 0
        image.holding[wiring.result] = wiring.counter_start
        self._where = {"station": wiring.station, "position": wiring.position}
        self._swapped_in: Unit | None = None  # scanned, if at all, when it was put in
        self._worked: Unit | None = None  # from its result on until it leaves

    async def run(self) -> None:
        """Unit after unit, until cancelled."""
        while True:
            if self.unit is None:
                self._enter(await self._intake.get())
            if not self.wiring.late and self.unit is not self._swapped_in:
                await self._identify()
            if self._gate is not None and not await self._let_in(self._gate):
                continue
            if self.wiring.ack is None:
                self._image.coils[self.wiring.done] = False
            await self._pause(self.wiring.work_s)
            worked = self._present()
            self._worked = worked
            passed = await self._hand_over(worked)
            if self.wiring.late:
                await self._identify()
            await asyncio.sleep(STAY_S)
            self._worked = None
            if self.unit is worked:
                self._leave(worked)
            if self.wiring.reworks and not passed:
                self._truth.note("rework", **self._where, serial=worked.serial)
                self._intake.give_back(worked)
            else:
                await self._onward(worked)

    def swap(self, new: Unit, *, scan: bool) -> bool:
        """Take the unit out and put ``new`` in its place. A unit not yet worked comes back later. False if empty."""
        old = self.unit
        if old is None:
            return False
        self._truth.note("swap", **self._where, out=old.serial, serial=new.serial)
        if old is not self._worked:
            self._intake.give_back(old)
        self.unit = self._swapped_in = new
        if scan:
            self._scan(new.serial, new)
        return True

    def _enter(self, unit: Unit) -> None:
        self.unit, self._swapped_in = unit, None
        self._truth.note("enter", **self._where, serial=unit.serial)

    def _leave(self, unit: Unit) -> None:
        self.unit = None
        self._truth.note("leave", **self._where, serial=unit.serial)

    def _present(self) -> Unit:
        assert self.unit is not None, "a swap puts a unit in where it takes one out"
        return self.unit

    async def _identify(self) -> None:
        await self._pause(0.15)
        unit = self._present()
        if unit is self._swapped_in and not self.wiring.late:
            return
        if self.wiring.board:
            await self._identify_unit(unit)
            await self._pause(0.2)
            self._build_in(unit)
        else:
            await self._identify_unit(unit)

    async def _identify_unit(self, unit: Unit) -> None:
        if self._happens("no_scan", unit):
            return
        if self._happens("no_read", unit):
            self._scan("NOREAD", unit)
            await self._pause(0.2)
        self._scan(unit.serial, unit)
        if self._happens("double_scan", unit):
            await self._pause(0.2)
            self._scan(unit.serial, unit)

    def _build_in(self, unit: Unit) -> None:
        """The operator puts a board in and scans it, if the unit is still there."""
        if self.unit is not unit:
            return
        board = unit.serial.replace("SN", "PCB")
        self._truth.note("install", **self._where, serial=unit.serial, child=board)
        self._scan(board, unit)

    async def _let_in(self, gate: PlcGate) -> bool:
        """Ask at the gate, until the unit may be worked on or has to leave."""
        while True:
            asking = self._present()
            self._truth.note("ask", **self._where, serial=asking.serial, request=gate.number + 1)
            code = await gate.ask()
            unit = self._present()
            told = {"serial": unit.serial, "request": gate.number}
            if not code:
                self._truth.note("permit", **self._where, **told)
                return True
            self._truth.note("block", **self._where, **told, code=code)
            if code in ON_HOLD | STEP_BEFORE:
                self._scan(CANCEL, unit)
                await self._pause(0.2)
                unit = self._present()
                self._leave(unit)
                self._turned_away(unit, code)
                return False
            await self._pause(ASK_AGAIN_S)
            self._scan(self._present().serial, self._present())

    def _happens(self, quirk: str, unit: Unit) -> bool:
        name = f"{self.wiring.station}:{quirk}"
        if name not in unit.quirks:
            return False
        unit.quirks.remove(name)
        self._truth.note("quirk", **self._where, serial=unit.serial, quirk=quirk)
        return True

    def _scan(self, text: str, unit: Unit) -> None:
        heard = self._scanner.emit(text)
        self._truth.note("scan", **self._where, device=self.wiring.scanner, serial=unit.serial, text=text, heard=heard)

    async def _hand_over(self, unit: Unit) -> bool:
        """Show the result until it is taken; whether the work was good."""
        wiring, image = self.wiring, self._image
        if wiring.ack is not None:
            await image.until(wiring.ack, False)  # an acknowledge still standing would be taken for this result's
        self._number += 1
        passed = self._write_result(unit)
        image.coils[wiring.done] = True
        if wiring.ack is None:
            return passed
        taken = await image.until(wiring.ack, True, self._give_up_s)
        image.coils[wiring.done] = False
        self._truth.note("ack" if taken else "not_taken", **self._where, number=self._number, serial=unit.serial)
        if not taken:
            await asyncio.sleep(LOW_S)
        return passed

    def _write_result(self, unit: Unit) -> bool:
        """The result block in one step, and the same in the truth; whether the work was good."""
        wiring, number = self.wiring, self._number
        failed, incomplete = self._happens("fail", unit), self._happens("incomplete", unit)
        offset = number % _VALUES / 1024
        (first, first_base), (second, second_base) = wiring.values
        values = {first: first_base + offset + (10 if failed else 0), second: second_base + offset}
        if incomplete:
            del values[second]
        counter = (wiring.counter_start + number) % 65536
        self._image.holding[wiring.result] = counter
        self._image.put_float(wiring.result + 1, values[first])
        self._image.put_float(wiring.result + 3, values.get(second, math.nan))
        self._image.holding[wiring.result + 5] = int(not failed)
        self._truth.note(
            "work", **self._where, serial=unit.serial, number=number, counter=counter, values=values, ok=not failed,
            handshake=wiring.ack is not None,
        )  # fmt: skip
        return not failed

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pace)
