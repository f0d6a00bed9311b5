"""`edge-agent demo`, a short one: the whole path with an outage and a crash in it, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.demo.counting import Counts, compare
from edge_agent.demo.received import read_readings, read_records
from edge_agent.demo.truth import TruthReader
from edge_agent.model import Kind
from support.contract import mistakes

DEMO = [sys.executable, "-m", "edge_agent", "demo", "--seconds", "15", "--seed", "3"]
LAST_LINE = re.compile(
    r"demo: units=(\d+) cycles=(\d+) readings=(\d+) confirmed=(\d+) "
    r"pending=0 lost=0 duplicates_after_dedup=0 misbound=0 shown=7/7"
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


def broken_promises(buffer: Path) -> set[str]:
    """What is wrong, by docs/contracts.md, with the bodies of the records that this line made."""
    with closing(sqlite3.connect(f"file:{buffer}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT kind, body FROM record").fetchall()
    assert len({kind for kind, _ in rows}) >= 10
    return {mistake for kind, body in rows for mistake in mistakes(Kind(kind).label, json.loads(body))}


def recount(directory: Path, doctor: str) -> Counts:
    """What the demo would have said of the same truth and a receiver's database that was tampered with."""
    database = directory / "doctored.db"
    shutil.copy(directory / "receiver.db", database)
    with closing(sqlite3.connect(database)) as db:
        changed = db.execute(doctor).rowcount
        db.commit()
    assert changed > 0, doctor
    truth = TruthReader(directory / "truth.jsonl").new()
    return compare(truth, read_records(database), read_readings(database))


@pytest.mark.long
def test_the_demo_binds_everything_through_an_outage_and_a_crash(tmp_path: Path, environment: dict[str, str]) -> None:
    kept = tmp_path / "kept"
    done = subprocess.run(
        [*DEMO, "--keep", str(kept)], env=environment, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    match = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert match, done.stdout
    units, cycles, readings, confirmed = map(int, match.groups())
    assert units >= 6
    assert cycles >= 2 * units
    assert readings > confirmed > cycles
    assert "the broker is killed" in done.stdout
    assert "taken out of the press" in done.stdout
    assert "was not scanned" in done.stdout
    assert "is stopped at the gate: it is on hold" in done.stdout
    assert re.search(r"^lot LOT-0001 is in \d+ units?$", done.stdout, re.MULTILINE)
    assert re.search(r"^└─ board: PCB\d{8}$", done.stdout, re.MULTILINE)
    assert not left_behind(tmp_path)
    assert not broken_promises(kept / "data" / "buffer.db")

    # the same run, had one sample, one serial or one cycle gone wrong
    assert recount(kept, "DELETE FROM record WHERE seq = 200").lost > 0
    assert recount(kept, "UPDATE cycle SET serial = 'SN00000001' WHERE serial = 'SN00000002'").misbound > 0
    late = "UPDATE cycle SET serial = 'SN99999999' WHERE station = 'OP40' AND binding_state = 'bound'"
    assert recount(kept, late).misbound > 0
    assert recount(kept, "DELETE FROM record WHERE kind = 'cycle_closed' AND source = 'OP20'").lost > 0
    again = "(agent, log, seq, kind, source, at_ns, mono_ns, synced, body)"
    copied = "agent, log, seq + 100000, kind, source, at_ns, mono_ns, synced, body"
    doubled = recount(kept, f"INSERT INTO record {again} SELECT {copied} FROM record WHERE source = 'press.state'")
    assert doubled.duplicates > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    def listen() -> None:  # also where this suite was started in the background, which ignores SIGINT
        signal.signal(signal.SIGINT, signal.default_int_handler)

    demo = subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=listen)
    assert demo.stdout is not None
    assert "units flow" in demo.stdout.readline()
    time.sleep(1.0)  # the players are in the middle of it
    demo.send_signal(number)
    assert demo.wait(20) == 130
    assert not left_behind(tmp_path)
    assert not list(tmp_path.iterdir())
