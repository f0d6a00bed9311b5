"""A writer that tells the truth: the agent's own buffer and routes, fed with records whose meaning is known outside.

    python -m fault.writer CONFIG.json        (PYTHONPATH=tests; ``EDGE_AGENT_KILL_AT`` works as in the agent)

It makes one unit after another: identifier, cycle, binding, ``SAMPLES`` samples, end of cycle. Each sample's value is
a number that is never used again, and the number alone says whose it is (:func:`fault.tally.serial_of`), so that
whoever holds nothing but the receiver's database can tell a lost, a doubled and a wrongly bound reading.

What ``committed()`` promised is written to the truth file, one line an append, after the promise and before anything
else: ``log first_seq last_seq number_of_the_first_sample`` (-1: not a sample). Nothing else counts as accepted.

Config: ``data_dir, truth, run`` (which start this is: numbers go on above), ``routes`` {name: settings}, ``buffer``
settings (their limits are not checked), ``rate`` (units a second; 0: as fast as it goes), ``batch`` (units a commit),
``units`` (then it only delivers, as after SIGUSR1), ``same_instant`` (all samples of a unit are of one nanosecond).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from edge_agent import clock
from edge_agent.buffer import Buffer, BufferSettings, open_buffer
from edge_agent.model import Kind, Record
from edge_agent.routes import AgentIdentity, Route
from edge_agent.routes.settings import MqttRouteSettings
from fault.tally import SAMPLES, serial_of
from support.buffer_rig import PRESS, closing, opening, preamble

NUMBERS_A_RUN = 10_000_000
AGENT = "pc1"
SEND = ["scan", "sample", "cycle_opened", "cycle_closed", "binding", "identifier", "finding", "audit", "clock_offset"]


class Writer:
    """Produces into ``buffer`` and keeps the truth."""

    def __init__(self, buffer: Buffer, config: dict[str, Any]) -> None:
        self._buffer = buffer
        self._config = config
        self._truth = os.open(config["truth"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    async def produce(self) -> None:
        """Until the last unit, or for ever."""
        config = self._config
        await self._promise([self._append(preamble())])
        number, batch = config["run"] * NUMBERS_A_RUN, config.get("batch", 1)
        units = config.get("units") or 2**60
        for start in range(0, units, batch):
            await self._buffer.room()
            said: list[tuple[int, int, int]] = []
            for _ in range(min(batch, units - start)):
                said += self._unit(number)
                number += SAMPLES
            await self._promise(said)
            if config.get("rate"):
                await asyncio.sleep(batch / config["rate"])

    def _unit(self, number: int) -> list[tuple[int, int, int]]:
        buffer = self._buffer
        serial = serial_of(number)
        records, cycle, unit = opening(buffer, serial)
        said = [self._append(records)]
        now = clock.now()
        samples = [
            Record(
                Kind.SAMPLE, PRESS.source, now if self._config.get("same_instant") else clock.now(),
                {"tagset": PRESS.id, "took_us": 812, "values": [number + place, True, 215]}, (cycle,),
            )
            for place in range(SAMPLES)
        ]  # fmt: skip
        said.append(self._append(samples, number))
        first, last, _ = said[-1]
        bound = {"state": "bound", "unit": unit, "serial": serial}
        said.append(self._append([closing(cycle, {PRESS.source: [[first, last]]}, binding=bound)]))
        return said

    def _append(self, records: list[Record], number: int = -1) -> tuple[int, int, int]:
        last = self._buffer.append(records)
        return last - len(records) + 1, last, number

    async def _promise(self, said: list[tuple[int, int, int]]) -> None:
        await self._buffer.committed(said[-1][1])
        os.write(self._truth, "".join(f"{self._buffer.log} {a} {b} {number}\n" for a, b, number in said).encode())


async def work(config: dict[str, Any]) -> None:
    """Open, produce and deliver until SIGTERM, then stop as the agent does."""
    clock.synchronised = lambda: True  # retention by age is to run on machines without a time server, too
    settings = BufferSettings(min_free="1MB", ballast="1MiB").model_copy(update=config.get("buffer", {}))
    identity = AgentIdentity(AGENT, "acme", "sz", "as", "L3", "0.1.0")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    buffer = open_buffer(Path(config["data_dir"]), AGENT, settings)
    try:
        routes = [Route(name, _settings(given), identity, buffer) for name, given in config["routes"].items()]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(buffer.maintain()), *(tasks.create_task(route.run()) for route in routes)]
            producing = tasks.create_task(Writer(buffer, config).produce())
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, producing.cancel)
            await stop.wait()
            producing.cancel()
            await asyncio.gather(*(route.drain(5.0) for route in routes))
            for task in running:
                task.cancel()
    finally:
        await buffer.close()


def _settings(given: dict[str, Any]) -> MqttRouteSettings:
    quick = {"sink": "mqtt", "start": "oldest", "send": SEND, "confirm_timeout": "2s", "ack_timeout": "2s"}
    return MqttRouteSettings.model_validate(quick | {"keepalive": "5s"} | given)


if __name__ == "__main__":
    from edge_agent import logs

    logs.configure("debug")
    asyncio.run(work(json.loads(Path(sys.argv[1]).read_text())))
