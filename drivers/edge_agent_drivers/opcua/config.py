"""What an OPC UA device's section of the config may say, and the shape that follows from it.

A group is subscribed to (``subscribe``: the server tells what changed), read at an interval (``poll``) or read on a
trigger's demand (``on_trigger``). Each tag says its type: what a group looks like must be known without the server,
so that ``check`` can check it and a server that changed its types is noticed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, GroupSettings, Settings, Shape, TagName, TagSettings, poll_shape
from edge_agent.model import scalar_names, type_names
from edge_agent_drivers.opcua.nodeid import NodeName, parse_node
from edge_agent_drivers.opcua.security_settings import SecuritySettings

DEFAULT_PORT = 4840


class FilterSettings(Settings):
    """What the server itself holds back: it costs neither network nor processor where nothing is sent."""

    deadband: float | None = Field(
        default=None, gt=0, description="a change up to this is not sent (numbers only); see kind"
    )
    kind: Literal["absolute", "percent"] = Field(
        default="absolute",
        description="absolute: in the value's own units; percent: of the range that the server states (EURange)",
    )
    trigger: Literal["status", "value", "timestamp"] = Field(
        default="value",
        description="what counts as news: the status; the status or the value; or also a newer source time, so that "
        "the same value written again is seen",
    )

    @model_validator(mode="after")
    def _consistent(self) -> FilterSettings:
        if self.kind == "percent" and not 0 < (self.deadband or 0) <= 100:
            raise ValueError("kind: percent needs a deadband: up to 100")
        if self.deadband is not None and self.trigger == "status":
            raise ValueError("trigger: status never looks at the value: leave deadband: out, or write trigger: value")
        return self


class OpcuaTag(TagSettings):
    """One variable of the server."""

    node: str = Field(
        description='the node id: "ns=2;s=Press.Force", "ns=3;i=1001", or with the namespace\'s URI, which keeps '
        'its meaning when the server numbers its namespaces anew: "nsu=http://maker/press;s=Force"'
    )
    type: str = Field(
        description="the value's type: bool, int8 … uint64, float32, float64, string, datetime, bytes, object (a "
        "structure); float64[] is an array. A server that sends another type is not believed, unless it fits in this",
        json_schema_extra={"enum": list(type_names)},
    )
    filter: FilterSettings | None = Field(default=None, description="subscribed tags: what the server holds back")

    @field_validator("node")
    @classmethod
    def _is_node(cls, text: str) -> str:
        parse_node(text)
        return text

    @field_validator("type")
    @classmethod
    def _is_type(cls, text: str) -> str:
        if text not in type_names:
            raise ValueError(f"{text!r} is no type; write one of {', '.join(scalar_names)}; float64[] is an array")
        return text

    @property
    def name(self) -> NodeName:
        """The parsed node id."""
        return parse_node(self.node)


class OpcuaGroup(GroupSettings[OpcuaTag]):
    """Tags that belong together: subscribed to, read at an interval, or only when a station's trigger asks."""

    subscribe: Duration | None = Field(
        default=None, gt=0, le=3600, description="publishing interval: the server sends what changed this often"
    )
    sampling: Duration | None = Field(
        default=None,
        ge=0,
        le=3600,
        description="how often the server looks at the values; default: as often as it sends. 0s: as fast as it can",
    )
    queue: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="values of one tag that the server keeps until it sends, the oldest give way (status overflow)",
    )

    @model_validator(mode="after")
    def _paced(self) -> OpcuaGroup:
        if (self.subscribe is not None) + (self.poll is not None) + self.on_trigger != 1:
            raise ValueError("write one of subscribe: 100ms, poll: 1s and on_trigger: true")
        if self.subscribe is None:
            if "sampling" in self.model_fields_set or "queue" in self.model_fields_set:
                raise ValueError("sampling: and queue: belong to subscribe: <interval>")
            filtered = [name for name, tag in self.tags.items() if tag.filter is not None]
            if filtered:
                raise ValueError(f"filter: of {', '.join(filtered)} belongs to a group with subscribe: <interval>")
        return self


class OpcuaSettings(Settings):
    """A device that is an OPC UA server: a PLC, a robot, a machine's gateway."""

    driver: Literal["opcua"] = "opcua"
    connection: str = Field(
        pattern=r"^opc\.tcp://[^@\s]+$",
        description="opc.tcp://host:port, with the path that the server's endpoint has; the port is 4840 by default",
    )
    timeout: Duration = Field(
        default=4.0, ge=0.1, le=30, description="for connecting and each answer; a server silent for twice this is lost"
    )
    security: SecuritySettings = SecuritySettings()
    history: bool = Field(
        default=False,
        description="after a gap read what the server remembers of it (HistoryRead), for the nodes that have a history",
    )
    groups: dict[TagName, OpcuaGroup] = Field(default={}, description="tags that belong together")
    tags: dict[TagName, OpcuaTag] = Field(default={}, description="tags that are only written")

    @field_validator("connection")
    @classmethod
    def _is_address(cls, text: str) -> str:
        try:
            parts = urlsplit(text)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"{text!r} is no connection; write opc.tcp://192.168.1.20:4840")
        return text

    @property
    def url(self) -> str:
        """The connection with its port written out."""
        parts = urlsplit(self.connection)
        if parts.port is not None:
            return self.connection
        return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{DEFAULT_PORT}").geturl()


def describe(device: str, settings: OpcuaSettings) -> Shape:
    """The groups and writable tags of this device. Raises ValueError, see :func:`poll_shape`."""
    shape = poll_shape(device, settings.groups, settings.tags, lambda tag: tag.type)
    groups = {
        name: replace(group, spoken=settings.groups[name].subscribe is not None) for name, group in shape.groups.items()
    }
    return replace(shape, groups=groups)
