"""Carriers: units are put on by position, worked on where they lie, taken off; and what goes wrong with it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.binding.manual import Rebind
from edge_agent.binding.places import Carrying
from edge_agent.binding.plan import Edge, Station
from edge_agent.binding.seen import Reads
from edge_agent.model import Kind
from support.binding_rig import HANDSHAKE, Rig, plan, position, station, tag

PALLET = re.compile(r"(?P<carrier>P\d+)")
EACH = {1: ("force",), 2: ("force2",)}


def loading(*numbers: int, **changes: Any) -> Station:
    """A station that scans units onto the pallet that "load" reads; one reader a position."""
    carrying = Carrying("load", Reads("load", PALLET, frozenset(), "carrier"), **changes)
    places = [
        position(one, scanner=f"g{one}", end=None, claims={}, collect=(), result=None) for one in numbers or (1, 2)
    ]
    return station(*places, name="LOAD", step="load", carrying=carrying, timeout_s=3600.0)


def working(end: Any = HANDSHAKE, numbers: tuple[int, ...] = (1, 2)) -> Station:
    places = [
        position(one, scanner="rfid", end=end, collect=(), result=None, claims={"press.result": EACH.get(one, ())})
        for one in numbers
    ]
    return station(*places, name="OP20", of="carrier", pattern=PALLET)


def unloading(scanner: str | None = "off") -> Station:
    reads = None if scanner is None else Reads(scanner, PALLET, frozenset(), "carrier")
    here = position(1, scanner="nok", end=None, claims={}, collect=(), result=None)
    return station(here, name="OFF", step="unload", carrying=Carrying("unload", reads))


def line(load: Station | None = None, work: Station | None = None, *more: Station) -> Rig:
    rig = Rig(plan(load or loading(), work or working(), *(more or (unloading(),))))
    rig.state(0)
    return rig


def after(rig: Rig, seconds: float) -> Rig:
    """Time passes; the PLC is watched."""
    for _ in range(int(seconds * 2)):
        rig.wait(0.4).state(0)
    return rig


def load(rig: Rig, pallet: str, *serials: str) -> None:
    """Pallet, then a unit on each place; "" leaves one empty."""
    after(rig, 3).scan(pallet, "load")
    for number, serial in enumerate(serials, 1):
        if serial:
            after(rig, 1).scan(serial, f"g{number}")


def work(rig: Rig, pallet: str, count: int = 1) -> list[tuple[str, str]]:
    """The pallet stands at OP20 and is worked on. Returns (state, serial) of the result's readings, by position."""
    if pallet:
        after(rig, 2).scan(pallet, "rfid")
    rig.state(0)
    closed = len(at("OP20", rig))
    rig.finish(count)
    return [(one["binding"]["state"], one["binding"].get("serial", "")) for one in at("OP20", rig)[closed:]]


def at(name: str, rig: Rig) -> list[dict[str, Any]]:
    return [one for one in rig.closed() if one["station"] == name]


def candidates(rig: Rig) -> list[list[str]]:
    return [
        [one["serial"] for one in body["candidates"]] for body in rig.of(Kind.BINDING) if body["state"] == "ambiguous"
    ]


def test_the_unit_of_each_place_is_bound_where_it_lies() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "SN3", "SN4")
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]
    assert work(rig, "P2", 2) == [("bound", "SN3"), ("bound", "SN4")]
    assert rig.findings() == []
    added = [body for body in rig.of(Kind.IDENTIFIER) if body["kind"] == "carrier"]
    assert [(one["op"], one["value"], one["position"]) for one in added] == [
        ("add", "P1", 1), ("add", "P1", 2), ("add", "P2", 1), ("add", "P2", 2)
    ]  # fmt: skip


def test_a_binding_names_the_scan_of_the_carrier_and_the_loading() -> None:
    rig = line()
    load(rig, "P1", "SN1", "")
    loaded = next(seq for seq, record, body in rig.records if body.get("kind") == "carrier")
    after(rig, 2).scan("P1", "rfid")
    scan = rig.records[-1][0]
    rig.state(0)
    assert {loaded, scan} <= set(rig.binding()["evidence"])
    assert rig.binding()["rule"] == "carrier"
    assert rig.of(Kind.CYCLE_OPENED)[-1]["opened_by"] == "carrier"


