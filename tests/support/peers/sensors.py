"""The peer of the sensors driver: files, laid out as the kernel lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.peers.peer import Peer


def chip(root: Path, kind: str, number: int, name: str, at: str, files: dict[str, str]) -> Path:
    """One chip under ``root``, linked as sysfs links it; returns its folder."""
    home = root / "sys/devices" / at
    folder = home / (f"hwmon/hwmon{number}" if kind == "hwmon" else f"iio:device{number}")
    folder.mkdir(parents=True)
    for file, text in {"name": name, **files}.items():
        (folder / file).write_text(text + "\n")
    if kind == "hwmon":
        (folder / "device").symlink_to(home)
    bus = root / ("sys/class/hwmon" if kind == "hwmon" else "sys/bus/iio/devices")
    bus.mkdir(parents=True, exist_ok=True)
    (bus / folder.name).symlink_to(folder)
    return folder


class SensorsPeer(Peer):
    """A chip with two channels."""

    breakable = False  # a file is there or it is not: tests/unit/test_sensors.py

    def __init__(self, folder: Path) -> None:
        chip(folder, "hwmon", 0, "lm75", "1-0048", {"temp1_input": "23125", "fan1_input": "1200"})
        tags = {"air": {"source": "hwmon:lm75/temp1"}, "fan": {"source": "hwmon:lm75/fan1"}}
        self.settings = {"root": str(folder), "groups": {"climate": {"poll": "1s", "tags": tags}}}

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        (sample,) = answer
        assert isinstance(sample, Sample)
        assert sample.values == (23.125, 1200.0)
        assert sample.status is None
