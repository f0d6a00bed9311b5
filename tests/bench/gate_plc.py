"""A real pymodbus server with a gate's registers, that writes down when an answer was written.

Serves holding registers 0-2999. With each write to ``ANSWER`` (another number than 0) a line "number nanoseconds" goes
to the log, by CLOCK_MONOTONIC, when the reply leaves: the register holds it then.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import TextIO

from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REQUEST, ANSWER, VERDICT, REASON, BEAT = 2990, 2991, 2992, 2993, 2994


def noting(log: TextIO) -> object:
    """What the server calls with each request and reply."""

    def note(sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if sending and pdu.function_code == 6 and pdu.address == ANSWER and (number := pdu.registers[0]):
            log.write(f"{number} {time.monotonic_ns()}\n")
            log.flush()
        return pdu

    return note


async def serve(port: int, log: TextIO) -> None:
    """Serve for ever on loopback."""
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL + 1)
    values = [(number * 7919) % 1000 for number in range(REQUEST)] + [0] * 10
    device = SimDevice(1, simdata=SimData(0, values=values, datatype=DataType.REGISTERS))
    server = ModbusTcpServer(device, address=("127.0.0.1", port), trace_pdu=noting(log))  # type: ignore[arg-type]
    await server.serve_forever(background=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("log", type=Path)
    options = parser.parse_args()
    with options.log.open("w") as log:
        asyncio.run(serve(options.port, log))


if __name__ == "__main__":
    main()
