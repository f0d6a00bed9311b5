"""A device's section to its settings and shape, through the driver it names; and what stations may ask of it.

Only the drivers that the config names are loaded. A driver's own keys stand directly in the device's section.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from edge_agent.config.report import Path, Problems, nearest, split_hint, validate
from edge_agent.config.settings import NAME, NAME_HINT
from edge_agent.config.tree import Node
from edge_agent.driver import (
    DriverSpec,
    Settings,
    Shape,
    TagSettings,
    UnknownDriver,
    driver_names,
    load_driver,
)
from edge_agent.model import Tag, number_names

_FILL = {"poll": "1s"}  # a group whose interval is wrong is still a polled one


@dataclass(frozen=True)
class Device:
    """One device: its driver, the driver's settings, and what it offers."""

    name: str
    spec: DriverSpec
    settings: Settings
    shape: Shape


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tag is found."""

    group: str  # "device.group"
    index: int
    tag: Tag


@dataclass(frozen=True, slots=True)
class Known:
    """What stations may refer to on one device. Of ``doubtful`` tags only the name is known: their section is wrong."""

    name: str
    tags: Collection[str]  # all of them, also those that are only written
    groups: Collection[str]
    doubtful: Collection[str] = ()
    places: Mapping[str, Place] = field(default_factory=dict)  # by tag, those that are read
    polled: Collection[str] = ()  # "device.group" of groups that are read without being asked for
    spoken: Collection[str] = ()  # those that the device sends by itself, whenever it has something to say
    readable: Collection[str] | None = None  # those that can be asked for; None: not known
    writable: Collection[str] = ()
    scans: bool | None = False  # None: not known


def load_device(name: str, node: Node, problems: Problems, specs: dict[str, DriverSpec]) -> tuple[Device | None, Known]:
    """The device of one section (None if anything in it is wrong) and what can be referred to. Reports problems."""
    path: Path = ("devices", name)
    tags, groups = _names_below(node, "tags"), {str(one) for one in _child(node, "groups").children}
    only_names = Known(name, tags, groups, doubtful=tags, scans=None)
    if not isinstance(node.value, dict):
        problems.add(path, "a device is a section of keys", "write {driver: modbus, ...}")
        return None, only_names
    spec = _spec(path, node, problems, specs)
    if spec is None:
        return None, only_names
    before = len(problems.found)
    data = {key: value for key, value in node.value.items() if key != "driver"}
    settings, cut = validate(spec.settings(), path, data, problems, _FILL)
    if settings is None:
        return None, only_names
    useless = _useless(settings)
    for tag in useless:
        hint = "add write: true, or move it into a group that is read"
        problems.add((*path, "tags", tag), "is neither read nor written", hint)
    try:
        shape = spec.describe(name, settings)
    except ValueError as error:
        if not cut and not useless:
            problems.add(path, *split_hint(str(error)))
        return None, only_names
    known = _known(name, shape, path, problems)
    if len(problems.found) > before:
        wrong = _tags_at(cut, node)
        return None, replace(known, tags=tags | set(known.tags), groups=groups | set(known.groups), doubtful=wrong)
    return Device(name, spec, settings, shape), known


def _useless(settings: Settings) -> list[str]:
    """Tags outside the groups that nobody may write: mostly an acknowledge without ``write: true``."""
    tags = getattr(settings, "tags", None)
    if not isinstance(tags, Mapping):
        return []
    return [str(name) for name, tag in tags.items() if isinstance(tag, TagSettings) and not tag.write]


def _tags_at(cut: set[Path], node: Node) -> set[str]:
    """The tags that the paths are about: one tag, or all of the group or device."""
    names: set[str] = set()
    for path in cut:
        if "tags" in path[:-1]:
            names.add(str(path[path.index("tags") + 1]))
        elif len(path) <= 2 and path[0] in ("groups", "tags"):
            names |= _names_below(node.find(path) if len(path) == 2 else node, "tags")
    return names


def _spec(path: Path, node: Node, problems: Problems, specs: dict[str, DriverSpec]) -> DriverSpec | None:
    driver = node.value.get("driver")
    if driver is None:
        problems.add((*path, "driver"), "is missing", f"installed drivers: {', '.join(driver_names())}")
        return None
    if not isinstance(driver, str):
        problems.add((*path, "driver"), "is not a driver's name", f"installed drivers: {', '.join(driver_names())}")
        return None
    try:
        if driver not in specs:
            specs[driver] = load_driver(driver)
        return specs[driver]
    except UnknownDriver:
        problems.add((*path, "driver"), f"no driver is named {driver!r}", nearest(driver, driver_names()))
    except ImportError as error:
        hint = "install what it needs, or choose another driver"
        problems.add((*path, "driver"), f"the driver {driver!r} cannot be loaded: {error}", hint)
    return None


def _known(name: str, shape: Shape, path: Path, problems: Problems) -> Known:
    places: dict[str, Place] = {}
    for group_name, group in shape.groups.items():
        _check_name((*path, "groups", group_name), group_name, "group", problems)
        for index, (tag, settings) in enumerate(zip(group.tagset.tags, group.tags.values(), strict=True)):
            where: Path = (*path, "groups", group_name, "tags", tag.name)
            _check_name(where, tag.name, "tag", problems)
            if tag.name in places:
                other = places[tag.name].group
                problems.add(where, f"the tag stands in {other} too", "give each tag of a device its own name")
            if settings.deadband and tag.type.removesuffix("[]") not in number_names:
                problems.add((*where, "deadband"), f"a {tag.type} has no deadband", "take deadband away")
            places[tag.name] = Place(group.tagset.source, index, tag)
    for tag_name in shape.writable - places.keys():
        _check_name((*path, "tags", tag_name), tag_name, "tag", problems)
    spoken = {group.tagset.source for group in shape.groups.values() if group.spoken}
    polled = {group.tagset.source for group in shape.groups.values() if group.spoken or group.poll_s is not None}
    readable = {group.tagset.source for group in shape.groups.values() if group.readable}
    tags = places.keys() | shape.writable
    return Known(name, tags, list(shape.groups), (), places, polled, spoken, readable, shape.writable, shape.scans)


def _check_name(path: Path, name: str, noun: str, problems: Problems) -> None:
    if not NAME.fullmatch(name):
        problems.add(path, f"{name!r} cannot be the name of a {noun}", NAME_HINT)


def _child(node: Node, key: str) -> Node:
    return node.children.get(key) or Node({}, node.line)


def _names_below(node: Node, key: str) -> set[str]:
    """Every key of every section named ``key`` below ``node``: the tags of a device whose driver cannot tell."""
    names: set[str] = set()
    for name, child in node.children.items():
        if name == key and isinstance(child.value, dict):
            names |= {str(one) for one in child.children}
        names |= _names_below(child, key)
    return names
