"""When a station's cycles begin and end, and what operators and repeats do to them: as written, and for the binder.

``CycleBuilder`` judges what makes sense only with the devices, and with how the unit becomes known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edge_agent.binding.plan import Attempts, Commands, Edge, Handshake, Message, TagRef
from edge_agent.config.by_position import ByPosition
from edge_agent.config.report import together
from edge_agent.driver import Duration, Settings
from edge_agent.model import integer_names

if TYPE_CHECKING:
    from edge_agent.config.references import References
    from edge_agent.config.report import Path, Problems

_COUNTERS = {"uint16": 16, "uint32": 32}


class HandshakeSettings(Settings):
    """ready rises, the result is read and committed, ack is set; ready falls, ack is cleared."""

    ready: ByPosition = Field(description="tag that the PLC sets when a result is ready")
    ack: ByPosition = Field(description="writable tag that the agent sets once the result is safe")
    counter: ByPosition | None = Field(default=None, description="tag that counts finished cycles: removes doubles")
    read: ByPosition = Field(description="group that holds the result, e.g. press.result")


class EndSettings(Settings):
    """What ends a cycle: a handshake, a tag's edge, a tester's message, a scan at the exit, or only the next scan."""

    handshake: HandshakeSettings | None = None
    tag: ByPosition | None = Field(default=None, description="tag whose edge ends the cycle")
    edge: Literal["rising", "falling"] | None = Field(default=None, description="which edge of the tag; rising")
    read: ByPosition | None = Field(default=None, description="group that is read after the edge")
    message: ByPosition | None = Field(default=None, description="group of a tester: each sample of it is one result")
    key: ByPosition | None = Field(default=None, description="tag in the message: the same key is the same message")
    scan: ByPosition | None = Field(default=None, description="scanner at the exit (identity before)")
    next_scan: Literal[True] | None = Field(default=None, description="only the next scan (or the timeout) ends it")

    @model_validator(mode="after")
    def _one_of(self) -> EndSettings:
        ways = (self.handshake, self.tag, self.message, self.scan, self.next_scan)
        if sum(way is not None for way in ways) != 1:
            hint = "handshake: {...}, or tag: ..., or message: ..., or scan: ..., or next_scan: true"
            raise ValueError(f"needs exactly one way to end; write {hint}")
        if self.tag is None and (self.edge is not None or self.read is not None):
            raise ValueError("edge and read belong to tag; write tag: <device.tag>, or take them away")
        if self.message is None and self.key is not None:
            raise ValueError("key belongs to message; write message: <device.group>, or take it away")
        return self


class StartSettings(Settings):
    """The edge of a tag that opens a cycle whose unit is not known yet."""

    tag: ByPosition = Field(description="tag whose edge begins the cycle")
    edge: Literal["rising", "falling"] = Field(default="rising", description="which edge of the tag")


class CycleSettings(Settings):
    """When a cycle begins and ends."""

    start: StartSettings | None = Field(default=None, description="a tag's edge (identity after or in_data)")
    end: EndSettings = EndSettings(next_scan=True)
    timeout: Duration = Field(default=3600.0, gt=0, description="an open cycle without an end is Aborted after this")
    min_time: Duration = Field(default=0.0, ge=0, description="an end sooner than this after the scan is not believed")

    @model_validator(mode="after")
    def _fits(self) -> CycleSettings:
        if self.min_time >= self.timeout:
            raise ValueError("min_time is not shorter than timeout; write a longer timeout")
        return self


class CommandsSettings(Settings):
    """Command barcodes: an operator enters the result by scanning a printed sheet."""

    scan: ByPosition = Field(description="scanner that reads the commands; may be the one that reads the units")
    labels: list[str] = Field(min_length=1, description="names of the section labels: of format command")
    operator: bool = Field(default=False, description="only if the context has an operator")


class AttemptsSettings(Settings):
    """How often a unit may come to the step."""

    max: int = Field(ge=1, le=1000, description="attempts a unit has at this step")
    flag: bool = Field(default=True, description="one more is the finding retest_limit")


class CycleBuilder:
    """One station's cycles. ``acks``, ``exits``, ``readers``: what is used, and where the config says so."""

    def __init__(
        self, refs: References, identity: str, positions: Collection[int], path: Path, problems: Problems
    ) -> None:
        self.acks: dict[str, Path] = {}
        self.exits: dict[str, Path] = {}
        self.readers: dict[str, Path] = {}  # of commands
        self._refs = refs
        self._identity = identity
        self._positions = positions
        self._path = path
        self._problems = problems

    def check(self, settings: CycleSettings) -> None:
        """Does the way it ends fit the way its unit becomes known?"""
        end, when = settings.end, (*self._path, "identity", "when")
        path = (*self._path, "cycle")
        if self._identity != "before" and (end.next_scan or end.scan is not None):
            hint = "write cycle: {end: {handshake: ...}} or cycle: {end: {tag: ...}}"
            self._problems.add(when, f"{self._identity} needs a trigger that ends the cycle", hint)
        if self._identity == "after" and end.message is not None:
            what = "a tester's message may come after the scan, which would then be taken for the unit before"
            self._problems.add((*path, "end", "message"), what, "write when: in_data, or when: before")
        if self._identity == "before" and settings.start is not None:
            what = "a scan opens the cycle, as identity is before"
            self._problems.add((*path, "start"), what, "take start away, or write when: after or in_data")
        if self._identity == "before" and end.message is not None and not settings.min_time:
            what = "a message of the unit before may come after the next scan"
            hint = "write how late it may come at most, e.g. min_time: 2s; one that soon is not believed"
            self._problems.add((*path, "end", "message"), what, hint)

    # --- begin and end -----------------------------------------------------------------------------------------

    def start(self, settings: StartSettings | None, number: int) -> Edge | None:
        """The edge that begins a cycle."""
        if settings is None:
            return None
        name, where = self._refs.at(settings.tag, number, (*self._path, "cycle", "start", "tag"))
        tag = self._refs.tag(name, where, polled=True, types=("bool", *integer_names))
        return Edge(tag, settings.edge != "falling", None) if tag is not None else None

    def end(self, end: EndSettings, number: int, bounce_s: float) -> Handshake | Edge | Message | None:
        """The trigger that ends a cycle; None: only scans do."""
        path = (*self._path, "cycle", "end")
        if end.handshake is not None:
            return self._handshake(number, end.handshake, (*path, "handshake"))
        if end.message is not None:
            return self._message(number, end, path, bounce_s)
        name, where = self._refs.at(end.tag, number, (*path, "tag"))
        tag = self._refs.tag(name, where, polled=True, types=("bool", *integer_names))
        group, where = self._refs.at(end.read, number, (*path, "read"))
        read = self._refs.asked(group, where)
        return Edge(tag, end.edge != "falling", read) if tag is not None else None

    def _message(self, number: int, end: EndSettings, path: Path, bounce_s: float) -> Message | None:
        name, where = self._refs.at(end.message, number, (*path, "message"))
        read = self._refs.spoken(name, where)
        name, where = self._refs.at(end.key, number, (*path, "key"))
        key = self._refs.tag(name, where)
        if key is not None and read is not None and key.group != read:
            self._problems.add(where, f"{name} is in {key.group}, and not in the message", f"name a tag of {read}")
        return Message(read, key, bounce_s) if read is not None else None

    def _handshake(self, number: int, settings: HandshakeSettings, path: Path) -> Handshake | None:
        refs = self._refs
        name, where = refs.at(settings.ready, number, (*path, "ready"))
        ready = refs.tag(name, where, polled=True, types=("bool", *integer_names))
        name, where = refs.at(settings.ack, number, (*path, "ack"))
        ack = refs.writable(name, where)
        if ack is not None:
            self.acks.setdefault(ack, where)
        name, where = refs.at(settings.read, number, (*path, "read"))
        read = refs.asked(name, where)
        name, where = refs.at(settings.counter, number, (*path, "counter"), needed=False)
        counter = refs.tag(name, where, types=tuple(_COUNTERS))
        if counter is not None and ready is not None and read is not None and counter.group not in (ready.group, read):
            what = f"{name} is in {counter.group}, but must be read together with the result"
            self._problems.add(where, what, together(counter.group, read, ready.group))
        if ready is None or ack is None or read is None:
            return None
        bits = _COUNTERS.get(refs.type_of(counter), 16) if counter is not None else 16
        return Handshake(ready, ack, counter, bits, read)

    def exit(self, end: EndSettings, number: int, entry: str | None) -> str | None:
        """The reader at the exit of a position."""
        name, where = self._refs.at(end.scan, number, (*self._path, "cycle", "end", "scan"))
        scanner = self._refs.scanner(name, where)
        if scanner is None:
            return None
        if scanner == entry:
            what = f"{scanner} scans the units in: nobody could tell a scan out from a re-scan"
            self._problems.add(where, what, "name another scanner, or write end: {next_scan: true}")
        elif scanner in self.exits:
            what = f"{scanner} stands at the exit of another position too"
            self._problems.add(where, what, "name a scanner of its own for each position")
        self.exits.setdefault(scanner, where)
        return scanner

    # --- operators and repeats ---------------------------------------------------------------------------------

    def commands(
        self, settings: CommandsSettings | None, rules: Callable[[Sequence[str], Path, str], frozenset[str]]
    ) -> Commands | None:
        """Who reads commands. ``rules`` looks label rules up."""
        if settings is None:
            return None
        path = (*self._path, "commands")
        scanners: dict[int, str] = {}
        for number in self._positions:
            name, where = self._refs.at(settings.scan, number, (*path, "scan"))
            scanner = self._refs.scanner(name, where)
            if scanner is not None and scanner in scanners.values():
                what = f"{scanner} stands for several positions: a command could not tell which is meant"
                self._problems.add(where, what, "name one scanner a position, e.g. scan: {1: gate_a, 2: gate_b}")
            elif scanner is not None:
                scanners[number] = scanner
                self.readers[scanner] = where
        return Commands(scanners, rules(settings.labels, (*path, "labels"), "command"), settings.operator)


def attempts(settings: AttemptsSettings | None) -> Attempts | None:
    """The limit of attempts as the binder needs it."""
    return Attempts(settings.max, settings.flag) if settings is not None else None


def tags_of(end: Handshake | Edge | Message | None, start: Edge | None) -> list[TagRef | None]:
    """The tags that a beginning and an end name, but for ``ack``."""
    found: list[TagRef | None] = [start.tag] if start is not None else []
    if isinstance(end, Handshake):
        return [*found, end.ready, end.counter]
    if isinstance(end, Edge):
        return [*found, end.tag]
    return found


def delimiting(end: Handshake | Edge | Message | None, start: Edge | None) -> set[str]:
    """The groups whose silence is an observation gap."""
    found = {start.tag.group} if start is not None else set()
    if isinstance(end, Handshake):
        found.add(end.ready.group)
    elif isinstance(end, Edge):
        found.add(end.tag.group)
    return found
