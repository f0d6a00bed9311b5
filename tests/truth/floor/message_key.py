"""A tester's message names the serial: each is one complete result."""

from __future__ import annotations

import itertools

from truth.floor.place import Place
from truth.visits import Restart, Script, Visit


class MessageKey(Place):
    """A tester that sends what it measured, with a number of the test."""

    strategy = "message_key"
    covered = False
    settings = r"""
  tester{n}:
    driver: tester
    connection: "tcp://127.0.0.1:502"
    groups:
      result:
        on_trigger: true
        tags:
          test_id: {address: "holding:1", type: uint32}
          sn: {address: "holding:10", type: string, length: 16}
          made: {address: "holding:30", type: uint32}
          force: {address: "holding:32", type: float32}
---
  ST{n}:
    step: test
    identity: {when: in_data, tag: tester{n}.sn, pattern: '(?P<serial>SN\d{8})'}
    cycle: {end: {message: tester{n}.result, key: tester{n}.test_id}}
    collect: {force: {tag: tester{n}.force, required: true, identical: 4}}
    tags: ["tester{n}.made"]
"""

    def setup(self) -> None:
        self.device = self.line.devices[f"tester{self.number}"]
        self.tests = itertools.count(1000)

    # --- passages ----------------------------------------------------------------------------------------------

    def put_in(self, visit: Visit) -> Script:
        yield self.pause(0.1, 0.4)

    def work_on(self, visit: Visit, *, watched: bool = True) -> Script:
        yield self.pause(0.1, 0.6)

    def finish(self, visit: Visit) -> Script:
        self.device.tags |= {
            "test_id": next(self.tests), "sn": visit.label.ljust(16), "made": visit.token,
            "force": visit.force,
        }  # fmt: skip
        self.line.push(self.device.name, "result")
        yield 0.1

    def take_out(self) -> Script:
        yield self.pause(0.1, 0.3)

    # --- visits ------------------------------------------------------------------------------------------------

    def duplicate_message(self, visit: Visit) -> Script:
        yield from self.through(visit)
        for _ in range(self.chance.randint(1, 2)):
            yield self.chance.choice([0.01, 1.0, 20.0])
            self.line.push(self.device.name, "result")

    def garbled_serial(self, visit: Visit) -> Script:
        label, visit.label = visit.label, self.chance.choice(["SN12", "\x01\x02", "8888"])
        yield from self.through(visit)
        visit.label = label

    def refused_serial(self, visit: Visit) -> Script:
        self.device.refused = {"sn"}
        yield from self.through(visit)
        self.device.refused = set()

    def value_missing(self, visit: Visit) -> Script:
        self.device.refused = {"force"}
        yield from self.through(visit)
        self.device.refused = set()

    def identical_entries(self, visit: Visit) -> Script:
        """The operator enters the same for one unit after the other."""
        units = [visit, *(self.unit("identical_entries") for _ in range(self.chance.randint(3, 5)))]
        for one in units:
            one.findings[:] = ["identical_entries"] if one is units[3] else []
            one.alike = visit.token + 0.25
            yield from self.through(one)

    def restart(self, visit: Visit) -> Script:
        yield from self.put_in(visit)
        self.line.commit()
        yield Restart()
        yield from self.finish(visit)

    def swapped_in_downtime(self, visit: Visit) -> Script:
        visit.work = "none"
        yield from self.put_in(visit)
        other = self.unit("swapped_in_downtime")
        self.line.commit()
        yield Restart()
        yield from self.finish(other)

    def clock_step(self, visit: Visit) -> Script:
        self.line.step_clock(self.chance.choice([-7200.0, -0.5, 2.0, 86400.0]))
        yield from self.through(visit)
