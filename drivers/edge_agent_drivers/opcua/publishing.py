"""The Publish requests that are under way, and their answers in the order they come.

Some requests are always with the server, one more than there are subscriptions, so that it never waits for us. Their
answers are the only queue between the server and ``read()``: who does not take them sends no new request, the
server's own queues then fill, and what they lose they mark (*overflow*). So memory stays bounded and no loss is silent.

A gap in the sequence numbers is asked for again (Republish) before anything newer is given; what the server no longer
has is a loss of the connection's worth: the next one reads everything anew.
"""

from __future__ import annotations

import asyncio
from collections import deque

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes

from edge_agent_drivers.opcua import answers
from edge_agent_drivers.opcua.answers import Notification
from edge_agent_drivers.opcua.faults import Refused
from edge_agent_drivers.opcua.link import Link

MOST_REQUESTS = 10
MOST_REPUBLISHED = 100  # messages of one gap; more is a new connection's work
_LAST_SEQUENCE = 0xFFFF_FFFF
_AGAIN = frozenset({StatusCodes.BadTimeout, StatusCodes.BadRequestTimeout})  # the server let a request lie too long


def following(sequence: int) -> int:
    """The sequence number after this one: 0 is never used."""
    return sequence + 1 if sequence < _LAST_SEQUENCE else 1


class Publisher:
    """See the module docstring. ``start`` once; ``stop`` ends its tasks, one a request."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._wanted = 0
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._arrived: deque[asyncio.Task[bytes]] = deque()  # never more than _wanted
        self._expected: dict[int, int] = {}  # by subscription: the number of its next message
        self._begun: set[int] = set()  # subscriptions of which a message was taken
        self._acknowledge: list[ua.SubscriptionAcknowledgement] = []
        self._wake = asyncio.Event()
        self.starved = False  # the server had no request of ours for a while: its keep-alives could not come

    def start(self, subscriptions: list[int]) -> None:
        """Send the first requests."""
        self._expected = dict.fromkeys(subscriptions, 1)  # with which each begins
        self._wanted = min(len(subscriptions) + 1, MOST_REQUESTS) if subscriptions else 0
        self._fill()

    async def stop(self) -> None:
        """End the requests under way."""
        self._wanted = 0
        tasks, self._tasks = self._tasks, set()
        self._arrived.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def wake(self) -> None:
        """End the wait of ``arrived``."""
        self._wake.set()

    async def wait(self, timeout_s: float | None) -> None:
        """Until an answer is there, or ``wake``, or the time has passed. Cancelling it loses nothing."""
        if self._arrived:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def take(self) -> tuple[int, Notification] | None:
        """The next answer: (subscription, its message); None when there is no answer.

        Raises DeviceLost. ``missing`` must be empty before what it gives may be used.
        """
        while self._arrived:
            self.starved |= len(self._arrived) >= self._wanted
            task = self._arrived.popleft()
            self._tasks.discard(task)
            try:
                found = self._link.decoded(answers.published, task.result())
            except Refused as error:
                self._refused(error)
                continue
            self._fill()
            if found.subscription not in self._expected:
                continue  # of a subscription that was deleted
            return found.subscription, found.message
        return None

    def missing(self, subscription: int, sequence: int) -> list[int]:
        """The messages that should have come before this one."""
        expected = self._expected[subscription]
        gap = (sequence - expected) % _LAST_SEQUENCE
        if gap > _LAST_SEQUENCE // 2:
            return []  # an old one, again
        if gap > MOST_REPUBLISHED and subscription not in self._begun:
            return []  # this server begins with another number than 1
        if gap > MOST_REPUBLISHED:
            raise self._link.lost(f"{gap} notification messages are missing")
        numbers: list[int] = []
        while expected != sequence:
            numbers.append(expected)
            expected = following(expected)
        return numbers

    def is_old(self, subscription: int, sequence: int) -> bool:
        """This message was given already."""
        if subscription not in self._begun:
            return False
        return (sequence - self._expected[subscription]) % _LAST_SEQUENCE > _LAST_SEQUENCE // 2

    async def fetch(self, subscription: int, sequence: int) -> Notification:
        """A message that got lost on the way. Raises DeviceLost when the server no longer has it.

        Before the first message it is none that was lost: this server begins with another number than 1.
        """
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.RetransmitSequenceNumber = sequence
        try:
            found = self._link.decoded(answers.republished, await self._link.send(request))
        except Refused as error:
            if subscription not in self._begun:
                self._expected[subscription] = following(sequence)
                return Notification(sequence, [], None, is_keep_alive=True)
            raise self._link.lost(f"notification message {sequence} is missing ({error})") from error
        if found.sequence != sequence:
            raise self._link.lost(f"notification message {sequence} is missing ({found.sequence} came in its place)")
        return found._replace(is_keep_alive=False)

    def done(self, subscription: int, sequence: int) -> None:
        """This message was taken: the server may forget it."""
        self._expected[subscription] = following(sequence)
        self._begun.add(subscription)
        self._acknowledge.append(ua.SubscriptionAcknowledgement(subscription, sequence))

    def _refused(self, error: Refused) -> None:
        if error.code == StatusCodes.BadTooManyPublishRequests and self._tasks:
            self._wanted = len(self._tasks)  # what it has by now is what it takes
            return
        if error.code in _AGAIN:
            self._fill()
            return
        raise self._link.lost(str(error))

    def _fill(self) -> None:
        while len(self._tasks) < self._wanted:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements, self._acknowledge = self._acknowledge, []
            task = asyncio.create_task(self._link.send(request, 0), name=f"opcua publish {self._link.device}")
            self._tasks.add(task)
            task.add_done_callback(self._on_answer)

    def _on_answer(self, task: asyncio.Task[bytes]) -> None:
        if not task.cancelled() and task in self._tasks:
            self._arrived.append(task)
            self._wake.set()
        elif not task.cancelled():
            task.exception()  # stopped: nobody asks any more
