"""What a route's section of the config may say, by sink. Imports no protocol library, so that `check` stays light."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from edge_agent.driver import Duration, Secret, Settings, Size
from edge_agent.model import Kind


def _known_kind(name: str) -> str:
    labels = [kind.label for kind in Kind]
    if name not in labels:
        raise ValueError(f"{name!r} is no record kind; choose from {', '.join(labels)}")
    return name


DEFAULT_TOPIC = "{enterprise}/{site}/{area}/{line}/{source}/{kind}"
TOPIC_PARTS = ("enterprise", "site", "area", "line", "agent", "source", "station", "kind")
MAX_TOPIC = 512

KindName = Annotated[str, AfterValidator(_known_kind), Field(json_schema_extra={"enum": [k.label for k in Kind]})]


class TlsSettings(Settings):
    """TLS is always verified; there is no switch to turn that off."""

    ca: str | None = Field(default=None, description="file of CA certificates; default: the system's")
    cert: str | None = Field(default=None, description="client certificate file, for mutual TLS")
    key: str | None = Field(default=None, description="client key file, for mutual TLS")

    @model_validator(mode="after")
    def _both(self) -> TlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate and its key come together; write both cert: and key:")
        return self


class RouteSettings(Settings):
    """What every route says, whatever its sink. The sinks' own settings stand beside this, one module a sink."""

    sink: str
    start: Literal["now", "oldest"] = Field(description="a new route begins with today's log, or the oldest record")
    send: list[KindName] = Field(min_length=1, description="record kinds to send")
    stations: list[str] | None = Field(default=None, description="only these stations' records; default: all")
    max_backlog: Size | None = Field(
        default=None, ge=2**20, description="oldest unsent beyond this are dropped, recorded; at least 1 MiB"
    )
    order: Literal["live_first", "strict"] = Field(
        default="live_first", description="live_first: new records go beside a backlog; strict: after it"
    )
    max_rate: Size | None = Field(
        default=None, ge=1024, description="bytes a second that the route sends at most; live records first"
    )
    was: str | None = Field(default=None, description="the route's former name: it goes on where that one stood")

    dictionary: str | None = Field(default=None, description="section of dictionaries: by whose words records go out")

    @property
    def destination(self) -> str:
        """Where records go, in one line and without a secret."""
        raise NotImplementedError

    @property
    def delivered_when(self) -> Literal["receiver", "broker", "database", "file"]:
        """Who says that it has a record: receiver and database have committed it, broker and file only took it."""
        raise NotImplementedError


def _text_of_number(version: object) -> object:
    return str(version) if type(version) is int else version  # nobody writes version: "5" with the quotes


def _topic_template(template: str) -> str:
    named = re.findall(r"\{([^{}]*)\}", template)
    rest = re.sub(r"\{[^{}]*\}", "", template)
    unknown = [name for name in named if name not in TOPIC_PARTS]
    if unknown or "{" in rest or "}" in rest:
        wrong = f"{{{unknown[0]}}}" if unknown else template
        raise ValueError(f"{wrong!r} is no part of a topic; use {' '.join(f'{{{part}}}' for part in TOPIC_PARTS)}")
    if "kind" not in named or not {"source", "station"} & set(named):
        raise ValueError("the topic would not tell records apart; put {source} and {kind} into it")
    if any(sign in rest for sign in "+#\0") or template.startswith(("/", "$")) or len(template) > MAX_TOPIC:
        raise ValueError(f"this cannot be a topic; at most {MAX_TOPIC} characters, no + and no #, no / or $ in front")
    return template


def _broker(url: str) -> str:
    parts = urlsplit(url)  # a bad port only shows when it is read
    try:
        usable = parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{url!r} names no broker; write mqtts://host:8883")
    return url


class BrokerSettings(Settings):
    """Which MQTT broker, and as whom."""

    url: Annotated[str, AfterValidator(_broker)] = Field(
        pattern=r"^mqtts?://[^/@]+$", description="mqtt://host:1883 or mqtts://host:8883"
    )
    version: Annotated[
        Literal["5", "3.1.1"], BeforeValidator(_text_of_number), WithJsonSchema({"enum": ["5", 5, "3.1.1"]})
    ] = Field(default="5", description="3.1.1 hides refused messages: avoid it")
    client_id: str | None = Field(default=None, description="default: edge-agent-<agent id>-<name of this>")
    username: str | None = Field(default=None, description="login at the broker")
    password: Secret | None = Field(default=None, description="{file: /path} or {env: NAME}; never the secret itself")
    tls: TlsSettings = TlsSettings()
    ack_timeout: Duration = Field(default=10.0, description="no PUBACK for this long: reconnect")
    keepalive: Duration = Field(default=15.0, ge=1, le=600, description="MQTT keep-alive; also bounds a silent loss")

    @property
    def broker(self) -> tuple[bool, str, int]:
        """(TLS?, host, port) of ``url``."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "mqtts"
        return secure, parts.hostname or "localhost", parts.port or (8883 if secure else 1883)


class MqttRouteSettings(RouteSettings, BrokerSettings):
    """A route over MQTT, QoS 1."""

    sink: Literal["mqtt"] = Field(description="where to: mqtt")
    confirm: Literal["receiver", "broker"] = Field(
        default="receiver",
        description="receiver: delivered when the consumer confirms after its commit; broker: when the broker has it",
    )
    confirm_timeout: Duration = Field(default=30.0, description="unconfirmed records are sent again after this")
    topic: Annotated[str, AfterValidator(_topic_template)] = Field(
        default=DEFAULT_TOPIC, description="template; must contain {source} and {kind}"
    )
    plain_topics: bool = Field(
        default=False,
        description="what is no letter, digit, _ or - becomes _ in topics: for brokers with signs of their own",
    )
    message_size: Size = Field(default=128 * 1024, ge=4096, le=16 * 2**20, description="largest message, bytes")
    in_flight: int = Field(default=20, ge=1, le=1000, description="messages handed over but not yet acknowledged")

    @property
    def destination(self) -> str:
        return self.url

    @property
    def delivered_when(self) -> Literal["receiver", "broker"]:
        return self.confirm
