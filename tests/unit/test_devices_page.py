"""docs/devices.md is what the drivers say of themselves, and says something of each key."""

from __future__ import annotations

import re
from pathlib import Path

from edge_agent.config.manual import page
from edge_agent.driver import driver_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "devices.md"


def test_the_page_is_what_the_drivers_accept() -> None:
    assert PAGE.read_text() == page(), "make it anew: edge-agent schema --devices > docs/devices.md"


def test_every_driver_has_its_section_and_every_key_its_meaning() -> None:
    text = page()
    assert re.findall(r"^## (\w+)$", text, re.M)[0:] == driver_names()
    keys = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(keys) > 100
    assert not [line for line in keys if line.endswith("|  |") and not line.startswith("| `driver`")]
