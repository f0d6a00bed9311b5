"""The simulated line: one process with a Modbus PLC, six barcode readers, four stations and the truth.

    python -m edge_agent.demo.line --dir DIR --port PORT --seed N

==========  =====================================================  =============================================
``OP10``    laser marker, scan in                                  a ``done`` bit ends the cycle; no handshake
``OP20``    press, one position; what failed comes once more       handshake; counter wraps after five cycles
``OP30``    screwing, two nests with a reader each; a board is     a handshake per nest
            built in; screws by the lot, with a reader of their own
``OP40``    packing; the unit is scanned after the work            handshake
==========  =====================================================  =============================================

Each station is a Modbus unit id of its own on the one server; the readers are ``DIR/scan-op10`` and so on; the truth is
``DIR/truth.jsonl``. With ``--gate`` the press asks the agent before it works on a unit: what is on hold is set aside,
what has not passed OP10 goes back there.

Commands come as JSON lines on stdin, each answered by one JSON line on stdout:

- ``{"do": "feed", "on": true}``: units begin to come; false: no new ones;
- ``{"do": "swap", "station": "OP20", "position": 1, "scan": true}``, without a station everywhere;
- ``{"do": "kill", "pid": 123, "at": "ack"}``: SIGKILL that process at the moment when it next acknowledges a result,
  or reads one (``"result"``); the worst moments for an agent, which only the PLC knows;
- ``{"do": "load", "lot": "LOT-0002"}``: screws of another lot are loaded at OP30;
- ``{"do": "return", "serial": "SN00000007"}``: a unit that was set aside comes to the gate again;
- ``{"do": "stop"}``: no new units; answered when the last one has left.

The end of stdin ends the process: it never outlives its parent.
What goes wrong with which unit follows from ``--seed``; when it happens does not, since it depends on the agent's pace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_agent.demo.cells import Cell, Intake, Unit, Wiring
from edge_agent.demo.gate import ON_HOLD, GateRegisters, PlcGate
from edge_agent.demo.plc import Image, start_plc
from edge_agent.demo.scanners import PtyScanner
from edge_agent.demo.truth import Truth

UNIT_IDS = {"marker": 1, "press": 2, "screw": 3, "pack": 4}
WIRINGS = (
    Wiring("OP10", 1, "marker", "scan-op10", 0, None, 100, (("power", 5.0), ("depth", 1.0)), 0.6, 0),
    Wiring(
        "OP20", 1, "press", "scan-op20", 10, 20, 100, (("force", 12.0), ("travel", 40.0)), 0.5, 65530, reworks=True
    ),
    Wiring(
        "OP30", 1, "screw", "scan-op30-1", 10, 20, 100, (("nest1_torque", 8.0), ("nest1_angle", 90.0)), 1.2, 100,
        board=True,
    ),
    Wiring(
        "OP30", 2, "screw", "scan-op30-2", 11, 21, 200, (("nest2_torque", 8.0), ("nest2_angle", 90.0)), 1.2, 200,
        board=True,
    ),
    Wiring("OP40", 1, "pack", "scan-op40", 10, 20, 100, (("weight", 250.0), ("seal", 140.0)), 0.4, 700, late=True),
)  # fmt: skip
GATE = ("OP20", GateRegisters(request=4, answer=10, verdict=11, reason=12))
LOT_SCANNER = "scan-lot"
FIRST_LOT = "LOT-0001"
QUIRKS = (
    "OP10:double_scan", "OP10:no_read", "OP10:no_scan", "OP20:no_scan", "OP20:fail", "OP20:incomplete",
    "OP30:double_scan", "OP30:no_scan", "OP30:fail", "OP30:incomplete", "OP40:no_scan",
)  # fmt: skip
SHOWN_FIRST = {1: "OP30:incomplete", 2: "OP20:fail", 4: "OP20:no_scan", 6: "OP10:double_scan", 9: "OP10:no_read"}
TEMPERATURE_ADDRESS = 2  # input registers 2, 3: one a position, tenths of a degree
WORK_ORDER_ADDRESS = 4  # input registers 4-7 of the marker: eight characters
UNITS_OF_AN_ORDER = 8


class Line:
    """The stations, and the units between them."""

    def __init__(
        self, directory: Path, *, seed: int, pace: float, quirks: float, give_up_s: float | None, gate: bool = False
    ) -> None:
        self.truth = Truth(directory / "truth.jsonl")
        self._random = random.Random(seed)
        self._pace, self._quirks = pace, quirks
        self._units = 0
        self._under_way = 0
        self._feeding = asyncio.Event()
        self._empty = asyncio.Event()
        self._victim: tuple[int, str] | None = None  # (pid, when)
        self.images = {device: Image(self._noting_replies(device), self._touched) for device in UNIT_IDS}
        names = [LOT_SCANNER, *(wiring.scanner for wiring in WIRINGS)]
        self.scanners = {name: PtyScanner(directory / name) for name in names}
        self._intakes = {station: Intake() for station in ("OP10", "OP20", "OP30", "OP40")}
        self._aside: dict[str, Unit] = {}  # on hold, by serial
        onward: dict[str, Callable[[Unit], Awaitable[None]]] = {
            "OP10": self._intakes["OP20"].put, "OP20": self._intakes["OP30"].put, "OP30": self._intakes["OP40"].put,
            "OP40": self._ship,
        }  # fmt: skip
        gates = {GATE[0]: PlcGate(self.images["press"], GATE[1])} if gate else {}
        self.cells = [
            Cell(
                wiring, self.images[wiring.device], self.scanners[wiring.scanner], self.truth,
                intake=self._intakes[wiring.station], onward=onward[wiring.station], turned_away=self._turned_away,
                gate=gates.get(wiring.station), pace=pace, give_up_s=give_up_s,
            )
            for wiring in WIRINGS
        ]  # fmt: skip

    async def run(self) -> None:
        """Work on what is fed, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for cell in self.cells:
                group.create_task(cell.run(), name=f"{cell.wiring.station}.{cell.wiring.position}")
            group.create_task(self._feed(), name="feed")
            group.create_task(self._warm(), name="temperatures")

    def feed(self) -> None:
        """Units begin to come; screws are there."""
        self.load(FIRST_LOT)
        self._feeding.set()

    def load(self, lot: str) -> None:
        """Screws of another lot from now on; their label is scanned."""
        heard = self.scanners[LOT_SCANNER].emit(lot)
        self.truth.note("load", lot=lot)
        self.truth.note("scan", station="OP30", position=1, device=LOT_SCANNER, serial="", text=lot, heard=heard)

    def give_back(self, serial: str) -> bool:
        """A unit that was set aside comes to its station again. False if it was not."""
        unit = self._aside.pop(serial, None)
        if unit is not None:
            self._intakes[GATE[0]].give_back(unit)
        return unit is not None

    def _turned_away(self, unit: Unit, code: int) -> None:
        """The gate did not let it in: what is on hold waits aside, the rest lacks the step before."""
        if code in ON_HOLD:
            self._aside[unit.serial] = unit
            self.truth.note("aside", station=GATE[0], position=1, serial=unit.serial)
        else:
            self._intakes["OP10"].give_back(unit)

    def hold_back(self) -> None:
        """No new units."""
        self._feeding.clear()

    async def stop(self) -> None:
        """No new units; returns when the last one has left."""
        self.hold_back()
        if self._under_way:
            await self._empty.wait()
        self.truth.note("stop")

    def swap(self, station: str | None, position: int | None, *, scan: bool) -> int:
        """Swap the units at the named position, or at all; how many were."""
        swapped = 0
        for cell in self.cells:
            wanted = station in (None, cell.wiring.station) and position in (None, cell.wiring.position)
            if wanted and cell.unit is not None:
                swapped += cell.swap(self.make(), scan=scan)
        return swapped

    def kill(self, pid: int | None, at: str) -> None:
        """SIGKILL a process when it next touches the PLC in this way; None: spare it."""
        self._victim = None if pid is None else (pid, at)

    def _touched(self, what: str) -> None:
        if self._victim is not None and self._victim[1] == what:
            os.kill(self._victim[0], signal.SIGKILL)
            self._victim = None

    def make(self) -> Unit:
        """The next unit, with what will go wrong with it."""
        self._units += 1
        self._under_way += 1
        order = f"WO-{7740 + self._units // UNITS_OF_AN_ORDER:05d}"
        self.images["marker"].put_text(WORK_ORDER_ADDRESS, order)
        unit = Unit(f"SN{self._units:08d}")
        if self._units in SHOWN_FIRST:
            unit.quirks.add(SHOWN_FIRST[self._units])
        elif self._random.random() < self._quirks:
            unit.quirks.add(self._random.choice(QUIRKS))
        return unit

    async def _feed(self) -> None:
        await self._feeding.wait()
        while self._feeding.is_set():
            await self._intakes["OP10"].put(self.make())
            await asyncio.sleep(self._pace * self._random.uniform(1.15, 1.4))

    async def _ship(self, unit: Unit) -> None:
        self._under_way -= 1
        if not self._under_way and not self._feeding.is_set():
            self._empty.set()

    async def _warm(self) -> None:
        """Temperatures that wander, so that the polled group has something to say."""
        while True:
            for image in self.images.values():
                for address in (TEMPERATURE_ADDRESS, TEMPERATURE_ADDRESS + 1):
                    image.inputs[address] = 215 + self._random.randrange(0, 40)
            await asyncio.sleep(0.2)

    def _noting_replies(self, device: str) -> Callable[[int], None]:
        def note(number: int) -> None:
            held = {
                f"{cell.wiring.station}.{cell.wiring.position}": cell.unit.serial if cell.unit else None
                for cell in self.cells
            }
            self.truth.note("reply", device=device, number=number, held=held)

        return note


