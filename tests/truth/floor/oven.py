"""An oven: units in and out by scan, several at once; a reading of the air is everybody's who is inside.

A token stands for the crowd that is inside: each entry and exit makes another.
"""

from __future__ import annotations

from dataclasses import dataclass

from truth.visits import Barrier, Restart, Script, Station, Visit

ROOM = 6  # as many come in as fit
FOREVER = 10**15


@dataclass(eq=False)
class Inside:
    """A unit in the oven. ``known``: it was scanned in, and nothing has cast doubt on that since."""

    visit: Visit
    leaves: int
    begun: int
    known: bool = True
    silent: bool = False  # its exit will not be read


class Oven(Station):
    """See the module docstring."""

    strategy = "time_window"
    has_result = False
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups: {air: {poll: 200ms, tags: {load: {address: "input:1", type: uint32}}}}
  in{n}: {driver: scanner, port: "/dev/ttyin{n}"}
  out{n}: {driver: scanner, port: "/dev/ttyout{n}"}
---
  ST{n}:
    step: cure
    capacity: 20
    identity: {when: before, scan: in{n}, pattern: '(?P<serial>SN\d{8})'}
    cycle: {end: {scan: out{n}}, timeout: 90s}
    tags: ["plc{n}.load"]
"""

    def setup(self) -> None:
        self.device = self.line.devices[f"plc{self.number}"]
        self.inside: list[Inside] = []

    def unit(self, disturbance: str, label: str | None = None) -> Visit:
        """What comes of it may come late: at its exit, or at the time-out."""
        visit = super().unit(disturbance, label)
        visit.last_seq = FOREVER
        return visit

    # --- passages ----------------------------------------------------------------------------------------------

    def crowd(self) -> None:
        """From now on other readings are of these."""
        token = next(self._tokens) if self.inside else 0
        for one in self.inside:
            one.visit.tokens.add(token)
        self.device.tags["load"] = token

    def put_in(self, visit: Visit, *, known: bool = True, silent: bool = False) -> Inside:
        one = Inside(visit, self.now + int(self.pause(2.0, 8.0) * 1e9), self.now, known, silent)
        self.inside.append(one)
        self.crowd()
        return one

    def enter(self, visit: Visit, *, silent: bool = False) -> Inside:
        one = self.put_in(visit, silent=silent)
        self.scan(f"in{self.number}", visit.label)
        return one

    def leave(self, one: Inside) -> None:
        self.inside.remove(one)
        (one.visit.spans if one.known and not one.silent else one.visit.dark).append([one.begun, self.now])
        if not one.silent:
            self.scan(f"out{self.number}", one.visit.label)
        self.crowd()

    def play(self) -> Script:
        for disturbance in self.deck:
            self._end_visits(self.rounds[-1] if self.rounds else 0)
            self.rounds.append(len(self.visits))
            if disturbance == "restart":
                yield Barrier()
            while len(self.inside) >= ROOM:
                yield from self.wait(0.2)
            yield from getattr(self, disturbance, self.none)(self.unit(disturbance))
            yield from self.wait(self.pause(0.3, 1.2))
        self.rounds.append(len(self.visits))

    def wait(self, seconds: float) -> Script:
        """Time, in which those leave whose time is over."""
        yield seconds
        for one in [one for one in self.inside if one.leaves <= self.now]:
            self.leave(one)
            yield 0.05

    def finale(self) -> Script:
        while self.inside:
            yield from self.wait(0.5)
        yield 100.0  # beyond the time-out of those whose exit was not read

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        self.enter(visit)
        yield 0.1

    def double_scan(self, visit: Visit) -> Script:
        self.enter(visit)
        for _ in range(self.chance.randint(1, 3)):
            yield from self.wait(self.chance.choice([0.05, 0.3, 2.5]))
            if any(one.visit is visit for one in self.inside):
                self.scan(f"in{self.number}", visit.label)

    def swapped_scan(self, visit: Visit) -> Script:
        other = self.unit("swapped_scan")
        visit.label, other.label = other.label, visit.label
        self.enter(visit)
        yield 0.4
        self.enter(other)

    def exit_without_entry(self, visit: Visit) -> Script:
        self.put_in(visit, known=False)
        yield 0.1

    def unreadable_scan(self, visit: Visit) -> Script:
        self.no_read(f"in{self.number}", visit)
        self.put_in(visit, known=False)
        yield 0.1

    def no_exit(self, visit: Visit) -> Script:
        self.enter(visit, silent=True)
        yield 0.1

    def short_silence(self, visit: Visit) -> Script:
        self.enter(visit)
        yield 0.3
        self.line.silence(self.device.name, self.pause(0.2, 0.7))
        yield 1.0

    def clock_step(self, visit: Visit) -> Script:
        self.enter(visit)
        yield 0.3
        self.line.step_clock(self.chance.choice([-7200.0, -0.5, 2.0, 86400.0]))
        yield 0.3

    def plc_lost(self, visit: Visit) -> Script:
        self.enter(visit)
        yield 0.3
        self.line.lose(self.device.name, self.pause(0.5, 3.0))
        yield 3.5

    def restart(self, visit: Visit) -> Script:
        """All that are in stay in; what was read before is theirs."""
        for one in self.visits:
            if one.disturbance == "no_exit":
                one.also["observation_gap"] += 1  # in the books it is in still, each time nobody watches
        self.enter(visit)
        visit.findings.clear()
        yield 1.0
        for one in self.inside:
            (one.visit.spans if one.known and not one.silent else one.visit.dark).append([one.begun, self.now])
        self.line.commit()
        yield Restart()
        for one in self.inside:
            if one.known:
                one.visit.findings.append("observation_gap")
            one.begun, one.known = self.now, False
