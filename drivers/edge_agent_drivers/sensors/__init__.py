"""Sensors that the kernel shows as files: see README.md beside this file.

Importing it reads none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.bench import Bench
from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.sensors.config import SensorsSettings


def _settings() -> type[SensorsSettings]:
    from edge_agent_drivers.sensors.config import SensorsSettings

    return SensorsSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.sensors.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.sensors.driver import SensorsDriver

    return SensorsDriver(device, settings)


def _bench() -> Bench:
    from edge_agent_drivers.sensors.bench import BENCH

    return BENCH


SPEC = DriverSpec("sensors", Cadence.POLL, _settings, _describe, _create, _bench)
