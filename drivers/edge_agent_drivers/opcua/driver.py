"""An OPC UA server: groups it tells of by itself, groups read at an interval or on demand, tags written with read-back.

The parts: ``config`` says what may be written in YAML; ``link`` owns the connection and its failures, ``faults`` their
names; ``binary`` and ``answers`` make tuples of bytes, ``structures``, ``typebook`` and ``values`` make values of them;
``subscriptions`` creates what ``publishing`` then listens to; ``groups`` and ``images`` make the samples; ``history``
reads what happened in a gap; ``writing`` writes.

No task of its own but the Publish requests under way (bounded, ended by ``close``), one that makes refused items anew,
and asyncua's three. What came while
nobody called ``read()`` waits in those requests' answers and then on the server. After each opening every group is read
once in full: that is the level from which the notifications go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from asyncua.ua.status_codes import StatusCodes

from edge_agent import clock
from edge_agent.errors import DeviceLost, DeviceRefused, ReadingRejected
from edge_agent.model import Sample, Value
from edge_agent_drivers.opcua.answers import Notification
from edge_agent_drivers.opcua.codes import words
from edge_agent_drivers.opcua.config import OpcuaSettings, OpcuaTag, describe
from edge_agent_drivers.opcua.faults import Refused, on_opening
from edge_agent_drivers.opcua.groups import BoundGroup
from edge_agent_drivers.opcua.history import memory_of, past
from edge_agent_drivers.opcua.images import Memory, News
from edge_agent_drivers.opcua.link import Link
from edge_agent_drivers.opcua.publishing import Publisher
from edge_agent_drivers.opcua.subscriptions import Item, Subscribed, forget, monitor, subscribe
from edge_agent_drivers.opcua.typebook import TypeBook
from edge_agent_drivers.opcua.writing import Writer

RETRY_S = 60.0  # a node that the server refused is tried again so often


class OpcuaDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: OpcuaSettings) -> None:
        self._device = device
        self._settings = settings
        self._shape = describe(device, settings)
        self._link = Link(device, settings)
        self._link.on_lost = self._on_lost
        every = {
            **settings.tags,
            **{name: tag for group in settings.groups.values() for name, tag in group.tags.items()},
        }
        self._writable: dict[str, OpcuaTag] = {name: tag for name, tag in every.items() if tag.write}
        self._trying: asyncio.Task[None] | None = None  # making items anew
        self._forget()

    def _forget(self) -> None:
        """All that is known of a connection."""
        self._types = TypeBook(self._link)
        self._writer = Writer(self._link, self._types)
        self._publisher = Publisher(self._link)
        self._groups: dict[str, BoundGroup] = {}
        self._items: dict[int, tuple[BoundGroup, int]] = {}  # by client handle: (group, place in it)
        self._subscribed: dict[int, tuple[Subscribed, BoundGroup]] = {}
        self._refused: dict[int, Item] = {}  # by client handle; also those whose node went away later
        self._wanted: dict[int, Item] = {}  # all of them, by client handle
        self._numbers: dict[int, int] = {}  # by client handle: the server's own number of the item
        self._ready: deque[list[Sample]] = deque()  # the levels, until they are read
        self._gaps: list[tuple[BoundGroup, Memory, Sample]] = []  # groups whose history is still to be read
        self._past: Iterator[list[Sample]] | None = None
        self._messages: deque[tuple[int, Notification]] = deque()  # one, and what was missing before it
        self._due: dict[str, float] = {}  # by polled group, in the loop's time
        self._just_polled = False
        self._retry_at = 0.0
        self._silent_at: dict[int, float] = {}  # by subscription: when it will have been silent for too long

    async def open(self) -> None:
        """Connect, look every node up, read every group once, subscribe. Raises DeviceUnavailable, DeviceRefused."""
        await self.close()
        await self._link.open()
        opened = False
        try:
            await self._bind()
            for name, group in self._groups.items():
                if group.settings.subscribe is not None:
                    await self._subscribe(name, group)
            self._publisher.start(list(self._subscribed))
            opened = True
        except (Refused, DeviceLost, ReadingRejected) as error:
            raise on_opening(self._device, self._settings, error) from error
        finally:
            if not opened:
                await self.close()

    async def read(self, group: str | None = None) -> Sequence[Sample]:
        """A fresh sample of this group, or the next samples of any. Raises DeviceLost, ReadingRejected."""
        if group is not None:
            return [await self._fresh(self._groups[group])]
        while True:
            if self._ready:
                return self._ready.popleft()
            now = asyncio.get_running_loop().time()
            polled = min(self._due, key=self._due.__getitem__, default="")
            if polled and self._due[polled] <= now and not self._just_polled:  # in turns: neither starves the other
                self._just_polled = True
                return [await self._poll(polled, now)]
            self._just_polled = False
            if self._refused and self._retry_at <= now:
                self._trying = self._trying or asyncio.create_task(self._try_again())
                await asyncio.shield(self._trying)  # whoever gives up waiting: an item is not made twice
                self._trying = None
                continue
            if samples := await self._remembered():
                return samples
            if samples := await self._notified():
                return samples
            self._link.check()
            now = asyncio.get_running_loop().time()
            self._check_silence(now)
            deadlines = [*self._due.values(), *self._silent_at.values(), *([self._retry_at] if self._refused else [])]
            await self._publisher.wait(max(0.0, min(deadlines) - now) if deadlines else None)

    async def write(self, tag: str, value: Value) -> None:
        """Write with the node's own type, read back, compare. Raises DeviceLost, DeviceRefused."""
        settings = self._writable.get(tag)
        if settings is None:
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=f"mark it with write: true, under {tag}:")
        await self._writer.write(tag, settings, value)

    async def close(self) -> None:
        """End the subscriptions with the session, if the server still answers. Idempotent, bounded."""
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.cancel()
            await asyncio.wait([trying])
            if not trying.cancelled():
                trying.exception()  # the connection's end is why we are here
        await self._publisher.stop()
        await self._link.close()
        self._forget()

    # --- opening ---------------------------------------------------------------------------------------------

    async def _bind(self) -> None:
        """Look the nodes up and read the level of every group that is not only read on demand."""
        refusals: list[str] = []
        good = 0
        for name, shape in self._shape.groups.items():
            group = BoundGroup(shape, self._settings.groups[name], self._link)
            self._groups[name] = group
            if self._settings.history and group.settings.subscribe is not None:
                group.memory = memory_of(self._device, self._settings.connection, shape.tagset)
            await group.learn(self._types)
            sample = await group.fresh(self._types, group.image)
            bad = [reason for place, reason in (sample.status or {}).items() if sample.values[place] is None]
            good += len(sample.values) - len(bad)
            refusals += bad
            if not group.settings.on_trigger:
                self._ready.append([sample])
            if group.memory is not None:
                self._gaps.append((group, group.memory.copy(), sample))
            if group.settings.poll is not None:
                self._due[name] = asyncio.get_running_loop().time() + group.settings.poll
        unknown = words(StatusCodes.BadNodeIdUnknown)
        if not good and refusals and all(each == unknown or "no namespace" in each for each in refusals):
            hint = f"its namespaces are {', '.join(self._link.namespaces[1:6])}; see its nodes: edge-agent browse opcua"
            raise DeviceRefused(self._device, f"{self._settings.connection}: knows none of the nodes", hint=hint)

    async def _subscribe(self, name: str, group: BoundGroup) -> None:
        subscribed = await subscribe(self._link, group.settings)
        self._subscribed[subscribed.id] = (subscribed, group)
        items = []
        for place, node in group.nodes:
            handle = len(self._items) + 1
            self._items[handle] = (group, place)
            items.append(Item(handle, node, group.tags[place]))
        await self._monitor(subscribed, group, items)
        self._heard(subscribed.id)

    async def _monitor(self, subscribed: Subscribed, group: BoundGroup, items: Sequence[Item]) -> None:
        """Create these items; what is refused becomes its tag's status, in a sample."""
        made, refused = await monitor(self._link, subscribed.id, group.settings, items)
        self._numbers |= made
        for item in items:
            self._wanted[item.handle] = item
            if item.handle in refused:
                self._refused[item.handle] = item
            else:
                self._refused.pop(item.handle, None)
        if refused:
            news = [News(self._items[handle][1], None, why, None, None) for handle, why in refused.items()]
            now = clock.now()
            changed = [each for each in news if group.image.status.get(each.place) != each.status]
            if changed:
                self._ready.append(group.image.samples(changed, now, now.mono_ns))
        self._retry_at = asyncio.get_running_loop().time() + RETRY_S

    # --- what the server says --------------------------------------------------------------------------------

    async def _notified(self) -> list[Sample]:
        """The samples of the next notification message; none when none has come. Cancelling it loses nothing."""
        publisher = self._publisher
        while True:
            if not self._messages:
                taken = publisher.take()
                if taken is None:
                    return []
                subscription, message = taken
                self._heard(subscription)
                if publisher.is_old(subscription, message.sequence):
                    continue
                self._messages.append((subscription, message))
            subscription, message = self._messages[0]
            if missing := publisher.missing(subscription, message.sequence):
                self._messages.appendleft((subscription, await publisher.fetch(subscription, missing[0])))
                continue
            if message.is_keep_alive:
                self._messages.popleft()
                continue
            if message.closed is not None:
                raise self._link.lost(f"the server ended the subscription: {words(message.closed) or 'Good'}")
            samples = await self._samples(subscription, message)
            self._messages.popleft()
            publisher.done(subscription, message.sequence)
            if samples:
                return samples

    async def _samples(self, subscription: int, message: Notification) -> list[Sample]:
        subscribed, group = self._subscribed[subscription]
        items = self._items
        known = [(*items[handle], value) for handle, value in message.items if handle in items]
        said = [(place, value) for of, place, value in known if of is group]
        if not said:
            return []
        self._come_and_gone(message)
        news = await group.understood(said, self._types)
        samples = group.samples(news, clock.now(), subscribed.interval_s)
        if group.memory is not None:
            for sample in samples:
                group.memory.keep(sample)
        return samples

    def _come_and_gone(self, message: Notification) -> None:
        """A node that the server took away may come back, and its item may not: it is then made anew."""
        for handle, value in message.items:
            if value.code == StatusCodes.BadNodeIdUnknown and handle in self._wanted:
                if not self._refused:
                    self._retry_at = asyncio.get_running_loop().time() + RETRY_S
                self._refused[handle] = self._wanted[handle]
            elif self._refused:
                self._refused.pop(handle, None)

    async def _remembered(self) -> list[Sample]:
        """The next samples of the gap before this connection; none when there are none left."""
        while self._gaps:
            group, before, level = self._gaps[0]
            if self._past is None:
                self._past = await past(self._link, self._types, group, before, level)
            if samples := next(self._past, []):
                if group.memory is not None:
                    for sample in samples:
                        group.memory.keep(sample)
                return samples
            if group.memory is not None:
                group.memory.keep(level)  # not before: what a new loss cuts short is then read on from there
            self._past = None
            self._gaps.pop(0)
        return []

    def _heard(self, subscription: int) -> None:
        """It lives; or nobody could say so, because the server had no request of ours to answer."""
        now = asyncio.get_running_loop().time()
        several = self._subscribed if self._publisher.starved else (subscription,)
        self._publisher.starved = False
        for each in several:
            subscribed, _ = self._subscribed[each]
            self._silent_at[each] = now + subscribed.silent_s + 2 * self._settings.timeout

    def _check_silence(self, now: float) -> None:
        for subscription, deadline in self._silent_at.items():
            if deadline <= now:
                name = self._subscribed[subscription][1].name
                raise self._link.lost(f"the server forgot the subscription of {name}: no keep-alive came")

    def _on_lost(self) -> None:
        self._publisher.wake()

    # --- reading ---------------------------------------------------------------------------------------------

    async def _fresh(self, group: BoundGroup) -> Sample:
        try:
            return await group.fresh(self._types)
        except Refused as error:
            hint = "look at the server's state; is the group too large for it?"
            raise ReadingRejected(self._device, f"{group.name}: the server answers {error}", hint=hint) from error

    async def _poll(self, name: str, now: float) -> Sample:
        """A missed period is skipped, not made up."""
        group = self._groups[name]
        period_s = group.settings.poll or 0.0
        due = self._due[name] + period_s
        self._due[name] = due if due > now else now + period_s
        return await self._fresh(group)

    async def _try_again(self) -> None:
        """Create the items anew that the server refused."""
        for subscribed, group in self._subscribed.values():
            items = [item for handle, item in self._refused.items() if self._items[handle][0] is group]
            if items:
                old = [self._numbers[item.handle] for item in items if item.handle in self._numbers]
                try:
                    await forget(self._link, subscribed.id, old)
                    for item in items:
                        self._numbers.pop(item.handle, None)
                    await self._monitor(subscribed, group, items)
                except Refused as error:
                    raise self._link.lost(str(error)) from error
        self._retry_at = asyncio.get_running_loop().time() + RETRY_S
