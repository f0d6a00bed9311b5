"""identity: after. The work first, then a scan: whose the work was, and when nobody may say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_agent.binding.manual import Rebind, Unbind
from edge_agent.binding.plan import Edge, Plan
from edge_agent.model import Kind, ScanStatus
from support import binding_rig as bench
from support.binding_rig import Rig, position, station

START = Edge(bench.tag("press.beside"), True, None)


def after(**changes: Any) -> Plan:
    place = position(**{key: changes.pop(key) for key in ("end", "start", "claims") if key in changes})
    return bench.plan(station(place, identity="after", max_wait_s=30.0, **changes))


@pytest.fixture
def rig() -> Rig:
    rig = Rig(after())
    rig.state(0)
    return rig


def idle(rig: Rig, seconds: float = 1.0) -> Rig:
    """Time in which the PLC is polled and nothing happens."""
    for _ in range(int(seconds / 0.5)):
        rig.wait(0.4).state(0)
        rig.tick(0.0)
    return rig


def scan(rig: Rig, serial: str, device: str = "gate") -> None:
    """Some time later the unit is scanned, and the PLC is read after it."""
    idle(rig).scan(serial, device)
    rig.state(0)


def states(rig: Rig) -> list[tuple[str, str | None]]:
    """(state, serial) of every cycle's newest binding, in the order in which they closed."""
    found = [rig.binding(cycle["cycle"]) for cycle in rig.closed()]
    return [(one["state"], one.get("serial")) for one in found]


def candidates(rig: Rig, index: int) -> list[str]:
    return [one["serial"] for one in rig.binding(rig.closed()[index]["cycle"])["candidates"]]


def test_the_work_is_anonymous_until_its_scan(rig: Rig) -> None:
    rig.finish(1)
    (closed,) = rig.closed()
    assert closed["binding"] == {"state": "pending"}
    assert rig.binder.snapshot()["OP20"]["awaiting_scan"] == [closed["cycle"]]
    first = rig.binding()
    scan(rig, "SN1")
    second = rig.binding()
    scan_seq = next(seq for seq, record, _ in rig.records if record.kind is Kind.SCAN)
    assert (second["rule"], second["supersedes"], second["evidence"]) == ("late_scan", first["binding"], [scan_seq])
    assert states(rig) == [("bound", "SN1")]
    assert rig.binder.snapshot()["OP20"]["awaiting_scan"] == []
    assert not rig.findings()


def test_a_closed_cycle_gets_its_attempt_with_its_unit(rig: Rig) -> None:
    def attempts() -> list[int | None]:
        asked = (rig.registry.cycle(cycle["cycle"]) for cycle in rig.closed())
        return [known.attempt for known in asked if known is not None]

    rig.finish(1), scan(rig, "SN1"), idle(rig, 20), rig.finish(2), scan(rig, "SN1")
    assert [cycle["attempt"] for cycle in rig.closed()] == [None, None], "nobody knew whose it was"
    assert attempts() == [1, 2] and rig.binding()["attempt"] == 2
    rig.finish(3), scan(rig, "SN2")
    last = rig.closed()[2]["cycle"]
    rig._take(rig.binder.act(Rebind(last, "SN1", True, False, "ann", "labels swapped"), rig.now, rig.seq)[0])
    assert attempts() == [1, 2, 3] and rig.binding()["attempt"] == 3
    rig._take(rig.binder.act(Unbind(last, "ann", "nobody knows"), rig.now, rig.seq)[0])
    assert attempts() == [1, 2, None]
    unit = rig.registry.unit("serial", "SN1")
    assert unit is not None and unit.attempts == {"press-fit": 2}


def test_nothing_is_bound_before_the_plc_was_read_again(rig: Rig) -> None:
    rig.finish(1)
    idle(rig, 1.0).scan("SN1")
    assert states(rig) == [("pending", None)]
    assert "press.state" in rig.reads()
    rig.state(0)
    assert states(rig) == [("bound", "SN1")]


def test_an_end_that_the_plc_had_already_is_a_candidate_too(rig: Rig) -> None:
    """Unit 2 ended, and was scanned, before the agent saw its end: the scan is not unit 1's."""
    rig.finish(1)
    idle(rig, 10.0).scan("SN2")
    rig.finish(2)
    assert states(rig) == [("ambiguous", None), ("ambiguous", None)]
    assert candidates(rig, 0) == candidates(rig, 1) == ["SN2"]


