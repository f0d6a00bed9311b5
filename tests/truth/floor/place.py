"""A place where one unit after the other is worked on by a PLC: what can happen there, whatever identifies the unit.

Strategies say how a unit is announced, put in, finished and taken out; the disturbances are made of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from truth.line import Device
from truth.visits import Handshaking, Restart, Script, Station, Visit

LOST_NS = 200_000_000  # two polls before a loss: what is read that late may not arrive


class Place(Station):
    """See the module docstring."""

    waits: ClassVar[set[str]] = {"duplicate_message"}
    covered = True  # what is read during the work is the unit's
    device: Device

    def setup(self) -> None:
        self.device = self.line.devices[f"plc{self.number}"]

    # --- passages, for strategies to change ----------------------------------------------------------------------

    @property
    def plc(self) -> Handshaking:
        """The machine at the place in use."""
        raise NotImplementedError

    def announce(self, visit: Visit) -> None:
        """What identifies the unit before its work."""

    def put_in(self, visit: Visit) -> Script:
        yield self.pause(0.2, 0.5)
        self.plc.place(visit.token)

    def work_on(self, visit: Visit, *, watched: bool = True) -> Script:
        begun = self.now
        yield self.pause(0.3, 1.5)
        if watched and self.covered:
            visit.spans.append([begun, self.now])

    def finish(self, visit: Visit) -> Script:
        self.plc.finish(visit.token)
        yield from self.until(lambda: self.plc.idle)
        yield self.pause(0.15, 0.4)

    def take_out(self) -> Script:
        self.plc.place(0)
        yield self.pause(0.2, 0.4)

    def begin(self, visit: Visit) -> Script:
        self.announce(visit)
        yield from self.put_in(visit)

    def through(self, visit: Visit, *, watched: bool = True) -> Script:
        """From the empty place to the empty place, all but the announcement."""
        yield from self.put_in(visit)
        yield from self.work_on(visit, watched=watched)
        yield from self.finish(visit)
        yield from self.take_out()

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        self.announce(visit)
        yield from self.through(visit)
        self.seen.append(visit.label)

    def short_silence(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.line.silence(self.device.name, self.pause(0.2, 0.7))
        yield self.pause(0.8, 1.2)
        yield from self.work_on(visit)
        yield from self.finish(visit)
        yield from self.take_out()

    def clock_step(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.line.step_clock(self.chance.choice([-7200.0, -0.5, 2.0, 86400.0]))
        yield from self.work_on(visit)
        yield from self.finish(visit)
        yield from self.take_out()

    def retest(self, visit: Visit) -> Script:
        if self.seen:
            visit.label = self.seen.pop(self.chance.randrange(len(self.seen)))
            visit.attempt = 2
            yield 2.5  # beyond the reader's bounce
        self.announce(visit)
        yield from self.through(visit)

    def swapped_scan(self, visit: Visit) -> Script:
        """Their labels were exchanged long before: each is what its label says."""
        other = self.unit("swapped_scan")
        visit.label, other.label = other.label, visit.label
        for one in (visit, other):
            self.announce(one)
            yield from self.through(one)

    # --- nobody watches ----------------------------------------------------------------------------------------

    def restart(self, visit: Visit) -> Script:
        yield from self.interrupted(visit)
        yield from self.finish(visit)
        yield from self.take_out()

    def restart_rescan(self, visit: Visit) -> Script:
        yield from self.interrupted(visit)
        self.announce(visit)
        yield 0.2
        yield from self.work_on(visit)
        yield from self.finish(visit)
        yield from self.take_out()

    def swapped_in_downtime(self, visit: Visit) -> Script:
        visit.work = "none"
        other = self.unit("swapped_in_downtime")
        other.findings.clear()
        yield from self.interrupted(visit, lambda: self.exchange(other))
        yield from self.finish(other)
        yield from self.take_out()

    def exchange(self, other: Visit) -> None:
        """Another unit takes the place, unseen."""
        self.plc.place(other.token)

    def interrupted(self, visit: Visit, unseen: Callable[[], None] = lambda: None) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.line.commit()
        yield Restart(unseen)

    def plc_lost(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self._not_the_last(visit)
        self.line.lose(self.device.name, self.pause(0.5, 4.0))
        yield from self.until(lambda: not self.device.offline)
        yield self.pause(0.4, 0.8)
        yield from self.after_loss(visit)

    def reader_lost(self, visit: Visit) -> Script:
        """Away for a moment: another unit's scan may have been lost."""
        yield from self.begin(visit)
        yield from self.work_on(visit)
        for reader in self.readers():
            self.line.lose_reader(reader)
        yield 0.5
        yield from self.finish(visit)
        yield from self.take_out()

    def readers(self) -> list[str]:
        """What identifies here."""
        return [f"in{self.number}"]

    def after_loss(self, visit: Visit) -> Script:
        yield from self.finish(visit)
        yield from self.take_out()

    def long_silence(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self._not_the_last(visit)
        self.line.silence(self.device.name, self.pause(1.3, 4.0))
        yield 4.5
        yield from self.finish(visit)
        yield from self.take_out()

    def _not_the_last(self, visit: Visit) -> None:
        if visit.spans:
            visit.spans[-1][1] -= LOST_NS

    def duplicate_message(self, visit: Visit) -> Script:
        """The result is safe; the agent dies before the acknowledge."""
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.device.hold_writes = True
        self.plc.finish(visit.token)
        yield 0.5
        self.line.commit()
        yield Restart()
        yield from self.until(lambda: self.plc.idle)
        yield from self.take_out()

    # --- the PLC's counter -------------------------------------------------------------------------------------

    def counter_jump(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit, watched=visit.work == "bound")
        self.plc.count(self.chance.randint(1, 5))
        yield from self.finish(visit)
        yield from self.take_out()

    def counter_reset(self, visit: Visit) -> Script:
        while self.plc.tags[self.plc.suffixed("count")] == 1:
            yield from self.none(self.unit("none"))
        self.plc.tags[self.plc.suffixed("count")] = 0
        yield 0.3
        self.announce(visit)
        yield from self.through(visit)

    def torn_read(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit, watched=False)
        self.plc.torn = 12
        yield from self.finish(visit)
        self.plc.torn = 0
        yield from self.take_out()

    def value_missing(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.device.refused = {self.plc.suffixed("force")}
        yield from self.finish(visit)
        self.device.refused = set()
        yield from self.take_out()
