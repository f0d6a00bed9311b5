"""Serial devices at full line rate: is a byte lost, and what does it cost?

::

    python tests/bench/streams.py [--ports 20] [--baud 115200] [--seconds 20]

This process is the devices: it writes codes to pseudo terminals at the line's rate and never waits, as a UART does not:
what the kernel's buffer (4 KiB, a third of a second at 115200 baud) does not take is lost, and counted here. Another
process reads them all with the scanner driver on one event loop. What it read is compared here, as SHA-256 of all codes
of each port, with what was written, and its CPU time is what the kernel says of it. Without that process's help.
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
from pathlib import Path

CODE = b"P%02d-%08d-ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"
STEP_S = 0.005
TICKS_S = os.sysconf("SC_CLK_TCK")


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


def cpu_s(pid: int) -> float:
    """CPU time of a process, as the kernel counts it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def measure(ports: int, baud: int, seconds: float) -> int:
    """Print the figures; 1 when a byte is missing."""
    devices = [Device(number, baud / 10) for number in range(ports)]
    command = [sys.executable, __file__, "--read", str(baud), *(device.path for device in devices)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"ready\n"
        cpu_before_s, began_s = cpu_s(reader.pid), time.monotonic()
        while (now_s := time.monotonic() - began_s) < seconds:
            for device in devices:
                device.speak(now_s)
            time.sleep(STEP_S)
        for device in devices:
            device.finish()
        took_s = time.monotonic() - began_s
        time.sleep(0.5)  # what is in the kernel's buffers is read
        used_s = cpu_s(reader.pid) - cpu_before_s
        reader.stdin.close()
        read = json.loads(reader.stdout.read())
    sent = sum(device.bytes for device in devices)
    lost = sum(device.lost for device in devices)
    codes = sum(device.codes for device in devices)
    wrong = [d.path for d, (_, digest) in zip(devices, read, strict=True) if digest != d.hash.hexdigest()]
    print(f"{ports} ports at {baud} baud, {took_s:.1f} s: {codes} codes, {sent} bytes, {sent / took_s / ports:.0f} B/s")
    print(f"lost: {lost} bytes; codes read: {sum(count for count, _ in read)}; ports that differ: {len(wrong)}")
    print(f"CPU of the reader: {used_s / took_s:.1%} of a core, {used_s / codes * 1e6:.0f} µs a code")
    return 1 if lost or wrong else 0


async def read(baud: int, paths: list[str]) -> None:
    """Read all ports until stdin ends."""
    from edge_agent_drivers.scanner.config import ScannerSettings
    from edge_agent_drivers.scanner.driver import ScannerDriver

    counts = [0] * len(paths)
    hashes = [hashlib.sha256() for _ in paths]

    async def port(number: int, driver: ScannerDriver) -> None:
        while True:
            for scan in await driver.read():
                counts[number] += 1
                hashes[number].update(scan.raw)

    drivers = [ScannerDriver(path, ScannerSettings(port=path, baud=baud)) for path in paths]
    await asyncio.gather(*(driver.open() for driver in drivers))
    print("ready", flush=True)
    ports = [asyncio.ensure_future(port(number, driver)) for number, driver in enumerate(drivers)]
    await asyncio.to_thread(sys.stdin.read)
    for each in ports:
        each.cancel()
    await asyncio.wait(ports)
    print(json.dumps([(count, digest.hexdigest()) for count, digest in zip(counts, hashes, strict=True)]))


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
    return measure(arguments.ports, arguments.baud, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
