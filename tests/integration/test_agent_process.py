"""The agent as a process: what it refuses, what it survives, how it stops. Everything real, on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.control import AgentNotRunning, ask

CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {data}}}
buffer: {{min_free: 10MiB, ballast: 1MiB}}
devices:
  wave:
    driver: simulated
    groups: {{all: {{poll: 50ms, tags: {{a: {{store: always}}}}}}}}
{devices}
stations: {{}}
routes: {routes}
"""
NOWHERE = """\
  gone:
    driver: modbus
    connection: "tcp://127.0.0.1:9"
    groups: {g: {poll: 1s, tags: {x: {address: "holding:0", type: uint16}}}}
  unplugged: {driver: scanner, port: /dev/edge-agent-test-absent, frame: {end: "\\r\\n"}}
"""


class Run:
    """One `edge-agent run`, with its log in a file."""

    def __init__(self, folder: Path, devices: str = "", routes: str = "{}") -> None:
        self.data = folder / "data"
        self.log = folder / "agent.log"
        config = folder / "config.yaml"
        config.write_text(CONFIG.format(data=self.data, devices=devices, routes=routes))
        self.argv = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.argv, stderr=log)

    def status(self) -> dict[str, Any]:
        return ask(self.data, "status")

    def wait(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 15.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                status = self.status()
            except AgentNotRunning:
                assert self.process.poll() is None, self.log.read_text()
            else:
                if condition(status):
                    return status
            time.sleep(0.05)
        raise AssertionError(f"never came true; {self.log.read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(**options: str) -> Run:
        runs.append(Run(tmp_path, **options))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait()


def test_dead_devices_cost_the_living_ones_nothing(start: Callable[..., Run]) -> None:
    run = start(devices=NOWHERE)
    status = run.wait(lambda s: s["devices"]["wave"]["samples"] > 20)
    assert status["devices"]["wave"]["state"] == "connected"
    for name in ("gone", "unplugged"):
        device = status["devices"][name]
        assert device["state"] == "connecting"
        assert device["error"] and device["hint"], device
    assert run.stop() == 0
    log = run.log.read_text()
    assert log.count("device=gone") == 1, "the first failure is told once, not each retry"


def test_a_second_agent_on_the_same_data_dir_is_refused(start: Callable[..., Run]) -> None:
    run = start()
    run.wait(lambda s: s["devices"]["wave"]["samples"] > 0)
    second = subprocess.run(run.argv, capture_output=True, text=True, timeout=20)
    assert second.returncode == 75
    assert str(run.process.pid) in second.stderr and "→" in second.stderr and "Traceback" not in second.stderr
    assert run.status()["state"] == "running"
    assert run.stop() == 0


def test_a_data_dir_that_cannot_be_written_is_told_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=tmp_path / "data", devices="", routes="{}"))
    argv = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        argv = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert done.returncode == 73, done.stderr
    assert "data" in done.stderr and "→" in done.stderr and "Traceback" not in done.stderr


def test_signals_without_end_still_leave_an_orderly_end(start: Callable[..., Run]) -> None:
    run = start()
    run.wait(lambda s: s["devices"]["wave"]["samples"] > 0)
    while run.process.poll() is None:
        run.process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert run.process.returncode == 0, run.log.read_text()


STUBBORN = """
import asyncio, sys
from pathlib import Path
from edge_agent import agent, logs
from edge_agent.config import load

async def never(self):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

agent.ABANDON_S = agent.COLLECTORS_STOP_S = 0.5
agent.Collector.run = never
logs.configure()
asyncio.run(agent.Agent(load(Path(sys.argv[1]))).run())
"""


def test_a_driver_that_cannot_be_cancelled_does_not_hold_up_the_stop(start: Callable[..., Run], tmp_path: Path) -> None:
    start().process.kill()  # only to have a config written
    log = tmp_path / "stubborn.log"
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-c", STUBBORN, str(tmp_path / "config.yaml")], stderr=stderr)
    try:
        while "running" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
        assert "leaving what hangs behind" in log.read_text()
    finally:
        process.kill()


def test_kill_and_restart_continue_the_log(start: Callable[..., Run]) -> None:
    run = start()
    first = run.wait(lambda s: s["devices"]["wave"]["samples"] > 10)
    run.process.kill()
    run.process.wait()
    again = start()
    status = again.wait(lambda s: s["devices"]["wave"]["samples"] > 10)
    assert status["log"] != first["log"]
    assert status["buffer"]["rows"] > first["devices"]["wave"]["samples"]
    assert again.stop() == 0


def test_a_broker_that_is_not_there_does_not_stop_collecting(start: Callable[..., Run]) -> None:
    run = start(routes='{mes: {sink: mqtt, url: "mqtt://127.0.0.1:9", start: now, send: [sample]}}')
    status = run.wait(lambda s: s["devices"]["wave"]["samples"] > 20 and s["routes"]["mes"]["pending"] > 10)
    assert status["routes"]["mes"]["last_error"]
    begin = time.monotonic()
    assert run.stop() == 0
    assert time.monotonic() - begin < 15, "the drain at stop is bounded"


def test_a_fault_in_the_engine_ends_the_process_and_says_what_it_was(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=tmp_path / "data", devices="", routes="{}"))
    program = f"""
import sys
from edge_agent.binding import Binder
from edge_agent.cli import main

def fail(*_):
    raise ZeroDivisionError("a fault of ours")

Binder.on_tick = fail
main(["run", "--config", {str(config)!r}])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "ZeroDivisionError: a fault of ours" in done.stderr.splitlines()[-2]
    assert "in fail" in done.stderr, "the journal shows where"
    assert "ExceptionGroup" not in done.stderr
