"""What an RFID reader's section of the config may say, and the shape that follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, Group, GroupSettings, Settings, Shape, TagName, TagSettings
from edge_agent.model import Tag, TagSet
from edge_agent_drivers.rfid.generic import CHECKS, MAX_LENGTH, Form
from edge_agent_drivers.rfid.memory import MemoryType, Order
from edge_agent_drivers.stream.settings import StreamSettings, shape_port

FieldName = Literal["present", "count", "transponder", "transponders"]
FIELD_TYPES: dict[str, str] = {"present": "bool", "count": "int64", "transponder": "string", "transponders": "string[]"}
MEMORY_TYPES: dict[str, str] = {"string": "string", "bytes": "bytes", "uint": "uint64"}


class FrameSettings(Settings):
    """How a reader frames a transponder's number, for protocol: frames. Places count from 0, negative from the end."""

    start: str = Field(min_length=1, max_length=8, description='what every frame begins with, e.g. "\\x02"')
    end: str = Field(default="", max_length=8, description='what it ends with, e.g. "\\x03"')
    length: int | None = Field(
        default=None, ge=2, le=MAX_LENGTH, description="bytes of the whole frame, if always the same"
    )
    length_at: int | None = Field(default=None, ge=1, le=32, description="place of the byte that says how long it is")
    length_adds: int = Field(default=0, ge=0, le=32, description="bytes of the frame that this number does not count")
    check: Literal["none", "xor", "sum", "crc16-8408", "crc16-modbus", "crc16-ccitt"] = Field(
        default="none", description="check sum; a frame whose is wrong is garbage"
    )
    check_hex: bool = Field(default=False, description="the check sum is sent as hex digits")
    check_at: int = Field(default=-1, ge=-32, le=MAX_LENGTH, description="place where the check sum begins")
    check_from: int = Field(default=0, ge=0, le=32, description="it is over the bytes from this place up to itself")
    id_from: int = Field(ge=0, le=MAX_LENGTH, description="place of the number's first byte")
    id_to: int = Field(ge=-32, le=MAX_LENGTH, description="place after the number's last byte; 0: the end of the frame")
    id_as: Literal["hex", "text"] = Field(
        default="hex", description="hex: bytes, written as hex digits; text: as they are"
    )

    @field_validator("start", "end")
    @classmethod
    def _encodable(cls, text: str) -> str:
        try:
            text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ValueError(f'{text!r} is more than bytes; write control characters as "\\x02"') from error
        return text

    @model_validator(mode="after")
    def _ends_somewhere(self) -> FrameSettings:
        if (self.length is not None) + (self.length_at is not None) > 1:
            raise ValueError("write one of length: and length_at:")
        if not self.end and self.length is None and self.length_at is None:
            raise ValueError('a frame must end somewhere: write end: "\\x03", length: 14 or length_at: 1')
        return self

    def form(self) -> Form:
        """The same, as the codec has it."""
        return Form(
            start=self.start.encode("latin-1"),
            end=self.end.encode("latin-1"),
            length=self.length or 0,
            length_at=self.length_at,
            length_adds=self.length_adds,
            check=self.check if self.check in CHECKS else "",
            check_hex=self.check_hex,
            check_at=self.check_at,
            check_from=self.check_from,
            id_from=self.id_from,
            id_to=self.id_to,
        )


class MemorySettings(Settings):
    """Blocks of a transponder's user memory."""

    block: int = Field(ge=0, le=255, description="number of the first block")
    count: int = Field(default=1, ge=1, le=32, description="so many blocks")
    type: MemoryType = Field(
        default="string", description="string: UTF-8, zeros and blanks at its end removed; bytes; uint"
    )
    order: Order = Field(default="msb", description="uint: which of its bytes comes first")
    turned: bool = Field(default=False, description="the reader sends the last byte of each block first")


class RfidTag(TagSettings):
    """Something of the reader's field, or of the memory of the one transponder in it."""

    field: FieldName | None = Field(
        default=None, description="present, count, transponder (if it is one), transponders; default: the tag's name"
    )
    memory: MemorySettings | None = Field(
        default=None, description="blocks of user memory; only in an on_trigger group"
    )


