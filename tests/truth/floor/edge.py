"""A done bit without an acknowledge and without a counter: its rising edge ends the cycle, a level says nothing."""

from __future__ import annotations

from truth.floor.single import Single, settings
from truth.visits import Restart, Script, Visit

HANDSHAKE = "{handshake: {ready: plc{n}.ready, ack: plc{n}.ack, counter: plc{n}.count, read: plc{n}.result}}"


class BareEdge(Single):
    """An old machine: the bit is up for a moment, whoever looks."""

    strategy = "bare_edge"
    settings = settings().replace(HANDSHAKE, "{tag: plc{n}.ready, edge: rising, read: plc{n}.result}")

    def finish(self, visit: Visit) -> Script:
        self.plc.finish(visit.token)
        yield 0.4
        self.device.tags["ready"] = False
        yield self.pause(0.15, 0.4)

    # --- visits ------------------------------------------------------------------------------------------------

    def missed_scan(self, visit: Visit) -> Script:
        yield from self.through(visit, watched=False)

    def unreadable_scan(self, visit: Visit) -> Script:
        self.no_read(f"in{self.number}", visit)
        yield from self.through(visit, watched=False)

    def double_scan(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        for _ in range(self.chance.randint(1, 2)):
            yield self.chance.choice([0.05, 2.5])
            self.announce(visit)
        yield from self.work_on(visit)
        yield from self.finish(visit)
        yield from self.take_out()

    def duplicate_message(self, visit: Visit) -> Script:
        """Recorded; then the agent dies, and the bit stands when it is back."""
        yield from self.begin(visit)
        yield from self.work_on(visit)
        self.plc.finish(visit.token)
        yield 0.5
        self.line.commit()
        yield Restart()
        yield 0.5
        self.device.tags["ready"] = False
        yield from self.take_out()


class Resuming(Single):
    """A press that counts what was put in: the same number after a gap is the same unit."""

    strategy = "resume"
    settings = settings(
        state="""          number: {address: "input:3", type: uint16}""",
        station="""    resume: {cycle_number: plc{n}.number}""",
    )

    def setup(self) -> None:
        super().setup()
        self.device.tags["number"] = self.chance.randrange(65536)

    def take_out(self) -> Script:
        yield from super().take_out()
        self.next_number()
        yield 0.25

    def next_number(self) -> None:
        self.device.tags["number"] = (self.device.tags["number"] + 1) % 65536

    def exchange(self, other: Visit) -> None:
        self.next_number()
        super().exchange(other)

    def after_loss(self, visit: Visit) -> Script:
        yield from self.work_on(visit)
        yield from super().after_loss(visit)

    def restart(self, visit: Visit) -> Script:
        yield from self.interrupted(visit)
        yield 0.5  # until the number was read
        yield from self.after_loss(visit)
