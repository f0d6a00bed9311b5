"""The configuration: one YAML file in, frozen settings and the binder's plan out.

``load`` reads it all at once and raises one ConfigError with every mistake, each with its line and what to type.
The path of a file through this package: :mod:`tree` (YAML with lines), :mod:`settings` (the models), :mod:`report`
(mistakes in plain words), :mod:`devices` (drivers' sections), :mod:`references` and :mod:`build` (names to the plan),
:mod:`load`. Beside it :mod:`risks` (warnings), :mod:`estimate` (how much data), :mod:`schema` (for editors).
Secrets are never in it, only the places where they are kept.
"""

from __future__ import annotations

from edge_agent.config.devices import Device
from edge_agent.config.load import Config, load
from edge_agent.config.settings import AgentSettings, LocationSettings, StationSettings

__all__ = [
    "AgentSettings",
    "Config",
    "Device",
    "LocationSettings",
    "StationSettings",
    "load",
]
