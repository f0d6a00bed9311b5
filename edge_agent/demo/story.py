"""What the demo promises to show, each point held against the line's truth: did it come about, and was it told right?

Read from the receiver's records and from what ``edge-agent trace`` answers, never from what the agent says of itself
while it runs. A point that did not come about is as bad as one that was told wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from edge_agent.demo.counting import EDGE_NS, ReceivedRecord
from edge_agent.demo.gate import ON_HOLD
from edge_agent.i18n import _

Event = Mapping[str, Any]


@dataclass(slots=True)
class Plot:
    """What the script did that the truth of the line does not know."""

    hold: str = ""  # its id at the QMS
    held: str = ""  # the serial
    down_ns: int = 0  # the broker was away from here
    up_ns: int = 0  # to here
    lot: str = ""  # that is traced forwards
    serial: str = ""  # that is traced backwards


@dataclass(frozen=True, slots=True)
class Shown:
    """One point: whether it was shown, and what was found."""

    name: str
    ok: bool
    text: str


@dataclass(slots=True)
class Visit:
    """One cycle as the receiver has it: how it closed, and the newest word on whose it is."""

    body: Mapping[str, Any]
    state: str
    serial: str | None
    rule: str = ""
    findings: list[str] = field(default_factory=list)

    def of(self, serial: str) -> bool:
        """Whether it is bound to this unit."""
        return self.state == "bound" and self.serial == serial


class Told:
    """The received records, looked up by what the line knows."""

    def __init__(self, events: Iterable[Event], records: Iterable[ReceivedRecord]) -> None:
        self.events = list(events)
        self.records = sorted(records, key=lambda record: record.seq)
        self._visits: dict[str, Visit] = {}
        for body in self.bodies("cycle_closed"):
            binding = body["binding"]
            self._visits[body["cycle"]] = Visit(body, binding["state"], binding.get("serial"))
        for body in self.bodies("binding"):
            visit = self._visits.get(body["cycle"])
            if visit is not None:
                visit.state, visit.serial, visit.rule = body["state"], body.get("serial"), body["rule"]
        for body in self.bodies("finding"):
            if body.get("cycle") in self._visits:
                self._visits[body["cycle"]].findings.append(body["code"])
        self._by_counter = {
            (body["station"], body["position"], body["counter"]): visit
            for visit in self._visits.values()
            if (body := visit.body).get("counter") is not None
        }

    def bodies(self, kind: str) -> list[Mapping[str, Any]]:
        """Of the records of a kind, oldest first."""
        return [record.body for record in self.records if record.kind == kind]

    def happened(self, kind: str, **fields: Any) -> list[Event]:
        """The line's events of a kind that have these fields."""
        return [
            event
            for event in self.events
            if event["event"] == kind and all(event.get(name) == value for name, value in fields.items())
        ]

    def visit(self, work: Event) -> Visit | None:
        """The cycle of a piece of work whose result the agent took."""
        return self._by_counter.get((work["station"], work["position"], work["counter"]))


def judge(told: Told, plot: Plot, forward: Mapping[str, Any], tree: Mapping[str, Any]) -> list[Shown]:
    """Every point. ``forward`` and ``tree``: what `trace --lot` and `trace --tree` answered, as JSON."""
    return [
        _gate(told, plot),
        _late(told),
        _rework(told),
        _marriage(told),
        _incomplete(told),
        _forward(told, plot, forward),
        _backward(told, plot, tree),
    ]


def choose_traced(told: Told, plot: Plot) -> str:
    """The serial to trace: the held one if it got its board and screws for certain, else another that did."""
    boarded = {body["parent_serial"] for body in told.bodies("genealogy")}
    certain = [
        work["serial"]
        for work in told.happened("work", station="OP30")
        if len(lots_of(told, work)) == 1 and _is_its(told, work) and work["serial"] in boarded
    ]
    return plot.held if plot.held in certain else next(iter(certain), "")


def lots_of(told: Told, work: Event) -> set[str]:
    """The lots of screws that may have been there at any time while the unit of this work was in its nest.

    The agent learns of a lot a little after the line: what was loaded within ``EDGE_NS`` of the visit may be either.
    """
    serial, position = work["serial"], work["position"]
    came = max(
        event["at_ns"]
        for kind in ("enter", "swap")
        for event in told.happened(kind, station="OP30", position=position, serial=serial)
        if event["at_ns"] <= work["at_ns"]
    )
    loads = [event for event in told.happened("load") if event["at_ns"] <= work["at_ns"] + EDGE_NS]
    before = [event["lot"] for event in loads if event["at_ns"] <= came - EDGE_NS]
    return {*before[-1:], *(event["lot"] for event in loads if event["at_ns"] > came - EDGE_NS)}


def _is_its(told: Told, work: Event) -> bool:
    visit = told.visit(work)
    return visit is not None and visit.of(work["serial"])


# --- the points ------------------------------------------------------------------------------------------------


