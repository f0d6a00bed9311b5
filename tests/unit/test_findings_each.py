"""Every finding can be reproduced: its code has a test that raises it, on evidence that stands in the log."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.binding.findings import SEVERITY
from edge_agent.binding.needs import Needs
from edge_agent.binding.plan import Gate
from edge_agent.binding.status import UnitStatusSaid
from support import binding_rig as bench
from support.binding_rig import Rig
from support.needs_rig import component, finding, hand, material, press, rig

TESTS = Path(__file__).resolve().parents[1]


def missing_step() -> Rig:
    one = rig(hand(Needs(previous=("weld",))))
    one.scan("SN1")
    return one


def missing_field() -> Rig:
    one = rig(press(Needs(materials=(material(),))))
    one.state(0)
    one.put_in("SN1")
    one.finish(1)
    return one


def wrong_material() -> Rig:
    one = rig(hand(Needs(materials=(material(part_numbers=frozenset({"AB-1"})),))))
    one.scan("R:L1//AB-2", "desk")
    return one


def wrong_component() -> Rig:
    one = rig(hand(Needs(components=(component(part_numbers=frozenset({"AB-1"})),))))
    one.scan("SN1")
    one.scan("C:B1/AB-2", "desk")
    return one


def material_expired() -> Rig:
    one = rig(hand(Needs(materials=(material(),))))
    one.scan("R:L1////2020-01-01", "desk")
    return one


def negative_balance() -> Rig:
    one = rig(hand(Needs(materials=(material(per_unit=1.5),))))
    one.scan("R:L1/P1//2", "desk")
    for number in range(1, 4):
        one.scan(f"SN{number}")
    return one


def copied_lot() -> Rig:
    one = rig(hand(Needs(materials=(material(),))))
    for label in ("R:L1//AB-1", "R:L2", "R:L1//AB-2"):
        one.scan(label, "desk")
    return one


def copied_package() -> Rig:
    one = rig(hand(Needs(materials=(material("left"), material("right", scanner="desk2")))))
    one.scan("R:L1/P1", "desk")
    one.scan("R:L1/P1", "desk2")
    return one


def component_reused() -> Rig:
    one = rig(hand(Needs(components=(component(),))))
    for label, reader in (("SN1", "gate"), ("C:B1", "desk"), ("SN2", "gate"), ("C:B1", "desk")):
        one.scan(label, reader)
    return one


def unmatched_component() -> Rig:
    one = rig(hand(Needs(components=(component(),))))
    one.scan("C:B1", "desk")
    return one


def unknown_reel() -> Rig:
    one = rig(hand(Needs(materials=(material(),))))
    one.scan("what is this", "desk")
    return one


def identical_entries() -> Rig:
    entered = (bench.Characteristic("torque", bench.tag("press.temp"), False, None, None),)
    place = bench.position(end=None, collect=entered, result=None, claims={"press.state": ("temp",)})
    one = rig(hand(Needs(identical={"torque": 2}), place=place))
    for number in range(1, 4):
        one.scan(f"SN{number}")
        one.state(temp=7)
    return one


def gate_open() -> Rig:
    gate = Gate(previous=("weld",), max_age_s=600.0, fail_open=True)
    one = rig(hand(Needs(), gate=gate))
    one._take(one.binder.act(UnitStatusSaid("mes", "SN1", "weld", "Passed"), one.now, one.seq)[0])
    one.wait(601.0)
    one.scan("SN1")
    return one


CASES = {
    missing_step: "missing_step",
    missing_field: "missing_field",
    wrong_material: "wrong_material",
    wrong_component: "wrong_material",
    material_expired: "material_expired",
    negative_balance: "negative_balance",
    copied_lot: "copied_lot",
    copied_package: "copied_lot",
    component_reused: "component_reused",
    unmatched_component: "unmatched_scan",
    unknown_reel: "unmatched_scan",
    identical_entries: "identical_entries",
    gate_open: "gate_open",
}


@pytest.mark.parametrize(("case", "code"), CASES.items(), ids=lambda one: getattr(one, "__name__", one))
def test_it_is_raised_once_with_evidence(case: Callable[[], Rig], code: str) -> None:
    one = case()
    assert one.findings() == [code]
    told = finding(one, code)
    assert told["severity"] == SEVERITY[code]


def test_every_code_stands_in_a_test() -> None:
    texts = "".join(path.read_text() for path in TESTS.rglob("*.py") if path != Path(__file__))
    tested = set(re.findall(r"[\"']([a-z_]+)[\"']", texts)) | set(CASES.values())
    assert set(SEVERITY) <= tested
