"""Visits: what a unit really went through at a station, and the parts that the stations' scripts are made of.

A PLC's tags whose names begin with ``load`` hold the *token* of what is in the place at that instant (0: nobody),
those that begin with ``made`` the token of the unit that the result is of. The agent sees numbers; only the truth
knows whose they are.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edge_agent.model import ScanStatus
from truth.line import SECOND, Barrier, Device, Line, Restart, Script
from truth.oracle import ORACLE, Cell

LEAVES_OPEN = {"unit_removed", "late_scan", "missed_out"}
"""After these a scan stands in the books that no work follows: if the next unit were not scanned, nobody could tell."""
BLIND = {"missed_scan", "unreadable_scan", "foreign_label", "late_scan", "missed_out"}
RESTARTS = {"restart", "restart_rescan", "swapped_in_downtime"}
"""Disturbances of the whole PC: all its stations have one of them at the same time."""


def force_of(token: int) -> float:
    """What the machine measured on this unit: no two that come after each other are alike."""
    return 10.0 + token % 1000


@dataclass(eq=False)
class Visit:
    """One unit at one station, and what must be known of it."""

    station: Station
    disturbance: str
    cell: Cell
    label: str
    token: int
    first_seq: int
    work: str = ""
    findings: list[str] = field(default_factory=list)
    also: Counter[str] = field(default_factory=Counter)  # how often
    last_seq: int | None = None
    tokens: set[int] = field(default_factory=set)
    spans: list[list[int]] = field(default_factory=list)  # [from, to] in which its readings must be bound
    dark: list[list[int]] = field(default_factory=list)  # and in which they must not
    attempt: int | None = None
    checks: list[Callable[[Any], str]] = field(default_factory=list)  # of what the records say beyond readings
    alike: float | None = None  # what was measured on it, where that is always the same

    @property
    def force(self) -> float:
        """What was measured on it."""
        return force_of(self.token) if self.alike is None else self.alike


class Station:
    """One station of a strategy; its script is one visit after the other. Strategies derive from it."""

    strategy: ClassVar[str]
    has_result: ClassVar[bool] = True
    numbered: ClassVar[bool] = True  # its cycles say which attempt they were
    abreast: ClassVar[int] = 1  # units in a visit, about
    skips: ClassVar[set[str]] = set()
    waits: ClassVar[set[str]] = set()  # disturbances, beyond RESTARTS, that restart the agent
    settings: ClassVar[str]  # YAML of its devices, then "---", then of the station; {n} is its number

    def __init__(self, line: Line, number: int, chance: random.Random, tokens: Iterator[int]) -> None:
        self.line = line
        self.number = number
        self.chance = chance
        self.deck: list[str] = []
        self.name = f"ST{number}"
        self.visits: list[Visit] = []
        self.rounds: list[int] = []  # how many visits there were when each began
        self._tokens = tokens
        self._quiet: dict[str, int] = {}  # reader -> life of the agent in which its newest word was "no read"
        self.seen: list[str] = []  # labels that were bound once and may come again
        self.setup()

    def setup(self) -> None:
        """Put the machine into its first state."""

    def sources(self) -> set[str]:
        """Who findings about this station are about: itself and its devices."""
        return {self.name} | {
            name for name in self.line.devices if re.search(rf"[a-z]{self.number}($|[^0-9]|[0-9]$)", name)
        }

    # --- the script ----------------------------------------------------------------------------------------------

    def script(self) -> Script:
        """All of the deck, and what is still open to its end."""
        yield from self.play()
        yield Barrier()
        yield from self.finale()
        self._end_visits(len(self.visits))

    def play(self) -> Script:
        """The deck, one visit after the other."""
        for disturbance in self.deck:
            self._end_visits(self.rounds[-1] if self.rounds else 0)
            self.rounds.append(len(self.visits))
            if disturbance in RESTARTS | self.waits:
                yield Barrier()
            visit = self.unit(disturbance)
            yield from getattr(self, disturbance, self.none)(visit)
            yield self.chance.uniform(0.15, 0.6)

    def finale(self) -> Script:
        """Bring what is still open to its end."""
        yield 1.0

    def unit(self, disturbance: str, label: str | None = None) -> Visit:
        """The next unit comes."""
        cell = ORACLE[self.strategy][disturbance]
        token = next(self._tokens)
        visit = Visit(
            self, disturbance, cell, label or self.new_label(), token, self.line.next_seq, cell.work,
            list(cell.findings), Counter(cell.also), tokens={token},
        )  # fmt: skip
        self.visits.append(visit)
        return visit

    def beside(self, visit: Visit) -> list[str]:
        """Labels of the round that the visit is of."""
        place = self.visits.index(visit)
        last = bisect_right(self.rounds, place)
        return [one.label for one in self.visits[self.rounds[last - 1] : (*self.rounds, len(self.visits))[last]]]

    def _end_visits(self, upto: int) -> None:
        """Findings about a round come until the end of the next one: the next scan settles some."""
        for visit in self.visits[:upto]:
            visit.last_seq = self.line.next_seq if visit.last_seq is None else visit.last_seq

    def new_label(self) -> str:
        return f"SN{self.chance.randrange(10**8):08d}"

    def none(self, visit: Visit) -> Script:
        raise NotImplementedError

    # --- people ----------------------------------------------------------------------------------------------------

    def scan(self, reader: str, text: str) -> None:
        self._quiet.pop(reader, None)
        self.line.scan(reader, text)

    def no_read(self, reader: str, visit: Visit) -> None:
        """The reader saw no label. A run of them is one finding."""
        if self._quiet.get(reader) == self.line.restarts and "no_read" in visit.findings:
            visit.findings.remove("no_read")
            visit.also["no_read"] += 1
        self._quiet[reader] = self.line.restarts
        self.line.scan(reader, "NOREAD", ScanStatus.NO_READ)

    # --- time ------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.line.mono_ns

    def pause(self, low: float, high: float) -> float:
        return self.chance.uniform(low, high)

    def until(self, done: Callable[[], bool], seconds: float = 30.0) -> Script:
        """Wait for it; a line that stands still is a failure of its own."""
        end = self.now + int(seconds * SECOND)
        while not done():
            if self.now > end:
                raise AssertionError(f"{self.strategy} {self.name}: the line stands still")
            yield 0.05

    def calm(self, seconds: float) -> Script:
        """Work goes on; what is read meanwhile is the visit's."""
        yield seconds


