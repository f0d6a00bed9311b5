"""One entry of ``inbound:``: a connection with a persistent session, and what its messages make the line do.

A message is acknowledged (PUBACK) only after what it caused is durable: the agent killed in between gets it again, and
then it is a duplicate. What waits together is committed together, at most ``TOGETHER`` messages. Nothing here retries a
message: what cannot be read is refused, counted, told by a finding now and then, and acknowledged, or it would come for
ever. The topic says what a message may be: a verdict on a topic of status is none.

Reconnecting backs off with full jitter up to ``BACKOFF_MAX_S``, after a refusal about a minute. Bounded: what the
broker may send ahead (see link), one message at a time in work, ``SLICE`` of its entries between two turns of the loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from edge_agent import clock
from edge_agent.binding.action import Action
from edge_agent.binding.snapshots import CloseAbsent, Expect, Heartbeat, SnapshotPart, Unreadable, Watch
from edge_agent.binding.status import BindingSaid, CycleSaid, UnitStatusSaid
from edge_agent.binding.verdicts import Verdict
from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.inbound import messages
from edge_agent.inbound.messages import BadMessage
from edge_agent.logs import Log, Outage
from edge_agent.routes.link import Incoming, Link
from edge_agent.routes.message import AgentIdentity
from edge_agent.routes.sink import SinkRefused

if TYPE_CHECKING:
    from edge_agent.inbound.settings import InboundSettings
    from edge_agent.line import Line

BACKOFF_S, BACKOFF_MAX_S, BACKOFF_REFUSED_S = 0.2, 10.0, 60.0
STABLE_S = 10.0
WATCH_S = 1.0
TOGETHER = 50
SLICE = 100

log = Log(__name__)


class Source:
    """See the module docstring. ``begin()`` before any device is opened, then ``run()`` until it is cancelled."""

    def __init__(self, name: str, settings: InboundSettings, identity: AgentIdentity, line: Line) -> None:
        self.name = name
        root = "{enterprise}/{site}/{area}/{line}/_agent/{agent}".format(**identity.levels(False))
        self.snapshot_topic = f"{root}/holds/{name}"
        self.request_topic = f"{settings.verdicts}/request"
        self._settings = settings
        self._agent = identity.agent
        self._line = line
        self._client_id = settings.client_id or f"edge-agent-{identity.agent}-inbound-{name}"
        self._link: Link | None = None
        self._state = "connecting"
        self._error: BrokerUnavailable | None = None
        self._failures = 0
        self._counts: Counter[str] = Counter()
        self._told: dict[str, Any] = {}
        self._outage = Outage(log, "inbound", source=name)
        self._unasked = Outage(log, "snapshot request", source=name)

    def begin(self) -> None:
        """From now on what this source decides counts, and is not known until it was heard."""
        if self._settings.verdicts is not None:
            self._line.act(Expect(self.name, int(self._settings.heartbeat * 1e9)), clock.now())
            self._watch(ask=False)

    def status(self) -> dict[str, Any]:
        """What ``status`` shows: state, error, hint, counts; with verdicts also how far the source is known."""
        error = self._error
        return {
            "state": self._state,
            "url": self._settings.url,
            "last_error": None if error is None else str(error.args[0]),
            "hint": "" if error is None else error.hint,
            "counts": dict(self._counts),
            **self._told,
        }

    async def run(self) -> None:
        """Connect, hear, connect again; never raises a BrokerUnavailable."""
        watching = asyncio.create_task(self._watching(), name=f"inbound {self.name} watch")
        try:
            while True:
                await self._connection()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._state = "stopped"

    # --- the connection ----------------------------------------------------------------------------------------

    async def _connection(self) -> None:
        """One connection until it is lost, and the wait after it."""
        loop = asyncio.get_running_loop()
        self._state, connected_s = "connecting", float("inf")
        link = Link(self._settings, self._client_id, None, persistent=True)
        try:
            await link.connect()
            for topic in self._topics():
                await link.subscribe(topic)
            self._link, self._state, self._error = link, "connected", None
            connected_s = loop.time()
            self._counts["connections"] += 1
            self._outage.recovered()
            await self._hear(link)
        except BrokerUnavailable as lost:
            self._error = lost
        finally:
            self._link = None
            self._counts["dropped"] += link.dropped
            await link.close()
        if loop.time() - connected_s > STABLE_S:
            self._failures = 0
        assert self._error is not None, "hearing ends with an error only"
        self._outage.failed(self._error)
        await self._back_off(isinstance(self._error, SinkRefused))

    def _topics(self) -> list[str]:
        of_verdicts = [] if self._settings.verdicts is None else [self._settings.verdicts, self.snapshot_topic]
        return [*of_verdicts, *self._settings.status]

    async def _back_off(self, refused: bool) -> None:
        self._state = "refused" if refused else "waiting"
        longest_s = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(self._failures, 10))
        wait_s = BACKOFF_REFUSED_S * random.uniform(0.5, 1) if refused else random.uniform(0, longest_s)
        self._failures += 1
        await asyncio.sleep(wait_s)

    # --- hearing -----------------------------------------------------------------------------------------------

    async def _hear(self, link: Link) -> None:
        """Take messages until the link is lost; acknowledge what is durable."""
        taken: list[Incoming] = []
        while True:
            await self._line.buffer.room()
            message = await link.arrived()
            seq = await self._take(message)
            taken.append(message)
            if link.waiting and len(taken) < TOGETHER:
                continue
            await self._line.buffer.committed(seq)
            for one in taken:
                link.ack(one)
            taken.clear()

    async def _take(self, message: Incoming) -> int:
        """Do what a message says; returns the seq after which it is safe."""
        try:
            actions = list(self._actions(message))
        except BadMessage as bad:
            self._counts["refused"] += 1
            size, count = len(message.payload), self._counts["refused"]
            actions = [Unreadable(self.name, message.topic, str(bad), size, count)]
        seq = self._line.buffer.next_seq - 1
        for index, action in enumerate(actions, 1):
            answer, seq = self._line.act(action, clock.now())
            if isinstance(action, SnapshotPart):
                seq = await self._finish(answer, seq)
            elif isinstance(action, Verdict):
                self._counts[str(answer["state"])] += 1
            elif answer.get("kept"):
                self._counts["status_kept"] += 1
            if index % SLICE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)  # others have their turn, however many messages wait
        return seq

    async def _finish(self, answer: dict[str, Any], seq: int) -> int:
        """After a snapshot's last part: close what it does not name, step by step."""
        self._counts[f"snapshot_{str(answer['state']).replace(' ', '_')}"] += 1
        left = bool(answer["left"])
        while left:
            left, seq = await self._close_some()
        self._watch(ask=False)
        return seq

    async def _close_some(self) -> tuple[bool, int]:
        """One step; returns whether there is more, and the seq."""
        await self._line.buffer.room()
        closed, seq = self._line.act(CloseAbsent(self.name), clock.now())
        await asyncio.sleep(0)
        return bool(closed["left"]), seq

    # --- messages to actions -----------------------------------------------------------------------------------

    def _actions(self, message: Incoming) -> Iterator[Action]:
        """What the message means, on its topic. Raises BadMessage."""
        topic, payload = message.topic, message.payload
        if topic == self._settings.verdicts:
            yield self._decision(messages.decision(payload))
        elif self._settings.verdicts is not None and topic == self.snapshot_topic:
            yield self._snapshot(messages.snapshot(payload))
        elif any(matches(one, topic) for one in self._settings.status):
            yield from self._status(messages.status(payload))
        else:
            raise BadMessage("nothing is expected on this topic")

    def _decision(self, said: messages.Decision) -> Action:
        if isinstance(said, messages.HeartbeatMessage):
            self._counts["heartbeats"] += 1
            return Heartbeat(self.name, said.last_decision_seq, int(said.at_ns))
        return Verdict(
            self.name, said.verdict_id, said.decision_seq, said.action, said.hold, said.subject.kind,
            said.subject.value, said.by, said.text,
            None if said.expires_at_ns is None else int(said.expires_at_ns), clock.synchronised(),
        )  # fmt: skip

    def _snapshot(self, said: messages.SnapshotMessage) -> Action:
        holds = tuple(
            Verdict(
                self.name, one.verdict_id, one.decision_seq, one.action, one.hold, one.subject.kind,
                one.subject.value, one.by, one.text,
            )
            for one in said.holds
        )  # fmt: skip
        return SnapshotPart(self.name, said.snapshot, said.last_decision_seq, said.part, said.parts, holds)

    def _status(self, said: messages.Status) -> Iterator[Action]:
        if isinstance(said, messages.StatusMessage):
            at_ns = None if said.at_ns is None else int(said.at_ns)
            who = said.by or self.name
            yield UnitStatusSaid(who, said.serial, said.step, said.result, said.complete, said.attempt, at_ns)
        elif said is None or said.agent == self._agent:  # our own records, come back to us
            self._counts["status_ignored"] += 1
        elif isinstance(said, messages.CyclesMessage):
            for one in said.records:
                yield CycleSaid(
                    said.agent, one.seq, one.cycle, one.station, one.step, one.result, one.complete, one.attempt,
                    int(one.ended_at_ns), one.binding.state, one.binding.serial, one.closed_by,
                )  # fmt: skip
        else:
            for bound in said.records:
                yield BindingSaid(said.agent, bound.seq, bound.cycle, bound.state, bound.serial)

    # --- asking ------------------------------------------------------------------------------------------------

    async def _watching(self) -> None:
        """Once a second: what does the source lack, and is a snapshot to be asked for?"""
        while self._settings.verdicts is not None:
            await asyncio.sleep(WATCH_S * random.uniform(0.8, 1.2))
            link = self._link
            request = self._watch(ask=link is not None)
            if link is None or request is None:
                continue
            self._counts["snapshots_asked"] += 1
            try:
                await link.publish(self.request_topic, self._request(request))
                self._unasked.recovered()
            except (MessageRejected, BrokerUnavailable) as error:
                self._unasked.failed(error)

    def _watch(self, *, ask: bool) -> str | None:
        told, _ = self._line.act(Watch(self.name, ask), clock.now())
        request: str | None = told.pop("request")
        self._told = told
        return request

    def _request(self, request: str) -> bytes:
        wanted = messages.SnapshotRequest(
            v=1, agent=self._agent, snapshot=request, topic=self.snapshot_topic,
            last_decision_seq=self._told.get("last_decision_seq"),
        )  # fmt: skip
        return orjson.dumps(wanted.model_dump(exclude_none=True))


def matches(filter: str, topic: str) -> bool:
    """Whether an MQTT topic filter covers a topic."""
    wanted, levels = filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)
