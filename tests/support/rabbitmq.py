"""A real RabbitMQ with its MQTT plugin (3.1.1) on a free loopback port.

Erlang's port mapper (epmd) is started by us, on a port of its own, and ends with the broker: what RabbitMQ would start
by itself stays behind as a daemon. Debian's package is ``rabbitmq-server``. A start takes some five seconds.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from support.broker import Broker
from support.mosquitto import free_port

program = "/usr/lib/rabbitmq/bin/rabbitmq-server"
installed = Path(program).exists()


class RabbitMq(Broker):
    """One node, alone. ``guest`` may do everything, and so may who has no name."""

    name = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._epmd_port, self._dist_port = free_port(), free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    def command(self) -> tuple[list[str], dict[str, str]]:
        (self.folder / "rabbitmq.conf").write_text(
            "listeners.tcp = none\n"
            f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "mqtt.allow_anonymous = true\nmqtt.default_user = guest\nmqtt.default_pass = guest\n"
            "log.console = true\nlog.console.level = info\nlog.file = false\n"
        )
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        return [program], {
            "HOME": str(self.folder),
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the broker, instead of starting it
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            **self._where(),
        }

    def _where(self) -> dict[str, str]:
        return {"ERL_EPMD_PORT": str(self._epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def start(self) -> None:
        if self._epmd is None:
            program = shutil.which("epmd") or "/usr/bin/epmd"
            self._epmd = subprocess.Popen(
                [program], env=self._where(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        try:
            super().start()
        except RuntimeError:
            self._end_epmd()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, error, tb)
        self._end_epmd()

    def _end_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(10)
            self._epmd = None
