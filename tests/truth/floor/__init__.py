"""The strategies' stations: which kinds stand at one PC."""

from truth.floor.handshake import Handshake
from truth.floor.in_data import PlcSerial, PositionMap
from truth.visits import Station

FLOOR: dict[str, tuple[type[Station], ...]] = {
    "handshake": (Handshake, Handshake),
    "plc_serial": (PlcSerial, PlcSerial),
    "position_map": (PositionMap, PositionMap),
}
