"""The nouns that travel the data path: Sample, Scan, Record. Frozen, slotted, without I/O.

A *sample* is what a device said of one group of tags at one instant; it knows no cycle and no serial.
A *scan* is one identity read. A *record* is an entry of the log, made from either of them or by a station.
docs/contracts.md describes the body of every record kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import orjson

integer_names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
number_names = (*integer_names, "float32", "float64")
scalar_names = ("bool", *number_names, "string", "datetime", "bytes", "object")
type_names = (*scalar_names, *(f"{name}[]" for name in scalar_names))
"""What a tag's type may be; ``float32[]`` is an array of them."""

Value = bool | int | float | str | None | list[Any] | dict[str, Any]
"""One tag's value, as JSON knows it. None means "no value", with the reason in the sample's status. Integers beyond
2**53 (the largest that JSON readers agree on) are decimal strings; float32 carries the shortest double that prints as
it; ``datetime`` is ISO 8601 in UTC ("2026-11-22T05:41:04.1234567Z"), ``bytes`` are base64, ``object`` (a structure)
is a dict of its fields' values. A list or dict in a value is never changed once its sample was given away."""


class Kind(IntEnum):
    """What a record is. The numbers are stored in every buffer: never renumber, only add."""

    LOG_OPENED = 1
    TAGSET = 2
    CONFIG = 3
    SAMPLE = 4
    SCAN = 5
    CYCLE_OPENED = 6
    CYCLE_CLOSED = 7
    BINDING = 8
    IDENTIFIER = 9
    MATERIAL = 10
    GENEALOGY = 11
    GATE = 12
    HOLD_ACK = 13
    FINDING = 14
    AUDIT = 15
    DROP = 16
    CHECKPOINT = 17
    CLOCK_OFFSET = 18
    UNIT_STATUS = 19

    @property
    def label(self) -> str:
        """The name used in topics, messages and the config's ``send`` list, e.g. ``cycle_closed``."""
        return self.name.lower()


class BindingState(StrEnum):
    """What is known of which unit a cycle belongs to."""

    PENDING = "pending"  # may still be decided, by evidence that is expected
    BOUND = "bound"
    AMBIGUOUS = "ambiguous"  # candidates exist, no rule decides
    ORPHAN = "orphan"  # no candidate, or none may be believed
    SUPERSEDED = "superseded"
    VOIDED = "voided"


class Result(StrEnum):
    """Outcome of a cycle (IPC-CFX TestResult)."""

    PASSED = "Passed"
    FAILED = "Failed"
    ERROR = "Error"
    ABORTED = "Aborted"
    SKIPPED = "Skipped"


class ScanStatus(StrEnum):
    """What the reader said, before any pattern is applied."""

    READ = "read"
    NO_READ = "no_read"  # the reader reports that it saw nothing: an event, never a serial
    GARBAGE = "garbage"  # no frame could be made of these bytes; raw is kept, cut to the driver's maximum


class Instant(NamedTuple):
    """One moment on both clocks. ``at_ns`` UTC nanoseconds since 1970; ``mono_ns`` CLOCK_MONOTONIC, per boot."""

    at_ns: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Tag:
    """A named data point on a device, as records describe it."""

    name: str
    type: str  # one of type_names
    unit: str = ""


@dataclass(frozen=True, slots=True)
class TagSet:
    """The names, types and units of one group of one device, in the order of a sample's values.

    ``id`` is the first 12 hex digits of SHA-256 over the canonical description: the same description has the
    same id on every agent, and a config change makes a new one and voids nothing.
    """

    device: str
    group: str
    tags: tuple[Tag, ...]
    id: str = field(init=False)
    source: str = field(init=False)  # "device.group", the source of its samples

    def __post_init__(self) -> None:
        digest = hashlib.sha256(orjson.dumps(self.describe())).hexdigest()[:12]
        object.__setattr__(self, "id", digest)
        object.__setattr__(self, "source", f"{self.device}.{self.group}")

    def describe(self) -> dict[str, Any]:
        """The body of a ``tagset`` record, without its id."""
        tags = [{"name": tag.name, "type": tag.type, "unit": tag.unit} for tag in self.tags]
        return {"device": self.device, "group": self.group, "tags": tags}


@dataclass(frozen=True, slots=True)
class Sample:
    """What a device said of one group at one instant.

    ``values`` stands in the order of ``tagset.tags``. ``status`` maps the index of each value that is not good
    to a short reason ("exception 2", "not a number"); None when all are good. A value may stand beside its reason
    when the device gave one and doubts it ("uncertain"). The read began at ``started_mono_ns`` and had finished at
    ``at``; the values are of some moment between.

    ``source_ns`` maps the indexes that were news to when the device says the value was so (UTC ns), ``server_ns`` to
    when its server saw it, where that differs. ``history``: read from the device's own memory after a gap; it is
    recorded with its times, opens and closes nothing, and belongs to no cycle.
    """

    tagset: TagSet
    at: Instant
    started_mono_ns: int
    values: tuple[Value, ...]
    status: Mapping[int, str] | None = None
    source_ns: Mapping[int, int] | None = None
    server_ns: Mapping[int, int] | None = None
    history: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """One identity read, raw as it came (frame characters removed)."""

    device: str
    at: Instant
    raw: bytes
    status: ScanStatus = ScanStatus.READ
    symbology: str = ""  # AIM identifier when the reader sends one, e.g. "]d2"
    photo: str = ""  # SHA-256 of the picture it was read from, hexadecimal; the file is on this PC


@dataclass(frozen=True, slots=True)
class Record:
    """An entry for the log. The writer adds seq, hash and the clock's state.

    ``source`` is who it is about: a station, a device, ``device.group`` for samples and tagsets, or ``agent``.
    ``body`` must be JSON-encodable; it is encoded once and never changed.
    ``cycles`` (samples only) are the ids of the open cycles whose window this sample extends.
    """

    kind: Kind
    source: str
    at: Instant
    body: Mapping[str, Any]
    cycles: tuple[str, ...] = ()
