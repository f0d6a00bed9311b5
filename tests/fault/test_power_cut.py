"""The power goes at a random moment, and the disk keeps what it likes of what was not synced: nothing accepted is lost.

The controls matter as much: with SQLite told to sync less, the same test must see losses, or it proves nothing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "power"))
import cuts

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the recorder: install gcc")

SEED = 20261121


def test_an_unlucky_disk_keeps_everything_that_was_accepted(tmp_path: Path) -> None:
    result = cuts.cut_power(tmp_path, "FULL", cuts=60, seed=SEED, commits=200)
    print(result)
    assert result.cuts == 60
    assert result.accepted == result.confirmed > 1000, result.first_bad
    assert (result.refused, result.invented, result.broken_ledgers, result.false_alarms) == (0, 0, 0, 0), (
        result.first_bad
    )


@pytest.mark.long
@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_the_same_cuts_show_a_loss_where_less_is_synced(tmp_path: Path, synchronous: str) -> None:
    result = cuts.cut_power(tmp_path, synchronous, cuts=25, seed=SEED, commits=120)
    print(result)
    assert result.cuts_with_loss > 5
