"""`make fault`, a short one: three kills under load."""

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


@pytest.mark.skipif(shutil.which("mosquitto", path=PATH) is None, reason="mosquitto is not installed")
def test_three_kills_lose_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--kills", "3", "--seed", "11"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    match = re.fullmatch(
        r"fault: kills=3 accepted=(\d+) confirmed=(\d+) lost=0 duplicates_after_dedup=0 misbound=0", last
    )
    assert match, last
    assert int(match[1]) == int(match[2]) > 50
