"""A dial with slots: a unit is scanned before slot 1, and worked on in slot 2, wherever nobody scans it."""

from __future__ import annotations

import itertools

from truth.floor.place import Place
from truth.visits import Barrier, Handshaking, Restart, Script, Visit

WORK = 2  # the slot at which the press stands
SLOTS = 4


class Dial(Place):
    """See the module docstring. ``slots[0]`` is before slot 1, at the reader."""

    strategy = "shift_register"
    settings = r"""
  plc{n}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups:
      state:
        poll: 100ms
        tags:
          ready: {address: "coil:1"}
          index: {address: "input:3", type: uint16}
          load: {address: "input:1", type: uint32}
      result:
        on_trigger: true
        tags:
          count: {address: "holding:1", type: uint16}
          made: {address: "holding:2", type: uint32}
    tags: {ack: {address: "coil:11", write: true}}
  in{n}: {driver: scanner, port: "/dev/ttyin{n}"}
---
  ST{n}:
    step: press
    identity: {when: before, slot_of: dial{n}, slot: 2}
    cycle:
      timeout: 10h
      end: {handshake: {ready: plc{n}.ready, ack: plc{n}.ack, counter: plc{n}.count, read: plc{n}.result}}
    tags: ["plc{n}.load", "plc{n}.made"]
---
  dial{n}: {index: plc{n}.index, slots: 4, entry: in{n}, pattern: '(?P<serial>SN\d{8})'}
"""

    def setup(self) -> None:
        super().setup()
        self.machine = Handshaking(self.device, self.chance)
        self.device.tags["index"] = self.chance.randrange(65536)
        self.slots: list[Visit | None] = [None] * (WORK + 1)
        self.ways = itertools.cycle(["in time", "behind another", "too late"])
        self.tainted = True  # one that nobody saw scanned may stand at the entry
        self.slipped = False  # steps were lost: who stood at the entry then may stand there still
        self.doubtful = SLOTS + 1  # steps until every slot was filled anew

    @property
    def plc(self) -> Handshaking:
        return self.machine

    # --- passages ----------------------------------------------------------------------------------------------

    def enter(self, visit: Visit | None, *, scan: bool = True) -> Script:
        yield self.pause(0.3, 0.6)
        self.slots[0] = visit
        if visit is not None and (self.tainted or (self.slipped and not scan)):
            self.unsure(visit)
        if visit is not None and scan:
            self.scan(f"in{self.number}", visit.label)
            yield self.pause(0.2, 0.5)

    def step(self, *, times: int = 1) -> Script:
        """Everything moves on, and what is in the press's slot is worked on."""
        for _ in range(times):
            self.slots = [None, *self.slots[:-1]]
        yield from self.stepped(times)

    def stepped(self, times: int = 1) -> Script:
        """The slots are as they are now; the index says so, and the press works."""
        self.doubtful -= 1
        self.tainted = self.slipped = False
        self.device.tags["index"] = (self.device.tags["index"] + times) % 65536
        here = self.slots[WORK]
        self.plc.place(here.token if here else 0)
        yield self.pause(0.25, 0.4)
        if here is not None:
            begun = self.now
            yield self.pause(0.2, 0.6)
            if here.work == "bound":
                here.spans.append([begun, self.now])
            yield from self.finish(here)

    def play(self) -> Script:
        for disturbance in self.deck:
            self._end_visits(self.rounds[-3] if len(self.rounds) > 2 else 0)
            self.rounds.append(len(self.visits))
            if disturbance == "restart":
                yield Barrier()
            visit = self.unit(disturbance)
            if len(self.visits) == 1:
                visit.also["register_unsure"] += 1  # nobody watched before the first start
                visit.first_seq = 0
            yield from getattr(self, disturbance, self.none)(visit)

    def finale(self) -> Script:
        for _ in range(WORK + 2):
            yield 0.5
            yield from self.step()

    def doubt(self, visit: Visit) -> None:
        """Of everything in the slots nobody can be sure any more. As long as that lasts it is one finding."""
        for one in self.slots[:WORK]:
            if one is not None:
                self.unsure(one)
        if self.doubtful > 0 and "register_unsure" in visit.findings:
            visit.findings.remove("register_unsure")
        visit.also["register_unsure"] += 1
        self.tainted, self.doubtful = True, SLOTS + 1

    def unsure(self, one: Visit) -> None:
        if one.work in ("bound", "orphan"):
            one.work = "ambiguous"
            one.findings = [code for code in one.findings if code != "skipped_scan"]

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        yield from self.enter(visit)
        yield from self.step()

    def missed_scan(self, visit: Visit) -> Script:
        yield from self.enter(visit, scan=False)
        yield from self.step()

    def unreadable_scan(self, visit: Visit) -> Script:
        yield from self.enter(visit, scan=False)
        self.no_read(f"in{self.number}", visit)
        yield 0.3
        yield from self.step()

    def double_scan(self, visit: Visit) -> Script:
        yield from self.enter(visit)
        yield self.chance.choice([0.05, 2.5])
        self.scan(f"in{self.number}", visit.label)
        yield 0.3
        yield from self.step()

    def swapped_scan(self, visit: Visit) -> Script:
        other = self.unit("swapped_scan")
        visit.label, other.label = other.label, visit.label
        yield from self.none(visit)
        yield from self.none(other)

    def retest(self, visit: Visit) -> Script:
        if len(self.visits) > 8 and (old := self.visits[-8]).work == "bound" and old.disturbance == "none":
            old.disturbance = "none"
            if old.label not in self.seen:
                self.seen.append(old.label)
                visit.label, visit.attempt = old.label, 2
        yield 2.5
        yield from self.none(visit)

    def short_silence(self, visit: Visit) -> Script:
        yield from self.enter(visit)
        self.line.silence(self.device.name, self.pause(0.2, 0.7))
        yield 1.0
        yield from self.step()

    def clock_step(self, visit: Visit) -> Script:
        self.line.step_clock(self.chance.choice([-7200.0, -0.5, 2.0, 86400.0]))
        yield from self.none(visit)

    def two_scans(self, visit: Visit) -> Script:
        """One is scanned and put away, another is scanned in its stead: either may stand there."""
        away = self.unit("two_scans")
        away.work = "none"
        self.scan(f"in{self.number}", away.label)
        yield 2.5
        yield from self.none(visit)

    def scan_in_step(self, visit: Visit) -> Script:
        """The next one's label is read as the dial steps: before, or after?"""
        how = next(self.ways)
        coming = self.unit("scan_in_step") if how == "behind another" else visit
        yield from self.enter(None if how == "too late" else visit, scan=how == "behind another")
        self.slots = [None, *self.slots[:-1]]
        self.line.after(0.0, lambda: self.scan(f"in{self.number}", coming.label))
        yield from self.stepped()
        self.slots[0] = None if how == "in time" else coming
        yield self.pause(0.2, 0.4)
        yield from self.step()

    def unit_removed(self, visit: Visit) -> Script:
        """Taken out of slot 1 by hand: the press finds the slot empty."""
        yield from self.none(visit)
        self.slots[1] = None

    def index_lost(self, visit: Visit) -> Script:
        """The dial steps twice between two polls; what was in slot 1 passes the press."""
        yield from self.none(visit)
        yield from self.enter(None)
        self.doubt(visit)
        passing = self.slots[WORK - 1]
        if passing is not None:
            passing.work = "none"
        yield from self.step(times=2)
        self.doubtful, self.slipped = SLOTS + 1, True

    def restart(self, visit: Visit) -> Script:
        yield from self.none(visit)
        self.doubt(visit)
        self.line.commit()
        yield Restart()

    def plc_lost(self, visit: Visit) -> Script:
        yield from self.none(visit)
        self.doubt(visit)
        self.line.lose(self.device.name, self.pause(0.5, 3.0))
        yield from self.until(lambda: not self.device.offline)
        yield 0.5
