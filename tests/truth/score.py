"""The score: the records of a PC, as a receiver has them, against the truth.

From records alone: a sample lies in the windows of ``cycle_closed``, the newest binding of that cycle names the unit.
What the simulator knows is used only to judge. A reading is wrong (*misbound*) if it is under a serial that is not
its own, if a rule bound what the oracle says nobody can know, if one result is in two cycles, or if the values that a
cycle says were collected are not those of its unit. A label that comes once is its unit's first attempt. A finding
that names a serial of another round is not the visit's, and what ``also`` allows it allows once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edge_agent.model import Kind, Record
from truth.visits import Station, Visit

CASES = 20  # visits that went wrong, told in words
SLACK_NS = 15_000_000  # a read lasts some ms: what straddles a boundary is nobody's


@dataclass
class Received:
    """What one receiver has committed."""

    claims: dict[tuple[str, int, str], set[str]] = field(default_factory=dict)
    tagsets: dict[str, list[str]] = field(default_factory=dict)
    samples: dict[str, list[tuple[int, int, str, list[Any]]]] = field(default_factory=dict)  # source -> (seq, mono ...)
    closed: dict[str, dict[str, Any]] = field(default_factory=dict)
    bindings: dict[str, dict[str, Any]] = field(default_factory=dict)  # cycle -> newest
    findings: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    other: dict[Kind, list[tuple[int, dict[str, Any]]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, seq: int, record: Record) -> None:
        body: Any = record.body
        kind = record.kind
        if kind is Kind.SAMPLE:
            entry = (seq, record.at.mono_ns, body["tagset"], body["values"])
            self.samples.setdefault(record.source, []).append(entry)
        elif kind is Kind.CYCLE_CLOSED:
            self.closed[body["cycle"]] = body
        elif kind is Kind.BINDING:
            self.bindings[body["cycle"]] = body
        elif kind is Kind.FINDING:
            self.findings.append((seq, record.source, body))
        elif kind is Kind.TAGSET:
            self.tagsets[body["tagset"]] = [tag["name"] for tag in body["tags"]]
        elif kind is Kind.CONFIG:
            for station, plan in body["stations"].items():
                for position, part in plan["positions"].items():
                    for group, tags in part["claims"].items():
                        self.claims[station, int(position), group] = set(tags)
        else:
            self.other[kind].append((seq, body))


@dataclass
class Tally:
    """Counts of one cell, or of all."""

    units: int = 0
    readings: int = 0
    misbound: int = 0
    bindable: int = 0
    bound: int = 0
    injected: int = 0
    raised: int = 0
    false: int = 0
    differs: int = 0

    def add(self, other: Tally) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Reading:
    seq: int
    mono_ns: int
    made: bool
    held: list[tuple[str, str, str, int | None]] = field(default_factory=list)  # (state, serial, cycle, attempt)


class Score:
    """One PC's. ``cells``: (strategy, disturbance) -> tally; ``cases``: the first failures, in words."""

    def __init__(self, received: Received, stations: Iterable[Station]) -> None:
        self.received = received
        self.stations = list(stations)
        self.cells: dict[tuple[str, str], Tally] = defaultdict(Tally)
        self.cases: list[str] = []
        self.all_readings = 0  # values that devices gave
        self._by_token = {
            token: visit for station in self.stations for visit in station.visits for token in visit.tokens
        }
        self._whose: dict[int, set[str]] = defaultdict(set)
        for station in self.stations:
            for visit in station.visits:
                for token in visit.tokens:
                    self._whose[token].add(visit.label)
        self._readings: dict[int, list[_Reading]] = defaultdict(list)  # by token
        self._at: dict[tuple[str, int, str], _Reading] = {}
        self._index()
        self._windows()
        for station in self.stations:
            for visit in station.visits:
                self._judge(visit)
        self._findings()

    # --- who holds which reading -------------------------------------------------------------------------------

    def _index(self) -> None:
        """Every reading that tells whose it is."""
        for source, samples in self.received.samples.items():
            for seq, mono_ns, tagset, values in samples:
                for name, value in zip(self.received.tagsets[tagset], values, strict=True):
                    if value and name.startswith(("load", "made")):
                        reading = _Reading(seq, mono_ns, name.startswith("made"))
                        self._readings[value].append(reading)
                        self._at[source, seq, name] = reading

    def _windows(self) -> None:
        bound_nowhere: dict[str, Any] = {"state": "pending"}
        for cycle, body in self.received.closed.items():
            binding = self.received.bindings.get(cycle, bound_nowhere)
            state, serial = binding["state"], binding.get("serial") or ""
            for source, ranges in body["windows"].items():
                claimed = self.received.claims.get((body["station"], body["position"], source), set())
                names = [name for name in claimed if name.startswith(("load", "made"))]
                samples = self.received.samples.get(source, [])
                for first, last in ranges:
                    for place in range(bisect_left(samples, (first,)), bisect_left(samples, (last + 1,))):
                        seq = samples[place][0]
                        for name in names:
                            self._hold(source, seq, name, (state, serial, cycle, body.get("attempt")), body)

    def _hold(self, source: str, seq: int, name: str, held: tuple[str, str, str, int | None], body: Any) -> None:
        reading = self._at.get((source, seq, name))
        if reading is not None:
            reading.held.append(held)
            if held[0] == "bound":
                self._truly(source, seq, name, held[1], body)

    def _truly(self, source: str, seq: int, name: str, serial: str, body: Any) -> None:
        token = next(
            values[self.received.tagsets[tagset].index(name)]
            for at, _, tagset, values in self.received.samples[source][self._place(source, seq) :][:1]
        )
        if serial not in self._whose[token]:
            visit = self._by_token.get(token)
            self._tell("misbound", visit, f"{source}.{name} seq {seq} is under {serial}, it is of {self._whose[token]}")
            if visit is not None:
                self.cells[visit.station.strategy, visit.disturbance].misbound += 1

    def _place(self, source: str, seq: int) -> int:
        return bisect_left(self.received.samples[source], (seq,))

    # --- a visit -----------------------------------------------------------------------------------------------

    def _judge(self, visit: Visit) -> None:
        tally = self.cells[visit.station.strategy, visit.disturbance]
        tally.units += 1
        readings = [reading for token in visit.tokens for reading in self._readings[token]]
        tally.readings += len(readings)
        made = [reading for reading in readings if reading.made]
        held = [reading for reading in made if reading.held]
        alone = [one.label for one in visit.station.visits].count(visit.label) == 1
        attempt = 1 if visit.attempt is None and alone and visit.station.numbered else visit.attempt
        cycles = {one[2] for reading in held for one in reading.held}
        owed = [
            reading for reading in readings if not reading.made
            and any(first + SLACK_NS <= reading.mono_ns <= last - SLACK_NS for first, last in visit.spans)
        ]  # fmt: skip
        if visit.station.has_result:
            if visit.work == "bound":
                owed += held or [_Reading(0, 0, True)]
            else:
                self._undecided(visit, made, tally)
            if len(cycles) > 1:
                tally.misbound += 1
                self._tell("misbound", visit, f"its result is in {len(cycles)} cycles")
        for reading in readings:
            if (
                any(first + SLACK_NS <= reading.mono_ns <= last - SLACK_NS for first, last in visit.dark)
                and not reading.made
            ):
                self._dark(visit, reading, tally)
        for reading in owed:
            right = [one for one in reading.held if one[0] == "bound" and one[1] == visit.label]
            tally.bindable += 1
            tally.bound += bool(right)
            if not right:
                self._tell("not bound", visit, f"seq {reading.seq} made={reading.made}: {reading.held}")
            elif attempt is not None and reading.made and right[0][3] != attempt:
                tally.differs += 1
                self._tell("differs", visit, f"attempt {right[0][3]}, not {attempt}")
            if right and reading.made:
                self._collected(visit, right[0][2], tally)
        for check in visit.checks:
            if problem := check(self.received):
                kind = "misbound" if problem.startswith("misbound") else "differs"
                setattr(tally, kind, getattr(tally, kind) + 1)
                self._tell(kind, visit, problem)

    def _collected(self, visit: Visit, cycle: str, tally: Tally) -> None:
        """What the cycle says was measured."""
        said = [item["value"] for item in self.received.closed[cycle].get("collected") or [] if item["name"] == "force"]
        if any(value not in (None, visit.force) for value in said):
            tally.misbound += 1
            self._tell("misbound", visit, f"it collected {said}, its own is {visit.force}")

    def _undecided(self, visit: Visit, made: list[_Reading], tally: Tally) -> None:
        """What nobody can know must be said so."""
        states = {one[0] for reading in made for one in reading.held}
        if "bound" in states:
            tally.misbound += 1
            self._tell("misbound", visit, f"guessed: the oracle says {visit.work}")
        expected = {"none": set(), "unbound": set()}.get(visit.work, {visit.work})
        if states != expected:
            tally.differs += 1
            self._tell("differs", visit, f"its result is {states or 'nowhere'}, the oracle says {visit.work}")

    def _dark(self, visit: Visit, reading: _Reading, tally: Tally) -> None:
        if any(one[0] == "bound" and one[1] == visit.label for one in reading.held):
            tally.misbound += 1
            self._tell("misbound", visit, f"guessed: seq {reading.seq} bound, the oracle says {visit.work}")

    # --- findings ----------------------------------------------------------------------------------------------

    def _findings(self) -> None:
        """Each injection its findings; what is left must be something that a visit allows."""
        for station in self.stations:
            sources = station.sources()
            found = [(seq, body) for seq, source, body in self.received.findings if source in sources]
            free = [True] * len(found)
            for visit in station.visits:
                tally = self.cells[station.strategy, visit.disturbance]
                for code in visit.findings:
                    tally.injected += 1
                    place = self._find(visit, code, found, free)
                    if place is None:
                        here = [body["code"] for seq, body in found if visit.first_seq <= seq <= (visit.last_seq or 0)]
                        self._tell("no finding", visit, f"{code} was not raised; {here[:9]} were")
                    else:
                        free[place] = False
                        tally.raised += 1
            allowed = {visit: visit.also.copy() for visit in station.visits}
            for place, (seq, body) in enumerate(found):
                near = [visit for visit in station.visits if visit.first_seq <= seq <= (visit.last_seq or 0)]
                by = next((visit for visit in near if allowed[visit][body["code"]] > 0), None)
                if free[place] and by is not None:
                    allowed[by][body["code"]] -= 1
                elif free[place]:
                    visit = near[-1] if near else station.visits[-1]
                    self.cells[station.strategy, visit.disturbance].false += 1
                    self._tell("false finding", visit, f"{body['code']}: {body['text']}")

    def _find(self, visit: Visit, code: str, found: list[tuple[int, Any]], free: list[bool]) -> int | None:
        """A finding of this code in the visit's time that no other injection took; of its serial rather than of any."""
        places = [
            place for place, (seq, body) in enumerate(found)
            if free[place] and body["code"] == code and visit.first_seq <= seq <= (visit.last_seq or 0)
            and body.get("serial") in (None, *visit.station.beside(visit))
        ]  # fmt: skip
        return min(places, key=lambda place: (found[place][1].get("serial") is None, place), default=None)

    def _tell(self, what: str, visit: Visit | None, text: str) -> None:
        where = f"{visit.station.strategy}/{visit.disturbance} {visit.station.name} {visit.label}" if visit else "?"
        case = f"{what}: {where}: "  # once a visit
        if not any(one.startswith(case) for one in self.cases) and len(self.cases) < CASES:
            self.cases.append(case + text)


def total(cells: Iterable[Tally]) -> Tally:
    """The sum."""
    result = Tally()
    for one in cells:
        result.add(one)
    return result


__all__ = ["Received", "Score", "Tally", "total"]
