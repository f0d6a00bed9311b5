"""What docs/guarantees.md promises is tortured under the name it gives, and every scenario is on the page. So is every
answer of the truth test's oracle."""

from __future__ import annotations

import re
from pathlib import Path

from fault.scenarios import load
from truth.oracle import ORACLE

PAGE = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text(encoding="utf-8")


def test_every_scenario_is_on_the_page_and_nothing_else() -> None:
    table = PAGE[PAGE.index("## What it survives") : PAGE.index("## What binding promises")]
    named = {name for row in table.splitlines() for name in re.findall(r"`([a-z0-9_]+)`", row.rpartition(" | ")[2])}
    assert named == set(load())


def test_every_answer_of_the_oracle_is_on_the_page_and_nothing_else() -> None:
    section = PAGE[PAGE.index("## What binding promises") : PAGE.index("## Under which conditions")]
    promised: dict[str, dict[str, str]] = {}
    for name, *cells in re.findall(
        r"^\| \[`(\w+)`\]\(.*?\) \| (.*) \| (.*) \| (.*) \| (.*) \|$", section, re.MULTILINE
    ):
        columns = zip(("bound", "ambiguous", "nobody's", "none"), cells, strict=True)
        promised[name] = {what: work for work, cell in columns for what in re.findall(r"`(\w+)`", cell)}
    nobodys = {"orphan": "nobody's", "unbound": "nobody's"}
    assert promised == {
        name: {what: nobodys.get(cell.work, cell.work) for what, cell in row.items() if what != "none"}
        for name, row in ORACLE.items()
    }
