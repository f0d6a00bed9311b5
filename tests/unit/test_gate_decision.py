"""The gate's decision, reason by reason, and against an oracle of a few lines over every combination of facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.binding.decisions import Decisions
from edge_agent.binding.gate import CODES, Decision, Entrant, Reason, decide
from edge_agent.binding.holds import Holds
from edge_agent.binding.plan import Gate
from edge_agent.binding.position import Floor
from edge_agent.binding.state import Installed, KnownHold, StepResult, StepStatus
from edge_agent.binding.status import StatusCache
from edge_agent.binding.units import Unit, Units
from edge_agent.model import Instant
from support.binding_rig import Registry, Rig, plan, station

MINUTE_NS = 60 * 10**9
NOW = Instant(1_795_000_000 * 10**9, 3600 * 10**9)
GATE = Gate(previous=("OP10",), max_attempts=2, max_age_s=600)
REMOTE = Gate(previous=("OP05",), max_age_s=600)  # no station of ours does that step


@pytest.fixture
def floor() -> Floor:
    registry = Registry()
    floor = Floor("log1", "cfg", Units(registry), {}, registry)
    floor.stations = Rig(plan(station(name="OP10", step="OP10"))).binder._floor.stations
    return floor


def unit(**changes: Any) -> Unit:
    done = {"OP10": StepResult("Passed", True, NOW.at_ns - MINUTE_NS, "log1-1")}
    return Unit(**{"unit": "log1-7", "serial": "SN1", "results": done} | changes)


def asks(one: Unit | None, attempt: int = 1) -> Entrant:
    return Entrant(one, "SN1", attempt)


def hold(action: str = "hold", subject: tuple[str, str] = ("serial", "SN1"), name: str = "H1") -> KnownHold:
    return KnownHold(name, *subject, action, "v1", 1, "qms", "scratched", None, NOW.at_ns)


def said(minutes_ago: float = 1, result: str = "Passed", complete: bool | None = True) -> StepStatus:
    at_ns = NOW.at_ns - int(minutes_ago * MINUTE_NS)
    return StepStatus("OP05", result, complete, 1, at_ns, at_ns, "l3-pc0")


def hear(floor: Floor, status: StepStatus) -> None:
    floor.status._serials["SN1"] = {(status.source, status.step): status}


def source(minutes_ago: float | None = 0.1, *, whole: bool = True) -> Decisions:
    heard = None if minutes_ago is None else NOW.mono_ns - int(minutes_ago * MINUTE_NS)
    return Decisions("qms", 10**10, 5, said=5, whole=whole, as_of_mono_ns=heard)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def test_what_nothing_speaks_against_is_permitted_live(floor: Floor) -> None:
    decision = decide(GATE, floor, asks(unit()), [], NOW)
    assert decision.permit
    assert (decision.code, decision.reasons, decision.basis, decision.as_of_ns) == (0, (), "live", None)


@pytest.mark.parametrize(
    ("one", "attempt", "code"),
    [
        (unit(results={}, attempts={}), 1, "unknown_unit"),
        (unit(results={"OP11": StepResult("Passed", True, 1, "c")}), 1, "previous_missing"),
        (unit(results={"OP10": StepResult("Failed", True, 1, "c")}), 1, "previous_failed"),
        (unit(results={"OP10": StepResult("Aborted", False, 1, "c")}), 1, "previous_failed"),
        (unit(results={"OP10": StepResult("Passed", False, 1, "c")}), 1, "previous_incomplete"),
        (unit(), 3, "no_attempts_left"),
        (unit(parent=Installed("log1-8", "CAR1", "log1-7", "SN1", "pcb")), 1, "built_in"),
        (None, 1, "unknown_unit"),
    ],
)
def test_each_fact_blocks_with_its_code(floor: Floor, one: Unit | None, attempt: int, code: str) -> None:
    decision = decide(GATE, floor, asks(one, attempt), [], NOW)
    assert (decision.permit, decision.code, codes(decision)) == (False, CODES[code], [code])
    assert decision.basis == "live"


@pytest.mark.parametrize("action", ["hold", "scrap", "rework"])
def test_what_stops_a_unit_stops_it_here(floor: Floor, action: str) -> None:
    floor.holds.open(hold(action))
    decision = decide(GATE, floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.code) == (False, CODES[action])
    assert "scratched" in decision.text


def test_a_hold_on_a_lot_stops_what_the_lot_went_into(floor: Floor) -> None:
    floor.holds.open(hold(subject=("lot", "L7")))
    assert decide(GATE, floor, asks(unit()), [], NOW).permit
    assert decide(GATE, floor, asks(unit(lots={"L7"})), [], NOW).code == CODES["hold"]


def test_scrap_is_said_before_hold_and_all_reasons_are_told(floor: Floor) -> None:
    floor.holds.open(hold())
    floor.holds.open(hold("scrap", name="H2"))
    decision = decide(GATE, floor, asks(unit(results={}), 3), [("material_expired", "glue is old")], NOW)
    assert codes(decision) == ["scrap", "hold", "unknown_unit", "no_attempts_left", "material_expired"]
    assert decision.code == CODES["scrap"]


def test_a_part_may_object_with_a_code_of_its_own(floor: Floor) -> None:
    decision = decide(GATE, floor, asks(unit()), [("chiller_off", "the chiller is off")], NOW)
    assert (decision.permit, decision.code) == (False, CODES["other"])


def test_nobody_enters_whose_identity_is_in_doubt(floor: Floor) -> None:
    open_gate = Gate(holds=False, fail_open=True)
    for code in ("not_identified", "ambiguous", "interrupted"):
        decision = decide(open_gate, floor, Entrant(unit(), "SN1", 1, Reason(code, "?")), [], NOW)
        assert (decision.permit, decision.code) == (False, CODES[code])
    assert decide(open_gate, floor, Entrant(None, None, None), [], NOW).code == CODES["not_identified"]


# --- others' word --------------------------------------------------------------------------------------------


def test_what_another_agent_said_counts_and_is_cached(floor: Floor) -> None:
    hear(floor, said(3))
    decision = decide(REMOTE, floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.basis) == (True, "cached")
    assert decision.as_of_ns == NOW.at_ns - 3 * MINUTE_NS


@pytest.mark.parametrize(("result", "complete", "code"), [("Failed", True, 11), ("Passed", False, 12)])
def test_another_agents_bad_word_blocks(floor: Floor, result: str, complete: bool, code: int) -> None:
    hear(floor, said(3, result, complete))
    decision = decide(REMOTE, floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.code, decision.basis) == (False, code, "cached")


@pytest.mark.parametrize(("fail_open", "basis"), [(False, "stale"), (True, "policy")])
def test_beyond_max_age_the_policy_decides(floor: Floor, fail_open: bool, basis: str) -> None:
    hear(floor, said(11))
    decision = decide(Gate(previous=("OP05",), max_age_s=600, fail_open=fail_open), floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.open, decision.basis) == (fail_open, fail_open, basis)
    assert codes(decision) == ["status_stale"]
    assert decision.code == (0 if fail_open else CODES["status_stale"])


def test_an_old_failure_is_no_permit_under_any_policy(floor: Floor) -> None:
    hear(floor, said(11, "Failed"))
    decision = decide(Gate(previous=("OP05",), max_age_s=600, fail_open=True), floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.code, decision.basis) == (False, 11, "stale")


def test_a_word_from_the_future_is_not_believed(floor: Floor) -> None:
    hear(floor, said(-30))
    assert decide(REMOTE, floor, asks(unit()), [], NOW).code == CODES["status_stale"]


def test_of_ours_and_theirs_the_newer_counts(floor: Floor) -> None:
    hear(floor, said(3))
    rework = {"OP05": StepResult("Failed", True, NOW.at_ns - MINUTE_NS, "c")}
    assert decide(REMOTE, floor, asks(unit(results=rework)), [], NOW).code == CODES["previous_failed"]
    before = {"OP05": StepResult("Failed", True, NOW.at_ns - 5 * MINUTE_NS, "c")}
    assert decide(REMOTE, floor, asks(unit(results=before)), [], NOW).permit


def test_a_clock_that_is_ahead_makes_no_word_newer_than_what_came_after_it(floor: Floor) -> None:
    hear(floor, replace(said(3), at_ns=NOW.at_ns + 10 * MINUTE_NS))
    rework = {"OP05": StepResult("Failed", True, NOW.at_ns - MINUTE_NS, "c")}
    assert decide(REMOTE, floor, asks(unit(results=rework)), [], NOW).code == CODES["previous_failed"]


def test_a_missing_word_of_others_is_for_the_policy_only_while_they_are_silent(floor: Floor) -> None:
    for fail_open in (False, True):
        gate = Gate(previous=("OP05",), max_age_s=600, fail_open=fail_open)
        floor.holds.sources = {"qms": source(0.1)}
        assert decide(gate, floor, asks(unit()), [], NOW).code == CODES["previous_missing"]
        floor.holds.sources = {"qms": source(11)}
        decision = decide(gate, floor, asks(unit()), [], NOW)
        assert (decision.permit, set(codes(decision))) == (fail_open, {"holds_stale", "status_stale"})


@pytest.mark.parametrize("of", [source(11), source(None), source(0.1, whole=False)])
def test_holds_that_may_have_changed_unheard_are_stale(floor: Floor, of: Decisions) -> None:
    floor.holds.sources = {"qms": of}
    assert decide(GATE, floor, asks(unit()), [], NOW).basis == "stale"
    assert decide(Gate(fail_open=True), floor, asks(unit()), [], NOW).basis == "policy"
    assert decide(Gate(holds=False), floor, asks(unit()), [], NOW).basis == "live"


def test_a_silent_source_within_max_age_is_cached(floor: Floor) -> None:
    floor.holds.sources = {"qms": source(2)}
    decision = decide(GATE, floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.basis) == (True, "cached")
    assert decision.as_of_ns == NOW.at_ns - 2 * MINUTE_NS


def test_holds_that_are_not_known_block_whatever_the_policy(floor: Floor) -> None:
    floor.holds = Holds(intact=False)
    decision = decide(Gate(fail_open=True), floor, asks(unit()), [], NOW)
    assert (decision.permit, decision.code, decision.basis) == (False, CODES["holds_unknown"], "stale")


def test_only_the_steps_that_a_gate_asks_about_are_kept_of_others() -> None:
    rig = Rig(plan(station(gate=Gate(previous=("OP05",))), station(name="OP30", step="x")))
    assert rig.binder._floor.status.steps == {"OP05"}
    assert Rig().binder._floor.status.steps == frozenset()
    assert isinstance(rig.binder._floor.status, StatusCache)


# --- every combination ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    ours=st.sampled_from([None, "Passed", "Failed", "Aborted", "Skipped"]),
    theirs=st.sampled_from([None, "Passed", "Failed"]),
    theirs_minutes=st.sampled_from([1, 5, 11, 1000]),
    held=st.booleans(), known=st.booleans(), heard_minutes=st.sampled_from([None, 0.1, 5, 11]),
    whole=st.booleans(), attempt=st.integers(1, 4), built_in=st.booleans(), objects=st.booleans(),
    fail_open=st.booleans(), holds=st.booleans(), remote=st.booleans(),
)  # fmt: skip
def test_a_permit_is_given_only_where_nothing_speaks_against_it(**facts: Any) -> None:
    registry = Registry()
    floor = Floor("log1", "cfg", Units(registry), {}, registry)
    floor.holds = Holds(intact=facts["known"])
    floor.holds.sources = {"qms": source(facts["heard_minutes"], whole=facts["whole"])}
    if facts["held"]:
        floor.holds.open(hold())
    step = "OP05"
    done = {} if facts["ours"] is None else {step: StepResult(facts["ours"], True, NOW.at_ns - 7 * MINUTE_NS, "c")}
    if facts["theirs"]:
        hear(floor, said(facts["theirs_minutes"], facts["theirs"]))
    parent = Installed("p", "CAR1", "c", "SN1", "pcb") if facts["built_in"] else None
    gate = Gate(previous=(step,), max_attempts=2, holds=facts["holds"], fail_open=facts["fail_open"], max_age_s=600)
    objections = [("material_missing", "no glue")] if facts["objects"] else []
    one = decide(gate, floor, asks(unit(results=done, parent=parent), facts["attempt"]), objections, NOW)

    silent = not facts["whole"] or facts["heard_minutes"] in (None, 11)
    use_theirs = facts["theirs"] and (facts["ours"] is None or facts["theirs_minutes"] < 7)
    word = facts["theirs"] if use_theirs else facts["ours"]
    bad = facts["built_in"] or facts["objects"] or facts["attempt"] > 2
    bad = bad or (facts["holds"] and (facts["held"] or not facts["known"]))
    bad = bad or (word != "Passed" and not (word is None and silent))
    stale = (facts["holds"] and facts["known"] and silent) or (use_theirs and facts["theirs_minutes"] > 10)
    stale = bool(stale or (word is None and silent))
    assert one.permit == (not bad and (not stale or facts["fail_open"]))
    assert one.permit == (one.code == 0)
    assert one.open == (one.permit and stale)
    assert (one.basis in ("stale", "policy")) == bool(stale or (facts["holds"] and not facts["known"]))
    assert one.permit or one.reasons


def test_no_code_is_given_twice() -> None:
    assert len(set(CODES.values())) == len(CODES)
    assert all(0 <= code <= 0x7FFF for code in CODES.values())
