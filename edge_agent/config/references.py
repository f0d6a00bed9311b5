"""Names that stations use, looked up in the devices: each miss a problem at its line, with the nearest valid name.

A method returns None when there is nothing there or it has reported why not; callers only go on with what is found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from edge_agent.binding.plan import TagRef
from edge_agent.config.devices import Known
from edge_agent.config.report import Path, Problems, nearest

Reference = str | dict[int, str] | None


class References:
    """Looks up what one station names. ``devices`` are those the station has referred to so far."""

    def __init__(self, known: Mapping[str, Known], positions: Collection[int], problems: Problems) -> None:
        self._known = known
        self._positions = positions
        self._problems = problems
        self.devices: set[str] = set()

    def at(self, value: Reference, position: int, path: Path, *, needed: bool = True) -> tuple[str, Path]:
        """What ``value`` says for one position, and where it says so; "" when it says nothing."""
        if not isinstance(value, dict):
            return value or "", path
        for other in sorted(value.keys() - self._positions):
            hint = f"add {other} to positions: of the station, or take it away here"
            self._problems.add((*path, str(other)), f"the station has no position {other}", hint)
        if position not in value and needed:
            self._problems.add(path, f"position {position} is missing", f"add {position}: ... here")
        return value.get(position, ""), (*path, str(position))

    def tag(self, ref: str, path: Path, *, polled: bool = False, types: Sequence[str] = ()) -> TagRef | None:
        """The place of "device.tag"; with ``polled`` it must be read without being asked for."""
        known = self._owner(ref, path, "tag")
        if known is None:
            return None
        name = ref.partition(".")[2]
        if name not in known.tags:
            self._problems.add(
                path,
                f"{known.name} has no tag {name!r}",
                nearest(name, known.tags, f"{known.name}.") or f"add it to {known.name}",
            )
            return None
        if name in known.doubtful:
            return None
        place = known.places.get(name)
        if place is None:
            self._problems.add(path, f"{ref} is only written, never read", "move the tag into a group of the device")
            return None
        if polled and place.group not in known.polled:
            hint = f"give {place.group} a poll: interval, or move the tag to a polled group"
            self._problems.add(path, f"{ref} is only read on a trigger, and this must be polled", hint)
            return None
        if types and place.tag.type not in types:
            hint = f"name a tag of type {' or '.join(types)}"
            self._problems.add(path, f"{ref} is a {place.tag.type}, which does not fit here", hint)
            return None
        return TagRef(place.group, place.index, ref, place.tag.unit)

    def type_of(self, ref: TagRef) -> str:
        """The tag's data type."""
        device, _, name = ref.name.partition(".")
        return self._known[device].places[name].tag.type

    def tags_of(self, device: str) -> list[TagRef]:
        """Every tag of a device that is read."""
        places = self._known[device].places
        return [TagRef(place.group, place.index, f"{device}.{name}", place.tag.unit) for name, place in places.items()]

    def group(self, ref: str, path: Path) -> str | None:
        """ "device.group" if it exists."""
        known = self._owner(ref, path, "group")
        if known is None:
            return None
        name = ref.partition(".")[2]
        if name not in known.groups:
            self._problems.add(
                path,
                f"{known.name} has no group {name!r}",
                nearest(name, known.groups, f"{known.name}.") or f"add it to {known.name}",
            )
            return None
        return ref

    def asked(self, ref: str, path: Path) -> str | None:
        """ "device.group" if it can be read when it is asked for."""
        group = self.group(ref, path)
        readable = None if group is None else self._known[group.partition(".")[0]].readable
        if readable is None or group in readable:
            return group
        what = f"{ref} only speaks by itself and cannot be read when it is asked for"
        self._problems.add(path, what, "end the cycle by its message: {message: device.group}")
        return None

    def spoken(self, ref: str, path: Path) -> str | None:
        """ "device.group" if the device sends it by itself, once for each thing that it has to say."""
        group = self.group(ref, path)
        if group is None or group in self._known[group.partition(".")[0]].spoken:
            return group
        what = f"{ref} is read again and again, so it shows a result more than once, or never"
        self._problems.add(path, what, "name a group that the device sends by itself, or end by a tag or a handshake")
        return None

    def writable(self, ref: str, path: Path) -> str | None:
        """ "device.tag" if the agent may write it."""
        known = self._owner(ref, path, "tag")
        if known is None:
            return None
        name = ref.partition(".")[2]
        if name not in known.tags:
            self._problems.add(
                path,
                f"{known.name} has no tag {name!r}",
                nearest(name, known.tags, f"{known.name}.") or f"add it to {known.name}",
            )
            return None
        if name not in known.writable and name not in known.doubtful:
            self._problems.add(path, f"{ref} may not be written", f"write `write: true` at the tag {name!r}")
            return None
        return ref

    def scanner(self, name: str, path: Path) -> str | None:
        """The device if it scans."""
        if not name:
            return None
        known = self._known.get(name)
        scanners = [one.name for one in self._known.values() if one.scans]
        if known is None:
            hint = nearest(name, scanners or self._known) or "describe it in the section devices:"
            self._problems.add(path, f"no device is named {name!r}", hint)
            return None
        if known.scans is False:
            self._problems.add(path, f"{name} is no scanner", nearest(name, scanners) or "define a device that scans")
            return None
        self.devices.add(name)
        return name

    def matching(self, glob: str, path: Path) -> list[TagRef]:
        """The tags that "device.glob" names; a glob that names none is a problem."""
        known = self._owner(glob, path, "tag")
        if known is None:
            return []
        pattern = glob.partition(".")[2]
        names = [name for name in known.tags if fnmatchcase(name, pattern)]
        if not names:
            hint = nearest(pattern, known.tags, f"{known.name}.") or f"add it to {known.name}"
            self._problems.add(path, f"{known.name} has no tag that matches {pattern!r}", hint)
        found = ((name, known.places.get(name)) for name in names)
        return [TagRef(at.group, at.index, f"{known.name}.{name}", at.tag.unit) for name, at in found if at]

    def pattern(self, text: str | None, path: Path, group: str | None) -> re.Pattern[str] | None:
        """The compiled expression; with ``group`` it must have a group of that name."""
        if text is None:
            return None
        try:
            pattern = re.compile(text)
        except re.error as error:
            self._problems.add(path, f"is no regular expression: {error}", r"e.g. '^(?P<serial>SN\d{8})$'")
            return None
        if group is not None and group not in pattern.groupindex:
            hint = rf"mark it, e.g. '^(?P<{group}>SN\d{{8}})$'"
            self._problems.add(path, f"does not say which part is the {group}", hint)
        return pattern

    def _owner(self, ref: str, path: Path, noun: str) -> Known | None:
        if not ref:
            return None
        device, dot, rest = ref.partition(".")
        if not dot or not rest:
            owners = [one.name for one in self._known.values() if device in (*one.tags, *one.groups)]
            hint = f"did you mean {owners[0]}.{device}?" if owners else f"write <device>.<{noun}>"
            self._problems.add(path, f"{ref!r} is not device.{noun}", hint)
            return None
        known = self._known.get(device)
        if known is None:
            hint = nearest(device, self._known) or "describe it in the section devices:"
            self._problems.add(path, f"no device is named {device!r}", hint)
            return None
        self.devices.add(device)
        return known
