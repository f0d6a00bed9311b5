"""What people see of a device and write to it over the control socket: `watch` and `write`.

A write is an ``audit`` record {who, action: "write", old?, new, reason} before it is carried out, durable, and another
one, "written" or "not_written", that says what came of it and names the first. Only tags that the config marks
``write: true`` can be written, by the role technician.

What a station writes itself is not for people: who sets an acknowledge throws a result away, who sets a permit lets a
unit past the gate. Such a tag is refused; a unit is let in by `gate override`, which is a decision about that unit. To
free a line that hangs, the role admin may write even that, by ``force``, and the record says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_agent import clock
from edge_agent.control.verbs import Refused
from edge_agent.errors import DriverError
from edge_agent.model import Kind, Record, Value
from edge_agent.traffic import tag_value
from edge_agent.typed import typed_value

if TYPE_CHECKING:
    from edge_agent.binding.plan import Station
    from edge_agent.buffer import Buffer
    from edge_agent.collector import Collector
    from edge_agent.control.roles import Roles
    from edge_agent.control.server import Caller, Handler
    from edge_agent.driver import Shape

REASON_MAX = 500
VALUE_MAX = 4096
NAMES_MAX = 1000


class DeviceVerbs:
    """The handlers, by verb: ``handlers()``."""

    def __init__(
        self, collectors: Sequence[Collector], stations: Sequence[Station], buffer: Buffer, roles: Roles
    ) -> None:
        self._collectors = {collector.name: collector for collector in collectors}
        self._stations = stations
        self._buffer = buffer
        self._roles = roles

    def handlers(self) -> dict[str, Handler]:
        """Verb → handler."""
        return {"device_values": self.device_values, "device_write": self.device_write}

    async def device_values(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """What a device says: {device, names: groups or tags or none for all, change, scan: numbers seen last}."""
        collector = self._collector(request)
        names = request.get("names") or []
        if not isinstance(names, list) or len(names) > NAMES_MAX:
            raise Refused(f"name at most {NAMES_MAX} groups and tags", hint="name none: all are shown")
        must_know(collector.name, collector.shape, names)
        return collector.watched([str(name) for name in names], _number(request, "change"), _number(request, "scan"))

    async def device_write(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Write a tag: {device, tag, value: as typed, reason, force, check: only say what would be done}."""
        collector = self._collector(request)
        tag, text, reason = str(request.get("tag")), str(request.get("value")), _reason(request)
        force = bool(request.get("force"))
        value = value_for(collector.name, collector.shape, tag, text)
        owner = owner_of(self._stations, collector.name, tag)
        if owner and not force:
            raise not_for_people(collector.name, tag, owner)
        who = await self._roles.require(caller, "admin" if owner else "technician")
        new = {"device": collector.name, "tag": tag, "value": value} | ({"forced": True} if owner else {})
        latest = collector.latest(tag)
        old = None if latest is None else {"device": collector.name} | tag_value(*latest)
        if request.get("check"):
            return {"device": collector.name, "tag": tag, "old": old, "new": value}
        asked = self._audit(who, "write", reason, {"old": old, "new": new} if old else {"new": new})
        await self._buffer.committed(asked)
        try:
            await collector.ask_write(tag, value)
        except DriverError as error:
            said = {"error": str(error.args[0]).removeprefix(f"{collector.name}: ")}
            await self._buffer.committed(
                self._audit(who, "not_written", reason, {"new": new | said | {"asked": asked}})
            )
            raise
        done = clock.now()
        await self._buffer.committed(self._audit(who, "written", reason, {"new": new | {"asked": asked}}))
        return {"device": collector.name, "tag": tag, "old": old, "new": value, "at_ns": str(done.at_ns), "seq": asked}

    def _collector(self, request: dict[str, Any]) -> Collector:
        name = str(request.get("device"))
        if name not in self._collectors:
            hint = f"this agent has: {', '.join(self._collectors)}"
            raise Refused(f"no device is named {name}", hint=hint)
        return self._collectors[name]

    def _audit(self, who: str, action: str, reason: str, more: dict[str, Any]) -> int:
        body = {"who": who, "action": action, "reason": reason} | more
        return self._buffer.append([Record(Kind.AUDIT, "agent", clock.now(), body)])


def must_know(device: str, shape: Shape, names: Sequence[Any]) -> None:
    """Raises Refused for a name that is neither a group nor a tag of the device that is read."""
    full = [f"{group.tagset.group}.{tag.name}" for group in shape.groups.values() for tag in group.tagset.tags]
    known = {*shape.groups, *full, *(name.rpartition(".")[2] for name in full)}
    for name in names:
        if name not in known:
            hint = f"{device} has: {', '.join([*shape.groups, *full][:20])}"
            raise Refused(f"{device} reads no group or tag named {name}", hint=hint)


def value_for(device: str, shape: Shape, tag: str, text: str) -> Value:
    """The value that ``text`` is for the tag. Raises Refused if the tag cannot be written, or not with that."""
    if tag not in shape.writable:
        writable = ", ".join(sorted(shape.writable)) or "none"
        if shape.tag(tag) is None:
            raise Refused(f"{device} has no tag named {tag}", hint=f"tags that can be written: {writable}")
        hint = f"write `write: true` to the tag in the configuration; tags that can be written: {writable}"
        raise Refused(f"{device}.{tag} is only read", hint=hint)
    if len(text) > VALUE_MAX:
        raise Refused("the value is too long", hint=f"at most {VALUE_MAX} characters")
    known = shape.tag(tag)
    try:
        return typed_value(text, known.type if known is not None else "")
    except ValueError as error:
        what, _, hint = str(error).partition("; ")
        raise Refused(f"{device}.{tag}: {what}", hint=hint) from error


def owner_of(stations: Sequence[Station], device: str, tag: str) -> tuple[str, str] | None:
    """The station that writes this tag itself, and what it tells the PLC by it."""
    for station in stations:
        if what := station.writes().get(f"{device}.{tag}"):
            return station.name, what
    return None


def not_for_people(device: str, tag: str, owner: tuple[str, str]) -> Refused:
    """Why a tag that a station writes is refused."""
    station, what = owner
    hint = (
        "to let one unit in: edge-agent gate override; to free a line that hangs the role admin may write it: --force"
    )
    return Refused(f"{device}.{tag} is written by station {station}: it tells the PLC {what}", hint=hint)


def _reason(request: dict[str, Any]) -> str:
    reason = str(request.get("reason") or "").strip()
    if not reason:
        raise Refused("a write needs a reason", hint="say why: --reason TEXT")
    if len(reason) > REASON_MAX:
        raise Refused(f"the reason is longer than {REASON_MAX} characters", hint="say it in fewer words")
    return reason


def _number(request: dict[str, Any], key: str) -> int:
    value = request.get(key, 0)
    return value if isinstance(value, int) else 0
