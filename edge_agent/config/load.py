"""One YAML file to a ``Config``: read, parse, validate each section, look up every name, build the plan.

All mistakes are collected and raised together; a mistake in one section hides none in another. Nothing here touches a
device, the network or data_dir.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.binding.holds import LOCAL
from edge_agent.binding.plan import Plan
from edge_agent.buffer.settings import BufferSettings
from edge_agent.config.build import build_plan
from edge_agent.config.by_position import Reported
from edge_agent.config.devices import Device, Known, load_device
from edge_agent.config.dictionaries import judge_dictionaries
from edge_agent.config.labels import build_labels
from edge_agent.config.places import RegisterSettings
from edge_agent.config.report import PLAIN_SECRET, SECRET_KEY, Problems, nearest, validate
from edge_agent.config.report import Path as KeyPath
from edge_agent.config.risks import find_risks
from edge_agent.config.settings import NAME, NAME_HINT, AgentSettings, StationSettings
from edge_agent.config.tables import bounded, expand
from edge_agent.config.tree import Node, parse, read_text
from edge_agent.driver import DriverSpec
from edge_agent.errors import ConfigError, Problem
from edge_agent.inbound.settings import InboundSettings
from edge_agent.routes.dictionary_settings import DictionarySettings
from edge_agent.routes.file_settings import FileRouteSettings
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings
from edge_agent.routes.sql_settings import SqlRouteSettings

SECTIONS = ("agent", "buffer", "devices", "labels", "registers", "stations", "dictionaries", "routes", "inbound")
SINKS: Mapping[str, type[RouteSettings]] = {
    "mqtt": MqttRouteSettings,
    "sql": SqlRouteSettings,
    "file": FileRouteSettings,
}
RESERVED = ("agent", LOCAL)  # sources: of records that are about no station and no device, of what people decide


@dataclass(frozen=True)
class Config:
    """A configuration without mistakes. ``id`` changes with every change that is more than comments and order."""

    path: Path
    id: str  # 12 hex digits
    agent: AgentSettings
    buffer: BufferSettings
    devices: Mapping[str, Device]
    stations: Mapping[str, StationSettings]
    plan: Plan
    routes: Mapping[str, RouteSettings]
    dictionaries: Mapping[str, DictionarySettings]
    inbound: Mapping[str, InboundSettings]
    warnings: tuple[Problem, ...]

    def describe(self) -> dict[str, Any]:
        """The body of the ``config`` record."""
        return {
            "config": self.id,
            "stations": {
                station.name: {
                    "step": station.step,
                    "identity": station.identity,
                    "positions": {
                        str(position.number): {
                            "claims": {group: list(tags) for group, tags in position.claims.items()},
                            "characteristics": [one.name for one in position.collect],
                        }
                        for position in station.positions
                    },
                }
                for station in self.plan.stations
            },
            "devices": {name: device.spec.name for name, device in self.devices.items()},
        }


def load(path: Path) -> Config:
    """The configuration in ``path``. Raises ConfigError with every mistake in it, in the order of their lines."""
    text = read_text(path)
    found: list[Problem] = []
    root = parse(text, str(path), found)
    if root is None:
        raise ConfigError(found)
    expand(root, path)
    problems = Problems(str(path), root, found)
    config = _load(path, root, problems) if _sections(root, problems) else None
    if problems.found or config is None:
        in_order = sorted(problems.found, key=lambda problem: (problem.file != str(path), problem.file, problem.line))
        raise ConfigError(bounded(in_order, str(path)))
    return config


def _load(path: Path, root: Node, problems: Problems) -> Config | None:
    _no_plain_secrets(root, (), problems)
    agent = validate(AgentSettings, ("agent",), root.value["agent"], problems)[0] if root.value.get("agent") else None
    buffer, _ = validate(BufferSettings, ("buffer",), root.value.get("buffer") or {}, problems)
    specs: dict[str, DriverSpec] = {}
    devices: dict[str, Device] = {}
    known: dict[str, Known] = {}
    for name, node in _entries(root, "devices", problems).items():
        device, known[name] = load_device(name, node, problems, specs)
        if device is not None:
            devices[name] = device
    _one_port_each(devices, problems)
    stations: dict[str, StationSettings] = {}
    for name, node in _entries(root, "stations", problems).items():
        if name in known:
            problems.add(("stations", name), "a device has this name too", "give the station another name")
        station, _ = validate(StationSettings, ("stations", name), node.value, problems, _fill(node))
        if station is not None:
            stations[name] = station
    labels = build_labels(_entries(root, "labels", problems), problems)
    registers = {
        name: validate(RegisterSettings, ("registers", name), node.value, problems)[0]
        for name, node in _entries(root, "registers", problems).items()
    }
    plan = build_plan(stations, known, devices, labels, registers, problems)
    routes = _routes(root, problems)
    dictionaries: dict[str, DictionarySettings] = {}
    for name, node in _entries(root, "dictionaries", problems).items():
        dictionary, _ = validate(DictionarySettings, ("dictionaries", name), node.value, problems)
        if dictionary is not None:
            dictionaries[name] = dictionary
    judge_dictionaries(dictionaries, stations, routes, labels, problems)
    inbound = _inbound(root, problems)
    if problems.found or agent is None or buffer is None:
        return None
    canonical = json.dumps(root.value, sort_keys=True, separators=(",", ":"))
    config_id = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    risks = find_risks(stations, devices, plan, routes, inbound, Problems(str(path), root))
    return Config(path, config_id, agent, buffer, devices, stations, plan, routes, dictionaries, inbound, risks)


# --- sections ------------------------------------------------------------------------------------------------


def _sections(root: Node, problems: Problems) -> bool:
    if not isinstance(root.value, dict) or not root.value:
        problems.add((), "is not a configuration", f"write the sections {', '.join(SECTIONS)}")
        return False
    for name in root.value:
        if name not in SECTIONS:
            problems.add((name,), "unknown section", nearest(name, SECTIONS))
    for name in ("agent", "devices"):
        if not root.value.get(name):
            problems.add((name,), "is missing" if name not in root.value else "is empty", f"write the section {name}:")
    return True


def _entries(root: Node, section: str, problems: Problems) -> dict[str, Node]:
    """The named entries of a section; a name that cannot be used is reported, its entry is judged all the same."""
    node = root.children.get(section)
    if node is None or node.value is None:
        return {}
    if not isinstance(node.value, dict):
        problems.add((section,), "is not a section of names", f"write {section}: and below it, indented, name: {{...}}")
        return {}
    for name in node.value:
        if not NAME.fullmatch(name):
            problems.add((section, name), f"{name!r} cannot be a name", NAME_HINT)
        elif name in RESERVED:
            problems.add((section, name), f"{name!r} is a name the agent uses itself", "choose another name")
    return {str(name): child for name, child in node.children.items()}


def _one_port_each(devices: Mapping[str, Device], problems: Problems) -> None:
    """A port has one user; several only on a bus, or of one host, where they must agree how it is used and named."""
    users: dict[str, tuple[Device, str, str]] = {}
    for device in devices.values():
        if device.shape.port is None:
            continue
        port, terms = device.shape.port
        real = os.path.realpath(port) if port.startswith("/") else port  # a link and what it leads to are one port
        other, its_port, its_terms = users.setdefault(real, (device, port, terms))
        if other is device:
            continue
        path: KeyPath = ("devices", device.name)
        if not terms or its_terms != terms:
            hint = "each device has a port of its own; on one RS-485 line write the same driver, baud and parity"
            if terms and "://" in port:
                hint = "what is said of the connection holds for all devices on it: single_connection for all or none"
            problems.add(path, f"{port} is used by {other.name} too", hint)
        elif its_port != port:
            problems.add(path, f"{port} is the port that {other.name} names {its_port}", f"write {its_port} here too")


def _fill(station: Node) -> dict[str, Any]:
    """What stands in for a station's missing keys, so that what it has can be judged all the same."""
    nothing = Reported()
    by_tag = "tag" in station.find(("identity",)).children
    when = {"when": "in_data"} if by_tag else {"when": "before"}
    references = dict.fromkeys(("ready", "ack", "read", "tag"), nothing)
    return {"step": "-", "identity": {"when": "before", "scan": nothing}, **when, **references}


