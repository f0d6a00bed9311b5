"""What comes back from the receiver of one route: confirmations, that it is there again, requests for a range.

A receiver that was sent something and says nothing for ``confirm_timeout`` is *silent*: then nothing new is read and
only the oldest message is sent again, to ask; the rest follows when it answers. Whatever it says comes from a network,
so it is parsed strictly, and refused and counted when it is wrong. Requests are answered one at a time, in a task of
their own, since making lanes waits for the buffer's writer; ``ASKED_OPEN`` of a route may be unfinished.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from edge_agent.errors import StorageError
from edge_agent.logs import Log
from edge_agent.routes.confirmation import Ask, BadConfirmation, Resume, parse
from edge_agent.routes.delivery import Delivery
from edge_agent.routes.lanes import ASKED_OPEN, Lanes
from edge_agent.routes.message import Message
from edge_agent.routes.sink import Sink

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer

RESUME_EVERY_S = 2.0  # a receiver that says so more often is not believed

log = Log(__name__)


class Hearing:
    """``hear``, ``answer`` and ``resend`` are tasks of one connection; what was heard outlives it."""

    def __init__(
        self, name: str, agent: str, lanes: Lanes, buffer: Buffer, sink: Sink, timeout_s: float, counts: Counter[str]
    ) -> None:
        self._name, self._agent = name, agent
        self._lanes, self._buffer, self._sink = lanes, buffer, sink
        self._timeout_s = timeout_s
        self._counts = counts
        self._asked_s: float | None = None  # when we first sent something that the receiver has not answered
        self._resumed_s = float("-inf")
        self._asks: asyncio.Queue[Ask] = asyncio.Queue(ASKED_OPEN)

    @property
    def silent(self) -> bool:
        """Nothing was heard for too long since something was sent."""
        return self._asked_s is not None and _now_s() - self._asked_s > self._timeout_s

    def handed_over(self, delivery: Delivery, message: Message) -> None:
        """The broker has it; from now on the receiver may be waited for."""
        if self._asked_s is None and delivery.window.holds(message):
            self._asked_s = message.sent_s

    async def hear(self, moved: Callable[[], None]) -> None:
        """Take what comes; ``moved`` is called when a window moved."""
        while True:
            payload = await self._sink.confirmed()
            try:
                said = parse(payload)
                if isinstance(said, Resume):
                    self._resume(said)
                elif isinstance(said, Ask):
                    self._ask(said)
                elif self._lanes.confirmed(said):
                    self._heard()
                    moved()
            except BadConfirmation as error:
                self._counts["refused_confirmations"] += 1
                log.debug("confirmation refused", route=self._name, error=error)

    def _heard(self) -> None:
        """The receiver is there. If it was silent, what came meanwhile is a backlog."""
        if self.silent:
            self._lanes.tend(cut=True)
        self._asked_s = None

    def _resume(self, said: Resume) -> None:
        """The receiver came back: what it has not confirmed may never have reached it."""
        now_s = _now_s()
        if said.agent != self._agent or now_s - self._resumed_s < RESUME_EVERY_S:
            return
        self._resumed_s = now_s
        self._heard()
        self._lanes.tend(cut=True)  # it may have been away for less than it takes to be silent
        self._send_again(self._handed_over_before(now_s))

    # --- send again --------------------------------------------------------------------------------------------

    async def resend(self) -> None:
        """What stays unconfirmed goes into the line again; while the receiver is silent, only the oldest."""
        while True:
            await asyncio.sleep(min(1.0, self._timeout_s / 4))
            overdue = self._handed_over_before(_now_s() - self._timeout_s)
            self._send_again(overdue[:1] if self.silent else overdue)

    def _handed_over_before(self, time_s: float) -> list[tuple[Delivery, Message]]:
        """What the broker has had since then, and the receiver has not confirmed; in the order of sending."""
        return [
            (delivery, message)
            for delivery in self._lanes.open
            for message in delivery.window
            if not message.waiting and message.sent_s is not None and message.sent_s <= time_s
        ]

    def _send_again(self, messages: Iterable[tuple[Delivery, Message]]) -> None:
        for delivery, message in messages:
            self._counts["sent_again"] += 1
            self._lanes.put(delivery, message)
        self._lanes.changed.set()

    # --- requests ----------------------------------------------------------------------------------------------

    def _ask(self, said: Ask) -> None:
        """The receiver wants a range once more. Another route's request is that one's to judge."""
        if said.agent != self._agent:
            self._refuse(said, "it names another agent")
        elif said.route not in self._buffer.attached:
            self._refuse(said, "there is no such route")
        elif said.route == self._name and said.id not in self._lanes.asked:
            try:
                self._asks.put_nowait(said)
            except asyncio.QueueFull:
                self._refuse(said, "too many at once")

    async def answer(self) -> None:
        """Make lanes of what was asked for, one request after the other."""
        while True:
            ask = await self._asks.get()
            if ask.id in self._lanes.asked:
                continue
            if len(self._lanes.asked) >= ASKED_OPEN:
                self._refuse(ask, f"{ASKED_OPEN} ranges are open already")
                continue
            span = {"first_seq": ask.first_seq, "last_seq": ask.last_seq}
            replay = partial(self._buffer.replay, self._name, request=ask.id, log=ask.log)
            try:
                await asyncio.to_thread(replay, **span)  # what it makes is offered, and so taken up
            except (LookupError, StorageError) as error:
                self._refuse(ask, str(error.args[0]))
            else:
                log.info("range asked for again", route=self._name, request=ask.id, **span)

    def _refuse(self, ask: Ask, why: str) -> None:
        self._counts["refused_requests"] += 1
        log.debug("request refused", route=self._name, request=ask.id, why=why)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
