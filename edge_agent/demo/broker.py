"""The embedded broker of the demo: rumqttd out of the ``iotcore`` wheel, MQTT 5, on loopback, in a child process.

It keeps nothing over a restart, neither sessions nor retained messages: what makes the demo's outage honest. The child
dies with this process, since it reads a pipe that we hold.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import EdgeAgentError

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
    """The package with the embedded broker is not installed."""


class EmbeddedBroker:
    """An MQTT 5 broker on 127.0.0.1:``port``. ``start`` and ``stop`` block for about 0.1 s, and may alternate."""

    def __init__(self, directory: Path, port: int) -> None:
        try:
            from iotcore import Broker
        except ImportError as error:
            raise BrokerMissing("the demo needs a broker", hint="pip install 'edge-agent[demo]'") from error
        self.url = f"mqtt://127.0.0.1:{port}"
        config = directory / "broker.toml"
        config.write_text(_CONFIG.format(port=port))
        self._broker = Broker(config_path=str(config))

    def start(self) -> None:
        """Returns when it accepts connections. Raises OSError when the port is taken."""
        self._broker.start()

    def stop(self) -> None:
        """Kill it; idempotent."""
        self._broker.stop()
