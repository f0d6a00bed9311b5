"""What others say of units: the result of a cycle goes with its newest binding, in whatever order they come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.binding import status as status_module
from edge_agent.binding.action import Action
from edge_agent.binding.status import BindingSaid, CycleSaid, StatusCache, UnitStatusSaid
from edge_agent.model import Kind
from support.binding_rig import EPOCH_NS, SECOND, Rig

CLOSED = CycleSaid("pc2", 10, "c1", "OP10", "glue", "Passed", True, 1, EPOCH_NS, "bound", "SN1")


def rig_of() -> Rig:
    rig = Rig()
    rig.binder._floor.status.steps = frozenset(("glue", "wash"))
    return rig


def cache(rig: Rig) -> StatusCache:
    return rig.binder._floor.status


def act(rig: Rig, *actions: Action) -> list[dict[str, Any]]:
    before = len(rig.records)
    for action in actions:
        rig._take(rig.binder.act(action, rig.now, rig.seq)[0])
    return [body for _, record, body in rig.records[before:] if record.kind is Kind.UNIT_STATUS]


def said(rig: Rig, serial: str, step: str = "glue") -> str | None:
    found = cache(rig).said(serial, step)
    return None if found is None else found.result


def test_a_closed_cycle_says_what_came_of_its_unit() -> None:
    rig = rig_of()
    (body,) = act(rig, CLOSED)
    assert body == {
        "serial": "SN1", "step": "glue", "result": "Passed", "complete": True, "attempt": 1,
        "status_at_ns": str(EPOCH_NS), "said_by": "pc2", "station": "OP10", "cycle": "c1", "state": "bound",
    }  # fmt: skip
    assert said(rig, "SN1") == "Passed"
    assert act(rig, CLOSED, replace(CLOSED, serial="SN7")) == [], "a cycle closes once"


def test_what_no_gate_asks_about_is_not_kept() -> None:
    rig = rig_of()
    assert act(rig, replace(CLOSED, step="paint"), UnitStatusSaid("mes", "SN1", "paint", "Passed")) == []
    assert cache(rig).ignored == 2
    assert said(rig, "SN1", "paint") is None
    assert Rig().binder._floor.status.steps == frozenset(), "a line without gates keeps nothing"


@pytest.mark.parametrize("state", ["voided", "ambiguous", "orphan", "pending"])
@pytest.mark.parametrize("again", [False, True])
def test_a_binding_that_is_taken_back_takes_the_result_away(state: str, again: bool) -> None:
    rig = rig_of()
    act(rig, CLOSED)
    if again:
        rig.restart()
        cache(rig).steps = frozenset(("glue",))
    (body,) = act(rig, BindingSaid("pc2", 40, "c1", state, None))
    assert (body["serial"], body["state"]) == ("SN1", state)
    assert said(rig, "SN1") is None
    rig.restart()
    assert said(rig, "SN1") is None
    assert act(rig, replace(CLOSED, seq=10)) == [], "and what is sent once more does not bring it back"


@pytest.mark.parametrize("again", [False, True])
def test_a_rebind_moves_the_result_to_the_other_serial(again: bool) -> None:
    rig = rig_of()
    act(rig, CLOSED)
    if again:
        rig.restart()
        cache(rig).steps = frozenset(("glue",))
    act(rig, BindingSaid("pc2", 40, "c1", "bound", "SN2"))
    assert (said(rig, "SN1"), said(rig, "SN2")) == (None, "Passed")
    act(rig, BindingSaid("pc2", 20, "c1", "bound", "SN3"))  # older: it came late
    assert (said(rig, "SN2"), said(rig, "SN3")) == ("Passed", None)
    rig.restart()
    cache(rig).steps = frozenset(("glue",))
    act(rig, BindingSaid("pc2", 50, "c1", "bound", "SN4"))
    assert (said(rig, "SN2"), said(rig, "SN4")) == (None, "Passed")


def test_a_rebind_does_not_take_away_what_a_later_cycle_said() -> None:
    rig = rig_of()
    later = replace(CLOSED, seq=30, cycle="c2", result="Failed", attempt=2, at_ns=EPOCH_NS + SECOND)
    act(rig, CLOSED, later, BindingSaid("pc2", 40, "c1", "bound", "SN2"))
    assert (said(rig, "SN1"), said(rig, "SN2")) == ("Failed", "Passed")


def test_the_newest_word_wins_whoever_says_it() -> None:
    rig = rig_of()
    act(rig, CLOSED, UnitStatusSaid("mes", "SN1", "glue", "Failed", at_ns=EPOCH_NS - SECOND))
    assert said(rig, "SN1") == "Passed"
    act(rig, UnitStatusSaid("mes", "SN1", "glue", "Failed", at_ns=EPOCH_NS + SECOND))
    assert said(rig, "SN1") == "Failed"
    assert act(rig, UnitStatusSaid("mes", "SN1", "glue", "Passed", at_ns=EPOCH_NS)) == [], "older than its last word"
    assert [one.source for one in cache(rig).of("SN1")] == ["pc2", "mes"]


def test_said_again_is_no_news() -> None:
    rig = rig_of()
    once = UnitStatusSaid("mes", "SN1", "glue", "Passed")
    assert len(act(rig, once)) == 1
    assert act(rig.wait(5), once) == []
    assert len(act(rig, replace(once, result="Failed"))) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "SERIALS_MAX", 10)
    monkeypatch.setattr(status_module, "CYCLES_MAX", 10)
    rig = rig_of()
    for number in range(50):
        act(rig, replace(CLOSED, seq=number + 1, cycle=f"c{number}", serial=f"SN{number}"))
        act(rig, BindingSaid("pc3", 1, f"x{number}", "bound", "SN1"))
    assert len(cache(rig)._serials) == len(cache(rig)._cycles) == 10
    assert said(rig, "SN0") == "Passed"  # from the registry
    act(rig, BindingSaid("pc2", 99, "c0", "bound", "SN60"))
    assert (said(rig, "SN0"), said(rig, "SN60")) == (None, "Passed")


@settings(max_examples=60, deadline=None)
@given(
    bindings=st.lists(
        st.tuples(st.sampled_from(["bound", "bound", "voided", "ambiguous"]), st.sampled_from(["SN1", "SN2", "SN3"])),
        max_size=5,
    ),
    data=st.data(),
)
def test_in_any_order_the_newest_binding_has_the_result(bindings: list[tuple[str, str]], data: st.DataObject) -> None:
    made: list[Action] = [CLOSED]
    made += [
        BindingSaid("pc2", 11 + number, "c1", state, serial if state == "bound" else None)
        for number, (state, serial) in enumerate(bindings)
    ]
    rig = rig_of()
    act(rig, *data.draw(st.permutations(made + data.draw(st.lists(st.sampled_from(made), max_size=3)))))
    state, serial = bindings[-1] if bindings else ("bound", "SN1")
    for name in ("SN1", "SN2", "SN3"):
        expected = "Passed" if state == "bound" and name == serial else None
        assert said(rig, name) == expected
        assert {one.state for one in rig.registry.status(name)} <= (
            {"bound"} if expected else {"superseded", "voided", "ambiguous"}
        )
