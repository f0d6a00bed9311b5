"""Corrections on the bench: attempts, results, components and lots follow the bindings, whatever the clock does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edge_agent.binding.action import ActionRefused
from edge_agent.binding.manual import Rebind, Unbind
from edge_agent.binding.needs import Needs
from edge_agent.model import Instant, Kind
from support import binding_rig as bench
from support import needs_rig as needs
from support.binding_rig import SECOND, Rig

LOT = re.compile(r"(?P<lot>L\d+)")


def act(rig: Rig, action: Rebind | Unbind) -> None:
    outcome, _ = rig.binder.act(action, rig.now, rig.seq)
    rig._take(outcome)


def rebind(rig: Rig, cycle: str, serial: str, *, again: bool = True, new: bool = False) -> None:
    act(rig, Rebind(cycle, serial, again=again, new=new, who="q", reason="x"))


def unbind(rig: Rig, cycle: str) -> None:
    act(rig, Unbind(cycle, who="q", reason="x"))


def opened(rig: Rig) -> list[str]:
    return [body["cycle"] for body in rig.of(Kind.CYCLE_OPENED)]


def attempts(rig: Rig, serial: str) -> list[int | None]:
    """Of its bound cycles, as their records say."""
    return [one["attempt"] for one in rig.closed() if rig.binding(one["cycle"]).get("serial") == serial]


def worked(*results: int) -> Rig:
    """SN1 was at the press as often as there are results; each counted as the PLC did."""
    rig = needs.rig(needs.press(Needs()))
    rig.state(0)
    for count in results:
        work(rig, count)
    return rig


def work(rig: Rig, count: int, serial: str = "SN1", **result: Any) -> str:
    rig.put_in(serial)
    rig.wait(0.5).state(0)
    rig.finish(count, **result)
    return str(rig.closed()[-1]["cycle"])


# --- attempts and results ------------------------------------------------------------------------------------------


def test_a_cycle_in_doubt_is_no_attempt_until_somebody_binds_it() -> None:
    rig = worked(1, 7)  # results between them were never seen
    doubtful = rig.closed()[-1]["cycle"]
    assert rig.binding(doubtful)["state"] == "ambiguous"
    work(rig, 8)
    assert attempts(rig, "SN1") == [1, 2]
    rebind(rig, doubtful, "SN1", again=False)
    work(rig, 9)
    assert attempts(rig, "SN1")[-1] == 4


def test_an_open_cycle_that_is_given_to_another_unit_takes_its_attempt_along() -> None:
    rig = needs.rig(needs.hand(Needs()))
    rig.scan("SN1")
    rebind(rig, opened(rig)[0], "SN2", new=True)
    for serial in ("SN1", "SN2", "SN3"):
        rig.scan(serial)
    assert attempts(rig, "SN1") == [1]
    assert attempts(rig, "SN2") == [1, 2]


def test_what_governs_is_the_result_before_if_the_newest_is_taken_away() -> None:
    rig = worked(1)
    second = work(rig, 2)
    unbind(rig, second)
    rig.tick()
    unit = rig.binder._floor.units.find("SN1")
    assert unit is not None
    assert unit.results["press-fit"].cycle == rig.closed()[0]["cycle"]
    assert unit.attempts == {"press-fit": 1}


class Stepping(Rig):
    """With a wall clock that can be set back."""

    stepped_s = 0

    @property
    def now(self) -> Instant:
        return Instant(bench.EPOCH_NS + self.mono_ns + self.stepped_s * SECOND, self.mono_ns)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("identity", ["before", "after"])
def test_the_latest_result_governs_though_the_clock_went_back(identity: str, restarted: bool) -> None:
    place = bench.position()
    rig = Stepping(bench.plan(bench.station(place, identity=identity, max_wait_s=5.0, bounce_s=0.0)))
    rig.state(0)
    for count, good in ((1, True), (2, False)):
        if identity == "before":
            rig.put_in("SN1")
        rig.finish(count, ok=good)
        if identity == "after":
            rig.scan("SN1")
            rig.state(0)
        for _ in range(25):
            rig.wait(0.4).state(0)
        rig.stepped_s = -3600
    if restarted:
        rig.restart()
    unit = rig.binder._floor.units.find("SN1")
    assert unit is not None
    assert unit.attempts == {"press-fit": 2}
    assert unit.results["press-fit"].result == "Failed"


def test_a_reel_that_was_changed_after_the_clock_went_back_is_not_certain_over_a_restart() -> None:
    rig = Stepping(needs.line(needs.hand(Needs(materials=(needs.material(),)), timeout_s=9000.0)))
    rig.scan("R:L1/P1", device="desk")
    rig.scan("SN1")
    rig.stepped_s = -3600
    rig.wait(1.0).scan("R:L2/P2", device="desk")
    rig.restart()
    rig.scan("SN1")
    rig.scan("SN2")
    (one,) = rig.closed()[0]["materials"]
    assert one["lot"] == "L2" and one["certain"] is False


# --- components and lots -------------------------------------------------------------------------------------------


def test_a_cycle_in_doubt_stays_with_the_unit_that_got_its_component() -> None:
    rig = needs.rig(needs.press(Needs(components=(needs.component(),))))
    rig.state(0)
    work(rig, 1)
    rig.put_in("SN2")
    rig.scan("C:B1", device="desk")
    rig.wait(0.5).state(0)
    rig.finish(7)
    cycle = rig.closed()[-1]["cycle"]
    assert rig.binding(cycle)["state"] == "ambiguous"
    for wrong in (Rebind(cycle, "SN1", again=False, new=False, who="q", reason="x"), Unbind(cycle, "q", "x")):
        with pytest.raises(ActionRefused, match="B1 was installed into SN2"):
            act(rig, wrong)
    rebind(rig, cycle, "SN2", again=False)
    assert rig.binding(cycle)["serial"] == "SN2"


def test_a_component_of_a_batch_can_be_replaced() -> None:
    rig = needs.rig(needs.hand(Needs(components=(needs.component(),)), of="lot", pattern=LOT))
    rig.scan("L1")
    for label in ("C:B1", "REMOVE", "C:B1", "C:B2"):
        rig.scan(label, device="desk")
    links = [(one["op"], one["parent_serial"], one["child_serial"]) for one in rig.of(Kind.GENEALOGY)]
    assert links == [("install", "L1", "B1"), ("uninstall", "L1", "B1"), ("install", "L1", "B2")]


@pytest.mark.parametrize("which", [0, 2])
def test_the_cycle_of_a_lot_is_bound_to_a_lot(which: int) -> None:
    """One that is closed, and the open one."""
    rig = needs.rig(needs.hand(Needs(), of="lot", pattern=LOT))
    for lot in ("L1", "L2", "L3"):
        rig.scan(lot)
    there = rig.registry.unit("lot", "L2")
    rebind(rig, opened(rig)[which], "L2")
    assert there is not None
    assert rig.binding(opened(rig)[which])["unit"] == there.unit
    rebind(rig, opened(rig)[which], "L9", new=True)
    assert rig.registry.unit("lot", "L9") is not None
    assert rig.registry.unit("serial", "L9") is None and rig.registry.unit("serial", "L2") is None
