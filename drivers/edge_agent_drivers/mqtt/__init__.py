"""Readings that other devices publish on a local broker: see README.md beside this file.

Importing it loads no protocol library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.mqtt.config import MqttSettings


def _settings() -> type[MqttSettings]:
    from edge_agent_drivers.mqtt.config import MqttSettings

    return MqttSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.mqtt.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.mqtt.driver import MqttDriver

    return MqttDriver(device, settings)


SPEC = DriverSpec("mqtt", Cadence.EVENT, _settings, _describe, _create)
