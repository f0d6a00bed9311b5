"""A real mosquitto on a free loopback port, for tests: start, kill, hang, wake, stop.

``max_queued_messages 0`` (no limit), because the default silently drops what a test then counts. Started by root,
mosquitto gives up its rights, so its files stand in a folder of the given directory that it may write.

::

    with Mosquitto(tmp_path) as broker:
        ...                      # broker.url == "mqtt://127.0.0.1:41883"
        broker.kill(); broker.start()
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mosquitto:
    """One broker. ``options`` are further lines of its configuration; ``users`` (name → password) shuts out the rest.

    ``address`` and ``prefix`` place it in another network namespace (see namespaces.py).
    ``acl`` is the text of an access list. ``persistence`` keeps sessions and queued messages over ``kill()``:
    mosquitto saves them when ``stop()`` ends it, a kill loses what came since.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: tuple[str, ...] = (),
        users: dict[str, str] | None = None,
        acl: str = "",
        persistence: bool = False,
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
        port: int | None = None,
    ) -> None:
        self.address = address
        self._prefix = prefix
        self.folder = folder / "mosquitto"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        lines = ["per_listener_settings false", f"listener {self.port} {address}", "max_queued_messages 0"]
        if os.getuid() == 0:
            lines.append("user root")
        if persistence:
            lines += ["persistence true", f"persistence_location {self.folder}/", "autosave_interval 1"]
        if acl:
            lines.append(f"acl_file {self._write('acl', acl)}")
        if users is None:
            lines.append("allow_anonymous true")
        else:
            lines += ["allow_anonymous false", f"password_file {self.admit(users)}"]
        self._write("mosquitto.conf", "\n".join([*lines, *options]) + "\n")

    @property
    def url(self) -> str:
        return f"mqtt://{self.address}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with (self.folder / "mosquitto.log").open("ab") as log:
            command = [*self._prefix, program, "-c", str(self.folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(500):
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection((self.address, self.port), 0.2).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"mosquitto did not start:\n{(self.folder / 'mosquitto.log').read_text()}")

    def kill(self) -> None:
        """kill -9: sessions and queues are gone (but for what ``persistence`` saved), sockets are reset."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end; with ``persistence`` everything is saved."""
        self._end(signal.SIGTERM)

    def hang(self) -> None:
        """SIGSTOP: sockets stay open, the kernel still accepts, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            if how is not signal.SIGKILL:
                self._process.send_signal(signal.SIGCONT)
        self._process.wait(10)
        self._process = None

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def allow(self, acl: str) -> None:
        """Another access list, from now on."""
        self._write("acl", acl)
        said = (self.folder / "mosquitto.log").stat().st_size
        os.kill(self.pid, signal.SIGHUP)
        for _ in range(500):
            if b"Reloading config" in (self.folder / "mosquitto.log").read_bytes()[said:]:
                return
            time.sleep(0.01)
        raise RuntimeError("mosquitto did not reload")

    def admit(self, users: dict[str, str]) -> Path:
        """These and nobody else, from now on (who is connected stays)."""
        path = self._write("passwords", "".join(f"{name}:{password}\n" for name, password in users.items()))
        subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
        return path
