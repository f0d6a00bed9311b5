"""What docs/guarantees.md promises is tortured under the name it gives, and every scenario is on the page."""

from __future__ import annotations

import re
from pathlib import Path

from fault.scenarios import load

PAGE = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text(encoding="utf-8")


def test_every_scenario_is_on_the_page_and_nothing_else() -> None:
    table = PAGE[PAGE.index("## What it survives") : PAGE.index("## Under which conditions")]
    named = {name for row in table.splitlines() for name in re.findall(r"`([a-z0-9_]+)`", row.rpartition(" | ")[2])}
    assert named == set(load())
