"""The demo's points can fail: each thing that did not come about, or was told wrong, is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.demo.counting import ReceivedRecord
from edge_agent.demo.story import Plot, Shown, Told, choose_traced, judge

S = 1_000_000_000


class Story:
    """SN1 failed once and was reworked, SN2 was held; both got board, screws and a late scan. All was told right."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.records: list[ReceivedRecord] = []
        self.plot = Plot(hold="Q", held="SN2", down_ns=9 * S, up_ns=19 * S, lot="LOT1")
        self.forward: dict[str, Any] = {"units": [{"serial": "SN1"}, {"serial": "SN2"}]}
        inside, materials = [{"child_serial": "PCB2"}], [{"lot": "LOT1"}]
        self.tree: dict[str, Any] = {"units": [{"tree": {"inside": inside, "materials": materials}}]}
        self._counter = 0
        self.event(0, "load", lot="LOT1")
        self.visit(1, "OP20", "SN1", ok=False, values={"force": 22})
        self.event(2, "rework", station="OP20", position=1, serial="SN1")
        self.visit(3, "OP20", "SN1", attempt=2)
        self.event(10, "block", station="OP20", position=1, serial="SN2", request=7, code=20)
        body = {"verdict": "block", "serial": "SN2", "request": 7, "reasons": [{"code": "hold", "text": "scratched"}]}
        self.record("gate", body)
        for action in ("hold", "release"):
            self.record("hold_ack", {"hold": "Q", "action": action, "state": "applied"})
        self.event(20, "permit", station="OP20", position=1, serial="SN2", request=8)
        self.visit(21, "OP20", "SN2", attempt=2)
        for at_s, serial in ((30, "SN1"), (40, "SN2")):
            board = serial.replace("SN", "PCB")
            self.event(at_s, "enter", station="OP30", position=1, serial=serial)
            self.event(at_s, "install", station="OP30", position=1, serial=serial, child=board)
            self.record("genealogy", {"op": "install", "parent_serial": serial, "child_serial": board})
            self.visit(at_s + 2, "OP30", serial, missing=serial == "SN1")
            self.visit(at_s + 4, "OP40", serial, late=True)

    def event(self, at_s: float, kind: str, **fields: Any) -> None:
        self.events.append({"at_ns": int(at_s * S), "event": kind, **fields})

    def record(self, kind: str, body: dict[str, Any]) -> None:
        number = len(self.records) + 1
        self.records.append(ReceivedRecord("pc", "log", number, kind, "x", number, body))

    def visit(
        self, at_s: float, station: str, serial: str, *, ok: bool = True, attempt: int = 1, late: bool = False,
        missing: bool = False, values: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        self._counter += 1
        where = {"station": station, "position": 1, "counter": self._counter}
        values = values or ({"torque": 8.0} if missing else {"torque": 8.0, "angle": 90.0})
        values = values if missing else {**values, "second": 1.0}
        self.event(at_s, "work", **where, serial=serial, ok=ok, values=values)
        cycle = f"c{self._counter}"
        binding = {"state": "pending"} if late else {"state": "bound", "serial": serial}
        body = {
            **where, "cycle": cycle, "binding": binding, "attempt": attempt, "result": "Passed" if ok else "Failed",
            "complete": not missing, "missing": ["angle"] if missing else [],
        }  # fmt: skip
        self.record("cycle_closed", body)
        if missing:
            self.record("finding", {"cycle": cycle, "code": "missing_field"})
        if late:
            self.record("binding", {"cycle": cycle, "state": "bound", "serial": serial, "rule": "late_scan"})

    def bodies(self, kind: str, station: str | None = None) -> list[dict[str, Any]]:
        """Of the records of a kind, to be changed."""
        bodies: list[Any] = [record.body for record in self.records if record.kind == kind]
        return [body for body in bodies if station in (None, body.get("station"))]

    def forget(self, kind: str) -> None:
        self.records = [record for record in self.records if record.kind != kind]

    def unhappen(self, kind: str) -> None:
        self.events = [event for event in self.events if event["event"] != kind]

    def judged(self) -> dict[str, Shown]:
        told = Told(self.events, self.records)
        self.plot.serial = choose_traced(told, self.plot)
        return {point.name: point for point in judge(told, self.plot, self.forward, self.tree)}


def test_a_story_that_was_told_right_is_shown_whole() -> None:
    story = Story()
    points = story.judged()
    assert len(points) == 7 and all(point.ok for point in points.values()), points
    assert story.plot.serial == "SN2"
    assert "scratched" in points["gate"].text
    assert "SN1 failed in attempt 1" in points["rework"].text
    assert points["trace_backward"].text == "SN2 consists of board PCB2 and screws of LOT1"


def change(kind: str, nth: int, station: str | None = None, **fields: Any) -> Callable[[Story], None]:
    return lambda story: story.bodies(kind, station)[nth].update(fields)


def plot(**fields: Any) -> Callable[[Story], None]:
    return lambda story: [setattr(story.plot, name, value) for name, value in fields.items()] and None


SPOILT: list[tuple[str, str, Callable[[Story], Any]]] = [
    ("gate", "it was stopped before the broker went", plot(down_ns=11 * S)),
    ("gate", "it was not stopped", lambda story: story.unhappen("block")),
    ("gate", "it never passed", lambda story: story.unhappen("permit")),
    ("gate", "it was worked on before it was permitted", lambda story: story.visit(15, "OP20", "SN2")),
    ("gate", "another reason was recorded", change("gate", 0, reasons=[{"code": "holds_stale", "text": ""}])),
    ("gate", "the stop was not recorded", lambda story: story.forget("gate")),
    ("gate", "no hold_ack arrived", lambda story: story.forget("hold_ack")),
    ("gate", "the release was refused", change("hold_ack", 1, state="refused")),
    ("late_scan", "nothing was bound late", lambda story: story.forget("binding")),
    ("late_scan", "the unit before was meant", change("binding", 1, serial="SN1")),
    ("rework", "the second attempt counts as the first", change("cycle_closed", 1, attempt=1)),
    ("rework", "the first attempt passed", change("cycle_closed", 0, result="Passed")),
    ("rework", "nothing came again", lambda story: story.unhappen("rework")),
    ("marriage", "a board is in the wrong unit", change("genealogy", 0, parent_serial="SN2")),
    ("marriage", "no board is in anything", lambda story: story.forget("genealogy")),
    ("incomplete", "it was told to be complete", change("cycle_closed", 0, "OP30", complete=True)),
    ("incomplete", "it does not say what is missing", change("cycle_closed", 0, "OP30", missing=[])),
    ("incomplete", "there is no finding", lambda story: story.forget("finding")),
    ("trace_forward", "a unit is not named", lambda story: story.forward["units"].pop()),
    ("trace_forward", "a unit too many", lambda story: story.forward["units"].append({"serial": "SN3"})),
    ("trace_forward", "the units got another lot", plot(lot="LOT2")),
    ("trace_forward", "it found nothing", lambda story: story.forward.clear()),
    ("trace_backward", "the board is not there", lambda story: story.tree["units"][0]["tree"]["inside"].clear()),
    ("trace_backward", "another lot", lambda story: story.tree["units"][0]["tree"]["materials"][0].update(lot="LOT2")),
    ("trace_backward", "it found nothing", lambda story: story.tree.clear()),
]


@pytest.mark.parametrize(("name", "what", "spoil"), SPOILT, ids=[f"{name}: {what}" for name, what, _ in SPOILT])
def test_a_story_that_was_told_wrong_is_not_shown(name: str, what: str, spoil: Callable[[Story], Any]) -> None:
    story = Story()
    spoil(story)
    points = story.judged()
    assert not points[name].ok, what


def test_what_a_late_scan_left_in_doubt_is_no_mistake_but_shows_nothing() -> None:
    story = Story()
    first, second = story.bodies("binding")
    first.update(state="ambiguous", serial=None)
    point = story.judged()["late_scan"]
    assert point.ok and point.text.startswith("1 of 2")
    second.update(state="orphan", serial=None)
    assert not story.judged()["late_scan"].ok


def test_a_lot_that_was_changed_while_a_unit_was_there_may_be_either() -> None:
    story = Story()
    story.event(31, "load", lot="LOT2")  # SN1 is in the nest
    story.forward = {"units": [{"serial": "SN1"}]}
    story.plot.lot = "LOT2"
    story.forward["units"].append({"serial": "SN2"})
    assert story.judged()["trace_forward"].ok
    story.forward["units"].pop(0)  # SN1 only perhaps has it
    assert story.judged()["trace_forward"].ok
