"""Units travel on pallets with a transponder: loaded by position, worked on by position, off when that is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from truth.floor.place import Place
from truth.visits import Handshaking, Restart, Script, Visit

RELOAD_NS = 30_000_000_000


class CarrierLine(Place):
    """A loading bench with a reader a place, and a press that reads the pallet and works on both units at once."""

    strategy = "carrier"
    abreast = 2
    covered = False
    waits: ClassVar[set[str]] = {"restart_pending"}
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups:
      state: {poll: 100ms, tags: {ready: {address: "coil:1"}}}
      result:
        on_trigger: true
        tags:
          count: {address: "holding:1", type: uint16}
          made1: {address: "holding:2", type: uint32}
          made2: {address: "holding:4", type: uint32}
    tags: {ack: {address: "coil:11", write: true}}
  pal{n}l: {driver: scanner, port: "/dev/ttypl{n}"}
  lab{n}a: {driver: scanner, port: "/dev/ttyla{n}"}
  lab{n}b: {driver: scanner, port: "/dev/ttylb{n}"}
  pal{n}w: {driver: scanner, port: "/dev/ttypw{n}"}
---
  LD{n}:
    step: load
    positions: [1, 2]
    identity: {when: before, scan: {1: lab{n}a, 2: lab{n}b}, pattern: '(?P<serial>SN\d{8})'}
    carrier: {op: load, scan: pal{n}l, pattern: '(?P<carrier>PAL\d+)', reload: 30s}
    cycle: {timeout: 10h}
  ST{n}:
    step: weld
    positions: [1, 2]
    identity: {when: before, scan: pal{n}w, of: carrier, pattern: '(?P<carrier>PAL\d+)'}
    carrier: {op: unload, reload: 30s}
    cycle:
      timeout: 10h
      end: {handshake: {ready: plc{n}.ready, ack: plc{n}.ack, counter: plc{n}.count, read: plc{n}.result}}
    tags: {1: ["plc{n}.made1"], 2: ["plc{n}.made2"]}
"""

    def setup(self) -> None:
        super().setup()
        self.machine = Handshaking(self.device, self.chance)
        self.clean = [f"PAL{self.number}{place}" for place in range(10, 18)]
        self.pallets = 100
        self.since = 0  # when somebody watched last

    def sources(self) -> set[str]:
        return super().sources() | {f"LD{self.number}"}

    @property
    def plc(self) -> Handshaking:
        return self.machine

    # --- passages ----------------------------------------------------------------------------------------------

    def pair(self, visit: Visit) -> list[Visit]:
        """Both units of a pallet."""
        other = self.unit(visit.disturbance)
        return [visit, other]

    def load(self, units: Sequence[Visit | None], pallet: str = "") -> Script:
        """Onto a pallet, each on its place."""
        self.pallet = pallet or self.chance.choice(self.clean)
        self.scan(f"pal{self.number}l", self.pallet)
        for reader, unit in zip("ab", units, strict=True):
            yield self.pause(0.1, 0.4)
            if unit is not None:
                self.scan(f"lab{self.number}{reader}", unit.label)
        yield self.pause(0.3, 1.0)

    def arrive(self) -> Script:
        self.scan(f"pal{self.number}w", self.pallet)
        yield self.pause(0.3, 0.8)

    def weld(self, units: Sequence[Visit | None]) -> Script:
        yield self.pause(0.2, 0.8)
        for name, unit in zip(("made1", "made2"), units, strict=True):
            self.device.tags[name] = unit.token if unit else 0
        self.plc.count()
        self.device.tags["ready"] = True
        yield from self.until(lambda: self.plc.idle)
        yield self.pause(0.15, 0.4)

    def dirty(self) -> None:
        """This pallet is put away with its units still in the books: another takes its place on the line."""
        if self.pallet in self.clean:
            self.clean.remove(self.pallet)
            self.pallets += 1
            self.clean.append(f"PAL{self.number}{self.pallets}")

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.load(units)
        yield from self.arrive()
        yield from self.weld(units)
        self.seen += [unit.label for unit in units]

    def short_silence(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.load(units)
        yield from self.arrive()
        self.line.silence(self.device.name, self.pause(0.2, 0.7))
        yield 1.0
        yield from self.weld(units)

    def clock_step(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.load(units)
        self.line.step_clock(self.chance.choice([-7200.0, -0.5, 2.0, 86400.0]))
        yield from self.arrive()
        yield from self.weld(units)

    def retest(self, visit: Visit) -> Script:
        units = self.pair(visit)
        if len(self.seen) > 1:
            for unit in units:
                unit.label = self.seen.pop(self.chance.randrange(len(self.seen)))
                unit.attempt = 2
            yield 2.5
        yield from self.load(units)
        yield from self.arrive()
        yield from self.weld(units)

    def double_scan(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.load(units)
        for reader, unit in zip("ab", units, strict=True):
            if self.chance.random() < 0.5:
                yield self.chance.choice([0.05, 2.5])
                self.scan(f"lab{self.number}{reader}", unit.label)
        yield from self.arrive()
        yield self.chance.choice([0.05, 2.5])
        self.scan(f"pal{self.number}w", self.pallet)
        yield from self.weld(units)

    def missed_scan(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.load(units)
        yield from self.weld(units)
        self.dirty()

    def unreadable_scan(self, visit: Visit) -> Script:
        units = self.pair(visit)
        units[1].findings.remove("no_read")
        yield from self.load(units)
        self.no_read(f"pal{self.number}w", visit)
        yield from self.weld(units)
        self.dirty()

    def unknown_carrier(self, visit: Visit) -> Script:
        units = self.pair(visit)
        self.pallets += 1
        self.pallet = f"PAL{self.number}{self.pallets}"
        yield from self.arrive()
        yield from self.weld(units)

    def pallet_reused(self, visit: Visit) -> Script:
        """Its units were taken off by hand somewhere; it comes back, and is loaded again."""
        yield from self.load(self.by_hand("pallet_reused"))
        pallet = self.pallet
        yield 2.5
        self.clean.remove(pallet)
        yield from self.none(self.unit("none"))
        self.clean.append(pallet)
        units = self.pair(visit)
        units[1].findings.clear()
        yield from self.load(units, pallet)
        yield from self.arrive()
        yield from self.weld(units)

    def pallet_refilled(self, visit: Visit) -> Script:
        """On the spot: or the new ones are on a pallet that was not read."""
        yield from self.load(self.by_hand("pallet_refilled"))
        yield 2.5
        units = self.pair(visit)
        yield from self.load(units, self.pallet)
        yield from self.arrive()
        yield from self.weld(units)
        self.dirty()

    def by_hand(self, disturbance: str) -> list[Visit]:
        """Units that are loaded and taken off before any work."""
        units = [self.unit(disturbance), self.unit(disturbance)]
        for unit in units:
            unit.work = "none"
            unit.findings.clear()
        return units

    def empty_nest(self, visit: Visit) -> Script:
        alone = self.unit("none")
        yield from self.load([alone, None])
        yield from self.arrive()
        yield from self.weld([alone, None])

    # --- nobody watches ----------------------------------------------------------------------------------------

    def restart(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.dark(units)
        yield from self.weld(units)

    def restart_rescan(self, visit: Visit) -> Script:
        units = self.pair(visit)
        yield from self.dark(units)
        self.doubt_if_long(units)
        yield from self.arrive()
        yield from self.weld(units)

    def restart_pending(self, visit: Visit) -> Script:
        """One pallet is on its way: it is as it was. Another stands where it can be loaded otherwise in the dark."""
        units = self.pair(visit)
        yield from self.load(units)
        travels = self.pallet
        self.clean.remove(travels)
        standing = [self.unit("restart_pending"), self.unit("restart_pending")]
        for unit in standing:
            unit.work = "ambiguous"
        yield 2.5
        yield from self.load(standing)
        stands, self.pallet = self.pallet, travels
        self.line.commit()
        self.since = self.now
        yield Restart()
        self.doubt_if_long(units)
        self.clean.append(travels)
        yield from self.arrive()
        yield from self.weld(units)
        self.pallet = stands
        yield from self.arrive()
        yield from self.weld(standing)
        self.dirty()

    def swapped_in_downtime(self, visit: Visit) -> Script:
        units = self.pair(visit)
        others = [self.unit("swapped_in_downtime"), self.unit("swapped_in_downtime")]
        for unit, other in zip(units, others, strict=True):
            unit.work = "none"
            other.findings.clear()
        yield from self.dark(units)
        yield from self.weld(others)

    def dark(self, units: list[Visit], unseen: Callable[[], None] = lambda: None) -> Script:
        yield from self.load(units)
        yield from self.arrive()
        self.line.commit()
        self.since = self.now
        yield Restart(unseen)

    def doubt_if_long(self, units: list[Visit]) -> None:
        """Nobody watched for longer than it takes to unload a pallet and to load it anew."""
        for unit in units if self.now - self.since > RELOAD_NS else ():
            unit.work = "ambiguous"


class ReadOff(CarrierLine):
    """The same, but what is done stays on its pallet to the bench where it is taken off: that is where it is read."""

    settings = (
        CarrierLine.settings.replace("    carrier: {op: unload, reload: 30s}\n", "").replace(
            "---",
            """  pal{n}u: {driver: scanner, port: "/dev/ttypu{n}"}
  lab{n}u: {driver: scanner, port: "/dev/ttylu{n}"}
---""",
        )
        + r"""  UL{n}:
    step: unload
    identity: {when: before, scan: lab{n}u, pattern: '(?P<serial>SN\d{8})'}
    carrier: {op: unload, scan: pal{n}u, pattern: '(?P<carrier>PAL\d+)', reload: 30s}
"""
    )

    def sources(self) -> set[str]:
        return super().sources() | {f"UL{self.number}"}

    def weld(self, units: Sequence[Visit | None]) -> Script:
        yield from super().weld(units)
        self.scan(f"pal{self.number}u", self.pallet)
        yield 0.2
