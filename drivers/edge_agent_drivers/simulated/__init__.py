"""Waves without a device: for trying things out, and the example for who writes a driver (README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.simulated.config import SimulatedSettings


def _settings() -> type[SimulatedSettings]:
    from edge_agent_drivers.simulated.config import SimulatedSettings

    return SimulatedSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.simulated.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.simulated.driver import SimulatedDriver

    return SimulatedDriver(device, settings)


SPEC = DriverSpec("simulated", Cadence.POLL, _settings, _describe, _create)
