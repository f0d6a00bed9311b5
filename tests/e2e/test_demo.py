"""`edge-agent demo`, a short one: the whole path with an outage and a crash in it, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "edge_agent", "demo", "--seconds", "15", "--seed", "3"]
LAST_LINE = re.compile(
    r"demo: units=(\d+) cycles=(\d+) readings=(\d+) confirmed=(\d+) "
    r"pending=0 lost=0 duplicates_after_dedup=0 misbound=0"
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def left_behind(directory: Path) -> list[str]:
    """Processes that still mention the demo's directory on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


def test_the_demo_binds_everything_through_an_outage_and_a_crash(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    match = LAST_LINE.fullmatch(lines[-1])
    assert match, lines[-1]
    units, cycles, readings, confirmed = map(int, match.groups())
    assert units >= 8
    assert cycles >= 2 * units
    assert readings > confirmed > cycles
    told = done.stdout
    assert "the broker is killed" in told
    assert "taken out of the press" in told
    assert "was not scanned" in told
    assert not left_behind(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    demo = subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert "units flow" in demo.stdout.readline()
    time.sleep(1.0)  # the players are in the middle of it
    demo.send_signal(number)
    assert demo.wait(20) == 130
    assert not left_behind(tmp_path)
    assert not list(tmp_path.iterdir())
