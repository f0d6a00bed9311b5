"""Where a byte stream comes from and how its line is set: what the sections of all serial devices share.

A driver's settings derive from :class:`StreamSettings`. On ``tcp://`` (a serial server, or a device with a TCP port of
its own) the line's settings belong to the other end, and are refused here rather than ignored.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Settings

LINE_KEYS = ("baud", "data_bits", "parity", "stop_bits", "flow", "dtr", "rts")
USB_NAME = re.compile(r"usb:([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})(?::([^:]*)(?::([0-9A-Fa-f]{2}))?)?")
"""``usb:VID:PID[:SERIAL[:INTERFACE]]``; an empty SERIAL is any."""

_WRITE = "write /dev/serial/by-id/…, usb:VID:PID:SERIAL, or tcp://host:port"


class StreamSettings(Settings):
    """A serial port, USB as a virtual one, or the TCP port of a serial server or of the device itself."""

    port: str = Field(
        min_length=1,
        description="/dev/serial/by-id/usb-…, usb:VID:PID or usb:VID:PID:SERIAL, which survive a replug as ttyUSB0 "
        "does not; or tcp://host:port",
    )
    baud: int = Field(default=9600, ge=50, le=4_000_000, description="bits per second, as the device is set")
    data_bits: Literal[7, 8] = Field(default=8, description="bits of a character")
    parity: Literal["none", "even", "odd"] = Field(
        default="none", description="a character that fails it is never part of a message"
    )
    stop_bits: Literal[1, 2] = Field(default=1, description="bits that end a character")
    flow: Literal["none", "rtscts", "xonxoff"] = Field(
        default="none", description="who may hold the other back: nobody, the RTS/CTS wires, or the bytes XON/XOFF"
    )
    dtr: bool = Field(default=True, description="level of DTR while the port is open; some devices take power from it")
    rts: bool = Field(default=True, description="level of RTS while the port is open")

    @field_validator("port")
    @classmethod
    def _is_a_port(cls, text: str) -> str:
        if text.startswith("/") or USB_NAME.fullmatch(text) or _is_address(text):
            return text
        raise ValueError(f"{text!r} is no port; {_WRITE}")

    @model_validator(mode="after")
    def _fits(self) -> StreamSettings:
        if self.address is not None:
            stray = [key for key in LINE_KEYS if key in self.model_fields_set]
            if stray:
                what = ", ".join(stray)
                raise ValueError(
                    f"{what}: set at the other end of {self.port}, in the serial server; leave it out here"
                )
        if self.flow == "rtscts" and not self.rts:
            raise ValueError("rts: with flow: rtscts the port itself moves RTS; leave rts out")
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of ``tcp://``; None for a serial port."""
        if not self.port.startswith("tcp://"):
            return None
        parts = urlsplit(self.port)
        return parts.hostname or "", parts.port or 0


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme == "tcp" and bool(parts.hostname and parts.port) and parts.netloc == text[6:]
    except ValueError:  # a port that is no number
        return False


def shape_port(settings: StreamSettings) -> tuple[str, str] | None:
    """For ``Shape.port``: nobody else may have this stream, as a byte goes to one reader only."""
    return settings.port, ""