async def _obey(line: Line, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "feed":
        if command["on"]:
            line.feed()
        else:
            line.hold_back()
        return {"did": "feed"}
    if command["do"] == "swap":
        count = line.swap(command.get("station"), command.get("position"), scan=command.get("scan", False))
        return {"did": "swap", "count": count}
    if command["do"] == "kill":
        line.kill(command["pid"], command["at"])
        return {"did": "kill"}
    if command["do"] == "load":
        line.load(command["lot"])
        return {"did": "load"}
    if command["do"] == "return":
        return {"did": "return", "count": int(line.give_back(command["serial"]))}
    if command["do"] == "stop":
        await line.stop()
        return {"did": "stop"}
    return {"error": f"no command {command['do']!r}"}


async def _listen(line: Line) -> None:
    """Obey commands until stdin ends."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    _answer({"did": "start"})
    while text := await commands.readline():
        _answer(await _obey(line, json.loads(text)))


async def _serve(line: Line, port: int) -> None:
    """Run the line until stdin ends, or something in it breaks."""
    server = await start_plc(port, {UNIT_IDS[device]: image for device, image in line.images.items()})
    tasks = {asyncio.create_task(line.run(), name="line"), asyncio.create_task(_listen(line), name="commands")}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.shutdown()  # type: ignore[no-untyped-call]
        for scanner in line.scanners.values():
            scanner.close()
        line.truth.close()


def _answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The process's entry point."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.demo.line")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=1.0, help="factor on the work times; smaller is faster")
    parser.add_argument("--quirks", type=float, default=0.1, help="share of units with which something goes wrong")
    parser.add_argument("--give-up", type=float, default=None, help="seconds that the PLC waits for an acknowledge")
    parser.add_argument("--gate", action="store_true", help="the press asks the agent before it works on a unit")
    options = parser.parse_args()

    async def run() -> None:
        line = Line(
            options.dir, seed=options.seed, pace=options.pace, quirks=options.quirks, give_up_s=options.give_up,
            gate=options.gate,
        )  # fmt: skip
        await _serve(line, options.port)

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
