"""How much data a configuration makes: an upper figure, from what is written alone, with its assumptions stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.binding.plan import Plan
from edge_agent.config.devices import Device
from edge_agent.driver import Group

if TYPE_CHECKING:
    from edge_agent.config.load import Config

BYTES_PER_READING = 36
BYTES_PER_RECORD = 70
CHANGES = 0.1  # of the reads of a group that stores changes only
CYCLE_S = 30.0
CYCLE_RECORDS = 5  # scan, opened, binding, closed, the result's sample
CYCLE_BYTES = 2000  # of those, beside the sample's readings
_DAY_S = 86_400
_YEAR_D = 365


@dataclass(frozen=True, slots=True)
class Estimate:
    """Upper figures per second and day; what they are made of is in ``assumptions``."""

    samples_per_s: float
    readings_per_s: float
    gb_per_day: float
    assumptions: tuple[str, ...]

    @property
    def tb_per_year(self) -> float:
        return self.gb_per_day * _YEAR_D / 1000


def estimate(config: Config) -> Estimate:
    """What the buffer will take in if every station is always busy."""
    samples, readings = _rates(config.devices, config.plan)
    per_s = bytes_per_s(config.devices, config.plan)
    assumptions = (
        f"{BYTES_PER_READING} bytes a reading and {BYTES_PER_RECORD} bytes a record",
        "tags with store: cycle are counted as if a cycle were always open",
        f"one read in {1 / CHANGES:.0f} changes something where only changes are stored",
        f"one cycle in {CYCLE_S:.0f} s at each position, {CYCLE_BYTES} bytes each",
    )
    return Estimate(samples, readings, per_s * _DAY_S / 1e9, assumptions)


def bytes_per_s(devices: Mapping[str, Device], plan: Plan, *, samples: bool = True) -> float:
    """All that the line makes, or without ``samples`` only what stations say."""
    positions = sum(len(station.positions) for station in plan.stations)
    per_s = positions / CYCLE_S * CYCLE_BYTES
    if samples:
        rate, readings = _rates(devices, plan)
        per_s += rate * BYTES_PER_RECORD + readings * BYTES_PER_READING
    return per_s


def _rates(devices: Mapping[str, Device], plan: Plan) -> tuple[float, float]:
    """Samples and readings per second."""
    samples = readings = 0.0
    ends = [position.end for station in plan.stations for position in station.positions]
    triggered = {end.read for end in ends if end is not None}
    for device in devices.values():
        for group in device.shape.groups.values():
            rate = _samples_per_s(group, group.tagset.source in triggered)
            samples += rate
            readings += rate * len(group.tagset.tags)
    return samples, readings


def _samples_per_s(group: Group, triggered: bool) -> float:
    if group.poll_s is None:
        return 2 / CYCLE_S if triggered else 0.0  # read again until two reads agree
    reads = 1 / max(group.poll_s, 0.001)
    settings = group.tags.values()
    if any(tag.store in ("cycle", "always") for tag in settings):
        return reads
    beats = [1 / tag.heartbeat for tag in settings if tag.heartbeat]
    return min(reads, reads * CHANGES + max(beats, default=0.0))
