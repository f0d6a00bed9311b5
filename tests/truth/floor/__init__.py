"""The strategies' stations: which kinds stand at one PC."""

from truth.floor.carrier import CarrierLine, ReadOff
from truth.floor.edge import BareEdge, Resuming
from truth.floor.gate import Gate
from truth.floor.handshake import Handshake
from truth.floor.in_data import PlcSerial, PositionMap
from truth.floor.late_scan import LateScan
from truth.floor.lot_window import LotWindow
from truth.floor.lots import LotConsumption
from truth.floor.marriage import Marriage
from truth.floor.message_key import MessageKey
from truth.floor.oven import Oven
from truth.floor.register import Dial
from truth.floor.rework import Rework
from truth.floor.scan_in_out import ScanInOut
from truth.visits import Station

FLOOR: dict[str, tuple[type[Station], ...]] = {
    "scan_in_out": (ScanInOut, ScanInOut),
    "handshake": (Handshake, Handshake),
    "bare_edge": (BareEdge, BareEdge),
    "resume": (Resuming, Resuming),
    "plc_serial": (PlcSerial, PlcSerial),
    "position_map": (PositionMap, PositionMap),
    "carrier": (CarrierLine, ReadOff),
    "shift_register": (Dial, Dial),
    "late_scan": (LateScan, LateScan),
    "message_key": (MessageKey, MessageKey),
    "time_window": (Oven, Oven),
    "lot_window": (LotWindow, LotWindow),
    "marriage": (Marriage, Marriage),
    "lot_consumption": (LotConsumption, LotConsumption),
    "rework": (Rework, Rework),
    "gate": (Gate, Gate),
}