def test_an_empty_place_has_no_cycle_and_displaces_the_unit_of_the_pallet_before() -> None:
    rig = line(work=working(None))
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "SN3", "")
    after(rig, 2).scan("P1", "rfid")
    after(rig, 2).scan("P2", "rfid")
    assert {one["binding"].get("serial") for one in at("OP20", rig)} == {"SN1", "SN2"}
    assert rig.binder.snapshot()["OP20"]["positions"]["2"]["serial"] is None


def test_an_unknown_pallet_is_an_orphan_at_each_place() -> None:
    rig = line()
    assert work(rig, "P9") == [("orphan", ""), ("orphan", "")]
    assert set(rig.findings()) == {"skipped_scan"}


def test_an_unknown_pallet_where_no_plc_tells_of_work_is_an_unmatched_scan_once() -> None:
    rig = line(work=working(None))
    after(rig, 2).scan("P9", "rfid")
    assert rig.findings() == ["unmatched_scan"]


def test_a_missed_pallet_scan_is_never_the_pallet_before() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "SN3", "SN4")
    work(rig, "P1")
    assert work(rig, "", 2) == [("orphan", ""), ("orphan", "")]


def test_a_partial_pallet_shares_its_end_with_nobody() -> None:
    rig = line()
    load(rig, "P1", "", "SN2")
    assert work(rig, "P1") == [("bound", "SN2")]
    assert rig.findings() == []


def test_the_pallet_read_again_is_the_same_cycle() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    after(rig, 2).scan("P1", "rfid")
    rig.state(0)
    after(rig, 5)
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]


def test_an_unloaded_pallet_is_empty() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    after(rig, 2).scan("P1", "off")
    assert work(rig, "P1") == [("orphan", ""), ("orphan", "")]
    assert [body["op"] for body in rig.of(Kind.IDENTIFIER) if body["kind"] == "carrier"] == [
        "add",
        "add",
        "remove",
        "remove",
    ]


def test_a_unit_that_is_identified_where_units_are_taken_off_is_off() -> None:
    rig = line(None, None, unloading(None))
    load(rig, "P1", "SN1", "SN2")
    after(rig, 2).scan("SN1", "nok")
    assert work(rig, "P1") == [("bound", "SN2")]


def test_units_are_off_when_the_last_station_worked_on_them() -> None:
    last = replace(working(), carrying=Carrying("unload", None))
    rig = line(None, last)
    load(rig, "P1", "SN1", "SN2")
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]
    assert work(rig, "P1", 2) == [("orphan", ""), ("orphan", "")]


# --- what goes wrong while loading -------------------------------------------------------------------------------


def test_a_pallet_that_was_not_cleared_has_its_new_units_and_a_finding() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]
    load(rig, "P1", "SN3", "")
    assert rig.findings() == ["carrier_not_cleared"]
    (finding,) = rig.of(Kind.FINDING)
    assert [one["serial"] for one in finding["details"]["units"]] == ["SN1", "SN2"] and finding["evidence"]
    assert work(rig, "P1", 2) == [("bound", "SN3")], "SN2, which lay on place 2, is not there any more"


def test_a_unit_on_two_pallets_is_on_the_one_it_was_loaded_on_last() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "", "SN1")
    assert work(rig, "P1") == [("bound", "SN2")]
    assert work(rig, "P2", 2) == [("bound", "SN1")]


def test_a_unit_that_is_read_again_at_its_place_for_the_next_pallet_is_on_neither_for_sure() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "SN1", "")
    assert work(rig, "P1") == [("ambiguous", ""), ("bound", "SN2")]
    assert work(rig, "P2", 2) == [("orphan", ""), ("orphan", "")]
    assert rig.findings()[0] == "duplicate_serial"


def test_a_missed_pallet_at_the_loading_leaves_both_units_in_doubt() -> None:
    rig = line()
    load(rig, "P1", "SN1", "")
    after(rig, 3).scan("SN3", "g1")  # onto P2, which was not read
    assert work(rig, "P1") == [("ambiguous", "")]
    assert rig.findings() == ["skipped_scan"]
    assert candidates(rig) == [["SN1", "SN3"]]


def test_a_missed_pallet_does_not_concern_one_that_was_seen_to_leave() -> None:
    rig = line(work=working(None))
    load(rig, "P1", "SN1", "")
    after(rig, 2).scan("P1", "rfid")
    after(rig, 3).scan("SN3", "g1")
    after(rig, 2).scan("P9", "rfid")
    assert [one["binding"].get("serial") for one in at("OP20", rig)] == ["SN1"]
    assert "skipped_scan" in rig.findings()


