"""OPC UA servers: see README.md beside this file.

Importing it does not load asyncua.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_agent.bench import Bench
from edge_agent.driver import Cadence, Driver, DriverSpec, Risk, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.opcua.config import OpcuaSettings


def _settings() -> type[OpcuaSettings]:
    from edge_agent_drivers.opcua.config import OpcuaSettings

    return OpcuaSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.opcua.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.opcua.driver import OpcuaDriver

    return OpcuaDriver(device, settings)


def _bench() -> Bench:
    from edge_agent_drivers.opcua.bench import BENCH

    return BENCH


def _risks(device: str, settings: Any) -> Sequence[Risk]:
    from edge_agent_drivers.opcua.risks import risks

    return risks(device, settings)


SPEC = DriverSpec("opcua", Cadence.EVENT, _settings, _describe, _create, _bench, _risks)
