"""What the driver contract's battery connects each driver to: one module a driver, the class named in PEERS.

A driver's tests are free to use its peer too.
"""

from __future__ import annotations

from support.peers.camera import CameraPeer
from support.peers.instrument import InstrumentPeer
from support.peers.modbus import ModbusPeer
from support.peers.peer import Peer
from support.peers.rfid import RfidPeer
from support.peers.scanner import ScannerPeer
from support.peers.sensors import SensorsPeer
from support.peers.simulated import SimulatedPeer

PEERS: dict[str, type[Peer]] = {
    "camera": CameraPeer,
    "instrument": InstrumentPeer,
    "modbus": ModbusPeer,
    "rfid": RfidPeer,
    "scanner": ScannerPeer,
    "sensors": SensorsPeer,
    "simulated": SimulatedPeer,
}
