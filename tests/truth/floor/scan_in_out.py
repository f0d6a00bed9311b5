"""A reader at the entry and one at the exit; nothing else delimits."""

from __future__ import annotations

from collections.abc import Callable

from truth.floor.place import Place
from truth.visits import Restart, Script, Visit


class ScanInOut(Place):
    """A bench with two readers; a PLC's sensor is read all the time, and knows nothing of units."""

    strategy = "scan_in_out"
    has_result = False
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups: {state: {poll: 100ms, tags: {load: {address: "input:1", type: uint32}}}}
  in{n}: {driver: scanner, port: "/dev/ttyin{n}"}
  out{n}: {driver: scanner, port: "/dev/ttyout{n}"}
---
  ST{n}:
    step: inspect
    identity: {when: before, scan: in{n}, pattern: '(?P<serial>SN\d{8})'}
    cycle: {end: {scan: out{n}}, timeout: 10min}
    tags: ["plc{n}.load"]
"""

    def announce(self, visit: Visit) -> None:
        self.scan(f"in{self.number}", visit.label)

    def put_in(self, visit: Visit) -> Script:
        yield self.pause(0.2, 0.5)
        self.device.tags["load"] = visit.token

    def work_on(self, visit: Visit, *, watched: bool = True) -> Script:
        begun = self.now
        yield self.pause(0.3, 1.5)
        (visit.spans if watched else visit.dark).append([begun, self.now])

    def finish(self, visit: Visit) -> Script:
        """The unit is lifted out, and passes the exit."""
        self.device.tags["load"] = 0
        yield self.pause(0.2, 0.4)
        self.scan(f"out{self.number}", visit.label)

    def take_out(self) -> Script:
        self.device.tags["load"] = 0
        yield self.pause(0.2, 0.4)

    # --- visits ------------------------------------------------------------------------------------------------

    def missed_scan(self, visit: Visit) -> Script:
        yield from self.through(visit, watched=False)

    def unreadable_scan(self, visit: Visit) -> Script:
        self.no_read(f"in{self.number}", visit)
        yield from self.through(visit, watched=False)

    def foreign_label(self, visit: Visit) -> Script:
        self.scan(f"in{self.number}", self.chance.choice(["PALLET-7", "SN12", "OP:MAX"]))
        yield from self.through(visit, watched=False)

    def missed_out(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        yield from self.take_out()

    def missed_out_and_in(self, visit: Visit) -> Script:
        """The scans would fit one unit that came in as the first and went out as the second."""
        second = self.unit("missed_out_and_in")
        second.findings.clear()
        yield from self.begin(visit)
        yield from self.work_on(visit, watched=False)
        yield from self.take_out()
        yield from self.through(second, watched=False)

    def unit_removed(self, visit: Visit) -> Script:
        yield from self.missed_out(visit)

    def double_scan(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        for _ in range(self.chance.randint(1, 3)):
            yield self.chance.choice([0.05, 0.3, 2.5])
            self.announce(visit)
        yield from self.work_on(visit)
        yield from self.finish(visit)
        yield self.chance.choice([0.05, 0.5, 2.5])
        if self.chance.random() < 0.5:
            self.scan(f"out{self.number}", visit.label)

    def late_scan(self, visit: Visit) -> Script:
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=False)
        self.announce(visit)
        yield self.pause(0.3, 0.8)
        yield from self.finish(visit)

    def restart(self, visit: Visit) -> Script:
        yield from self.interrupted(visit)
        yield from self.work_on(visit, watched=False)
        yield from self.finish(visit)

    def swapped_in_downtime(self, visit: Visit) -> Script:
        other = self.unit("swapped_in_downtime")
        other.findings.clear()
        yield from self.interrupted(visit, lambda: self.device.tags.update(load=other.token))
        yield from self.work_on(other, watched=False)
        yield from self.finish(other)

    def interrupted(self, visit: Visit, unseen: Callable[[], None] = lambda: None) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.line.commit()
        yield Restart(unseen)

    def after_loss(self, visit: Visit) -> Script:
        yield from self.work_on(visit)
        yield from self.finish(visit)
