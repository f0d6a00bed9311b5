"""Readings belong to the lot that is active on the machine, from its scan to the next one's."""

from __future__ import annotations

from truth.visits import Restart, Script, Station, Visit

CHANGEOVER_S = 2.0


class LotWindow(Station):
    """A furnace through which lots pass; at the changeover both are in it."""

    strategy = "lot_window"
    has_result = False
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups: {zone: {poll: 200ms, tags: {load: {address: "input:1", type: uint32}}}}
  in{n}: {driver: scanner, port: "/dev/ttyin{n}"}
---
  ST{n}:
    step: harden
    identity: {when: before, scan: in{n}, of: lot, pattern: '(?P<lot>LOT\d{8})', changeover: 2s}
    cycle: {timeout: 10h}
    tags: ["plc{n}.load"]
"""

    def setup(self) -> None:
        self.device = self.line.devices[f"plc{self.number}"]
        self.active: Visit | None = None  # whose scan was believed, and since then nobody else's
        self.begun = 0

    def new_label(self) -> str:
        return f"LOT{self.chance.randrange(10**8):08d}"

    def read_label(self, visit: Visit) -> None:
        self.scan(f"in{self.number}", visit.label)

    def begin(self, visit: Visit) -> Script:
        """The lot is scanned; during the changeover nobody knows which of them is where."""
        self.end()
        self.read_label(visit)
        early = self.pause(0.1, CHANGEOVER_S - 0.2)
        yield early
        self.device.tags["load"] = visit.token
        yield CHANGEOVER_S - early + 0.6
        self.active, self.begun = visit, self.now

    def end(self) -> None:
        if self.active is not None:
            self.active.spans.append([self.begun, self.now])
        self.active = None

    def run(self) -> Script:
        yield self.pause(1.0, 4.0)

    def finale(self) -> Script:
        yield from self.begin(self.unit("none"))
        self.active = None  # it is never seen to end
        yield 1.0

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.run()

    def double_scan(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        for _ in range(self.chance.randint(1, 3)):
            yield self.chance.choice([0.05, 0.3, 2.5])
            self.read_label(visit)
        yield from self.run()

    def foreign_label(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.run()
        self.scan(f"in{self.number}", self.chance.choice(["PALLET-7", "LOT12", "OP:MAX"]))
        yield from self.run()

    def short_silence(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        self.line.silence(self.device.name, self.pause(0.2, 0.7))
        yield 1.0
        yield from self.run()

    def clock_step(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        self.line.step_clock(self.chance.choice([-7200.0, -0.5, 2.0, 86400.0]))
        yield from self.run()

    def mixed_lots(self, visit: Visit) -> Script:
        """A third lot comes before the second has driven out the first."""
        third = self.unit("mixed_lots")
        third.work = "bound"
        self.end()
        self.read_label(visit)
        begun = self.now
        yield 0.4
        self.device.tags["load"] = visit.token
        yield 0.5
        visit.dark.append([begun, self.now + 10**9])
        yield from self.begin(third)
        yield from self.run()

    def restart(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.run()
        self.end()
        self.line.commit()
        yield Restart()
        begun = self.now
        yield from self.run()
        visit.dark.append([begun, self.now])

    def restart_rescan(self, visit: Visit) -> Script:
        yield from self.restart(visit)
        self.read_label(visit)
        yield 0.5
        self.active, self.begun = visit, self.now
        yield from self.run()
