"""Which parts a station has: one line a section of its config, in the order in which they see scans and cycles."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.binding.attempts import AttemptLimit
from edge_agent.binding.batch import InAndOut
from edge_agent.binding.carrying import Load, Unload
from edge_agent.binding.changeover import Changeover
from edge_agent.binding.commands import OperatorCommands
from edge_agent.binding.completeness import Completeness
from edge_agent.binding.context import StationContext
from edge_agent.binding.gatekeeper import Gatekeeper
from edge_agent.binding.genealogy import Components
from edge_agent.binding.late import LateScans
from edge_agent.binding.materials import Materials
from edge_agent.binding.part import Part
from edge_agent.binding.plan import Station
from edge_agent.binding.position import Floor, PositionLife
from edge_agent.binding.register import RegisterSlot
from edge_agent.binding.scan_out import ScanOut


def parts_of(
    floor: Floor, station: Station, context: StationContext, positions: Mapping[int, PositionLife]
) -> list[Part]:
    """The parts that the station's plan asks for."""
    parts: list[Part] = []
    if station.commands is not None:
        parts.append(OperatorCommands(station.commands, context, positions))
    if station.slot is not None:
        parts.append(RegisterSlot(floor, station.slot, next(iter(positions.values()))))
    if station.batch is not None:
        parts.append(InAndOut(floor, station.batch, positions))
    if station.carrying is not None and station.carrying.op == "load":
        parts.append(Load(floor, station, station.carrying, positions.values()))
    elif station.carrying is not None:
        parts.append(Unload(floor, station, station.carrying))
    if station.of == "lot" and station.changeover_s:
        parts.append(Changeover(floor, station.changeover_s))
    if any(position.out is not None for position in station.positions):
        parts.append(ScanOut(floor, positions.values()))
    if station.needs.materials:
        parts.append(Materials(floor, station, context))
    if station.needs.components or station.needs.remove is not None:
        parts.append(Components(floor, station))
    if station.identity == "after":
        readers = dict.fromkeys(position.scanner for position in station.positions if position.scanner is not None)
        for reader in readers:
            parts.append(LateScans(floor, reader, [one for one in positions.values() if one.plan.scanner == reader]))
    if station.attempts is not None:
        parts.append(AttemptLimit(station.attempts))
    parts.append(Completeness(floor, station, context))  # judges what the others say went in
    if station.gate is not None:
        parts.append(Gatekeeper(floor, station, station.gate))
    return parts
