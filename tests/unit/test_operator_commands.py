"""Command barcodes and the limit of attempts."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.binding.plan import Attempts, Characteristic, Commands
from edge_agent.identify.commands import CommandRule
from edge_agent.identify.label import Labels
from edge_agent.model import Kind
from support import binding_rig as bench
from support.binding_rig import Rig, badge, position, station

LABELS = Labels((CommandRule("sheet", "!", {}),))
TEMP = Characteristic("temp", bench.tag("press.temp"), False, 0.0, 50.0)


def rig_with(operator: bool = False, **changes: Any) -> Rig:
    ends = {"end": changes.pop("end", None)}
    place = position(collect=(TEMP,), result=None, claims={"press.state": ("temp",)}, **ends)
    commands = Commands({1: "gate"}, frozenset({"sheet"}), operator)
    rig = Rig(bench.plan(station(place, commands=commands, **changes), gap_s={}, labels=LABELS))
    rig.state(0)
    return rig


@pytest.fixture
def rig() -> Rig:
    return rig_with()


def command(rig: Rig, *words: str) -> None:
    for word in words:
        rig.wait(3).scan(f"!{word}")


@pytest.mark.parametrize(
    ("words", "closed_by", "result", "defects"),
    [
        (["PASS"], "command", "Passed", None),
        (["FAIL"], "command", "Failed", None),
        (["END"], "command", "Passed", None),
        (["CANCEL"], "cancelled", "Aborted", None),
        (["DEFECT:D12", "DEFECT:D7", "DEFECT:D12", "END"], "command", "Failed", ["D12", "D7"]),
        (["DEFECT:D12", "FAIL"], "command", "Failed", ["D12"]),
        (["DEFECT:D12", "CANCEL"], "cancelled", "Aborted", ["D12"]),
    ],
)
def test_a_command_ends_the_cycle(
    rig: Rig, words: list[str], closed_by: str, result: str, defects: list[str] | None
) -> None:
    rig.scan("SN1")
    command(rig, *words)
    (closed,) = rig.closed()
    assert (closed["closed_by"], closed["result"], closed.get("defects")) == (closed_by, result, defects)
    assert closed["binding"]["serial"] == "SN1"
    assert not rig.findings()


def test_a_command_without_a_cycle_changes_nothing(rig: Rig) -> None:
    command(rig, "PASS", "DEFECT:D1")
    assert rig.findings() == ["unmatched_scan"] * 2
    rig.scan("SN1")
    command(rig, "END")
    assert rig.closed()[0]["result"] == "Passed"


def test_a_command_while_the_cycle_is_interrupted_is_refused(rig: Rig) -> None:
    rig.scan("SN1"), rig.gap("gate")
    command(rig, "PASS")
    assert not rig.closed()
    assert rig.findings() == ["observation_gap", "unmatched_scan"]
    rig.wait(3).scan("SN1")
    command(rig, "PASS")
    assert rig.closed()[0]["result"] == "Passed"


def test_what_was_found_wrong_is_not_passed(rig: Rig) -> None:
    rig.scan("SN1")
    command(rig, "DEFECT:D1", "PASS")
    assert not rig.closed()
    assert rig.findings() == ["unmatched_scan"]


def test_a_pass_against_the_limits_stands_and_is_said(rig: Rig) -> None:
    rig.scan("SN1"), rig.state(0, temp=80.0)
    command(rig, "PASS")
    assert rig.closed()[0]["result"] == "Passed"
    assert rig.findings() == ["limit_violated"]


def test_the_badge_is_asked_for_and_forgotten_with_the_reader() -> None:
    rig = rig_with(operator=True, context=(badge(),))
    rig.scan("SN1")
    command(rig, "PASS")
    assert rig.findings() == ["unmatched_scan"]
    rig.scan("OP:ana", "badge"), rig.gap("badge")
    command(rig, "PASS")
    assert rig.findings().count("unmatched_scan") == 2
    rig.scan("OP:ana", "badge")
    command(rig, "PASS")
    assert rig.closed()[0]["context"]["operator"]["value"] == "ana"


def test_where_a_plc_ends_the_cycles_the_result_waits_for_it() -> None:
    rig = rig_with(end=bench.HANDSHAKE)
    rig.put_in("SN1")
    command(rig, "END", "FAIL")
    assert not rig.closed()
    assert rig.findings() == ["unmatched_scan"]
    rig.finish(1)
    assert (rig.closed()[0]["closed_by"], rig.closed()[0]["result"]) == ("handshake", "Failed")


def test_rework_is_said_of_the_units_next_cycle(rig: Rig) -> None:
    rig.scan("SN1")
    command(rig, "REWORK", "FAIL")
    rig.scan("SN2")
    command(rig, "PASS")
    rig.scan("SN1")
    command(rig, "PASS")
    first, other, again = rig.closed()
    assert (first["context"]["rework"]["value"], again["context"]["rework"]["value"]) == ("ordered", "done")
    assert "rework" not in other["context"]
    assert (again["attempt"], again["result"]) == (2, "Passed")
    rig.scan("SN1")
    command(rig, "PASS")
    assert "rework" not in rig.closed()[3]["context"]


@pytest.mark.parametrize("flag", [True, False])
def test_one_attempt_too_many_is_found(flag: bool) -> None:
    rig = rig_with(attempts=Attempts(2, flag))
    for _ in range(3):
        rig.wait(3).scan("SN1")
        command(rig, "PASS")
    assert [cycle["attempt"] for cycle in rig.closed()] == [1, 2, 3]
    assert rig.findings() == (["retest_limit"] if flag else [])
    rig.restart(), rig.state(0)
    rig.wait(3).scan("SN1")
    command(rig, "PASS")
    found = [body["details"] for body in rig.of(Kind.FINDING) if body["code"] == "retest_limit"]
    assert found == ([{"attempt": 3, "max": 2}, {"attempt": 4, "max": 2}] if flag else [])
