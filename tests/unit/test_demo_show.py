"""What the watcher of the demo sees."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from edge_agent import i18n
from edge_agent.demo.play import new_scene
from edge_agent.demo.show import EVENTS, LiveStage, Scene


@pytest.fixture
def chinese() -> Iterator[None]:
    i18n.use("zh")
    yield
    i18n.use("en")


def status_of(run: str, *, confirmed: int, samples: int) -> dict[str, Any]:
    route = {"pending": 0, "confirmed_n": confirmed, "stream": f"{run}.mes.1"}
    devices = {"press": {"samples": samples}, "marker": {"samples": 1}}
    return {"state": "running", "log": run, "routes": {"mes": route}, "devices": devices, "stations": {}}


def shown(scene: Scene, *events: str) -> str:
    """What stands in a terminal of 100 columns."""
    file = io.StringIO()
    with LiveStage(scene, Console(file=file, width=100, height=40, force_terminal=True, color_system=None)) as stage:
        for event in events:
            stage.tell(event)
    return file.getvalue()


def test_counters_never_fall_back_when_the_agent_is_killed() -> None:
    scene = new_scene()
    seen = []
    for status in (
        status_of("one", confirmed=100, samples=50),
        status_of("one", confirmed=90, samples=60),  # a new connection begins at the last progress
        None,
        status_of("two", confirmed=0, samples=0),
        status_of("two", confirmed=7, samples=5),
    ):
        scene.take_status(status)
        seen.append((scene.confirmed, scene.samples))
    assert seen == [(100, 51), (100, 61), (100, 61), (100, 62), (107, 67)]


def test_a_long_event_is_told_to_its_end() -> None:
    words = [f"word{number}" for number in range(30)]
    last = shown(new_scene(), " ".join(words)).rpartition("╭")[2]
    assert [word for word in last.replace("│", " ").split() if word.startswith("word")] == words
    assert "…" not in last


def test_the_panel_keeps_its_height() -> None:
    few, many = (shown(new_scene(), *["word " * 40] * count).rpartition("╭")[2] for count in (1, EVENTS))
    assert few.count("\n") == many.count("\n")


@pytest.mark.usefixtures("chinese")
def test_the_agents_state_is_told_in_chinese() -> None:
    scene = new_scene()
    scene.take_status(status_of("one", confirmed=1, samples=1))
    told = shown(scene)
    assert "running" not in told
    assert i18n._("running") in told
