"""Marriage on a line that knows the truth: whatever is missed, early or in the dark, no component is in a wrong unit.

Held to: where a unit has no component on record, the next unit is scanned, and before its component; nothing in the
data could tell otherwise.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from edge_agent.binding.needs import Needs
from support import needs_rig as needs
from support.binding_world import World


class Line(World):
    """``truth``: component → the number of the unit that it was put in."""

    def __init__(self, seed: int, end: str, resume: str) -> None:
        self.chance = random.Random(seed)
        self.truth: dict[str, int] = {}
        super().__init__(end, resume)
        (one,) = self.rig.plan.stations
        married = replace(one, needs=Needs(components=(needs.component(),)))
        self.rig.restart(one=replace(self.rig.plan, stations=(married,)))
        self.settle()

    @property
    def careful(self) -> bool:
        """The unit that is, or was last, in the position has no component on record."""
        known = self.rig.registry.unit("serial", f"SN{self.unit or self.units}")
        return known is None or not self.rig.registry.children_of(known.unit)

    def marry(self, unit: int) -> None:
        name = f"B{len(self.truth) + 1}"
        self.truth[name] = unit
        self.rig.wait(self.chance.choice([0.02, 0.2]))
        self.act(self.rig.scan(f"C:{name}", device="desk"))

    def bring(self) -> None:
        careful, unit = self.careful, self.units + 1
        if not careful and self.chance.random() < 0.15:
            self.marry(unit)
        self.enter(scan=careful or self.chance.random() < 0.9)
        self.poll(self.chance.choice([0, 0, 1, 3]))
        if self.chance.random() < 0.6:
            self.marry(unit)

    def index(self) -> None:
        """The next label and its component are read while this unit's end was not polled yet."""
        self.work()
        self.units += 1
        self.rig.wait(0.03).scan(f"SN{self.units}")
        self.rig.wait(0.02)
        self.truth[name := f"B{len(self.truth) + 1}"] = self.units
        self.rig.scan(f"C:{name}", device="desk")
        self.act()
        for _ in range(4):
            if self.shakes and self.ready:
                self.poll()
        self.unit, self.worked = self.units, False
        self.number += 1
        self.ready = self.ready and self.shakes
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
