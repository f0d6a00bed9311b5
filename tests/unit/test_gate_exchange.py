"""When the gate decides, and what the PLC is told: by number, by a bit; and a PLC that honours only its own number."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.binding.action import ActionRefused
from edge_agent.binding.draft import Draft
from edge_agent.binding.gate import CODES
from edge_agent.binding.gatekeeper import PASSES, Override
from edge_agent.binding.plan import Exchange, Gate
from edge_agent.binding.state import KnownHold, Outcome, Write
from edge_agent.model import Kind, Value
from support.binding_rig import Rig, plan, position, station, tag

ASK = Exchange(tag("press.number"), "press.answer", "press.verdict", "press.reason", None)
BY_SERIAL = Exchange(tag("press.number"), "press.answer", None, "press.reason", tag("press.sn"))


def gated(one: Gate, **changes: Any) -> Rig:
    return Rig(plan(station(position(end=None), gate=one, **changes)))


def asking(**changes: Any) -> Rig:
    return gated(Gate(exchanges={1: ASK}, **changes))


def ask(rig: Rig, number: int, **values: Value) -> Rig:
    rig.wait().sample("press.state", {"number": number} | values)
    return rig


def told(rig: Rig) -> list[tuple[str, Value]]:
    """What was written since the last call, in order."""
    found: list[tuple[str, Value]] = []
    for effect in rig.effects:
        if isinstance(effect, Write):
            found += [*effect.before, (effect.tag, effect.value)]
    rig.effects.clear()
    return [(name.partition(".")[2], value) for name, value in found]


def block(rig: Rig, serial: str) -> None:
    rig.binder._floor.holds.open(KnownHold("H1", "serial", serial, "hold", "v1", 1, "qms", None, None, 0))


def free(rig: Rig, serial: str) -> None:
    rig.binder._floor.holds.close(("serial", serial, "H1"), 2, "qms")


def gates(rig: Rig) -> list[tuple[Any, str, int, Any]]:
    return [(one.get("request"), one["verdict"], one["code"], one.get("serial")) for one in rig.of(Kind.GATE)]


PERMIT = [("verdict", True), ("reason", 0)]
FIRST = [("answer", 0), *PERMIT]  # after a gap an answer of before may stand there


# --- by number -----------------------------------------------------------------------------------------------


def test_the_answer_is_written_last_and_after_the_record() -> None:
    rig = ask(asking(), 0)
    rig.scan("SN1")
    told(rig)
    ask(rig, 17)
    assert told(rig) == [*PERMIT, ("answer", 17)]
    assert gates(rig) == [(17, "permit", 0, "SN1")]
    body = rig.of(Kind.GATE)[0]
    assert (body["basis"], body["cycle"], body["reasons"]) == ("live", rig.of(Kind.CYCLE_OPENED)[0]["cycle"], [])


def test_a_request_waits_for_the_scan() -> None:
    rig = ask(asking(), 17)
    assert told(rig) == []
    rig.scan("SN1")
    assert told(rig) == [*FIRST, ("answer", 17)]


def test_a_request_that_nobody_is_scanned_for_is_blocked() -> None:
    rig = ask(asking(wait_s=2), 17)
    rig.tick(1)
    assert gates(rig) == []
    rig.tick(1.2)
    assert told(rig) == [("answer", 0), ("verdict", False), ("reason", CODES["not_identified"]), ("answer", 17)]
    assert rig.findings() == ["gate_blocked"]
    rig.scan("SN1")  # too late for that request, in time for the next one
    assert len(gates(rig)) == 1
    ask(rig, 18)
    assert gates(rig)[1] == (18, "permit", 0, "SN1")


def test_a_number_is_decided_once_and_taken_back_with_the_request() -> None:
    rig = asking()
    rig.scan("SN1")
    for _ in range(3):
        ask(rig, 17)
    assert len(gates(rig)) == 1
    told(rig)
    ask(rig, 0)
    assert told(rig) == [("answer", 0)]


def test_the_next_number_needs_the_next_identification() -> None:
    rig = asking()
    rig.scan("SN1")
    ask(rig, 17)
    rig.wait(3).scan("SN1")  # the operator scans once more while it is in work: no second permit is due to that
    ask(rig, 18)
    assert len(gates(rig)) == 1
    rig.wait(3).scan("SN2")
    assert gates(rig)[1] == (18, "permit", 0, "SN2")


def test_a_permit_does_not_stand_beside_another_number() -> None:
    rig = asking()
    rig.scan("SN1")
    ask(rig, 17)
    told(rig)
    ask(rig, 18)
    assert told(rig) == [("answer", 0)]  # before anybody is identified
    ask(rig, 17)
    assert len(gates(rig)) == 1


def test_a_unit_that_was_stopped_is_scanned_again() -> None:
    rig = asking()
    block(rig, "SN1")
    rig.scan("SN1")
    ask(rig, 17)
    assert gates(rig) == [(17, "block", CODES["hold"], "SN1")]
    free(rig, "SN1")
    ask(rig, 18)
    assert len(gates(rig)) == 1, "nobody said that it is still there"
    rig.wait(3).scan("SN1")
    assert gates(rig)[1] == (18, "permit", 0, "SN1")
    assert rig.of(Kind.FINDING)[0]["details"]["reasons"] == ["hold"]


def test_a_scan_of_a_stopped_unit_does_not_count_for_long() -> None:
    rig = asking(wait_s=5)
    block(rig, "SN1")
    rig.scan("SN1")
    ask(rig, 17)
    free(rig, "SN1")
    rig.wait(3).scan("SN1")
    rig.wait(6)
    ask(rig, 18)
    assert len(gates(rig)) == 1


def test_a_request_that_goes_away_is_a_finding() -> None:
    rig = ask(ask(asking(), 17), 18)
    ask(rig, 0)
    assert rig.findings() == ["gate_unanswered", "gate_unanswered"]
    assert [one["details"]["request"] for one in rig.of(Kind.FINDING)] == [17, 18]
    rig.scan("SN1")
    assert gates(rig) == []


@pytest.mark.parametrize("value", [None, "17", True, 3.5])
def test_what_is_no_number_is_no_request(value: Value) -> None:
    rig = asking()
    rig.scan("SN1")
    rig.wait().sample("press.state", {"number": value})
    assert gates(rig) == ([(1, "permit", 0, "SN1")] if value is True else [])


def test_after_a_gap_a_number_that_stands_is_answered_anew_for_who_is_scanned_anew() -> None:
    rig = asking()
    rig.scan("SN1")
    ask(rig, 17)
    told(rig)
    rig.gap()
    assert told(rig) == [("answer", 0)]
    rig._take(rig.binder.on_open("press", rig.now, rig.seq))
    assert told(rig) == [("answer", 0)]
    block(rig, "SN1")
    ask(rig, 17)
    assert len(gates(rig)) == 1
    rig.wait(3).scan("SN1")
    assert told(rig) == [("answer", 0), ("verdict", False), ("reason", CODES["hold"]), ("answer", 17)]


def test_after_a_restart_no_answer_of_before_stands() -> None:
    rig = asking()
    rig.scan("SN1")
    ask(rig, 17)
    rig.restart()
    rig._take(rig.binder.on_open("press", rig.now, rig.seq))
    assert told(rig) == [("answer", 0)]
    ask(rig, 17)
    rig.tick(6)
    assert gates(rig)[1] == (17, "block", CODES["not_identified"], None)


def test_a_stop_takes_the_answer_back() -> None:
    rig = asking()
    rig.scan("SN1")
    ask(rig, 17)
    told(rig)
    rig._take(rig.binder.stop(rig.now, rig.seq))
    assert told(rig) == [("answer", 0)]


def test_where_the_plc_names_the_unit_no_scan_is_needed() -> None:
    rig = Rig(plan(station(position(), gate=Gate(previous=("OP10",), exchanges={1: BY_SERIAL}), identity="in_data")))
    ask(rig, 17, sn="SN9\0\0")
    ask(rig, 18, sn="")
    assert gates(rig) == [
        (17, "block", CODES["unknown_unit"], "SN9"),
        (18, "block", CODES["not_identified"], None),
    ]
    assert told(rig)[-2:] == [("reason", CODES["not_identified"]), ("answer", 18)]


def test_a_unit_of_two_places_is_ambiguous_and_blocked() -> None:
    rig = Rig(
        plan(
            station(position(scanner="other")),
            station(position(end=None), name="OP30", gate=Gate(exchanges={1: ASK})),
        )
    )
    rig.scan("SN1", "other")
    rig.state(0)
    rig.scan("SN1")
    ask(rig, 17)
    assert gates(rig) == [(17, "block", CODES["ambiguous"], None)]


def test_the_heartbeat_counts_and_goes_round() -> None:
    rig = asking(heartbeat="press.beat", beat_s=1.0)
    for _ in range(9):
        rig.tick(0.25)
    assert told(rig) == [("beat", 1), ("beat", 2), ("beat", 3)]
    rig.binder._stations["OP20"].parts[-1]._beat = (1 << 15) - 1  # type: ignore[attr-defined]
    rig.tick(1)
    assert told(rig) == [("beat", 0)]


def test_what_is_judged_is_what_was_appended_a_moment_ago() -> None:
    """The result of the step before is not durable yet, let alone delivered: it counts."""
    bare: dict[str, Any] = {"end": None, "collect": (), "result": None}
    first = station(position(**bare, scanner="before"), name="OP10", step="load")
    second = station(position(end=None), gate=Gate(previous=("load",)))
    rig = Rig(plan(first, second))
    rig.scan("SN1", "before")
    rig.scan("SN1")
    assert [(one["code"], one["basis"]) for one in rig.of(Kind.GATE)] == [(0, "live")]
    rig.scan("SN2")
    assert [one["code"] for one in rig.of(Kind.GATE)] == [0, CODES["unknown_unit"]]


# --- by bit --------------------------------------------------------------------------------------------------


def bit(**changes: Any) -> Rig:
    return gated(Gate(permits={1: "press.permit"}, pulse_s=0.5, **changes))


def test_the_bit_is_pulsed_with_each_permit() -> None:
    rig = bit()
    rig.scan("SN1")
    assert told(rig) == [("permit", True)]
    rig.tick(0.25)
    assert told(rig) == []
    rig.tick(0.25)
    assert told(rig) == [("permit", False)]
    rig.tick(0.5)
    assert told(rig) == []
    block(rig, "SN2")
    rig.wait(3).scan("SN2")
    assert told(rig) == []
    free(rig, "SN2")
    rig.wait(3).scan("SN2")
    assert told(rig) == [("permit", True)]


@pytest.mark.parametrize("event", ["open", "stop", "gap", "next"])
def test_the_bit_is_taken_back(event: str) -> None:
    rig = bit()
    rig.scan("SN1")
    told(rig)
    if event == "gap":
        rig.gap()
    elif event == "next":
        block(rig, "SN2")
        rig.scan("SN2")
    else:
        rig._take(
            rig.binder.on_open("press", rig.now, rig.seq) if event == "open" else rig.binder.stop(rig.now, rig.seq)
        )
    assert told(rig)[-1] == ("permit", False)


def test_a_permit_is_taken_back_when_nobody_watched() -> None:
    rig = Rig(plan(station(gate=Gate(permits={1: "press.permit"}))))
    rig.put_in("SN1")
    assert ("permit", True) in told(rig)
    rig.gap("gate")  # the scanner was away: another unit may have been put in
    assert told(rig) == [("permit", False)]
    assert [one["code"] for one in rig.of(Kind.GATE)] == [0, CODES["interrupted"]]


def test_a_result_without_a_scan_asks_nobody_to_let_it_in() -> None:
    rig = Rig(plan(station(gate=Gate())))
    rig.state(0)
    rig.finish(1)
    assert rig.of(Kind.CYCLE_CLOSED)
    assert gates(rig) == []


# --- override ------------------------------------------------------------------------------------------------


def override(
    rig: Rig, serial: str = "SN1", station_name: str = "OP20", minutes: float = 10, *, seen: bool = True
) -> Any:
    if seen:  # at a station before
        draft = Draft(f"log{rig.logs}", rig.now, rig.seq)
        rig.binder._floor.units.know(draft, "OP10", {"serial": serial}, [])
        rig._take(Outcome(draft.records, []))
    outcome, answer = rig.binder.act(
        Override(serial, station_name, minutes, "ann (uid 7)", "dent accepted"), rig.now, rig.seq
    )
    rig._take(outcome)
    return answer


def test_an_override_lets_one_unit_in_once() -> None:
    rig = asking()
    block(rig, "SN1")
    override(rig)
    rig.scan("SN1")
    ask(rig, 17)
    body = rig.of(Kind.GATE)[0]
    assert (body["verdict"], body["basis"], body["code"], body["by"]) == ("permit", "override", 0, "ann (uid 7)")
    assert [one["code"] for one in body["reasons"]] == ["hold"]
    audit = rig.of(Kind.AUDIT)[0]
    assert (audit["action"], audit["reason"], audit["new"]["serial"]) == ("gate_override", "dent accepted", "SN1")
    rig.scan("SN2")
    rig.scan("SN1")
    ask(rig, 18)
    assert gates(rig)[1][1:3] == ("block", CODES["hold"])


def test_an_override_is_not_used_up_where_it_is_not_needed() -> None:
    rig = asking()
    override(rig)
    rig.scan("SN1")
    ask(rig, 17)
    assert rig.of(Kind.GATE)[0]["basis"] == "live"
    assert rig.binder.snapshot()["OP20"]["gate"]["overrides"] == ["SN1"]


def test_an_override_ends_and_says_nothing_of_others() -> None:
    rig = asking()
    block(rig, "SN1")
    block(rig, "SN2")
    override(rig, minutes=1)
    rig.scan("SN2")
    ask(rig, 17)
    rig.wait(61).scan("SN1")
    ask(rig, 18)
    assert [verdict for _, verdict, _, _ in gates(rig)] == ["block", "block"]


def test_an_override_does_not_say_who_is_there() -> None:
    rig = asking(wait_s=1)
    override(rig)
    ask(rig, 17)
    rig.tick(2)
    assert gates(rig) == [(17, "block", CODES["not_identified"], None)]


def test_an_override_is_refused_where_there_is_no_gate_or_no_room() -> None:
    rig = asking()
    with pytest.raises(ActionRefused) as refused:
        override(rig, station_name="OP99")
    assert "OP20" in refused.value.hint
    for number in range(PASSES):
        override(rig, f"SN{number}")
    before = len(rig.of(Kind.AUDIT))
    with pytest.raises(ActionRefused, match="overrides are open"):
        override(rig, "SN9999")
    assert len(rig.of(Kind.AUDIT)) == before


def test_an_override_for_a_serial_that_nobody_saw_is_a_typing_error() -> None:
    rig = asking()
    with pytest.raises(ActionRefused, match="no step has ever seen SN1") as refused:
        override(rig, seen=False)
    assert "spelling" in refused.value.hint
    rig.scan("SN1")
    override(rig, seen=False)


# --- a PLC that honours its own number -----------------------------------------------------------------------


class Press(RuleBasedStateMachine):
    """A PLC, an operator who may forget to scan, holds that come and go, and an agent that dies or loses the PLC.

    Writes reach the PLC late, one by one, and never if the agent died before. The PLC starts when the answer is its
    request's number and the verdict is permit. What it started must be the unit that is there, and no unit that was
    on hold when its request was decided.
    """

    @initialize()
    def begin(self) -> None:
        self.rig = asking(wait_s=1)
        self.memory: dict[str, Value] = {"answer": 0, "verdict": False, "reason": 0}
        self.queue: dict[str, list[tuple[str, Value]]] = {}
        self.request = self.next_request = self.next_unit = 0
        self.there: str | None = None
        self.started: tuple[int, str] | None = None
        self.connected = True

    def collect(self) -> None:
        """Take over what the binder wants written, as a collector does: a newer unit of writes for a tag replaces."""
        for effect in self.rig.effects:
            if isinstance(effect, Write):
                self.queue.pop(effect.tag, None)
                self.queue[effect.tag] = [*effect.before, (effect.tag, effect.value)]
        self.rig.effects.clear()

    @rule()
    def write_one(self) -> None:
        """The next single write arrives."""
        self.collect()
        for name, writes in self.queue.items():
            tag_name, value = writes.pop(0)
            self.memory[tag_name.partition(".")[2]] = value
            if not writes:
                del self.queue[name]
            break
        self.look()

    def look(self) -> None:
        """The PLC's program."""
        if self.request and self.memory["answer"] == self.request and self.memory["verdict"] and self.there:
            self.started = (self.request, self.there)

    @rule()
    def poll(self) -> None:
        if self.connected and not self.queue:
            ask(self.rig, self.request)
            self.collect()

    @precondition(lambda self: self.there is None or self.memory["answer"] == self.request)
    @rule(scans=st.booleans(), held=st.booleans())
    def put_in(self, scans: bool, held: bool) -> None:
        """The unit before is gone, another one comes; its label is read or not; the PLC asks.

        The PLC keeps a unit until it is answered: one that is scanned and exchanged before that, nobody can notice.
        """
        self.next_unit += 1
        self.next_request += 1
        self.there = f"SN{self.next_unit}"
        self.request, self.started = self.next_request, None
        if held:
            block(self.rig, self.there)
        if scans:
            self.rig.wait(3).scan(self.there)
        self.look()

    @precondition(lambda self: self.there is not None)
    @rule()
    def scan_again(self) -> None:
        self.rig.wait(3).scan(str(self.there))

    @rule()
    def ask_again(self) -> None:
        self.next_request += 1
        self.request = self.next_request
        self.look()

    @rule(seconds=st.sampled_from([0.25, 2]))
    def time_passes(self, seconds: float) -> None:
        self.rig.tick(seconds)

    @rule()
    def lose_the_plc(self) -> None:
        self.queue.clear()
        self.rig.effects.clear()
        self.rig.gap()
        self.queue.clear()
        self.rig.effects.clear()
        self.rig._take(self.rig.binder.on_open("press", self.rig.now, self.rig.seq))

    @rule()
    def kill_the_agent(self) -> None:
        """Between commit and answer too: what was not written never is."""
        self.queue.clear()
        holds = self.rig.binder._floor.holds
        self.rig.effects.clear()
        self.rig.restart()
        self.rig.binder._floor.holds = holds
        self.rig._take(self.rig.binder.on_open("press", self.rig.now, self.rig.seq))

    @invariant()
    def what_started_was_permitted(self) -> None:
        if getattr(self, "started", None) is None:
            return
        assert self.started is not None
        request, serial = self.started
        decided = [one for one in self.rig.of(Kind.GATE) if one["request"] == request]
        assert decided, f"{serial} was started on request {request}, which nobody decided"
        assert decided[-1].get("serial") == serial
        assert any(one["verdict"] == "permit" for one in decided)
        assert not self.rig.binder._floor.holds.on(self.rig.binder._floor.units.find(serial))  # type: ignore[arg-type]


TestPress = Press.TestCase
TestPress.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
