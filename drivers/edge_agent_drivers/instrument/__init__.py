"""Scales, gauges and testers on a serial line: see README.md beside this file.

Importing it loads no protocol library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.instrument.config import InstrumentSettings


def _settings() -> type[InstrumentSettings]:
    from edge_agent_drivers.instrument.config import InstrumentSettings

    return InstrumentSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.instrument.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.instrument.driver import InstrumentDriver

    return InstrumentDriver(device, settings)


SPEC = DriverSpec("instrument", Cadence.EVENT, _settings, _describe, _create)
