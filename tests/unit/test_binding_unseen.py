"""What was not seen: a tag that could not be read, and a scan whose reader went away before it took effect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.binding.plan import Edge, Handshake
from support.binding_rig import BARE_EDGE, EDGE, HANDSHAKE, UNCOUNTED, Rig, plan, position, station, tag


def unreadable(rig: Rig) -> None:
    """A poll whose ready could not be read: the rest of the block answers."""
    rig.wait().sample("press.state", [None, 1, 0, 0, 0], status={0: "exception 2"})


@pytest.mark.parametrize("end", [HANDSHAKE, UNCOUNTED, EDGE, BARE_EDGE])
def test_a_delimiting_tag_that_stays_unreadable_is_an_observation_gap(end: Handshake | Edge) -> None:
    rig = Rig(plan(station(position(end=end)))).put_in("SN1")
    for _ in range(15):  # 1.5 s, in which the press finishes SN1 and somebody puts another unit in
        unreadable(rig)
    rig.state(1)
    for _ in range(2):
        rig.result(1)
    ended = [body["binding"] for body in rig.closed() if body["closed_by"] != "interrupted"]
    assert [binding for binding in ended if "serial" in binding] == []
    assert "observation_gap" in rig.findings()


def test_a_delimiting_tag_beside_an_unreadable_one_is_still_observed() -> None:
    other = replace(UNCOUNTED, ready=tag("press.beside"))
    one = position(1, end=other, scanner="g1")
    rig = Rig(plan(station(one, position(2, end=UNCOUNTED, scanner="g2"))))
    rig.state(0)
    rig.scan("SN1", "g1")
    rig.state(0)
    for _ in range(15):
        unreadable(rig)
    rig.state(0, beside=1)
    rig.result(0)
    assert [body["binding"].get("serial") for body in rig.closed()] == ["SN1"]


@pytest.mark.parametrize("end", [HANDSHAKE, UNCOUNTED, EDGE, BARE_EDGE])
def test_a_scan_does_not_take_effect_on_a_read_that_does_not_show_the_tag(end: Handshake | Edge) -> None:
    rig = Rig(plan(station(position(end=end)))).put_in("SN1")
    rig.scan("SN2")  # the press finished SN1 just before, and the next poll does not show it
    unreadable(rig)
    rig.state(1)
    for _ in range(2):
        rig.result(1)
    rig.state(0)
    assert [(body["closed_by"] == "next_scan", body["binding"]["serial"]) for body in rig.closed()] == [(False, "SN1")]


@pytest.mark.parametrize("end", [HANDSHAKE, UNCOUNTED, EDGE])
def test_a_scan_that_waits_while_its_reader_is_lost_opens_interrupted(end: Handshake | Edge) -> None:
    rig = Rig(plan(station(position(end=end))))
    rig.state(0)
    rig.scan("SN2")
    rig.gap("gate", since_s=0.0)  # from now on another unit's scan would not be heard
    rig.state(0)
    rig.state(1)
    for _ in range(2):
        rig.result(1)
    assert [(body["closed_by"], body["binding"].get("serial")) for body in rig.closed()] == [
        ("interrupted", "SN2"),
        ("edge" if isinstance(end, Edge) else "handshake", None),
    ]


def test_a_first_result_after_a_reset_that_stood_there_before_the_unit_is_not_the_units() -> None:
    rig = Rig().put_in("SN1").finish(500)
    rig.scan("SN2")  # the PLC was reset meanwhile and has finished a unit that nobody scanned
    rig.state(0)
    rig.result(1)
    rig.state(1)
    for _ in range(2):
        rig.result(1)
    assert [body["binding"]["state"] for body in rig.closed()] == ["bound", "ambiguous"]
