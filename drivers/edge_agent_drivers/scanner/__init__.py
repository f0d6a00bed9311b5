"""Serial barcode readers: see README.md beside this file. Importing it loads neither pyserial nor the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent.bench import Bench
    from edge_agent_drivers.scanner.config import ScannerSettings


def _settings() -> type[ScannerSettings]:
    from edge_agent_drivers.scanner.config import ScannerSettings

    return ScannerSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.scanner.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.scanner.driver import ScannerDriver

    return ScannerDriver(device, settings)


def _bench() -> Bench:
    from edge_agent_drivers.scanner.bench import bench

    return bench()


SPEC = DriverSpec("scanner", Cadence.EVENT, _settings, _describe, _create, _bench)
