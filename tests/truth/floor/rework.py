"""The same serial again: attempts are numbered over restarts, all are kept, too many are flagged."""

from __future__ import annotations

from truth.floor.handshake import Handshake
from truth.visits import Restart, Script, Visit

MOST = 3


class Rework(Handshake):
    """A press to which units come again."""

    strategy = "rework"
    waits = set()  # noqa: RUF012
    settings = Handshake.settings + "    attempts: {max: 3, flag: true}\n"

    def comes(self, visit: Visit, attempt: int) -> Script:
        """Once more, for the ``attempt``-th time."""
        visit.attempt = attempt
        yield 2.5
        self.announce(visit)
        yield from self.through(visit)

    def again(self, visit: Visit, times: int) -> Script:
        for attempt in range(2, times + 1):
            another = self.unit(visit.disturbance, visit.label)
            another.findings.clear()
            if attempt > MOST:
                another.findings.append("retest_limit")
            yield from self.comes(another, attempt)

    def none(self, visit: Visit) -> Script:
        visit.attempt = 1
        yield from super().none(visit)

    def retest(self, visit: Visit) -> Script:
        yield from self.comes(visit, 1)
        yield from self.again(visit, self.chance.randint(2, MOST))

    def restart(self, visit: Visit) -> Script:
        yield from self.comes(visit, 1)
        self.line.commit()
        yield Restart()
        yield from self.again(visit, 2)

    def too_many_attempts(self, visit: Visit) -> Script:
        visit.findings.clear()
        yield from self.comes(visit, 1)
        yield from self.again(visit, MOST + self.chance.randint(1, 2))
