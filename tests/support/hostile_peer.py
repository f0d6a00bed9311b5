"""A broker and a receiver in memory that do what the worst of them do, and remember what was true.

``Peer`` outlives routes, connections and runs of the agent. It is a sink for whichever route runs now. What reaches the
receiver is stored or lost, late, twice and out of order; what it confirms is true, but may be lost, late, repeated, and
among lies. Its database may go back to an earlier state; then it asks for everything once more.

What it checks by itself: a number of a stream stands for one record for ever (or for none any more, a tombstone), and
but for replays a record has one number in one stream.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from dataclasses import dataclass, field
from typing import Any

from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.routes.message import TOMBSTONE
from edge_agent.routes.sink import Limits, Outgoing

AGENT = "pc1"
Key = tuple[str, int]  # (log, seq)


def unnamed(stream: str) -> str:
    """A stream without its route, which may be renamed."""
    log, _, lane = stream.split(".")
    return f"{log}.{{}}.{lane}"


@dataclass
class Held:
    """The receiver's database."""

    records: dict[Key, str] = field(default_factory=dict)  # the body's text
    refused: set[Key] = field(default_factory=set)
    numbers: dict[str, set[int]] = field(default_factory=dict)  # by stream, above upto
    upto: dict[str, int] = field(default_factory=dict)


