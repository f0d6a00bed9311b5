"""What a camera's section of the config may say. Loads neither OpenCV nor a decoder.

One device is one view. What it sees leaves as scans; a group is what else is known of the same picture, with the hash
of the photo that is kept. ``source`` says by its form what it is: a device, a stream, or a folder of pictures.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, Group, Secret, Settings, Shape, Size, TagName, TagSettings
from edge_agent.model import Tag, TagSet

Format = Literal[
    "datamatrix", "qr", "microqr", "aztec", "pdf417",
    "code128", "code39", "code93", "codabar", "itf", "ean13", "ean8", "upca", "upce",
    "databar", "databar_expanded", "databar_limited", "all",
]  # fmt: skip
Facet = Literal["photo", "code", "codes", "symbology", "count", "brightness", "sharpness", "exposure", "gain"]
TYPES: dict[Facet, str] = {
    "photo": "string", "code": "string", "codes": "string[]", "symbology": "string", "count": "uint16",
    "brightness": "float32", "sharpness": "float32", "exposure": "float64", "gain": "float64",
}  # fmt: skip
SETTABLE: tuple[Facet, ...] = ("exposure", "gain")
STREAMS = ("rtsp", "rtsps", "http", "https")
TRIGGER = "trigger"
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")

Edge = Annotated[int, Field(ge=0, le=100_000)] | Annotated[str, Field(pattern=rf"^{_PERCENT.pattern}$")]


class PictureSettings(Settings):
    """How the camera is set (USB cameras). What the camera does not take is an error, not a surprise."""

    width: int | None = Field(default=None, ge=16, le=16_384, description="pixels; write width and height together")
    height: int | None = Field(default=None, ge=16, le=16_384, description="pixels")
    fps: float | None = Field(default=None, gt=0, le=1000, description="pictures a second that the camera takes")
    encoding: Literal["mjpg", "yuyv"] | None = Field(
        default=None, description="how it sends them; 1080p over USB 2 needs mjpg, else it gives some 5 a second"
    )
    exposure: float | None = Field(
        default=None, gt=0, description="fixed, in the camera's own steps (mostly 0.1 ms); without it: automatic"
    )
    gain: float | None = Field(default=None, ge=0, description="in the camera's own steps")
    focus: float | None = Field(default=None, ge=0, description="fixed, in the camera's own steps; else automatic")

    @model_validator(mode="after")
    def _whole(self) -> PictureSettings:
        if (self.width is None) != (self.height is None):
            raise ValueError("write width: and height: together, e.g. width: 1920 and height: 1080")
        return self


class FolderSettings(Settings):
    """Pictures that another program or an industrial camera drops into a folder: each is one result."""

    after: Literal["leave", "move", "delete"] = Field(
        default="leave",
        description="what becomes of a picture that was read; move: into done/, unusable ones go to rejected/",
    )
    existing: Literal["skip", "read"] = Field(
        default="skip",
        description="pictures that were there before the folder was opened: their units may have moved on",
    )
    settle: Duration = Field(
        default=5.0, gt=0, le=600, description="a picture that stays incomplete this long is rejected"
    )
    max_file: Size = Field(default=50_000_000, ge=1000, le=200_000_000, description="what is larger is rejected")


class PhotoSettings(Settings):
    """Where pictures are kept, by the hash of their content: <folder>/ab/abcdef….jpg."""

    folder: str = Field(pattern=r"^/", description="e.g. /var/lib/edge-agent/photos; cameras may share it")
    format: Literal["jpeg", "png"] = Field(
        default="jpeg", description="png loses nothing and takes 5 times the room; pictures from a folder stay as is"
    )
    quality: int = Field(default=90, ge=10, le=100, description="of jpeg")
    keep: Duration = Field(default=30 * 86400.0, ge=60, description="older photos are deleted")
    max_size: Size = Field(default=5 * 10**9, ge=10_000, description="of the folder; the oldest photos make room")
    min_free: Size = Field(default=10**9, ge=0, description="of the disk; below it no photo is stored")


class CameraTag(TagSettings):
    """One thing known of a picture, or a setting of the camera."""

    value: Facet | Literal["trigger"] | None = Field(
        default=None, description="what it is: photo, code, codes, count …; needed where the tag's name does not say it"
    )


class CameraGroup(Settings):
    """Tags of one and the same picture."""

    on_trigger: bool = Field(
        default=False,
        description="true: a new picture when a station's trigger asks; false: with each result of the camera",
    )
    tags: dict[TagName, CameraTag] = Field(min_length=1, description="what is said of the picture")


class CameraSettings(Settings):
    """A camera on USB, a network camera, or a folder into which pictures are put."""

    driver: Literal["camera"] = "camera"
    source: str = Field(
        min_length=1,
        description="/dev/v4l/by-id/… (that name survives a replug), rtsp://host/path, http://host/….mjpg, or a folder",
    )
    user: str = Field(default="", description="of a network camera")
    password: Secret | None = Field(default=None, description="{file: /path} or {env: NAME}; never the secret itself")
    formats: list[Format] = Field(
        min_length=1,
        description="the barcodes to look for; name those there are: all of them takes 10 times as long",
    )
    region: list[Edge] = Field(
        default=[],
        description="[x, y, width, height] in pixels, or in percent of the picture: look only there, many times faster",
    )
    inverted: bool = Field(default=False, description="look for light codes on dark too; takes up to twice as long")
    second_try: bool | None = Field(
        default=None,
        description="look with pyzbar for linear codes that were not found: it reads blurred ones; slow. Default: for "
        "triggered pictures and those of a folder",
    )
    expect: int | None = Field(
        default=None, ge=1, le=100, description="codes in a picture; one with more or fewer gives none of them"
    )
    mode: Literal["continuous", "triggered"] = Field(
        default="continuous", description="continuous: a scan when a code arrives; triggered: one result a trigger"
    )
    retry: int = Field(default=5, ge=1, le=100, description="pictures that are tried for one trigger")
    look_every: Duration = Field(default=0.1, ge=0, le=60, description="0s: at each picture, as fast as it decodes")
    absent_after: Duration = Field(
        default=1.0, gt=0, le=3600, description="a code that was not seen this long has left: seen again it is new"
    )
    timeout: Duration = Field(default=5.0, gt=0, le=10, description="for opening, and for each picture")
    lag: Duration = Field(
        default=0.0, ge=0, le=10, description="how much later than the world a network camera's pictures come"
    )
    picture: PictureSettings = PictureSettings()
    folder: FolderSettings | None = Field(default=None, description="only where source is a folder")
    photos: PhotoSettings | None = Field(default=None, description="keep the picture of each result")
    groups: dict[TagName, CameraGroup] = Field(default={}, description="what else is said of a picture")
    tags: dict[TagName, CameraTag] = Field(default={}, description="only written: trigger, exposure, gain")

    @property
    def tries_again(self) -> bool:
        """Whether pyzbar is the second try."""
        each_is_asked_for = self.kind == "folder" or self.mode == "triggered"
        return each_is_asked_for if self.second_try is None else self.second_try

    @property
    def kind(self) -> Literal["device", "stream", "folder"]:
        """What ``source`` is."""
        if "://" in self.source:
            return "stream"
        return "device" if self.source.startswith("/dev/") else "folder"

    @field_validator("source")
    @classmethod
    def _source(cls, text: str) -> str:
        if "://" not in text:
            if not text.startswith("/"):
                raise ValueError(f"{text!r} is no source; write /dev/v4l/by-id/…, rtsp://host/path or /a/folder")
            return text.rstrip("/") or "/"
        try:
            parts = urlsplit(text)
            usable = parts.scheme in STREAMS and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable, parts = False, urlsplit("")
        if not usable:
            raise ValueError(f"no stream can be had from this address; write one of {', '.join(STREAMS)}://host/path")
        if parts.username is not None or parts.password is not None:
            raise ValueError("user and password do not belong into source; write user: and password: {file: …}")
        return text

    @field_validator("region")
    @classmethod
    def _region(cls, region: list[int | str]) -> list[int | str]:
        if not region:
            return region
        if len(region) != 4 or len({type(edge) for edge in region}) != 1:
            raise ValueError("write four numbers, [x, y, width, height], all in pixels or all in percent")
        x, y, width, height = (float(str(edge).rstrip("% ")) for edge in region)
        if not width or not height:
            raise ValueError("the region is empty")
        if isinstance(region[0], str) and (x + width > 100 or y + height > 100):
            raise ValueError("the region reaches out of the picture: x + width and y + height are at most 100%")
        return region

    @model_validator(mode="after")
    def _fits(self) -> CameraSettings:
        kind = self.kind
        if (self.user or self.password) and kind != "stream":
            raise ValueError("user: and password: are for rtsp:// and http:// sources")
        if kind != "device" and self.picture != PictureSettings():
            raise ValueError("picture: is for USB cameras; a network camera is set on its own web page")
        if kind != "folder" and self.folder is not None:
            raise ValueError("folder: is for a source that is a folder")
        if kind == "folder" and self.mode == "triggered":
            raise ValueError("each new picture in a folder is a result of its own; take mode: away")
        if self.folder and self.folder.existing == "read" and self.folder.after == "leave":
            raise ValueError("existing: read would read all of them again at each start; write after: move or delete")
        if "all" in self.formats and len(self.formats) > 1:
            raise ValueError("formats: name those there are, or all alone")
        return self

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The region in a picture of this size: left, top, right, bottom; empty when it lies outside."""
        if not self.region:
            return 0, 0, width, height
        if isinstance(self.region[0], str):
            shares = [float(str(edge).rstrip("% ")) / 100 for edge in self.region]
            x, y, wide, high = (round(s * of) for s, of in zip(shares, (width, height) * 2, strict=True))
        else:
            x, y, wide, high = (int(edge) for edge in self.region)
        return min(x, width), min(y, height), min(x + wide, width), min(y + high, height)


