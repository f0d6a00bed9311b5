"""What an instrument's section of the config may say, and the shape that follows from it."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from edge_agent.driver import Duration, Group, GroupSettings, Shape, TagName, TagSettings
from edge_agent.model import Tag, TagSet
from edge_agent_drivers.instrument.lines import RESERVED
from edge_agent_drivers.instrument.message import TypeName
from edge_agent_drivers.stream.settings import StreamSettings, shape_port

Protocol = Literal["mt-sics", "toledo", "mitutoyo", "sylvac", "line"]

FIELDS: dict[str, tuple[str, ...]] = {
    "mt-sics": ("value", "stable", "unit", "text"),
    "toledo": ("value", "tare", "net", "print", "stable", "unit", "text"),
    "mitutoyo": ("value", "mode", "text"),
    "sylvac": ("value", "judgement", "text"),
    "line": ("text",),
}
"""What a message of each protocol holds; a ``line`` holds its pattern's named groups too."""

DEFAULT_SILENCE_S = 10.0
BOOLS = ("stable", "net", "print")
MEASURED = ("value", "tare")
TERMINATORS = {"mt-sics": "\r\n", "toledo": "", "mitutoyo": "\r", "sylvac": "\r", "line": "\r\n"}
"""LF after CR is skipped where CR ends a line: an ID-H sends CR LF, a multiplexer CR alone, others as they are set."""
ASKED_WITH = {"mt-sics": "SI\r\n", "mitutoyo": "GA{address:02d}\r\n", "sylvac": "?\r"}
COMMANDS: dict[str, dict[str, str]] = {
    "mt-sics": {"tare": "T", "tare-now": "TI", "clear-tare": "TAC", "zero": "Z", "zero-now": "ZI"},
    "mitutoyo": {"zero": "CR{address:02d}"},
}
"""Commands whose answers are known and judged; all others are written out with ``send``."""


def _bytes_of(text: str) -> str:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f'{text!r} is more than bytes; write control characters as "\\r\\n" or "\\x02"') from error
    return text


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern of a line. Raises ValueError with what is wrong with it."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


class InstrumentTag(TagSettings):
    """One value out of a message."""

    field: str = Field(
        default="",
        max_length=64,
        description="part of the message; default: the tag's name if there is one, else value",
    )
    type: TypeName | None = Field(
        default=None, description="float64 for what is measured; string keeps the digits as they were sent"
    )


class CommandTag(TagSettings):
    """Something the instrument is told to do: writing true sends it, writing false does nothing."""

    write: bool = Field(default=True, description="a command is there to be written")
    command: str = Field(
        default="",
        description="mt-sics: tare, tare-now, clear-tare, zero, zero-now; mitutoyo: zero; the answer is judged",
    )
    send: str = Field(default="", max_length=256, description='in place of command: what is sent, e.g. "T\\r\\n"')
    answer: str = Field(default="", max_length=256, description="with send: pattern that the answering line must match")

    @field_validator("send")
    @classmethod
    def _encodable(cls, text: str) -> str:
        return _bytes_of(text)

    @field_validator("answer")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compiled(pattern)
        return pattern

    @model_validator(mode="after")
    def _one_of(self) -> CommandTag:
        if bool(self.command) == bool(self.send):
            raise ValueError('write either command: tare, or send: "T\\r\\n"')
        if self.answer and not self.send:
            raise ValueError("answer: belongs to send:; the answer to a command: is known")
        if not self.write:
            raise ValueError("a command that may not be written is none: leave write out")
        return self


class InstrumentGroup(GroupSettings[InstrumentTag]):
    """Values of one message. Without ``poll`` and ``on_trigger`` it is what the instrument sends by itself."""

    address: int = Field(
        default=1, ge=0, le=99, description="mitutoyo: the gauge's ID number, or the multiplexer's input"
    )
    pattern: str = Field(default="", max_length=1024, description="line: regular expression with named groups")
    ask: str = Field(
        default="", max_length=256, description='what makes the instrument send it; for line, e.g. "READ?\\r\\n"'
    )
    settle: Duration = Field(
        default=0.0, ge=0, le=20, description="poll, on_trigger: ask again until the value is stable, at most so long"
    )

    @field_validator("ask")
    @classmethod
    def _encodable(cls, text: str) -> str:
        return _bytes_of(text)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compiled(pattern)
        return pattern

    @model_validator(mode="after")
    def _paced(self) -> InstrumentGroup:
        if self.on_trigger and self.poll is not None:
            raise ValueError("write one of poll: 1s and on_trigger: true, or neither: the instrument sends by itself")
        if self.poll is not None and self.poll < 0.05:
            raise ValueError("poll: a serial instrument is asked every 50ms at most")
        return self

    @property
    def spoken(self) -> bool:
        """The instrument sends it by itself."""
        return self.poll is None and not self.on_trigger


