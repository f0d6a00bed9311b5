"""`status`, `buffer stats` and `trace` while a real agent runs, as another process asks it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import ExitCode
from edge_agent.control import AgentNotRunning, ask

CONFIG = """
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
buffer: {max_size: 200MB, min_free: 1MB, ballast: 1MB}
devices:
  press:
    driver: simulated
    groups:
      state: {poll: 50ms, tags: {done: {wave: square, period: 1s}, temp: {unit: °C, store: always}}}
      result: {on_trigger: true, tags: {force: {unit: kN, low: 12, high: 18}, sn: {wave: count}}}
stations:
  OP20:
    step: press-fit
    identity: {when: in_data, tag: press.sn}
    cycle: {end: {tag: press.done, read: press.result}, timeout: 5min}
    collect: {peak_force: {tag: press.force, required: true, limits: [10, 20]}}
EXTRA
"""
UNREACHABLE = """
  gone: {driver: scanner, port: /dev/edge-agent-test-nothing, frame: {end: "\\r"}}
"""
ROUTE = """
routes:
  mes: {sink: mqtt, url: "mqtt://127.0.0.1:1", confirm: receiver, start: now, send: [cycle_closed, binding]}
"""
ENVIRONMENT = os.environ | {"LANGUAGE": "en", "COLUMNS": "160"}


def _ask(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_agent", "--config", str(config), *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False, env=ENVIRONMENT,
    )  # fmt: skip


def _facts(config: Path, *arguments: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(_ask(config, *arguments, "--json").stdout)
    return facts


def _answers(data_dir: Path) -> bool:
    try:
        return bool(ask(data_dir, "status"))
    except AgentNotRunning:
        return False


def _start(config: Path) -> subprocess.Popen[bytes]:
    """An agent that answers on its control socket."""
    log = (config.parent / "log").open("wb")
    with log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "--config", str(config), "run"],
            stderr=log,
            stdout=log,
            env=ENVIRONMENT,
        )
    until = time.monotonic() + 20
    while not _answers(config.parent / "data"):
        if agent.poll() is not None or time.monotonic() > until:
            agent.kill()
            agent.wait()
            pytest.fail((config.parent / "log").read_text())
        time.sleep(0.05)
    return agent


def _stop(agent: subprocess.Popen[bytes]) -> int:
    agent.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    agent.send_signal(signal.SIGTERM)  # a second one skips the draining of routes
    try:
        return agent.wait(20)
    finally:
        agent.kill()


def _config(folder: Path, extra: str = "") -> Path:
    config = folder / "config.yaml"
    config.write_text(CONFIG.replace("DATA", str(folder / "data")).replace("EXTRA", extra), encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The config of an agent in good health that has finished a cycle."""
    config = _config(tmp_path_factory.mktemp("good"))
    agent = _start(config)
    try:
        until = time.monotonic() + 20
        while not _facts(config, "status")["stations"]["OP20"]["positions"]["1"]["counts"].get("bound"):
            assert time.monotonic() < until
        yield config
    finally:
        _stop(agent)


def test_a_healthy_agent_is_ok_at_a_glance(running: Path) -> None:
    done = _ask(running, "status")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert done.stdout.startswith("OK  l3-pc1  running for ")
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert rows["press"][1:3] == ["simulated", "connected"]
    assert rows["OP20"][1] == "empty"


def test_the_same_in_chinese(running: Path) -> None:
    done = _ask(running, "status", "--lang", "zh")
    assert done.stdout.startswith("正常  l3-pc1  运行 ")


def test_json_says_what_the_agent_says(running: Path) -> None:
    facts = _facts(running, "status")
    assert (facts["overall"], facts["troubles"], facts["agent"], facts["state"]) == ("OK", [], "l3-pc1", "running")
    assert isinstance(facts["started_at_ns"], str)
    assert facts["devices"]["press"]["samples"] > 0
    assert {"log", "boot", "version", "config", "config_path", "routes", "buffer", "clock", "findings"} <= facts.keys()


def test_buffer_stats_know_the_rate_while_the_agent_runs(running: Path) -> None:
    facts = _facts(running, "buffer", "stats")
    assert facts["agent_running"] is True
    assert facts["bytes_per_hour"] > 0
    assert facts["hours_left"] > 0
    done = _ask(running, "buffer", "stats")
    assert done.returncode == ExitCode.OK
    assert "/h" in done.stdout


def test_a_unit_can_be_traced_while_the_agent_writes(running: Path) -> None:
    serial = next(filter(None, (_facts(running, "trace", digit)["similar"] for digit in "123456789")))[0]
    (unit,) = _facts(running, "trace", serial)["units"]
    cycle = unit["cycles"][0]
    assert (cycle["binding_state"], cycle["collected"][0]["name"]) == ("bound", "peak_force")


def test_a_second_agent_is_refused_and_the_first_goes_on(running: Path) -> None:
    done = _ask(running, "run")
    assert done.returncode == ExitCode.BUSY
    assert "in use by another edge-agent" in done.stderr
    assert "→" in done.stderr
    assert _ask(running, "status").returncode == ExitCode.OK


def test_trouble_is_named_with_what_to_do(tmp_path: Path) -> None:
    config = _config(tmp_path, ROUTE)
    config.write_text(config.read_text().replace("stations:\n", f"{UNREACHABLE}stations:\n", 1))
    agent = _start(config)
    try:
        until = time.monotonic() + 20
        while len(_facts(config, "status")["troubles"]) < 2:
            assert time.monotonic() < until
        done = _ask(config, "status")
        assert done.returncode == ExitCode.PROBLEM
        assert done.stdout.startswith("DEGRADED  l3-pc1")
        assert "device gone" in done.stdout
        assert "route mes" in done.stdout
        assert done.stdout.count("→") >= 2
    finally:
        assert _stop(agent) == 0
    assert _facts(config, "status")["last_run"]["orderly"] is True
    assert not (tmp_path / "data" / "control.sock").exists()


def test_a_killed_agent_is_told_from_a_stopped_one(tmp_path: Path) -> None:
    config = _config(tmp_path)
    agent = _start(config)
    agent.kill()
    agent.wait()
    assert (tmp_path / "data" / "control.sock").exists()
    done = _ask(config, "status")
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "DOWN  l3-pc1  ended without a stop" in done.stdout
    again = _start(config)
    try:
        assert _ask(config, "status").returncode == ExitCode.OK
    finally:
        assert _stop(again) == 0