def test_two_cycles_and_two_scans_stay_ambiguous_between_both(rig: Rig) -> None:
    rig.finish(1), rig.finish(2)
    scan(rig, "SN1")
    scan(rig, "SN2")
    assert states(rig) == [("ambiguous", None), ("ambiguous", None)]
    assert candidates(rig, 0) == candidates(rig, 1) == ["SN1", "SN2"]
    rig.finish(3)
    scan(rig, "SN3")
    assert states(rig)[2] == ("bound", "SN3"), "as many scans as cycles came: the next is clear again"


def test_a_scan_that_is_still_owed_is_not_taken_for_the_next_unit(rig: Rig) -> None:
    rig.finish(1), rig.finish(2)
    scan(rig, "SN1")
    rig.finish(3)
    scan(rig, "SN2")
    assert [state for state, _ in states(rig)] == ["ambiguous"] * 3
    assert candidates(rig, 2) == ["SN2"]


def test_without_a_scan_it_is_nobodys(rig: Rig) -> None:
    rig.finish(1)
    idle(rig, 29.0)
    assert states(rig) == [("pending", None)]
    idle(rig, 2.0)
    assert states(rig) == [("orphan", None)]
    assert rig.findings() == ["skipped_scan"]
    rig.scan("SN1"), rig.state(0)
    assert states(rig) == [("orphan", None)]
    assert rig.findings() == ["skipped_scan", "unmatched_scan"]
    rig.finish(2)
    scan(rig, "SN2")
    assert states(rig)[1] == ("bound", "SN2"), "the scan that came too late was the orphan's"


def test_a_scan_before_its_end_leaves_the_next_in_doubt(rig: Rig) -> None:
    scan(rig, "SN1")
    assert rig.findings() == ["unmatched_scan"]
    rig.finish(1)
    scan(rig, "SN2")
    assert states(rig) == [("ambiguous", None)]
    assert candidates(rig, 0) == ["SN1", "SN2"]


def test_a_scan_before_and_after_the_end_agree(rig: Rig) -> None:
    scan(rig, "SN1")
    rig.finish(1)
    idle(rig, 3.0)
    scan(rig, "SN1")
    assert states(rig) == [("bound", "SN1")]


def test_a_double_scan_is_one(rig: Rig) -> None:
    rig.finish(1)
    scan(rig, "SN1")
    rig.scan("SN1"), rig.state(0)
    idle(rig, 5.0).scan("SN1"), rig.state(0)
    assert states(rig) == [("bound", "SN1")]
    assert not rig.findings()
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["counts"]["rescans"] == 1


def test_a_second_look_at_the_last_label_is_not_believed(rig: Rig) -> None:
    rig.finish(1)
    scan(rig, "SN1")
    rig.finish(2)
    idle(rig, 3.0)
    scan(rig, "SN1")
    assert states(rig) == [("bound", "SN1"), ("pending", None)]
    assert rig.findings() == ["duplicate_serial"]
    scan(rig, "SN2")
    assert states(rig)[1] == ("bound", "SN2")


def test_a_disbelieved_scan_remains_as_candidate(rig: Rig) -> None:
    rig.finish(1)
    scan(rig, "SN1")
    rig.finish(2)
    idle(rig, 3.0)
    scan(rig, "SN1")
    idle(rig, 40.0)
    assert states(rig)[1] == ("ambiguous", None)
    assert candidates(rig, 1) == ["SN1"]


def test_a_retest_is_the_next_attempt_and_its_result_governs(rig: Rig) -> None:
    rig.finish(1, force=25.0, ok=False)
    scan(rig, "SN1")
    idle(rig, 20.0)
    rig.finish(2)
    scan(rig, "SN1")
    assert states(rig) == [("bound", "SN1")] * 2
    known = rig.registry.unit("serial", "SN1")
    assert known is not None
    assert known.attempts == {"press-fit": 2}
    assert known.results["press-fit"].result == "Passed"
    rig.wait(20.0).restart()
    rig.state(0)
    rig.finish(3)
    scan(rig, "SN2")  # it may have been another one's: ambiguous
    idle(rig, 20.0)
    rig.finish(4)
    scan(rig, "SN1")
    assert rig.registry.unit("serial", "SN1").attempts == {"press-fit": 3}


@pytest.mark.parametrize("what", ["press", "gate"])
def test_a_gap_ends_the_waiting(rig: Rig, what: str) -> None:
    rig.finish(1)
    rig.gap(what)
    assert states(rig) == [("orphan", None)]
    assert "observation_gap" in rig.findings()
    rig.state(0)
    scan(rig, "SN1")
    assert states(rig) == [("orphan", None)]


def test_a_silent_plc_ends_the_waiting(rig: Rig) -> None:
    rig.finish(1)
    rig.wait(5.0).state(0)
    assert states(rig) == [("orphan", None)]


