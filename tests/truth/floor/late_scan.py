"""The work first, anonymous; then one scan within max_wait says whose it was."""

from __future__ import annotations

from typing import ClassVar

from truth.floor.place import Place
from truth.visits import Handshaking, Restart, Script, Visit

MAX_WAIT_S = 4.0


class LateScan(Place):
    """A press whose part is marked and read when it comes out."""

    strategy = "late_scan"
    numbered = False  # a cycle closes before it is known whose it is
    waits: ClassVar[set[str]] = {"restart_pending"}
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups:
      state:
        poll: 100ms
        tags: {ready: {address: "coil:1"}, busy: {address: "coil:2"}, load: {address: "input:1", type: uint32}}
      result:
        on_trigger: true
        tags:
          count: {address: "holding:1", type: uint16}
          made: {address: "holding:2", type: uint32}
          force: {address: "holding:4", type: float32}
    tags: {ack: {address: "coil:11", write: true}}
  late{n}: {driver: scanner, port: "/dev/tty{n}"}
---
  ST{n}:
    step: mark
    identity: {when: after, scan: late{n}, pattern: '(?P<serial>SN\d{8})', max_wait: 4s}
    cycle:
      timeout: 10min
      start: {tag: plc{n}.busy, edge: rising}
      end: {handshake: {ready: plc{n}.ready, ack: plc{n}.ack, counter: plc{n}.count, read: plc{n}.result}}
    collect: {force: {tag: plc{n}.force, required: true}}
    attempts: {max: 1, flag: true}
    tags: ["plc{n}.load", "plc{n}.made"]
"""

    def setup(self) -> None:
        super().setup()
        self.machine = Handshaking(self.device, self.chance)
        self.device.tags["busy"] = False

    @property
    def plc(self) -> Handshaking:
        return self.machine

    # --- passages ----------------------------------------------------------------------------------------------

    def put_in(self, visit: Visit) -> Script:
        yield self.pause(0.2, 0.5)
        self.plc.place(visit.token)
        self.device.tags["busy"] = True
        yield 0.25

    def done(self, visit: Visit) -> Script:
        """The result, without the scan."""
        self.device.tags["busy"] = False
        yield from super().finish(visit)

    def finish(self, visit: Visit) -> Script:
        yield from self.done(visit)
        yield self.pause(0.1, 2.0)
        self.read_label(visit)

    def read_label(self, visit: Visit) -> None:
        self.scan(f"late{self.number}", visit.label)

    def over(self) -> Script:
        """Until max_wait is over for what was done."""
        yield MAX_WAIT_S + self.pause(0.5, 1.5)

    # --- visits ------------------------------------------------------------------------------------------------

    def missed_scan(self, visit: Visit) -> Script:
        yield from self._unscanned(visit)
        yield from self.over()

    def _unscanned(self, visit: Visit) -> Script:
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=False)
        yield from self.done(visit)
        yield from self.take_out()

    def unreadable_scan(self, visit: Visit) -> Script:
        yield from self._unscanned(visit)
        self.no_read(f"late{self.number}", visit)
        yield from self.over()

    def foreign_label(self, visit: Visit) -> Script:
        yield from self._unscanned(visit)
        self.scan(f"late{self.number}", self.chance.choice(["PALLET-7", "SN12", "OP:MAX"]))
        yield from self.over()

    def double_scan(self, visit: Visit) -> Script:
        yield from self.through(visit)
        for _ in range(self.chance.randint(1, 3)):
            yield self.chance.choice([0.05, 0.3, 2.5])
            self.read_label(visit)

    def retest(self, visit: Visit) -> Script:
        yield 10.0  # sooner it could be a second look at the same label
        known = bool(self.seen)
        yield from super().retest(visit)
        visit.attempt = None
        if not known:
            visit.findings.clear()

    def two_candidates(self, visit: Visit) -> Script:
        """The second is done before the first was scanned; then one label is read, or both."""
        second = self.unit("two_candidates")
        for one in (visit, second):
            yield 0.2
            yield from self.put_in(one)
            yield 0.3
            yield from self.done(one)
            yield from self.take_out()
        read = [visit, second] if self.chance.random() < 0.5 else [self.chance.choice([visit, second])]
        for one in read:
            self.read_label(one)
            yield self.pause(0.1, 0.5)
        yield from self.over()

    def other_label(self, visit: Visit) -> Script:
        """Its own label is not read; that of the unit before is, once more."""
        before = self.unit("none")
        yield from super().none(before)
        yield 2.0  # beyond the reader's bounce
        yield from self._unscanned(visit)
        self.read_label(before)
        yield from self.over()

    def plc_lost(self, visit: Visit) -> Script:
        """The result is there; then the PLC is lost for a while, and only then a label is read."""
        yield from self._unscanned(visit)
        self.line.lose(self.device.name, self.pause(0.5, 2.0))
        yield from self.until(lambda: not self.device.offline)
        yield self.pause(0.4, 0.8)
        self.read_label(visit)
        yield from self.over()

    def swapped_in_downtime(self, visit: Visit) -> Script:
        """It is finished unseen and may be scanned still; who is finished then may be either one's label."""
        visit.work = "none"
        other = self.unit("swapped_in_downtime")
        other.findings.clear()
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=False)
        self.line.commit()
        yield Restart(lambda: self.exchange(other))
        yield 0.5
        yield from self.finish(other)
        yield from self.take_out()
        yield from self.over()

    def exchange(self, other: Visit) -> None:
        """One more result that nobody saw."""
        self.plc.count()
        super().exchange(other)

    def scan_too_late(self, visit: Visit) -> Script:
        yield from self._unscanned(visit)
        yield from self.over()
        self.read_label(visit)
        yield 0.5

    def restart(self, visit: Visit) -> Script:
        """In mid-cycle: that cycle is nobody's; the result is read after, and its scan."""
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=False)
        self.line.commit()
        yield Restart()
        yield from self.finish(visit)
        yield from self.take_out()

    def restart_pending(self, visit: Visit) -> Script:
        """When only the scan is missing still: what is scanned after may be another unit."""
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=False)
        yield from self.done(visit)
        self.line.commit()
        yield Restart()
        yield from self.take_out()
        self.read_label(visit)
        yield from self.over()
