"""What brokers of any make have in common for a test: a process, a folder, a port, and the ways to hurt it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from support.mosquitto import free_port

START_S = 60.0


class Broker:
    """A broker in its own process group, on loopback, with all that it writes in ``folder``. See the subclasses."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> tuple[list[str], dict[str, str]]:
        """What to run, and what to add to its environment."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers to a CONNECT: some listen before they can."""
        command, environment = self.command()
        with (self.folder / "log").open("ab") as log:
            environment = dict(os.environ) | environment
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"{self.name} did not start:\n{(self.folder / 'log').read_text()[-4000:]}")

    def _answers(self) -> bool:
        connect = bytes.fromhex("101500044d51545404020005000970726f62652d303031")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as probe:
                probe.settimeout(2)
                probe.sendall(connect)
                return probe.recv(4) == bytes.fromhex("20020000")
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9 of the process and all that it started."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        """An orderly end."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self.kill()

    def forget(self) -> None:
        """Lose everything that it kept: sessions, queues, retained messages. It must not run."""
        assert self._process is None, "still running"
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def hang(self) -> None:
        """SIGSTOP: sockets stay open, the kernel still accepts, nobody answers."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