def test_a_scan_under_way_when_the_plc_is_lost_is_a_candidate_only(rig: Rig) -> None:
    rig.finish(1)
    idle(rig, 0.5).scan("SN1")
    rig.gap("press")
    assert states(rig) == [("ambiguous", None)]
    assert candidates(rig, 0) == ["SN1"]


def test_a_restart_ends_the_waiting(rig: Rig) -> None:
    rig.finish(1)
    rig.wait(3.0).restart()
    assert states(rig) == [("orphan", None)]
    assert rig.binding()["reason"]
    assert rig.findings() == ["observation_gap"]
    rig.state(0)
    scan(rig, "SN1")
    assert states(rig) == [("orphan", None)]
    rig.restart()
    assert states(rig) == [("orphan", None)], "said once"


@pytest.mark.parametrize("how", ["restart", "press", "gate"])
def test_a_scan_that_was_still_due_over_a_gap_is_not_the_next_units(rig: Rig, how: str) -> None:
    """Unit 1 ended before the gap and is scanned after unit 2 ended: within max_wait, and unit 2's it is not."""
    rig.finish(1)
    rig.restart() if how == "restart" else rig.gap(how)
    rig.state(0)
    rig.finish(2)
    scan(rig, "SN1")
    scan(rig, "SN2")
    assert states(rig) == [("orphan", None), ("ambiguous", None)]
    assert candidates(rig, 1) == ["SN1", "SN2"]
    rig.finish(3)
    scan(rig, "SN3")
    assert states(rig)[2] == ("bound", "SN3")


def test_a_scan_that_was_due_over_a_gap_and_came_leaves_the_next_clear(rig: Rig) -> None:
    rig.finish(1)
    rig.restart()
    rig.state(0)
    scan(rig, "SN1")
    rig.finish(2)
    scan(rig, "SN2")
    assert states(rig) == [("orphan", None), ("bound", "SN2")]


@pytest.mark.parametrize(
    ("counted", "later", "state"), [(True, 0, "bound"), (False, 0, "ambiguous"), (False, 31, "bound")]
)
def test_a_unit_may_have_ended_in_the_dark(counted: bool, later: int, state: str) -> None:
    """The work at hand over a gap is nobody's for certain; without a counter a scan may be of one that ended unseen."""
    rig = Rig(after(end=bench.HANDSHAKE if counted else bench.EDGE))
    rig.state(0)
    rig.finish(1)
    scan(rig, "SN1")
    rig.gap("press")
    rig.state(0)
    rig.finish(2)
    scan(rig, "SN2")
    idle(rig, later)
    rig.finish(3)
    scan(rig, "SN3")
    assert [one for one, _ in states(rig)] == ["bound", "ambiguous", state]


def test_a_start_that_was_seen_after_a_gap_makes_the_next_end_certain() -> None:
    rig = started()
    rig.state(0, beside=1)
    rig.restart()
    rig.state(0, beside=0)
    rig.state(0, beside=1)
    rig.finish(1, beside=1)
    rig.state(0, beside=0)
    scan(rig, "SN1")
    assert states(rig)[-1] == ("bound", "SN1")


def test_an_end_that_nobody_saw_rise_has_a_candidate_at_most(rig: Rig) -> None:
    rig.gap("press")
    rig.state(1), rig.result(1), rig.result(1), rig.state(1), rig.state(0)
    scan(rig, "SN1")
    assert states(rig) == [("ambiguous", None)]
    assert candidates(rig, 0) == ["SN1"]


def test_after_results_that_went_by_unseen_the_scan_may_be_theirs(rig: Rig) -> None:
    rig.finish(1)
    scan(rig, "SN1")
    rig.finish(4)
    scan(rig, "SN2")
    assert states(rig) == [("bound", "SN1"), ("ambiguous", None)]


def test_a_torn_result_is_nobodys_for_certain() -> None:
    rig = Rig(after())
    rig.state(0)
    rig.state(1)
    for count in range(1, 8):
        rig.result(count)
    rig.state(1), rig.state(0)
    scan(rig, "SN1")
    assert states(rig) == [("ambiguous", None)]
    assert rig.binding()["rule"] == "torn_read"


def test_a_label_of_another_kind_and_no_label_decide_nothing(rig: Rig) -> None:
    rig.finish(1)
    scan(rig, "PALLET-7")
    rig.scan(b"NOREAD", status=ScanStatus.NO_READ)
    assert states(rig) == [("pending", None)]
    assert rig.findings() == ["unmatched_scan", "no_read"]


