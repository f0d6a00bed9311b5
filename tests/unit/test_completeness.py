"""Complete, incomplete, suspect; limits by part number; steps that were never done; values that are too much alike."""

from __future__ import annotations

import pytest

from edge_agent.binding.completeness import missing_steps
from edge_agent.binding.needs import Needs, Required, Variant
from edge_agent.binding.plan import Characteristic, Context
from edge_agent.binding.state import StepResult, StepStatus
from edge_agent.binding.units import Unit
from edge_agent.model import Kind, Result
from support import binding_rig as bench
from support.binding_rig import Rig
from support.needs_rig import component, finding, hand, material, press, rig

FORCE = Characteristic("force", bench.tag("press.force"), True, 10.0, 20.0)


def at_press(needs: Needs, **changes: object) -> Rig:
    one = rig(press(needs, **changes))
    one.state(0)
    return one


def work(one: Rig, serial: str, count: int, force: float | None = 15.0) -> dict[str, object]:
    """Scan a unit, press it, and return its closed cycle."""
    one.put_in(serial)
    one.state(1)
    one.sample("press.result", {"count": count, "force": force, "ok": True})
    one.sample("press.result", {"count": count, "force": force, "ok": True})
    one.state(0)
    return one.closed()[-1]


def test_a_cycle_that_has_everything_is_complete() -> None:
    needs = Needs(materials=(material(),), components=(component(),), context=frozenset({"operator"}))
    one = at_press(needs, context=(bench.badge(),))
    one.scan("R:L1", "desk")
    one.scan("OP:anna", "badge")
    one.put_in("SN1")
    one.scan("C:B1", "desk")
    one.state(0)
    one.finish(1)
    closed = one.closed()[-1]
    assert (closed["completeness"], closed["missing"], closed["suspect"]) == ("complete", [], [])
    assert closed["complete"] is True


def test_a_cycle_that_lacks_everything_says_what() -> None:
    needs = Needs(materials=(material(),), components=(component(),), context=frozenset({"operator"}))
    one = at_press(needs, context=(bench.badge(),))
    closed = work(one, "SN1", 1, force=None)
    assert closed["missing"] == ["force", "context:operator", "material:solder", "component:pcb"]
    assert closed["completeness"] == "incomplete"
    assert closed["complete"] is False
    assert finding(one, "missing_field")["details"] == {"missing": closed["missing"]}


def test_what_is_missing_beside_the_values_does_not_make_the_work_bad() -> None:
    one = at_press(Needs(materials=(material(),)))
    closed = work(one, "SN1", 1)
    assert closed["result"] == Result.PASSED
    assert closed["missing"] == ["material:solder"]


def test_who_comes_while_the_unit_is_at_work_counts() -> None:
    one = at_press(Needs(context=frozenset({"operator"})), context=(bench.badge(),))
    one.put_in("SN1")
    one.scan("OP:anna", "badge")
    one.finish(1)
    assert one.closed()[-1]["completeness"] == "complete"


def test_an_operator_who_was_there_before_a_restart_is_suspect_until_the_next_badge() -> None:
    one = at_press(Needs(context=frozenset({"operator"})), context=(bench.badge(),))
    one.scan("OP:anna", "badge")
    work(one, "SN1", 1)
    one.put_in("SN2")
    one.restart()
    one.state(0)
    assert work(one, "SN3", 2)["suspect"] == ["context:operator"]
    one.scan("OP:anna", "badge")
    assert work(one, "SN4", 3)["suspect"] == []


@pytest.mark.parametrize(
    ("part", "force", "judgement", "result"),
    [
        ("V1", 15.0, "ok", "Passed"),
        ("V2", 15.0, "low", "Failed"),
        ("V2", 35.0, "ok", "Passed"),
        ("V3", 99.0, "unjudged", "Passed"),
        ("V4", 15.0, "ok", "Passed"),
    ],
)
def test_limits_by_part_number(part: str, force: float, judgement: str, result: str) -> None:
    variants = {
        "V1": Variant(limits={"force": (10.0, 20.0)}),
        "V2": Variant(limits={"force": (30.0, 40.0)}),
        "V3": Variant(limits={"force": (None, None)}),
        "V4": Variant(),
    }
    one = at_press(Needs(variants=variants))
    closed = work(one, f"SN1/{part}", 1, force)
    (item,) = closed["collected"]  # type: ignore[misc]
    assert (item["judgement"], closed["result"]) == (judgement, result)
    assert item.get("limits_from") == (None if part == "V4" else part)
    assert closed["completeness"] == "complete"


def test_the_part_number_of_the_context_goes_before_that_of_the_label() -> None:
    variants = {"V1": Variant(limits={"force": (10.0, 20.0)}), "V2": Variant(limits={"force": (30.0, 40.0)})}
    one = at_press(Needs(variants=variants), context=(Context("part_number", "badge", None, None),))
    one.scan("V2", "badge")
    closed = work(one, "SN1", 1, 35.0)
    assert (closed["result"], closed["suspect"]) == ("Passed", [])
    closed = work(one, "SN2/V1", 2, 35.0)
    assert (closed["result"], closed["suspect"]) == ("Passed", ["part_number"])
    one.put_in("SN3")
    one.scan("V1", "badge")  # the changeover comes before the last unit is done
    one.finish(3, 35.0)
    assert one.closed()[-1]["collected"][0]["limits_from"] == "V2"


