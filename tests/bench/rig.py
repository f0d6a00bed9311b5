"""Processes of a benchmark: started, pinned, looked at from outside through /proc, and always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.control import AgentNotRunning, ask

HERE = Path(__file__).parent
AGENT_CORE, PEER_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")


def free_port() -> int:
    """A loopback TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A child, pinned to one core."""

    popen: subprocess.Popen[str]

    @property
    def cpu_s(self) -> float:
        """User and system seconds so far."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def rss_mb(self) -> float:
        """Resident memory now."""
        return int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]) * PAGE / 1e6

    @property
    def written_bytes(self) -> int:
        """Bytes this process caused to be sent to the storage layer."""
        lines = Path(f"/proc/{self.popen.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    def stop(self) -> None:
        """End it, politely first."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()


@contextlib.contextmanager
def child(*argv: str, core: int, ready: bool = False, log: Path | None = None) -> Iterator[Process]:
    """Run ``python argv`` pinned to ``core``; with ``ready``, wait for its first line. Its stderr goes to ``log``."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("a")) if log else subprocess.DEVNULL
        popen = subprocess.Popen(
            [sys.executable, *argv],
            stdout=subprocess.PIPE if ready else subprocess.DEVNULL,
            stderr=errors,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        process = Process(popen)
        try:
            if ready:
                assert popen.stdout is not None
                assert popen.stdout.readline(), f"{argv} did not start; see {log}"
            yield process
        finally:
            process.stop()


@contextlib.contextmanager
def agent(config: str, folder: Path, core: int = AGENT_CORE) -> Iterator[Process]:
    """`edge-agent run` on ``config``, up to its answering status."""
    path = folder / "config.yaml"
    path.write_text(config)
    with child("-m", "edge_agent", "run", "--config", str(path), core=core, log=folder / "agent.log") as process:
        wait_for(lambda: status(folder / "data") is not None, 20, folder / "agent.log")
        yield process


def status(data_dir: Path) -> dict[str, Any] | None:
    """What the running agent says of itself; None while it does not answer."""
    try:
        return ask(data_dir, "status")
    except AgentNotRunning:
        return None


def wait_for(condition: Any, timeout_s: float, log: Path) -> None:
    """Poll ``condition`` until it holds; fails with the tail of ``log``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            tail = log.read_text()[-2000:] if log.exists() else ""
            raise TimeoutError(f"not within {timeout_s} s; {log}:\n{tail}")
        time.sleep(0.01)


def output(*argv: str, core: int) -> str:
    """Run ``python argv`` on ``core`` to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return done.stdout.strip()
