"""What is loaded at a station: lots and packages, splices, balances, expiry, and what went into which cycle."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.binding.draft import Draft
from edge_agent.binding.needs import Needs, Variant
from edge_agent.model import Kind
from support import binding_rig as bench
from support.binding_rig import Rig
from support.needs_rig import finding, hand, material, press, rig


def at_hand(*materials: Any, **needs: Any) -> Rig:
    return rig(hand(Needs(materials=materials or (material(),), **needs)))


def went_in(one: Rig, index: int = -1) -> list[tuple[str | None, str | None, bool]]:
    """(lot, package, certain) of a closed cycle."""
    return [
        (item.get("lot"), item.get("package"), item["certain"]) for item in one.closed()[index].get("materials", [])
    ]


def ops(one: Rig) -> list[tuple[str, str | None]]:
    return [(body["op"], body.get("lot")) for body in one.of(Kind.MATERIAL)]


def test_a_loaded_lot_goes_into_every_unit_until_another_one_replaces_it() -> None:
    one = at_hand()
    one.scan("R:L1/P1/AB-1/100", "desk")
    one.scan("SN1")
    one.scan("SN2")
    one.scan("SN3")
    assert went_in(one, 0) == went_in(one, 1) == [("L1", "P1", True)]
    assert ops(one) == [("load", "L1")]
    (load,) = one.of(Kind.MATERIAL)
    assert load["quantity"] == 100
    assert load["evidence"] == [1]
    assert one.binder._floor.units.find("SN1").lots == {"L1"}  # type: ignore[union-attr]


def test_a_change_while_a_unit_is_at_work_leaves_it_open_which_went_in() -> None:
    one = at_hand()
    one.scan("R:L1", "desk")
    one.scan("SN1")
    one.scan("R:L2", "desk")
    one.scan("SN2")
    one.scan("SN3")
    assert went_in(one, 0) == [("L1", None, False), ("L2", None, False)]
    assert one.closed()[0]["completeness"] == "suspect"
    assert one.closed()[0]["suspect"] == ["material:solder"]
    assert went_in(one, 1) == [("L2", None, True)]
    assert ops(one) == [("load", "L1"), ("unload", "L1"), ("load", "L2")]


@pytest.mark.parametrize("before", [["R:L1"], []])
def test_a_reel_that_is_read_before_the_end_was_polled_is_not_certain_in_the_finished_unit(before: list[str]) -> None:
    one = rig(press(Needs(materials=(material(),))))
    one.state(0)
    for label in before:
        one.scan(label, "desk")
    one.put_in("SN1")
    one.scan("R:L2", "desk")
    one.finish(1)
    one.put_in("SN2")
    one.finish(2)
    assert went_in(one, 0) == [*(("L1", None, False) for _ in before), ("L2", None, False)]
    assert went_in(one, 1) == [("L2", None, True)]


def test_a_reel_that_is_changed_while_the_next_unit_waits_for_the_plc_may_be_in_it_or_not() -> None:
    one = rig(press(Needs(materials=(material(),))))
    one.state(0)
    one.scan("R:L1", "desk")
    one.put_in("SN1")
    one.scan("SN2")
    one.scan("R:L2", "desk")
    one.finish(1)
    one.finish(2)
    one.put_in("SN3")
    one.finish(3)
    assert [body["binding"].get("serial") for body in one.closed()] == ["SN1", "SN2", "SN3"]
    both = [("L1", None, False), ("L2", None, False)]
    assert [went_in(one, index) for index in range(3)] == [both, both, [("L2", None, True)]]


def test_a_reel_that_is_changed_just_before_an_end_that_nothing_announced_leaves_both() -> None:
    place = bench.position(result=None, scanner=None, serial=bench.tag("press.sn1"))
    one = rig(press(Needs(materials=(material(),)), place=place, identity="in_data"))
    one.state(0)
    one.scan("R:L1", "desk")
    one.state(0)
    one.scan("R:L2", "desk")
    one.finish(1, sn1="SN1")
    one.finish(2, sn1="SN2")
    assert [went_in(one, index) for index in range(2)] == [
        [("L1", None, False), ("L2", None, False)],
        [("L2", None, True)],
    ]


def test_the_label_of_what_is_loaded_changes_nothing() -> None:
    one = at_hand()
    one.scan("R:L1/P1", "desk")
    one.scan("SN1")
    one.scan("R:L1/P1", "desk")
    one.scan("SN2")
    assert went_in(one) == [("L1", "P1", True)]
    assert ops(one) == [("load", "L1")]


def test_the_next_package_of_a_lot_begins_its_balance_anew_and_is_no_doubt() -> None:
    one = at_hand(material(per_unit=1.0))
    one.scan("R:L1///2", "desk")
    for number in range(1, 4):
        one.scan(f"SN{number}")
    one.scan("R:L1///2", "desk")
    for number in range(4, 6):
        one.scan(f"SN{number}")
    assert all(went_in(one, index) == [("L1", None, True)] for index in range(4))
    assert "negative_balance" not in one.findings()
    one.scan("SN6")
    assert finding(one, "negative_balance")["details"] == {"name": "solder", "lot": "L1", "quantity": 2, "used": 3}


def test_nothing_loaded_is_a_missing_material() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("SN2")
    assert one.closed()[0]["missing"] == ["material:solder"]
    assert one.closed()[0]["completeness"] == "incomplete"
    assert finding(one, "missing_field")["details"] == {"missing": ["material:solder"]}


def test_empty_says_that_nothing_is_loaded() -> None:
    one = at_hand()
    one.scan("R:L1", "desk")
    one.scan("EMPTY:solder", "desk")
    one.scan("SN1")
    one.scan("SN2")
    assert ops(one) == [("load", "L1"), ("deplete", "L1")]
    assert one.closed()[0]["missing"] == ["material:solder"]


def test_a_splice_lists_both_until_so_many_cycles_are_done() -> None:
    one = at_hand(material(splice=True, splice_units=2))
    one.scan("R:L1", "desk")
    one.scan("SN1")
    one.scan("SN2")
    one.scan("R:L2", "desk")
    one.scan("R:L1", "desk")  # some scan the old reel too
    for number in range(3, 6):
        one.scan(f"SN{number}")
    assert went_in(one, 0) == [("L1", None, True)]
    assert went_in(one, 1) == went_in(one, 2) == [("L1", None, False), ("L2", None, False)]
    assert went_in(one, 3) == [("L2", None, True)]
    assert ops(one) == [("load", "L1"), ("splice", "L2"), ("deplete", "L1")]


def test_a_splice_sensor_ends_the_doubt() -> None:
    one = at_hand(material(splice=True, splice_done=bench.tag("press.temp")))
    one.scan("R:L1", "desk")
    one.state(temp=1)  # a level: it says nothing of this splice
    one.scan("R:L2", "desk")
    one.state(temp=0)
    one.scan("SN1")
    one.state(temp=1)
    edge = one.seq - 2
    one.scan("SN2")
    one.scan("SN3")
    assert went_in(one, 0) == [("L1", None, False), ("L2", None, False)]
    assert went_in(one, 1) == [("L2", None, True)]
    assert [body["evidence"] for body in one.of(Kind.MATERIAL) if body["op"] == "deplete"] == [[edge]]
    assert one.records[edge - 1][1].kind is Kind.SAMPLE


def test_after_a_gap_of_the_splice_sensor_a_level_is_no_edge() -> None:
    one = at_hand(material(splice=True, splice_done=bench.tag("press.temp")))
    one.scan("R:L1", "desk")
    one.scan("R:L2", "desk")
    one.state(temp=0)
    one.gap("press")
    one.state(temp=1)
    one.scan("SN1")
    one.scan("SN2")
    assert went_in(one, 0) == [("L1", None, False), ("L2", None, False)]


def test_of_unresolved_splices_only_a_few_are_kept() -> None:
    one = at_hand(material(splice=True, splice_units=1000))
    for number in range(1, 8):
        one.scan(f"R:L{number}", "desk")
    one.scan("SN1")
    one.scan("SN2")
    assert [lot for lot, _, _ in went_in(one)] == ["L4", "L5", "L6", "L7"]


def test_what_is_loaded_stays_so_over_a_restart() -> None:
    one = at_hand(material(splice=True, splice_units=2, per_unit=1.0))
    one.scan("R:L1/P1//3", "desk")
    one.scan("SN1")
    one.scan("SN2")
    one.restart()
    one.scan("SN3")
    one.scan("SN4")
    assert one.closed()[-1]["materials"] == [{"name": "solder", "lot": "L1", "package": "P1", "certain": True}]
    one.scan("SN5")
    assert "negative_balance" not in one.findings()
    one.scan("SN6")
    assert finding(one, "negative_balance")["details"]["quantity"] == 3
    one.restart()
    one.scan("SN7")
    one.scan("SN8")
    assert one.findings().count("negative_balance") == 1  # what was told is not told again


def test_a_splice_that_was_open_stays_open_over_a_restart() -> None:
    one = at_hand(material(splice=True, splice_units=10))
    one.scan("R:L1", "desk")
    one.scan("R:L2", "desk")
    one.restart()
    one.scan("SN1")
    one.scan("SN2")
    assert went_in(one) == [("L1", None, False), ("L2", None, False)]


def test_a_cycle_that_was_open_over_a_restart_doubts_what_was_loaded_after_it_began() -> None:
    one = at_hand()
    one.scan("R:L1", "desk")
    one.scan("SN1")
    one.scan("R:L2", "desk")
    one.restart()
    one.scan("SN2")
    assert went_in(one, 0) == [("L2", None, False)]
    one = at_hand()
    one.scan("R:L1", "desk")
    one.scan("SN1")
    one.restart()
    one.scan("SN2")
    assert went_in(one, 0) == [("L1", None, True)]


def test_a_package_is_where_it_was_read_last() -> None:
    needs = Needs(materials=(material(scanner="desk"),))
    other = Needs(materials=(material(scanner="desk2"),))
    places = [bench.position(end=None, collect=(), result=None, claims={}, scanner=name) for name in ("gate", "gate2")]
    one = rig(hand(needs, place=places[0]), hand(other, place=places[1], name="OP30"))
    one.scan("R:L1/P1", "desk")
    one.scan("R:L1/P1", "desk2")
    assert finding(one, "copied_lot")["details"] == {"name": "solder", "lot": "L1", "package": "P1", "other": "solder"}
    for reader in ("gate", "gate2"):
        one.scan(f"SN{reader[4:]}1", reader)
        one.scan(f"SN{reader[4:]}2", reader)
    assert went_in(one, 0) == [("L1", "P1", False)]
    assert went_in(one, 1) == [("L1", "P1", True)]
    one.restart()
    one.scan("SN8", "gate")
    one.scan("SN9", "gate")
    assert went_in(one) == [("L1", "P1", False)]
    assert one.findings().count("copied_lot") == 1


def test_a_reel_that_is_taken_off_first_may_go_anywhere() -> None:
    one = at_hand(material("left"), material("right", scanner="desk2"))
    one.scan("R:L1/P1", "desk")
    one.scan("EMPTY:left", "desk")
    one.scan("R:L1/P1", "desk2")
    assert "copied_lot" not in one.findings()


@pytest.mark.parametrize(
    "again", ["R:L1//AB-2/5/2030-01-31/ACME", "R:L1//AB-1/5/2030-02-01/ACME", "R:L1//AB-1/5/2030-01-31/EMCA"]
)
def test_the_same_lot_with_another_part_supplier_or_date_is_told(again: str) -> None:
    one = at_hand()
    one.scan("R:L1//AB-1/5/2030-01-31/ACME", "desk")
    one.scan("R:L2", "desk")
    one.restart()
    one.scan(again, "desk")
    assert len(finding(one, "copied_lot")["details"]["differs"]) == 1


def test_the_same_lot_that_says_less_is_no_contradiction() -> None:
    one = at_hand()
    one.scan("R:L1//AB-1/5/2030-01-31/ACME", "desk")
    one.scan("R:L2", "desk")
    one.scan("R:L1", "desk")
    assert one.findings() == []


def test_a_wrong_part_number_is_told_and_recorded_as_it_is() -> None:
    one = at_hand(material(part_numbers=frozenset({"AB-1"})))
    one.scan("R:L1//AB-2", "desk")
    told = finding(one, "wrong_material")
    assert told["details"] == {"name": "solder", "lot": "L1", "part_number": "AB-2", "allowed": ["AB-1"]}
    one.scan("SN1")
    one.scan("SN2")
    assert one.closed()[0]["suspect"] == ["wrong_material:solder"]
    assert went_in(one) == [("L1", None, True)]
    assert one.findings().count("wrong_material") == 1


def test_which_part_number_is_right_may_depend_on_the_unit() -> None:
    variants = {"V1": Variant(materials={"solder": frozenset({"AB-1"})}), "V2": Variant()}
    one = at_hand(variants=variants)
    one.scan("R:L1//AB-2", "desk")
    one.scan("SN1/V2")
    assert "wrong_material" not in one.findings()
    one.scan("SN2/V1")
    assert finding(one, "wrong_material")["cycle"] == one.of(Kind.CYCLE_OPENED)[-1]["cycle"]
    one.scan("SN3/V2")
    assert [body["suspect"] for body in one.closed()] == [[], ["wrong_material:solder"]]


def test_an_expired_lot_is_told_when_it_is_loaded_and_when_it_expires_on_the_machine() -> None:
    one = at_hand()
    one.scan("R:L1////2020-01-01", "desk")
    assert finding(one, "material_expired")["details"] == {"name": "solder", "lot": "L1", "expiry": "2020-01-01"}
    one.scan("SN1")
    assert one.findings() == ["material_expired"]
    one = at_hand()
    one.scan("R:L1////2026-11-19", "desk")  # the bench's clock says 2026-11-18
    one.scan("SN1")
    one.wait(86400.0)
    one.scan("SN2")
    assert one.findings() == []
    one.wait(86400.0)
    one.scan("SN3")
    assert one.findings() == ["material_expired"]


@pytest.mark.parametrize("label", ["R:L1///nan/2020", "R:L1///-5/31-12-20", "R:L1///1e99", "R:L1////2026-02-30"])
def test_nonsense_on_a_label_is_nothing_to_count_or_to_judge_by(label: str) -> None:
    one = at_hand(material(per_unit=1.0))
    one.scan(label, "desk")
    one.scan("SN1")
    one.scan("SN2")
    assert went_in(one)[0][0] == "L1"
    assert one.findings() == []


def test_one_label_may_be_of_a_package_alone() -> None:
    one = at_hand()
    one.scan("R:/P1", "desk")
    one.scan("SN1")
    one.scan("SN2")
    assert went_in(one) == [(None, "P1", True)]
    assert one.binder._floor.units.find("SN1").packages == {"P1"}  # type: ignore[union-attr]


def test_what_was_consumed_is_the_cycles_even_if_nobody_knows_whose_that_is() -> None:
    one = rig(press(Needs(materials=(material(),))))
    one.scan("R:L1", "desk")
    one.state(0)
    one.finish(1)
    assert one.closed()[-1]["binding"]["state"] == "orphan"
    assert went_in(one) == [("L1", None, True)]
    assert one.closed()[-1]["suspect"] == ["orphan"]


def test_status_shows_what_is_loaded() -> None:
    one = at_hand()
    one.scan("R:L1/P1", "desk")
    assert one.binder.snapshot()["OP20"]["materials"] == {"solder": [{"name": "solder", "lot": "L1", "package": "P1"}]}


def test_the_gate_hears_what_stands_against_the_material() -> None:
    one = at_hand(material("solder", part_numbers=frozenset({"AB-1"})), material("glue", scanner="desk2"))
    one.scan("R:L1//AB-2//2020-01-01", "desk")
    one.scan("SN1")
    station = one.binder._floor.stations["OP20"]
    unit = one.binder._floor.units.find("SN1")
    assert unit is not None
    draft = Draft("log1", one.now, one.seq)
    codes = [code for part in station.parts for code, _ in part.objections(station.positions[1], unit, draft)]
    assert codes == ["material_missing", "material_wrong", "material_expired"]
