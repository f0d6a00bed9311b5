"""`route`, `deadletter` and `buffer verify` as a technician types them: a real agent, a real broker, a real receiver
that rejects one kind of record until it is mended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_agent import cli, i18n
from edge_agent.cli import ExitCode
from edge_agent.receiver import Receiver, RecordRejected
from support.mosquitto import Mosquitto

CONFIG = """
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
buffer: {max_size: 200MB, min_free: 1MB, ballast: 1MB}
devices:
  press:
    driver: simulated
    groups:
      state: {poll: 50ms, tags: {done: {wave: square, period: 600ms}, temp: {unit: °C, store: always}}}
      result: {on_trigger: true, tags: {force: {unit: kN, low: 12, high: 18}, sn: {wave: count}}}
stations:
  OP20:
    step: press-fit
    identity: {when: in_data, tag: press.sn}
    cycle: {end: {tag: press.done, read: press.result}, timeout: 5min}
    collect: {peak_force: {tag: press.force, required: true, limits: [10, 20]}}
routes:
  mes: {sink: mqtt, url: "URL", start: now, confirm_timeout: 2s, send: [cycle_closed, binding, sample, finding]}
  qms: {sink: mqtt, url: "mqtt://127.0.0.1:1", start: now, send: [cycle_closed]}
"""
ENVIRONMENT = os.environ | {"LANGUAGE": "en", "COLUMNS": "160"}
REFUSED = "unknown part number"


class Told(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


class Line:
    """An agent, a broker, a receiver; and the keyboard."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.database = folder, folder / "data", folder / "received.db"
        self.config = folder / "config.yaml"
        self.refusing = True
        self.broker = Mosquitto(folder)
        self.agent: subprocess.Popen[bytes] | None = None

    def type(self, *arguments: str) -> Told:
        """One command, its language chosen by the environment; in this process, as that is ten times quicker."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.main(["--config", str(self.config), *arguments])
        i18n.use("en")
        return Told(int(end.value.code or 0), out.getvalue(), err.getvalue())

    def facts(self, *arguments: str) -> dict[str, Any]:
        done = self.type(*arguments, "--json")
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def route(self, name: str = "mes") -> dict[str, Any]:
        routes = {route["route"]: route for route in self.facts("route", "list")["routes"]}
        found: dict[str, Any] = routes[name]
        return found

    def start(self) -> None:
        self.config.write_text(CONFIG.replace("DATA", str(self.data)).replace("URL", self.broker.url))
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "edge_agent", "--config", str(self.config), "run"]
            self.agent = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)

    def stop(self) -> None:
        if self.agent is not None:
            for _ in range(2):
                self.agent.send_signal(signal.SIGTERM)
                time.sleep(0.1)
            self.agent.wait(20)

    def on_record(self, _db: object, record: Any) -> None:
        if self.refusing and record.kind == "cycle_closed":
            raise RecordRejected(REFUSED)

    def received(self, where: str = "1") -> int:
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as db:
            return int(db.execute(f"SELECT count(*) FROM record WHERE {where}").fetchone()[0])


def until(met: Callable[[], Any], what: str) -> Any:
    """What ``met`` gives once it is true."""
    deadline_s = time.monotonic() + 25
    while not (found := met()):
        assert time.monotonic() < deadline_s, what
        time.sleep(0.1)
    return found


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A line whose receiver has refused at least two finished cycles."""
    made = Line(tmp_path_factory.mktemp("line"))
    with made.broker:
        receiver = Receiver(made.broker.url, "acme/#", made.database, on_record=made.on_record)
        thread = threading.Thread(target=receiver.run)
        thread.start()
        try:
            made.start()
            until(lambda: receiver.counts["records"] > 20, "records arrive")
            until(lambda: len(made.facts("deadletter", "list")["dead_letters"]) >= 2, "cycles are refused")
            yield made
        finally:
            made.stop()
            receiver.stop()
            thread.join(20)


def test_a_rejected_record_is_listed_shown_mended_and_retried(line: Line) -> None:
    listed = line.type("deadletter", "list", "mes")
    assert listed.returncode == ExitCode.OK
    assert REFUSED in listed.stdout and "cycle_closed" in listed.stdout and "OP20" in listed.stdout
    assert "edge-agent deadletter retry mes --all" in listed.stdout
    status = line.type("status")
    assert status.returncode == ExitCode.PROBLEM and "deadletter list mes" in status.stdout

    first = line.facts("deadletter", "list", "--reason", "PART")["dead_letters"][0]
    shown = line.type("deadletter", "show", first["id"])
    assert '"station": "OP20"' in shown.stdout and REFUSED in shown.stdout
    assert f"edge-agent deadletter retry mes {first['id']}" in shown.stdout
    assert line.facts("deadletter", "list", "--reason", "something else")["dead_letters"] == []
    assert line.facts("deadletter", "list", "qms")["dead_letters"] == []

    # still refusing: a new dead letter stands, the old one is noted as retried
    done = line.type("deadletter", "retry", "mes", first["id"])
    assert done.returncode == ExitCode.OK and "1 record goes to mes once more" in done.stdout

    def refused_again() -> bool:
        found = line.facts("deadletter", "show", first["id"])["dead_letters"]
        return [letter["retried_at_ns"] is None for letter in found] == [False, True]

    until(refused_again, "the retried record is refused once more")
    line.refusing = False
    line.type("deadletter", "retry", "mes", "--all")
    until(lambda: line.route()["dead_letters"] == 0 and line.facts("status")["routes"]["mes"]["dead"] == 0, "no dead")
    until(lambda: line.received(f"kind = 'cycle_closed' AND seq = {first['seq']}") == 1, "it arrives, once")
    everything = line.facts("deadletter", "list", "mes", "--all")["dead_letters"]
    assert len(everything) >= 3 and all(letter["retried_at_ns"] for letter in everything)
    assert "retried 2" in line.type("deadletter", "list", "mes", "--all").stdout


