"""What a reader's section of the config may say. A reader has no tags but its trigger: each read is a scan."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, Settings, Shape
from edge_agent.model import Tag
from edge_agent_drivers.scanner.profiles import PROFILES, Profile, ProfileName
from edge_agent_drivers.stream.settings import StreamSettings, shape_port

MAX_LENGTH = 65_536
TRIGGER = "trigger"
"""The tag that a station, or `edge-agent write`, writes to make the reader read."""


def _bytes_of(text: str) -> str:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f'{text!r} is more than bytes; write control characters as "\\r\\n" or "\\x02"') from error
    return text


class FrameSettings(Settings):
    """Where one code begins and ends in the stream of bytes. Needs ``end``, or ``idle``, or both."""

    end: str | None = Field(
        default=None, min_length=1, max_length=8, description='terminator, e.g. "\\r\\n" or "\\x03"'
    )
    start: str = Field(
        default="", max_length=8, description='what every code begins with, e.g. "\\x02"; not part of it'
    )
    idle: Duration | None = Field(
        default=None,
        gt=0,
        le=60,
        description="a pause that ends a code; with end: (default 500ms) after it a code without its end is garbage",
    )
    max_length: int = Field(default=4096, ge=16, le=MAX_LENGTH, description="bytes; what is longer is garbage")

    @field_validator("end", "start")
    @classmethod
    def _encodable(cls, text: str | None) -> str | None:
        return None if text is None else _bytes_of(text)

    @model_validator(mode="after")
    def _delimited(self) -> FrameSettings:
        if self.end is None and self.idle is None:
            raise ValueError('a code must end somewhere: write end: "\\r\\n", or idle: 50ms')
        return self


class TriggerSettings(Settings):
    """The commands that the tag ``trigger`` sends. What is not written is the profile's."""

    on: str | None = Field(default=None, max_length=64, description='true sends this, e.g. "LON\\r"')
    off: str | None = Field(default=None, max_length=64, description='false sends this; "": nothing')
    answers: bool | None = Field(
        default=None, description="the reader answers these commands (keyence, cognex): wait for it, and judge it"
    )

    @field_validator("on", "off")
    @classmethod
    def _encodable(cls, text: str | None) -> str | None:
        return None if text is None else _bytes_of(text)


class ScannerSettings(StreamSettings):
    """A barcode reader on a serial port, on USB as a virtual one, or on TCP."""

    driver: Literal["scanner"] = "scanner"
    profile: ProfileName = Field(
        default="generic", description="how readers of this make are set in the factory; keys below replace parts of it"
    )
    frame: FrameSettings | None = Field(default=None, description="where a code begins and ends; else the profile's")
    no_read: list[str] | None = Field(
        default=None, description="what the reader sends when it saw no code: an event, never a serial"
    )
    aim: bool = Field(default=False, description="the reader sends an AIM identifier such as ]d2 before each code")
    separator: str = Field(
        default="", max_length=8, description='stands between the codes of one frame, e.g. ","; each is a scan'
    )
    code: str = Field(
        default="",
        description="regular expression with one group, the code, where the reader appends other data to it; "
        "what does not fit is garbage",
    )
    trigger: TriggerSettings = Field(
        default=TriggerSettings(), description="the commands of the tag trigger; what is not written is the profile's"
    )

    @field_validator("no_read")
    @classmethod
    def _encodable(cls, texts: list[str] | None) -> list[str] | None:
        return None if texts is None else [_bytes_of(text) for text in texts]

    @field_validator("separator")
    @classmethod
    def _separating(cls, text: str) -> str:
        return _bytes_of(text)

    @field_validator("code")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            groups = re.compile(_bytes_of(text).encode("latin-1")).groups
        except re.error as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from error
        if text and groups != 1:
            raise ValueError(f"{text!r} has {groups} groups; write one pair of brackets, around the code: ([^:]+):.*")
        return text

    @model_validator(mode="after")
    def _triggered(self) -> ScannerSettings:
        family, trigger = self.family, self.trigger
        if trigger.answers and not (family.taken or family.dmcc):
            raise ValueError("trigger.answers: only profile: keyence or cognex has answers that can be judged")
        if (trigger.off or trigger.answers) and not self.command_on:
            raise ValueError('trigger: there is no command that begins a read; write on: "…"')
        frame = self.frame
        if self.awaits_answer and not family.dmcc and frame is not None and frame.end == "\r\n":
            what = "profile keyence answers commands with CR alone, so it would never end"
            raise ValueError(f"frame.end: {what}; leave frame out: LF after CR is skipped, or write answers: false")
        return self

    @property
    def family(self) -> Profile:
        """The profile's data."""
        return PROFILES[self.profile]

    @property
    def command_on(self) -> bytes:
        """What begins a read; b"" when the reader cannot be triggered."""
        return self._command(self.trigger.on, self.family.on)

    @property
    def command_off(self) -> bytes:
        """What ends one; b"" when nothing does."""
        return self._command(self.trigger.off, self.family.off)

    def _command(self, own: str | None, factory: str) -> bytes:
        """A reader that answers does so in the command's frame: it must be the one that codes come in."""
        text, frame = factory if own is None else own, self.frame
        if own is None and factory and self.family.taken and frame is not None and frame.end is not None:
            text = frame.start + factory.rstrip("\r") + frame.end
        return text.encode("latin-1")

    @property
    def awaits_answer(self) -> bool:
        """A command counts only once the reader has answered it."""
        answers = self.family.answers if self.trigger.answers is None else self.trigger.answers
        return answers and bool(self.command_on)


def describe(device: str, settings: ScannerSettings) -> Shape:
    """A reader yields scans; its trigger is writable where the profile or the config has a command for it."""
    written = {TRIGGER: Tag(TRIGGER, "bool")} if settings.command_on else {}
    return Shape(scans=True, writable=frozenset(written), written=written, port=shape_port(settings))
