"""The yardstick: pymodbus alone, reading 125 registers as fast as it can. Prints requests a second."""

from __future__ import annotations

import asyncio
import sys
import time

from pymodbus.client import AsyncModbusTcpClient


async def read_for(port: int, seconds: float) -> float:
    """Requests a second over ``seconds``, after a short warm-up."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, reconnect_delay=0)
    assert await client.connect()
    for _ in range(500):
        await client.read_holding_registers(0, count=125)
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        response = await client.read_holding_registers(0, count=125)
        assert len(response.registers) == 125
        count += 1
    client.close()
    return count / (now - start)


if __name__ == "__main__":
    print(asyncio.run(read_for(int(sys.argv[1]), float(sys.argv[2]))))