class RfidGroup(GroupSettings[RfidTag]):
    """Without ``on_trigger``: told whenever a transponder arrives or leaves."""

    @model_validator(mode="after")
    def _paced(self) -> RfidGroup:
        if self.poll is not None:
            raise ValueError("a reader's field is told when it changes: leave poll out, or write on_trigger: true")
        if not self.on_trigger and any(tag.memory for tag in self.tags.values()):
            raise ValueError("memory is read when it is asked for: write on_trigger: true")
        return self


class RfidSettings(StreamSettings):
    """An RFID reader on a serial port or a serial server."""

    driver: Literal["rfid"] = "rfid"
    protocol: Literal["em4100", "feig", "frames"] = Field(
        description="em4100: RDM6300, ID-12 and their kin; feig: ISO 15693 by ISO host commands; frames: see frame"
    )
    absent_after: Duration = Field(
        default=0.5, ge=0.05, le=60, description="a transponder that was not heard for so long has left"
    )
    poll: Duration = Field(default=0.1, ge=0.02, le=10, description="feig: how often the field is asked for")
    timeout: Duration = Field(default=1.0, gt=0, le=10, description="feig: for each answer")
    bus_address: int = Field(default=255, ge=0, le=255, description="feig: the reader's COM-ADR; 255: whoever is there")
    reset_field: bool = Field(
        default=False, description="feig: RF reset before each poll, for a reader that tells a transponder only once"
    )
    frame: FrameSettings | None = Field(default=None, description="frames: how a frame is made")
    groups: dict[TagName, RfidGroup] = Field(default={}, description="what is told beside the scans")

    @model_validator(mode="after")
    def _consistent(self) -> RfidSettings:
        stray = [
            key
            for key in ("poll", "timeout", "bus_address", "reset_field")
            if key in self.model_fields_set and self.protocol != "feig"
        ]
        if stray:
            raise ValueError(f"{', '.join(stray)}: for protocol: feig only; the others send by themselves")
        if (self.frame is not None) != (self.protocol == "frames"):
            raise ValueError("protocol: frames needs frame:, and no other has one")
        if self.poll >= self.absent_after:
            raise ValueError("absent_after: must be longer than poll:, or each transponder leaves between two polls")
        return self


def field_of(name: str, tag: RfidTag) -> str:
    """What of the reader's field this tag tells; "" for memory. Raises ValueError if it is neither."""
    if tag.memory is not None:
        if tag.field is not None:
            raise ValueError(f"tag {name!r}: write field: or memory:, not both")
        return ""
    if tag.field is None and name not in FIELD_TYPES:
        raise ValueError(f"tag {name!r}: write field: one of {', '.join(FIELD_TYPES)}, or memory: {{block: 0}}")
    return tag.field or name


def describe(device: str, settings: RfidSettings) -> Shape:
    """Scans, and the groups beside them. Raises ValueError for tags that contradict themselves or the protocol."""
    groups: dict[str, Group] = {}
    writable: set[str] = set()
    seen: set[str] = set()
    for name, group in settings.groups.items():
        tags = []
        for tag, its in group.tags.items():
            field = field_of(tag, its)
            if tag in seen:
                raise ValueError(f"tag {tag!r} of group {name!r} is named twice on this device")
            if its.memory is not None and settings.protocol != "feig":
                raise ValueError(f"tag {tag!r}: the protocol {settings.protocol} reads no memory")
            if its.write and its.memory is None:
                raise ValueError(f"tag {tag!r}: only memory can be written; leave write out")
            seen.add(tag)
            writable |= {tag} if its.write else set()
            type_name = MEMORY_TYPES[its.memory.type] if its.memory is not None else FIELD_TYPES[field]
            tags.append(Tag(tag, type_name, its.unit))
        groups[name] = Group(TagSet(device, name, tuple(tags)), None, dict(group.tags), spoken=not group.on_trigger)
    return Shape(groups=groups, writable=frozenset(writable), scans=True, port=shape_port(settings))
