"""Modbus over TCP, TLS and serial lines: see README.md beside this file. Importing it loads no protocol library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent.bench import Bench
    from edge_agent_drivers.modbus.config import ModbusSettings


def _settings() -> type[ModbusSettings]:
    from edge_agent_drivers.modbus.config import ModbusSettings

    return ModbusSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.modbus.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.modbus.driver import ModbusDriver

    return ModbusDriver(device, settings)


def _bench() -> Bench:
    from edge_agent_drivers.modbus.bench import bench

    return bench()


SPEC = DriverSpec("modbus", Cadence.POLL, _settings, _describe, _create, _bench)
