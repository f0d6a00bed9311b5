"""A visit that the gate blocked is no attempt and no result; and what is permitted, for a unit that is gone, is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_agent.binding.gate import CODES
from edge_agent.binding.gatekeeper import Override
from edge_agent.binding.manual import Rebind
from edge_agent.binding.materials import Materials
from edge_agent.binding.needs import Needs
from edge_agent.binding.plan import Exchange, Gate
from edge_agent.binding.state import KnownHold, Write
from edge_agent.binding.status import BindingSaid, CycleSaid
from edge_agent.buffer.shift import shift
from edge_agent.model import Kind, Value
from support import needs_rig
from support.binding_rig import EPOCH_NS, HANDSHAKE, SERIAL, Rig, plan, position, station, tag

ASK = Exchange(tag("press.number"), "press.answer", "press.verdict", "press.reason", None)
STEP = "press-fit"


def rig_of(end: Any = None, **changes: Any) -> Rig:
    return Rig(plan(station(position(end=end, result=None, collect=()), gate=Gate(**changes))))


def hold(rig: Rig, serial: str = "SN1") -> None:
    rig.binder._floor.holds.open(KnownHold("H1", "serial", serial, "hold", "v1", 1, "qms", None, None, 0))


def release(rig: Rig, serial: str = "SN1") -> None:
    rig.binder._floor.holds.close(("serial", serial, "H1"), 2, "qms")


def known(rig: Rig, serial: str = "SN1") -> tuple[int, str | None]:
    """Attempts and result at the step, as remembered; the registry must say the same."""
    unit, kept = rig.binder._floor.units.find(serial), rig.registry.unit("serial", serial)
    assert unit is not None and kept is not None
    found = [
        (one.attempts.get(STEP, 0), one.results[STEP].result if STEP in one.results else None) for one in (unit, kept)
    ]
    assert found[0] == found[1], "memory and registry"
    return found[0]


def next_unit(rig: Rig, serial: str = "SN9") -> None:
    rig.wait(3).scan(serial)


def gates(rig: Rig) -> list[tuple[Any, str, int, Any]]:
    return [(one.get("request"), one["verdict"], one["code"], one.get("serial")) for one in rig.of(Kind.GATE)]


def told(rig: Rig) -> list[tuple[str, Value]]:
    found: list[tuple[str, Value]] = []
    for effect in rig.effects:
        if isinstance(effect, Write):
            found += [*effect.before, (effect.tag, effect.value)]
    rig.effects.clear()
    return [(name.partition(".")[2], value) for name, value in found if "ack" not in name]


# --- no attempt ----------------------------------------------------------------------------------------------


def test_a_unit_that_is_held_and_scanned_thrice_is_let_in_once_it_is_released() -> None:
    rig = rig_of(max_attempts=2)
    hold(rig)
    for _ in range(3):
        rig.wait(3).scan("SN1")
        next_unit(rig)
    assert known(rig) == (0, None)
    first, *_ = [one for one in rig.closed() if one["binding"].get("serial") == "SN1"]
    assert (first["closed_by"], first["result"], first["complete"], first["attempt"]) == (
        "blocked",
        "Skipped",
        False,
        None,
    )
    assert first["missing"] == []
    release(rig)
    rig.wait(3).scan("SN1")
    assert gates(rig)[-1][1:3] == ("permit", 0)
    assert rig.of(Kind.CYCLE_OPENED)[-1]["attempt"] == 1
    next_unit(rig)
    assert known(rig) == (1, "Passed")


@pytest.mark.parametrize("how", ["release", "override"])
def test_one_that_is_let_in_after_all_is_one_attempt(how: str) -> None:
    rig = rig_of()
    hold(rig)
    rig.scan("SN1")
    if how == "release":
        release(rig)
    else:
        rig._take(rig.binder.act(Override("SN1", "OP20", 5, "ann (uid 7)", "dent accepted"), rig.now, rig.seq)[0])
    rig.wait(3).scan("SN1")
    assert [one[1] for one in gates(rig)] == ["block", "permit"]
    hold(rig)
    rig.wait(3).scan("SN1")  # once in, a block of later takes nothing back
    next_unit(rig)
    assert known(rig) == (1, "Passed")
    assert rig.closed()[0]["closed_by"] == "next_scan"


@pytest.mark.parametrize("then", ["leaves", "stays", "gone"])
@pytest.mark.parametrize("let_in", [False, True])
def test_a_restart_in_a_visit_changes_nothing(let_in: bool, then: str) -> None:
    rig = rig_of()
    hold(rig)
    rig.scan("SN1")
    if let_in:
        release(rig)
        rig.wait(3).scan("SN1")
    if then == "gone":  # with its station
        rig.restart(one=plan(station(name="OP99", step="other")))
        assert rig.registry.unit("serial", "SN1").attempts == ({"press-fit": 1} if let_in else {})
    else:
        rig.restart()
        hold(rig)
        if then == "stays":
            rig.wait(3).scan("SN1")
        next_unit(rig)
        assert known(rig)[0] == (1 if let_in else 0)
    ends = {(True, "stays"): ("next_scan", "Passed"), (True, "leaves"): ("interrupted", "Aborted"),
            (True, "gone"): ("interrupted", "Aborted")}  # fmt: skip
    closed = rig.closed()[0]
    assert (closed["closed_by"], closed["result"]) == ends.get((let_in, then), ("blocked", "Skipped"))


def test_an_end_of_its_work_counts_though_it_was_blocked() -> None:
    rig = rig_of(HANDSHAKE)
    hold(rig)
    rig.put_in("SN1")
    rig.finish(1)
    assert known(rig) == (1, "Passed")
    assert rig.closed()[0]["closed_by"] == "handshake"


def test_an_older_result_stands_after_a_visit_that_was_blocked() -> None:
    rig = rig_of()
    rig.scan("SN1")
    next_unit(rig)
    hold(rig)
    rig.wait(3).scan("SN1")
    next_unit(rig)
    assert known(rig) == (1, "Passed")
    rig.restart()
    assert known(rig) == (1, "Passed")


def test_a_blocked_visit_is_nobody_elses_attempt_either() -> None:
    rig = rig_of()
    hold(rig)
    rig.scan("SN1")
    next_unit(rig)
    cycle = rig.closed()[0]["cycle"]
    rig._take(rig.binder.act(Rebind(cycle, "SN9", True, False, "ann", "label swapped"), rig.now, rig.seq)[0])
    assert known(rig) == (0, None)
    assert known(rig, "SN9") == (1, None)


def test_nothing_is_consumed_by_a_visit_that_was_blocked() -> None:
    rig = needs_rig.rig(needs_rig.hand(Needs(materials=(needs_rig.material(per_unit=1),)), gate=Gate()))
    rig.scan("R:L1/P1/AB-1/100", "desk")
    hold(rig)
    rig.scan("SN1")
    next_unit(rig)
    next_unit(rig, "SN8")
    blocked, let_in = rig.closed()
    assert "materials" not in blocked
    assert let_in["materials"][0]["lot"] == "L1"
    assert (blocked["missing"], let_in["closed_by"]) == ([], "next_scan")
    for serial, lots in (("SN1", set()), ("SN9", {"L1"})):
        unit, kept = rig.binder._floor.units.find(serial), rig.registry.unit("serial", serial)
        assert unit is not None and kept is not None
        assert unit.lots == kept.lots == lots
    (part,) = (one for one in rig.binder._stations["OP20"].parts if isinstance(one, Materials))
    assert part.loads["solder"][0].used == 1
    assert blocked["cycle"] not in part._during


def test_a_shift_counts_the_first_pass_not_the_first_block() -> None:
    rig = rig_of()
    hold(rig)
    rig.scan("SN1")
    next_unit(rig)
    release(rig)
    rig.wait(3).scan("SN1")
    next_unit(rig)
    rig.wait(3).scan("SN8")
    now_ns = rig.now.at_ns
    (one,) = shift(rig.registry.db, now_ns - 3600 * 10**9, now_ns + 10**9).stations
    assert (one.units, one.cycles, one.first, one.first_passed) == (2, 3, 2, 2)
    assert (one.results, one.blocked, one.incomplete) == ({"Passed": 3}, 1, 0)


def test_another_agent_takes_no_result_from_a_visit_that_was_blocked() -> None:
    rig = Rig()
    rig.binder._floor.status.steps = frozenset(("glue",))
    closed = CycleSaid("pc2", 10, "c1", "OP10", "glue", "Passed", True, 1, EPOCH_NS, "bound", "SN1")
    blocked = replace(closed, seq=20, cycle="c2", result="Skipped", at_ns=EPOCH_NS + 5, closed_by="blocked")
    for action in (closed, blocked, BindingSaid("pc2", 30, "c2", "bound", "SN1")):
        rig._take(rig.binder.act(action, rig.now, rig.seq)[0])
    status = rig.binder._floor.status.said("SN1", "glue")
    assert status is not None and (status.result, status.cycle) == ("Passed", "c1")


# --- for a unit that is not there ------------------------------------------------------------------------------


def asking(end: Any = None, **changes: Any) -> Rig:
    return rig_of(end, exchanges={1: ASK}, **changes)


def ask(rig: Rig, number: int, **values: Value) -> Rig:
    rig.wait().sample("press.state", {"number": number} | values)
    return rig


def test_a_permit_that_stands_is_taken_back_when_its_unit_leaves() -> None:
    rig = asking()
    rig.scan("SN1")
    ask(rig, 17)
    told(rig)
    next_unit(rig)
    assert told(rig) == [("answer", 0)]
    ask(rig, 0)
    told(rig)
    ask(rig, 18)
    assert gates(rig)[-1] == (18, "permit", 0, "SN9")


def test_a_permit_that_stands_is_taken_back_when_nobody_watched() -> None:
    rig = asking(HANDSHAKE)
    rig.put_in("SN1")
    ask(rig, 17)
    assert gates(rig) == [(17, "permit", 0, "SN1")]
    told(rig)
    rig.gap("gate")
    assert told(rig) == [("answer", 0)]
    assert gates(rig)[-1] == (None, "block", CODES["interrupted"], None)


def test_a_permit_that_was_taken_stays_as_it_is() -> None:
    rig = asking(HANDSHAKE)
    rig.put_in("SN1")
    ask(rig, 17)
    ask(rig, 0)
    told(rig)
    rig.gap("gate")
    assert told(rig) == []
    assert len(gates(rig)) == 1


def test_nothing_is_answered_for_the_unit_before_while_a_scan_waits() -> None:
    """SN1 was scanned and taken away; SN2, on hold, was scanned and put in, and the PLC asks at once."""
    rig = asking(HANDSHAKE)
    hold(rig, "SN2")
    rig.put_in("SN1")
    rig.scan("SN2")
    ask(rig, 17)
    assert gates(rig) == [(17, "block", CODES["hold"], "SN2")]


def test_of_two_scans_that_wait_the_last_is_answered_for() -> None:
    rig = asking(HANDSHAKE)
    rig.state(0)
    hold(rig, "SN2")
    rig.scan("SN1")
    rig.scan("SN2")
    ask(rig, 17)
    assert [one for one in gates(rig) if one[0] == 17] == [(17, "block", CODES["hold"], "SN2")]


def test_a_serial_that_the_plc_names_is_read_as_the_results_are() -> None:
    by_serial = Exchange(tag("press.number"), "press.answer", None, "press.reason", tag("press.sn"))
    one = station(position(), gate=Gate(exchanges={1: by_serial}), identity="in_data", pattern=SERIAL)
    rig = Rig(plan(one))
    hold(rig)
    ask(rig, 17, sn="SN1/L5")
    ask(rig, 18, sn="scrawl")
    assert gates(rig) == [(17, "block", CODES["hold"], "SN1"), (18, "block", CODES["not_identified"], None)]


def test_an_override_does_not_outlive_the_agent() -> None:
    rig = rig_of()
    hold(rig)
    rig.scan("SN1")
    rig._take(rig.binder.act(Override("SN1", "OP20", 5, "ann (uid 7)", "dent accepted"), rig.now, rig.seq)[0])
    rig.restart()
    hold(rig)
    rig.wait(3).scan("SN1")
    assert gates(rig) == [(None, "block", CODES["hold"], "SN1")] * 2