def facet_of(name: str, tag: CameraTag) -> Facet:
    """What a tag of a group shows. Raises ValueError."""
    facet = tag.value or name
    if facet not in TYPES:
        raise ValueError(f"tag {name!r} does not say what it is; write value: one of {', '.join(TYPES)}")
    return facet


def describe(device: str, settings: CameraSettings) -> Shape:
    """The groups and writable tags of this camera. Raises ValueError."""
    groups: dict[str, Group] = {}
    named: set[str] = set()
    writable: set[str] = set()
    written: dict[str, Tag] = {}
    for name, group in settings.groups.items():
        facets = {tag: facet_of(tag, its) for tag, its in group.tags.items()}
        _check_group(name, group, set(facets.values()), settings)
        described = tuple(Tag(tag, TYPES[facets[tag]], its.unit) for tag, its in group.tags.items())
        tagset = TagSet(device, name, described)
        groups[name] = Group(tagset, None, dict(group.tags), spoken=not group.on_trigger)
        if twice := named & set(facets):
            raise ValueError(f"tag {min(twice)!r} is named twice on this device")
        named |= set(facets)
        writable |= {tag for tag, its in group.tags.items() if its.write}
    for tag, its in settings.tags.items():
        wrong = _unwritable(tag, its, settings) or (tag in named and f"tag {tag!r} is named twice on this device")
        if wrong:
            raise ValueError(wrong)
        kind = "bool" if (its.value or tag) == TRIGGER else TYPES[facet_of(tag, its)]
        written[tag] = Tag(tag, kind, its.unit)
    port = (settings.source, "") if settings.kind == "device" else None
    return Shape(groups=groups, writable=frozenset(writable | {*written}), written=written, scans=True, port=port)