def test_a_unit_without_any_pallet_is_told() -> None:
    rig = line()
    rig.scan("SN1", "g1")
    assert rig.findings() == ["skipped_scan"]


def test_the_pallet_may_be_read_after_its_units() -> None:
    rig = line(loading(first="unit"))
    for pallet, units in (("P1", ("SN1", "SN2")), ("P2", ("SN3", "SN4"))):
        for number, serial in enumerate(units, 1):
            after(rig, 1).scan(serial, f"g{number}")
        after(rig, 1).scan(pallet, "load")
        after(rig, 4).scan(pallet, "load")  # once more
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]
    assert work(rig, "P2", 2) == [("bound", "SN3"), ("bound", "SN4")]
    assert rig.findings() == []


def test_two_units_for_one_place_before_the_pallet_came_are_both_in_doubt() -> None:
    rig = line(loading(first="unit"))
    after(rig, 1).scan("SN1", "g1")
    after(rig, 1).scan("SN3", "g1")  # P1 was not read
    after(rig, 1).scan("P2", "load")
    assert work(rig, "P2") == [("ambiguous", "")]
    assert candidates(rig) == [["SN1", "SN3"]]


def test_positions_may_be_other_places() -> None:
    rig = line(loading(1, places={1: 2}))
    load(rig, "P1", "SN1")
    assert work(rig, "P1") == [("bound", "SN1")]
    assert at("OP20", rig)[0]["position"] == 2


# --- by order --------------------------------------------------------------------------------------------------


def test_by_order_the_first_is_on_place_one() -> None:
    rig = line(loading(1, count=2))
    load(rig, "P1", "SN1")
    after(rig, 1).scan("SN2", "g1")
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]
    assert rig.findings() == []


def test_by_order_a_missed_unit_would_shift_the_others_so_nobody_is_loaded() -> None:
    rig = line(loading(1, count=2))
    load(rig, "P1", "SN1")  # SN2 is missed
    load(rig, "P2", "SN3")
    after(rig, 1).scan("SN4", "g1")
    assert rig.findings() == ["skipped_scan"]
    assert work(rig, "P1") == [("orphan", ""), ("orphan", "")]
    assert work(rig, "P2", 2) == [("bound", "SN3"), ("bound", "SN4")]


def test_by_order_one_too_many_leaves_all_in_doubt() -> None:
    rig = line(loading(1, count=2))
    load(rig, "P1", "SN1")
    for serial in ("SN2", "SN3"):  # before SN3 the scan of P2 was missed, or SN1 was no unit of P1
        after(rig, 1).scan(serial, "g1")
    assert work(rig, "P1") == [("ambiguous", ""), ("ambiguous", "")]
    assert rig.findings() == ["skipped_scan"]
    assert [sorted(one) for one in candidates(rig)] == [["SN1", "SN2", "SN3"]] * 2, "whoever the reason names"


@pytest.mark.parametrize("first", ["carrier", "unit"])
def test_a_dead_reader_at_the_loading_fills_no_memory_and_no_record(first: str) -> None:
    rig = line(loading(1, first=first))
    load(rig, "P1", "SN0")
    for number in range(1, 150):
        after(rig, 1).scan(f"SN{number}", "g1")
    if first == "unit":
        after(rig, 1).scan("P1", "load")
    place = rig.binder._floor.carriers.get("P1").places[1]
    assert len(place) <= 64 and place[-1].serial == "SN149" and all(one.doubt for one in place)
    assert work(rig, "P1")[0] == ("ambiguous", "")


# --- serials that the loading robot's PLC names -----------------------------------------------------------------


def by_plc() -> Station:
    end = Edge(tag("press.beside"), True, None)
    here = position(1, scanner=None, serial=tag("press.sn"), end=end, claims={}, collect=(), result=None)
    carrying = Carrying("load", Reads("load", PALLET, frozenset(), "carrier"))
    return station(here, name="LOAD", step="load", identity="in_data", carrying=carrying)


def test_a_plc_names_the_unit_that_it_put_on() -> None:
    rig = line(by_plc())
    rig.scan("P1", "load")
    rig.state(0, beside=0)
    rig.state(0, beside=1, sn="SN1")
    rig.state(0, beside=0)
    assert work(rig, "P1") == [("bound", "SN1")]


