"""Marriage and removal: what is built into what, on which scans, and when it is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edge_agent.binding.manual import Rebind
from edge_agent.binding.needs import Needs, Variant
from edge_agent.binding.seen import Reads
from edge_agent.binding.units import Unit
from edge_agent.model import Kind
from support import binding_rig as bench
from support.binding_rig import Rig
from support.needs_rig import CHILD, component, finding, hand, material, press, rig


def at_hand(*components: Any, **needs: Any) -> Rig:
    return rig(hand(Needs(components=components or (component(),), **needs)))


def unit_of(one: Rig, serial: str) -> Unit:
    found = one.binder._floor.units.find(serial)
    assert found is not None
    return found


def installed(one: Rig) -> list[tuple[str, str, str]]:
    return [(body["op"], body["parent_serial"], body["child_serial"]) for body in one.of(Kind.GENEALOGY)]


def test_a_component_that_is_read_while_the_parent_is_at_work_is_installed_in_it() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    scan = one.seq - 3  # its scan, its identifier, its installation
    one.scan("SN2")
    (body,) = one.of(Kind.GENEALOGY)
    assert body["op"] == "install"
    assert (body["parent_serial"], body["child_serial"], body["name"]) == ("SN1", "B1", "pcb")
    assert body["cycle"] == one.closed()[0]["cycle"]
    assert body["evidence"] == [scan]
    assert body["child"] == unit_of(one, "B1").unit
    assert one.closed()[0]["completeness"] == "complete"


def test_without_its_component_a_unit_is_incomplete() -> None:
    one = at_hand(component(count=2))
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("SN2")
    assert one.closed()[0]["missing"] == ["component:pcb"]
    one.scan("C:B2", "desk")
    one.scan("C:B3", "desk")
    one.scan("SN3")
    assert one.closed()[1]["missing"] == []


def test_a_component_that_is_read_again_is_installed_once() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("C:B1", "desk")
    assert len(installed(one)) == 1
    assert one.findings() == []


def test_a_unit_keeps_its_components_at_the_next_attempt() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("SN2")
    one.restart()
    one.scan("SN1")
    one.scan("SN3")
    assert one.closed()[-1]["missing"] == []


@pytest.mark.parametrize("before", [[], ["SN1", "SN2"]])
def test_without_a_unit_at_work_a_component_is_not_taken(before: list[str]) -> None:
    one = rig(press(Needs(components=(component(),))))
    one.state(0)
    for number, serial in enumerate(before, 1):
        one.put_in(serial)
        one.finish(number)
    one.scan("C:B1", "desk")
    assert installed(one) == []
    assert finding(one, "unmatched_scan")["details"]["child"] == "B1"


def test_in_an_interrupted_cycle_nothing_is_installed() -> None:
    one = rig(press(Needs(components=(component(),))))
    one.state(0)
    one.put_in("SN1")
    one.gap("press")
    one.scan("C:B1", "desk")
    assert installed(one) == []
    assert "not certain" in finding(one, "unmatched_scan")["text"]
    one.state(0)
    one.put_in("SN1")
    one.scan("C:B1", "desk")
    one.state(0)
    assert installed(one) == [("install", "SN1", "B1")]


def test_a_cycle_that_was_open_over_a_restart_takes_no_component() -> None:
    one = at_hand()
    one.scan("SN1")
    one.restart()
    one.scan("C:B1", "desk")
    assert installed(one) == []
    one.scan("SN1")
    one.scan("C:B1", "desk")
    assert installed(one) == [("install", "SN1", "B1")]


def test_a_component_waits_for_its_parent_whose_scan_waits_for_the_plc() -> None:
    one = rig(press(Needs(components=(component(),))))
    one.state(0)
    one.put_in("SN1")
    one.scan("SN2")
    one.scan("C:B2", "desk")  # of SN2, though SN1's cycle is still open
    assert installed(one) == []
    one.state(0)
    one.tick()
    assert installed(one) == [("install", "SN2", "B2")]
    assert one.of(Kind.GENEALOGY)[0]["cycle"] == one.of(Kind.CYCLE_OPENED)[1]["cycle"]


def test_a_component_whose_parent_is_done_at_once_is_still_its_parents() -> None:
    one = rig(press(Needs(components=(component(),))))
    one.state(0)
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.state(0)
    one.finish(1)
    assert installed(one) == [("install", "SN1", "B1")]
    assert one.closed()[0]["missing"] == []


def test_a_component_waits_for_a_read_that_shows_its_unit_unfinished() -> None:
    one = rig(press(Needs(components=(component("left"), component("right")))))
    one.state(0)
    one.put_in("SN1")
    began_s = one.mono_ns / bench.SECOND
    one.scan("C:B1", "desk")
    one.scan("C:B2", "desk")
    assert "press.state" in one.reads()[-2:]
    one.late_sample("press.state", {"ready": 0}, one.mono_ns / bench.SECOND - began_s, 0.0)
    assert installed(one) == [], "that read began before the scan"
    one.state(0)
    assert installed(one) == [("install", "SN1", "B1"), ("install", "SN1", "B2")]
    assert [body["name"] for body in one.of(Kind.GENEALOGY)] == ["left", "right"]
    assert one.findings() == []


@pytest.mark.parametrize("end", [bench.HANDSHAKE, bench.EDGE, bench.BARE_EDGE])
def test_a_component_that_is_read_before_the_end_was_polled_is_nobodys(end: Any) -> None:
    place = bench.position(result=None, collect=(), end=end)
    one = rig(press(Needs(components=(component(),)), place=place))
    one.state(0)
    one.put_in("SN1")
    one.scan("C:B2", "desk")  # of SN2, whose own label comes late
    one.state(1)
    one.scan("C:B3", "desk")  # the result is being read, or was
    one.result(1)
    one.result(1)
    assert installed(one) == []
    assert one.findings().count("unmatched_scan") == 2
    first = next(body for body in one.of(Kind.FINDING) if body["code"] == "unmatched_scan")
    assert "SN1 ended before the PLC was read" in first["text"]
    assert first["cycle"] == one.closed()[0]["cycle"]
    assert (first["serial"], first["details"]["child"]) == ("SN1", "B2")
    assert one.closed()[0]["missing"] == ["component:pcb"]
    one.state(0)
    one.put_in("SN2")
    one.scan("C:B2", "desk")
    one.state(0)
    assert installed(one) == [("install", "SN2", "B2")]


def test_within_min_time_of_its_units_scan_a_component_needs_no_read() -> None:
    one = rig(press(Needs(components=(component(count=2),)), min_s=1.0))
    one.state(0)
    one.put_in("SN1")
    one.scan("C:B1", "desk")
    assert installed(one) == [("install", "SN1", "B1")]
    one.wait(1.0).scan("C:B2", "desk")
    assert len(installed(one)) == 1
    one.gap("press")
    assert "not certain" in finding(one, "unmatched_scan")["text"]


def test_components_do_not_wait_for_ever_nor_in_any_number() -> None:
    one = rig(press(Needs(components=(component(count=20),))))
    one.plan.gap_s.clear()
    one.restart()
    one.state(0)
    one.put_in("SN1")
    for number in range(9):
        one.scan(f"C:B{number}", "desk")
    assert "too many" in finding(one, "unmatched_scan")["text"]
    one.tick(5.2)
    assert one.findings().count("unmatched_scan") == 9
    one.state(0)
    assert installed(one) == []


def test_what_waits_is_told_when_it_is_taken_out_and_when_the_agent_stops() -> None:
    one = rig(press(Needs(components=(component(count=2),))))
    one.state(0)
    one.put_in("SN1")
    one.scan("C:B1", "desk")
    one.scan("C:B2", "desk")
    one.scan("REMOVE", "desk")
    one.scan("C:B1", "desk")
    one._take(one.binder.stop(one.now, one.seq))
    texts = [body["text"] for body in one.of(Kind.FINDING)]
    assert ["B1" in texts[0], "taken out" in texts[0], "B2" in texts[1], "stopped" in texts[1]] == [True] * 4
    one.state(0)
    assert installed(one) == []


def test_a_component_of_a_batch_waits_for_its_lots_scan_too() -> None:
    lots = re.compile(r"LOT(?P<lot>\d+)")
    one = rig(press(Needs(components=(component(),)), of="lot", pattern=lots))
    one.state(0)
    one.scan("LOT1")
    one.scan("C:B1", "desk")
    one.state(0)
    assert installed(one) == [("install", "1", "B1")]


def test_a_component_whose_parent_opens_interrupted_is_refused() -> None:
    one = rig(press(Needs(components=(component(),))))
    one.state(0)
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.gap("press")
    one.tick()
    assert installed(one) == []
    assert finding(one, "unmatched_scan")["details"]["child"] == "B1"


def test_where_several_units_are_at_work_one_scanner_cannot_tell_whose_it_is() -> None:
    places = [
        bench.position(number, end=None, collect=(), result=None, claims={}, scanner=name)
        for number, name in ((1, "gate"), (2, "gate2"))
    ]
    one = rig(bench.station(*places, needs=Needs(components=(component(positions=(1, 2)),)), bounce_s=0.0))
    one.scan("SN1", "gate")
    one.scan("C:B1", "desk")
    one.scan("SN2", "gate2")
    one.scan("C:B2", "desk")
    assert installed(one) == [("install", "SN1", "B1")]
    assert "several units" in finding(one, "unmatched_scan")["text"]


def test_a_component_that_is_in_another_unit_stays_there() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("SN2")
    one.scan("C:B1", "desk")
    assert installed(one) == [("install", "SN1", "B1")]
    told = finding(one, "component_reused")
    assert (told["serial"], told["details"]["child"]) == ("SN2", "B1")
    one.restart()
    one.scan("SN3")
    one.scan("C:B1", "desk")
    assert one.findings().count("component_reused") == 2


def test_one_component_too_many_is_not_taken() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("C:B2", "desk")
    assert installed(one) == [("install", "SN1", "B1")]
    assert "has its pcb already" in finding(one, "unmatched_scan")["text"]


def test_of_alike_labels_each_component_gets_its_own() -> None:
    one = at_hand(component("left"), component("right"))
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("C:B2", "desk")
    assert [body["name"] for body in one.of(Kind.GENEALOGY)] == ["left", "right"]


def test_a_component_of_the_wrong_part_number_is_not_installed() -> None:
    variants = {"V2": Variant(components={"pcb": frozenset({"AB-2"})})}
    one = at_hand(component(part_numbers=frozenset({"AB-1"})), variants=variants)
    one.scan("SN1")
    one.scan("C:B1/AB-2", "desk")
    assert finding(one, "wrong_material")["details"]["allowed"] == ["AB-1"]
    one.scan("C:B2", "desk")  # it does not say
    one.scan("C:B3/AB-1", "desk")
    one.scan("SN2/V2")
    one.scan("C:B1/AB-2", "desk")
    assert installed(one) == [("install", "SN1", "B3"), ("install", "SN2", "B1")]
    assert one.findings().count("wrong_material") == 2


def test_a_unit_is_never_in_itself_at_any_depth() -> None:
    one = at_hand(component(count=9))
    one.scan("SN1")
    one.scan("C:SN1", "desk")
    one.scan("C:SN2", "desk")
    one.scan("SN2")
    one.scan("C:SN3", "desk")
    one.scan("SN3")
    one.scan("C:SN1", "desk")
    assert installed(one) == [("install", "SN1", "SN2"), ("install", "SN2", "SN3")]
    assert one.findings().count("component_reused") == 2
    one.restart()
    one.scan("SN3")
    one.scan("C:SN1", "desk")
    assert len(installed(one)) == 2


def test_remove_takes_a_component_out_and_another_may_come_in() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("REMOVE", "desk")
    one.scan("C:B1", "desk")
    one.scan("C:B2", "desk")
    one.scan("SN2")
    one.scan("C:B1", "desk")
    assert installed(one) == [
        ("install", "SN1", "B1"), ("uninstall", "SN1", "B1"), ("install", "SN1", "B2"), ("install", "SN2", "B1"),
    ]  # fmt: skip
    assert one.findings() == []
    assert one.registry.children_of(unit_of(one, "SN1").unit)[0].child_serial == "B2"


def test_remove_is_for_the_unit_at_work_and_not_for_ever() -> None:
    one = at_hand()
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("SN2")
    one.scan("REMOVE", "desk")
    one.scan("C:B1", "desk")
    assert "it is in SN1, not in SN2" in finding(one, "unmatched_scan")["text"]
    one.scan("REMOVE", "desk")
    one.wait(61.0)
    one.scan("C:B2", "desk")
    assert installed(one) == [("install", "SN1", "B1"), ("install", "SN2", "B2")]


def test_the_scanner_for_removal_takes_out_of_whatever_it_is_in() -> None:
    one = at_hand(remove=Reads("scrap", CHILD, frozenset()))
    one.scan("SN1")
    one.scan("C:B1", "desk")
    one.scan("SN2")
    one.scan("C:B1", "scrap")
    one.scan("C:B9", "scrap")
    assert installed(one) == [("install", "SN1", "B1"), ("uninstall", "SN1", "B1")]
    assert finding(one, "unmatched_scan")["details"]["child"] == "B9"


def test_lots_flow_up_to_every_unit_above_and_leave_with_the_component() -> None:
    needs = Needs(materials=(material(scanner="reel"),), components=(component(required=False),))
    one = rig(hand(needs))
    one.scan("R:L1", "reel")
    one.scan("SN3")
    one.scan("C:B1//X1", "desk")
    one.scan("R:L2", "reel")
    one.scan("SN2")
    one.scan("C:SN3", "desk")
    one.scan("R:L3", "reel")
    one.scan("SN1")
    one.scan("C:SN2", "desk")
    one.scan("SN9")
    assert unit_of(one, "SN3").lots == {"L1", "L2", "X1"}
    assert unit_of(one, "SN1").lots == {"L1", "L2", "L3", "X1"}
    known = one.registry.unit("serial", "SN1")
    assert known is not None
    assert known.lots == unit_of(one, "SN1").lots
    one.restart()
    one.scan("SN2")
    one.scan("REMOVE", "desk")
    one.scan("C:SN3", "desk")
    assert unit_of(one, "SN2").lots == {"L2", "L3"}
    assert unit_of(one, "SN1").lots == {"L3", "L2"}
    assert unit_of(one, "SN3").lots == {"L1", "L2", "X1"}
    known = one.registry.unit("serial", "SN1")
    assert known is not None
    assert known.lots == {"L3", "L2"}


def test_a_lot_that_went_in_by_itself_stays_when_a_component_with_the_same_lot_leaves() -> None:
    needs = Needs(materials=(material(scanner="reel"),), components=(component(required=False),))
    one = rig(hand(needs))
    one.scan("R:L1", "reel")
    one.scan("SN2")
    one.scan("SN1")
    one.scan("C:SN2", "desk")
    one.scan("SN9")
    one.restart()
    one.scan("SN1")
    one.scan("REMOVE", "desk")
    one.scan("C:SN2", "desk")
    assert unit_of(one, "SN1").lots == {"L1"}


def test_what_a_cycle_consumed_goes_with_it_when_a_person_binds_it_to_another_unit() -> None:
    needs = Needs(materials=(material(scanner="reel"),), components=(component(required=False),))
    one = rig(hand(needs))
    one.scan("SN3")  # the one above
    one.scan("C:SN1", "desk")
    one.scan("R:L1", "reel")
    one.scan("SN1")
    one.scan("R:L2", "reel")
    one.scan("SN2")
    one.scan("SN9")
    cycle = next(body["cycle"] for body in one.closed() if body["binding"].get("serial") == "SN1")
    assert unit_of(one, "SN3").lots == {"L1", "L2"}
    outcome, _ = one.binder.act(Rebind(cycle, "SN2", True, False, "anna", "the labels were swapped"), one.now, one.seq)
    one._take(outcome)
    one.tick()
    assert (unit_of(one, "SN1").lots, unit_of(one, "SN3").lots) == (set(), {"L1"})  # its own cycle took L1 too
    assert unit_of(one, "SN2").lots == {"L1", "L2"}


def test_what_a_cycle_consumed_is_its_units_once_a_late_scan_names_it() -> None:
    needs = Needs(materials=(material(scanner="reel"),), previous=("weld",))
    place = bench.position(end=bench.HANDSHAKE)
    one = rig(bench.station(place, needs=needs, identity="after", bounce_s=0.0))
    one.scan("R:L1", "reel")
    one.state(0)
    one.finish(1)
    one.scan("SN1")
    one.state(0)
    one.tick()
    assert one.closed()[0]["materials"] == [{"name": "solder", "lot": "L1", "certain": True}]
    assert one.binding()["state"] == "bound"
    assert unit_of(one, "SN1").lots == {"L1"}
    assert finding(one, "missing_step")["serial"] == "SN1"


def test_a_batch_that_is_known_by_its_lot_may_have_components_too() -> None:
    lots = re.compile(r"LOT(?P<lot>\d+)")
    one = rig(hand(Needs(components=(component(),)), of="lot", pattern=lots))
    one.scan("LOT1")
    one.scan("C:B1", "desk")
    one.scan("LOT2")
    assert installed(one) == [("install", "1", "B1")]
    assert one.closed()[0]["missing"] == []
    one.scan("C:B1", "desk")
    assert finding(one, "component_reused")
