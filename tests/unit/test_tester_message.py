"""A tester's message as the end of a cycle: each sample of its group is one result."""

from __future__ import annotations

from typing import Any

from edge_agent.binding.plan import Message
from edge_agent.model import Kind
from support import binding_rig as bench
from support.binding_rig import Rig, position, station

KEYED = Message("press.result", bench.tag("press.count"), 2.0)
BARE = Message("press.result", None, 2.0)


def in_data(end: Message = KEYED, **changes: Any) -> Rig:
    place = position(scanner=None, serial=bench.tag("press.sn1"), end=end)
    return Rig(bench.plan(station(place, identity="in_data", **changes), gap_s={}))


def before(**changes: Any) -> Rig:
    return Rig(bench.plan(station(position(end=KEYED), min_s=2.0, **changes), gap_s={}))


def bindings(rig: Rig) -> list[tuple[str, str | None]]:
    return [(cycle["binding"]["state"], cycle["binding"].get("serial")) for cycle in rig.closed()]


def test_a_message_names_its_unit() -> None:
    rig = in_data()
    rig.result(7, sn1="SN1")
    (opened,), (closed,) = rig.of(Kind.CYCLE_OPENED), rig.closed()
    assert (opened["opened_by"], closed["closed_by"], closed["result"]) == ("message", "message", "Passed")
    assert bindings(rig) == [("bound", "SN1")]
    assert rig.serial_of(rig.seq - 1 - len(rig.last) + 1, "press.result") == [("bound", "SN1")]


def test_the_same_message_is_recorded_once() -> None:
    rig = in_data()
    rig.result(7, sn1="SN1"), rig.wait(60), rig.result(7, sn1="SN1")
    assert bindings(rig) == [("bound", "SN1")]
    assert not rig.findings()
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["counts"]["doubles"] == 1


def test_a_message_that_is_presented_again_after_a_restart_is_known() -> None:
    rig = in_data()
    for number in range(300):
        rig.result(number, sn1=f"SN{number}")
    rig.wait(60).restart()
    rig.result(299, sn1="SN299"), rig.result(44, sn1="SN44")
    assert len(rig.closed()) == 300 and not rig.findings(), "the newest 256"
    rig.result(298, sn1="SN298", force=19.0)
    assert len(rig.closed()) == 300 and rig.findings() == ["duplicate_message"], "it said something else before"
    (finding,) = rig.of(Kind.FINDING)
    opened = rig.records[finding["evidence"][0] - 1][2]
    assert opened["cycle"] == rig.closed()[298]["cycle"]
    rig.result(300, sn1="SN299"), rig.result(43, sn1="SN43")
    assert [cycle["attempt"] for cycle in rig.closed()[300:]] == [2, 2], "another test; and one that is forgotten"


def test_another_message_under_the_same_key_is_not_believed() -> None:
    rig = in_data()
    rig.result(7, sn1="SN1")
    first = rig.records[0][0]
    rig.wait(60), rig.result(7, sn1="SN1", force=19.0)
    assert bindings(rig) == [("bound", "SN1")]
    (finding,) = rig.of(Kind.FINDING)
    assert finding["code"] == "duplicate_message"
    assert finding["evidence"][0] == first
    assert rig.records[finding["evidence"][1] - 1][1].kind is Kind.SAMPLE


def test_without_a_key_the_same_words_at_once_are_the_same_message() -> None:
    rig = in_data(BARE)
    rig.result(7, sn1="SN1"), rig.result(7, sn1="SN1")
    assert len(rig.closed()) == 1
    rig.wait(10), rig.result(7, sn1="SN1")
    assert len(rig.closed()) == 2, "later it is a retest that came to the same"


def test_a_retest_is_the_next_attempt() -> None:
    rig = in_data()
    rig.result(7, sn1="SN1", ok=False), rig.result(8, sn1="SN1")
    assert [cycle["attempt"] for cycle in rig.closed()] == [1, 2]
    known = rig.registry.unit("serial", "SN1")
    assert known is not None
    assert known.results["press-fit"].result == "Passed"


def test_a_typing_error_makes_no_unit() -> None:
    rig = in_data(known=True)
    rig.result(7, sn1="SN1")
    assert bindings(rig) == [("orphan", None)]
    assert rig.findings() == ["unmatched_scan"]
    assert rig.registry.unit("serial", "SN1") is None


def test_a_message_without_a_serial_is_nobodys() -> None:
    rig = in_data()
    rig.result(7, sn1=""), rig.result(8, sn1="17 kN")
    assert bindings(rig) == [("orphan", None)] * 2
    assert rig.findings() == ["unmatched_scan"] * 2


def test_a_message_ends_the_scanned_units_cycle() -> None:
    rig = before()
    rig.scan("SN1")
    assert [cycle["opened_by"] for cycle in rig.of(Kind.CYCLE_OPENED)] == ["scan"], "there is nothing to wait for"
    rig.wait(5), rig.result(7)
    assert bindings(rig) == [("bound", "SN1")]
    rig.wait(5), rig.result(8)
    assert bindings(rig)[1] == ("orphan", None)
    assert rig.findings() == ["skipped_scan"]


def test_a_message_right_after_a_scan_may_be_the_unit_befores() -> None:
    rig = before()
    rig.scan("SN1"), rig.wait(5), rig.scan("SN2"), rig.wait(1), rig.result(7)
    assert bindings(rig) == [("bound", "SN1"), ("ambiguous", None)]
    assert rig.closed()[0]["result"] == "Aborted"


def test_a_tester_that_was_lost_interrupts_and_one_that_is_back_is_believed() -> None:
    rig = before()
    rig.scan("SN1"), rig.gap("press"), rig.wait(5), rig.result(7)
    assert bindings(rig) == [("bound", "SN1"), ("orphan", None)]
    assert rig.closed()[0]["closed_by"] == "interrupted"
    rig.gap("press")
    rig._take(rig.binder.on_open("press", rig.wait(1).now, rig.seq))
    rig.scan("SN3"), rig.wait(5), rig.result(8)
    assert bindings(rig)[2] == ("bound", "SN3")


def test_silence_of_a_tester_is_no_gap() -> None:
    rig = Rig(bench.plan(station(position(end=KEYED), min_s=2.0, timeout_s=900.0)))
    rig.result(1), rig.scan("SN1"), rig.tick(600), rig.result(7)
    assert bindings(rig)[1] == ("bound", "SN1")
