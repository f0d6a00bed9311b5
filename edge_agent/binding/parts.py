"""Which parts a station has: one line a section of its config, in the order in which they see scans and cycles."""

from __future__ import annotations

from edge_agent.binding.context import StationContext
from edge_agent.binding.part import Part
from edge_agent.binding.plan import Station
from edge_agent.binding.position import Floor


def parts_of(floor: Floor, station: Station, context: StationContext) -> list[Part]:
    """The parts that the station's plan asks for."""
    parts: list[Part] = []
    return parts
