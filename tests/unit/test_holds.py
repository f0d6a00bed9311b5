"""Holds and verdicts, judged by the real binder and the buffer's own projection: what is on hold, whatever happens on
the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.binding import holds as holds_module
from edge_agent.binding.action import Action, ActionRefused
from edge_agent.binding.decisions import BEYOND_MAX
from edge_agent.binding.draft import Draft
from edge_agent.binding.holds import Holds, Key
from edge_agent.binding.local_holds import ConfirmHolds, Hold, ListHolds, Release, TakeOver
from edge_agent.binding.snapshots import CloseAbsent, Expect, Heartbeat, SnapshotPart, Unreadable, Watch
from edge_agent.binding.state import Outcome
from edge_agent.binding.units import Unit
from edge_agent.binding.verdicts import Verdict, holds_on
from edge_agent.model import Kind
from support.binding_rig import SECOND, Rig

STOPPING = ("hold", "scrap", "rework")


def act(rig: Rig, action: Action) -> dict[str, Any]:
    outcome, answer = rig.binder.act(action, rig.now, rig.seq)
    rig._take(outcome)
    return answer


def holds(rig: Rig) -> Holds:
    return rig.binder._floor.holds


def verdict(number: int, action: Any = "hold", hold: str = "H1", subject: str = "SN1", **more: Any) -> Verdict:
    kind = more.pop("kind", "serial")
    return Verdict("qms", f"v{number}", number, action, hold, kind, subject, "qa", **more)


def rig_of(*, expect: bool = True) -> Rig:
    rig = Rig()
    if expect:
        act(rig, Expect("qms", 30 * SECOND))
    return rig


def restarted(rig: Rig) -> Rig:
    rig.restart()
    act(rig, Expect("qms", 30 * SECOND))
    return rig


def snapshot(rig: Rig, last: int, held: Iterable[Verdict], *, parts: int = 1) -> list[SnapshotPart]:
    """The answer to a request that is made now."""
    request = act(rig.wait(1000), Watch("qms", True))["request"]
    held = list(held)
    return [
        SnapshotPart("qms", request, last, number + 1, parts, tuple(held[number::parts])) for number in range(parts)
    ]


def take(rig: Rig, part: SnapshotPart) -> str:
    answer = act(rig, part)
    left = answer["left"]
    while left:
        left = act(rig, CloseAbsent("qms"))["left"]
    return str(answer["state"])


def stopped(rig: Rig) -> dict[Key, str]:
    return {(one.subject_kind, one.subject, one.hold): one.action for one in holds(rig) if one.action in STOPPING}


def acks(rig: Rig) -> list[str]:
    return [body["state"] for body in rig.of(Kind.HOLD_ACK)]


# --- one verdict -------------------------------------------------------------------------------------------------


def test_a_hold_stops_its_unit_and_one_release_lifts_one() -> None:
    rig = rig_of()
    unit = Unit("u", "SN1")
    act(rig, verdict(1))
    act(rig, verdict(2, hold="H2"))
    assert {hold.hold for hold in holds(rig).on(unit)} == {"H1", "H2"}
    assert not holds(rig).on(Unit("u2", "SN2"))
    act(rig, verdict(3, "release"))
    assert [hold.hold for hold in holds(rig).on(unit)] == ["H2"]
    assert acks(rig) == ["applied"] * 3


def test_a_hold_covers_what_the_unit_carries_and_what_joins_it_later() -> None:
    rig = rig_of()
    act(rig, verdict(1, kind="lot", subject="L7"))
    act(rig, verdict(2, kind="carrier", subject="P3", hold="H2"))
    act(rig, verdict(3, kind="package", subject="R9", hold="H3"))
    unit = Unit("u", "SN1")
    assert not holds(rig).on(unit)
    unit.lots.add("L7")
    unit.packages.add("R9")
    unit.identifiers["carrier"] = "P3"
    assert {hold.hold for hold in holds(rig).on(unit)} == {"H1", "H2", "H3"}
    assert holds(rig).on(Unit("b", "L7", "lot"))  # a batch under the lot's own number
    assert not holds(rig).on(Unit("c", "L7"))  # a serial that only looks like it


def test_a_concession_lets_one_unit_of_a_lot_pass() -> None:
    rig = rig_of()
    act(rig, verdict(1, kind="lot", subject="L7"))
    act(rig, verdict(2, "concession", subject="SN1"))
    one, other = Unit("u", "SN1", lots={"L7"}), Unit("w", "SN2", lots={"L7"})
    assert not holds(rig).on(one)
    assert [hold.hold for hold in holds(rig).on(other)] == ["H1"]
    act(rig, verdict(3, hold="H2"))
    assert [hold.hold for hold in holds(rig).on(one)] == ["H2"]  # of another hold nobody said so


def test_a_concession_is_not_one_of_a_hold_that_comes_again_later() -> None:
    rig = rig_of()
    act(rig, verdict(1, kind="lot", subject="L7"))
    act(rig, verdict(2, "concession", subject="SN1"))
    act(rig, verdict(3, "release", kind="lot", subject="L7"))
    act(rig, verdict(4, kind="lot", subject="L7"))
    one = Unit("u", "SN1", lots={"L7"})
    assert [hold.decision_seq for hold in holds(rig).on(one)] == [4]
    restarted(rig)
    assert [hold.decision_seq for hold in holds(rig).on(one)] == [4]
    act(rig, verdict(5, "concession", subject="SN1"))
    assert not holds(rig).on(one)


def test_repeats_are_answered_and_do_not_fill_the_log() -> None:
    rig = rig_of()
    for _ in range(101):
        act(rig, verdict(1))
    assert acks(rig) == ["applied"] + ["duplicate"] * 7  # repeats 1, 2, 4, 8, 16, 32, 64
    restarted(rig)
    assert act(rig, verdict(1))["state"] == "duplicate"


@pytest.mark.parametrize("again", [False, True])
def test_an_id_that_stands_for_something_else_now_is_refused_aloud(again: bool) -> None:
    rig = rig_of()
    act(rig, verdict(1))
    if again:
        restarted(rig)
    answer = act(rig, replace(verdict(1), decision_seq=2, subject="SN9"))
    assert answer["state"] == "refused"
    assert rig.findings() == ["verdict_refused"]
    assert not holds(rig).on(Unit("u", "SN9"))


@pytest.mark.parametrize("again", [False, True])
def test_what_is_not_above_the_last_decision_is_stale(again: bool) -> None:
    rig = rig_of()
    act(rig, verdict(5))
    act(rig, verdict(7, "release"))
    if again:
        restarted(rig)
    assert act(rig, replace(verdict(6), verdict_id="late"))["state"] == "stale"
    assert act(rig, replace(verdict(7), verdict_id="same"))["state"] == "stale"
    assert not stopped(rig)
    assert act(rig, verdict(8))["state"] == "applied"
    assert act(rig, verdict(3, hold="H2"))["state"] == "applied"  # another hold has numbers of its own


@pytest.mark.parametrize("again", [False, True])
def test_another_sources_numbers_count_for_themselves(again: bool) -> None:
    rig = rig_of()
    act(rig, verdict(50))
    act(rig, verdict(51, "release"))
    if again:
        restarted(rig)
    theirs = replace(verdict(3), source="mes", verdict_id="m3")
    assert act(rig, theirs)["state"] == "applied"
    assert act(rig, replace(theirs, decision_seq=2, verdict_id="m2"))["state"] == "stale"
    assert act(rig, replace(verdict(49), verdict_id="late"))["state"] == "stale"
    assert stopped(rig)
    assert act(rig, replace(theirs, action="release", decision_seq=4, verdict_id="m4"))["state"] == "applied"
    assert act(rig, replace(verdict(51), verdict_id="later"))["state"] == "stale"
    assert not stopped(rig)


def test_what_comes_after_its_end_is_not_applied() -> None:
    rig = rig_of()
    past, future = rig.now.at_ns - 1, rig.now.at_ns + SECOND
    assert act(rig, verdict(1, expires_at_ns=past))["state"] == "expired"
    assert act(rig, verdict(2, expires_at_ns=future))["state"] == "applied"
    assert act(rig, verdict(3, "release", expires_at_ns=past))["state"] == "expired"
    assert holds(rig).on(Unit("u", "SN1"))


def test_without_a_clock_to_trust_doubt_stops_units() -> None:
    rig = rig_of()
    past, future = rig.now.at_ns - 1, rig.now.at_ns + SECOND
    assert act(rig, verdict(1, expires_at_ns=past, clock_trusted=False))["state"] == "applied"
    assert act(rig, verdict(2, "release", expires_at_ns=future, clock_trusted=False))["state"] == "refused"
    assert act(rig, verdict(3, "release", clock_trusted=False))["state"] == "applied"


def test_a_release_of_what_was_never_held_is_refused() -> None:
    rig = rig_of()
    assert act(rig, verdict(2, "release"))["state"] == "refused"
    assert rig.findings() == ["verdict_refused"]
    assert act(rig, verdict(1))["state"] == "stale"  # its hold comes late: the release is newer


def test_a_hold_of_another_source_is_not_touched() -> None:
    rig = rig_of()
    act(rig, verdict(1))
    assert act(rig, replace(verdict(9, "release"), source="mes"))["state"] == "refused"
    assert act(rig, replace(verdict(10), source="mes"))["state"] == "refused"
    assert holds(rig).find(("serial", "SN1", "H1")) is not None


def test_a_hold_in_mid_cycle_lets_the_cycle_end() -> None:
    rig = rig_of()
    rig.put_in("SN1")
    act(rig, verdict(1))
    found = [body for body in rig.of(Kind.FINDING) if body["code"] == "hold_in_cycle"]
    assert [(one["serial"], one["position"]) for one in found] == [("SN1", 1)]
    assert rig.records[found[0]["evidence"][0] - 1][1].kind is Kind.HOLD_ACK
    rig.finish(1)
    assert rig.closed()[-1]["binding"]["serial"] == "SN1"
    act(rig, verdict(2, hold="H2", subject="SN2"))
    assert rig.findings().count("hold_in_cycle") == 1


def test_no_more_than_can_be_kept_and_then_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.binding.verdicts.OPEN_MAX", 3)
    monkeypatch.setattr("edge_agent.binding.snapshots.OPEN_MAX", 3)
    rig = rig_of()
    kept = [verdict(number, hold=f"H{number}") for number in (1, 2, 3)]
    for one in kept:
        act(rig, one)
    assert holds(rig).known
    assert act(rig, verdict(4, hold="H4"))["state"] == "refused"
    assert not holds(rig).known
    act(rig, verdict(5, "release"))
    assert not holds(rig).known  # what H4 was on is still not known
    take(rig, *snapshot(rig, 5, [kept[1], kept[2], replace(verdict(4, hold="H4"), verdict_id="v4b")]))
    assert holds(rig).known
    assert {key[2] for key in stopped(rig)} == {"H2", "H3", "H4"}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds_module, "CLOSED_MAX", 10)
    monkeypatch.setattr(holds_module, "VERDICTS_MAX", 10)
    rig = rig_of()
    for number in range(1, 101, 2):
        act(rig, verdict(number, hold=f"H{number}"))
        act(rig, verdict(number + 1, "release", hold=f"H{number}"))
    assert len(holds(rig).verdicts) == len(holds(rig)._closed) == 10
    assert not holds(rig)._about
    assert act(rig, verdict(1, hold="H1"))["state"] == "duplicate"  # from the registry
    assert act(rig, replace(verdict(1), verdict_id="x"))["state"] == "stale"
    for number in range(1000, 1000 + 3 * BEYOND_MAX):
        holds(rig).sources["qms"].heard(2 * number)
    assert len(holds(rig).sources["qms"].beyond) <= BEYOND_MAX


# --- people ------------------------------------------------------------------------------------------------------


def test_people_hold_and_release_and_the_log_says_who() -> None:
    rig = rig_of()
    rig.put_in("SN1")
    answer = act(rig, Hold("ann (uid 7)", "hold", "serial", "SN1", "scratch"))
    assert answer["in_work"] == ["SN1"]
    assert holds(rig).on(Unit("u", "SN1"))[0].source == "local"
    listed = act(rig, ListHolds())
    assert [(one["hold"], one["text"]) for one in listed["holds"]] == [(answer["hold"], "scratch")]
    act(rig, Release("ann (uid 7)", answer["hold"], "polished"))
    assert not stopped(rig)
    assert [body["action"] for body in rig.of(Kind.AUDIT)] == ["hold", "release"]
    before = len(rig.records)
    with pytest.raises(ActionRefused):
        act(rig, Release("ann (uid 7)", answer["hold"], "again"))
    assert len(rig.records) == before


def test_a_person_lifts_a_hold_of_the_qms_and_what_was_decided_before_does_not_bring_it_back() -> None:
    rig = rig_of()
    act(rig, verdict(1, kind="lot", subject="L1"))
    act(rig, verdict(2, kind="lot", subject="L2"))
    act(rig, Release("ann (uid 7)", "H1", "wrong lot"))
    assert not stopped(rig)
    take(rig, *snapshot(rig, 2, [verdict(1, kind="lot", subject="L1"), verdict(2, kind="lot", subject="L2")]))
    assert not stopped(rig)
    restarted(rig)
    take(rig, *snapshot(rig, 2, [verdict(1, kind="lot", subject="L1")]))
    assert not stopped(rig)
    act(rig, verdict(3, kind="lot", subject="L1"))
    assert stopped(rig)
    act(rig, Release("ann (uid 7)", "H1", "as is", concession=True))
    restarted(rig)
    take(rig, *snapshot(rig, 3, [verdict(3, kind="lot", subject="L1")]))
    assert not stopped(rig)


# --- gaps and snapshots ------------------------------------------------------------------------------------------


def test_stale_until_the_first_snapshot_and_after_a_gap() -> None:
    rig = rig_of()
    assert holds(rig).basis(rig.now) == "stale"
    assert holds(rig).as_of_ns(rig.now) is None
    take(rig, *snapshot(rig, 0, []))
    assert holds(rig).basis(rig.now) == "live"
    act(rig, Heartbeat("qms", 1, rig.now.at_ns))
    assert holds(rig).stale
    assert rig.findings() == ["verdict_gap"]
    act(rig, verdict(1))  # it was only late
    assert not holds(rig).stale
    act(rig, verdict(4))
    act(rig, verdict(5, hold="H2"))
    assert holds(rig).stale
    assert rig.findings() == ["verdict_gap"] * 2  # told once
    act(rig, verdict(3))
    assert holds(rig).stale
    assert act(rig, verdict(2, hold="H3"))["state"] == "applied"
    assert not holds(rig).stale


def test_a_silent_source_is_cached_and_its_age_is_known() -> None:
    rig = rig_of()
    take(rig, *snapshot(rig, 0, []))
    act(rig, Heartbeat("qms", 0, rig.now.at_ns))
    heard_ns = rig.now.at_ns
    rig.wait(89)
    assert holds(rig).basis(rig.now) == "live"
    rig.wait(2)
    assert holds(rig).basis(rig.now) == "cached"
    assert holds(rig).as_of_ns(rig.now) == heard_ns
    act(rig, Heartbeat("qms", 0, heard_ns - SECOND))  # an old one, from a queue or retained
    assert holds(rig).basis(rig.now) == "cached"
    act(rig, Heartbeat("qms", 0, rig.now.at_ns - 80 * SECOND))  # a newer one, but it waited
    assert holds(rig).as_of_ns(rig.now) == rig.now.at_ns - 80 * SECOND


def test_a_heartbeat_from_the_future_does_not_deafen() -> None:
    rig = rig_of()
    take(rig, *snapshot(rig, 0, []))
    act(rig, Heartbeat("qms", 0, rig.now.at_ns + 10**18))
    assert holds(rig).as_of_ns(rig.now) == rig.now.at_ns
    rig.wait(1)
    act(rig, Heartbeat("qms", 3, rig.now.at_ns))
    assert holds(rig).stale


def test_without_any_source_nothing_is_stale() -> None:
    rig = rig_of(expect=False)
    assert holds(rig).basis(rig.now) == "live"
    assert holds(rig).as_of_ns(rig.now) is None


def test_after_a_restart_holds_stand_and_are_stale() -> None:
    rig = rig_of()
    act(rig, verdict(1))
    take(rig, *snapshot(rig, 1, [verdict(1)]))
    assert not holds(rig).stale
    restarted(rig)
    assert holds(rig).stale
    assert [one.hold for one in holds(rig).on(Unit("u", "SN1"))] == ["H1"]


def test_a_snapshot_closes_what_it_does_not_name_but_nothing_newer_and_nothing_of_others() -> None:
    rig = rig_of()
    act(rig, verdict(1))
    act(rig, verdict(2, hold="H2"))
    mine = act(rig, Hold("ann (uid 7)", "hold", "serial", "SN1", "mine"))["hold"]
    parts = snapshot(rig, 3, [verdict(2, hold="H2"), verdict(3, hold="H3", subject="SN3")], parts=2)
    take(rig, parts[0])
    act(rig, verdict(5, hold="H5"))  # decided after the snapshot was made, here before its end
    assert len(stopped(rig)) == 4
    take(rig, parts[1])
    assert {key[2] for key in stopped(rig)} == {"H2", "H3", "H5", mine}
    closing = rig.of(Kind.HOLD_ACK)[-1]
    assert (closing["action"], closing["hold"], closing["decision_seq"]) == ("release", "H1", 3)
    assert act(rig, replace(verdict(1), verdict_id="ghost"))["state"] == "stale"
    assert act(rig, verdict(4, hold="H4", subject="SN4"))["state"] == "applied"  # newer than the snapshot


def test_what_a_snapshot_would_have_named_comes_too_late_after_it() -> None:
    rig = rig_of()
    take(rig, *snapshot(rig, 3, [verdict(1, hold="H1")]))
    assert act(rig, verdict(2, hold="H2"))["state"] == "stale"  # never heard of here, and released since
    assert act(rig, verdict(4, hold="H4"))["state"] == "applied"
    assert {key[2] for key in stopped(rig)} == {"H1", "H4"}


def test_a_snapshot_nobody_asked_for_changes_nothing() -> None:
    rig = rig_of()
    act(rig, verdict(1))
    assert take(rig, SnapshotPart("qms", "log0.qms.1", 9, 1, 1, ())) == "unasked"
    assert stopped(rig)
    (part,) = snapshot(rig, 1, [verdict(1)])
    assert take(rig, part) == "taken"
    assert take(rig, part) == "unasked"  # the same once more


def test_a_snapshot_that_contradicts_itself_is_dropped_and_asked_for_again() -> None:
    rig = rig_of()
    act(rig, verdict(1))
    first, second = snapshot(rig, 2, [], parts=2)
    take(rig, first)
    assert take(rig, replace(second, last_decision_seq=3)) == "contradicts itself"
    assert stopped(rig)
    assert act(rig.wait(1), Watch("qms", True))["request"] is not None


def test_a_request_is_repeated_ever_more_slowly() -> None:
    rig = rig_of()
    asked = []
    for second in range(3600):
        if act(rig, Watch("qms", True))["request"]:
            asked.append(second)
        rig.wait(1)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]


def test_numbers_that_went_back_are_told_and_a_snapshot_settles_it() -> None:
    rig = rig_of()
    for number in range(1, 6):
        act(rig, verdict(number, hold=f"H{number}"))
    take(rig, *snapshot(rig, 5, [verdict(number, hold=f"H{number}") for number in range(1, 6)]))
    rig.wait(1)
    act(rig, Heartbeat("qms", 2, rig.now.at_ns))
    assert holds(rig).stale
    assert rig.findings() == ["verdict_gap"]
    take(rig, *snapshot(rig, 2, [verdict(1, hold="H1")]))
    assert not holds(rig).stale
    assert {key[2] for key in stopped(rig)} == {"H1", "H3", "H4", "H5"}  # newer than it: a person decides
    again = replace(verdict(3, hold="H9", subject="SN9"), verdict_id="w3")
    assert act(rig, again)["state"] == "applied"  # the numbers are used once more
    assert not holds(rig).stale


@pytest.mark.parametrize("again", [False, True])
def test_what_a_source_forgot_with_its_backup_lifts_nothing(again: bool) -> None:
    rig = rig_of()
    for number in range(1, 9):
        act(rig, verdict(number, hold=f"H{number}", subject="SN9"))
    act(rig, verdict(9, "release", hold="H1", subject="SN9"))
    act(rig, verdict(10, "release", hold="H2", subject="SN9"))
    take(rig, *snapshot(rig, 10, [verdict(number, hold=f"H{number}", subject="SN9") for number in range(3, 9)]))
    if again:
        restarted(rig)  # the answer to its request is the first that it hears
    else:
        act(rig.wait(1), Heartbeat("qms", 8, rig.now.at_ns))
    take(rig, *snapshot(rig, 8, [verdict(number, hold=f"H{number}", subject="SN9") for number in (1, *range(3, 9))]))
    assert "verdict_gap" in rig.findings()
    assert ("serial", "SN9", "H1") in stopped(rig)  # it knows of no release
    assert act(rig, replace(verdict(9, hold="H2", subject="SN9"), verdict_id="w9"))["state"] == "applied"
    assert act(rig, replace(verdict(10, "release", hold="H2", subject="SN9"), verdict_id="w10"))["state"] == "applied"
    assert ("serial", "SN9", "H2") not in stopped(rig)


def test_unreadable_messages_are_told_now_and_then() -> None:
    rig = rig_of()
    for count in range(1, 65):
        act(rig, Unreadable("qms", "t", "no JSON", 12, count))
    assert rig.findings() == ["verdict_refused"] * 7
    assert holds(rig).refused == 64


# --- whatever happens on the way ---------------------------------------------------------------------------------

DECIDED = st.lists(
    st.tuples(
        st.sampled_from(["hold", "release", "scrap", "rework", "concession"]),
        st.sampled_from(["H1", "H2"]),
        st.sampled_from(["SN1", "L1"]),
    ),
    min_size=1,
    max_size=12,
)


def decisions(decided: Sequence[tuple[str, str, str]]) -> list[Verdict]:
    return [
        verdict(number, action, hold, subject, kind="lot" if subject == "L1" else "serial")
        for number, (action, hold, subject) in enumerate(decided, 1)
    ]


def truth(made: Iterable[Verdict]) -> dict[Key, str]:
    newest = {one.key: one.action for one in made}
    return {key: action for key, action in newest.items() if action in STOPPING}


def standing(made: Iterable[Verdict]) -> list[Verdict]:
    newest = {one.key: one for one in made}
    return [one for one in newest.values() if one.action != "release"]


@settings(max_examples=60, deadline=None)
@given(decided=DECIDED, data=st.data())
def test_any_order_repetition_and_delay_ends_in_the_same_holds(
    decided: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    made = decisions(decided)
    rig = rig_of()
    for one in data.draw(st.permutations(made + data.draw(st.lists(st.sampled_from(made), max_size=6)))):
        act(rig, one)
    assert stopped(rig) == truth(made)
    source = holds(rig).sources["qms"]
    assert source.said == len(made)
    take(rig, *snapshot(rig, len(made), standing(made)))
    assert stopped(rig) == truth(made)
    assert not source.stale


@settings(max_examples=60, deadline=None)
@given(decided=DECIDED, data=st.data())
def test_losses_and_a_restart_in_between_never_let_a_part_loose_and_a_snapshot_makes_it_whole(
    decided: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    made = decisions(decided)
    rig = rig_of()
    as_of = data.draw(st.integers(0, len(made)))
    kept = [one for one in made if (one.decision_seq or 0) > as_of or data.draw(st.booleans())]
    order = data.draw(st.permutations(kept))
    restart_at, snapshot_at = data.draw(st.integers(0, len(order))), data.draw(st.integers(0, len(order)))
    taken = False
    for index, one in enumerate([*order, None]):
        if index == restart_at and not taken:
            before = stopped(rig)
            restarted(rig)
            assert stopped(rig) == before
        if index == snapshot_at:
            parts = snapshot(rig, as_of, standing(made[:as_of]), parts=data.draw(st.integers(1, 3)))
            for part in data.draw(st.permutations(parts)):
                take(rig, part)
            taken = True
        if one is not None:
            act(rig, one)
            if not taken:
                assert holds(rig).stale
    found = stopped(rig)
    assert found.keys() >= truth(made).keys()
    take(rig, *_forced(rig, len(made), standing(made)))
    assert stopped(rig) == truth(made)
    assert not holds(rig).stale


def _forced(rig: Rig, last: int, held: list[Verdict]) -> list[SnapshotPart]:
    """A snapshot, asked for even where nothing is known to be missing."""
    holds(rig).sources["qms"].whole = False
    holds(rig).sources["qms"].asked = None
    return snapshot(rig, last, held)


# --- after damage ------------------------------------------------------------------------------------------------


def test_what_was_read_from_a_damaged_file_is_taken_over_and_a_person_settles_what_is_in_doubt() -> None:
    rig = rig_of(expect=False)
    act(rig, TakeOver((), intact=False))
    assert not holds(rig).known
    act(rig, verdict(1, hold="H1"))
    act(rig, verdict(2, "release", hold="H1"))
    old = holds(rig_holding("H1", "H2"))
    act(rig, TakeOver(tuple(old), intact=False))
    assert {key[2] for key in stopped(rig)} == {"H2"}, "H1 was released since"
    assert not holds(rig).known
    act(rig, ConfirmHolds("ann (uid 7)", "compared with the QMS"))
    assert holds(rig).known
    assert rig.of(Kind.AUDIT)[-1]["action"] == "holds_confirmed"
    with pytest.raises(ActionRefused):
        act(rig, ConfirmHolds("ann (uid 7)", "again"))


def rig_holding(*names: str) -> Rig:
    rig = rig_of()
    for number, name in enumerate(names, 1):
        act(rig, verdict(number, hold=name))
    return rig


def test_what_a_held_component_is_built_into_is_stopped_too() -> None:
    rig = rig_of()
    floor = rig.binder._floor
    draft = Draft("log1", rig.now, rig.seq)
    parent, child, grandchild = (
        floor.units.know(draft, "OP20", {"serial": serial}, []) for serial in ("SN1", "PCB1", "CHIP1")
    )
    for over, under in ((parent, child), (child, grandchild)):
        body = {
            "genealogy": draft.next_id, "op": "install", "parent": over.unit, "parent_serial": over.serial,
            "child": under.unit, "child_serial": under.serial, "name": "part", "evidence": [], "by": "agent",
        }  # fmt: skip
        draft.add(Kind.GENEALOGY, "OP20", body)
    rig._take(Outcome(draft.records, []))
    rig.put_in("SN1")
    act(rig, verdict(1, subject="CHIP1"))
    assert [one.hold for one in holds_on(floor, parent)] == ["H1"]
    assert [body["serial"] for body in rig.of(Kind.FINDING) if body["code"] == "hold_in_cycle"] == ["SN1"]
    act(rig, verdict(2, "concession", subject="PCB1"))
    assert holds_on(floor, child) == []
    assert [one.hold for one in holds_on(floor, parent)] == ["H1"]
    act(rig, verdict(3, "concession", subject="SN1"))
    assert holds_on(floor, parent) == []
