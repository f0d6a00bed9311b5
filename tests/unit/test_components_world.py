"""Marriage on a line that knows the truth: whatever is missed, early or in the dark, no component is in a wrong unit.

That takes in what is read between a unit's end and the poll that shows it, with the next unit's scan missing, late or
early, the PLC's answer slow or quick, and a component of a unit that is done within one poll.

Held to: after a unit that is scanned once more after its end, and taken away, the next unit is scanned, and before its
component; nothing in the data could tell otherwise.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from edge_agent.binding.needs import Needs
from support import needs_rig as needs
from support.binding_rig import SECOND
from support.binding_world import World


class Line(World):
    """``truth``: component → the number of the unit that it was put in."""

    def __init__(self, seed: int, end: str, resume: str) -> None:
        self.chance = random.Random(seed)
        self.truth: dict[str, int] = {}
        self.again = 0
        super().__init__(end, resume)
        (one,) = self.rig.plan.stations
        married = replace(one, needs=Needs(components=(needs.component(),)))
        self.rig.restart(one=replace(self.rig.plan, stations=(married,)))
        self.settle()

    @property
    def lingers(self) -> bool:
        """The unit that is, or was last, in the position was scanned after its end: its cycle may be open for good."""
        return self.again == self.units

    def act(self, _: object = None, effects: int | None = None) -> None:
        """As the collector does it: what is asked for once more before it was read is read once."""
        while self.rig.effects and effects != 0:
            self.rig.effects = list(dict.fromkeys(self.rig.effects))
            later = self.rig.effects[1:]
            self.rig.effects = self.rig.effects[:1]
            super().act(effects=1)
            self.rig.effects = later + self.rig.effects
            effects = None if effects is None else effects - 1

    def read_component(self, unit: int, wait_s: float) -> None:
        name = f"B{len(self.truth) + 1}"
        self.truth[name] = unit
        self.rig.wait(wait_s).scan(f"C:{name}", device="desk")

    def marry(self, unit: int) -> None:
        self.read_component(unit, self.chance.choice([0.02, 0.2]))
        self.act()

    def bring(self) -> None:
        unit = self.units + 1
        if self.chance.random() < 0.15 and not self.lingers:
            self.marry(unit)
        self.enter(scan=self.lingers or self.chance.random() < 0.9)
        self.poll(self.chance.choice([0, 0, 1, 3]))
        if self.chance.random() < 0.6:
            self.marry(unit)

    def move(self, *, done: bool) -> None:
        """The next unit takes the place of the one that is done: with a handshake, once its result was taken."""
        if done:
            self.unit, self.worked = self.units, False
            self.number += 1

    def index(self) -> None:
        """This unit is done; the next one is here before that was polled, and one or both of its labels are read."""
        if self.chance.random() < 0.3:
            self.read_component(self.unit, 0.02)  # this one's own, at the last moment
            if self.chance.random() < 0.5:
                self.act()
        before, began_ns = self.state_values(), self.rig.mono_ns
        self.work()
        self.units += 1
        scanned = self.chance.choice(["before", "after", "late", "never"])
        if scanned == "before":
            self.rig.wait(0.03).scan(f"SN{self.units}")
            self.move(done=not self.shakes)
        for _ in range(self.chance.choice([1, 1, 2])):
            self.read_component(self.units, self.chance.choice([0.0, 0.02, 0.2]))
        if scanned == "after":
            self.rig.wait(0.03).scan(f"SN{self.units}")
            self.move(done=not self.shakes)
        if self.chance.random() < 0.5:  # a slow read, of the time before the end
            self.rig.late_sample("press.state", before, (self.rig.mono_ns - began_ns) / SECOND, 0.0)
        self.rig.wait(self.chance.choice([0.0, 0.0, 0.1, 0.4]))
        self.act()
        for _ in range(4):
            if self.shakes and self.ready:
                self.poll()
        self.ready = self.ready and self.shakes
        self.move(done=self.unit != self.units)
        if scanned == "late":
            self.scan()
        self.settle()

    def dark(self) -> None:
        """Nobody watches; afterwards a component is put into whatever is there."""
        choice = list(self.unseen_actions().values())
        unseen = [self.chance.choice(choice) for _ in range(self.chance.randint(0, 2))]
        how = self.chance.choice(["plc", "restart", "gate", "stall"])
        if how == "plc":
            self.lose_plc(unseen, self.chance.choice([0.5, 2.0]))
        elif how == "restart":
            self.restart(unseen, self.chance.choice([0.5, 5.0]))
        elif how == "gate":
            self.lose_scanner(unseen)
        else:
            self.stall(unseen, 1.5, ticks=self.chance.random() < 0.5)
        if self.unit and self.chance.random() < 0.5:
            self.poll(self.chance.randint(0, 2))
            self.marry(self.unit)

    def step(self) -> None:
        dice = self.chance.random()
        if dice < 0.25:
            self.dark()
        elif dice < 0.33:
            self.poll(self.chance.randint(1, 4))
        elif dice < 0.38 and self.unit:
            self.again = self.units if self.worked else self.again
            self.scan()
        elif self.may_enter:
            self.bring()
        elif self.may_work and self.chance.random() < 0.3:
            self.index()
        elif self.may_work:
            self.poll(self.chance.randint(0, 2))
            self.work()
            self.settle()
        elif self.may_leave:
            self.leave()
        else:
            self.poll()
        self.act(self.rig.tick(0.0))


@pytest.mark.parametrize("resume", ["none", "number", "serial"])
@pytest.mark.parametrize("end", ["counted", "uncounted", "edge"])
@pytest.mark.parametrize("seed", range(4))
def test_no_component_is_in_a_wrong_unit(seed: int, end: str, resume: str) -> None:
    line = Line(seed, end, resume)
    for _ in range(80):
        line.step()
    line.settle()
    line.check()
    installed = 0
    for name, unit in line.truth.items():
        known = line.rig.registry.unit("serial", name)
        parent = line.rig.registry.parent_of(known.unit) if known is not None else None
        if parent is not None:
            installed += 1
            assert parent.parent_serial == f"SN{unit}", f"{name} is in {parent}"
    assert installed >= 3, "it is not safe by installing nothing"
