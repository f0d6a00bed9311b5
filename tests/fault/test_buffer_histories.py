"""Some short random histories of a buffer; the long ones are a program: ``python tests/fault/histories.py``."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from fault.histories import history


@pytest.mark.parametrize("place", range(4))
def test_a_random_history_loses_nothing_and_keeps_every_number(tmp_path: Path, place: int) -> None:
    seed = random.SystemRandom().randrange(2**32) if place else 6
    print(f"python tests/fault/histories.py --seed {seed} --steps 60")
    asyncio.run(history(tmp_path, seed, 60))
