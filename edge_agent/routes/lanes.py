"""Which lanes a route delivers at once, and in which order their messages go.

One lane grows with the running log and is *live*. The other lanes of the log are the *backlog*; replays and retries
are *asked* for. ``order: live_first`` opens the live lane and the oldest of the backlog, ``strict`` the oldest of the
log's lanes only; up to ``ASKED_OPEN`` asked lanes go beside either. What is live is sent first, then the others, the
oldest first.

Bounds: the windows of all open lanes share ``WINDOW_BYTES``; beside others the live one has a quarter of it, and the
others share the rest evenly. An empty window may always take one batch, so nobody waits for ever. A growing lane with
a backlog is cut (``to_cut``) while the route has less than ``LANES_MAX`` unfinished lanes of the log.

This is also where the tasks of a route meet: ``changed`` is set when a window moved, ``in_line`` counts the messages
that are to be sent, ``to_tend`` is set when other lanes may have to be opened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edge_agent.routes.confirmation import BadConfirmation, Confirmation
from edge_agent.routes.delivery import Delivery
from edge_agent.routes.message import Batch, Message
from edge_agent.routes.suspicion import Condemned

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Lane

WINDOW_BYTES = 8 * 2**20
LIVE_BYTES = WINDOW_BYTES // 4
LANES_MAX = 8
ASKED_OPEN = 4
_KNOWN = 1000  # streams of finished lanes, whose late confirmations are no lies


class Lanes:
    """The deliveries of one route. Lives on the event loop."""

    def __init__(self, route: str, agent: str, buffer: Buffer, *, strict: bool = False) -> None:
        self.all: list[Delivery] = []  # not finished, the oldest first; the growing one is the last of the log's
        self.changed = asyncio.Event()
        self.to_tend = asyncio.Event()
        self.in_line = asyncio.Semaphore(0)
        self._cut = False  # the growing lane may have a backlog
        self._route, self._agent, self._buffer, self._strict = route, agent, buffer, strict
        self._known: deque[str] = deque(maxlen=_KNOWN)
        self._taken: deque[int] = deque(maxlen=_KNOWN)  # ids, since a lane may be both begun with and offered
        self._told: set[str] = set()
        self._condemned = Condemned()

    def add(self, lanes: Iterable[Lane]) -> None:
        """Take lanes over that the buffer says are unfinished."""
        for lane in lanes:
            if lane.id not in self._taken:
                self._taken.append(lane.id)
                self.all.append(Delivery(lane, self._buffer, self._told, self._condemned))
        self.all.sort(key=lambda delivery: (delivery.lane.from_seq, delivery.lane.id))

    def cut(self, live: Delivery, new: Lane) -> None:
        """``new`` grows from now on; what ``live`` has left is backlog."""
        live.cut(new.from_seq - 1)
        self.add([new])
        self.changed.set()

    def finish(self, delivery: Delivery) -> None:
        """All of it is settled, and it grows no more."""
        self.all.remove(delivery)
        self._known.append(delivery.lane.stream)
        self.tend()

    # --- where tasks meet --------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a change of the windows may bring about."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def tend(self, *, cut: bool = False) -> None:
        """Have it looked at which lanes are to be open; with ``cut``, whether the growing one has a backlog."""
        self._cut = self._cut or cut
        self.to_tend.set()

    def tended(self) -> bool:
        """It is looked at now. True if somebody wanted a cut."""
        self.to_tend.clear()
        cut, self._cut = self._cut, False
        return cut

    def take(self, delivery: Delivery, batch: Batch) -> None:
        """Put what was read into its window, and in the line."""
        delivery.take(batch)
        for message in batch.messages:
            self.put(delivery, message)

    def put(self, delivery: Delivery, message: Message) -> None:
        """It is to be sent, once or again."""
        delivery.put(message)
        self.in_line.release()

    # --- which, and in which order -----------------------------------------------------------------------------

    @property
    def open(self) -> list[Delivery]:
        """What is being delivered, in the order of sending."""
        return sorted((each for each in self.all if each.open), key=lambda each: not each.grows)

    def wanted(self) -> list[Delivery]:
        """What should be open, in the order of sending."""
        log = [each for each in self.all if each.lane.purpose == "log"]
        if not self._strict:
            log = [*(each for each in log if each.grows), *[each for each in log if not each.grows][:1]]
        asked = sorted((each for each in self.all if each.lane.purpose != "log"), key=lambda each: each.lane.id)
        return log[:1] + asked[:ASKED_OPEN] if self._strict else log + asked[:ASKED_OPEN]

    def to_cut(self) -> Delivery | None:
        """The growing lane, if what it has pending may become a lane of its own."""
        log = [each for each in self.all if each.lane.purpose == "log"]
        if self._strict or len(log) >= LANES_MAX:
            return None
        return next((each for each in log if each.grows), None)

    @property
    def asked(self) -> list[str]:
        """The requests of the unfinished lanes that a receiver asked for."""
        return [each.lane.request for each in self.all if each.lane.request is not None]

    def next(self) -> tuple[Delivery, Message] | None:
        """What is to be sent next; it is taken out of the line."""
        for delivery in self.open:
            message = delivery.next()
            if message is not None:
                return delivery, message
        return None

    def has_room(self, delivery: Delivery) -> bool:
        """Whether one more batch of it may be read."""
        mine = delivery.window.bytes
        if mine == 0:
            return True
        others = [each for each in self.all if each.open and each is not delivery]
        share = WINDOW_BYTES
        if others and delivery.grows:
            share = LIVE_BYTES
        elif others:
            beside_live = any(each.grows for each in others)
            share = (WINDOW_BYTES - LIVE_BYTES) // len(others) if beside_live else WINDOW_BYTES // (len(others) + 1)
        return mine < share and mine + sum(each.window.bytes for each in others) < WINDOW_BYTES

    # --- progress ----------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Bytes that are read and not settled."""
        return sum(each.window.bytes for each in self.all if each.open)

    @property
    def all_settled(self) -> bool:
        """True when nothing that is durable is left to deliver."""
        return bool(self.all) and all(each.settled for each in self.all)

    @property
    def careful(self) -> bool:
        """One of them is suspected to hold a record that ends connections: messages go one at a time."""
        return any(each.suspicion.careful for each in self.all)

    def restart(self) -> None:
        """Read again from the last progress, with the numbers it had: a new connection begins so."""
        for delivery in self.all:
            delivery.suspend()
        self.in_line = asyncio.Semaphore(0)
        self._cut = True

    def confirmed(self, said: Confirmation) -> bool:
        """Move by what the receiver said; False if it concerns something else. Raises BadConfirmation."""
        parts = said.stream.split(".")
        if len(parts) == 3 and parts[1] != self._route and said.agent == self._agent:
            return False  # another route's: routes of one agent share the topic
        delivery = next((each for each in self.all if each.lane.stream == said.stream), None)
        if said.agent == self._agent and delivery is not None:
            delivery.confirm(said)
            return True
        if said.agent != self._agent or said.stream not in self._known:
            raise BadConfirmation(f"stream {said.stream!r} of {said.agent!r} is not ours")
        return False  # a lane that is finished: late, and harmless

    def report(self) -> None:
        """Tell the buffer how far each lane is, if it moved."""
        for delivery in self.all:
            if delivery.open:
                delivery.report()