def test_a_serial_that_no_step_ever_saw_is_a_misread_where_all_are_known() -> None:
    rig = Rig(after(known=True))
    rig.state(0)
    rig.finish(1)
    scan(rig, "SN1")
    assert states(rig) == [("pending", None)]
    assert rig.findings() == ["unmatched_scan"]
    assert rig.registry.unit("serial", "SN1") is None


def test_a_unit_on_which_another_plc_still_works_is_in_doubt_at_both() -> None:
    first = station(position(end=bench.EDGE), name="OP10", step="mill", identity="before")
    second = station(
        position(scanner="exit", end=replace(bench.EDGE, tag=bench.tag("press.number")), claims={}), identity="after"
    )
    rig = Rig(bench.plan(first, second))
    rig.state(0, number=0)
    rig.scan("SN1")
    rig.state(0, number=0)
    rig.state(0, number=1), rig.result(1)
    rig.wait(0.5).scan("SN1", "exit")
    rig.state(0, number=1)
    assert [state for state, _ in states(rig)] == ["ambiguous"]
    assert "duplicate_serial" in rig.findings()


# --- the start of a cycle by an edge -----------------------------------------------------------------------------


def started(**changes: Any) -> Rig:
    rig = Rig(after(start=START, claims=bench.CLAIMS, **changes))
    rig.state(0, beside=0)
    return rig


def test_a_start_gives_the_readings_of_the_work_a_window() -> None:
    rig = started()
    rig.state(0, beside=1, temp=20.0)
    (opened,) = rig.of(Kind.CYCLE_OPENED)
    assert (opened["opened_by"], rig.binding()["state"]) == ("start", "pending")
    rig.state(0, beside=1, temp=21.0)
    during = rig.seq - 1
    rig.finish(1, beside=0)
    rig.state(0, beside=0, temp=22.0)
    scan(rig, "SN1")
    assert len(rig.closed()) == 1
    assert rig.serial_of(during, "press.state") == [("bound", "SN1")]
    assert rig.serial_of(rig.seq - 1, "press.state") == []


def test_a_gap_between_start_and_end_leaves_the_first_part_to_nobody() -> None:
    rig = started()
    rig.finish(1)
    scan(rig, "SN1")
    rig.state(0, beside=1)
    rig.gap("press")
    rig.state(0, beside=1)
    rig.finish(2)
    scan(rig, "SN2")
    assert [cycle["closed_by"] for cycle in rig.closed()] == ["handshake", "interrupted", "handshake"]
    assert states(rig)[1:] == [("orphan", None), ("ambiguous", None)]  # another unit may have taken the place


def test_a_start_without_the_end_before_it_aborts_that() -> None:
    rig = started()
    rig.state(0, beside=1), rig.state(0, beside=0), rig.state(0, beside=1)
    (closed,) = rig.closed()
    assert (closed["closed_by"], closed["result"], closed["binding"]["state"]) == ("start", "Aborted", "orphan")


def test_a_start_that_nobody_saw_rise_is_none() -> None:
    rig = Rig(after(start=START))
    rig.state(0, beside=1), rig.state(0, beside=1)
    assert not rig.of(Kind.CYCLE_OPENED)


def test_the_next_start_waits_for_the_result_before_it() -> None:
    rig = started()
    rig.state(0, beside=1), rig.state(0, beside=0)
    rig.state(1, beside=1)
    rig.result(1), rig.result(1)
    rig.state(1, beside=1), rig.state(0, beside=1)
    assert [cycle["opened_by"] for cycle in rig.of(Kind.CYCLE_OPENED)] == ["start", "start"]
    assert [cycle["closed_by"] for cycle in rig.closed()] == ["handshake"]


def test_an_open_anonymous_cycle_survives_a_restart_as_nobodys() -> None:
    rig = started()
    rig.state(0, beside=1)
    rig.restart()
    rig.state(0, beside=1)
    rig.finish(1)
    assert states(rig)[0] == ("orphan", None)
    assert rig.closed()[0]["closed_by"] == "interrupted"


def test_a_start_with_the_serial_in_the_data_is_bound_at_the_end() -> None:
    place = position(scanner=None, serial=bench.tag("press.sn1"), start=START)
    rig = Rig(bench.plan(station(place, identity="in_data")))
    rig.state(0, beside=0), rig.state(0, beside=1), rig.state(0, beside=1)
    during = rig.seq - 1
    rig.finish(1, sn1="SN1")
    assert states(rig) == [("bound", "SN1")]
    assert rig.serial_of(during, "press.state") == [("bound", "SN1")]
    rig.state(0, beside=0), rig.state(0, beside=1)
    rig.finish(2, sn1="")
    assert states(rig)[1] == ("orphan", None), "it began, and then the PLC names nobody"
