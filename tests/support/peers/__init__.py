"""What the driver contract's battery connects each driver to: one module a driver, the class named in PEERS.

A driver's tests are free to use its peer too. A driver that speaks in several ways has several: ``modbus-rtu``.
"""

from __future__ import annotations

from support.peers.camera import CameraPeer
from support.peers.instrument import InstrumentPeer
from support.peers.modbus import ModbusPeer
from support.peers.modbus_rtu import ModbusRtuPeer
from support.peers.mqtt import MqttPeer
from support.peers.opcua import OpcuaPeer
from support.peers.peer import Peer
from support.peers.rfid import RfidPeer
from support.peers.scanner import ScannerPeer
from support.peers.scanner_tcp import ScannerTcpPeer
from support.peers.sensors import SensorsPeer
from support.peers.simulated import SimulatedPeer

PEERS: dict[str, type[Peer]] = {
    "camera": CameraPeer,
    "instrument": InstrumentPeer,
    "modbus": ModbusPeer,
    "modbus-rtu": ModbusRtuPeer,
    "rfid": RfidPeer,
    "mqtt": MqttPeer,
    "opcua": OpcuaPeer,
    "scanner": ScannerPeer,
    "scanner-tcp": ScannerTcpPeer,
    "sensors": SensorsPeer,
    "simulated": SimulatedPeer,
}


def driver_of(peer: str) -> str:
    """The driver that a peer is for."""
    return peer.partition("-")[0]
