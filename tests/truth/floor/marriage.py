"""Components with serials of their own go into units: what the genealogy says is held against what was built in."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.model import Kind
from truth.floor.single import Single, settings
from truth.score import Received
from truth.visits import Restart, Script, Visit


class Marriage(Single):
    """A unit is scanned, its board is scanned, both are pressed together."""

    strategy = "marriage"
    settings = settings(
        devices="""
  comp{n}: {driver: scanner, port: "/dev/ttycomp{n}"}
  off{n}: {driver: scanner, port: "/dev/ttyoff{n}"}""",
        station=r"""
    components:
      board: {scan: comp{n}, pattern: '(?P<serial>B\d{8})-(?P<part_number>\w+)', part_number: [PN1]}
    remove: {scan: off{n}, pattern: '(?P<serial>B\d{8})-(?P<part_number>\w+)'}""",
    )

    def setup(self) -> None:
        super().setup()
        self.built_in: list[str] = []  # boards that are in some unit

    def board(self, part_number: str = "PN1") -> str:
        return f"B{self.chance.randrange(10**8):08d}-{part_number}"

    def read_board(self, label: str, reader: str = "comp") -> None:
        self.scan(f"{reader}{self.number}", label)

    def join(self, visit: Visit, boards: list[str], expected: list[str]) -> Script:
        """The unit, its boards, the work."""
        visit.checks.append(installed(visit, expected))
        yield from self.begin(visit)
        for label in boards:
            yield self.pause(0.1, 0.6)
            self.read_board(label)
        yield from self.work_on(visit)
        yield from self.finish(visit)
        yield from self.take_out()

    def none(self, visit: Visit) -> Script:
        label = self.board()
        yield from self.join(visit, [label], [label])
        self.built_in.append(label)

    def double_scan(self, visit: Visit) -> Script:
        label = self.board()
        yield from self.join(visit, [label] * self.chance.randint(2, 3), [label])
        self.built_in.append(label)

    def missed_scan(self, visit: Visit) -> Script:
        """The parent was not read, its board is: into whom it went nobody knows."""
        visit.work = "orphan"
        label = self.board()
        visit.checks += [installed(visit, []), nowhere(label)]
        yield from self.put_in(visit)
        self.read_board(label)
        yield from self.work_on(visit, watched=False)
        yield from self.finish(visit)
        yield from self.take_out()

    def early_next_scan(self, visit: Visit) -> Script:
        """The next parent and its board are read before this one's end was seen."""
        first, second = self.board(), self.board()
        coming = self.unit("early_next_scan")
        visit.checks.append(installed(visit, [first]))
        coming.checks.append(installed(coming, [second]))
        yield from self.begin(visit)
        yield 0.3
        self.read_board(first)
        yield from self.work_on(visit)
        self.plc.finish(visit.token)
        self.plc.place(0)
        yield self.pause(0.0, 0.04)
        self.announce(coming)
        yield self.pause(0.0, 0.04)
        self.read_board(second)
        yield from self.until(lambda: self.plc.idle)
        yield from self.through(coming)
        self.built_in += [first, second]

    def swapped_in_downtime(self, visit: Visit) -> Script:
        """Another unit stands there when the board is read: it is not the first one's."""
        visit.work = "none"
        other = self.unit("swapped_in_downtime")
        other.work = "orphan"
        other.findings.clear()
        label = self.board()
        visit.checks += [installed(visit, []), nowhere(label)]
        yield from self.interrupted(visit, lambda: self.exchange(other))
        self.read_board(label)
        yield 0.3
        yield from self.finish(other)
        yield from self.take_out()

    def component_missing(self, visit: Visit) -> Script:
        visit.work = "bound"
        yield from self.join(visit, [], [])

    def component_reused(self, visit: Visit) -> Script:
        visit.work = "bound"
        if not self.built_in:
            visit.findings[:] = ["missing_field"]
        yield 2.5  # beyond the reader's bounce
        label = [self.chance.choice(self.built_in)] if self.built_in else []
        yield from self.join(visit, label, [])

    def wrong_component(self, visit: Visit) -> Script:
        visit.work = "bound"
        yield from self.join(visit, [self.board("PN9")], [])

    def component_removed(self, visit: Visit) -> Script:
        """Built in, taken out at the bench, built into another."""
        label = self.board()
        yield from self.join(visit, [label], [])
        yield 2.5
        self.read_board(label, "off")
        yield 2.5
        another = self.unit("component_removed")
        yield from self.join(another, [label], [label])
        self.built_in.append(label)

    def restart(self, visit: Visit) -> Script:
        visit.work = "orphan"
        label = self.board()
        visit.checks.append(installed(visit, [label]))
        yield from self.begin(visit)
        yield 0.3
        self.read_board(label)
        yield from self.work_on(visit)
        self.line.commit()
        yield Restart()
        yield from self.finish(visit)
        yield from self.take_out()
        self.built_in.append(label)


def nowhere(label: str) -> Callable[[Received], str]:
    """This one is in nobody by the records, whoever that would be."""
    serial = label.partition("-")[0]

    def check(received: Received) -> str:
        parents = [
            body["parent_serial"] for _, body in received.other[Kind.GENEALOGY] if body["child_serial"] == serial
        ]
        return f"misbound: {serial} is in {parents}, and nobody can know that" if parents else ""

    return check


def installed(visit: Visit, labels: list[str]) -> Callable[[Received], str]:
    """What is in the unit at the end, by the records."""
    expected = {label.partition("-")[0] for label in labels}

    def check(received: Received) -> str:
        there: set[str] = set()
        for _, body in received.other[Kind.GENEALOGY]:
            if body["parent_serial"] == visit.label:
                (there.add if body["op"] == "install" else there.discard)(body["child_serial"])
        if there - expected:
            return f"misbound: {sorted(there)} is in it by the records, {sorted(expected)} in truth"
        return "" if there == expected else f"{sorted(there)} is in it by the records, {sorted(expected)} in truth"

    return check