def test_letters_are_exported_and_nothing_is_overwritten(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "refused.jsonl"
    done = line.type("deadletter", "export", "mes", "--all", "--to", str(path))
    assert done.returncode == ExitCode.OK and str(path) in done.stdout
    letters = [json.loads(one) for one in path.read_text().splitlines()]
    assert letters == line.facts("deadletter", "list", "mes", "--all")["dead_letters"]
    assert letters[0]["body"]["station"] == "OP20" and isinstance(letters[0]["at_ns"], str)
    before = path.read_bytes()
    again = line.type("deadletter", "export", "mes", "--to", str(path))
    assert again.returncode == ExitCode.USAGE and "is there already" in again.stderr and "→" in again.stderr
    assert path.read_bytes() == before
    nowhere = line.type("deadletter", "export", "mes", "--to", str(tmp_path / "no" / "where"))
    assert nowhere.returncode == ExitCode.CANNOT_CREATE and "→" in nowhere.stderr


def test_a_part_of_the_log_is_sent_once_more_and_does_no_harm(line: Line) -> None:
    received = line.received()
    answer = line.facts("route", "replay", "mes", "--since", "1h")
    assert answer["first_seq"] == 1 and answer["last_seq"] >= received
    until(lambda: [lane["purpose"] for lane in line.route()["lanes"]] == ["log"], "the replay is through")
    with sqlite3.connect(f"file:{line.database}?mode=ro", uri=True) as db:
        (streams,) = db.execute(
            "SELECT count(*) FROM stream WHERE stream = ?", (answer["lanes"][0]["stream"],)
        ).fetchone()
        (twice,) = db.execute("SELECT count(*) - count(DISTINCT seq) FROM record").fetchone()
    assert (streams, twice) == (1, 0)
    done = line.type("route", "replay", "mes", "--from", "1h", "--to", "0s")
    assert done.returncode == ExitCode.OK and "edge-agent route list" in done.stdout


def test_the_list_says_where_every_route_stands(line: Line) -> None:
    done = line.type("route", "list")
    assert done.returncode == ExitCode.OK
    rows = {row.split()[0]: row.split() for row in done.stdout.splitlines() if row.strip()}
    assert rows["mes"][1:4] == ["mqtt", "live_first", "connected"]
    assert rows["qms"][3] != "connected" and int(rows["qms"][4]) > 0
    assert "what is new" in done.stdout and "→" in done.stdout
    assert line.type("route", "list", "--lang", "zh").stdout.startswith("路由")


def test_what_a_route_has_pending_is_given_up_by_name_and_reason_only(line: Line) -> None:
    assert line.type("route", "drop", "qms").returncode == ExitCode.USAGE  # no reason
    asked = line.type("route", "drop", "qms", "--reason", "replaced")
    assert asked.returncode == ExitCode.USAGE and "--yes" in asked.stderr  # nobody is there
    pending = line.route("qms")["pending"]
    assert pending > 0
    answer = line.facts("route", "drop", "qms", "--reason", "replaced by mes", "--yes")
    assert abs(answer["dropped"] - pending) < 20 and answer["removed"] is False  # some came meanwhile
    assert line.route("qms")["pending"] < answer["dropped"] + 20  # what came since
    with sqlite3.connect(f"file:{line.data / 'buffer.db'}?mode=ro", uri=True) as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM record WHERE kind = 15 ORDER BY seq")]
    actions = [body["action"] for body in bodies]
    assert {"route_replay", "route_drop", "deadletter_retry"} <= set(actions)
    assert all(f"(uid {os.getuid()})" in body["who"] for body in bodies)
    dropped = bodies[actions.index("route_drop")]
    assert (dropped["reason"], dropped["old"]["route"]) == ("replaced by mes", "qms")


def on_a_terminal(line: Line, answer: str, *arguments: str) -> tuple[int, str]:
    """One command as a person at a terminal sees it, in a process of its own."""
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "edge_agent", "--config", str(line.config), *arguments]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=ENVIRONMENT)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed: the command has ended
        while part := os.read(keyboard, 4096):
            shown += part
            if answer and b"[y/N]" in shown:  # what is typed before the question may be thrown away
                os.write(keyboard, answer.encode())
                answer = ""
    os.close(keyboard)
    return process.wait(30), shown.decode()