class InstrumentSettings(StreamSettings):
    """A scale, a gauge or a tester on a serial port or a serial server."""

    driver: Literal["instrument"] = "instrument"
    protocol: Protocol = Field(description="how it speaks; line for all that has no name here")
    timeout: Duration = Field(default=2.0, gt=0, le=20, description="for an answer; none within it is a loss")
    unstable: Literal["reject", "flag"] = Field(
        default="reject",
        description="a value that still moves: reject leaves none, flag keeps it; its status is unstable either way",
    )
    start: str = Field(
        default="",
        max_length=256,
        description='sent when the port was opened, so that it sends by itself from then on, e.g. "SIR\\r\\n"',
    )
    silence: Duration | None = Field(
        default=None,
        gt=0,
        description="an instrument that always sends: so long without a word is a loss; with start: 10s by default",
    )
    end: str | None = Field(
        default=None, min_length=1, max_length=8, description="terminator of a line, if not the usual"
    )
    checksum: bool = Field(default=False, description="toledo: a check byte follows each frame")
    decimal: Literal[".", ","] = Field(default=".", description="line: decimal sign of its numbers")
    encoding: Literal["utf-8", "latin-1", "gb18030"] = Field(default="utf-8", description="line: of its characters")
    groups: dict[TagName, InstrumentGroup] = Field(min_length=1, description="messages and their values")
    tags: dict[TagName, CommandTag] = Field(default={}, description="commands")

    @field_validator("start", "end")
    @classmethod
    def _encodable(cls, text: str | None) -> str | None:
        return None if text is None else _bytes_of(text)

    @model_validator(mode="after")
    def _consistent(self) -> InstrumentSettings:
        problems = [*self._stray(), *(f"group {name!r}: {what}" for name in self.groups for what in self._wrong(name))]
        for name, tag in self.tags.items():
            known = COMMANDS.get(self.protocol, {})
            if tag.command and tag.command not in known:
                have = f"write one of {', '.join(known)}" if known else 'write send: "…" instead'
                problems.append(f"tag {name!r}: {self.protocol} has no command {tag.command!r}; {have}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _stray(self) -> list[str]:
        belongs = {"checksum": "toledo", "decimal": "line", "encoding": "line"}
        wrong = [
            f"{key}: belongs to protocol: {protocol}"
            for key, protocol in belongs.items()
            if key in self.model_fields_set and self.protocol != protocol
        ]
        if self.end is not None and self.protocol == "toledo":
            wrong.append("end: a toledo frame has its own; leave it out")
        spoken = [group.address for group in self.groups.values() if group.spoken]
        if self.protocol != "line" and len(spoken) != len(set(spoken)):
            wrong.append("two groups for the same messages: of those the instrument sends by itself, write one group")
        return wrong

    def _wrong(self, name: str) -> list[str]:
        group = self.groups[name]
        wrong = []
        if (self.protocol == "line") != bool(group.pattern):
            wrong.append("a line needs its pattern: '(?P<force>…)'; nothing else has one")
        if "address" in group.model_fields_set and self.protocol != "mitutoyo":
            wrong.append("address: belongs to protocol: mitutoyo")
        if group.settle and (group.spoken or self.protocol in ("toledo", "mitutoyo", "sylvac")):
            wrong.append("settle: is for groups that are asked, of instruments that say whether they are stable")
        if self.protocol == "line" and group.poll is not None and not group.ask:
            wrong.append("poll: what is it asked with? write ask:")
        for tag, its in group.tags.items():
            field, has = self.field_of(name, tag), self.fields_of(name)
            if field not in has:
                wrong.append(f"tag {tag!r}: there is no {field!r} in it; write field: one of {', '.join(has)}")
            if its.write:
                wrong.append(f"tag {tag!r}: only commands are written; they stand under tags: of the device")
            measured = field in MEASURED or (self.protocol == "line" and field != "text")
            if its.type is not None and not measured:
                wrong.append(f"tag {tag!r}: {field} has its own type; leave type out")
            if its.type == "bool" and self.protocol != "line":
                wrong.append(f"tag {tag!r}: a measured value is no bool")
        return wrong

    @property
    def silence_s(self) -> float | None:
        """How long a silence is none yet; None: for ever."""
        return DEFAULT_SILENCE_S if self.silence is None and self.start else self.silence

    def fields_of(self, group: str) -> tuple[str, ...]:
        """What a message of this group holds."""
        named = compiled(self.groups[group].pattern).groupindex if self.protocol == "line" else {}
        own = tuple(name for name in named if name not in RESERVED)
        unit = ("unit",) if "unit" in named else ()
        return (*own, *unit, *(name for name in FIELDS[self.protocol] if name not in own))

    def field_of(self, group: str, tag: str) -> str:
        """The part of the message that this tag takes."""
        return self.groups[group].tags[tag].field or (tag if tag in self.fields_of(group) else "value")

    def type_of(self, group: str, tag: str) -> TypeName:
        """The type of this tag's values."""
        field, its = self.field_of(group, tag), self.groups[group].tags[tag]
        if its.type is not None:
            return its.type
        if self.protocol == "line":
            return "string" if field in ("text", "unit") else "float64"
        return "bool" if field in BOOLS else "float64" if field in MEASURED else "string"

    def request_of(self, group: str) -> bytes:
        """What asks for a message of this group; empty: it is waited for."""
        its = self.groups[group]
        if self.start and not its.ask:
            return b""  # a request would end what ``start`` began
        return (its.ask or ASKED_WITH.get(self.protocol, "").format(address=its.address)).encode("latin-1")


def describe(device: str, settings: InstrumentSettings) -> Shape:
    """The groups and commands of this instrument. Raises ValueError for a tag that is named twice."""
    groups: dict[str, Group] = {}
    seen = set(settings.tags)
    for name, group in settings.groups.items():
        if twice := seen & group.tags.keys():
            raise ValueError(f"tag {min(twice)!r} of group {name!r} is named twice on this device")
        seen |= group.tags.keys()
        tags = tuple(Tag(tag, settings.type_of(name, tag), its.unit) for tag, its in group.tags.items())
        groups[name] = Group(TagSet(device, name, tags), group.poll, dict(group.tags), spoken=group.spoken)
    written = {tag: Tag(tag, "bool") for tag in settings.tags}  # a command is given, or it is not
    return Shape(groups=groups, writable=frozenset(written), written=written, port=shape_port(settings))
