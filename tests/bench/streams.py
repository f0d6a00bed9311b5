"""Serial devices at full line rate: is a byte lost, and what does it cost?

::

    python tests/bench/streams.py [--ports 20] [--baud 115200] [--seconds 20]

This process is the devices: it writes codes to pseudo terminals at the line's rate and never waits, as a UART does not:
what the kernel's buffer (4 KiB, a third of a second at 115200 baud) does not take is lost, and counted here. Another
process reads them all, with the scanner driver alone on one event loop, or as a whole agent that commits every code and
publishes it. What it read, or what came to the broker, is compared here, as SHA-256 of all codes of each port, with
what was written, and its CPU time is what the kernel says of it. Without that process's help.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import pty
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from configs import head, route, scanner
from peers import broker, look, subscriber
from rig import AGENT_CORE, Process, agent, wait_for

CODE = b"P%02d-%08d-ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"
STEP_S = 0.005


class Device:
    """One pseudo terminal that speaks at a rate."""

    def __init__(self, number: int, rate: float) -> None:
        self.number = number
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.path = os.ttyname(slave)
        self.slave = slave  # kept open, so that the terminal is not hung up before and after the reader
        self.rate = rate  # bytes a second
        self.codes = self.bytes = self.lost = 0
        self.hash = hashlib.sha256()
        self._rest = b""

    def speak(self, until_s: float) -> None:
        """Write what the line has carried up to now; what is not taken is lost."""
        owed = int(until_s * self.rate) - self.bytes - self.lost
        while owed > len(self._rest):
            self._rest += CODE % (self.number, self.codes)
            self.hash.update(CODE[:-2] % (self.number, self.codes))
            self.codes += 1
        if owed > 0:
            self._write(owed)

    def finish(self) -> None:
        """The last code is sent whole."""
        self._write(len(self._rest))

    def _write(self, count: int) -> None:
        try:
            taken = os.write(self.master, self._rest[:count])
        except BlockingIOError:
            taken = 0
        self.bytes += taken
        self.lost += count - taken
        self._rest = self._rest[count:]


@dataclass(frozen=True)
class Found:
    """What was sent, and what of it was read."""

    codes: int
    bytes: int
    lost: int
    wrong: int  # ports on which something else was read
    took_s: float
    cpu_s: float

    @property
    def core_pct(self) -> float:
        """CPU time of the reader, of one core."""
        return 100 * self.cpu_s / self.took_s

    def __str__(self) -> str:
        what = f"{self.codes} codes, {self.bytes} bytes in {self.took_s:.1f} s"
        return f"{what}, {self.wrong} ports wrong, {1e6 * self.cpu_s / self.codes:.0f} µs CPU a code"


def speak(devices: list[Device], seconds: float) -> float:
    """All of them speak for so long; how long it was."""
    began_s = time.monotonic()
    while (now_s := time.monotonic() - began_s) < seconds:
        for device in devices:
            device.speak(now_s)
        time.sleep(STEP_S)
    for device in devices:
        device.finish()
    return time.monotonic() - began_s


def found(devices: list[Device], read: list[str], took_s: float, cpu_s: float) -> Found:
    """``read``: the digest of each port's codes, as they were read."""
    wrong = sum(device.hash.hexdigest() != digest for device, digest in zip(devices, read, strict=True))
    total = [sum(column) for column in zip(*((d.codes, d.bytes, d.lost) for d in devices), strict=True)]
    return Found(*total, wrong, took_s, cpu_s)


def alone(devices: list[Device], baud: int, seconds: float) -> Found:
    """Read by the scanner driver, and nothing behind it."""
    command = [sys.executable, __file__, "--read", str(baud), *(device.path for device in devices)]
    pin = lambda: os.sched_setaffinity(0, {AGENT_CORE})  # noqa: E731
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pin) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stdout.readline() == "ready\n"
        process = Process(popen)
        cpu_s = process.cpu_s
        took_s = speak(devices, seconds)
        time.sleep(0.5)  # what is in the kernel's buffers is read
        cpu_s = process.cpu_s - cpu_s
        popen.stdin.close()
        return found(devices, json.loads(popen.stdout.read()), took_s, cpu_s)


def whole(devices: list[Device], folder: Path, seconds: float) -> Found:
    """Read by an agent: every code committed, sent to a broker, and counted there."""
    messages: list[bytes] = []
    with ExitStack() as stack:
        port = stack.enter_context(broker(folder))
        stack.enter_context(subscriber(port, "acme/#", messages.append))
        config = head(folder) + "devices:\n" + "".join(scanner(f"r{d.number}", d.path) for d in devices)
        process = stack.enter_context(agent(config + "stations: {}\n" + route(port, "broker", "scan"), folder))
        log = folder / "agent.log"
        wait_for(lambda: {d["state"] for d in look(folder)["devices"].values()} == {"connected"}, 20, log)
        cpu_s = process.cpu_s
        took_s = speak(devices, seconds)
        time.sleep(0.5)
        wait_for(lambda: look(folder)["routes"]["mes"]["pending"] == 0, 20, log)
        cpu_s = process.cpu_s - cpu_s
        time.sleep(0.5)
    hashes = {f"r{device.number}": hashlib.sha256() for device in devices}
    for message in map(orjson.loads, messages):
        if message.get("kind") == "scan":
            for record in message["records"]:
                hashes[message["source"]].update(bytes.fromhex(record["raw"]))
    return found(devices, [digest.hexdigest() for digest in hashes.values()], took_s, cpu_s)


def serial(report: Any, folder: Path, options: argparse.Namespace) -> None:
    """(m) 20 serial readers at 115200 baud that never pause: by the driver alone, and by the whole agent."""
    both = {"serial": alone(line_of(20, 115200), 115200, 2 * options.seconds)}
    both["serial_agent"] = whole(line_of(20, 115200), folder, 2 * options.seconds)
    for name, its in both.items():
        assert its.lost or not its.wrong, its  # what came is what was written
        report.say(f"{name}_lost", its.lost, f"bytes; {its}", 0)
        report.say(f"{name}_core_pct", its.core_pct, "of a core", 1)


def line_of(ports: int, baud: int) -> list[Device]:
    """So many devices at this rate: a character is ten bits."""
    return [Device(number, baud / 10) for number in range(ports)]


async def read(baud: int, paths: list[str]) -> None:
    """Read all ports until stdin ends."""
    from edge_agent_drivers.scanner.config import ScannerSettings
    from edge_agent_drivers.scanner.driver import ScannerDriver

    hashes = [hashlib.sha256() for _ in paths]

    async def port(number: int, driver: ScannerDriver) -> None:
        while True:
            for scan in await driver.read():
                hashes[number].update(scan.raw)

    drivers = [ScannerDriver(path, ScannerSettings(port=path, baud=baud)) for path in paths]
    await asyncio.gather(*(driver.open() for driver in drivers))
    print("ready", flush=True)
    ports = [asyncio.ensure_future(port(number, driver)) for number, driver in enumerate(drivers)]
    await asyncio.to_thread(sys.stdin.read)
    for each in ports:
        each.cancel()
    await asyncio.wait(ports)
    print(json.dumps([digest.hexdigest() for digest in hashes]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", type=int, default=20)
    parser.add_argument("--baud", type=int, default=115200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--read", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        asyncio.run(read(int(arguments.read[0]), arguments.read[1:]))
        return 0
    its = alone(line_of(arguments.ports, arguments.baud), arguments.baud, arguments.seconds)
    print(f"{arguments.ports} ports at {arguments.baud} baud: {its}; {its.core_pct:.1f} % of a core; lost: {its.lost}")
    return 1 if its.lost or its.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