@pytest.mark.parametrize(("label", "missing"), [("SN1", "context:part_number"), ("SN1/V9", "limits:V9")])
def test_an_unknown_part_number_is_missing_and_the_stations_limits_hold(label: str, missing: str) -> None:
    one = at_press(Needs(variants={"V1": Variant(limits={"force": (30.0, 40.0)})}))
    closed = work(one, label, 1, 15.0)
    assert closed["missing"] == [missing]
    assert closed["result"] == "Passed"
    assert closed["collected"][0]["low"] == 10.0  # type: ignore[index]
    assert finding(one, "missing_field")["details"] == {"missing": [missing]}


def test_a_part_number_may_need_more() -> None:
    needs = Needs(
        materials=(material(required=False),),
        components=(component(required=False),),
        variants={
            "V1": Variant(require=Required(frozenset(), frozenset({"solder"}), frozenset({"pcb"}))),
            "V2": Variant(),
        },
    )
    one = at_press(needs)
    assert work(one, "SN1/V1", 1)["missing"] == ["material:solder", "component:pcb"]
    assert work(one, "SN2/V2", 2)["missing"] == []


def test_an_orphan_is_suspect_and_has_no_components() -> None:
    one = at_press(Needs(components=(component(),)))
    one.finish(1)
    closed = one.closed()[-1]
    assert (closed["completeness"], closed["suspect"]) == ("suspect", ["orphan"])
    assert closed["missing"] == ["component:pcb"]


def test_an_interrupted_cycle_is_suspect() -> None:
    one = at_press(Needs())
    one.put_in("SN1")
    one.gap("press")
    one.state(0)
    one.put_in("SN2")
    closed = one.closed()[-1]
    assert (closed["closed_by"], closed["suspect"]) == ("interrupted", ["interrupted"])


def test_torn_values_are_suspect() -> None:
    one = at_press(Needs())
    one.put_in("SN1")
    one.state(1)
    for count in range(1, 7):
        one.result(count)
    closed = one.closed()[-1]
    assert closed["binding"]["state"] == "ambiguous"
    assert closed["suspect"] == ["torn_read", "ambiguous"]


# --- steps before ----------------------------------------------------------------------------------------------


def two_steps() -> Rig:
    places = [bench.position(end=None, collect=(), result=None, claims={}, scanner=name) for name in ("gate", "gate2")]
    second = hand(Needs(previous=("press-fit", "weld")), place=places[1], name="OP30", step="test")
    return rig(hand(Needs(), place=places[0]), second)


def test_a_unit_that_skipped_a_step_is_told_once_it_is_at_the_next() -> None:
    one = two_steps()
    one.scan("SN1", "gate")
    one.scan("SN2", "gate")
    one.scan("SN1", "gate2")
    told = finding(one, "missing_step")
    assert (told["serial"], told["details"]) == ("SN1", {"missing": ["weld"], "known": ["press-fit"]})
    assert told["cycle"] == one.of(Kind.CYCLE_OPENED)[-1]["cycle"]
    one.scan("SN9", "gate2")
    assert one.of(Kind.FINDING)[-1]["details"] == {"missing": ["press-fit", "weld"], "known": []}


def test_what_another_agent_did_counts_as_done() -> None:
    one = two_steps()
    one.scan("SN1", "gate")
    one.scan("SN2", "gate")
    said = StepStatus("weld", "Failed", True, 1, one.now.at_ns, one.now.at_ns, "l3-pc2")
    one.binder._floor.status._serials["SN1"] = {("l3-pc2", "weld"): said}
    one.scan("SN1", "gate2")
    assert "missing_step" not in one.findings()


def test_missing_steps() -> None:
    unit = Unit("u", "SN1", results={"a": StepResult("Failed", True, 1, "c")})
    said = [StepStatus("b", "Passed", None, None, None, 1, "mes")]
    assert missing_steps(unit, ["a", "b", "c", "d"], said) == ["c", "d"]
    assert missing_steps(unit, [], said) == []


# --- values that are too much alike ----------------------------------------------------------------------------


def test_the_same_value_for_so_many_units_in_a_row_is_told_once() -> None:
    one = at_press(Needs(identical={"force": 3}))
    for number in range(1, 6):
        work(one, f"SN{number}", number, 15.0)
    told = finding(one, "identical_entries")
    assert told["details"] == {"name": "force", "value": 15.0, "count": 3}
    assert told["serial"] == "SN3"
    for number in range(6, 9):
        work(one, f"SN{number}", number, 16.0)
    assert one.findings().count("identical_entries") == 2


def test_the_same_value_of_one_unit_that_is_measured_again_is_no_sign() -> None:
    one = at_press(Needs(identical={"force": 3}))
    work(one, "SN1", 1)
    for count in range(2, 5):
        work(one, "SN2", count)
    assert "identical_entries" not in one.findings()
    work(one, "SN3", 5, 16.0)
    work(one, "SN4", 6, 15.0)
    assert "identical_entries" not in one.findings()


def test_every_station_says_whether_a_cycle_is_complete() -> None:
    one = Rig()
    one.state(0)
    assert work(one, "SN1", 1)["completeness"] == "complete"
