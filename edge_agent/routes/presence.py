"""The agent's retained state at one broker, and whether another agent is there under the same id.

One route a broker announces it: the others have no will, or the end of one would say that the agent is lost while it
lives. The announcer also listens to its own topic. What it hears there with a ``log`` that is none of this buffer's is
another agent's: a clone of the PC, or a second one that was given the same ``agent.id``. Believed is only what was
published while we were online, or what has replaced the state that we had seen go out before: a retained
state that was there first may be of a buffer this PC had once.

A finding names the other, once for each log of it. Then we do not fight: while the other is there, a lost connection
is a refusal, with its long back-off, so that two agents that throw each other out do so twice a minute at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import orjson

from edge_agent import clock
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.errors import StorageError
from edge_agent.logs import Log
from edge_agent.model import Record
from edge_agent.routes.message import AgentIdentity
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings
from edge_agent.routes.sink import SinkRefused

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer

MAX_TOLD = 64  # findings of one run: an agent that starts anew all the time must not fill the log
_TEXT_CHARS = 100
HINT = "give each agent its own `agent.id`; after cloning a PC, change the id and empty data_dir on the copy"

log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Rival:
    """Another agent of our id, as its state names it."""

    host: str
    log: str


class Presence:
    """One broker's view of this agent. Shared by the routes to that broker; ``report`` appends records."""

    def __init__(
        self, identity: AgentIdentity, buffer: Buffer, report: Callable[[Sequence[Record]], int], *, plain: bool = False
    ) -> None:
        self.root = "{enterprise}/{site}/{area}/{line}/_agent/{agent}".format(**identity.levels(plain))
        self.topic = f"{self.root}/state"
        self.rival: Rival | None = None
        self._identity = identity
        self._buffer = buffer
        self._append = report
        self._ours: frozenset[str] = frozenset()
        self._seen = False  # our own state came back from the broker in this run
        self._told: set[str] = set()
        self._answer = asyncio.Event()  # set when the other should hear of us

    async def begin(self) -> None:
        """Before each connection of the announcer: nothing is known of who is there now."""
        if not self._ours:
            self._ours = await asyncio.to_thread(self._buffer.logs)
        self.rival = None

    def state(self, word: str) -> bytes:
        """The body of the state topic: ``online``, ``offline`` (stopped) or, as last will, ``lost``."""
        return orjson.dumps(
            {
                "v": 1,
                "agent": self._identity.agent,
                "state": word,
                "log": self._buffer.log,
                "boot": self._buffer.boot,
                "host": socket.gethostname(),
                "version": self._identity.version,
                "at_ns": str(clock.now().at_ns),
                "seq": self._buffer.durable_seq,
            }
        )

    def hear(self, payload: bytes, retained: bool) -> None:
        """What came on the state topic, as hostile as it may be."""
        try:
            body = orjson.loads(payload)
            other, word, host = body["log"], body["state"], str(body.get("host") or "?")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return
        if not isinstance(other, str) or not isinstance(word, str):
            return
        if other == self._buffer.log:
            self._seen = True
        elif other not in self._ours and (not retained or self._seen):
            rival = Rival(host[:_TEXT_CHARS], other[:_TEXT_CHARS])
            self.rival = rival if word != "offline" else None
            if word == "online" and not retained and rival.log not in self._told:
                self._answer.set()
            self._tell(rival)

    def taken_over(self, client_id: str) -> None:
        """The broker says that somebody else came with our client id; who, it does not say."""
        if self.rival is None and not self._told:
            text = f"another client uses the client id {client_id}: the broker ended our connection for it"
            self._find("", text, {"client_id": client_id})

    async def answer(self) -> None:
        """Waits until another agent came online, which should hear of us too."""
        await self._answer.wait()
        self._answer.clear()

    def contested(self, why: str) -> SinkRefused | None:
        """What a connection's end means while another agent of our id is there."""
        if self.rival is None:
            return None
        text = f"another agent with the id {self._identity.agent} is at the broker: host {self.rival.host}; {why}"
        return SinkRefused(text, hint=HINT)

    def _tell(self, rival: Rival) -> None:
        text = f"another agent with the id {self._identity.agent} is at the broker: host {rival.host}, log {rival.log}"
        self._find(rival.log, text, {"host": rival.host, "log": rival.log})

    def _find(self, key: str, text: str, details: Mapping[str, str]) -> None:
        if key in self._told or len(self._told) >= MAX_TOLD:
            return
        self._told.add(key)
        log.error("duplicate agent", hint=HINT, **details)
        draft = Draft(self._buffer.log, clock.now(), self._buffer.next_seq)
        report(draft, "agent", "duplicate_agent", text, details=details)
        with contextlib.suppress(StorageError):  # then the agent is ending over it anyway
            self._append(draft.records)


class AtBroker(NamedTuple):
    """One route's part in a presence."""

    presence: Presence
    announces: bool


def share(
    routes: Mapping[str, RouteSettings],
    identity: AgentIdentity,
    buffer: Buffer,
    report: Callable[[Sequence[Record]], int],
) -> dict[str, AtBroker]:
    """What each route over MQTT needs to know of the others at its broker: the first of them announces."""
    at: dict[tuple[str, int, bool], Presence] = {}
    shared: dict[str, AtBroker] = {}
    for name, route in routes.items():
        if isinstance(route, MqttRouteSettings):
            _secure, host, port = route.broker
            place = (host, port, route.plain_topics)
            first = place not in at
            if first:
                at[place] = Presence(identity, buffer, report, plain=route.plain_topics)
            shared[name] = AtBroker(at[place], first)
    return shared
