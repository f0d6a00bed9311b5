"""The gate with a real agent, a real Modbus server behind a line that we hear, and a scanner; no broker is there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from pymodbus.client import AsyncModbusTcpClient

from edge_agent.binding.gate import CODES
from edge_agent.buffer import open_readonly
from edge_agent.control import AgentNotRunning, ask
from edge_agent.model import Kind
from support.modbus_plc import Line, ModbusPlc
from support.mosquitto import free_port
from support.pty_reader import PtyReader

REQUEST, ANSWER, VERDICT, REASON, BEAT = 100, 101, 102, 103, 104
CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {folder}/data}}
buffer: {{min_free: 10MiB, ballast: 1MiB}}
devices:
  press:
    driver: modbus
    connection: "tcp://127.0.0.1:{port}"
    groups: {{gate: {{poll: 20ms, tags: {{request: {{address: "holding:100", type: uint16}}}}}}}}
    tags:
      answer: {{address: "holding:101", type: uint16, write: true}}
      verdict: {{address: "holding:102", type: uint16, write: true}}
      reason: {{address: "holding:103", type: uint16, write: true}}
      beat: {{address: "holding:104", type: uint16, write: true}}
  before: {{driver: scanner, port: {folder}/before, frame: {{end: "\\r\\n"}}}}
  entry: {{driver: scanner, port: {folder}/entry, frame: {{end: "\\r\\n"}}}}
stations:
  OP10:
    step: load
    identity: {{when: before, scan: before, pattern: '^(?P<serial>SN\\d+)$'}}
  OP20:
    step: press
    identity: {{when: before, scan: entry, pattern: '^(?P<serial>SN\\d+)$', bounce: 10ms}}
    gate:
      previous: [load]
      exchange:
        {{request: press.request, answer: press.answer, verdict: press.verdict, reason: press.reason,
         heartbeat: press.beat, every: 250ms, wait: 1s}}
routes:
  mes: {{sink: mqtt, url: "mqtt://127.0.0.1:{broker}", start: oldest, send: [gate, finding]}}
"""


