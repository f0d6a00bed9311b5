"""Logs are written by a real process to a real pipe: what a technician, a journal or a hung terminal would get."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PREAMBLE = """
import logging, os, sys, time
from edge_agent import logs
from edge_agent.errors import DeviceRefused, DeviceUnavailable
log = logs.Log("edge_agent.test")
"""


def run(code: str, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stderr.split("\n")[:-1]


def test_a_line_is_time_level_event_and_fields() -> None:
    (line,) = run('logs.configure(); log.info("device connected", device="press", after_s=2.5)')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info device connected device=press after_s=2\.5", line)


def test_a_value_cannot_forge_a_line_or_send_terminal_codes() -> None:
    (line,) = run(r'logs.configure(); log.info("scan", text="A\n2026-01-01 error fake=1 \x1b[31m\x9b\u2028\"")')
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", line)
    assert line.endswith(r'text="A\n2026-01-01 error fake=1 \u001b[31m\u009b\u2028\""')


def test_a_value_has_a_bound() -> None:
    (line,) = run('logs.configure(); log.info("scan", text="x" * 1_000_000)')
    assert len(line) < 700
    assert "(1000000 characters)" in line


def test_a_broken_string_is_still_logged() -> None:
    (line,) = run(r'logs.configure(); log.info("scan", text="\udc80")')
    assert "dc80" in line


def test_an_error_gives_its_message_and_its_hint_apart() -> None:
    (line,) = run('logs.configure(); log.warning("failed", error=DeviceRefused("press", "no", hint="set unit_id"))')
    assert line.endswith('error="press: no" hint="set unit_id"')


def test_below_the_level_nothing_is_logged() -> None:
    lines = run('logs.configure("warning"); log.info("a"); log.debug("b"); log.warning("c"); log.error("d")')
    assert [line.split()[1] for line in lines] == ["warning", "error"]


def test_libraries_are_heard_from_warning_up_and_mapped_ones_not_at_all() -> None:
    lines = run(
        'logs.configure(); library = logging.getLogger("asyncio"); library.warning("slow %d", 3); library.info("no")\n'
        'logging.getLogger("pymodbus.logging").error("hex dump")'
    )
    assert [line.split(maxsplit=1)[1] for line in lines] == ["warning slow 3"]


def test_json_lines() -> None:
    (line,) = run('logs.configure(as_json=True); log.error("x", device="press", at="forged", since=1, none=None)')
    event = json.loads(line)
    assert event["at"].endswith("Z")
    assert {key: event[key] for key in ("level", "event", "logger", "device", "since", "none")} == {
        "level": "error",
        "event": "x",
        "logger": "edge_agent.test",
        "device": "press",
        "since": 1,
        "none": None,
    }


def test_a_crash_shows_where() -> None:
    code = 'logs.configure({})\ntry: 1 / 0\nexcept ZeroDivisionError as error: log.crashed("driver died", error)'
    lines = run(code.format(""))
    assert "error driver died" in lines[0]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    (line,) = run(code.format("as_json=True"))
    assert "ZeroDivisionError" in json.loads(line)["traceback"]


def test_under_the_journal_every_line_has_its_level_and_no_time() -> None:
    # the variable names the stream itself, so that a child with another stderr is not mistaken
    own = 'stat = os.fstat(2); os.environ["JOURNAL_STREAM"] = f"{stat.st_dev}:{stat.st_ino}"\n'
    lines = run(
        own + 'logs.configure(); log.info("a"); log.warning("b")\ntry: 1/0\nexcept Exception as e: log.crashed("c", e)'
    )
    assert lines[:2] == ["<6>info a", "<4>warning b"]
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines[2:])
    assert not run('logs.configure(); log.info("a")', JOURNAL_STREAM="1:1")[0].startswith("<")


def test_an_outage_is_told_twice() -> None:
    lines = run(
        'logs.configure(); outage = logs.Outage(log, "device", device="press")\n'
        "outage.recovered()\n"
        'for _ in range(1000): outage.failed(DeviceUnavailable("press", "no route"))\n'
        "outage.recovered(); outage.recovered()\n"
        'outage.failed(DeviceUnavailable("press", "again"))'
    )
    told = [line.split(maxsplit=1)[1] for line in lines]
    assert told[0] == 'warning device failed device=press error="press: no route"'
    assert re.fullmatch(r"info device recovered device=press failures=1000 after_s=\d+\.\d", told[1])
    assert told[2] == 'warning device failed device=press error="press: again"'
    assert len(told) == 3


def test_another_kind_of_failure_within_an_outage_is_told_once() -> None:
    lines = run(
        'logs.configure(); outage = logs.Outage(log, "device")\n'
        "for _ in range(5):\n"
        '    outage.failed(DeviceUnavailable("press", "a")); outage.failed(DeviceRefused("press", "b", hint="do c"))\n'
        "assert outage.failures == 10"
    )
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        'warning device failed error="press: a"',
        'warning device failed error="press: b" hint="do c"',
    ]


def test_a_hung_reader_does_not_hang_the_agent_and_what_was_lost_is_counted(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = (
        "logs.configure()\n"
        'for n in range(20_000): log.info("line", n=n, fill="x" * 100)\n'  # 64 KiB pipe + 2,000 queued < this
        f"open({str(done)!r}, 'w').close()\n"
        "sys.stdin.read()\n"  # until the test reads the pipe
        "logging.getLogger().handlers[0].flush()\n"
        'log.info("last")\n'
    )
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stderr is not None
            for _ in range(500):
                if done.exists():
                    break
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
            assert done.exists(), "logging waited for a reader"
            process.stdin.close()
            lines = process.stderr.read().splitlines()
        finally:
            process.kill()
    lost = sum(int(line.rpartition("=")[2]) for line in lines if "log lines lost" in line)
    written = sum(" info line " in line for line in lines)
    assert lost > 0
    assert lost + written == 20_000
    assert lines[-1].endswith("info last")


def test_a_process_whose_reader_never_reads_still_ends() -> None:
    code = 'logs.configure()\nfor n in range(20_000): log.info("line", n=n, fill="x" * 100)\n'
    with subprocess.Popen([sys.executable, "-c", PREAMBLE + code], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_closed_stderr_is_no_error() -> None:
    code = PREAMBLE + 'logs.configure()\nfor n in range(5): log.info("line"); time.sleep(0.01)\n'
    read, write = os.pipe()
    os.close(read)
    try:
        assert subprocess.run([sys.executable, "-c", code], stderr=write, timeout=20).returncode == 0
    finally:
        os.close(write)