class Peer:
    """See the module docstring. ``fair`` ends the mischief."""

    commits = False
    confirm_topic = "confirm"

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.fair = False
        self.now = Held()
        self.backup = copy.deepcopy(self.now)
        self.stands: dict[tuple[str, int], tuple[Key, str] | None] = {}  # (stream, n) -> what it stood for
        self.first: dict[Key, tuple[str, int]] = {}  # where a log's own lane sends a record: one place for ever
        self.settled: dict[str, int] = {}  # the highest upto of a stream that was ever said, and true
        self.rejected: set[Key] = set()  # by the broker
        self.lost_backup = False
        self.asked: dict[str, tuple[str, int, int]] = {}  # id -> (log, first_seq, last_seq)
        self.answered: set[str] = set()
        self.sends = 0
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._late: list[tuple[int, dict[str, Any]]] = []
        self._gone: asyncio.Future[None] | None = None
        self.cut_off = False  # the agent is about to be killed: nothing leaves it any more

    # --- the sink ------------------------------------------------------------------------------------------------

    async def open(self) -> Limits:
        await self._pause()
        if not self.fair and self.chance.random() < 0.1:
            raise BrokerUnavailable("not there")
        self._gone = asyncio.get_running_loop().create_future()
        self._gone.add_done_callback(lambda gone: gone.cancelled() or gone.exception())
        self._heard = asyncio.Queue()
        if self.chance.random() < 0.5:
            self._say({"v": 1, "agent": AGENT, "resume": True})
        return Limits(self.chance.choice((4096, 6000, 20_000)), self.chance.choice((1, 3, 20)))

    async def send(self, message: Outgoing) -> None:
        gone = self._gone
        if gone is None or gone.done() or self.cut_off:
            raise BrokerUnavailable("not connected")
        said = json.loads(message.payload)
        self.sends += 1
        self._check(said)
        await self._pause()
        if gone.done():
            raise BrokerUnavailable("gone")
        dice = 1.0 if self.fair else self.chance.random()
        if dice < 0.02:
            self._end(gone)  # the broker had it, or not, and nobody knows
            if self.chance.random() < 0.5:
                self._arrive(said)
            await gone
        elif dice < 0.03 and said["kind"] == "scan":
            self.rejected |= {(said["log"], record["seq"]) for record in said["records"]}
            raise MessageRejected("not this one")
        elif dice < 0.10:
            pass  # acknowledged, and forgotten
        elif dice < 0.20:
            self._late.append((self.sends + self.chance.randrange(1, 30), said))
        else:
            self._arrive(said)
            if dice < 0.30:
                self._arrive(said)
        due = [late for late in self._late if late[0] <= self.sends or self.fair]
        self._late = [late for late in self._late if late not in due]
        self.chance.shuffle(due)
        for _, late in due:
            self._arrive(late)

    async def confirmed(self) -> bytes:
        assert self._gone is not None
        get = asyncio.ensure_future(self._heard.get())
        try:
            await asyncio.wait((get, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if get.done():
                return get.result()
            return await self._gone or b""
        finally:
            get.cancel()

    async def ended(self) -> None:
        assert self._gone is not None
        await asyncio.wait((self._gone,))
        self._gone.result()

    async def close(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_exception(BrokerUnavailable("closed"))

    def status(self) -> dict[str, Any]:
        return {}

    # --- mischief ------------------------------------------------------------------------------------------------

    async def _pause(self) -> None:
        for _ in range(self.chance.randrange(0, 4)):
            await asyncio.sleep(0)
        if not self.fair and self.chance.random() < 0.05:
            await asyncio.sleep(self.chance.random() * 0.02)

    def _end(self, gone: asyncio.Future[None]) -> None:
        if not gone.done():
            gone.set_exception(BrokerUnavailable("gone"))

    def disconnect(self) -> None:
        if self._gone is not None:
            self._end(self._gone)

    def restore(self) -> None:
        """The receiver's database comes back from its backup, and asks for every log that it knows."""
        self.now = copy.deepcopy(self.backup)
        self.lost_backup = True

    def ask(self, route: str, log: str, first: int, last: int) -> str:
        """Ask for a range, once more than it was asked for before."""
        id = f"ask-{len(self.asked)}"
        self.asked[id] = (log, first, last)
        wanted = {"id": id, "route": route, "log": log, "first_seq": first, "last_seq": last}
        self._say({"v": 1, "agent": AGENT, "replay": wanted})
        return id

    def lie(self) -> None:
        """Something that no honest receiver says; none of it may have an effect."""
        stream, n = self.chance.choice(sorted(self.stands) or [("000000000000.mes.1", 1)])
        lies: list[Any] = [
            {"v": 1, "agent": AGENT, "stream": stream, "upto": 2**62},
            {"v": 1, "agent": "other", "stream": stream, "upto": n},
            {"v": 1, "agent": AGENT, "stream": stream + "0", "upto": n},
            {"v": 1, "agent": AGENT, "stream": stream, "upto": -1},
            {"v": 1, "agent": AGENT, "stream": stream, "upto": n, "nack": [{"n": "1", "reason": ""}]},
            {"v": 1, "agent": AGENT, "replay": {"id": "x", "route": "mes", "log": "0", "first_seq": 1, "last_seq": 9}},
            [],
            "\ud800".encode("utf-8", "surrogatepass").decode("latin1"),
        ]  # fmt: skip
        self._say(self.chance.choice(lies))

    def _say(self, what: Any) -> None:
        self._heard.put_nowait(json.dumps(what).encode())

    # --- the receiver --------------------------------------------------------------------------------------------

    def _check(self, said: dict[str, Any]) -> None:
        stream = said["stream"]
        for record in said["records"]:
            for n in range(record["n"], record["n"] + record.get("count", 1)):
                stood = self.stands.setdefault((stream, n), None)
                if said["kind"] == TOMBSTONE:
                    continue
                stands = ((said["log"], record["seq"]), record.get("text", said["kind"]))
                assert stood in (None, stands), f"{stream} {n} stood for {stood}, and now for {stands}"
                self.stands[stream, n] = stands
                if not stream.rpartition(".")[2].startswith("r"):
                    place = self.first.setdefault(stands[0], (unnamed(stream), n))
                    assert place == (unnamed(stream), n), f"{stands} was {place}, and now is {stream} {n} too"

    def _arrive(self, said: dict[str, Any]) -> None:
        """In one transaction: the records, then how far the stream is; then it is confirmed, perhaps."""
        now, stream = self.now, said["stream"]
        nacks = []
        numbers = now.numbers.setdefault(stream, set())
        for record in said["records"]:
            numbers.update(range(record["n"], record["n"] + record.get("count", 1)))
            if said["kind"] != TOMBSTONE:
                key = (said["log"], record["seq"])
                if record.get("text", "").startswith("bad"):
                    now.refused.add(key)
                    nacks.append({"n": record["n"], "reason": "bad part"})
                else:
                    now.records[key] = record.get("text", said["kind"])
        if "replay" in said:
            self.answered.add(said["replay"])
        upto = max(now.upto.get(stream, 0), said["after"])
        while upto + 1 in numbers:
            upto += 1
        now.upto[stream] = upto
        now.numbers[stream] = {n for n in numbers if n > upto}
        self.settled[stream] = max(upto, self.settled.get(stream, 0))
        confirmation = {"v": 1, "agent": AGENT, "stream": stream, "upto": upto, "nack": nacks}
        for _ in range(1 if self.fair else self.chance.choice((0, 1, 1, 1, 2))):
            if self.fair or self.chance.random() < 0.8:
                self._say(confirmation)
            else:
                delay_s = self.chance.random() * 0.1
                asyncio.get_running_loop().call_later(delay_s, self._say, confirmation)