class Heard(Line):
    """A line that notes what the agent writes, and can hold back the answer to a write for ever."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.writes: list[tuple[int, int]] = []  # (address, value), as the server did them
        self.holds_back = False

    async def _answer(self, request: bytes, reply: bytes, writer: asyncio.StreamWriter) -> None:
        if request[7] in (6, 16):
            self.writes.append((int.from_bytes(request[8:10], "big"), int.from_bytes(request[-2:], "big")))
            if self.holds_back:
                await asyncio.Event().wait()
        await super()._answer(request, reply, writer)

    def told(self) -> list[tuple[int, int]]:
        """Writes since the last call, without the heartbeat."""
        found, self.writes = [one for one in self.writes if one[0] != BEAT], []
        return found


class Cell:
    """Everything around one agent."""

    def __init__(self, folder: Path, line: Heard, plc: AsyncModbusTcpClient) -> None:
        self.folder, self.line, self.plc = folder, line, plc
        self.before, self.entry = PtyReader(folder / "before"), PtyReader(folder / "entry")
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG.format(folder=folder, port=line.port, broker=free_port()))
        self.agent: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        argv = [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)]
        with (self.folder / "log").open("a") as log:
            self.agent = subprocess.Popen(argv, stderr=log)  # noqa: ASYNC220  it returns at once

        def connected() -> bool:
            try:
                status = ask(self.folder / "data", "status")
            except AgentNotRunning:
                return False
            return all(one["state"] == "connected" for one in status["devices"].values())

        await self.until(connected)

    async def end(self, *, kill: bool = False) -> None:
        if self.agent is not None:
            self.agent.kill() if kill else self.agent.terminate()
            await asyncio.to_thread(self.agent.wait, 20)
            self.agent = None

    async def until(self, condition: Callable[[], Any], timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110  it is another process that changes
                await asyncio.sleep(0.01)

    async def get(self, address: int) -> int:
        return int((await self.plc.read_holding_registers(address, count=1)).registers[0])

    async def put(self, address: int, value: int) -> None:
        assert not (await self.plc.write_register(address, value)).isError()

    async def answered(self, number: int) -> tuple[int, int]:
        """(verdict, reason), once the PLC finds its own number in the answer."""
        async with asyncio.timeout(10):
            while await self.get(ANSWER) != number:  # noqa: ASYNC110  as a PLC does
                await asyncio.sleep(0.005)
        return await self.get(VERDICT), await self.get(REASON)

    def records(self, kind: Kind) -> list[dict[str, Any]]:
        with closing(open_readonly(self.folder / "data")) as archive:
            return [orjson.loads(body) for _, body in reversed(archive.newest(int(kind), 100))]


@asynccontextmanager
async def cell(folder: Path) -> AsyncIterator[Cell]:
    with ModbusPlc() as server:
        line = Heard(server.port)
        await line.start()
        plc = AsyncModbusTcpClient("127.0.0.1", port=server.port)
        await plc.connect()
        one = Cell(folder, line, plc)
        try:
            for address in (REQUEST, ANSWER, VERDICT, REASON):
                await one.put(address, 0)
            await one.start()
            yield one
        finally:
            await one.end()
            plc.close()
            await line.stop()
            one.before.unplug()
            one.entry.unplug()


@pytest.mark.long
def test_the_answer_comes_last_and_is_only_for_its_own_number(tmp_path: Path) -> None:
    async def run() -> None:
        async with cell(tmp_path) as one:
            assert one.line.told() == [(ANSWER, 0)]
            beat = await one.get(BEAT)
            one.before.send(b"SN1\r\n")
            await one.put(REQUEST, 7)
            await asyncio.sleep(0.2)
            assert await one.get(ANSWER) == 0, "nobody was identified yet"
            one.entry.send(b"SN1\r\n")
            assert await one.answered(7) == (1, 0)
            assert one.line.told() == [(VERDICT, 1), (REASON, 0), (ANSWER, 7)]
            await one.put(REQUEST, 0)
            await one.until(lambda: one.line.writes and one.line.told() == [(ANSWER, 0)])

            one.entry.send(b"SN2\r\n")  # which no station has seen before
            await one.put(REQUEST, 8)
            assert await one.answered(8) == (0, CODES["unknown_unit"])
            argv = [sys.executable, "-m", "edge_agent", "--config", str(one.config), "gate", "override", "SN2"]
            argv += ["--station", "OP20", "--reason", "sample of the laboratory"]
            done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            await one.put(REQUEST, 9)
            one.entry.send(b"SN2\r\n")
            assert await one.answered(9) == (1, 0)
            assert await one.get(BEAT) != beat
            gates = one.records(Kind.GATE)
            assert [(g["request"], g["verdict"], g["basis"]) for g in gates] == [
                (7, "permit", "live"), (8, "block", "live"), (9, "permit", "override"),
            ]  # fmt: skip
            assert "sample of the laboratory" in str(one.records(Kind.AUDIT))
            await one.end()
            assert await one.get(ANSWER) == 0, "an agent that stops takes its answer back"

    asyncio.run(run())


def test_an_agent_that_dies_between_commit_and_answer_leaves_no_permit(tmp_path: Path) -> None:
    async def run() -> None:
        async with cell(tmp_path) as one:
            one.before.send(b"SN1\r\n")
            one.entry.send(b"SN1\r\n")
            await one.until(lambda: one.records(Kind.CYCLE_OPENED)[1:])
            await one.put(BEAT, 0)
            one.line.told()
            one.line.holds_back = True  # the first write is done, and the agent never hears of it
            await one.put(REQUEST, 7)
            await one.until(lambda: one.records(Kind.GATE))
            assert one.records(Kind.GATE)[0]["verdict"] == "permit"
            await one.until(lambda: one.line.writes)
            await one.end(kill=True)
            assert await one.get(ANSWER) != 7
            one.line.holds_back = False
            one.line.writes.clear()
            await one.start()
            assert await one.answered(7) == (0, CODES["not_identified"]), "who is there now is not known"
            assert one.line.told() == [
                (ANSWER, 0), (ANSWER, 0), (VERDICT, 0), (REASON, CODES["not_identified"]), (ANSWER, 7),
            ]  # fmt: skip

    asyncio.run(run())
