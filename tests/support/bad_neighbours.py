"""An agent with good devices and bad ones beside them: PLC servers in other processes, readers on ptys.

The bad ones are good until ``turn_bad(name)``:

=========  ==================================================================================================
killed     its process is killed
stopped    its process gets SIGSTOP: the connection stands and nothing answers any more
hanging    its process is killed, and what listens there now never accepts: connecting hangs
garbage    a reader's line carries noise, as fast as the terminal takes it
endless    the same without any end of a frame
babbling   a reader sends codes, each another one, as fast as the terminal takes them
nonsense   a PLC that answers every request with random bytes
=========  ==================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.control import AgentNotRunning, ask
from support.modbus_plc import ModbusPlc
from support.pty_reader import PtyReader

GOOD_PLCS = ("plc1", "plc2")
GOOD_READER = "reader"
BAD = ("killed", "stopped", "hanging", "garbage", "endless", "babbling", "nonsense")
SCAN_S = 0.05


class Neighbours:
    """See the module docstring. ``poll``: of the good PLCs; "0s" reads without a pause."""

    def __init__(self, folder: Path, poll: str = "50ms", agent_core: int | None = None) -> None:
        self._folder, self._poll, self._core = folder, poll, agent_core
        self._stack = contextlib.ExitStack()
        self._over, self._enough = threading.Event(), threading.Event()
        self.scanned = 0
        self.agent: subprocess.Popen[bytes]

    def __enter__(self) -> Neighbours:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()

    def counts(self) -> dict[str, int]:
        """Samples and scans of the good devices so far."""
        devices = self.devices()
        return {name: devices[name]["samples"] for name in GOOD_PLCS} | {GOOD_READER: devices[GOOD_READER]["scans"]}

    def devices(self) -> dict[str, Any]:
        """What the agent says of all."""
        devices: dict[str, Any] = ask(self._folder / "data", "status", timeout_s=20.0)["devices"]
        return devices

    def rates(self, seconds: float) -> dict[str, float]:
        """Samples and scans a second of the good devices, measured from outside for so long."""
        first, began = self.counts(), time.monotonic()
        time.sleep(seconds)
        last, took_s = self.counts(), time.monotonic() - began
        return {name: (last[name] - first[name]) / took_s for name in first}

    def turn_bad(self, name: str) -> None:
        """From now on this one behaves as its name says."""
        {
            "killed": self.plcs["killed"].kill,
            "stopped": lambda: os.kill(self._pid("stopped"), signal.SIGSTOP),
            "hanging": self._hang,
            "nonsense": self._mumble,
            "garbage": lambda: self._flood("garbage", lambda: random.randbytes(4096)),
            "endless": lambda: self._flood("endless", lambda: b"x" * 4096),
            "babbling": lambda: self._flood("babbling", self._codes),
        }[name]()

    def wait_for(self, name: str, state: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Until the agent says that the device is in this state; what it says of it then."""
        until = time.monotonic() + timeout_s
        while (device := self.devices()[name])["state"] != state:
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is {device}")
            time.sleep(0.05)
        found: dict[str, Any] = device
        return found

    def stop_scanning(self) -> None:
        """The good reader has sent ``scanned`` codes and sends no more."""
        self._enough.set()
        self._scanning.join()

    # --- the good ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._serial = iter(range(10**9))
        self.plcs = {name: ModbusPlc() for name in (*GOOD_PLCS, "killed", "stopped", "hanging", "nonsense")}
        self.readers = {}
        for name in (GOOD_READER, "garbage", "endless", "babbling"):
            self.readers[name] = PtyReader(self._folder / name)
            self._stack.callback(self.readers[name].unplug)
        starts = [threading.Thread(target=plc.start) for plc in self.plcs.values()]
        for plc in self.plcs.values():
            self._stack.callback(plc.kill)
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        path = self._folder / "line.yaml"
        path.write_text(self._config())
        log = self._stack.enter_context((self._folder / "log").open("wb"))
        self.agent = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "--config", str(path), "run"], stdout=log, stderr=log
        )
        self._stack.callback(self._end)
        if self._core is not None:
            os.sched_setaffinity(self.agent.pid, {self._core})
        until = time.monotonic() + 60
        while not self._ready():
            if self.agent.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.05)
        self._scanning = self._in_thread(self._scan)

    def _config(self) -> str:
        plcs = "".join(
            f"  {name}: {{driver: modbus, connection: 'tcp://127.0.0.1:{plc.port}', timeout: 500ms, groups: "
            f"{{state: {{poll: {self._poll if name in GOOD_PLCS else '50ms'}, tags: {{"
            + ", ".join(f'r{n}: {{address: "holding:{n}"}}' for n in range(10))
            + "}}}}\n"
            for name, plc in self.plcs.items()
        )
        readers = "".join(
            f'  {name}: {{driver: scanner, port: {reader.port}, frame: {{end: "\\r"}}}}\n'
            for name, reader in self.readers.items()
        )
        return (
            "agent: {id: test, location: {enterprise: a, site: s, area: a, line: L}, "
            f'data_dir: "{self._folder}/data"}}\n'
            "buffer: {max_size: 500MB, min_free: 1MB, ballast: 1MB}\n"
            f"devices:\n{plcs}{readers}"
        )

    def _ready(self) -> bool:
        try:
            return all(device["state"] == "connected" for device in self.devices().values())
        except AgentNotRunning:
            return False

    def _end(self) -> None:
        self.agent.send_signal(signal.SIGTERM)
        self.agent.send_signal(signal.SIGTERM)
        try:
            self.agent.wait(20)
        finally:
            self.agent.kill()
            self.agent.wait()

    def _scan(self) -> None:
        """The good reader reads a code now and then."""
        while not self._enough.wait(SCAN_S):
            self.readers[GOOD_READER].send(b"UNIT%08d\r" % self.scanned)
            self.scanned += 1

    def _in_thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._over.set)
        self._stack.callback(self._enough.set)
        return thread

    # --- the bad -------------------------------------------------------------------------------------------------

    def _pid(self, name: str) -> int:
        process = self.plcs[name]._process
        assert process is not None
        return process.pid

    def _hang(self) -> None:
        """Nobody accepts, and the queue of those who wait is full: a connect gets no answer."""
        port = self.plcs["hanging"].port
        self.plcs["hanging"].kill()
        listener = self._stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(8):
            filler = self._stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))

    def _mumble(self) -> None:
        port = self.plcs["nonsense"].port
        self.plcs["nonsense"].kill()
        listener = self._stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(8)
        listener.settimeout(0.1)

        def answer() -> None:
            while not self._over.is_set():
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.settimeout(0.5)
                    while not self._over.is_set() and connection.recv(4096):
                        connection.sendall(random.randbytes(65536))

        self._in_thread(answer)

    def _codes(self) -> bytes:
        return b"".join(b"SN%09d\r" % next(self._serial) for _ in range(99))

    def _flood(self, name: str, made: Callable[[], bytes]) -> None:
        master = self.readers[name]._master
        assert master is not None
        os.set_blocking(master, False)

        def send() -> None:
            while not self._over.is_set():
                if select.select([], [master], [], 0.1)[1]:
                    with contextlib.suppress(OSError):
                        os.write(master, made())

        self._in_thread(send)
