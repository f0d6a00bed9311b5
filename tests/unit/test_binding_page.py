"""docs/binding.md: every sample loads, and what the page names exists."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field
from ruamel.yaml import YAML

from edge_agent.binding.findings import SEVERITY
from edge_agent.config import devices, load
from edge_agent.driver import Cadence, DriverSpec, Group, Settings, Shape, TagSettings, load_driver
from edge_agent.errors import ConfigError
from edge_agent.model import Tag, TagSet

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "binding.md").read_text(encoding="utf-8")
FRAME, *SAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TITLES = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)


class _Tag(TagSettings):
    type: Literal["string", "float64", "int64", "bool"] = "string"


class _Group(Settings):
    tags: dict[str, _Tag] = Field(min_length=1)


class _Tester(Settings):
    groups: dict[str, _Group]


def _describe(device: str, settings: Any) -> Shape:
    groups = {}
    for name, group in settings.groups.items():
        tags = tuple(Tag(tag, one.type, one.unit) for tag, one in group.tags.items())
        groups[name] = Group(TagSet(device, name, tags), None, dict(group.tags), spoken=True)
    return Shape(groups)


TESTER = DriverSpec("tester", Cadence.EVENT, lambda: _Tester, _describe, lambda device, settings: NotImplemented)
"""What the page's ``driver: tester`` stands for: one that speaks by itself."""


def merged(sample: str) -> str:
    """The frame and the sample as one file; what the sample adds to a section of the frame stands beside it."""
    reader, text = YAML(), StringIO()
    whole = reader.load(FRAME)
    for section, entries in YAML(typ="safe").load(sample).items():
        held = whole.setdefault(section, {})
        assert not held.keys() & entries.keys(), "the frame has it already"
        held.update(entries)
    reader.dump(whole, text)
    return text.getvalue()


@pytest.mark.parametrize("sample", SAMPLES, ids=[re.search(r"(?m)^  (\w+):", one)[1] for one in SAMPLES])  # type: ignore[index]
def test_a_sample_is_a_whole_station(sample: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "load_driver", lambda name: TESTER if name == "tester" else load_driver(name))
    path = tmp_path / "line.yaml"
    path.write_text(merged(sample), encoding="utf-8")
    config = load(path)
    assert config.stations
    unwanted = [one.what for one in config.warnings if "timeout" in one.what]
    assert not unwanted


def sample_of(station: str, *changes: tuple[str, str]) -> str:
    text = next(one for one in SAMPLES if f"\n  {station}:" in one)
    for before, then in changes:
        assert before in text, before
        text = text.replace(before, then)
    return merged(text)


def test_a_pulse_that_is_polled_slowly_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "line.yaml"

    def warned(*changes: tuple[str, str]) -> list[str]:
        path.write_text(sample_of("SCREW", *changes), encoding="utf-8")
        return [one.what for one in load(path).warnings if one.key == "registers.table.index"]

    pulse = ('{address: "input:1", type: uint16}', '{address: "discrete:1"}')
    assert warned(pulse, ("poll: 50ms", "poll: 200ms")) == [
        "dial.steps is read every 0.2 s: a pulse that is shorter is a step nobody saw"
    ]
    assert not warned(("poll: 50ms", "poll: 200ms")), "a counter tells of every step"
    assert not warned(pulse)


@pytest.mark.parametrize(
    ("station", "change", "words"),
    [
        ("LOAD", ("when: before, scan: {1: gate, 2", "when: after, scan: {1: gate, 2"), "after the work"),
        ("OP50", ("step: torque-test", "step: torque-test\n    carrier: {op: load, scan: gate}"), "message may come"),
    ],
)  # fmt: skip
def test_whom_a_carrier_may_have_left_without_is_not_loaded(
    station: str, change: tuple[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "load_driver", lambda name: TESTER if name == "tester" else load_driver(name))
    path = tmp_path / "line.yaml"
    path.write_text(sample_of(station, change), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [one for one in caught.value.problems if one.key == f"stations.{station}.carrier" and words in one.what]


def test_every_strategy_has_a_picture_a_sample_and_its_failures() -> None:
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[2:]:
        title = section.partition("\n")[0]
        assert re.search(r"^```\n", section, re.MULTILINE), f"{title} has no picture"
        assert "```yaml" in section, f"{title} has no sample"
        assert "| what goes wrong |" in section, f"{title} does not say what goes wrong"


def test_every_finding_that_the_page_names_exists() -> None:
    table = re.findall(r"^\|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE)
    named = {word for cell in table for word in re.findall(r"`([a-z]+_[a-z_]+)`", cell)}
    others = {"min_time", "max_wait", "in_data", "late_scan", "scan_out", "next_scan", "max_attempts"}
    assert named - others <= set(SEVERITY)
    assert {"skipped_scan", "duplicate_message", "retest_limit"} <= named
