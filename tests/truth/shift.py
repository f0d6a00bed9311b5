"""A shift: one PC, its stations of one strategy, one deck of disturbances each, by one seed; and its score."""

from __future__ import annotations

import itertools
import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from edge_agent.config.load import Config, load
from edge_agent.driver import Cadence, DriverSpec, Shape, load_driver
from truth.floor import FLOOR
from truth.line import Line
from truth.oracle import ORACLE
from truth.score import Received, Score
from truth.visits import BLIND, LEAVES_OPEN, RESTARTS, Station

HEAD = """
agent:
  id: truth
  location: {{enterprise: acme, site: suzhou, area: assembly, line: L3}}
  data_dir: "{folder}"
{more}
devices:
{devices}
stations:
{stations}
"""


@dataclass(frozen=True)
class Shift:
    """What is to be played: everything follows from it."""

    strategy: str
    seed: str
    visits: int  # a station
    share: float  # of visits that are disturbed
    first: tuple[str, ...] = ()  # disturbances that have to come


def play(shift: Shift) -> Score:
    """Play it; returns the score."""
    chance = random.Random(f"{shift.strategy} {shift.seed}")
    with Floor(FLOOR[shift.strategy], chance) as floor:
        for station, deck in zip(floor.stations, decks(FLOOR[shift.strategy], shift, chance), strict=True):
            station.deck = deck
        floor.line.run(*(station.script() for station in floor.stations))
        return floor.score()


class Floor:
    """One PC and its stations, started."""

    def __init__(self, kinds: tuple[type[Station], ...], chance: random.Random) -> None:
        self.received = Received()
        with tempfile.TemporaryDirectory(prefix="edge-agent-truth-") as folder:
            self.line = Line(configured(kinds, Path(folder)), chance, self.received.take)
        tokens = itertools.count(1)
        self.stations = [
            kind(self.line, number, random.Random(chance.random()), tokens) for number, kind in enumerate(kinds, 1)
        ]
        self.line.start()

    def __enter__(self) -> Floor:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def score(self) -> Score:
        """What came of it so far."""
        score = Score(self.received, self.stations)
        score.all_readings = self.line.readings
        return score


def configured(kinds: tuple[type[Station], ...], folder: Path) -> Config:
    """The YAML of these stations, as a technician would write it, loaded."""
    devices, stations, more = "", "", ""
    for number, kind in enumerate(kinds, 1):
        parts = kind.settings.replace("{n}", str(number)).split("---\n")
        devices += parts[0]
        stations += parts[1]
        more += parts[2] if len(parts) > 2 else ""
    path = folder / "line.yaml"
    path.write_text(HEAD.format(folder=folder, devices=devices, stations=stations, more=more and f"registers:\n{more}"))
    with mock.patch("edge_agent.config.devices.load_driver", _driver):
        return load(path)


def _driver(name: str) -> DriverSpec:
    """``tester``: what sends its groups by itself. Its wire is ours, so the shape of another driver will do."""
    if name != "tester":
        return load_driver(name)
    modbus = load_driver("modbus")

    def describe(device: str, settings: Any) -> Shape:
        shape = modbus.describe(device, settings)
        return replace(shape, groups={name: replace(group, spoken=True) for name, group in shape.groups.items()})

    return replace(modbus, cadence=Cadence.EVENT, describe=describe)


def decks(kinds: tuple[type[Station], ...], shift: Shift, chance: random.Random) -> list[list[str]]:
    """Disturbances by station. Those that restart the agent come to all its stations at once."""
    bags: list[list[str]] = [[] for _ in kinds]
    restart_bags: list[list[str]] = [[] for _ in kinds]
    restarting = [RESTARTS | kind.waits for kind in kinds]
    cells = [[name for name in ORACLE[shift.strategy] if name not in kind.skips and name != "none"] for kind in kinds]
    all_restart = any(name in restarting[0] for name in cells[0])
    restart_share = (
        shift.share * sum(name in restarting[0] for name in cells[0]) / len(cells[0]) if all_restart else 0.0
    )
    result: list[list[str]] = [["none"] for _ in kinds]

    def draw(place: int, bag: list[str], *, restart: bool) -> str:
        if not bag:
            bag += [name for name in cells[place] if (name in restarting[place]) is restart]
            chance.shuffle(bag)
        return bag.pop()

    for _ in range(max(1, shift.visits - 2)):
        together = chance.random() < restart_share
        for place, deck in enumerate(result):
            if together:
                deck.append(draw(place, restart_bags[place], restart=True))
            elif chance.random() < shift.share:
                name = draw(place, bags[place], restart=False)
                if name in BLIND and deck[-1] in LEAVES_OPEN:
                    bags[place].insert(0, name)
                    name = "none"
                deck.append(name)
            else:
                deck.append("none")
    for deck in result:
        deck.append("none")
    return result
