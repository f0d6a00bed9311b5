"""What the section of an mqtt device may say: a broker, and which messages are which group's.

A group is one of two. With ``topic:`` each message of it is one sample, with all its tags: a torque tool's result, a
tester's report. Without, every tag has a ``topic:`` of its own and a message brings news of one tag: the sample is the
newest of all, as a PLC's would be. ``path`` is a JSON Pointer (RFC 6901) into the message; without it the whole
message is the value, as text or as a JSON scalar.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from edge_agent.driver import Duration, Group, Secret, Settings, Shape, TagName, TagSettings
from edge_agent.model import Tag, TagSet

MAX_TOPIC = 512
TypeName = Literal["bool", "int64", "float64", "string", "object"]


def _topic(topic: str) -> str:
    levels = topic.split("/")
    hashes = "#" in topic and (levels[-1] != "#" or topic.count("#") > 1)
    pluses = any("+" in level and level != "+" for level in levels)
    if not topic or len(topic) > MAX_TOPIC or hashes or pluses or "\0" in topic or topic[0] == "$":
        raise ValueError(f"{topic[:64]!r} is no topic; write e.g. tools/nutrunner1/result, with + for any one level")
    return topic


def _pointer(path: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError(f"{path!r} is no JSON Pointer; write /{path.replace('.', '/')}")
    return path


def _broker(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{url!r} names no broker; write mqtt://127.0.0.1:1883 or mqtts://host:8883")
    return url


Topic = Annotated[str, AfterValidator(_topic)]
Pointer = Annotated[str, AfterValidator(_pointer)]


class TlsSettings(Settings):
    """TLS is always verified."""

    ca: str | None = Field(default=None, description="file of CA certificates; default: the system's")
    cert: str | None = Field(default=None, description="client certificate file, for mutual TLS")
    key: str | None = Field(default=None, description="client key file, for mutual TLS")

    @model_validator(mode="after")
    def _both(self) -> TlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate and its key come together; write both cert: and key:")
        return self


class MqttTag(TagSettings):
    """One value in the messages of a topic."""

    topic: Topic | None = Field(
        default=None, description="where its value comes, in a group without a topic; + and # allowed"
    )
    path: Pointer = Field(
        default="", description="JSON Pointer to it in the message, e.g. /data/torque; default: the whole"
    )
    type: TypeName = Field(default="float64", description="a value of another type is none, and says so")

    @model_validator(mode="after")
    def _read_only(self) -> MqttTag:
        if self.write:
            raise ValueError("this driver only listens; what is sent to a broker is a route")
        return self


class MqttGroup(Settings):
    """Tags that one message brings together, or tags with a topic each."""

    topic: Topic | None = Field(default=None, description="each message of it is one sample; + and # allowed")
    time: Pointer | None = Field(
        default=None, description="JSON Pointer to when it was so: ISO 8601, or Unix time in s, ms, µs or ns"
    )
    tags: dict[TagName, MqttTag] = Field(min_length=1, description="what is in it, in the order of the samples' values")

    @model_validator(mode="after")
    def _either(self) -> MqttGroup:
        of_tags = [name for name, tag in self.tags.items() if tag.topic is not None]
        if self.topic is not None and of_tags:
            raise ValueError(f"the group has a topic and so has tag {of_tags[0]!r}; write one of them")
        if self.topic is None and len(of_tags) < len(self.tags):
            missing = next(name for name in self.tags if name not in of_tags)
            raise ValueError(f"tag {missing!r} has no topic; write topic: for the group, or for each of its tags")
        if self.time is not None and self.topic is None:
            raise ValueError("time: belongs to a group with a topic")
        return self


class MqttSettings(Settings):
    """Readings that other devices publish on a broker, mostly one on this PC."""

    driver: Literal["mqtt"] = "mqtt"
    url: Annotated[str, AfterValidator(_broker)] = Field(
        pattern=r"^mqtts?://[^/@]+$", description="mqtt://127.0.0.1:1883 or mqtts://host:8883"
    )
    version: Literal["5", "3.1.1"] = Field(default="5", description="of MQTT")
    client_id: str = Field(default="", description="default: the broker chooses one")
    username: str | None = Field(default=None, description="login at the broker")
    password: Secret | None = Field(default=None, description="{file: /path} or {env: NAME}; never the secret itself")
    tls: TlsSettings = TlsSettings()
    keepalive: Duration = Field(default=15.0, ge=1, le=600, description="MQTT keep-alive; also bounds a silent loss")
    retained: Literal["doubt", "take", "drop"] = Field(
        default="doubt", description="what the broker kept from before: with a status, as good as new, or not at all"
    )
    groups: dict[TagName, MqttGroup] = Field(min_length=1, description="what is listened to")


def describe(device: str, settings: MqttSettings) -> Shape:
    """The groups of this device; they speak by themselves. Raises ValueError for a tag named twice."""
    home: dict[str, str] = {}
    groups: dict[str, Group] = {}
    for name, group in settings.groups.items():
        for tag in group.tags:
            if tag in home:
                raise ValueError(
                    f"tag {tag!r} of group {name!r} is named twice on this device, see group {home[tag]!r}"
                )
            home[tag] = name
        tags = tuple(Tag(tag, its.type, its.unit) for tag, its in group.tags.items())
        groups[name] = Group(TagSet(device, name, tags), None, dict(group.tags), spoken=True, readable=False)
    return Shape(groups=groups)
