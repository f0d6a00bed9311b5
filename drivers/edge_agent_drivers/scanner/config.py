"""What a serial reader's section of the config may say. A reader has no tags: each read is a scan."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, Settings, Shape
from edge_agent_drivers.stream.settings import StreamSettings, shape_port

MAX_LENGTH = 65_536


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


class ScannerSettings(StreamSettings):
    """A barcode reader on a serial port, on USB as a virtual one, or on TCP."""

    driver: Literal["scanner"] = "scanner"
    frame: FrameSettings = FrameSettings(end="\r\n")
    no_read: list[str] = Field(
        default=["NOREAD", "NO READ", "ERROR", "NR", "\x18"],
        description="what the reader sends when it saw no code: an event, never a serial",
    )
    aim: bool = Field(default=False, description="the reader sends an AIM identifier such as ]d2 before each code")

    @field_validator("no_read")
    @classmethod
    def _encodable(cls, texts: list[str]) -> list[str]:
        return [_bytes_of(text) for text in texts]


def describe(device: str, settings: ScannerSettings) -> Shape:
    """A reader yields scans and has neither groups nor writable tags."""
    return Shape(scans=True, port=shape_port(settings))
