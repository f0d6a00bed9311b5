"""The processes of the demo and of the fault tests: the line, the receiver, the agent; none outlives its parent.

Each runs in a session of its own, so that Ctrl-C reaches only the parent, which ends them in order; should the
parent be killed, the kernel kills them. Whoever starts them calls ``end`` in a ``finally``.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from edge_agent.control.client import ControlError, ask
from edge_agent.errors import EdgeAgentError

PORTS = range(20000, 32768)  # below those that the kernel gives to whoever connects
LAST_LINES = 8
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class DemoError(EdgeAgentError):
    """A process of the demo does not start, does not answer, or ended."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has, and that no client is given before its server binds it.

    A client that tries a port of the kernel's own range until somebody listens there may even be given that port, and
    be connected to itself.
    """
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def write_config(directory: Path, *, plc_port: int, broker_port: int, replace: Mapping[str, str] | None = None) -> Path:
    """The config of the line's agent, as ``directory/line.yaml``; ``replace`` changes its text further."""
    text = files("edge_agent.demo").joinpath("line.yaml").read_text(encoding="utf-8")
    places = {"@DIR@": str(directory), "@PLC@": str(plc_port), "@BROKER@": str(broker_port)}
    for old, new in {**places, **(replace or {})}.items():
        if old not in text:
            raise ValueError(f"line.yaml has no {old!r}")
        text = text.replace(old, new)
    path = directory / "line.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class Child:
    """One process of ours: ``python -m arguments``, its stderr in ``log``."""

    def __init__(self, log: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._command = [sys.executable, "-m", *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Of the last run; negative: the signal that ended it."""
        return None if self._process is None else self._process.returncode

    def failed(self, what: str) -> DemoError:
        """The error that says what it did wrong, and the last of what it logged."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        last = "".join(f"\n  {line}" for line in text.splitlines()[-LAST_LINES:])
        return DemoError(
            f"the demo's {self.log.stem} {what}; its last words:{last or ' –'}",
            hint=f"run it again with --keep DIR and look at DIR/{self.log.name}",
        )

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it; ``environment`` is added for this run only."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if self._talks else log,
                stderr=log,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    _talks = False  # stdout is read by us

    def send(self, number: signal.Signals) -> None:
        if self.running and self._process is not None:
            self._process.send_signal(number)

    async def wait(self, timeout_s: float) -> int:
        """Its exit code. Raises TimeoutError."""
        assert self._process is not None, "not started"
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    async def end(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL when that takes too long. Idempotent."""
        self.send(signal.SIGTERM)
        try:
            if self._process is not None:
                await self.wait(timeout_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class LineProcess(Child):
    """The simulated line, which obeys commands."""

    _talks = True

    def __init__(
        self, directory: Path, *, port: int, seed: int, pace: float = 1.0, quirks: float = 0.1, give_up_s: float = 0.0,
        gate: bool = False,
    ) -> None:  # fmt: skip
        arguments = ["edge_agent.demo.line", f"--dir={directory}", f"--port={port}", f"--seed={seed}"]
        arguments += [f"--pace={pace}", f"--quirks={quirks}", *([f"--give-up={give_up_s}"] if give_up_s else [])]
        arguments += ["--gate"] if gate else []
        super().__init__(directory / "line.log", arguments)
        self.truth = directory / "truth.jsonl"

    async def begin(self) -> None:
        """Start it and wait until PLC and readers are there."""
        await self.start()
        await self._answer("start", 15.0)

    async def feed(self, *, on: bool = True) -> None:
        """Units begin to come; or no new ones come."""
        await self._do({"do": "feed", "on": on}, 5.0)

    async def swap(self, station: str | None = None, position: int | None = None, *, scan: bool = False) -> int:
        """Swap the units at the position, or at all; how many were."""
        answer = await self._do({"do": "swap", "station": station, "position": position, "scan": scan}, 5.0)
        return int(answer["count"])

    async def load(self, lot: str) -> None:
        """Screws of another lot from now on."""
        await self._do({"do": "load", "lot": lot}, 5.0)

    async def give_back(self, serial: str) -> bool:
        """A unit that was set aside comes to the gate again; False if it was not set aside."""
        answer = await self._do({"do": "return", "serial": serial}, 5.0)
        return bool(answer["count"])

    async def kill_at(self, victim: Child | None, at: str = "ack") -> None:
        """SIGKILL the victim when it next acknowledges (``ack``) or reads (``result``) a result; None: spare it."""
        await self._do({"do": "kill", "pid": victim.pid if victim else None, "at": at}, 5.0)

    async def stop(self, timeout_s: float) -> None:
        """No new units; returns when the last has left. Raises DemoError."""
        await self._do({"do": "stop"}, timeout_s)

    async def _do(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._answer(command["do"], timeout_s)

    async def _answer(self, did: str, timeout_s: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                text = await self._process.stdout.readline()
        except TimeoutError as error:
            raise self.failed(what=f"did not answer {did!r} within {timeout_s:g} s") from error
        answer: dict[str, Any] = json.loads(text) if text else {}
        if answer.get("did") != did:
            raise self.failed(what=f"answered {answer} to {did!r}")
        return answer


class AgentProcess(Child):
    """``edge-agent run`` on one config."""

    def __init__(self, config: Path, log: Path, data_dir: Path) -> None:
        super().__init__(log, ["edge_agent", "--config", str(config), "--debug", "run"])
        self._data_dir = data_dir

    async def connected(self, timeout_s: float = 30.0) -> None:
        """Wait until it has every device. Raises DemoError when it does not come to that."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if await self._is_connected():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise self.failed(what=f"was not connected to every device within {timeout_s:g} s") from error

    async def _is_connected(self) -> bool:
        status = await self.status()
        if status is None and not self.running:
            raise self.failed(what=f"ended with {self.returncode}")
        return status is not None and all(one["state"] == "connected" for one in status["devices"].values())

    async def status(self) -> dict[str, Any] | None:
        """What the agent says of itself; None while it cannot be asked."""
        try:
            return await asyncio.to_thread(ask, self._data_dir, "status", timeout_s=2.0)
        except ControlError:
            return None


class ReceiverProcess(Child):
    """``edge-agent listen``: takes over everything that the line's agent sends, commits it to SQLite, confirms."""

    def __init__(self, directory: Path, *, url: str) -> None:
        self.database = directory / "receiver.db"
        arguments = ["edge_agent", "listen", url, "--topic", "acme/#", "--db", str(self.database)]
        super().__init__(directory / "receiver.log", arguments)


async def run_for_json(arguments: Sequence[str]) -> dict[str, Any]:
    """One `edge-agent` verb with ``--json``: what it prints; empty if it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_agent", *arguments, "--json", stdout=asyncio.subprocess.PIPE
    )
    out, _err = await process.communicate()
    found: dict[str, Any] = json.loads(out) if process.returncode == 0 else {}
    return found


async def run_visibly(arguments: Sequence[str]) -> int:
    """One `edge-agent` verb, its output on ours; its exit code."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "edge_agent", *arguments)
    return await process.wait()
