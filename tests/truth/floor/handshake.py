"""Scan before the work; a PLC's handshake with a counter, or the edge of a done bit, ends it."""

from __future__ import annotations

from truth.floor.place import Place
from truth.visits import LEAVES_OPEN, Handshaking, Script, Visit


class Handshake(Place):
    """Two nests on one PLC, each with its reader, its handshake and its counter."""

    strategy = "handshake"
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups:
      state:
        poll: 100ms
        tags:
          ready1: {address: "coil:1"}
          ready2: {address: "coil:2"}
          load1: {address: "input:1", type: uint32}
          load2: {address: "input:3", type: uint32}
      result1:
        on_trigger: true
        tags:
          count1: {address: "holding:1", type: uint16}
          made1: {address: "holding:2", type: uint32}
          force1: {address: "holding:4", type: float32}
      result2:
        on_trigger: true
        tags:
          count2: {address: "holding:11", type: uint16}
          made2: {address: "holding:12", type: uint32}
          force2: {address: "holding:14", type: float32}
    tags: {ack1: {address: "coil:11", write: true}, ack2: {address: "coil:12", write: true}}
  in{n}1: {driver: scanner, port: "/dev/tty{n}1"}
  in{n}2: {driver: scanner, port: "/dev/tty{n}2"}
---
  ST{n}:
    step: press
    positions: [1, 2]
    identity: {when: before, scan: {1: in{n}1, 2: in{n}2}, pattern: '(?P<serial>SN\d{8})'}
    cycle:
      timeout: 10min
      end:
        handshake:
          ready: {1: plc{n}.ready1, 2: plc{n}.ready2}
          ack: {1: plc{n}.ack1, 2: plc{n}.ack2}
          counter: {1: plc{n}.count1, 2: plc{n}.count2}
          read: {1: plc{n}.result1, 2: plc{n}.result2}
    collect: {force: {tag: {1: plc{n}.force1, 2: plc{n}.force2}, required: true}}
    tags: {1: ["plc{n}.load1", "plc{n}.made1"], 2: ["plc{n}.load2", "plc{n}.made2"]}
"""

    def setup(self) -> None:
        super().setup()
        self.nests = {nest: Handshaking(self.device, self.chance, str(nest)) for nest in (1, 2)}
        self.nest = 1

    # --- passages ----------------------------------------------------------------------------------------------

    @property
    def plc(self) -> Handshaking:
        return self.nests[self.nest]

    @property
    def reader(self) -> str:
        return f"in{self.number}{self.nest}"

    def readers(self) -> list[str]:
        return [self.reader]

    def announce(self, visit: Visit) -> None:
        self.scan(self.reader, visit.label)

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        if len(self.visits) < 2 or self.visits[-2].disturbance not in LEAVES_OPEN:
            self.nest = 3 - self.nest  # else the next scan has to come here
        yield from super().none(visit)

    def missed_scan(self, visit: Visit) -> Script:
        yield from self.through(visit, watched=False)

    def unreadable_scan(self, visit: Visit) -> Script:
        self.no_read(self.reader, visit)
        yield from self.through(visit, watched=False)

    def foreign_label(self, visit: Visit) -> Script:
        self.scan(self.reader, self.chance.choice(["PALLET-7", "http://example.com", "SN12", "OP:MAX"]))
        yield from self.through(visit, watched=False)

    def double_scan(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        begun = self.now
        for _ in range(self.chance.randint(1, 3)):
            yield self.chance.choice([0.05, 0.3, 2.5])
            self.announce(visit)
        yield self.pause(0.2, 0.8)
        visit.spans.append([begun, self.now])
        yield from self.finish(visit)
        yield from self.take_out()

    def late_scan(self, visit: Visit) -> Script:
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=False)
        yield from self.finish(visit)
        self.announce(visit)
        yield self.pause(0.3, 0.6)
        yield from self.take_out()

    def early_next_scan(self, visit: Visit) -> Script:
        """The machine indexes as it finishes; the next unit's label passes its reader at once."""
        yield from self.begin(visit)
        yield from self.work_on(visit)
        coming = self.unit("early_next_scan")
        self.plc.finish(visit.token)
        self.plc.place(0)
        yield self.pause(0.0, 0.08)
        self.announce(coming)
        yield from self.until(lambda: self.plc.idle)
        yield from self.through(coming)

    def same_label(self, visit: Visit) -> Script:
        """The twin is scanned at the other nest while the first is at work."""
        twin = self.unit("same_label", visit.label)
        twin.findings.clear()  # one finding for both
        first, second = self.nest, 3 - self.nest
        yield from self.begin(visit)
        yield self.pause(0.3, 0.8)
        self.nest = second
        self.announce(twin)
        yield from self.through(twin, watched=False)
        self.nest = first
        yield from self.finish(visit)
        yield from self.take_out()

    def unit_removed(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        yield from self.take_out()