def _routes(root: Node, problems: Problems) -> dict[str, RouteSettings]:
    routes: dict[str, RouteSettings] = {}
    station_names = root.find(("stations",)).children if "stations" in root.children else {}
    for name, node in _entries(root, "routes", problems).items():
        path: KeyPath = ("routes", name)
        data, model = node.value, SINKS["mqtt"]
        if isinstance(data, dict):
            sink = data.get("sink", "mqtt")
            if not isinstance(sink, str) or sink not in SINKS:
                problems.add((*path, "sink"), f"no sink is named {sink!r}", nearest(str(sink), SINKS))
                continue  # its keys cannot be judged
            model = SINKS[sink]
            wanted = data.get("stations")
            for index, station in enumerate(wanted if isinstance(wanted, list) else []):
                if isinstance(station, str) and station not in station_names:
                    hint = nearest(station, map(str, station_names)) or "describe it in the section stations:"
                    problems.add((*path, "stations", index), f"no station is named {station!r}", hint)
        route, _ = validate(model, path, data, problems)
        if route is not None:
            routes[name] = route
    former = Counter(route.was for route in routes.values() if route.was is not None)
    for name, route in routes.items():
        if route.was in routes:
            problems.add(
                ("routes", name, "was"), f"{route.was!r} is still a route", "rename that one, or take was: out"
            )
        elif route.was is not None and former[route.was] > 1:
            problems.add(("routes", name, "was"), f"two routes were {route.was!r}", "only one can go on where it stood")
    return routes


def _inbound(root: Node, problems: Problems) -> dict[str, InboundSettings]:
    sources = {
        name: validate(InboundSettings, ("inbound", name), node.value, problems)[0]
        for name, node in _entries(root, "inbound", problems).items()
    }
    return {name: source for name, source in sources.items() if source is not None}


def _no_plain_secrets(node: Node, path: KeyPath, problems: Problems) -> None:
    for key, child in node.children.items():
        where = (*path, key)
        if child.children:
            _no_plain_secrets(child, where, problems)
        elif isinstance(key, str) and SECRET_KEY.fullmatch(key) and child.value is not None:
            problems.add(where, *PLAIN_SECRET)
