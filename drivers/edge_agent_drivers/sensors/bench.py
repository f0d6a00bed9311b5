"""What ``devices scan`` says of this PC's own sensors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from edge_agent.bench import Bench, Found, Where
from edge_agent_drivers.sensors.config import parse_source
from edge_agent_drivers.sensors.files import chips, thermometers


def found(root: Path) -> Iterator[Found]:
    """Each chip, with all its channels as tags."""
    for kind in ("hwmon", "iio"):
        every = list(chips(root, kind))
        for name, at, folder in every:
            twins = sum(name == other for other, _, _ in every) > 1
            chip = f"{kind}:{name}{f'@{at}' if twins else ''}"
            endings = ("_input", "_average") if kind == "hwmon" else ("_input", "_raw")
            channels = sorted({path.name.rpartition("_")[0] for end in endings for path in folder.glob(f"*{end}")})
            tags = {channel: {"source": f"{chip}/{channel}"} for channel in channels if _known(f"{chip}/{channel}")}
            if tags:
                yield Found("sensors", chip, f"{len(tags)} channels: {', '.join(tags)}", _section(tags), _name(name))
    ids = thermometers(root)
    if ids:
        tags = {f"t_{id.partition('-')[2]}": {"source": f"w1:{id}"} for id in ids}
        yield Found("sensors", "w1", f"{len(ids)} thermometers: {', '.join(ids)}", _section(tags), "thermometers")


async def scan(where: Where) -> AsyncIterator[Found]:
    """What the kernel shows on this PC; asks no network and no port."""
    for each in found(Path("/")):
        yield each


def _known(source: str) -> bool:
    try:
        parse_source(source)
    except ValueError:
        return False
    return True


def _section(tags: dict[str, Any]) -> dict[str, Any]:
    return {"driver": "sensors", "groups": {"all": {"poll": "10s", "tags": tags}}}


def _name(chip: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in chip)


BENCH = Bench(scan=scan, looks_at=("plugged",))
