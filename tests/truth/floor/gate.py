"""May it enter? What the PLC is answered is held against what was decided about the unit, and done to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from edge_agent.binding.status import UnitStatusSaid
from edge_agent.binding.verdicts import Verdict
from edge_agent.model import Kind
from truth.floor.single import Single, settings
from truth.score import Received
from truth.visits import Restart, Script, Visit

MOST = 2


class Gate(Single):
    """A PLC that asks before it presses."""

    strategy = "gate"
    settings = settings(
        state="""          request: {address: "input:10", type: uint16}""",
        written="""      answer: {address: "holding:20", type: uint16, write: true}
      verdict: {address: "holding:21", type: uint16, write: true}
      reason: {address: "holding:22", type: uint16, write: true}""",
        station="""
    gate:
      previous: [wash]
      max_attempts: 2
      exchange:
        request: plc{n}.request
        answer: plc{n}.answer
        verdict: plc{n}.verdict
        reason: plc{n}.reason""",
    )

    def setup(self) -> None:
        super().setup()
        self.requests = itertools.count(1)
        self.decisions = itertools.count(1)
        self.device.tags |= {"request": 0, "answer": 0, "verdict": 0, "reason": 0}

    # --- passages ----------------------------------------------------------------------------------------------

    def washed(self, visit: Visit, result: str = "Passed") -> None:
        """Another PC says what came of the step before."""
        self.line.act(UnitStatusSaid("l3-pc2", visit.label, "wash", result, True, 1, self.line.now.at_ns))

    def decide(self, visit: Visit, action: str) -> None:
        """Quality says so."""
        number = next(self.decisions)
        name = f"{self.name}-{number}"
        self.line.act(Verdict("qms", name, None, action, f"h-{visit.label}", "serial", visit.label, "qa"))  # type: ignore[arg-type]

    def ask(self, visit: Visit, expected: str, *, scan: bool = True, stands: bool = False) -> Script:
        """Scan, request, and the answer, which must be ``expected``. The request may be left standing."""
        if scan:
            self.announce(visit)
            yield self.pause(0.0, 0.3)
        number = next(self.requests) % 60000 + 1
        self.device.tags["request"] = number
        yield from self.until(lambda: self.device.tags["answer"] == number)
        permitted = bool(self.device.tags["verdict"])
        visit.checks.append(said(permitted, expected))
        self.device.tags["request"] = number if stands else 0
        yield 0.2

    def enter(self, visit: Visit) -> Script:
        visit.checks.append(recorded(visit))
        yield from self.ask(visit, "permit")
        yield from self.through(visit)

    def turn_away(self, visit: Visit) -> Script:
        visit.checks.append(recorded(visit))
        yield from self.ask(visit, "block")
        yield 0.5

    # --- visits ------------------------------------------------------------------------------------------------

    def none(self, visit: Visit) -> Script:
        self.washed(visit)
        yield 0.1
        yield from self.enter(visit)

    def held(self, visit: Visit) -> Script:
        self.washed(visit)
        self.decide(visit, "hold")
        yield self.pause(0.1, 5.0)
        yield from self.turn_away(visit)

    def missed_scan(self, visit: Visit) -> Script:
        """It is good, and the PLC asks; but nobody knows who it is."""
        self.washed(visit)
        yield 0.1
        yield from self.ask(visit, "block", scan=False)
        yield 0.5

    def unit_removed(self, visit: Visit) -> Script:
        """Let in and taken away; the one that stands there then was not scanned, and the PLC asks anew."""
        self.washed(visit)
        yield 0.1
        yield from self.ask(visit, "permit")
        other = self.unit("unit_removed")
        other.findings.clear()
        yield from self.ask(other, "block", scan=False)
        self.washed(other)
        other.work = "bound"
        yield 0.1
        yield from self.enter(other)

    def request_stands(self, visit: Visit) -> Script:
        """What was permitted is worked on and leaves, and the PLC asks on with the same number."""
        self.washed(visit)
        yield 0.1
        yield from self.ask(visit, "permit", stands=True)
        yield from self.through(visit)
        visit.checks.append(self.answer_is_gone())
        self.device.tags["request"] = 0
        yield 0.3

    def reader_lost(self, visit: Visit) -> Script:
        """Permitted, and before the PLC took it the reader was away: it may be another unit now."""
        self.washed(visit)
        yield 0.1
        yield from self.ask(visit, "permit", stands=True)
        self.line.lose_reader(f"in{self.number}")
        yield 0.3
        visit.checks.append(self.answer_is_gone())
        self.device.tags["request"] = 0
        yield 0.3

    def answer_is_gone(self) -> Callable[[Received], str]:
        """Now: no permit stands for the number that the PLC asks with."""
        stands = self.device.tags["answer"] == self.device.tags["request"] and self.device.tags["verdict"]
        return lambda received: "misbound: a permit stands for a unit that is not there" if stands else ""

    def missing_step(self, visit: Visit) -> Script:
        """Nobody says that it passed the step before, or somebody says that it failed."""
        if self.chance.random() < 0.5:
            self.washed(visit, self.chance.choice(["Failed", "Error"]))
        yield 0.1
        yield from self.turn_away(visit)

    def too_many_attempts(self, visit: Visit) -> Script:
        visit.findings.clear()
        self.washed(visit)
        for _ in range(MOST):
            again = self.unit("too_many_attempts", visit.label)
            again.work = "bound"
            again.findings.clear()
            yield 2.5
            yield from self.ask(again, "permit")
            yield from self.through(again)
        last = self.unit("too_many_attempts", visit.label)
        yield 2.5
        yield from self.ask(last, "block")

    def late_permit(self, visit: Visit) -> Script:
        self.washed(visit)
        self.decide(visit, "hold")
        yield 0.1
        for _ in range(self.chance.randint(1, 2) * MOST):  # to be turned away is no attempt
            yield from self.ask(visit, "block")
            yield from self.none(self.unit("none"))
            yield 2.0
        visit.findings += ["gate_blocked"] * (len(visit.checks) - 1)
        visit.attempt = 1
        self.decide(visit, "release")
        yield 2.5
        yield from self.ask(visit, "permit")
        yield from self.through(visit)

    def restart(self, visit: Visit) -> Script:
        """What was known of a unit is known after."""
        self.washed(visit)
        held = self.chance.random() < 0.5
        if held:
            visit.work, visit.findings = "none", ["gate_blocked"]
            self.decide(visit, "hold")
        yield 0.2
        self.line.commit()
        yield Restart()
        yield from (self.turn_away(visit) if held else self.enter(visit))


def said(permitted: bool, expected: str) -> Callable[[Received], str]:
    """What the PLC was told."""
    given = "permit" if permitted else "block"
    wrong = "" if given == expected else f"{'misbound: ' if permitted else ''}the PLC was told {given}, not {expected}"
    return lambda received: wrong


def recorded(visit: Visit) -> Callable[[Received], str]:
    """That decisions about this unit are on record."""
    return lambda received: (
        "" if any(body.get("serial") == visit.label for _, body in received.other[Kind.GATE]) else "no gate record"
    )
