"""How a cycle opens and ends, what scans do, how it is judged: every closed_by, every finding of a station."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_agent.binding.plan import Characteristic, Context, ResultRule
from edge_agent.model import Kind, Result, ScanStatus
from support.binding_rig import (
    BARE_EDGE,
    CLAIMS,
    EDGE,
    FORCE,
    OK,
    UNCOUNTED,
    Rig,
    badge,
    plan,
    position,
    station,
    tag,
)


def scan_only(**changes: Any) -> Rig:
    """A station where only scans delimit; the oven's air is its reading."""
    heat = Characteristic("heat", tag("oven.heat"), True, 50.0, 90.0)
    place = position(end=None, result=None, collect=(heat,), claims={"oven.air": ("heat",)})
    return Rig(plan(station(place, **changes)))


def edge(**changes: Any) -> Rig:
    rig = Rig(plan(station(position(end=EDGE), **changes)))
    rig.state(0)
    return rig


def bindings(rig: Rig) -> list[tuple[str, str | None]]:
    return [(one["state"], one.get("serial")) for one in rig.of(Kind.BINDING)]


# --- closed_by ------------------------------------------------------------------------------------------------------


def test_closed_by_handshake() -> None:
    rig = Rig().put_in("SN1").finish(1)
    (cycle,) = rig.closed()
    assert cycle["closed_by"] == "handshake"
    assert cycle["result"] == "Passed"
    assert cycle["complete"] is True
    assert cycle["binding"]["serial"] == "SN1"
    assert rig.of(Kind.CYCLE_OPENED)[0]["opened_by"] == "scan"


def test_closed_by_edge_with_the_read_after_it() -> None:
    rig = edge().put_in("SN1")
    rig.late_sample("press.result", {"force": 19.0}, 0.02, 0.01)
    rig.state(1)
    rig.result(0, 15.0, ok=False)
    (cycle,) = rig.closed()
    assert cycle["closed_by"] == "edge"
    assert cycle["result"] == "Failed"
    assert cycle["collected"][0]["value"] == 15.0
    assert len(cycle["windows"]["press.result"]) == 1, "only the read that the edge caused is this cycle's"


def test_closed_by_edge_that_shows_the_result_itself() -> None:
    warm = replace(FORCE, name="warm", tag=tag("press.temp"))
    rig = Rig(plan(station(position(end=BARE_EDGE, collect=(warm,), result=None))))
    rig.state(0)
    rig.put_in("SN1")
    rig.state(1, temp=12.0)
    (cycle,) = rig.closed()
    assert (cycle["closed_by"], cycle["collected"][0]["value"], cycle["result"]) == ("edge", 12.0, "Passed")


def test_a_level_after_the_start_is_no_edge() -> None:
    rig = Rig(plan(station(position(end=EDGE))))
    rig.state(1)
    assert rig.reads() == []
    rig.scan("SN1"), rig.state(1)
    assert rig.closed() == []
    rig.state(0), rig.state(1), rig.result(0)
    assert rig.closed()[0]["binding"]["serial"] == "SN1"


def test_a_second_edge_before_the_first_ones_result_ends_the_first_without_values() -> None:
    rig = edge().put_in("SN1")
    rig.state(1), rig.state(0), rig.state(1)
    (cycle,) = rig.closed()
    assert cycle["result"] == "Error"
    assert cycle["missing"] == ["force"]
    assert cycle["binding"] == {"state": "ambiguous"}
    rig.result(0)
    assert rig.closed()[1]["binding"] == {"state": "orphan"}


def test_closed_by_next_scan_where_only_scans_delimit() -> None:
    rig = scan_only()
    rig.scan("SN1")
    rig.wait().sample("oven.air", [70.0])
    rig.scan("SN2")
    (cycle,) = rig.closed()
    assert (cycle["closed_by"], cycle["result"], cycle["binding"]["serial"]) == ("next_scan", "Passed", "SN1")
    assert bindings(rig) == [("bound", "SN1"), ("bound", "SN2")]


def test_closed_by_next_scan_where_the_plc_should_have_ended_it_is_aborted() -> None:
    rig = Rig().put_in("SN1").put_in("SN2")
    (cycle,) = rig.closed()
    assert (cycle["closed_by"], cycle["result"], cycle["complete"]) == ("next_scan", "Aborted", False)


