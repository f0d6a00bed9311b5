"""Late scans on a line that knows the truth: whatever is missed, late or lost, no unit gets another one's work.

Held to: an operator scans a unit only after its work, and within ``max_wait`` or not at all; a label is read where the
unit is; who corrects by hand knows whose a cycle is.
"""

from __future__ import annotations

import random

import pytest

from edge_agent.binding.manual import Rebind, Unbind
from edge_agent.binding.plan import Characteristic
from edge_agent.model import Kind
from support import binding_rig as bench
from support.binding_rig import SECOND, Rig, position, station

WAIT_S = 12.0
FORCE = Characteristic("force", bench.tag("press.force"), True, None, None)


class Line:
    """``force`` of a result is the number of the unit that it was made of."""

    def __init__(self, seed: int, end: str, *, corrected: bool = False) -> None:
        self.corrected = corrected
        self.chance = random.Random(seed)
        self.counted = end == "counted"
        place = position(end=bench.HANDSHAKE if self.counted else bench.EDGE, collect=(FORCE,), result=None)
        self.rig = Rig(bench.plan(station(place, identity="after", max_wait_s=WAIT_S)))
        self.units = self.counter = 0
        self.due: list[tuple[int, int]] = []  # (mono, unit) of scans that the operator will make
        self.watched = True
        self.swapped = False  # while nobody watched another unit took the place of the one whose work then ended
        self.poll()

    def poll(self, seconds: float = 0.5) -> None:
        """Time goes by; the operator scans what is due."""
        until_ns = self.rig.mono_ns + int(seconds * SECOND)
        while self.rig.mono_ns < until_ns:
            self.rig.wait(0.15)
            for due in [one for one in self.due if one[0] <= self.rig.mono_ns]:
                self.due.remove(due)
                if self.watched:
                    self.rig.scan(f"SN{due[1]}")
                    if self.chance.random() < 0.2:
                        self.rig.wait(self.chance.choice([0.1, 2.5])).scan(f"SN{due[1]}")
            if self.watched:
                self.rig.state(0)
                self.rig.tick(0.0)

    def work(self, *, seen: bool = True) -> None:
        """One unit is finished, and scanned some time after, or never."""
        self.units += 1
        self.counter += 1
        if seen:
            self.rig.state(1)
            for _ in range(2 if self.counted else 1):
                self.rig.result(self.counter, float(self.units))
            self.rig.state(1), self.rig.state(0)
        here, self.swapped = self.units + (self.swapped and seen), False
        if self.chance.random() < 0.75:
            delay_s = self.chance.uniform(0.2, WAIT_S - 1.5) if self.chance.random() < 0.4 else 0.4
            self.due.append((self.rig.mono_ns + int(delay_s * SECOND), here))

    def dark(self) -> None:
        """Nobody watches; units go on being made and scanned."""
        how = self.chance.choice(["restart", "press", "gate"])
        if how == "gate":
            self.rig.gap("gate")
            self.due = [one for one in self.due if self.chance.random() < 0.5]
            return
        if how == "press":
            self.rig.gap("press")
        self.watched = False
        for _ in range(self.chance.randint(0, 2)):
            self.poll(self.chance.uniform(0.5, 5.0))
            self.work(seen=False)
        self.poll(self.chance.uniform(0.2, 4.0))
        self.watched, self.swapped = True, self.chance.random() < 0.4
        if how == "restart":
            self.rig.restart()
            if self.chance.random() < 0.5:  # it did not stay up for long
                self.rig.state(0)
                self.rig.wait(self.chance.uniform(0.2, 3.0)).restart()
        self.rig.state(0)

    def correct(self) -> None:
        """Somebody who was there says whose the newest cycles are, or takes back what he said, and says it anew."""
        for closed in self.rig.closed()[-self.chance.randint(1, 3) :]:
            cycle, own = closed["cycle"], f"SN{closed['collected'][0]['value']:.0f}"
            now = self.rig.binding(cycle)
            if now["state"] == "voided" or (now["state"] != "bound" and self.chance.random() < 0.5):
                self.act(Rebind(cycle, own, again=False, new=True, who="q", reason="I was there"))
            elif now["state"] != "bound" or self.chance.random() < 0.3:
                self.act(Unbind(cycle, who="q", reason="I was there"))

    def act(self, action: Rebind | Unbind) -> None:
        outcome, _ = self.rig.binder.act(action, self.rig.now, self.rig.seq)
        self.rig._take(outcome)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.chance.random() < 0.12:
                self.dark()
            self.poll(self.chance.choice([0.5, 3.0, 14.0, 14.0, 14.0]))
            self.work()
            if self.corrected and self.chance.random() < 0.4:
                self.poll(self.chance.choice([0.15, 0.5, 3.0]))
                self.correct()
        self.poll(2 * WAIT_S)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("end", ["counted", "edge"])
@pytest.mark.parametrize("seed", range(12))
def test_no_unit_gets_anothers_work(seed: int, end: str, corrected: bool) -> None:
    line = Line(seed, end, corrected=corrected)
    line.run(80)
    bound = 0
    for cycle in line.rig.closed():
        binding = line.rig.binding(cycle["cycle"])
        made_of = cycle["collected"][0]["value"]
        assert binding["state"] in ("bound", "ambiguous", "orphan", "voided"), "nothing stays pending"
        if binding["state"] == "bound":
            bound += 1
            assert binding["serial"] == f"SN{made_of:.0f}"
    assert bound >= 3, "it is not safe by binding nothing"
    assert len(line.rig.of(Kind.CYCLE_OPENED)) == len(line.rig.closed())