def test_a_drop_asks_first_and_no_is_no(line: Line) -> None:
    until(lambda: line.route("qms")["pending"] > 1, "something is pending")
    code, shown = on_a_terminal(line, "n\n", "route", "drop", "qms", "--reason", "a slip")
    assert code == ExitCode.PROBLEM and "qms will never send its" in shown
    assert line.route("qms")["pending"] > 1
    with sqlite3.connect(f"file:{line.data / 'buffer.db'}?mode=ro", uri=True) as db:
        assert not db.execute("SELECT 1 FROM record WHERE kind = 15 AND body LIKE '%a slip%'").fetchone()
    code, shown = on_a_terminal(line, "y\n", "route", "drop", "qms", "--reason", "meant")
    assert code == ExitCode.OK and "given up for qms" in shown


def test_verifying_on_a_terminal_shows_how_far_it_is(line: Line) -> None:
    code, shown = on_a_terminal(line, "", "buffer", "verify")
    assert code == ExitCode.OK and "OK" in shown
    assert "\x1b[" in shown and "ledger" in shown


def test_the_buffer_is_verified_beside_the_agent_and_against_the_receiver(line: Line) -> None:
    until(lambda: line.route()["pending"] < 50, "most is delivered")
    done = line.type("buffer", "verify", "--against", str(line.database))
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    assert done.stdout.startswith("OK  ") and "agree" in done.stdout and done.stderr == ""
    facts = line.facts("buffer", "verify", "--against", str(line.database))
    assert facts["intact"] and facts["damages"] == [] and facts["against"]["records"] > 50


@pytest.mark.parametrize(
    "arguments, code, told",
    [
        (["route", "replay", "mes"], ExitCode.USAGE, "--since"),
        (["route", "replay", "mes", "--since", "yesterday"], ExitCode.USAGE, "write --since 2h"),
        (["route", "replay", "mes", "--since", "1h", "--until", "2h"], ExitCode.USAGE, "swap"),
        (["route", "replay", "mes", "--since", "400d", "--until", "399d"], ExitCode.PROBLEM, "buffer stats"),
        (["route", "replay", "mse", "--since", "2h"], ExitCode.PROBLEM, "edge-agent route list"),
        (["route", "drop", "mse", "--reason", "x", "--yes"], ExitCode.USAGE, "edge-agent route list"),
        (["deadletter", "retry", "mes"], ExitCode.USAGE, "--all"),
        (["deadletter", "retry", "mes", "aaaaaaaaaaaa-5"], ExitCode.PROBLEM, "edge-agent deadletter list mes"),
        (["deadletter", "retry", "mes", "aaaaaaaaaaaa-5", "--all"], ExitCode.USAGE, "not both"),
        (["deadletter", "list", "mse"], ExitCode.USAGE, "edge-agent route list"),
        (["deadletter", "export", "mse", "--to", "/nonexistent/x"], ExitCode.USAGE, "edge-agent route list"),
        (["deadletter", "export", "mes", "--to", "/nonexistent/x"], ExitCode.CANNOT_CREATE, "ls -ld /nonexistent"),
        (["route", "replay", "mes", "--since", "99:99"], ExitCode.USAGE, "--since '99:99' is no time"),
        (["deadletter", "show", "nonsense"], ExitCode.USAGE, "edge-agent deadletter list"),
        (["deadletter", "show", "aaaaaaaaaaaa-5"], ExitCode.PROBLEM, "edge-agent deadletter list --all"),
        (["buffer", "verify", "--against", "/nonexistent"], ExitCode.UNAVAILABLE, "ls -l /nonexistent"),
        (["buffer", "verify", "--data-dir", "/nonexistent"], ExitCode.UNAVAILABLE, "--data-dir"),
    ],
)
def test_every_error_says_what_to_type_next(line: Line, arguments: list[str], code: int, told: str) -> None:
    done = line.type(*arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert done.stdout == ""


def test_of_a_stopped_agent_the_lists_still_tell_and_the_rest_says_how_to_start_it(line: Line) -> None:
    line.stop()
    routes = line.facts("route", "list")
    assert routes["agent_running"] is False
    assert {route["route"]: route["state"] for route in routes["routes"]} == {"mes": "stopped", "qms": "stopped"}
    assert line.type("deadletter", "list", "--all").returncode == ExitCode.OK
    assert line.type("buffer", "verify").returncode == ExitCode.OK
    for arguments in (
        ["route", "replay", "mes", "--since", "2h"],
        ["route", "drop", "mes", "--reason", "x", "--yes"],
        ["deadletter", "retry", "mes", "--all"],
    ):
        done = line.type(*arguments)
        assert done.returncode == ExitCode.UNAVAILABLE
        assert "systemctl start edge-agent" in done.stderr and str(line.config) in done.stderr
