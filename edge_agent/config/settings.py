"""What the config may say of the agent and its stations. Buffer, devices and routes bring their own models.

The models are the YAML's shape, key by key, strict; the descriptions are what editors show. What only makes sense
together with the devices (does the tag exist, can it be written) is judged in :mod:`edge_agent.config.build`.

A reference to a device or tag is one value for all positions of the station, or a map of position to value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from edge_agent.config.by_position import ByPosition, TagsByPosition
from edge_agent.config.cycles import AttemptsSettings, CommandsSettings, CycleSettings
from edge_agent.config.gate import GateSettings
from edge_agent.config.limits import Limits
from edge_agent.config.materials import (
    ComponentSettings,
    MaterialSettings,
    PartSettings,
    RemoveSettings,
    RequireSettings,
)
from edge_agent.config.places import MAX_PLACES, CarrierSettings
from edge_agent.driver import Duration, Settings
from edge_agent.model import Result

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME_HINT = "use letters, digits, _ and -, begin with a letter or digit, at most 64"
MAX_POSITION = 999


def check_name(name: str) -> str:
    """``name`` if it can name an agent, device, group, tag, station or route. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a name; {NAME_HINT}")
    return name


def _topic_level(name: str) -> str:
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise ValueError(f"{name[:64]!r} cannot be a level of a topic; write 1 to 64 printable characters")
    if name[0] in "_$" or any(sign in name for sign in "/+#"):
        raise ValueError(f"{name!r} cannot be a level of a topic; leave out / + # and a leading _ or $")
    return name


Name = Annotated[str, AfterValidator(check_name), Field(json_schema_extra={"pattern": f"^{NAME.pattern}$"})]
TopicLevel = Annotated[
    str, AfterValidator(_topic_level), Field(json_schema_extra={"pattern": "^[^/+#_$][^/+#]*$", "maxLength": 64})
]


class LocationSettings(Settings):
    """Where the line is; the upper levels of every topic."""

    enterprise: TopicLevel = Field(description="company, e.g. acme")
    site: TopicLevel = Field(description="plant, e.g. suzhou")
    area: TopicLevel = Field(description="shop or hall, e.g. assembly")
    line: TopicLevel = Field(description="production line, e.g. L3")


GroupName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]


class RolesSettings(Settings):
    """Which groups of this PC have which role. Everybody who may open the control socket may look."""

    technician: list[GroupName] = Field(
        default=["edge-agent-technician"], description="may replay, retry, acknowledge findings, write tags"
    )
    quality: list[GroupName] = Field(default=["edge-agent-quality"], description="may bind, hold, release, override")
    admin: list[GroupName] = Field(default=["edge-agent-admin"], description="may do everything, drop a route too")


class AgentSettings(Settings):
    """Who this agent is and where it keeps its data."""

    id: Name = Field(description="unique among all agents that reach one broker, e.g. l3-pc1")
    location: LocationSettings
    data_dir: str = Field(min_length=1, description="directory of the buffer, e.g. /var/lib/edge-agent")
    roles: RolesSettings = RolesSettings()

    @property
    def data_path(self) -> Path:
        """``data_dir`` as a path."""
        return Path(self.data_dir)


# --- stations ------------------------------------------------------------------------------------------------


class IdentitySettings(Settings):
    """How the unit in a position becomes known."""

    when: Literal["before", "in_data", "after"] = Field(
        description="before: a scan opens the cycle; in_data: the result names the serial; after: a scan after the work"
    )
    scan: ByPosition | None = Field(default=None, description="scanner that identifies the unit (before, after)")
    tag: ByPosition | None = Field(default=None, description="tag that holds the serial (when: in_data)")
    pattern: str | None = Field(
        default=None, description="regular expression that the whole label matches, with the group (?P<serial>...)"
    )
    labels: list[Name] | None = Field(
        default=None, min_length=1, description="names of the section labels: that name the unit, in place of pattern"
    )
    bounce: Duration = Field(default=2.0, ge=0, description="the same label within this time is one scan")
    max_wait: Duration = Field(default=30.0, gt=0, description="when: after: a scan this late names no unit any more")
    known: bool = Field(default=False, description="a serial that no step ever saw is a mistake (in_data, after)")
    of: Literal["serial", "lot", "carrier"] = Field(
        default="serial", description="what the scan names: a unit, a lot, or a carrier with units on its places"
    )
    changeover: Duration = Field(
        default=0.0, ge=0, description="of: lot: so long after a scan it may still be the last"
    )
    slot_of: Name | None = Field(default=None, description="of the section registers: its steps bring the units")
    slot: int | None = Field(default=None, ge=1, description="where the station stands at it; scan: is a reader there")

    @model_validator(mode="after")
    def _one_way(self) -> IdentitySettings:
        if self.labels is not None and (self.pattern is not None or self.scan is None):
            raise ValueError("labels stands beside scan and in place of pattern; write scan: and labels: alone")
        return self


