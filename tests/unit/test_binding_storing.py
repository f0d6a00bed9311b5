"""What is stored: the ``store:`` policies, deadbands and heartbeats, and the body of a sample's record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from edge_agent.binding.plan import Plan
from edge_agent.model import Kind, Tag, TagSet
from support.binding_rig import OVEN, STATE, TAGSETS, Rig, plan, position, station, store


def rig_with(**policy: Any) -> Rig:
    """Only the oven's policy varies; the station is delimited by scans and claims the oven."""
    stores = {source: store(one) for source, one in TAGSETS.items()} | {"oven.air": store(OVEN, **policy)}
    place = position(end=None, collect=(), result=None, claims={"oven.air": ("heat",)})
    return Rig(Plan((station(place),), stores, {}))


def kept(rig: Rig, *heats: Any, seconds: float = 0.1) -> list[Any]:
    """Which of these heats were stored."""
    found = []
    for heat in heats:
        if rig.wait(seconds).sample("oven.air", [heat]):
            found.append(heat)
    return found


def test_always_stores_every_sample() -> None:
    assert kept(rig_with(always=True), 1.0, 1.0, 1.0) == [1.0, 1.0, 1.0]


def test_change_stores_changes_only_even_in_a_cycle() -> None:
    rig = rig_with(cycle=False)
    assert kept(rig, 1.0, 1.0, 2.0, 2.0, 1.0) == [1.0, 2.0, 1.0]
    rig.scan("SN1")
    assert kept(rig, 1.0, 1.0, 1.0) == [1.0], "the first in a cycle, or it would have no reading at all"


def test_cycle_stores_all_while_a_cycle_is_open_and_changes_otherwise() -> None:
    rig = rig_with()
    assert kept(rig, 1.0, 1.0) == [1.0]
    rig.scan("SN1")
    assert kept(rig, 1.0, 1.0) == [1.0, 1.0]
    rig.tick(61)
    assert kept(rig, 1.0, 1.0) == []


def test_an_interrupted_cycle_goes_on_storing_without_owning() -> None:
    rig = rig_with()
    rig.scan("SN1"), rig.gap("gate")
    assert kept(rig, 1.0, 1.0) == [1.0, 1.0]
    assert rig.records[-1][1].cycles == ()


def test_a_deadband_is_measured_from_what_was_stored() -> None:
    rig = rig_with(cycle=False, exact=(), deadbands=((0, 1.0),))
    assert kept(rig, 10.0, 10.4, 10.9, 11.0, 10.1, 10.0) == [10.0, 11.0, 10.0], "a slow drift cannot hide"


def test_a_deadband_is_that_of_each_element_of_an_array() -> None:
    rig = rig_with(cycle=False, exact=(), deadbands=((0, 1.0),))
    curves = [[1.0, 5.0], [1.4, 4.6], [1.4, 6.0], [1.4, None], [1.4, None], [1.4, None, 0.0]]
    assert kept(rig, *curves) == [curves[0], curves[2], curves[3], curves[5]]


def test_a_value_that_is_lost_or_comes_back_is_a_change() -> None:
    rig = rig_with(cycle=False, exact=(), deadbands=((0, 1.0),))
    assert kept(rig, 10.0, None, None, 10.0) == [10.0, None, 10.0]


def test_a_heartbeat_falls_due() -> None:
    rig = rig_with(cycle=False, heartbeat_s=5.0)
    assert len(kept(rig, *[1.0] * 110)) == 3


def test_only_the_tags_without_a_deadband_are_compared_exactly() -> None:
    stores = {"press.state": store(STATE, cycle=False, exact=(0, 2), deadbands=((1, 5.0),))}
    rig = Rig(replace(plan(), stations=(), stores=stores))
    rows = [[0, 0, 0, "", 0], [0, 4, 0, "", 0], [0, 4, 1, "", 0], [0, 4, 1, "x", 9], [0, 5, 1, "", 0], [0, 9, 1, "", 0]]
    assert [bool(rig.sample("press.state", row)) for row in rows] == [True, False, True, False, False, True]


def test_an_edge_is_evidence_and_stored_though_nothing_asks_for_it() -> None:
    stores = {source: store(one, cycle=False, exact=()) for source, one in TAGSETS.items()}
    rig = Rig(replace(plan(), stores=stores))
    rig.state(0), rig.state(0)
    known = rig.seq
    rig.state(1)
    assert rig.seq == known + 1


def test_a_group_that_no_policy_names_is_stored() -> None:
    rig = Rig(replace(plan(), stations=(), stores={}))
    assert kept(rig, 1.0, 1.0) == [1.0, 1.0]


def test_the_record_of_a_sample() -> None:
    rig = rig_with()
    rig.scan("SN1")
    rig.sample("oven.air", [None], took_s=0.0034, status={0: "exception 2"})
    _, record, body = rig.records[-1]
    assert body == {"tagset": OVEN.id, "took_us": 3400, "values": [None], "status": {"0": "exception 2"}}
    assert (record.kind, record.source, record.at) == (Kind.SAMPLE, "oven.air", rig.now)
    assert record.cycles == (rig.registry.open_cycles()[0].cycle,)
    orjson.dumps(record.body)


def test_a_tagset_with_other_tags_is_another() -> None:
    other = TagSet("oven", "air", (Tag("heat", "float64", "°C"),))
    assert other.id != OVEN.id
