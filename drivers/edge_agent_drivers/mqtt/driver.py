"""Readings that other devices publish on a broker: the driver subscribes and makes samples of what comes.

One connection with a clean start: what was published while nobody listened is not asked for, as it belongs to units
that have moved on. A message that the broker had kept (retained) is as old as may be, and says so in its status. The
connection is the routes' own (:mod:`edge_agent.routes.link`): what had to be learned about paho stands there once.

Bounds: a message of at most 1 MiB; messages of QoS 0 that come faster than they are read are dropped by the hundred,
which is told as a rejected reading; with QoS 1 the broker waits for us.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_agent import clock
from edge_agent.errors import BrokerUnavailable, DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Sample, Value
from edge_agent.routes.link import Incoming, Link
from edge_agent.routes.settings import BrokerSettings
from edge_agent.routes.sink import SinkRefused
from edge_agent_drivers.mqtt.config import MqttGroup, MqttSettings, describe
from edge_agent_drivers.mqtt.messages import Message, NotText, at_pointer, instant_of, matches, parse, value_of

AT_ONCE = 256  # messages that one read takes
NO_VALUE_YET = "no value yet"
RETAINED = "retained: may be old"


class _Image:
    """A group's newest values, for a group whose tags have topics of their own."""

    def __init__(self, size: int) -> None:
        self.values: list[Value] = [None] * size
        self.status: dict[int, str] = dict.fromkeys(range(size), NO_VALUE_YET)


class MqttDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: MqttSettings) -> None:
        self._device = device
        self._settings = settings
        self._shape = describe(device, settings)
        self._link: Link | None = None
        self._unread: list[Incoming] = []  # handed out by the last read: acknowledged by the next
        self._dropped = 0
        self._images: dict[str, _Image] = {}

    async def open(self) -> None:
        """Connect and subscribe. Raises DeviceUnavailable or DeviceRefused."""
        await self.close()
        settings = self._settings
        keys = settings.model_dump(include={"url", "version", "username", "keepalive"}) | {
            "client_id": settings.client_id, "keepalive": f"{settings.keepalive:g}s", "tls": settings.tls.model_dump()
        }  # fmt: skip
        broker = BrokerSettings.model_validate(keys).model_copy(update={"password": settings.password})
        link = Link(broker, settings.client_id, None)
        self._images = {name: _Image(len(group.tags)) for name, group in settings.groups.items() if group.topic is None}
        self._link, self._dropped = link, 0
        try:
            await link.connect()
            for topic in self._topics():
                await link.subscribe(topic)
        except SinkRefused as error:
            await self.close()
            raise DeviceRefused(self._device, str(error.args[0]), hint=error.hint) from error
        except BrokerUnavailable as error:
            await self.close()
            raise DeviceUnavailable(self._device, str(error.args[0]), hint=error.hint) from error

    async def read(self, group: str | None = None) -> Sequence[Sample]:
        """The samples of the messages that have come, at least one. Raises DeviceLost or ReadingRejected."""
        link = self._link
        if link is None:
            raise DeviceLost(self._device, "is not open", hint="")
        if group is not None:
            raise ReadingRejected(self._device, f"{group} speaks by itself", hint="it cannot be read when asked for")
        for message in self._unread:
            link.ack(message)
        self._unread = []
        samples: list[Sample] = []
        while not samples:
            if link.dropped > self._dropped:
                missing, self._dropped = link.dropped - self._dropped, link.dropped
                hint = "let the device publish with QoS 1, or less often"
                raise ReadingRejected(
                    self._device, f"{missing} messages came faster than they could be read", hint=hint
                )
            try:
                messages = [await link.arrived()]
                while link.waiting and len(messages) < AT_ONCE:
                    messages.append(await link.arrived())
            except BrokerUnavailable as error:
                raise DeviceLost(self._device, str(error.args[0]), hint=error.hint) from error
            samples = [sample for message in messages for sample in self._samples(message)]
            if samples:
                self._unread = messages
            else:
                for message in messages:
                    link.ack(message)
        return samples

    async def write(self, tag: str, value: Value) -> None:
        """Nothing is published here."""
        raise DeviceRefused(self._device, f"{tag} is not writable", hint="this driver only listens; use a route")

    async def close(self) -> None:
        """Disconnect. Idempotent, bounded."""
        link, self._link, self._unread = self._link, None, []
        if link is not None:
            await link.close()

    def _topics(self) -> list[str]:
        groups = self._settings.groups.values()
        topics = [topic for group in groups for topic in (group.topic, *(tag.topic for tag in group.tags.values()))]
        return list(dict.fromkeys(topic for topic in topics if topic is not None))

    # --- messages to samples -----------------------------------------------------------------------------------

    def _samples(self, message: Incoming) -> list[Sample]:
        if message.retained and self._settings.retained == "drop":
            return []
        started_mono_ns = time.monotonic_ns()
        try:
            said, trouble = parse(message.payload), ""
        except NotText as error:
            said, trouble = Message("", None), str(error)
        doubt = RETAINED if message.retained and self._settings.retained == "doubt" else ""
        samples = []
        for name, group in self._settings.groups.items():
            if group.topic is None:
                news = self._news(name, group, message.topic, said, trouble, doubt)
                values, status = news if news is not None else (None, None)
            elif matches(message.topic, group.topic):
                values, status = self._whole(group, said, trouble, doubt)
            else:
                continue
            if values is None:
                continue
            at_ns = None if group.time is None else instant_of(at_pointer(said.value, group.time))
            source_ns = None if at_ns is None else dict.fromkeys(range(len(values)), at_ns)
            tagset = self._shape.groups[name].tagset
            samples.append(Sample(tagset, clock.now(), started_mono_ns, values, status or None, source_ns))
        return samples

    def _whole(
        self, group: MqttGroup, said: Message, trouble: str, doubt: str
    ) -> tuple[tuple[Value, ...], dict[int, str]]:
        """A message that is a sample."""
        values: list[Value] = []
        status: dict[int, str] = {}
        for index, tag in enumerate(group.tags.values()):
            value, why = (None, trouble) if trouble else value_of(said, tag.path, tag.type)
            values.append(value)
            if why or doubt:
                status[index] = why or doubt
        return tuple(values), status

    def _news(
        self, name: str, group: MqttGroup, topic: str, said: Message, trouble: str, doubt: str
    ) -> tuple[tuple[Value, ...], dict[int, str]] | None:
        """A message that is news of some tags of a group; None when it is of none."""
        image = self._images[name]
        known = False
        for index, tag in enumerate(group.tags.values()):
            if tag.topic is None or not matches(topic, tag.topic):
                continue
            known = True
            value, why = (None, trouble) if trouble else value_of(said, tag.path, tag.type)
            image.values[index] = value
            image.status.pop(index, None)
            if why or doubt:
                image.status[index] = why or doubt
        return (tuple(image.values), dict(image.status)) if known else None