class CharacteristicSettings(Settings):
    """A value that is collected with each cycle, and judged if it has limits."""

    tag: ByPosition = Field(description="device.tag that holds the value")
    required: bool = Field(default=False, description="without it the cycle is incomplete, with a finding")
    limits: Limits | None = Field(default=None, description="[low, high], inclusive; either may be null")
    identical: int | None = Field(default=None, ge=2, description="so many equal values in a row are a finding")


_RESULTS = [result.value for result in Result]


def _result(name: Any) -> Result:
    if name not in _RESULTS:
        raise ValueError(f"{name!r} is no result; choose from {', '.join(_RESULTS)}")
    return Result(name)


ResultName = Annotated[Result, PlainValidator(_result), WithJsonSchema({"enum": _RESULTS})]


class ResultSettings(Settings):
    """Where the PLC's verdict stands and how it reads."""

    tag: ByPosition = Field(description="device.tag that holds the PLC's verdict")
    meaning: dict[str, ResultName] | None = Field(
        default=None, min_length=1, description="value -> result, e.g. {1: Passed, 2: Failed}; bool tags need none"
    )


class ContextSettings(Settings):
    """One item of a cycle's context: the last scan that matches, or a tag's value."""

    scan: str | None = Field(default=None, description="scanner that reads it")
    pattern: str | None = Field(default=None, description="regular expression that its labels match as a whole")
    labels: list[Name] | None = Field(
        default=None, min_length=1, description="names of the section labels: that give it, in place of pattern"
    )
    tag: str | None = Field(default=None, description="device.tag that holds it")

    @model_validator(mode="after")
    def _one_of(self) -> ContextSettings:
        if (self.scan is None) == (self.tag is None):
            raise ValueError("comes from a scan or from a tag; write scan: <scanner> or tag: <device.tag>")
        if self.pattern is not None and self.scan is None:
            raise ValueError("pattern belongs to scan; take it away, or write scan: <scanner>")
        if self.labels is not None and (self.pattern is not None or self.scan is None):
            raise ValueError("labels stands beside scan and in place of pattern; write scan: and labels: alone")
        return self


class ResumeSettings(Settings):
    """Evidence on which a cycle may go on after an observation gap, beyond a re-scan."""

    cycle_number: ByPosition | None = Field(
        default=None, description="tag that the PLC changes whenever another unit is taken up"
    )
    serial: ByPosition | None = Field(default=None, description="tag that names the unit in the position")


def _once(positions: list[int]) -> list[int]:
    if len(set(positions)) != len(positions):
        raise ValueError("a position stands twice; write each once")
    return positions


Positions = Annotated[list[Annotated[int, Field(ge=1, le=MAX_POSITION)]], AfterValidator(_once)]


class StationSettings(Settings):
    """One station: which unit is there, when its cycle ends, what is collected."""

    step: str = Field(min_length=1, max_length=64, description="the operation, e.g. press-fit")
    positions: Positions = Field(
        default=[1], min_length=1, max_length=MAX_PLACES, description="nests, cavities or lanes; a single one is 1"
    )
    capacity: int | None = Field(
        default=None, ge=1, le=MAX_PLACES, description="so many units at once, scanned in and out: an oven, a wash"
    )
    identity: IdentitySettings
    cycle: CycleSettings = CycleSettings()
    collect: dict[str, CharacteristicSettings] = Field(default={}, description="characteristic -> where it stands")
    result: ResultSettings | None = None
    context: dict[str, ContextSettings] = Field(default={}, description="work order, part number, operator ...")
    materials: dict[str, MaterialSettings] = Field(default={}, description="what is loaded here by lot or package")
    components: dict[str, ComponentSettings] = Field(default={}, description="what is built in and has a serial")
    remove: RemoveSettings | None = Field(default=None, description="a component read here is taken out")
    require: RequireSettings = RequireSettings()
    previous: list[str] = Field(default=[], description="steps that must have been done before, e.g. [press-fit]")
    parts: dict[str, PartSettings] = Field(default={}, description="part number -> what is different for it")
    resume: ResumeSettings = ResumeSettings()
    gate: GateSettings | None = Field(default=None, description="what a unit needs to enter, and how the PLC is told")
    commands: CommandsSettings | None = Field(default=None, description="results by scanning a printed sheet")
    attempts: AttemptsSettings | None = Field(default=None, description="how often a unit may come to the step")
    carrier: CarrierSettings | None = Field(default=None, description="carriers that are loaded or unloaded here")
    tags: TagsByPosition = Field(default=[], description='more tags that are this station\'s, e.g. ["press.nest1_*"]')

    @model_validator(mode="before")
    @classmethod
    def _as_many_positions(cls, data: Any) -> Any:
        """``capacity`` numbers the places itself."""
        if not isinstance(data, dict) or not isinstance(count := data.get("capacity"), int) or count > MAX_PLACES:
            return data
        if "positions" in data:
            raise ValueError("capacity numbers the places itself; take positions away")
        return data | {"positions": list(range(1, count + 1))}