def test_closed_by_timeout() -> None:
    rig = scan_only()
    rig.scan("SN1")
    rig.tick(59)
    assert rig.closed() == []
    rig.tick(2)
    assert (rig.closed()[0]["closed_by"], rig.closed()[0]["result"]) == ("timeout", "Aborted")
    assert rig.findings() == ["cycle_timeout"]


# --- when a scan takes effect ---------------------------------------------------------------------------------------


def test_a_scan_waits_for_a_read_that_began_after_it() -> None:
    rig = Rig()
    rig.state(0)
    rig.scan("SN1")
    assert rig.reads() == ["press.state", "press.result"]
    rig.late_sample("press.state", {"ready": 0}, 0.05, 0.0)
    assert rig.of(Kind.CYCLE_OPENED) == []
    rig.state(0)
    assert len(rig.of(Kind.CYCLE_OPENED)) == 1


def test_an_end_between_the_last_poll_and_the_scan_is_the_previous_units() -> None:
    rig = Rig().put_in("SN1")
    rig.scan("SN2")
    rig.state(1)
    assert rig.closed() == []
    rig.result(1), rig.result(1)
    assert rig.closed()[0]["binding"]["serial"] == "SN1"
    assert rig.registry.open_cycles()[0].serial == "SN2"
    rig.state(1), rig.state(0)
    rig.finish(2)
    assert rig.closed()[1]["binding"]["serial"] == "SN2"


def test_scans_wait_in_their_order() -> None:
    rig = Rig()
    rig.state(0)
    for number in range(1, 5):
        rig.scan(f"SN{number}")
    rig.state(0)
    assert [cycle["binding"]["serial"] for cycle in rig.closed()] == ["SN1", "SN2", "SN3"]
    assert rig.registry.open_cycles()[0].serial == "SN4"


def test_a_fifth_waiting_scan_drops_the_oldest() -> None:
    rig = Rig()
    rig.state(0)
    for number in range(1, 6):
        rig.scan(f"SN{number}")
    assert rig.findings() == ["unmatched_scan"]
    assert rig.of(Kind.FINDING)[0]["serial"] == "SN1"
    rig.state(0)
    assert [cycle["binding"]["serial"] for cycle in rig.closed()] == ["SN2", "SN3", "SN4"]


def test_a_scan_while_the_plc_is_away_opens_interrupted() -> None:
    rig = Rig()
    rig.state(0)
    rig.gap("press")
    rig.scan("SN1")
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"] is True
    rig.state(0), rig.state(0)
    rig.finish(1)
    assert [cycle["binding"]["state"] for cycle in rig.closed()] == ["bound", "orphan"]
    assert rig.closed()[0]["closed_by"] == "interrupted"
    assert rig.closed()[0]["windows"] == {}


def test_a_scan_that_waits_when_the_plc_goes_away_opens_interrupted() -> None:
    rig = Rig()
    rig.state(0)
    rig.scan("SN1")
    rig.gap("press")
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"] is True


def test_a_scan_before_the_plc_was_ever_seen_opens_interrupted_if_that_takes_long() -> None:
    rig = Rig()
    rig.scan("SN1")
    rig.wait(3).state(0)
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"] is True


def test_a_scan_before_the_plc_was_ever_seen_waits_and_gives_up() -> None:
    rig = Rig()
    rig.scan("SN1")
    rig.tick(4)
    assert rig.of(Kind.CYCLE_OPENED) == []
    rig.tick(2)
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"] is True


def test_where_only_scans_delimit_a_scan_takes_effect_at_once() -> None:
    rig = scan_only()
    rig.scan("SN1")
    assert [kind for kind, _ in rig.last] == [Kind.SCAN, Kind.IDENTIFIER, Kind.CYCLE_OPENED, Kind.BINDING]


# --- races between devices ------------------------------------------------------------------------------------------


def test_a_sample_that_straddles_the_opening_is_nobodys() -> None:
    rig = scan_only()
    rig.scan("SN1")
    rig.wait(1).sample("oven.air", [60.0])
    mine = rig.seq - 1
    rig.wait(1).scan("SN2")
    rig.late_sample("oven.air", {"heat": 61.0}, 0.05, -0.01)
    straddler = rig.seq - 1
    rig.wait().sample("oven.air", [62.0])
    after = rig.seq - 1
    rig.wait(1).scan("SN3")
    assert rig.serial_of(mine, "oven.air") == [("bound", "SN1")]
    assert rig.serial_of(straddler, "oven.air") == []
    assert rig.serial_of(after, "oven.air") == [("bound", "SN2")]


