"""One lane on its way: its window, what of it waits to be sent, its dead letters, and what is told to the buffer.

A delivery lives as long as the route runs or until its lane is finished; it is *open* while its lane is read and sent.
What was ever sent is remembered over reconnects, so that a confirmation of more than that is known for what it is.
Everything happens on the event loop and never waits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from edge_agent.logs import Log
from edge_agent.routes.confirmation import BadConfirmation, Confirmation
from edge_agent.routes.message import Batch, Message, tombstone
from edge_agent.routes.suspicion import Condemned, Suspicion
from edge_agent.routes.window import Window

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Lane

TOMBSTONE_BYTES = 60  # of one number's, without its reason
REASONS = 20  # of dead letters that the log tells, each once; a receiver may make up any number

log = Log(__name__)


class Delivery:
    """The progress of one lane."""

    def __init__(self, lane: Lane, buffer: Buffer, told: set[str], condemned: Condemned) -> None:
        self.lane = lane
        self.open = False
        self.reading = asyncio.Lock()  # held while it is read, and while it is cut
        self.suspicion = Suspicion(condemned)
        self.window = Window(lane.seq, lane.n, lane.n)
        self.dead: dict[int, str] = {}  # n → reason: above the lane's progress, and dead letters already
        self.reported = (lane.seq, lane.n)
        self._buffer = buffer
        self._told = told  # reasons, their numbers left out; the route's
        self._sent_n = lane.n  # of this run: the highest n ever given to the sink
        # a heap: what was never sent, by n; then what is to be sent again, by when it was sent last
        self._waiting: list[tuple[bool, float, int, Message]] = []
        self._put = 0

    @property
    def grows(self) -> bool:
        """Whether it is the running log's: what it delivers is live."""
        return self.lane.to_seq is None

    @property
    def end(self) -> int:
        """The last seq that the lane has so far."""
        return self._buffer.durable_seq if self.lane.to_seq is None else self.lane.to_seq

    @property
    def settled(self) -> bool:
        """Nothing that is durable is left to deliver."""
        return self.window.progress()[0] >= self.end

    def restart(self) -> None:
        """Read again from the last progress, with the numbers it had: a new connection begins so."""
        self.window = Window(*self.reported, self._sent_n)
        self._waiting.clear()

    def begin(self, dead: Mapping[int, str]) -> None:
        """Open it. ``dead``: what the buffer knows to be dead letters above the progress."""
        self.open = True
        self.dead = dict(dead) | self.dead
        self.restart()

    def suspend(self) -> None:
        """Close it; what was sent and not settled will be sent again, with the same numbers."""
        self.open = False
        self.restart()

    def cut(self, to_seq: int) -> None:
        """The lane grows no more."""
        self.lane = replace(self.lane, to_seq=to_seq)

    def take(self, batch: Batch) -> None:
        """Put what was read into the window."""
        for item in batch.unsendable:
            self.dead[item.n] = item.reason
            self._buffer.dead_letter(self.lane, item.n, item.seq, item.reason)
            self._warn(item.n, item.reason)
        self.window.add(batch)

    def put(self, message: Message) -> None:
        """It is to be sent, once or again."""
        message.waiting = True
        self._put += 1
        place = message.n if message.sent_s is None else message.sent_s
        heappush(self._waiting, (message.sent_s is not None, place, self._put, message))

    def next(self) -> Message | None:
        """The oldest message that was not sent yet, then the one whose last sending is longest ago.

        In any other order, a link that takes longer for a batch than ``confirm_timeout`` would carry the first few
        messages of it again and again, and never the one that the receiver waits for.
        """
        while self._waiting:
            message = heappop(self._waiting)[3]
            if self.window.holds(message):
                return message
        return None

    def sending(self, message: Message) -> None:
        """The sink gets it now."""
        self.window.sending(message)
        self._sent_n = self.window.sent_n

    def bury(self, message: Message, reason: str) -> Message:
        """Make the message's records dead letters; returns the tombstone that takes its place."""
        numbers = message.numbers()
        for n in numbers:
            self._dead_letter(n, reason)
        self._warn(message.n, reason, source=message.source, kind=message.kind, records=len(numbers))
        room = max(20, len(message.records) // len(numbers) - TOMBSTONE_BYTES)  # or it might be too large in its turn
        stone = tombstone([(n, 1, reason[:room]) for n in numbers])
        self.window.replace(message, stone)
        return stone

    def refused(self, message: Message, reasons: Mapping[int, str]) -> None:
        """The sink took the message but for these records: they are dead letters, and need nothing more."""
        for n, reason in reasons.items():
            if message.n <= n <= message.last_n:
                self._dead_letter(n, reason)
                self._warn(n, reason)

    def confirm(self, said: Confirmation) -> None:
        """Move by what the receiver said. Raises BadConfirmation."""
        lane, window = self.lane, self.window
        # A lane of an earlier run may have been sent further than this run has; it cannot hold more than its seqs.
        highest = 0 if lane.to_seq is None else lane.n + lane.to_seq - lane.seq
        if said.upto > max(highest, window.sent_n):
            raise BadConfirmation(f"upto {said.upto} was never sent")
        for n, reason in said.nack.items():
            if window.upto < n <= window.sent_n and n not in self.dead:
                self._dead_letter(n, f"receiver: {reason}")
                self._warn(n, reason)
        window.confirm(said.upto)

    def report(self) -> None:
        """Tell the buffer how far the lane is, if it moved."""
        progress = self.window.progress()
        if progress == self.reported:
            return
        self.reported = progress
        self._buffer.progress(self.lane, *progress)
        for n in [n for n in self.dead if n <= progress[1]]:
            del self.dead[n]

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
        tell("dead letter", route=self.lane.route, stream=self.lane.stream, n=n, reason=reason, **fields)
