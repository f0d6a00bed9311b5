"""Several Modbus units in one real pymodbus server, in a process of its own: on a tty, behind TCP with RTU or ASCII
frames, or behind TLS.

::

    with ModbusUnits("rtu", tty) as server: ...              # units 1, 2 and 3 on this serial port
    with ModbusUnits("tls", tls=(cert, key)) as server:    # 127.0.0.1:server.port

Unit u has coils and discrete inputs 0-63 (coils off, every third discrete on) and holding and input registers 0-299
with ``register n == 1000 * u + n``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.mosquitto import free_port

UNITS = (1, 2, 3)
REGISTERS = 300
BITS = 64


def register(unit: int, number: int) -> int:
    """What stands in a register."""
    return 1000 * unit + number


class ModbusUnits:
    """The server process. ``kill()`` and ``start()`` keep its address; what was written to it is then forgotten."""

    def __init__(
        self, kind: str, tty: str = "", tls: tuple[Path, Path] | None = None, clients: Path | None = None
    ) -> None:
        """``tls``: its certificate and key; ``clients``: the CA of those it lets in, without one everybody."""
        self.port = free_port()
        cert, key = tls or ("", "")
        self._arguments = [kind, tty or str(self.port), str(cert), str(key), str(clients or "")]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ModbusUnits:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, tty: str = "") -> None:
        """Start and wait until it listens; on another tty if one is given."""
        if tty:
            self._arguments[1] = tty
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


# --- the process ---------------------------------------------------------------------------------------------


def _units() -> list[Any]:
    from pymodbus.simulator import DataType, SimData, SimDevice

    def bits(every: int) -> list[Any]:
        values = [bool(every) and place % every == 0 for place in range(BITS)]
        return [SimData(0, values=values, datatype=DataType.BITS)]

    def registers(unit: int) -> list[Any]:
        values = [register(unit, number) for number in range(REGISTERS)]
        return [SimData(0, values=values, datatype=DataType.REGISTERS)]

    return [SimDevice(unit, simdata=(bits(0), bits(3), registers(unit), registers(unit))) for unit in UNITS]


async def _serve(kind: str, where: str, cert: str, key: str, clients: str) -> None:
    from pymodbus import FramerType
    from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer

    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL + 1)  # cut connections are its daily bread
    framing, _, over = kind.partition("+")
    framer = {"rtu": FramerType.RTU, "ascii": FramerType.ASCII, "tcp": FramerType.SOCKET}.get(framing)
    server: Any
    if kind == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        if clients:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        server = ModbusTlsServer(_units(), address=("127.0.0.1", int(where)), sslctx=context)
    elif over or kind == "tcp":
        server = ModbusTcpServer(_units(), framer=framer, address=("127.0.0.1", int(where)))
    else:
        server = ModbusSerialServer(_units(), framer=framer, port=where, baudrate=115200, reconnect_delay=0)
    await server.serve_forever(background=True)
    print("ready", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)  # ends with the test, however that ends


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    asyncio.run(_serve(*sys.argv[1:]))