def test_a_sample_that_finished_after_the_next_scan_is_given_back() -> None:
    rig = Rig(plan(station(position(claims=CLAIMS | {"oven.air": ("heat",)}))))
    rig.state(0)
    rig.put_in("SN1")
    rig.wait().sample("oven.air", [60.0])
    before = rig.seq - 1
    rig.scan("SN2")
    rig.wait().sample("oven.air", [61.0])
    after = rig.seq - 1
    rig.state(0)
    assert rig.closed()[0]["windows"]["oven.air"] == [[before, before]]
    assert rig.serial_of(after, "oven.air") == []


def test_what_comes_between_the_next_scan_and_the_end_is_nobodys() -> None:
    rig = Rig(plan(station(position(claims=CLAIMS | {"oven.air": ("heat",)}))))
    rig.state(0)
    rig.put_in("SN1")
    rig.wait().sample("oven.air", [60.0])
    before = rig.seq - 1
    rig.scan("SN2")
    rig.wait().sample("oven.air", [61.0])
    rig.state(1), rig.result(1), rig.result(1)
    assert rig.closed()[0]["binding"]["serial"] == "SN1"
    assert rig.closed()[0]["windows"]["oven.air"] == [[before, before]]


def test_what_comes_between_the_edge_and_the_result_is_not_the_units() -> None:
    rig = Rig(plan(station(position(claims=CLAIMS | {"oven.air": ("heat",)}))))
    rig.state(0)
    rig.put_in("SN1")
    rig.wait().sample("oven.air", [60.0])
    before = rig.seq - 1
    rig.state(1)
    rig.wait().sample("oven.air", [61.0])
    rig.result(1), rig.result(1)
    assert rig.closed()[0]["windows"]["oven.air"] == [[before, before]]


def test_what_comes_within_min_time_of_the_scan_is_ambiguous() -> None:
    rig = Rig(plan(station(min_s=1.0)))
    rig.state(0)
    rig.put_in("SN1").finish(1)
    assert rig.closed()[0]["binding"] == {"state": "ambiguous"}
    assert rig.binding()["rule"] == "min_time"
    assert rig.binding()["supersedes"] == rig.of(Kind.BINDING)[0]["binding"]
    rig.put_in("SN2")
    for _ in range(12):
        rig.state(0)
    rig.finish(2)
    assert rig.closed()[1]["binding"]["serial"] == "SN2"


# --- scans ----------------------------------------------------------------------------------------------------------


def test_a_bounce_is_counted_and_opens_nothing() -> None:
    rig = scan_only()
    for _ in range(20):
        rig.scan("SN1")
    assert len(rig.of(Kind.CYCLE_OPENED)) == 1
    assert rig.findings() == []
    counts = rig.binder.snapshot()["OP20"]["positions"]["1"]["counts"]
    assert (counts["bounces"], counts["scans"]) == (19, 1)
    scans = rig.of(Kind.SCAN)
    assert [one.get("reason") for one in scans] == [None] + ["bounce"] * 5, "1st, 2nd, 4th, 8th, 16th repeat"


def test_the_same_serial_later_is_a_rescan_of_its_open_cycle() -> None:
    rig = scan_only()
    rig.scan("SN1")
    rig.wait(3).scan("SN1")
    assert len(rig.of(Kind.CYCLE_OPENED)) == 1
    assert rig.closed() == []
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["counts"]["rescans"] == 1


def test_the_same_serial_after_its_cycle_is_another_attempt() -> None:
    rig = Rig().put_in("SN1").finish(1, ok=False)
    rig.wait(0.5).put_in("SN2").finish(2)
    rig.put_in("SN1").finish(3)
    assert [(one["binding"]["serial"], one["attempt"]) for one in rig.closed()] == [("SN1", 1), ("SN2", 1), ("SN1", 2)]
    assert len({one["binding"]["unit"] for one in rig.closed()}) == 2


def test_attempts_are_known_from_before_a_restart() -> None:
    rig = Rig().put_in("SN1").finish(1).restart()
    rig.state(0)
    rig.put_in("SN1").finish(2)
    assert rig.closed()[-1]["attempt"] == 2
    assert len(rig.of(Kind.IDENTIFIER)) == 1


def test_other_groups_of_the_pattern_become_identifiers() -> None:
    rig = scan_only()
    rig.scan("SN1/L7")
    assert [(one["kind"], one["value"]) for one in rig.of(Kind.IDENTIFIER)] == [("serial", "SN1"), ("lot", "L7")]
    assert rig.of(Kind.SCAN)[0]["identifiers"] == {"serial": "SN1", "lot": "L7"}


