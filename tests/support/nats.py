"""A real NATS server with MQTT (3.1.1) on a free loopback port. Its MQTT needs JetStream, which keeps what QoS 1 took.

Debian's package is ``nats-server``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.broker import Broker
from support.mosquitto import free_port

program = shutil.which("nats-server") or "/usr/sbin/nats-server"
installed = Path(program).exists()


class Nats(Broker):
    """One NATS server, alone, not part of a cluster."""

    name = "nats"

    def command(self) -> tuple[list[str], dict[str, str]]:
        config = self.folder / "nats.conf"
        config.write_text(
            f"server_name: test\nhost: 127.0.0.1\nport: {free_port()}\n"
            f"jetstream {{ store_dir: {self.folder}/data, max_memory_store: 64M, max_file_store: 1G }}\n"
            f"mqtt {{ host: 127.0.0.1, port: {self.port} }}\n"
        )
        return [program, "-c", str(config)], {}
