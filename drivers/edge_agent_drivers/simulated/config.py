"""What a simulated device's section of the config may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edge_agent.driver import Duration, GroupSettings, Settings, Shape, TagName, TagSettings, poll_shape


class SimulatedTag(TagSettings):
    """A wave between ``low`` and ``high``; ``count`` is an integer that goes up by one each period."""

    wave: Literal["sine", "saw", "square", "count"] = Field(
        default="sine", description="sine, saw: between low and high; square: false, true; count: one more each period"
    )
    period: Duration = Field(default=10.0, gt=0, description="of the wave")
    low: float = Field(default=0.0, description="smallest value")
    high: float = Field(default=1.0, description="largest value")

    @model_validator(mode="after")
    def _spans(self) -> SimulatedTag:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @property
    def value_type(self) -> str:
        return {"count": "int64", "square": "bool"}.get(self.wave, "float64")


class SimulatedSettings(Settings):
    """A device that is not there."""

    driver: Literal["simulated"] = "simulated"
    groups: dict[TagName, GroupSettings[SimulatedTag]] = Field(min_length=1, description="tags that are read together")
    tags: dict[TagName, SimulatedTag] = Field(default={}, description="tags that are only written")


def describe(device: str, settings: SimulatedSettings) -> Shape:
    """The groups and writable tags of this device. Raises ValueError, see :func:`poll_shape`."""
    return poll_shape(device, settings.groups, settings.tags, lambda tag: tag.value_type)
