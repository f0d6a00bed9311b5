"""What the section of a sensors device may say. A source names a sensor by what stays: its chip, not its number.

=====================================  =============================================================================
source                                 what is read
=====================================  =============================================================================
``hwmon:nct6775/temp1``                a channel of a chip in /sys/class/hwmon, in °C, V, A, W, J, %RH or rpm
``iio:bme280/in_pressure``             a channel of a device in /sys/bus/iio, in the unit of its kind
``hwmon:lm75@1-0048/temp1``            of several chips with one name, the one at this address (the same with iio)
``w1:28-000005e2fdc3``                 a 1-wire thermometer, in °C
``file:/sys/class/.../temp``           any file with one number in it, as it is: write scale and unit
=====================================  =============================================================================

The kernel's units (milli-degrees, microwatts) are turned into the base unit exactly, in decimals:
https://docs.kernel.org/hwmon/sysfs-interface.html and Documentation/ABI/testing/sysfs-bus-iio.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import GroupSettings, Settings, Shape, TagName, TagSettings, poll_shape

_SOURCE = re.compile(
    r"(?P<kind>hwmon|iio):(?P<chip>[\w.-]+)(?:@(?P<at>[\w.:-]+))?/(?P<channel>\w+)"
    r"|w1:(?P<w1>[0-9a-f]{2}-[0-9a-f]{12})|file:(?P<file>/\S+)"
)
_HWMON = {
    "temp": ("°C", -3), "in": ("V", -3), "curr": ("A", -3), "power": ("W", -6), "energy": ("J", -6),
    "humidity": ("%RH", -3), "fan": ("rpm", 0), "freq": ("Hz", 0),
}  # fmt: skip
_IIO = {
    "temp": ("°C", -3), "voltage": ("V", -3), "altvoltage": ("V", -3), "current": ("A", -3), "power": ("W", -3),
    "humidityrelative": ("%RH", -3), "pressure": ("kPa", 0), "illuminance": ("lx", 0), "resistance": ("Ω", 0),
    "accel": ("m/s²", 0), "anglvel": ("rad/s", 0), "magn": ("G", 0), "distance": ("m", 0), "proximity": ("m", 0),
    "energy": ("J", 0), "concentration": ("%", 0), "ph": ("pH", 0), "electricalconductivity": ("S/m", 0),
}  # fmt: skip


class Source(NamedTuple):
    """Where a value comes from. ``unit`` is its base unit ("" if unknown), ``exponent`` the kernel's power of ten."""

    kind: Literal["hwmon", "iio", "w1", "file"]
    chip: str  # of w1 its id, of file its path
    at: str  # the chip's address, "" when its name is enough
    channel: str
    unit: str
    exponent: int


def parse_source(text: str) -> Source:
    """The parts of ``hwmon:lm75@1-0048/temp1``. Raises ValueError with what to write instead."""
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no source; write hwmon:CHIP/temp1, iio:CHIP/in_temp, w1:28-000005e2fdc3 or file:/path "
            "(see what there is: edge-agent devices scan)"
        )
    if match["w1"]:
        return Source("w1", match["w1"], "", "", "°C", -3)
    if match["file"]:
        return Source("file", match["file"], "", "", "", 0)
    table, prefix = (_HWMON, r"([a-z]+)\d*") if match["kind"] == "hwmon" else (_IIO, r"(?:in|out)_([a-z]+)\w*")
    what = re.fullmatch(prefix, match["channel"])
    if what is None or what[1] not in table:
        example = "temp1, in0, fan2" if match["kind"] == "hwmon" else "in_temp, in_voltage0, in_pressure"
        raise ValueError(f"{match['channel']!r} is no channel of {match['kind']}; write e.g. {example}, without _input")
    unit, exponent = table[what[1]]
    kind: Literal["hwmon", "iio"] = "hwmon" if match["kind"] == "hwmon" else "iio"
    return Source(kind, match["chip"], match["at"] or "", match["channel"], unit, exponent)


class SensorTag(TagSettings):
    """One number that the kernel shows."""

    source: str = Field(description="hwmon:CHIP/temp1, iio:CHIP/in_temp, w1:28-000005e2fdc3 or file:/path")
    type: Literal["float64", "int64", "bool", "string"] = Field(
        default="float64", description="of file: also int64, bool (0 is false) and string; of all others float64"
    )
    scale: float = Field(default=1.0, description="value = base unit * scale + offset; of file: what stands there")
    offset: float = Field(default=0.0, ge=-1e15, le=1e15, description="see scale")

    @field_validator("source")
    @classmethod
    def _is_source(cls, text: str) -> str:
        parse_source(text)
        return text

    @model_validator(mode="after")
    def _consistent(self) -> SensorTag:
        source = parse_source(self.source)
        scaled = (self.scale, self.offset) != (1.0, 0.0)
        if not 1e-12 <= abs(self.scale) <= 1e12:
            raise ValueError("scale must be a number other than 0, between 1e-12 and 1e12")
        if self.type != "float64" and source.kind != "file":
            raise ValueError(f"{self.source} is a float64")
        if self.type != "float64" and scaled:
            raise ValueError(f"a {self.type} has no scale and no offset")
        if source.unit and self.unit not in ("", source.unit) and not scaled:
            raise ValueError(
                f"{self.source} is in {source.unit}: write unit: {source.unit}, or the scale to {self.unit}"
            )
        if self.write:
            raise ValueError("a sensor can only be read")
        return self

    @property
    def recorded_unit(self) -> str:
        """The unit of the value as samples carry it."""
        return self.unit or parse_source(self.source).unit


class SensorsSettings(Settings):
    """Sensors of this PC: board temperatures, chips on I²C, 1-wire thermometers, any file with a number."""

    driver: Literal["sensors"] = "sensors"
    root: str = Field(
        default="/", pattern=r"^/", description="where /sys is found; /host for a container with the host's"
    )
    groups: dict[TagName, GroupSettings[SensorTag]] = Field(min_length=1, description="sensors that are read together")


def describe(device: str, settings: SensorsSettings) -> Shape:
    """The groups of this device, each tag with its unit. Raises ValueError, see :func:`poll_shape`."""
    groups = {
        name: group.model_copy(
            update={
                "tags": {tag: one.model_copy(update={"unit": one.recorded_unit}) for tag, one in group.tags.items()}
            }
        )
        for name, group in settings.groups.items()
    }
    return poll_shape(device, groups, {}, lambda tag: tag.type)
