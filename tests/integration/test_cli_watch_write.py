"""`watch` and `write` on a real PLC: through a running agent, and with none; as a technician types them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import ExitCode, main
from edge_agent.control import AgentNotRunning, ask
from edge_agent.model import Kind
from support.modbus_plc import ModbusPlc
from support.pty_reader import PtyReader

CONFIG = """
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: "DIR/data"}
buffer: {max_size: 200MB, min_free: 1MB, ballast: 1MB}
devices:
  press:
    driver: modbus
    connection: tcp://127.0.0.1:PORT
    groups:
      state:
        poll: 50ms
        tags: {ready: {address: "coil:10"}, target: {address: "holding:200", type: int16, unit: kN, write: true}}
      result: {on_trigger: true, tags: {count: {address: "holding:98"}, gone: {address: "holding:505"}}}
    tags: {ack: {address: "coil:20", write: true}, lamp: {address: "coil:30", write: true}}
  gate: {driver: scanner, port: DIR/gate, frame: {end: "\\r"}}
stations:
  OP20:
    step: press-fit
    identity: {when: before, scan: gate}
    cycle: {end: {handshake: {ready: press.ready, ack: press.ack, counter: press.count, read: press.result}}}
"""
ENVIRONMENT = os.environ | {"LANGUAGE": "en", "COLUMNS": "160"}


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "edge_agent", "--config", str(config), *arguments]


def tell(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process, with nobody to ask: starting one of its own takes most of a second."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), Path(os.devnull).open() as nothing:
        stdin, sys.stdin = sys.stdin, nothing
        try:
            main(["--lang", "en", "--config", str(config), *arguments])
        except SystemExit as done:
            return subprocess.CompletedProcess(arguments, int(done.code or 0), out.getvalue(), err.getvalue())
        finally:
            sys.stdin = stdin


def told(config: Path, *arguments: str) -> dict[str, Any]:
    done = tell(config, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Bench:
    """A PLC, a reader, and the config that names them."""

    def __init__(self, folder: Path, plc: ModbusPlc) -> None:
        self.folder, self.reader = folder, PtyReader(folder / "gate")
        self.config = folder / "line.yaml"
        self.config.write_text(CONFIG.replace("DIR", str(folder)).replace("PORT", str(plc.port)))

    def audits(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.folder / 'data' / 'buffer.db'}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT seq, body FROM record WHERE kind = ? ORDER BY seq", (int(Kind.AUDIT),)).fetchall()
        return [{"seq": seq} | json.loads(body) for seq, body in rows]


@pytest.fixture(scope="module")
def plc() -> Iterator[ModbusPlc]:
    with ModbusPlc() as started:
        yield started


@pytest.fixture(scope="module")
def bench(plc: ModbusPlc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """With no agent."""
    made = Bench(tmp_path_factory.mktemp("bench"), plc)
    yield made
    made.reader.unplug()


@pytest.fixture(scope="module")
def line(plc: ModbusPlc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """With an agent that is connected to both."""
    made = Bench(tmp_path_factory.mktemp("line"), plc)
    with (made.folder / "log").open("wb") as log:
        agent = subprocess.Popen(command(made.config, "run"), stderr=log, stdout=log, env=ENVIRONMENT)
    try:
        until = time.monotonic() + 30
        while not _connected(made.folder / "data"):
            assert agent.poll() is None and time.monotonic() < until, (made.folder / "log").read_text()
            time.sleep(0.05)
        yield made
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.send_signal(signal.SIGTERM)
        try:
            agent.wait(20)
        finally:
            agent.kill()
            made.reader.unplug()


def _connected(data_dir: Path) -> bool:
    try:
        devices = ask(data_dir, "status")["devices"].values()
    except AgentNotRunning:
        return False
    return all(device["state"] == "connected" for device in devices) and any(device["samples"] for device in devices)


# --- watch ---------------------------------------------------------------------------------------------------


def test_what_the_agent_reads_is_shown_once(line: Bench) -> None:
    facts = told(line.config, "watch", "press", "--once", "--for", "1s")
    values = {one["tag"]: one for one in facts["values"]["state"]}
    assert values.keys() == {"ready", "target"}
    assert (values["target"]["type"], values["target"]["unit"], values["target"]["status"]) == ("int16", "kN", "")
    assert (facts["state"], facts["unread"]) == ("connected", ["result"]), "watching reads nothing more"
    assert facts["round_trip"]["mean_ms"] > 0
    done = tell(line.config, "watch", "press", "target", "--once", "--for", "1s")
    assert done.returncode == ExitCode.OK
    assert "through the running agent" in done.stdout
    assert re.search(r"^state\.target +\S+ kN +good", done.stdout, re.MULTILINE)
    assert "state.ready" not in done.stdout


def test_with_no_agent_the_device_is_read_directly_and_says_so(bench: Bench) -> None:
    done = tell(bench.config, "watch", "press", "--once")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "nothing is recorded" in done.stdout
    rows = {row.split()[0]: row for row in done.stdout.splitlines() if row.startswith(("state.", "result."))}
    assert rows.keys() == {"state.ready", "state.target", "result.count", "result.gone"}
    assert re.search(r" 98 +", rows["result.count"])
    assert re.search(r" – .*exception 2", rows["result.gone"]), "no value, and why"
    assert not (bench.folder / "data").exists()


def test_a_device_that_is_away_is_bad_news_with_its_reason(tmp_path: Path, plc: ModbusPlc) -> None:
    made = Bench(tmp_path, plc)
    made.reader.unplug()
    done = tell(made.config, "watch", "gate", "--once", "--for", "500ms")
    assert done.returncode == ExitCode.PROBLEM
    assert "gate" in done.stdout and "→" in done.stdout
    assert tell(made.config, "watch", "gte").returncode == ExitCode.USAGE
    done = tell(made.config, "watch", "press", "temp", "--once")
    assert (done.returncode, done.stdout) == (ExitCode.PROBLEM, "")
    assert "state.target" in done.stderr, "the names that there are"


@pytest.mark.parametrize("through_agent", [True, False])
def test_scans_and_changes_are_lines_in_a_pipe(line: Bench, bench: Bench, through_agent: bool) -> None:
    """One read of an event device and one change of a poll device, seen by who watches."""
    here = line if through_agent else bench
    watching = subprocess.Popen(
        command(here.config, "watch", "gate", "--json"), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert watching.stdout is not None
    try:
        for text in watching.stdout:
            event = json.loads(text)
            if event["event"] == "device" and event["state"] == "connected":
                here.reader.send(b"SN4711\r")
            if event["event"] == "scan":
                assert (event["text"], event["status"]) == ("SN4711", "read")
                break
    finally:
        watching.send_signal(signal.SIGINT)
        rest = watching.communicate(timeout=30)[0]
    assert watching.returncode == ExitCode.OK
    assert json.loads(rest.splitlines()[-1])["event"] == "device"


def test_a_change_is_a_line(line: Bench) -> None:
    watching = subprocess.Popen(
        command(line.config, "watch", "press", "target"), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert watching.stdout is not None
    try:
        shown = []
        for text in watching.stdout:
            shown.append(text)
            if "state.target" in text and sum("state.target" in one for one in shown) == 1:
                assert tell(line.config, "write", "press", "target", "777", "--reason", "x", "--yes").returncode == 0
            if "state.target 777 kN" in text:
                break
    finally:
        watching.send_signal(signal.SIGTERM)
        watching.communicate(timeout=30)
    assert watching.returncode == ExitCode.OK


def test_ctrl_c_leaves_the_terminal_clean(bench: Bench) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    before = termios.tcgetattr(slave)
    watching = subprocess.Popen(
        command(bench.config, "watch", "press"), stdin=slave, stdout=slave, stderr=slave,
        env=ENVIRONMENT | {"TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    shown = b""
    try:
        while b"state.target" not in shown:
            shown += os.read(master, 65536)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == ExitCode.OK
        os.set_blocking(master, False)
        shown += os.read(master, 1 << 20)
    finally:
        watching.kill()
        watching.wait()
        after = termios.tcgetattr(slave)
        os.close(master)
        os.close(slave)
    assert b"\x1b[?25l" in shown, "the cursor is hidden while the table is redrawn"
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "and is back"
    assert b"Traceback" not in shown
    assert after == before


# --- write ---------------------------------------------------------------------------------------------------


def test_a_write_is_on_record_before_and_after(line: Bench) -> None:
    value = told(line.config, "watch", "press", "target", "--once")["values"]["state"][0]["value"] + 1
    done = told(line.config, "write", "press", "target", str(value), "--reason", "new tool", "--yes")
    assert (done["new"], done["now"]["value"], done["recorded"]) == (value, value, True)
    asked, outcome = line.audits()[-2:]
    assert (asked["action"], asked["reason"], asked["seq"]) == ("write", "new tool", done["seq"])
    assert asked["who"]
    assert (asked["old"]["value"], asked["new"]) == (value - 1, {"device": "press", "tag": "target", "value": value})
    assert (outcome["action"], outcome["new"]["asked"]) == ("written", asked["seq"])


def test_what_only_is_written_can_be_written_below_zero_it_cannot(line: Bench) -> None:
    assert told(line.config, "write", "press", "lamp", "on", "--reason", "x", "--yes")["now"] is None
    done = tell(line.config, "write", "press", "target", "-5", "--reason", "x", "--yes")
    assert (done.returncode, "it shows -5 kN now" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["target", "40000", "--yes"], ExitCode.PROBLEM, "from -32768 to 32767"),
        (["ready", "true", "--yes"], ExitCode.PROBLEM, "is only read"),
        (["nothing", "1", "--yes"], ExitCode.PROBLEM, "ack, lamp, target"),
        (["ack", "true", "--yes"], ExitCode.PROBLEM, "is written by station OP20"),
        (["target", "5"], ExitCode.USAGE, "--yes"),
    ],
)
@pytest.mark.parametrize("through_agent", [True, False])
def test_what_cannot_be_written_is_refused(
    line: Bench, bench: Bench, through_agent: bool, arguments: list[str], code: int, says: str
) -> None:
    here = line if through_agent else bench
    before = line.audits()
    done = tell(here.config, "write", "press", *arguments, "--reason", "x")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert says in done.stderr
    assert line.audits() == before


def test_the_admin_may_free_a_line_that_hangs_and_the_record_says_so(line: Bench) -> None:
    told(line.config, "write", "press", "ack", "false", "--reason", "hangs", "--yes", "--force")
    asked, outcome = line.audits()[-2:]
    assert asked["new"]["forced"] is outcome["new"]["forced"] is True


def test_with_no_agent_a_write_says_that_it_is_not_recorded(bench: Bench) -> None:
    done = tell(bench.config, "write", "press", "target", "1234", "--reason", "x", "--yes")
    assert done.returncode == 0, done.stderr
    assert "1234 kN" in done.stdout
    assert "not recorded" in done.stdout
    assert told(bench.config, "write", "press", "target", "1235", "--reason", "x", "--yes")["old"]["value"] == 1234


def test_who_is_asked_may_say_no(bench: Bench) -> None:
    """On a terminal the old and the new value are shown, and nothing is written without a yes."""
    master, slave = pty.openpty()
    asking = subprocess.Popen(
        command(bench.config, "write", "press", "target", "4321", "--reason", "x"),
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    try:
        os.write(master, b"n\n")
        shown = asking.communicate(timeout=60)[0].decode()
    finally:
        asking.kill()
        os.close(master)
        os.close(slave)
    assert "→ 4321" in shown
    assert asking.returncode == 1
    values = told(bench.config, "watch", "press", "target", "--once")["values"]["state"]
    assert values[0]["value"] != 4321
