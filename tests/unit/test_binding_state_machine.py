"""A simulated position that knows the truth: whatever happens, no reading is under a serial that is not its own."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.binding_world import ENDS, RESUMES, World, noise

UNSEEN = st.lists(st.sampled_from(["finish", "give_up", "swap", "take_out", "reset"]), max_size=3)


class Position(RuleBasedStateMachine):
    """Rules are what people, PLCs and cables do; the invariant is what the records may never say."""

    world: World

    @initialize(end=st.sampled_from(sorted(ENDS)), resume=st.sampled_from(sorted(RESUMES)))
    def begin(self, end: str, resume: str) -> None:
        self.world = World(end, resume)

    def unseen(self, names: list[str]) -> list:
        return [self.world.unseen_actions()[name] for name in names]

    @precondition(lambda self: self.world.may_enter)
    @rule(scan=st.sampled_from([True, True, True, False]))
    def enter(self, scan: bool) -> None:
        self.world.enter(scan=scan)

    @precondition(lambda self: self.world.may_work)
    @rule(polls=st.integers(0, 3))
    def work(self, polls: int) -> None:
        self.world.work()
        self.world.poll(polls)

    @precondition(lambda self: self.world.may_leave)
    @rule()
    def leave(self) -> None:
        self.world.leave()

    @precondition(lambda self: self.world.unit and not self.world.worked and not self.world.ready)
    @rule()
    def take_out_unfinished(self) -> None:
        self.world.unit, self.world.must_scan = 0, True

    @rule(polls=st.integers(1, 4))
    def poll(self, polls: int) -> None:
        self.world.settle(polls)

    @precondition(lambda self: self.world.unit and not self.world.worked)
    @rule(times=st.integers(1, 2), pause_s=st.sampled_from([0.1, 3.0]))
    def scan_again(self, times: int, pause_s: float) -> None:
        self.world.scan(times, pause_s)

    @rule()
    def hear_noise(self) -> None:
        noise(self.world)

    @rule(names=UNSEEN, seconds=st.integers(0, 4))
    def lose_the_plc(self, names: list[str], seconds: int) -> None:
        self.world.lose_plc(self.unseen(names), seconds)

    @rule(names=UNSEEN, seconds=st.floats(1.3, 4.0), ticks=st.booleans())
    def stall(self, names: list[str], seconds: float, ticks: bool) -> None:
        self.world.stall(self.unseen(names), seconds, ticks=ticks)

    @rule(names=UNSEEN, late=st.booleans())
    def lose_the_scanner(self, names: list[str], late: bool) -> None:
        self.world.lose_scanner(self.unseen(names), late)

    @precondition(lambda self: self.world.may_work)
    @rule()
    def scan_the_next_before_the_end_is_seen(self) -> None:
        self.world.finish_and_scan_next()

    @precondition(lambda self: self.world.may_work and self.world.counted)
    @rule()
    def end_too_shortly_to_be_seen(self) -> None:
        self.world.flash()

    @precondition(lambda self: self.world.may_work)
    @rule(effects=st.integers(0, 3), names=UNSEEN)
    def die_on_the_way_to_the_acknowledge(self, effects: int, names: list[str]) -> None:
        self.world.die_before_effects(effects, self.unseen(names))

    @rule(names=UNSEEN, seconds=st.integers(1, 40))
    def restart(self, names: list[str], seconds: int) -> None:
        self.world.restart(self.unseen(names), seconds)

    @rule(names=UNSEEN)
    def crash_before_commit(self, names: list[str]) -> None:
        world = self.world
        world.crash_before_commit(lambda: world.rig.sample("press.state", world.state_values()), self.unseen(names))

    @invariant()
    def nothing_is_misbound_lost_or_doubled(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


Position.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPosition = Position.TestCase


STEPS = "enter enter enter work work leave leave poll scan plc gate stall next flash die kill".split()  # noqa: SIM905


def a_shift(world: World, rnd: random.Random, steps: int) -> None:
    """Steps of a working day with its accidents, drawn from ``rnd``."""
    for _ in range(steps):
        actions = world.unseen_actions()
        unseen = [actions[rnd.choice(sorted(actions))] for _ in range(rnd.randint(0, 3))]
        step = rnd.choice(STEPS)
        if step == "enter" and world.may_enter:
            world.enter(scan=rnd.random() < 0.85)
        elif step == "work" and world.may_work:
            world.work()
            world.poll(rnd.randint(0, 3))
        elif step == "leave" and world.may_leave:
            world.leave()
        elif step == "poll":
            world.settle(rnd.randint(1, 5))
        elif step == "scan" and world.unit and not world.worked:
            world.scan(rnd.randint(1, 2), rnd.choice([0.1, 3.0]))
        elif step == "plc":
            world.lose_plc(unseen, rnd.randint(0, 3))
        elif step == "gate":
            world.lose_scanner(unseen, rnd.random() < 0.5)
        elif step == "stall":
            world.stall(unseen, rnd.uniform(1.3, 4.0), ticks=rnd.random() < 0.5)
        elif step == "next" and world.may_work:
            world.finish_and_scan_next()
        elif step == "flash" and world.may_work and world.counted:
            world.flash()
        elif step == "die" and world.may_work:
            world.die_before_effects(rnd.randint(0, 3), unseen)
        elif step == "kill":
            world.restart(unseen, rnd.uniform(0.5, 40))
        world.check()


@pytest.mark.parametrize("resume", sorted(RESUMES))
@pytest.mark.parametrize("end", sorted(ENDS))
def test_shifts_with_accidents_bind_nothing_wrongly(end: str, resume: str) -> None:
    for seed in range(25):
        a_shift(World(end, resume), random.Random(f"{end} {resume} {seed}"), 60)


@pytest.mark.parametrize("end", sorted(ENDS))
def test_without_disturbance_everything_is_bound(end: str) -> None:
    world = World(end)
    for number in range(40):
        world.enter()
        if number % 3 == 0:
            world.scan(2, 0.1)
        world.poll(3)
        world.work()
        world.settle()
        world.leave()
        world.poll()
    world.check()
    cycles = world.rig.closed()
    assert [cycle["binding"]["serial"] for cycle in cycles] == [f"SN{number}" for number in range(1, 41)]
    assert [cycle["collected"][0]["value"] for cycle in cycles] == list(range(1, 41))
    assert all(cycle["windows"]["oven.air"] and cycle["windows"]["press.state"] for cycle in cycles)
    assert world.rig.findings() == []


@pytest.mark.parametrize("accident", ["plc", "stall", "gate", "restart"])
@pytest.mark.parametrize("end", sorted(ENDS))
def test_an_accident_that_swaps_nothing_costs_no_binding_where_the_plc_names_the_unit(end: str, accident: str) -> None:
    world = World(end, "serial")
    for _ in range(10):
        world.enter()
        world.poll(3)
        if accident == "plc":
            world.lose_plc([], 2)
        elif accident == "stall":
            world.stall([], 2.0, ticks=True)
        elif accident == "gate":
            world.lose_scanner([])
        else:
            world.restart([], 5.0)
        world.poll(3)
        world.work()
        world.settle()
        world.leave()
        world.poll()
    world.check()
    assert [cycle["binding"].get("serial") for cycle in world.rig.closed()] == [f"SN{n}" for n in range(1, 11)]
