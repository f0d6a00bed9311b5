"""Lots go into units: what the cycles say was consumed is held against what was on the machine."""

from __future__ import annotations

from collections.abc import Callable

from truth.floor.single import Single, settings
from truth.score import Received
from truth.visits import Restart, Script, Visit

Taken = list[tuple[str, bool]]  # (lot, certain)


class LotConsumption(Single):
    """A press that is fed from a reel; the next reel is spliced on."""

    strategy = "lot_consumption"
    settings = settings(
        devices="""
  mat{n}: {driver: scanner, port: "/dev/ttymat{n}"}
  far{n}: {driver: scanner, port: "/dev/ttyfar{n}"}""",
        state="""          through: {address: "coil:3"}""",
        station=r"""
    materials:
      solder:
        scan: mat{n}
        pattern: '(?P<lot>L\d{8})-(?P<part_number>\w+)/(?P<expiry>\d{4}-\d\d-\d\d)'
        part_number: [PN1]
        splice: true
        splice_done: plc{n}.through
      paste:
        scan: mat{n}
        pattern: '(?P<package>C\d{8})#(?P<lot>K\d{8})#(?P<quantity>\d+)'
        quantity_per_unit: 1
  FE{n}:
    step: store
    identity: {when: before, scan: far{n}, pattern: '(?P<serial>SN\d{8})'}
    materials: {paste: {scan: far{n}, pattern: '(?P<package>C\d{8})#(?P<lot>K\d{8})#(?P<quantity>\d+)'}}""",
    )

    def setup(self) -> None:
        super().setup()
        self.device.tags["through"] = False
        self.lot = ""
        self.can = ""

    def sources(self) -> set[str]:
        return super().sources() | {f"FE{self.number}"}

    # --- passages ----------------------------------------------------------------------------------------------

    def new_lot(self, part_number: str = "PN1", expiry: str = "2099-01-01") -> str:
        return f"L{self.chance.randrange(10**8):08d}-{part_number}/{expiry}"

    def reel(self, label: str) -> None:
        self.scan(f"mat{self.number}", label)

    def through_it(self) -> Script:
        """The splice has passed the sensor."""
        yield 0.25
        self.device.tags["through"] = True
        yield 0.25
        self.device.tags["through"] = False
        yield 0.25

    def feed(self, label: str) -> Script:
        """A new reel, and the old one is through."""
        had, self.lot = self.lot, label
        self.reel(label)
        yield 0.3
        if had:
            yield from self.through_it()

    def press(self, visit: Visit, taken: Taken) -> Script:
        visit.work = "bound"
        visit.checks.append(consumed(visit, taken))
        self.announce(visit)
        yield from self.through(visit)

    def certain(self) -> Taken:
        """What is on the machine, and nothing else may be."""
        if not self.can or self.chance.random() < 0.1:
            self.open_can()
        return [(self.lot.partition("-")[0], True), (self.can.split("#")[1], True)]

    def open_can(self, quantity: int = 1000) -> None:
        """In place of the one before."""
        self.can = f"C{self.chance.randrange(10**8):08d}#K{self.chance.randrange(10**8):08d}#{quantity}"
        self.reel(self.can)

    def refeed(self) -> Script:
        """Something good again."""
        yield 2.5
        yield from self.feed(self.new_lot())

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        if not self.lot or self.chance.random() < 0.1:
            yield from self.feed(self.new_lot())
        yield from self.press(visit, self.certain())

    def splice_unresolved(self, visit: Visit) -> Script:
        old, new = self.lot, self.new_lot()
        self.reel(new)
        yield 0.3
        (_, can) = self.certain()
        yield from self.press(visit, [(old.partition("-")[0], False), (new.partition("-")[0], False), can])
        self.lot = new
        yield from self.through_it()

    def copied_lot(self, visit: Visit) -> Script:
        """The same lot number, of another date: of the reel that runs, or of one before."""
        copied = self.lot
        if self.chance.random() < 0.5:
            yield from self.refeed()
        yield 2.5
        copy = copied.partition("/")[0] + "/2098-07-07"
        if copied == self.lot:
            self.reel(copy)
            yield 0.3
        else:
            yield from self.feed(copy)
        yield from self.press(visit, self.certain())
        yield from self.refeed()

    def wrong_material(self, visit: Visit) -> Script:
        yield from self.feed(self.new_lot("PN9"))
        yield from self.press(visit, self.certain())
        yield from self.refeed()

    def material_expired(self, visit: Visit) -> Script:
        yield from self.feed(self.new_lot(expiry="2020-01-01"))
        yield from self.press(visit, self.certain())
        yield from self.refeed()

    def no_material(self, visit: Visit) -> Script:
        self.reel("EMPTY:solder")
        self.lot = ""
        yield 0.3
        yield from self.press(visit, self.certain()[1:])
        yield from self.refeed()

    def missed_scan(self, visit: Visit) -> Script:
        """What it took is nobody's."""
        self.certain()
        visit.checks.append(consumed(visit, []))
        yield from self.through(visit, watched=False)

    def changed_in_cycle(self, visit: Visit) -> Script:
        """Another can while a unit is at work: it took of either."""
        reel, (old, _) = self.certain()
        visit.work = "bound"
        self.announce(visit)
        yield from self.put_in(visit)
        yield from self.work_on(visit)
        self.open_can()
        visit.checks.append(consumed(visit, [reel, (old, False), (self.can.split("#")[1], False)]))
        yield 0.3
        yield from self.finish(visit)
        yield from self.take_out()

    def package_elsewhere(self, visit: Visit) -> Script:
        """The can's label is read at another station: it was taken there, or its label was copied."""
        reel, (can, _) = self.certain()
        self.scan(f"far{self.number}", self.can)
        yield 0.3
        yield from self.press(visit, [reel, (can, False)])
        self.can = ""

    def negative_balance(self, visit: Visit) -> Script:
        """More units than the can holds: another one was opened without a scan."""
        visit.findings.clear()
        held = self.chance.randint(1, 2)
        self.open_can(held)
        reel = (self.lot.partition("-")[0], True)
        for number in range(held + 1):
            one = self.unit("negative_balance") if number else visit
            one.findings[:] = ["negative_balance"] if number == held else []
            yield from self.press(one, [reel, (self.can.split("#")[1], True)])
        self.can = ""

    def restart(self, visit: Visit) -> Script:
        self.line.commit()
        yield Restart()
        yield from self.press(visit, self.certain())


def consumed(visit: Visit, taken: Taken) -> Callable[[Received], str]:
    """What the unit's cycles say they took."""

    def check(received: Received) -> str:
        said: Taken = []
        for cycle, body in received.closed.items():
            if received.bindings.get(cycle, {}).get("serial") == visit.label:
                said += [(one["lot"], one["certain"]) for one in body.get("materials") or []]
        if sorted(said) == sorted(taken):
            return ""
        wrong = [one for one in said if one[1] and one not in taken]
        return f"{'misbound: ' if wrong else ''}it took {said} by the records, {taken} in truth"

    return check
