"""The simulated line by itself: its PLC's side of the handshake, its readers, its truth. The test plays the agent."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import serial
from pymodbus.client import AsyncModbusTcpClient

from edge_agent.demo.line import Line
from edge_agent.demo.processes import LineProcess, free_port
from edge_agent.demo.truth import TruthReader

PRESS = 2
READY, ACK, RESULT = 10, 20, 100
REQUEST, ANSWER, VERDICT, REASON = 4, 10, 11, 12


class Bench:
    """A running line, fast, with a Modbus client on it."""

    def __init__(self, line: LineProcess, client: AsyncModbusTcpClient, reader: TruthReader) -> None:
        self.line, self.client = line, client
        self._reader = reader
        self.events: list[dict[str, Any]] = []

    async def seen(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 10) -> dict[str, Any]:
        """The first event that fits, waiting for it."""
        async with asyncio.timeout(timeout_s):
            while True:
                self.events += self._reader.new()
                for event in self.events:
                    if wanted(event):
                        return event
                await asyncio.sleep(0.01)

    async def coil(self, address: int) -> bool:
        answer = await self.client.read_coils(address, count=1, device_id=PRESS)
        return bool(answer.bits[0])

    async def level(self, address: int, level: bool) -> None:
        async with asyncio.timeout(10):
            while await self.coil(address) is not level:
                pass

    async def request(self, after: int) -> int:
        """The number with which the press asks at its gate, once it is another one."""
        async with asyncio.timeout(10):
            while True:
                answer = await self.client.read_input_registers(REQUEST, count=1, device_id=PRESS)
                if answer.registers[0] not in (0, after):
                    return int(answer.registers[0])

    async def answer(self, number: int, verdict: int, reason: int) -> None:
        """Answer as the agent does: the number last."""
        for address, value in ((VERDICT, verdict), (REASON, reason), (ANSWER, number)):
            await self.client.write_register(address, value, device_id=PRESS)


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[Bench]:
    port = free_port()
    line = LineProcess(directory, port=port, seed=7, pace=0.2, **options)
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0)
    try:
        await line.begin()
        await line.feed()
        assert await client.connect()
        yield Bench(line, client, TruthReader(line.truth))
    finally:
        client.close()
        await line.end()


def run(directory: Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with running(directory, **options) as bench:
            await story(bench)

    asyncio.run(main())


def at_op20(kind: str, number: int | None = None) -> Callable[[dict[str, Any]], bool]:
    return lambda event: (
        event["event"] == kind and event.get("station") == "OP20" and number in (None, event.get("number"))
    )


def test_the_plc_holds_its_result_until_it_is_acknowledged_and_the_acknowledge_is_gone(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        work = await bench.seen(at_op20("work", 1))
        await bench.level(READY, True)
        registers = (await bench.client.read_holding_registers(RESULT, count=6, device_id=PRESS)).registers
        assert registers[0] == work["counter"] == 65531
        assert struct.unpack(">f", struct.pack(">HH", *registers[1:3]))[0] == work["values"]["force"]
        assert registers[5] == work["ok"]
        await bench.client.write_coil(ACK, True, device_id=PRESS)
        await bench.level(READY, False)
        await bench.seen(at_op20("ack", 1))
        await asyncio.sleep(1.0)  # the next unit is in the press by now
        assert not await bench.coil(READY), "raised beside an acknowledge that still stands"
        await bench.client.write_coil(ACK, False, device_id=PRESS)
        await bench.level(READY, True)
        await bench.seen(at_op20("work", 2))

    run(tmp_path, story)


def test_a_result_that_nobody_takes_is_given_up(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.seen(at_op20("not_taken", 1))
        assert not await bench.coil(READY)
        await bench.seen(at_op20("work", 2))
        assert not any(event["event"] == "ack" for event in bench.events)

    run(tmp_path, story, give_up_s=0.3)


def test_the_press_works_on_nothing_before_its_own_number_is_permitted(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        number = await bench.request(0)
        await bench.answer(number + 7, 1, 0)  # a permit that was meant for another
        await asyncio.sleep(0.5)
        bench.events += bench._reader.new()
        assert not any(event["event"] in ("permit", "work") and event["station"] == "OP20" for event in bench.events
                       if "station" in event)  # fmt: skip
        await bench.answer(number, 1, 0)
        permit = await bench.seen(at_op20("permit"))
        work = await bench.seen(at_op20("work", 1))
        assert work["serial"] == permit["serial"] == "SN00000001"

    run(tmp_path, story, give_up_s=0.1, gate=True)


def test_what_is_on_hold_is_set_aside_until_it_is_called_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        number = await bench.request(0)
        await bench.answer(number, 0, 20)
        aside = await bench.seen(at_op20("aside"))
        cancel = await bench.seen(lambda event: event.get("text") == "%CANCEL")
        left = await bench.seen(at_op20("leave"))
        assert aside["serial"] == cancel["serial"] == left["serial"] == "SN00000001"
        assert cancel["at_ns"] < left["at_ns"]
        second = await bench.request(number)
        assert (await bench.seen(lambda event: at_op20("ask")(event) and event["request"] == second))["serial"] != (
            "SN00000001"
        )
        assert not await bench.line.give_back("SN00000099")
        assert await bench.line.give_back("SN00000001")
        await bench.answer(second, 1, 0)
        third = await bench.request(second)
        ask = await bench.seen(lambda event: at_op20("ask")(event) and event["request"] == third)
        assert ask["serial"] == "SN00000001"

    run(tmp_path, story, give_up_s=0.1, gate=True)


@pytest.mark.parametrize(("code", "station"), [(1, "OP20"), (10, "OP10")])
def test_what_is_not_known_is_scanned_again_and_what_was_not_marked_goes_back(
    tmp_path: Path, code: int, station: str
) -> None:
    async def story(bench: Bench) -> None:
        number = await bench.request(0)
        await bench.answer(number, 0, code)
        block = await bench.seen(at_op20("block"))
        await bench.seen(
            lambda event: (
                event["event"] == "scan"
                and (event["station"], event["text"]) == (station, block["serial"])
                and event["at_ns"] > block["at_ns"]
            )
        )
        assert await bench.request(number) != number

    run(tmp_path, story, give_up_s=0.1, gate=True)


@pytest.mark.long
def test_a_unit_on_its_way_is_reworked_gets_its_board_and_is_scanned_after_packing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        rework = await bench.seen(at_op20("rework"))
        serial = rework["serial"]

        def of_it(kind: str, station: str) -> Callable[[dict[str, Any]], bool]:
            return lambda event: (
                event["event"] == kind
                and (event["station"], event["serial"]) == (station, serial)
                and event["at_ns"] > rework["at_ns"]
            )

        again = await bench.seen(of_it("work", "OP20"))
        install = await bench.seen(of_it("install", "OP30"))
        assert again["ok"] and again["at_ns"] < install["at_ns"]
        assert install["child"] == serial.replace("SN", "PCB")
        scan = await bench.seen(of_it("scan", "OP40"))
        packed = await bench.seen(of_it("work", "OP40"))
        assert packed["at_ns"] < scan["at_ns"] and scan["text"] == serial
        await bench.line.load("LOT-0002")
        await bench.seen(lambda event: event["event"] == "scan" and event["text"] == "LOT-0002")
        assert [event["lot"] for event in bench.events if event["event"] == "load"] == ["LOT-0001", "LOT-0002"]

    run(tmp_path, story, give_up_s=0.1)


def test_replies_are_numbered_and_say_which_unit_was_there(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        entered = await bench.seen(at_op20("enter"))
        for number in (1, 2, 3):
            high, low, temperature = (await bench.client.read_input_registers(0, count=3, device_id=PRESS)).registers
            assert (high << 16 | low) == number
            assert 200 < temperature < 300
        await bench.client.read_input_registers(2, count=1, device_id=PRESS)  # does not touch the number
        reply = await bench.seen(lambda event: event["event"] == "reply" and event["number"] == 3)
        assert reply["device"] == "press"
        assert reply["held"]["OP20.1"] == entered["serial"]

    run(tmp_path, story)


def test_a_scan_is_heard_only_while_a_process_has_the_port_open(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        first = await bench.seen(lambda event: event["event"] == "scan" and event["device"] == "scan-op10")
        assert not first["heard"]
        with serial.Serial(str(tmp_path / "scan-op10"), 115200, timeout=5) as port:
            text = await asyncio.to_thread(port.readline)
        heard = await bench.seen(lambda event: event["event"] == "scan" and event["heard"])
        assert text == f"{heard['text']}\r\n".encode()

    run(tmp_path, story)


def test_a_swap_puts_another_unit_in_and_the_first_comes_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        first = (await bench.seen(at_op20("enter")))["serial"]
        assert await bench.line.swap("OP20", 1) == 1
        swap = await bench.seen(at_op20("swap"))
        assert swap["out"] == first
        work = await bench.seen(at_op20("work", 1))
        assert work["serial"] == swap["serial"] != first
        again = await bench.seen(
            lambda event: at_op20("enter")(event) and event["serial"] == first and event["at_ns"] > swap["at_ns"]
        )
        assert again["at_ns"] > work["at_ns"]
        await bench.seen(lambda event: at_op20("scan")(event) and event["at_ns"] > again["at_ns"])

    run(tmp_path, story, give_up_s=0.2)


@pytest.mark.long
def test_a_stopped_line_runs_empty_and_ends_with_its_parent_s_pipe(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.seen(at_op20("enter"))
        await bench.line.stop(30)
        await bench.seen(lambda event: event["event"] == "stop")
        entered = {event["serial"] for event in bench.events if event["event"] == "enter"}
        left = {event["serial"] for event in bench.events if event["event"] == "leave" and event["station"] == "OP40"}
        assert entered == left
        assert bench.line._process is not None and bench.line._process.stdin is not None
        bench.line._process.stdin.close()
        assert await bench.line.wait(5) == 0
        assert not (tmp_path / "scan-op10").exists()

    run(tmp_path, story, give_up_s=0.1)


def test_the_same_seed_makes_the_same_units_fail(tmp_path: Path) -> None:
    async def quirks(name: str, seed: int) -> list[set[str]]:
        (tmp_path / name).mkdir()
        line = Line(tmp_path / name, seed=seed, pace=1.0, quirks=0.5, give_up_s=None)
        return [line.make().quirks for _ in range(60)]

    first, again, other = (asyncio.run(quirks(name, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again != other
    assert len({quirk for unit in first for quirk in unit}) > 5
