"""What a driver offers a technician at the bench, with no agent running: to find, to probe, to browse, to listen.

A driver names its :class:`Bench` in its spec; each part is one async function, None where the protocol has nothing of
the kind. The command line shows what they give and writes it to the configuration; they print nothing and write no
file, but for the certificates of :class:`Trust`. They raise the driver's errors (``DeviceUnavailable``,
``DeviceRefused``), with ``device`` naming the address, and may be cancelled at any moment: they leave no connection,
port or process behind. All of them are bounded in time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Section = Mapping[str, Any]
"""Part of the configuration, as it is written in YAML."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where ``devices scan`` may look. Nothing is scanned that is not named here but what is plugged into this PC."""

    hosts: tuple[str, ...] = ()  # IP addresses (a subnet is already expanded) or names, with :port where one was given
    ports: tuple[str, ...] = ()  # serial ports to be spoken to; without them a port is only listed
    units: tuple[int, ...] = ()  # Modbus unit ids to ask; () stands for the driver's own short list
    timeout_s: float = 1.0  # for one answer

    def addresses(self, default_port: int) -> list[tuple[str, int]]:
        """``hosts`` as (host, port). An IPv6 address with a port stands in brackets, as in a URL."""
        found = []
        for host in self.hosts:
            bare = host if host.count(":") < 2 or host.startswith("[") else f"[{host}]"
            parts = urlsplit(f"//{bare}")
            found.append((parts.hostname or host, parts.port or default_port))
        return found


@dataclass(frozen=True, slots=True)
class Found:
    """A device that answered, or is plugged in."""

    driver: str
    where: str  # its address as the config writes it: tcp://192.168.1.20:502, /dev/serial/by-id/..., opc.tcp://...
    what: str  # for people: what answered, and with what
    section: Section  # the device's section of the config as far as it is known, with ``driver``
    name: str = ""  # a proposal for the device's name, letters, digits and _


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to read what stands at an address. A probe's first guesses are of the address that was asked for, as
    the driver understood it; those of its neighbours follow."""

    address: str  # "holding:100"
    type: str
    order: str  # "" where it means nothing
    value: Any  # JSON-able; None with ``why`` where it cannot be read so
    why: str = ""
    tag: Section = field(default_factory=dict)  # what makes it a tag


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a device that can be browsed."""

    id: str  # as the config writes it
    path: tuple[str, ...]  # names from the root to it
    kind: str  # "folder", "object", "variable", "method"
    type: str = ""  # of a variable, as samples carry it
    value: Any = None
    status: str = ""  # why there is no value
    writable: bool = False
    tag: Section = field(default_factory=dict)  # what makes it a tag; empty for what cannot be one


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate, for people to compare and to hand over."""

    subject: str
    thumbprint: str  # SHA-1 in capital hexadecimal, as trust lists show it
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    begins_ns: int  # UTC
    ends_ns: int
    der: bytes
    path: str = ""  # where it is kept
    doubts: tuple[str, ...] = ()  # why it may not be the peer's, or will not be believed
    trusted: bool = False
    offers: tuple[str, ...] = ()  # what the peer that showed it has: policies and modes


@dataclass(frozen=True, slots=True)
class Trust:
    """Certificates of both sides. The agent itself makes none and trusts nobody anew; a person does, by these.

    ``pki`` is the folder that the settings name. What is wrong with it is raised as an EdgeAgentError with a hint.
    """

    default_pki: str
    pki_of: Callable[[Any], str]  # (settings) -> the folder
    own: Callable[[str], Certificate | None]  # (pki) -> ours, None when there is none yet
    make: Callable[[str, int], Certificate]  # (pki, bits of its key) -> a new one; the one before is kept beside it
    shown: Callable[[Any, str], Awaitable[Sequence[Certificate]]]  # (settings, name) -> what the peer shows; no trust
    accept: Callable[[str, Certificate], str]  # (pki, certificate) -> where it is kept as trusted
    listed: Callable[[str], tuple[Sequence[Certificate], Sequence[Certificate]]]  # (pki) -> (trusted, rejected)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a byte stream gave without a pause."""

    after_s: float  # since listening began
    data: bytes
    lasted_s: float = 0.0
    error: str = ""  # characters came damaged, or the port was lost; then ``data`` is empty


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a byte stream may be."""

    score: float  # 0 to 1: how much of what was heard it explains
    what: str  # for people
    section: Section  # the device's section of the config as far as it is known; empty where no driver fits
    notes: tuple[str, ...] = ()  # for people: what else is seen in the bytes


@dataclass(frozen=True, slots=True)
class Tried:
    """One baud rate, and what was heard at it."""

    baud: int
    score: float  # 0 to 1: how much it looks like text, or like messages that are whole
    heard: Sequence[Heard]


@dataclass(frozen=True, slots=True)
class Listening:
    """A byte stream as it comes. ``settings`` say where; ``sent`` is what is sent first, b"" for nothing."""

    hear: Callable[[Any, bytes, float], AsyncIterator[Heard]]  # (settings, sent, for so many seconds)
    try_rates: Callable[[Any, bytes, float], AsyncIterator[Tried]]  # the same, seconds each, until one is clear
    recognize: Callable[[Any, bytes, Sequence[Heard]], Sequence[Likeness]]  # the likeliest first, at least one


@dataclass(frozen=True, slots=True)
class SnapCode:
    """A code that was found in a picture."""

    raw: bytes
    format: str  # as the config writes it
    symbology: str  # AIM identifier, "" where the decoder cannot tell
    decoder: str
    corners: tuple[tuple[int, int], ...]  # x, y in the picture


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One picture of a camera, and what was made of it."""

    jpeg: bytes  # with the codes and the region marked
    width: int
    height: int
    brightness: float  # 0 to 100
    sharpness: float  # compare it with the same view only
    codes: Sequence[SnapCode]
    took_ms: float  # from opening the camera to its picture
    tries: Mapping[str, float]  # decoder and how it looked → milliseconds
    section: Section  # the device's section of the config, with formats and region as they were found
    section_ms: float  # how long decoding takes with that


@dataclass(frozen=True, slots=True)
class Bench:
    """See the module docstring. ``settings`` is an instance of the driver's settings model."""

    scan: Callable[[Where], AsyncIterator[Found]] | None = None
    looks_at: tuple[str, ...] = ("plugged", "hosts", "ports")  # where ``scan`` can find something: else not called
    probe: Callable[[Any, str], Awaitable[Sequence[Guess]]] | None = None  # (settings, address)
    browse: Callable[[Any, str, int], AsyncIterator[Node]] | None = None  # (settings, from node or "", depth)
    trust: Trust | None = None
    listening: Listening | None = None
    snap: Callable[[Any], Awaitable[Snapshot]] | None = None  # (settings)
