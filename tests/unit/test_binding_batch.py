"""Several units at once (an oven), and lots: whose reading it is while they overlap, and when one is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.binding.places import Batch
from edge_agent.binding.plan import Edge, Station
from edge_agent.binding.seen import Reads
from edge_agent.model import Kind
from support.binding_rig import Rig, plan, position, station, tag

SN = re.compile(r"(?P<serial>SN\d+)")
LOT = re.compile(r"(?P<lot>L\d+)")
HEAT = {"oven.air": ("heat",)}
BARE: dict[str, Any] = {"scanner": None, "end": None, "collect": (), "result": None, "claims": HEAT}


def oven(capacity: int = 3, **changes: Any) -> Station:
    batch = Batch(Reads("in", SN, frozenset()), Reads("out", SN, frozenset()))
    places = [position(one, **BARE) for one in range(1, capacity + 1)]
    return station(*places, **{"name": "OVEN", "step": "cure", "batch": batch, "timeout_s": 3600.0} | changes)


def by_tag(capacity: int = 3) -> Station:
    end = Edge(tag("press.ready"), True, None)
    places = [position(one, **BARE | {"end": end}) for one in range(1, capacity + 1)]
    return station(*places, name="OVEN", batch=Batch(Reads("in", SN, frozenset()), None), timeout_s=3600.0)


def elsewhere() -> Station:
    return station(position(1, **BARE | {"scanner": "next", "claims": {}}), name="OP50", step="test")


def heat(rig: Rig, value: int) -> int:
    """One reading of the oven; its seq."""
    rig.wait(0.5).sample("oven.air", {"heat": value})
    found: int = [seq for seq, record, body in rig.records if record.source == "oven.air"][-1]
    return found


def whose(rig: Rig, seq: int) -> set[str]:
    """The serials that a reading is bound to."""
    return {serial for state, serial in rig.serial_of(seq, "oven.air") if state == "bound"}


def test_a_reading_is_everybodys_who_is_in() -> None:
    rig = Rig(plan(oven()))
    before = heat(rig, 1)
    rig.scan("SN1", "in")
    one = heat(rig, 2)
    rig.wait(3).scan("SN2", "in")
    both = heat(rig, 3)
    rig.wait(3).scan("SN1", "out")
    other = heat(rig, 4)
    rig.wait(3).scan("SN2", "out")
    after = heat(rig, 5)
    assert [whose(rig, seq) for seq in (before, one, both, other, after)] == [
        set(), {"SN1"}, {"SN1", "SN2"}, {"SN2"}, set()
    ]  # fmt: skip
    assert [(one["closed_by"], one["complete"]) for one in rig.closed()] == [("scan_out", True)] * 2
    assert rig.findings() == []


def test_the_lowest_free_place_is_taken() -> None:
    rig = Rig(plan(oven()))
    for serial in ("SN1", "SN2", "SN3"):
        rig.wait(3).scan(serial, "in")
    rig.wait(3).scan("SN2", "out")
    rig.wait(3).scan("SN4", "in")
    assert rig.of(Kind.CYCLE_OPENED)[-1]["position"] == 2


def test_a_full_oven_takes_nobody_on_a_guess() -> None:
    rig = Rig(plan(oven(2)))
    for serial in ("SN1", "SN2", "SN3"):
        rig.wait(3).scan(serial, "in")
    assert rig.findings() == ["skipped_scan"] and rig.of(Kind.FINDING)[0]["serial"] == "SN3"
    assert whose(rig, heat(rig, 1)) == {"SN1", "SN2"}


def test_an_exit_without_an_entry_is_told_once() -> None:
    rig = Rig(plan(oven()))
    rig.scan("SN1", "out")
    assert rig.findings() == ["skipped_scan"] and rig.of(Kind.FINDING)[0]["serial"] == "SN1"
    assert rig.of(Kind.CYCLE_OPENED) == []


@pytest.mark.parametrize("reader", ["in", "out"])
def test_a_label_read_again_is_counted(reader: str) -> None:
    rig = Rig(plan(oven()))
    rig.scan("SN1", "in")
    if reader == "out":
        rig.wait(3).scan("SN1", "out")
    rig.wait(8).scan("SN1", reader)
    assert len(rig.of(Kind.CYCLE_OPENED)) == 1 and rig.findings() == []


def test_no_exit_until_the_time_out_is_in_doubt() -> None:
    rig = Rig(plan(oven(timeout_s=60.0)))
    rig.scan("SN1", "in")
    seq = heat(rig, 1)
    rig.tick(61)
    assert rig.findings() == ["cycle_timeout"]
    assert whose(rig, seq) == set() and rig.binding()["candidates"][0]["serial"] == "SN1"


def test_a_unit_that_is_seen_elsewhere_left_nobody_knows_when() -> None:
    rig = Rig(plan(oven(), elsewhere()))
    rig.scan("SN1", "in")
    seq = heat(rig, 1)
    rig.wait(9).scan("SN1", "next")
    assert rig.findings() == ["skipped_scan"] and whose(rig, seq) == set()
    assert rig.binder.snapshot()["OP50"]["positions"]["1"]["binding_state"] == "bound"


@pytest.mark.parametrize("how", ["restart", "lost"])
def test_after_a_gap_the_exit_shows_that_it_stayed(how: str) -> None:
    rig = Rig(plan(oven()))
    for serial in ("SN1", "SN2"):
        rig.wait(3).scan(serial, "in")
    before = heat(rig, 1)
    rig.wait(5)
    if how == "restart":
        rig.restart()
    else:
        rig.gap("out", 4.0)
    gap = heat(rig, 2)
    rig.wait(3).scan("SN1", "out")
    assert whose(rig, before) == {"SN1", "SN2"}, "what was read before stays bound"
    assert whose(rig, gap) == set(), "SN2 may have left"
    assert rig.closed()[-1]["closed_by"] == "scan_out"
    assert set(rig.findings()) == {"observation_gap"}


def test_an_interrupted_unit_that_comes_in_again_goes_on() -> None:
    rig = Rig(plan(oven()))
    rig.scan("SN1", "in")
    rig.wait(5).restart()
    rig.wait(3).scan("SN1", "in")
    assert whose(rig, heat(rig, 1)) == {"SN1"} and len(rig.of(Kind.CYCLE_OPENED)) == 1


def test_the_entrys_reader_takes_nobody_out() -> None:
    rig = Rig(plan(oven()))
    rig.scan("SN1", "in")
    rig.wait(3).gap("in", 2.0)
    assert whose(rig, heat(rig, 1)) == {"SN1"}


def test_a_tag_ends_all_that_are_in_and_nobody_else() -> None:
    rig = Rig(plan(by_tag()))
    rig.state(0)
    for serial in ("SN1", "SN2"):
        rig.scan(serial, "in")
        rig.state(0)
    seq = heat(rig, 1)
    rig.state(1)
    assert [one["binding"].get("serial") for one in rig.closed()] == ["SN1", "SN2"]
    assert whose(rig, seq) == {"SN1", "SN2"} and rig.findings() == []
    rig.state(0)
    rig.state(1)
    assert [one["binding"]["state"] for one in rig.closed()][2:] == ["orphan"], "one for all places"
    assert rig.findings() == ["skipped_scan"]


def test_a_unit_that_comes_in_as_the_tag_ends_the_others_is_not_of_them() -> None:
    rig = Rig(plan(by_tag()))
    rig.state(0)
    rig.scan("SN1", "in")
    rig.state(0)
    rig.scan("SN2", "in")
    rig.state(1)
    rig.state(1)
    assert [one["binding"].get("serial") for one in rig.closed()] == ["SN1"]
    assert rig.binder.snapshot()["OVEN"]["positions"]["2"]["serial"] == "SN2"


# --- lots ------------------------------------------------------------------------------------------------------


def machine(**changes: Any) -> Station:
    here = position(1, **BARE | {"scanner": "lots"})
    return station(here, **{"name": "MIX", "step": "mix", "of": "lot", "pattern": LOT, "timeout_s": 36000.0} | changes)


def test_a_reading_is_of_the_lot_that_is_active() -> None:
    rig = Rig(plan(machine()))
    before = heat(rig, 1)
    rig.scan("L1", "lots")
    one = heat(rig, 2)
    rig.wait(3).scan("L2", "lots")
    two = heat(rig, 3)
    rig.wait(3).scan("L3", "lots")
    assert [whose(rig, seq) for seq in (before, one, two)] == [set(), {"L1"}, {"L2"}]
    assert rig.findings() == [] and rig.of(Kind.IDENTIFIER)[0]["kind"] == "lot"


def test_a_foreign_label_leaves_the_lot_active() -> None:
    rig = Rig(plan(machine()))
    rig.scan("L1", "lots")
    rig.wait(3).scan("hello", "lots")
    assert whose(rig, heat(rig, 1)) == {"L1"} and rig.findings() == ["unmatched_scan"]


def test_one_lot_may_be_active_at_two_machines() -> None:
    other = replace(machine(), name="MIX2", positions=(position(1, **BARE | {"scanner": "lots2"}),))
    rig = Rig(plan(machine(), other))
    rig.scan("L1", "lots")
    rig.wait(3).scan("L1", "lots2")
    assert rig.closed() == [] and rig.findings() == []


def test_a_serial_of_the_same_text_is_another_unit() -> None:
    anything = re.compile(r"(?P<serial>L\d+)")
    rig = Rig(plan(machine(), replace(elsewhere(), pattern=anything)))
    rig.scan("L1", "lots")
    rig.wait(3).scan("L1", "next")
    lot, unit = (body["unit"] for body in rig.of(Kind.IDENTIFIER))
    assert lot != unit and rig.binder.snapshot()["MIX"]["positions"]["1"]["serial"] == "L1"


def test_after_a_restart_the_lot_must_be_scanned_again() -> None:
    rig = Rig(plan(machine()))
    rig.scan("L1", "lots")
    before = heat(rig, 1)
    rig.wait(5).restart()
    dark = heat(rig, 2)
    rig.wait(3).scan("L1", "lots")
    again = heat(rig, 3)
    assert [whose(rig, seq) for seq in (before, dark, again)] == [{"L1"}, set(), {"L1"}]
    assert len(rig.of(Kind.CYCLE_OPENED)) == 1


def test_while_lots_change_a_reading_may_be_of_either() -> None:
    rig = Rig(plan(machine(changeover_s=20.0)))
    rig.scan("L1", "lots")
    one = heat(rig, 1)
    rig.wait(3).scan("L2", "lots")
    mixed = heat(rig, 2)
    rig.tick(5)
    rig.scan("L2", "lots")  # once more
    rig.tick(5)
    still = heat(rig, 3)
    rig.tick(10)
    two = heat(rig, 4)
    assert [whose(rig, seq) for seq in (one, mixed, still, two)] == [{"L1"}, set(), set(), {"L2"}]
    (doubted,) = [body for body in rig.of(Kind.BINDING) if body["state"] == "ambiguous"]
    assert [one["serial"] for one in doubted["candidates"]] == ["L1", "L2"]


def test_a_third_lot_in_the_changeover_begins_it_anew() -> None:
    rig = Rig(plan(machine(changeover_s=20.0)))
    rig.scan("L1", "lots")
    rig.wait(3).scan("L2", "lots")
    rig.tick(15)
    rig.scan("L3", "lots")
    rig.tick(10)
    assert whose(rig, heat(rig, 1)) == set()
    assert [one["serial"] for one in rig.binding()["candidates"]] == ["L1", "L2", "L3"]
    rig.tick(11)
    assert whose(rig, heat(rig, 2)) == {"L3"}


def test_a_restart_in_the_changeover_begins_it_again_with_the_next_scan() -> None:
    rig = Rig(plan(machine(changeover_s=20.0)))
    rig.scan("L1", "lots")
    rig.wait(3).scan("L2", "lots")
    rig.wait(2).restart()
    rig.tick(30)
    assert whose(rig, heat(rig, 1)) == set()
    rig.scan("L2", "lots")
    assert whose(rig, heat(rig, 2)) == set()
    rig.tick(21)
    assert whose(rig, heat(rig, 3)) == {"L2"}
