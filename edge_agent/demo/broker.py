"""The embedded broker of the demo: rumqttd out of the ``iotcore`` wheel, MQTT 5, on loopback, in a process of its own.

    python -m edge_agent.demo.broker CONFIG.toml

It keeps nothing over a restart, neither sessions nor retained messages: what makes the demo's outage honest.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from edge_agent.demo.processes import Child
from edge_agent.errors import EdgeAgentError

START_S = 10.0
_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 64
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 10

[v5.1]
name = "mqtt5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 200
dynamic_filters = true
"""


class BrokerMissing(EdgeAgentError):
    """The embedded broker is not installed, or does not start."""


class EmbeddedBroker(Child):
    """An MQTT 5 broker on 127.0.0.1. ``begin`` and ``kill`` may alternate."""

    def __init__(self, directory: Path, port: int) -> None:
        config = directory / "broker.toml"
        config.write_text(_CONFIG.format(port=port))
        super().__init__(directory / "broker.log", ["edge_agent.demo.broker", str(config)])
        self._port = port

    async def begin(self) -> None:
        """Start it; returns when it accepts connections. Raises BrokerMissing."""
        await self.start()
        deadline = asyncio.get_running_loop().time() + START_S
        while self.running and asyncio.get_running_loop().time() < deadline:
            try:
                _reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
        raise BrokerMissing("the demo's broker does not start", hint=_hint(self.log))


def _hint(log: Path) -> str:
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return "pip install 'edge-agent[demo]'" if any("iotcore" in line for line in last) else "".join(last)


def main() -> None:
    """The process's entry point."""
    from iotcore import Broker

    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it logs its own spans as errors, packet by packet
    Broker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
