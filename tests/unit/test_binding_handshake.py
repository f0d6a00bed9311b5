"""The handshake: every row of the two tables in docs/contracts.md, on one position and on several."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.binding.handshake import count
from edge_agent.binding.plan import Handshake
from edge_agent.binding.trigger import Counting
from edge_agent.model import Kind
from support.binding_rig import (
    BESIDE,
    CLAIMS,
    FORCE,
    HANDSHAKE,
    OK,
    UNCOUNTED,
    Rig,
    plan,
    position,
    station,
    tag,
)


def state_of(rig: Rig, number: str = "1") -> str:
    shown: str = rig.binder.snapshot()["OP20"]["positions"][number]["handshake"]
    return shown


def with_end(end: Handshake) -> Rig:
    return Rig(plan(station(position(end=end))))


# --- states ---------------------------------------------------------------------------------------------------------


def test_unknown_until_the_first_level() -> None:
    rig = Rig()
    assert state_of(rig) == "unknown"
    rig.sample("press.state", [None, 1, 0, 0, 0], status={0: "exception 2"})
    assert state_of(rig) == "unknown", "a value that is not good is no level"
    assert rig.writes() == []


def test_a_first_level_of_0_is_idle_and_brings_ack_down() -> None:
    rig = Rig()
    rig.state(0)
    assert state_of(rig) == "idle"
    assert rig.writes() == [False]


def test_a_first_level_of_1_is_read_as_a_level_and_does_not_touch_ack() -> None:
    rig = Rig()
    rig.state(1)
    assert state_of(rig) == "reading"
    assert rig.reads() == ["press.result"]
    assert rig.writes() == []


def test_the_whole_round() -> None:
    rig = Rig().put_in("SN1")
    rig.reads(), rig.writes()
    rig.state(1)
    assert state_of(rig) == "reading"
    assert rig.reads() == ["press.result"]
    rig.result(1)
    assert state_of(rig) == "reading", "one read proves nothing: its counter may have changed in it"
    assert rig.reads() == ["press.result"]
    assert rig.closed() == []
    rig.result(1)
    assert state_of(rig) == "committing"
    assert rig.writes() == [True]
    rig.state(1)
    assert state_of(rig) == "acknowledged"
    rig.state(0)
    assert state_of(rig) == "idle"
    assert rig.writes() == [False]


def test_the_acknowledge_comes_with_the_records_it_waits_for() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1)
    rig.result(1)
    rig.writes()
    rig.result(1)
    assert Kind.CYCLE_CLOSED in [kind for kind, _ in rig.last]
    assert rig.writes() == [True]


def test_without_a_counter_one_read_is_the_result() -> None:
    rig = with_end(UNCOUNTED).put_in("SN1")
    rig.finish(0, reads=1)
    assert [cycle["binding"]["serial"] for cycle in rig.closed()] == ["SN1"]
    assert "counter" not in rig.closed()[0]


def test_a_read_that_began_before_the_edge_is_not_the_result() -> None:
    rig = with_end(UNCOUNTED).put_in("SN1")
    rig.state(1)
    rig.late_sample("press.result", {"count": 0, "force": 11.0}, began_s=0.05, ended_s=0.0)
    assert rig.closed() == []
    rig.result(0, 15.0)
    assert rig.closed()[0]["collected"][0]["value"] == 15.0


def test_a_counter_beside_ready_is_seen_before_and_after_the_result() -> None:
    rig = with_end(BESIDE)
    rig.state(0, beside=4)
    rig.scan("SN1")
    rig.state(0, beside=4)
    rig.reads()
    rig.state(1, beside=5)
    assert rig.reads() == ["press.result"]
    rig.result(0, 15.0)
    assert rig.reads() == ["press.state"]
    assert rig.closed() == []
    rig.state(1, beside=5)
    assert rig.closed()[0]["counter"] == 5
    assert rig.closed()[0]["collected"][0]["value"] == 15.0


def test_a_rejected_read_is_asked_for_again() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1)
    rig.reads()
    rig.tick(0.5), rig.state(1)
    assert rig.reads() == []
    rig.tick(0.5)
    assert rig.reads() == ["press.result"]


def test_an_acknowledge_is_repeated_while_ready_stands() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1)
    rig.result(1), rig.result(1)
    rig.writes()
    for _ in range(25):
        rig.state(1)
    rig.tick()
    assert rig.writes() == [True]


def test_ready_that_fell_before_the_read_leaves_the_values_torn_without_a_counter() -> None:
    rig = with_end(UNCOUNTED).put_in("SN1")
    rig.state(1), rig.state(0)
    rig.writes()
    rig.result(0)
    assert rig.binding()["state"] == "ambiguous"
    assert "torn_read" in rig.findings()
    assert rig.writes() == [False], "the PLC does not wait any more: no acknowledge of nothing"
    assert state_of(rig) == "idle"


def test_ready_that_fell_before_the_read_does_not_matter_with_a_counter() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1), rig.state(0)
    rig.result(1), rig.result(1)
    assert rig.binding()["state"] == "bound"
    assert rig.closed()[0]["binding"]["serial"] == "SN1"


# --- the counter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "committed", "bits", "expected"),
    [
        (7, None, 16, (Counting.FIRST, 0)),
        (8, 7, 16, (Counting.NEXT, 0)),
        (7, 7, 16, (Counting.DOUBLE, 0)),
        (11, 7, 16, (Counting.JUMP, 3)),
        (0, 65535, 16, (Counting.NEXT, 0)),
        (2, 65534, 16, (Counting.JUMP, 3)),
        (0, 2**32 - 1, 32, (Counting.NEXT, 0)),
        (0, 65535, 32, (Counting.RESET, 0)),
        (1, 500, 16, (Counting.RESET, 0)),
        (1, 65000, 16, (Counting.RESET, 0)),
    ],
)
def test_a_counter_against_the_last_committed(
    counter: int, committed: int | None, bits: int, expected: tuple[Counting, int]
) -> None:
    assert count(counter, committed, bits) == expected


def test_edge_plus_one_is_the_cycles_result() -> None:
    rig = Rig().put_in("SN1").finish(1).put_in("SN2").finish(2)
    assert [cycle["binding"]["serial"] for cycle in rig.closed()] == ["SN1", "SN2"]
    assert [cycle["counter"] for cycle in rig.closed()] == [1, 2]
    assert rig.findings() == []


def finish_without_counting(rig: Rig, count: int) -> Rig:
    """ready rises and the counter stands still for longer than a slow PLC needs to count."""
    rig.state(1)
    rig.result(count), rig.result(count)
    while rig.binder.snapshot()["OP20"]["positions"]["1"]["handshake"] == "reading":
        rig.tick(), rig.state(1)
        if rig.reads():
            rig.result(count)
    rig.state(1), rig.state(0)
    return rig


def test_a_plc_that_raises_ready_before_it_counts_loses_no_result() -> None:
    rig = Rig().put_in("SN1").finish(1).put_in("SN2")
    rig.state(1)
    rig.result(1), rig.result(1)
    assert rig.writes()[-1] is False, "nothing is acknowledged on the old counter"
    rig.reads()
    while not rig.reads():
        rig.tick(), rig.state(1)
    rig.result(2), rig.result(2)
    rig.state(1), rig.state(0)
    assert [cycle["counter"] for cycle in rig.closed()] == [1, 2]
    assert [cycle["binding"]["serial"] for cycle in rig.closed()] == ["SN1", "SN2"]
    assert rig.writes() == [True, False]


def test_edge_with_the_same_counter_is_a_double() -> None:
    rig = Rig().put_in("SN1").finish(1)
    known = len(rig.records)
    rig.writes()
    finish_without_counting(rig, 1)
    assert rig.writes() == [True, False]
    assert len(rig.closed()) == 1
    assert {record.kind for _, record, _ in rig.records[known:]} == {Kind.SAMPLE}
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["counts"]["doubles"] == 1


def test_level_with_the_same_counter_is_a_double() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1)
    rig.result(1), rig.result(1)
    rig.restart()
    rig.state(1)
    rig.result(1), rig.result(1)
    assert rig.writes() == [True]
    assert len(rig.closed()) == 1


def test_a_counter_that_stands_still_is_reported() -> None:
    rig = Rig().put_in("SN1").finish(5)
    for number in range(2, 5):
        finish_without_counting(rig.put_in(f"SN{number}"), 5)
    assert rig.findings() == ["sequence_gap"]


def test_a_counter_seen_elsewhere_that_comes_back_is_a_new_epoch_and_no_double() -> None:
    rig = with_end(BESIDE)
    rig.state(0, beside=1)
    rig.scan("SN1")
    rig.state(0, beside=1)
    rig.state(1, beside=2), rig.result(), rig.state(1, beside=2)
    rig.state(0, beside=0)
    rig.scan("SN2")
    rig.state(0, beside=1)
    rig.state(1, beside=2), rig.result(), rig.state(1, beside=2)
    assert [cycle["binding"].get("serial") for cycle in rig.closed()] == ["SN1", "SN2"]
    assert [cycle["epoch"] for cycle in rig.closed()] == [0, 1]


def test_a_jump_before_the_scan_leaves_the_unit_certain() -> None:
    rig = Rig().put_in("SN1").finish(1)
    rig.scan("SN2")
    rig.state(0), rig.result(4)
    rig.finish(5)
    assert rig.closed()[-1]["binding"]["serial"] == "SN2"
    assert rig.findings() == ["sequence_gap"]
    assert rig.of(Kind.FINDING)[0]["details"]["missing"] == 3


def test_a_jump_while_the_unit_was_here_makes_it_ambiguous() -> None:
    rig = Rig().put_in("SN1").finish(1)
    rig.scan("SN2")
    rig.state(0), rig.result(1)
    rig.finish(3)
    assert rig.closed()[-1]["binding"] == {"state": "ambiguous"}
    assert rig.binding()["candidates"][0]["serial"] == "SN2"
    assert rig.findings() == ["sequence_gap"]


def test_a_result_that_stood_there_before_the_scan_is_not_the_units() -> None:
    rig = Rig().put_in("SN1").finish(1)
    rig.scan("SN2")
    rig.state(0), rig.result(2)
    rig.finish(2)
    assert rig.closed()[-1]["binding"] == {"state": "ambiguous"}


def test_a_smaller_counter_is_a_new_epoch() -> None:
    rig = Rig().put_in("SN1").finish(700)
    rig.put_in("SN2").finish(1).put_in("SN3").finish(2)
    assert [(cycle["counter"], cycle["epoch"]) for cycle in rig.closed()] == [(700, 0), (1, 1), (2, 1)]
    assert [cycle["binding"].get("serial") for cycle in rig.closed()] == ["SN1", "SN2", "SN3"]
    assert rig.findings() == ["counter_reset"]


def test_a_counter_wraps_at_its_width() -> None:
    rig = Rig().put_in("SN1").finish(65535).put_in("SN2").finish(0)
    assert rig.findings() == []
    assert rig.closed()[-1]["epoch"] == 0


def test_a_torn_read_is_read_again() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1)
    rig.result(1, 11.0), rig.result(2, 12.0), rig.result(2, 13.0)
    assert rig.closed()[0]["collected"][0]["value"] == 13.0
    assert "torn_read" not in rig.findings()


def test_three_torn_pairs_are_given_up_and_acknowledged() -> None:
    rig = Rig().put_in("SN1")
    rig.state(1)
    rig.writes()
    for number in range(1, 4):
        rig.result(number)
        assert rig.closed() == []
    rig.result(4)
    assert rig.closed()[0]["binding"] == {"state": "ambiguous"}
    assert rig.binding()["rule"] == "torn_read"
    assert "torn_read" in rig.findings()
    assert rig.writes() == [True]


def test_level_with_another_counter_is_an_orphan_of_its_own() -> None:
    rig = Rig().put_in("SN1").finish(1).put_in("SN2")
    rig.restart()
    rig.state(1), rig.result(2), rig.result(2)
    interrupted, orphan = rig.closed()[1:]
    assert interrupted["closed_by"] == "interrupted"
    assert interrupted["binding"]["serial"] == "SN2"
    assert orphan["binding"] == {"state": "orphan"}
    assert rig.of(Kind.CYCLE_OPENED)[-1]["opened_by"] == "level"
    assert [one["serial"] for one in rig.binding()["candidates"]] == ["SN2"]
    assert rig.writes() == [True], "so that the line moves"


def test_level_without_a_counter_is_ambiguous() -> None:
    rig = with_end(UNCOUNTED).put_in("SN1").finish(0, reads=1)
    rig.restart()
    rig.state(1), rig.result(0)
    assert rig.closed()[-1]["binding"] == {"state": "ambiguous"}
    assert rig.writes() == [True]


# --- several positions ----------------------------------------------------------------------------------------------


def nests(end_of_second: Handshake = HANDSHAKE) -> Rig:
    second = position(
        2, scanner="gate2", end=end_of_second, claims={"press.result": ("count", "force2")},
        collect=(replace(FORCE, tag=tag("press.force2")),),
    )  # fmt: skip
    return Rig(plan(station(position(), second)))


def test_one_ready_for_two_positions_is_one_read_and_one_acknowledge() -> None:
    rig = nests()
    rig.state(0)
    rig.scan("SN1", "gate"), rig.scan("SN2", "gate2"), rig.state(0)
    rig.reads(), rig.writes()
    rig.state(1)
    assert rig.reads() == ["press.result"]
    rig.result(1, 11.0, force2=12.0)
    rig.result(1, 11.0, force2=12.0)
    assert rig.reads() == ["press.result"]
    assert rig.writes() == [True]
    assert [(one["position"], one["binding"]["serial"], one["collected"][0]["value"]) for one in rig.closed()] == [
        (1, "SN1", 11.0),
        (2, "SN2", 12.0),
    ]
    assert rig.closed()[0]["windows"]["press.result"] == rig.closed()[1]["windows"]["press.result"]


def test_a_shared_acknowledge_waits_for_the_last_result() -> None:
    second = replace(HANDSHAKE, read="press.other", counter=None)
    rig = nests(second)
    rig.state(0)
    rig.scan("SN1", "gate"), rig.scan("SN2", "gate2"), rig.state(0)
    rig.writes()
    rig.state(1)
    rig.result(1), rig.result(1)
    assert [one["position"] for one in rig.closed()] == [1]
    assert rig.writes() == [], "position 2 has not been read: an acknowledge now would lose it"


def test_each_position_has_its_own_handshake() -> None:
    second = replace(HANDSHAKE, ready=tag("press.number"), ack="press.ack2", counter=None)
    rig = nests(second)
    rig.state(0)
    rig.scan("SN1", "gate"), rig.scan("SN2", "gate2"), rig.state(0)
    rig.state(0, number=1)
    rig.result(0)
    assert [(one["position"], one["binding"]["serial"]) for one in rig.closed()] == [(2, "SN2")]
    assert state_of(rig) == "idle"
    rig.state(1, number=1), rig.result(1), rig.result(1)
    assert [(one["position"], one["binding"]["serial"]) for one in rig.closed()] == [(2, "SN2"), (1, "SN1")]


def in_data() -> Rig:
    claims = {"press.result": ("count", "force")}
    first = position(1, scanner=None, serial=tag("press.sn1"), claims=claims)
    second = position(
        2, scanner=None, serial=tag("press.sn2"), claims={"press.result": ("force2",)}, collect=(), result=OK
    )
    rig = Rig(plan(station(first, second, identity="in_data")))
    rig.state(0)
    return rig


def test_the_data_names_the_unit_of_each_nest() -> None:
    rig = in_data()
    rig.finish(1, sn1="SN1\0\0", sn2="SN2 ")
    bound = [(one["position"], one["binding"].get("serial"), one["windows"]) for one in rig.closed()]
    seq = rig.closed()[0]["windows"]["press.result"][0][0]
    window = {"press.result": [[seq, seq]]}
    assert bound == [(1, "SN1", window), (2, "SN2", window)]
    assert {one["rule"] for one in rig.of(Kind.BINDING)} == {"in_data"}
    assert rig.writes().count(True) == 1


def test_an_empty_nest_has_no_cycle() -> None:
    rig = in_data()
    rig.finish(1, sn1="", sn2="SN2")
    assert [one["position"] for one in rig.closed()] == [2]


def test_a_result_of_empty_nests_is_not_missed_after_a_restart() -> None:
    rig = in_data()
    rig.finish(1, sn1="SN1", sn2="SN2"), rig.finish(2, sn1="", sn2=""), rig.finish(3, sn1="", sn2="")
    assert len(rig.closed()) == 2
    rig.restart().state(0)
    rig.finish(4, sn1="SN3", sn2="")
    assert not rig.findings() and rig.binding()["state"] == "bound"
    rig.finish(5, sn1="", sn2=""), rig.restart().state(0), rig.finish(7, sn1="SN4", sn2="")
    assert rig.findings() == ["sequence_gap"], "the sixth was really missed"
    (gap,) = rig.of(Kind.FINDING)
    assert gap["details"]["missing"] == 1


def test_a_nest_whose_serial_cannot_be_read_is_an_orphan() -> None:
    rig = in_data()
    rig.state(1)
    for _ in range(2):
        rig.wait().sample("press.result", [1, 15.0, True, None, "", 0], status={3: "exception 2"})
    assert rig.closed()[0]["binding"] == {"state": "orphan"}
    assert rig.findings() == ["missing_field"]


def test_a_serial_that_is_none_is_an_orphan() -> None:
    rig = in_data()
    rig.finish(1, sn1="ERROR", sn2="")
    assert rig.closed()[0]["binding"] == {"state": "orphan"}
    assert rig.findings() == ["unmatched_scan"]


def test_one_serial_in_two_nests_is_believed_in_neither() -> None:
    rig = in_data()
    rig.finish(1, sn1="SN1", sn2="SN1")
    assert [one["binding"] for one in rig.closed()] == [{"state": "ambiguous"}] * 2
    assert set(rig.findings()) == {"duplicate_serial"}


def test_a_level_with_a_counter_is_bound_by_its_data() -> None:
    rig = in_data()
    rig.finish(1, sn1="SN1", sn2="")
    rig.restart()
    rig.state(1)
    for _ in range(2):
        rig.result(2, sn1="SN3", sn2="")
    assert rig.closed()[-1]["binding"]["serial"] == "SN3"
    assert rig.of(Kind.CYCLE_OPENED)[-1]["opened_by"] == "level"


def test_claims_of_positions_stay_apart() -> None:
    assert set(CLAIMS) == {"press.state", "press.result"}
    rig = nests()
    rig.put_in("SN1")
    cycles = [record.cycles for _, record, _ in rig.records if record.kind is Kind.SAMPLE]
    rig.state(0)
    cycle = rig.registry.open_cycles()[0].cycle
    assert rig.records[-1][1].cycles == (cycle,)
    assert all(not ids for ids in cycles)
