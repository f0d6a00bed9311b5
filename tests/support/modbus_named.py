"""A pymodbus server that says who it is, on given addresses: ``python modbus_named.py PORT ADDRESS...``.

Units 1 and 5 have registers 0-9; other unit ids get no answer. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import logging
import sys


async def _serve(port: int, addresses: list[str]) -> None:
    from pymodbus import ModbusDeviceIdentification
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL + 1)
    names = {"VendorName": "ACME", "ProductCode": "PX 20", "MajorMinorRevision": "v2.7"}
    identity = ModbusDeviceIdentification(info_name=names)
    registers = [SimData(0, values=list(range(10)), datatype=DataType.REGISTERS)]
    for address in addresses:
        units = [SimDevice(unit, simdata=registers) for unit in (1, 5)]
        server = ModbusTcpServer(units, identity=identity, address=(address, port), ignore_missing_devices=True)
        await server.serve_forever(background=True)
    print("ready", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2:]))