class Handshaking:
    """A PLC's half of a handshake on one device: made, count, ready and ack, with a suffix for a nest."""

    def __init__(self, device: Device, chance: random.Random, suffix: str = "", *, acknowledged: bool = True) -> None:
        self.device = device
        self.suffix = suffix
        self.acknowledged = acknowledged
        self.torn = 0
        device.tags |= {
            self.suffixed("ready"): False,
            self.suffixed("ack"): False,
            self.suffixed("count"): chance.randrange(3, 50_000),
        }
        device.tags |= {self.suffixed("made"): 0, self.suffixed("load"): 0, self.suffixed("force"): 12.0}
        device.on_write.append(self._written)
        device.on_read.append(self._reading)

    def suffixed(self, name: str) -> str:
        return name + self.suffix

    @property
    def tags(self) -> dict[str, Any]:
        return self.device.tags

    def place(self, token: int) -> None:
        self.tags[self.suffixed("load")] = token

    def count(self, results: int = 1) -> None:
        self.tags[self.suffixed("count")] = (self.tags[self.suffixed("count")] + results) % 65536

    def finish(self, token: int) -> None:
        """The result stands, then ready rises."""
        self.tags[self.suffixed("made")] = token
        self.tags[self.suffixed("force")] = force_of(token)
        self.count()
        self.tags[self.suffixed("ready")] = True

    @property
    def idle(self) -> bool:
        return not self.tags[self.suffixed("ready")] and not self.tags[self.suffixed("ack")]

    def _written(self, tag: str, value: Any) -> None:
        if tag == self.suffixed("ack") and value:
            self.tags[self.suffixed("ready")] = False

    def _reading(self, group: str) -> None:
        if self.torn and group.startswith("result"):
            self.torn -= 1
            self.count()


__all__ = [
    "BLIND",
    "LEAVES_OPEN",
    "RESTARTS",
    "Barrier",
    "Handshaking",
    "Restart",
    "Script",
    "Station",
    "Visit",
    "force_of",
]