def test_a_label_that_does_not_match_opens_nothing() -> None:
    rig = scan_only()
    rig.scan("4006381333931")
    assert rig.of(Kind.CYCLE_OPENED) == []
    assert rig.findings() == ["unmatched_scan"]
    assert rig.of(Kind.SCAN)[0]["reason"] == "unmatched"


def test_no_read_is_reported_once_while_nothing_changes() -> None:
    rig = scan_only()
    for _ in range(20):
        rig.scan("NOREAD", status=ScanStatus.NO_READ)
    assert rig.findings() == ["no_read", "no_read"]
    assert [one["details"]["count"] for one in rig.of(Kind.FINDING)] == [1, 16]
    assert len(rig.of(Kind.SCAN)) == 5
    rig.scan("SN1"), rig.scan("NOREAD", status=ScanStatus.NO_READ)
    assert rig.findings() == ["no_read"] * 3


def test_noise_is_recorded_and_counted_and_is_never_a_serial() -> None:
    rig = Rig(plan(station(position(end=None), pattern=None)))
    rig.scan(b"\xff\xfe\x00", status=ScanStatus.GARBAGE)
    assert rig.of(Kind.SCAN)[0]["raw"] == "fffe00"
    assert rig.of(Kind.CYCLE_OPENED) == []
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["counts"] == {"garbage": 1}


def test_a_result_without_a_scan_is_an_orphan() -> None:
    rig = Rig()
    rig.state(0)
    rig.finish(1)
    (cycle,) = rig.closed()
    assert cycle["binding"] == {"state": "orphan"}
    assert cycle["attempt"] is None
    assert rig.of(Kind.CYCLE_OPENED)[0]["opened_by"] == "ready"
    assert rig.findings() == ["skipped_scan"]
    assert rig.writes()[-2:] == [True, False]


def test_an_edge_without_a_scan_is_an_orphan() -> None:
    rig = edge()
    rig.state(1), rig.result(0)
    assert rig.closed()[0]["binding"] == {"state": "orphan"}
    assert rig.of(Kind.CYCLE_OPENED)[0]["opened_by"] == "edge"


# --- one unit, two places -------------------------------------------------------------------------------------------


def two_stations(first: Any, second: Any) -> Rig:
    one = station(replace(first, scanner="gate"), name="OP10")
    two = station(replace(second, scanner="gate2"), name="OP20")
    rig = Rig(plan(one, two))
    rig.state(0)
    return rig


def test_a_serial_open_at_another_station_is_believed_at_neither() -> None:
    rig = two_stations(position(), position(end=replace(UNCOUNTED, ready=tag("press.number"), ack="press.ack2")))
    rig.put_in("SN1")
    rig.put_in("SN1", "gate2")
    assert rig.findings() == ["duplicate_serial"]
    assert [one["state"] for one in rig.of(Kind.BINDING)] == ["bound", "ambiguous", "ambiguous"]
    rig.finish(1)
    assert rig.closed()[0]["binding"] == {"state": "ambiguous"}


def test_where_only_scans_delimit_the_unit_has_left_when_it_is_scanned_elsewhere() -> None:
    rig = two_stations(position(end=None, collect=(), result=None), position())
    rig.scan("SN1", "gate")
    rig.put_in("SN1", "gate2")
    assert rig.findings() == []
    assert [(one["station"], one["closed_by"], one["result"]) for one in rig.closed()] == [
        ("OP10", "next_scan", "Passed")
    ]


def test_an_interrupted_cycle_ends_when_its_unit_is_scanned_elsewhere() -> None:
    rig = two_stations(position(), position(end=None))
    rig.put_in("SN1")
    rig.gap("press")
    rig.scan("SN1", "gate2")
    assert [(one["station"], one["closed_by"]) for one in rig.closed()] == [("OP10", "interrupted")]
    assert "duplicate_serial" not in rig.findings()


# --- context --------------------------------------------------------------------------------------------------------


