"""Cameras: see README.md beside this file.

Importing it loads neither OpenCV nor the decoders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.bench import Bench
from edge_agent.driver import Cadence, Driver, DriverSpec, Shape

if TYPE_CHECKING:
    from edge_agent_drivers.camera.config import CameraSettings


def _settings() -> type[CameraSettings]:
    from edge_agent_drivers.camera.config import CameraSettings

    return CameraSettings


def _describe(device: str, settings: Any) -> Shape:
    from edge_agent_drivers.camera.config import describe

    return describe(device, settings)


def _create(device: str, settings: Any) -> Driver:
    from edge_agent_drivers.camera.driver import CameraDriver

    return CameraDriver(device, settings)


def _bench() -> Bench:
    from edge_agent_drivers.camera.bench import bench

    return bench()


SPEC = DriverSpec("camera", Cadence.EVENT, _settings, _describe, _create, _bench)
