"""Scan in, scan out: the reader at the exit ends the cycle."""

from __future__ import annotations

import pytest

from edge_agent.model import Kind, ScanStatus
from support import binding_rig as bench
from support.binding_rig import Rig, position, station

CLAIMS = {"press.state": ("temp",)}


@pytest.fixture
def rig() -> Rig:
    place = position(end=None, out="exit", collect=(), result=None, claims=CLAIMS)
    rig = Rig(bench.plan(station(place), gap_s={}))
    rig.state(0)
    return rig


def test_the_readings_are_those_between_the_two_scans(rig: Rig) -> None:
    rig.scan("SN1")
    rig.state(0, temp=1)
    inside = rig.seq - 1
    rig.scan("SN1", "exit")
    rig.state(0, temp=2)
    (closed,) = rig.closed()
    assert (closed["closed_by"], closed["result"], closed["complete"]) == ("scan_out", "Passed", True)
    assert rig.serial_of(inside, "press.state") == [("bound", "SN1")]
    assert rig.serial_of(rig.seq - 1, "press.state") == []
    assert not rig.findings()


def test_a_double_scan_at_the_exit_is_one(rig: Rig) -> None:
    rig.scan("SN1"), rig.wait(5), rig.scan("SN1", "exit")
    rig.scan("SN1", "exit"), rig.wait(5), rig.scan("SN1", "exit")
    assert len(rig.closed()) == 1
    assert not rig.findings()


def test_an_exit_without_an_entry_is_a_skipped_scan(rig: Rig) -> None:
    rig.scan("SN1", "exit")
    assert not rig.closed()
    assert rig.findings() == ["skipped_scan"]


def test_an_entry_without_an_exit_ends_the_unit_before_as_aborted(rig: Rig) -> None:
    rig.scan("SN1"), rig.wait(5), rig.scan("SN2")
    (closed,) = rig.closed()
    assert (closed["closed_by"], closed["result"]) == ("next_scan", "Aborted")
    assert closed["binding"]["serial"] == "SN1"
    assert rig.findings() == ["skipped_scan"]


def test_another_units_exit_leaves_the_readings_to_neither(rig: Rig) -> None:
    rig.scan("SN1"), rig.state(0, temp=1)
    inside = rig.seq - 1
    rig.scan("SN2", "exit")
    (closed,) = rig.closed()
    assert closed["binding"] == {"state": "ambiguous"}
    assert [unit["serial"] for unit in rig.binding()["candidates"]] == ["SN1", "SN2"]
    assert rig.serial_of(inside, "press.state") == [("ambiguous", "")]
    assert rig.findings() == ["skipped_scan"]


def test_an_exit_after_a_gap_shows_that_the_unit_stayed(rig: Rig) -> None:
    rig.scan("SN1"), rig.state(0, temp=1)
    before = rig.seq - 1
    rig.wait(1).gap("exit"), rig.state(0, temp=2)
    in_the_gap = rig.seq - 1
    rig.wait(3).scan("SN1", "exit")
    (closed,) = rig.closed()
    assert (closed["closed_by"], closed["binding"]["state"]) == ("scan_out", "bound")
    assert rig.serial_of(before, "press.state") == [("bound", "SN1")]
    assert rig.serial_of(in_the_gap, "press.state") == []


def test_another_units_exit_after_a_gap_ends_the_first_as_interrupted(rig: Rig) -> None:
    rig.scan("SN1"), rig.restart()
    rig.state(0), rig.scan("SN2", "exit")
    (closed,) = rig.closed()
    assert (closed["closed_by"], closed["binding"]["serial"]) == ("interrupted", "SN1")
    assert rig.findings() == ["observation_gap", "skipped_scan"]


def test_a_label_of_no_unit_at_the_exit_is_said(rig: Rig) -> None:
    rig.scan("SN1"), rig.scan("BOX-9", "exit"), rig.scan(b"", "exit", ScanStatus.NO_READ)
    assert not rig.closed()
    assert rig.findings() == ["unmatched_scan", "no_read"]
    scans = rig.of(Kind.SCAN)
    assert [scan["stations"] for scan in scans] == [["OP20"], [], []]
