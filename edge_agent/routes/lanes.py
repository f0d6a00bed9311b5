"""Where a route stands: its lanes, the window on the first of them, and what of it is told to the buffer.

Lanes go oldest first; one is finished when all of it is settled, and the last one grows with the running log. What was
ever sent is remembered over reconnects, so that a confirmation of more than that is known for what it is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_agent.logs import Log
from edge_agent.routes.confirmation import BadConfirmation, Confirmation
from edge_agent.routes.message import Batch, Message, tombstone
from edge_agent.routes.window import Window

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Lane

REASONS = 20  # of dead letters that the log tells, each once; a receiver may make up any number

log = Log(__name__)


class Lanes:
    """The progress of one route. Lives on the event loop and never waits."""

    def __init__(self, route: str, agent: str, buffer: Buffer) -> None:
        self.window = Window(0, 0, 0)
        self.dead: dict[int, str] = {}  # n → reason: above the lane's progress, and dead letters already
        self._route, self._agent, self._buffer = route, agent, buffer
        self._lanes: deque[Lane] = deque()
        self._sent_n: dict[str, int] = {}  # by stream, of this run: the highest n ever given to the sink
        self._reported = (0, 0)
        self._told: set[str] = set()  # reasons, their numbers left out

    def begin(self, lanes: Sequence[Lane]) -> None:
        """Take over what the buffer says is unfinished, oldest first; never empty."""
        self._lanes.extend(lanes)
        self._enter()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    @property
    def lane(self) -> Lane:
        """The one being delivered."""
        return self._lanes[0]

    @property
    def end(self) -> int:
        """The last seq that the lane has so far."""
        to_seq = self.lane.to_seq
        return self._buffer.durable_seq if to_seq is None else to_seq

    @property
    def all_settled(self) -> bool:
        """True when nothing that is durable is left to deliver."""
        return len(self._lanes) == 1 and self.window.progress()[0] >= self._buffer.durable_seq

    def restart(self) -> None:
        """Read again from the last progress, with the numbers it had: a new connection begins so."""
        self.window = Window(*self._reported, self._sent_n[self.lane.stream])

    def advance(self) -> None:
        """The lane is finished; go on with the next."""
        self._lanes.popleft()
        self._enter()

    def take(self, batch: Batch) -> None:
        """Put what was read into the window."""
        for item in batch.too_large:
            reason = f"{item.size} bytes: larger than a message may be"
            self._buffer.dead_letter(self.lane, item.n, item.seq, reason)
            self._warn(item.n, reason)
        self.window.add(batch)

    def sending(self, message: Message) -> None:
        """The sink gets it now."""
        self.window.sending(message)
        self._sent_n[self.lane.stream] = self.window.sent_n

    def bury(self, message: Message, reason: str) -> Message:
        """Make the message's records dead letters; returns the tombstone that takes its place."""
        numbers = message.numbers()
        for n in numbers:
            self._dead_letter(n, reason)
        self._warn(message.n, reason, source=message.source, kind=message.kind, records=len(numbers))
        stone = tombstone([(n, 1, reason) for n in numbers])
        self.window.replace(message, stone)
        return stone

    def refused(self, message: Message, refused: Mapping[int, str]) -> None:
        """These of a message's records are dead letters; the sink has the others, and knows that these will not come."""
        if self.window.holds(message):
            for n, reason in refused.items():
                self._dead_letter(n, reason)
                self._warn(n, reason, source=message.source, kind=message.kind)

    def confirmed(self, said: Confirmation) -> bool:
        """Move by what the receiver said; False if it concerns something else. Raises BadConfirmation."""
        lane, window = self.lane, self.window
        parts = said.stream.split(".")
        if len(parts) == 3 and parts[1] != self._route and said.agent == self._agent:
            return False  # another route's: routes of one agent share the topic
        if said.agent != self._agent or said.stream not in self._sent_n:
            raise BadConfirmation(f"stream {said.stream!r} of {said.agent!r} is not ours")
        if said.stream != lane.stream:
            return False  # a lane that is finished: late, and harmless
        # A lane of an earlier run may have been sent further than this run has; it cannot hold more than its seqs.
        highest = window.sent_n if lane.to_seq is None else lane.n + lane.to_seq - lane.seq
        if said.upto > highest:
            raise BadConfirmation(f"upto {said.upto} was never sent")
        for n, reason in said.nack.items():
            if window.upto < n <= window.sent_n and n not in self.dead:
                self._dead_letter(n, f"receiver: {reason}")
                self._warn(n, reason)
        window.confirm(said.upto)
        return True

    def report(self) -> None:
        """Tell the buffer how far the lane is, if it moved."""
        progress = self.window.progress()
        if progress == self._reported:
            return
        self._reported = progress
        self._buffer.progress(self.lane, *progress)
        for n in [n for n in self.dead if n <= progress[1]]:
            del self.dead[n]

    def _enter(self) -> None:
        lane = self.lane
        self._reported = (lane.seq, lane.n)
        self._sent_n[lane.stream] = lane.n
        self.dead = {}
        self.window = Window(lane.seq, lane.n, lane.n)

    def _dead_letter(self, n: int, reason: str) -> None:
        seq = self.window.seq_of(n)
        if seq is not None:
            self.dead[n] = reason
            self._buffer.dead_letter(self.lane, n, seq, reason)

    def _warn(self, n: int, reason: str, **fields: object) -> None:
        """Tell the first of each reason; a denied topic refuses ten messages a second, and status has their count."""
        key, tell = re.sub(r"\d+", "#", reason[:200]), log.debug
        if key not in self._told and len(self._told) < REASONS:
            self._told.add(key)
            tell = log.warning
        tell("dead letter", route=self._route, stream=self.lane.stream, n=n, reason=reason, **fields)
