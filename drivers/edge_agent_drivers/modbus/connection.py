"""Where a Modbus device is and what carries its frames: ``connection:`` and the sections that belong to it.

=====================  ===================================================  ============
written                carries                                              default port
=====================  ===================================================  ============
``tcp://host:port``    Modbus TCP                                           502
``tls://host:port``    Modbus/TCP Security: the same in TLS                 802
``rtu+tcp://host:p``   RTU frames through a serial server                   must be said
``ascii+tcp://host:p`` ASCII frames through a serial server                 must be said
``rtu:///dev/…``       a serial line; ``rtu://usb:VID:PID[:SERIAL]`` too
``ascii:///dev/…``     the same with ASCII frames
=====================  ===================================================  ============
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from edge_agent.driver import Settings

Framing = Literal["mbap", "rtu", "ascii"]

CONNECTION = r"^((tcp|tls|rtu\+tcp|ascii\+tcp)://[^/@\s]+|(rtu|ascii)://(/dev/|usb:)\S+|(rtu|ascii):///\S+)$"
_PORTS = {"tcp": 502, "tls": 802}
_USB = re.compile(r"usb:[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:\S+)?")
_FRAMINGS: dict[str, Framing] = {"tcp": "mbap", "tls": "mbap", "rtu": "rtu", "ascii": "ascii"}


class Connection(NamedTuple):
    """A connection, taken apart. A serial one has a ``tty`` and neither host nor port."""

    framing: Framing
    host: str
    port: int
    tty: str = ""
    tls: bool = False

    @property
    def is_line(self) -> bool:
        """One line that several devices share: frames on it carry no number."""
        return self.framing != "mbap"


def parse_connection(text: str) -> Connection:
    """The parts of ``connection:``. Raises ValueError with what to write instead."""
    scheme, _, rest = text.partition("://")
    kind, _, over = scheme.partition("+")
    framing = _FRAMINGS.get(kind)
    if framing in ("rtu", "ascii") and not over:
        if rest.startswith("/") or _USB.fullmatch(rest):
            return Connection(framing, "", 0, tty=rest)
        raise ValueError(
            f"{text!r} names no serial port; write {kind}:///dev/serial/by-id/usb-… or {kind}://usb:0403:6001 "
            f"(for a serial server on the network: {kind}+tcp://192.168.1.20:4001)"
        )
    try:
        parts = urlsplit(f"tcp://{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    port = _PORTS.get(kind) if port is None else port
    if framing is None or over not in ("", "tcp") or (over and kind not in ("rtu", "ascii")) or not host:
        raise ValueError(f"{text!r} is no connection; write tcp://192.168.1.20:502 or rtu:///dev/serial/by-id/usb-…")
    if not port:
        raise ValueError(f"{text!r} needs the port of the serial server, e.g. {scheme}://{host}:4001")
    return Connection(framing, host, port, tls=kind == "tls")


class SerialSettings(Settings):
    """How the serial line is set, the same for every device on it."""

    baud: int = Field(default=9600, ge=50, le=4_000_000, description="bits a second")
    data_bits: Literal[7, 8] = Field(default=8, description="8 for RTU; ASCII devices often have 7")
    parity: Literal["none", "even", "odd"] = Field(default="none", description="what the devices are set to")
    stop_bits: Literal[1, 2] = Field(default=1, description="what the devices are set to")

    @property
    def terms(self) -> str:
        """ "9600 8E1"."""
        return f"{self.baud} {self.data_bits}{self.parity[0].upper()}{self.stop_bits}"

    @property
    def character_s(self) -> float:
        """How long one character takes on the line."""
        return (1 + self.data_bits + (self.parity != "none") + self.stop_bits) / self.baud


class TlsSettings(Settings):
    """Certificates of a ``tls://`` connection. The device's own is always verified."""

    ca_file: str | None = Field(
        default=None, description="CA that signed the device's certificate; default: those this PC trusts"
    )
    cert_file: str | None = Field(default=None, description="our certificate, for a device that asks for one")
    key_file: str | None = Field(default=None, description="the key of cert_file, not encrypted")
    server_name: str | None = Field(
        default=None, description="name in the device's certificate, where it is not the host of connection:"
    )

    @model_validator(mode="after")
    def _pair(self) -> TlsSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self
