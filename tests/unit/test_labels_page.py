"""docs/labels.md: its configuration loads, its labels are read as it says, its flags are all there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent.cli.labels import flag_text, typed
from edge_agent.config import load
from edge_agent.identify.label import Labels
from edge_agent.model import Instant, Scan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
HEAD = """
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /nowhere}
devices: {gate: {driver: scanner, port: /dev/null}}
"""
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| `")]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    path = tmp_path_factory.mktemp("page") / "config.yaml"
    path.write_text(HEAD + "".join(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)), encoding="utf-8")
    return load(path).plan.labels


def scan(cell: str) -> Scan:
    return Scan("gate", Instant(1_795_000_000 * 10**9, 0), typed(cell.strip("`")))


def test_the_labels_of_the_page_are_read_as_it_says(labels: Labels) -> None:
    rows = [row for row in ROWS if len(row) == 3 and "=" in row[2]]
    assert len(rows) >= 8 and {row[1] for row in rows} == set(labels.names)
    for label, rule, gives in rows:
        (found,) = labels.read(scan(label))
        assert (found.rule, found.flags, found.doubtful) == (rule, (), False), label
        assert found.identifiers == dict(one.split("=") for one in gives.strip(" |").split(" ")), label


def test_what_the_page_calls_repaired_or_doubtful_is_so(labels: Labels) -> None:
    rows = [row for row in ROWS if len(row) == 4 and row[1] in labels.names]
    assert len(rows) >= 6
    for label, rule, flags, believed in rows:
        (found,) = labels.read(scan(label))
        assert (found.rule, found.doubtful) == (rule, believed.strip(" |") == "doubtful"), label
        assert sorted(found.flags) == sorted(flags.split()), label


def test_every_flag_is_on_the_page_and_has_its_words() -> None:
    flags = {row[0].strip("`") for row in ROWS if re.fullmatch(r"`[a-z_]+`", row[0])}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edge_agent" / "identify").glob("*.py"))
    made = set(re.findall(r'(?:flags|doubts)\.append\("([a-z_]+)"', source)) | {"no_identifier", "control_character"}
    assert flags == made | {"rules_disagree", "check_digit"}
    assert all(flag_text(flag) != flag for flag in flags)
