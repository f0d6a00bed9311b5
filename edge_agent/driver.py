"""The driver contract: four methods, a spec, and the registry that reads entry points.

A driver opens, reads, writes and closes one device. It starts no task, retries nothing, logs no failure (it
raises) and never catches ``CancelledError``; the collector owns all of that, once, for every driver. Only the
drivers a config names are loaded.

=============  ====================================================================================
``open()``     connect. Raises DeviceUnavailable (retry soon) or DeviceRefused (wrong credentials or
               address: long back-off). May be called again after close.
``read(g)``    the next samples or scans, never partial ones. With a group: a fresh read of just that
               group, made after the call. Raises DeviceLost (close, reopen) or ReadingRejected (count it, go on).
``write(t,v)`` for tags marked writable; returns after a read-back where the protocol has one. Raises
               DeviceLost, DeviceRefused when the device will not take the value, or
               ValueNotKept when it took it and then shows another.
``close()``    idempotent, safe after a failed open, bounded in time.
=============  ====================================================================================

The collector never calls two of them at once, with one exception: an ``event`` driver may be asked to ``write()``
or to ``read(group)`` while its ``read()`` waits.
Cancelling ``read()`` must lose no frame that the device had completed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edge_agent.bench import Bench
from edge_agent.errors import EdgeAgentError
from edge_agent.model import Sample, Scan, Tag, TagSet, Value

ENTRY_POINT_GROUP = "edge_agent.drivers"


class Driver(Protocol):
    """See the module docstring for what each method promises."""

    async def open(self) -> None: ...

    async def read(self, group: str | None = None) -> Sequence[Sample | Scan]: ...

    async def write(self, tag: str, value: Value) -> None: ...

    async def close(self) -> None: ...


class Cadence(StrEnum):
    """Who sets the pace: the collector (``poll``: read(group) once an interval) or the device (``event``)."""

    POLL = "poll"
    EVENT = "event"


# --- settings that every driver's model is made of -----------------------------------------------------------

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|min|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40
}  # fmt: skip


def parse_duration(text: object) -> float:
    """Seconds of "100ms", "5min", "72h". Raises ValueError for anything without a unit."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, e.g. 100ms, 5s, 2min, 72h, 7d")
    return float(match["number"]) * _SECONDS[match["unit"]]


def parse_size(text: object) -> int:
    """Bytes of "512MiB", "20GB". Raises ValueError for anything without a unit."""
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, e.g. 512MiB, 20GB")
    return int(float(match["number"]) * _BYTES[match["unit"]])


_DURATION_SCHEMA = {"type": "string", "pattern": rf"^{_DURATION.pattern}$", "examples": ["100ms", "5min"]}
_SIZE_SCHEMA = {"type": "string", "pattern": rf"^{_SIZE.pattern}$", "examples": ["512MiB", "20GB"]}
Duration = Annotated[float, BeforeValidator(parse_duration), Field(json_schema_extra=_DURATION_SCHEMA)]
"""Seconds, written with a unit."""
Size = Annotated[int, BeforeValidator(parse_size), Field(json_schema_extra=_SIZE_SCHEMA)]
"""Bytes, written with a unit."""


class Settings(BaseModel):
    """Base of every settings model: strict, frozen, unknown keys are errors."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class SecretMissing(EdgeAgentError):
    """The file or environment variable that should hold a secret is not there."""


class Secret(Settings):
    """Where a secret is kept; the config never holds the secret itself. Exactly one of the two keys."""

    file: str | None = Field(default=None, description="path of a file that holds the secret, one line")
    env: str | None = Field(default=None, description="name of an environment variable that holds the secret")

    @model_validator(mode="after")
    def _one_of(self) -> Secret:
        if (self.file is None) == (self.env is None):
            raise ValueError("write either {file: /path/to/secret} or {env: NAME}")
        return self

    def reveal(self) -> str:
        """The secret. Raises SecretMissing; the message never contains it."""
        if self.env is not None:
            if self.env not in os.environ:
                hint = f"export {self.env}=…; for the service write {self.env}=… into /etc/edge-agent/environment"
                raise SecretMissing(f"environment variable {self.env} is not set", hint=hint)
            return os.environ[self.env]
        try:
            return Path(self.file or "").read_text(encoding="utf-8").strip()
        except PermissionError as error:
            hint = f"the agent's user must be able to read it: ls -l {self.file}"
            raise SecretMissing(f"{self.file}: {error.strerror}", hint=hint) from error
        except OSError as error:
            raise SecretMissing(f"{self.file}: {error.strerror}", hint=f"put the secret into {self.file}") from error
        except UnicodeDecodeError as error:
            raise SecretMissing(f"{self.file} holds no text", hint=f"put the secret into {self.file}") from error


class TagSettings(Settings):
    """What every tag may say, whatever its protocol."""

    unit: str = Field(default="", description="unit of the value after scaling, e.g. kN, °C")
    store: Literal["cycle", "change", "always"] = Field(
        default="cycle",
        description="cycle: while a cycle is open, and changes otherwise; change: changes only; always: every sample",
    )
    deadband: float = Field(default=0.0, ge=0, description="a smaller change than this, in units, is no change")
    heartbeat: Duration | None = Field(default=None, description="store at least this often though unchanged")
    write: bool = Field(default=False, description="the agent may write this tag")


TagName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
"""Name of a group or a tag: letters, digits, _ and - only, as ``device.tag`` and topics are made of it."""

TagT = TypeVar("TagT", bound=TagSettings)


class GroupSettings(Settings, Generic[TagT]):
    """Tags that a poll driver reads together: at an interval, or only when a station's trigger asks."""

    poll: Duration | None = Field(default=None, description="read this often; 0s reads without a pause")
    on_trigger: bool = Field(default=False, description="read only when a station's trigger asks for it")
    tags: dict[TagName, TagT] = Field(min_length=1, description="what is read, in the order of the samples' values")

    @model_validator(mode="after")
    def _paced(self) -> GroupSettings[TagT]:
        if self.on_trigger == (self.poll is not None):
            raise ValueError("write either poll: <interval>, e.g. 100ms, or on_trigger: true")
        return self