def _check_group(name: str, group: CameraGroup, facets: set[Facet], settings: CameraSettings) -> None:
    if "photo" in facets and settings.photos is None:
        raise ValueError(f"group {name!r} shows a photo, but none are kept; write photos: {{folder: …}}")
    if settings.kind != "device" and facets & set(SETTABLE):
        raise ValueError(f"group {name!r}: exposure and gain are known of USB cameras only")
    for tag, its in group.tags.items():
        if its.write and facet_of(tag, its) not in SETTABLE:
            raise ValueError(f"tag {tag!r} cannot be written; {', '.join(SETTABLE)} can, and {TRIGGER} under tags:")


def _unwritable(name: str, tag: CameraTag, settings: CameraSettings) -> str:
    """Why this tag under ``tags:`` makes no sense, or ""."""
    facet = tag.value or name
    if not tag.write:
        return f"tag {name!r} is in no group and not writable"
    if facet == TRIGGER:
        return "" if settings.mode == "triggered" else f"tag {name!r} needs mode: triggered"
    if facet in SETTABLE:
        return "" if settings.kind == "device" else f"tag {name!r}: only USB cameras can be set from here"
    return f"tag {name!r} cannot be written; under tags: stand {TRIGGER}, {', '.join(SETTABLE)}, by name or by value:"