def _gate(told: Told, plot: Plot) -> Shown:
    """Blocked while the broker was away, for the hold; not worked on before the release; then permitted and worked."""
    serial = plot.held
    blocked = [
        event
        for event in told.happened("block", station="OP20", serial=serial)
        if event["code"] in ON_HOLD and plot.down_ns < event["at_ns"] < plot.up_ns
    ]
    permitted = [event for event in told.happened("permit", serial=serial) if event["at_ns"] > plot.up_ns]
    worked = told.happened("work", station="OP20", serial=serial)
    recorded = [
        body
        for body in told.bodies("gate")
        if body["verdict"] == "block"
        and body.get("serial") == serial
        and any(body.get("request") == event["request"] for event in blocked)
        and body["reasons"][0]["code"] == "hold"
    ]
    acts = {
        body["action"]
        for body in told.bodies("hold_ack")
        if body.get("hold") == plot.hold and body["state"] == "applied"
    }
    early = [event for event in worked if not permitted or event["at_ns"] < permitted[0]["at_ns"]]
    ok = bool(blocked and permitted and worked and recorded and {"hold", "release"} <= acts and not early)
    text = _("{serial} was stopped at the gate while the broker was down ({why}), and passed after the release")
    why = recorded[0]["reasons"][0]["text"] if recorded else "–"
    return Shown("gate", ok, text.format(serial=serial, why=why))


def _late(told: Told) -> Shown:
    """Work at OP40 is bound by the scan that came after it, to the unit that was there."""
    works = told.happened("work", station="OP40")
    visits = [(work, told.visit(work)) for work in works]
    bound = [work for work, one in visits if one is not None and (one.rule, one.state) == ("late_scan", "bound")]
    wrong = [work for work in bound if not _is_its(told, work)]
    text = _("{count} of {all} units at OP40 were bound by the scan that came after the work")
    return Shown("late_scan", bool(bound) and not wrong, text.format(count=len(bound), all=len(works)))


def _rework(told: Told) -> Shown:
    """A unit that failed came again, and its second attempt is known as such."""
    found = []
    for event in told.happened("rework"):
        serial = event["serial"]
        visits = [told.visit(work) for work in told.happened("work", station=event["station"], serial=serial)]
        known = [visit for visit in visits if visit is not None and visit.of(serial)]
        for first, again in pairwise(known):
            attempts = first.body["attempt"], again.body["attempt"]
            if (first.body["result"], again.body["result"]) == ("Failed", "Passed") and attempts[0] < attempts[1]:
                found.append((serial, *attempts))
    text = _("{serial} failed in attempt {first}, was reworked and passed in attempt {again}")
    serial, first_attempt, again_attempt = found[0] if found else ("–", "–", "–")
    return Shown("rework", bool(found), text.format(serial=serial, first=first_attempt, again=again_attempt))


def _marriage(told: Told) -> Shown:
    """Each board that the receiver shows in a unit was put into that unit."""
    true = {(event["serial"], event["child"]) for event in told.happened("install")}
    shown = {(body["parent_serial"], body["child_serial"]) for body in told.bodies("genealogy")}
    text = _("{count} boards are in the units into which they were built, {wrong} in another")
    return Shown("marriage", bool(shown) and shown <= true, text.format(count=len(shown), wrong=len(shown - true)))


def _incomplete(told: Told) -> Shown:
    """Where the PLC gave no value the cycle is incomplete, says what is missing, and there is a finding."""
    found, unsaid = [], []
    for work in told.events:
        visit = told.visit(work) if work["event"] == "work" and len(work["values"]) < 2 else None
        if visit is None or not visit.of(work["serial"]):
            continue
        missing = [name for name in visit.body["missing"] if ":" not in name]
        if visit.body["complete"] or not missing or "missing_field" not in visit.findings:
            unsaid.append(work)
        else:
            found.append((work["serial"], work["station"], ", ".join(missing)))
    serial, station, names = found[0] if found else ("–", "–", "–")
    text = _("the cycle of {serial} at {station} is incomplete, {names} is missing, with a finding")
    return Shown("incomplete", bool(found) and not unsaid, text.format(serial=serial, station=station, names=names))


def _forward(told: Told, plot: Plot, answer: Mapping[str, Any]) -> Shown:
    """The lot is in every unit that surely got it, and surely in none that did not."""
    works = told.happened("work", station="OP30")
    possible = {work["serial"] for work in works if plot.lot in lots_of(told, work)}
    certain = {work["serial"] for work in works if lots_of(told, work) == {plot.lot} and _is_its(told, work)}
    units = answer.get("units", ())
    named = {unit["serial"] for unit in units}
    ok = bool(certain) and certain <= named <= possible
    text = _("{lot} is in {count} units: each that got it by the line's truth, and no other")
    return Shown("trace_forward", ok, text.format(lot=plot.lot, count=len(named)))


def _backward(told: Told, plot: Plot, answer: Mapping[str, Any]) -> Shown:
    """The unit's tree shows the board and the lot that went into it."""
    trees = [unit["tree"] for unit in answer.get("units", ())]
    boards = {part["child_serial"] for tree in trees for part in tree["inside"]}
    lots = {material["lot"] for tree in trees for material in tree["materials"]}
    true = {event["child"] for event in told.happened("install", serial=plot.serial)}
    works = told.happened("work", station="OP30", serial=plot.serial)
    text = _("{serial} consists of board {board} and screws of {lot}")
    ok = bool(true) and boards == true and lots == set().union(*(lots_of(told, work) for work in works))
    board, lot = ", ".join(sorted(boards)) or "–", ", ".join(sorted(lots)) or "–"
    return Shown("trace_backward", ok, text.format(serial=plot.serial or "–", board=board, lot=lot))