def test_the_end_of_the_pallet_before_is_not_the_next_ones() -> None:
    rig = line(by_plc())
    rig.scan("P1", "load")
    rig.state(0, beside=0)
    rig.scan("P2", "load")  # the robot finished P1 just before, which the next poll shows
    rig.state(0, beside=1, sn="SN1")
    rig.state(0, beside=0)
    assert "skipped_scan" in rig.findings()
    assert {state for state, _ in work(rig, "P2")} == {"orphan"}


# --- gaps ------------------------------------------------------------------------------------------------------


def test_a_restart_keeps_what_lies_on_the_pallets() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "SN3", "SN4")
    rig.wait(2).restart()
    rig.state(0)
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]


def test_a_restart_leaves_the_pallet_in_doubt_that_was_being_loaded() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    rig.wait(2).restart()
    rig.state(0)
    assert ("bound", "SN2") not in work(rig, "P1"), "its cycle at the loading was open: it may have been swapped"


def test_a_restart_in_the_work_is_resumed_by_the_pallets_scan() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    after(rig, 2).scan("P1", "rfid")
    rig.state(0)
    rig.wait(20).restart()
    rig.state(0)
    assert work(rig, "P1") == [("bound", "SN1"), ("bound", "SN2")]
    assert set(rig.findings()) == {"observation_gap"}


def test_a_pallet_that_may_have_been_loaded_anew_meanwhile_is_in_doubt() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    work(rig, "P1")
    rig.wait(61).restart()
    rig.state(0)
    assert work(rig, "P1", 2) == [("ambiguous", ""), ("ambiguous", "")]
    assert candidates(rig)[-2:] == [["SN1"], ["SN2"]]
    load(rig, "P1", "SN5", "SN6")
    assert work(rig, "P1", 3) == [("bound", "SN5"), ("bound", "SN6")], "loaded again, it is sure again"


@pytest.mark.parametrize(("seconds", "state"), [(30, "bound"), (90, "ambiguous")])
def test_so_it_is_where_the_reader_was_away(seconds: float, state: str) -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    work(rig, "P1")
    after(rig, seconds).gap("load", seconds)
    assert {one for one, _ in work(rig, "P1", 2)} == {state}


def test_a_reader_that_was_lost_while_a_pallet_stood_there_loads_nothing_until_it_is_read_again() -> None:
    rig = line()
    rig.scan("P1", "load")
    after(rig, 1).gap("load", 0.5)
    after(rig, 1).scan("SN1", "g1")
    assert rig.findings()[-1] == "skipped_scan"
    after(rig, 3).scan("P1", "load")
    after(rig, 1).scan("SN2", "g2")
    assert work(rig, "P1") == [("bound", "SN2")]


def test_a_load_in_doubt_is_worth_nothing_even_after_a_restart() -> None:
    rig = line()
    load(rig, "P1", "SN1", "")
    after(rig, 3).scan("SN3", "g1")
    after(rig, 1).scan("SN9", "nok")
    rig.wait(2).restart()
    rig.state(0)
    assert {state for state, _ in work(rig, "P1")} == {"orphan"}


@pytest.mark.parametrize("when", ["open", "closed"])
def test_a_unit_that_a_person_says_was_another_is_not_believed_on_its_carrier(when: str) -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    cycle = next(body["cycle"] for body in rig.of(Kind.BINDING) if body.get("serial") == "SN1")
    if when == "closed":
        load(rig, "P2", "SN3", "SN4")
    outcome, _ = rig.binder.act(Rebind(cycle, "SN9", True, True, "q", "x"), rig.now, rig.seq)
    rig._take(outcome)
    assert work(rig, "P1") == [("ambiguous", ""), ("bound", "SN2")]
    rig.restart()
    assert rig.registry.on_carrier("P1")[0].serial == "SN2"


def test_nor_is_it_when_the_agent_was_restarted_between_the_loading_and_the_correction() -> None:
    rig = line()
    load(rig, "P1", "SN1", "SN2")
    load(rig, "P2", "SN3", "SN4")
    load(rig, "P3", "SN5", "SN6")  # it is P3 that stood there in the dark
    cycle = next(body["cycle"] for body in rig.of(Kind.BINDING) if body.get("serial") == "SN1")
    rig.wait(2).restart()
    rig.state(0)
    rig._take(rig.binder.act(Rebind(cycle, "SN9", True, True, "q", "x"), rig.now, rig.seq)[0])
    assert work(rig, "P1") == [("ambiguous", ""), ("bound", "SN2")]
    assert work(rig, "P2", 2) == [("bound", "SN3"), ("bound", "SN4")]
