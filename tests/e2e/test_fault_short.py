"""`make fault`, a short selection: the agent killed, its broker and its receiver too, an outage in one direction."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "fault" / "run.py"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
SCENARIOS = ["kill_random", "receiver_rejects_one", "network_cut_one_way_in"]

pytestmark = pytest.mark.skipif(shutil.which("mosquitto", path=PATH) is None, reason="mosquitto is not installed")


def run(*arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, str(RUN), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.long
def test_a_selection_loses_nothing() -> None:
    code, lines = run("--only", ",".join(SCENARIOS), "--kills", "3", "--seed", "11")
    assert code == 0, "\n".join(lines)
    figures = r"accepted=(\d+) confirmed=(\d+) pending=0 dead=(\d+) dropped_recorded=0 lost=0 "
    for name in SCENARIOS:
        line = next(line for line in lines if line.startswith(f"{name} "))
        found = re.search(figures + r"duplicates_after_dedup=0 misbound=0", line)
        assert found, line
        accepted, confirmed, dead = (int(number) for number in found.groups())
        assert accepted == confirmed + dead > 50
    assert re.fullmatch(
        r"fault: scenarios=3 kills=3 accepted=\d+ confirmed=\d+ lost=0 duplicates_after_dedup=0 misbound=0", lines[-1]
    )


def test_every_scenario_has_a_name_and_says_what_it_is() -> None:
    code, lines = run("--list")
    assert code == 0
    assert len(lines) > 20 and all(len(line.split()) > 4 for line in lines)


def test_an_unknown_scenario_is_no_success() -> None:
    code, lines = run("--only", "no_such_thing")
    assert code != 0 and "no_such_thing" in lines[-1]
