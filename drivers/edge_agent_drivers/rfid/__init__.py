"""RFID readers: see README.md beside this file.

Importing it loads no protocol library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.rfid.config import RfidSettings


def _settings() -> type[RfidSettings]:
    from edge_agent_drivers.rfid.config import RfidSettings

    return RfidSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.rfid.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.rfid.driver import RfidDriver

    return RfidDriver(device, settings)


SPEC = DriverSpec("rfid", Cadence.EVENT, _settings, _describe, _create)