# --- what a driver tells the engine --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Tags that are read together: polled, or sent by the device by itself (``spoken``), or else only on a trigger."""

    tagset: TagSet
    poll_s: float | None
    tags: Mapping[str, TagSettings]  # in the order of the tagset
    spoken: bool = False
    readable: bool = True  # read(group) can ask for it; what only ever speaks by itself cannot be asked


@dataclass(frozen=True, slots=True)
class Shape:
    """What a device offers, known from its settings alone: checked against the stations, stored as tagsets."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    writable: frozenset[str] = frozenset()
    scans: bool = False  # its read() yields Scan
    port: tuple[str, str] | None = None  # (port or host, how it is used): devices on one must agree, "" never do
    written: Mapping[str, Tag] = field(default_factory=dict)  # tags that are only written, where their type is known

    def tag(self, name: str) -> Tag | None:
        """The tag of this name, with its type; None where nothing is known of it."""
        read = (tag for group in self.groups.values() for tag in group.tagset.tags if tag.name == name)
        return next(read, self.written.get(name))


def poll_shape(
    device: str,
    groups: Mapping[str, GroupSettings[TagT]],
    written: Mapping[str, TagT],
    type_of: Callable[[TagT], str],
) -> Shape:
    """The shape of a poll driver: its groups, and the tags outside them that are only written.

    Raises ValueError for a tag named twice, or one outside the groups that is not marked ``write``.
    """
    wrong = [f"tag {name!r} is in no group and not writable" for name, tag in written.items() if not tag.write]
    named: dict[str, TagT] = {}
    for home, tags in [*((f"group {name!r}", group.tags) for name, group in groups.items()), ("tags", written)]:
        wrong += [f"tag {name!r} of {home} is named twice on this device" for name in tags if name in named]
        named.update(tags)
    if wrong:
        raise ValueError("; ".join(wrong))
    shapes = {}
    for name, group in groups.items():
        described = tuple(Tag(tag, type_of(settings), settings.unit) for tag, settings in group.tags.items())
        shapes[name] = Group(TagSet(device, name, described), group.poll, dict(group.tags))
    only = {name: Tag(name, type_of(settings), settings.unit) for name, settings in written.items()}
    return Shape(groups=shapes, writable=frozenset(name for name, tag in named.items() if tag.write), written=only)


class Risk(NamedTuple):
    """What `check` and the start of the agent warn of: the key of the device's section, what, and what to do."""

    key: str  # "security.pki"
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """A driver, described. Importing the module that holds it must not import the protocol's library.

    ``describe`` raises ValueError for settings that contradict each other. ``create`` does no I/O.
    """

    name: str
    cadence: Cadence
    settings: Callable[[], type[Settings]]
    describe: Callable[[str, Any], Shape]  # (device name, settings) -> Shape
    create: Callable[[str, Any], Driver]  # (device name, settings) -> Driver
    bench: Callable[[], Bench] | None = None  # what it offers with no agent running; loads the protocol's library
    risks: Callable[[str, Any], Sequence[Risk]] | None = (
        None  # (device name, settings) -> warnings; looks at files only
    )


class UnknownDriver(EdgeAgentError):
    """No installed package offers a driver of this name."""


def driver_names() -> list[str]:
    """The names of all installed drivers; loads none of them."""
    return sorted(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))


def load_driver(name: str) -> DriverSpec:
    """The spec of one driver. Raises UnknownDriver."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            spec: DriverSpec = entry.load()
            return spec
    raise UnknownDriver(f"no driver named {name!r}", hint=f"installed drivers: {', '.join(driver_names())}")