def test_context_is_taken_at_the_opening_and_at_the_end() -> None:
    order = Context("order", None, None, tag("press.number"))
    rig = Rig(plan(station(position(end=None), context=(badge(), order))))
    rig.scan("OP:anna", "badge"), rig.state(0, number=4711)
    rig.scan("SN1")
    rig.scan("OP:bert", "badge"), rig.state(0, number=4712)
    rig.wait(1).scan("SN2")
    opened, closed = rig.of(Kind.CYCLE_OPENED)[0]["context"], rig.closed()[0]["context"]
    assert (opened["operator"]["value"], opened["order"]["value"]) == ("anna", 4711)
    assert (closed["operator"]["value"], closed["order"]["value"]) == ("bert", 4712)
    assert (opened["operator"]["source"], opened["order"]["source"]) == ("badge", "press.number")
    assert isinstance(opened["operator"]["since_ns"], str)


def test_context_is_stale_after_a_gap_of_its_source() -> None:
    rig = Rig(plan(station(position(end=None), context=(badge(),))))
    rig.scan("OP:anna", "badge")
    rig.gap("badge")
    rig.scan("SN1")
    assert rig.of(Kind.CYCLE_OPENED)[0]["context"]["operator"]["stale"] is True
    rig.scan("OP:anna", "badge"), rig.wait(1).scan("SN2")
    assert "stale" not in rig.of(Kind.CYCLE_OPENED)[1]["context"]["operator"]


def test_a_badge_on_the_units_reader_is_no_unit() -> None:
    rig = Rig(plan(station(position(end=None), context=(replace(badge(), scanner="gate"),), pattern=None)))
    rig.scan("OP:anna")
    assert rig.of(Kind.CYCLE_OPENED) == []
    assert rig.of(Kind.SCAN)[0]["stations"] == ["OP20"]
    rig.scan("whatever")
    assert rig.registry.open_cycles()[0].serial == "whatever"


# --- judging --------------------------------------------------------------------------------------------------------


def judged(force: Any, ok: Any, **changes: Any) -> Rig:
    rig = Rig(plan(station(position(**changes))))
    rig.state(0)
    return rig.put_in("SN1").finish(1, force, ok)


@pytest.mark.parametrize(
    ("force", "judgement", "result"),
    [(10.0, "ok", "Passed"), (20.0, "ok", "Passed"), (9.99, "low", "Failed"), (20.01, "high", "Failed")],
)
def test_limits_are_inclusive_and_decide_where_the_plc_says_nothing(force: float, judgement: str, result: str) -> None:
    (cycle,) = judged(force, True, result=None).closed()
    assert (cycle["collected"][0]["judgement"], cycle["result"]) == (judgement, result)


def test_the_plcs_verdict_stands_and_the_violation_is_reported() -> None:
    rig = judged(25.0, True)
    assert rig.closed()[0]["result"] == "Passed"
    assert rig.findings() == ["limit_violated"]
    assert judged(25.0, False).findings() == []


def test_a_missing_value_makes_the_cycle_incomplete() -> None:
    rig = Rig(plan(station(position(result=None)))).put_in("SN1")
    rig.state(1)
    for _ in range(2):
        rig.wait().sample("press.result", [1, None, True, 0, 0, 0], status={1: "not a number"})
    (cycle,) = rig.closed()
    assert (cycle["complete"], cycle["missing"], cycle["result"]) == (False, ["force"], "Error")
    assert cycle["collected"][0]["judgement"] == "bad"
    assert rig.findings() == ["missing_field"]


def test_a_value_that_is_not_required_may_be_missing() -> None:
    (cycle,) = judged(None, True, collect=(replace(FORCE, required=False),)).closed()
    assert (cycle["complete"], cycle["result"]) == (True, "Passed")


def test_a_group_that_was_never_read_in_the_cycle_is_missing() -> None:
    rig = judged(15.0, True, collect=(replace(FORCE, name="heat", tag=tag("oven.heat")),))
    assert rig.closed()[0]["collected"][0]["judgement"] == "missing"


def test_a_verdict_that_has_no_meaning_is_an_error() -> None:
    rule = ResultRule(OK.tag, {1: Result.PASSED, 2: Result.FAILED})
    rig = judged(15.0, 7, result=rule)
    assert rig.closed()[0]["result"] == "Error"
    assert rig.findings() == ["unmapped_code"]
    assert judged(15.0, None, result=rule).closed()[0]["result"] == "Error"
    assert judged(15.0, 2, result=rule).closed()[0]["result"] == "Failed"


def test_text_cannot_be_within_limits_and_large_integers_can() -> None:
    assert judged("abc", True).closed()[0]["collected"][0]["judgement"] == "bad"
    assert judged("9007199254740993", True).closed()[0]["collected"][0]["judgement"] == "high"
