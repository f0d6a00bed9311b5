"""One input's outcome in the making: records numbered as the log will number them, and effects.

Ids are made of the record that creates the thing, ``<log>-<seq>``, so the binder must know the seq of what it writes.
That is why a sample that made any record is stored itself, whatever its policy says: it is the evidence, and it
takes the first number. A sample that only *takes part* (an edge whose result is still to be read) says ``keep()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.binding.state import Effect, ReadGroup, Write
from edge_agent.model import Instant, Kind, Record, Value


class Draft:
    """Collects what one input causes. ``at`` is the input's instant, ``seq`` the number of the next record."""

    __slots__ = ("at", "counted", "effects", "kept", "log", "records", "seq")

    def __init__(self, log: str, at: Instant, seq: int) -> None:
        self.log = log
        self.at = at
        self.seq = seq
        self.records: list[Record] = []
        self.effects: list[Effect] = []
        self.kept = False
        self.counted: list[Mapping[str, Any]] = []  # results without a cycle that the sample at hand showed

    @property
    def next_id(self) -> str:
        """The id of what the next record creates."""
        return f"{self.log}-{self.seq}"

    def add(self, kind: Kind, source: str, body: Mapping[str, Any]) -> int:
        """Append a record; returns its seq."""
        self.records.append(Record(kind, source, self.at, body))
        self.seq += 1
        return self.seq - 1

    def keep(self) -> None:
        """Store the sample at hand: it is evidence."""
        self.kept = True

    def read(self, group: str) -> None:
        """Ask for a fresh read of ``group``, once however many ask."""
        effect = ReadGroup(group)
        if effect not in self.effects:
            self.effects.append(effect)

    def write(self, tag: str, value: Value, before: tuple[tuple[str, Value], ...] = ()) -> None:
        """Write ``tag`` once all records of this outcome are durable, once however many ask; ``before`` it, those."""
        effect = Write(tag, value, before)
        if effect not in self.effects:
            self.effects.append(effect)
