"""Rows of the buffer → messages. The hot path of draining: some operations of Python a row, no re-encoding.

A record's body was encoded once, when it was stored; a message splices its envelope before it::

    body     {"tagset":"9f2c...","took_us":812,"values":[1.5,2.5]}
    record   {"n":118,"seq":90211,"at_ns":"...","mono_ns":"...","tagset":"9f2c...","took_us":812,"values":[1.5,2.5]}

A message holds rows of one source and one kind, up to a limit in bytes. ``n`` numbers the records of the lane densely;
it belongs to the record, so the same record re-sent has the same ``n`` whatever message it is in. The head of the
message is written when it is sent, since ``after`` (all up to it is settled and will not come again) moves meanwhile:
by it a receiver that never saw the stream, or came back from an old backup, knows where to begin.

Limits: a batch is one read of the buffer (``BATCH_ROWS``, ``BATCH_BYTES``); a message holds rows of one batch only.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import orjson

from edge_agent.model import Kind

if TYPE_CHECKING:
    from edge_agent.buffer import Row
    from edge_agent.config.settings import AgentSettings

BATCH_ROWS = 8192
BATCH_BYTES = 2**20

TOMBSTONE = "tombstone"
HEAD_BYTES = 1280  # room that is kept for a message's head; names are limited by the config
_ENVELOPE_BYTES = 75  # keys of n, seq, at_ns and mono_ns, and both instants at their longest

_LABELS = {int(kind): kind.label for kind in Kind}
_SYNCED = b'{"n":%d,"seq":%d,"at_ns":"%d","mono_ns":"%d",%b'
_NOT_SYNCED = b'{"n":%d,"seq":%d,"at_ns":"%d","mono_ns":"%d","synced":false,%b'
_NOT_SYNCED_BYTES = len(b'"synced":false,')


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Who sends, and where it stands; the upper levels of every topic."""

    agent: str
    enterprise: str
    site: str
    area: str
    line: str
    version: str = ""

    def levels(self, plain: bool) -> dict[str, str]:
        """What a topic's template calls these, as levels of a topic."""
        parts = ("enterprise", "site", "area", "line", "agent")
        return {part: level(getattr(self, part), plain) for part in parts}

    @classmethod
    def of(cls, settings: AgentSettings) -> AgentIdentity:
        """The identity that the config's ``agent:`` section describes."""
        from edge_agent import __version__

        at = settings.location
        return cls(settings.id, at.enterprise, at.site, at.area, at.line, __version__)


def level(text: str, plain: bool) -> str:
    """``text`` as one level of a topic. MQTT forbids little; ``plain`` also avoids what brokers use themselves: NATS
    takes no dot and no blank, RabbitMQ makes a level of each dot."""
    return re.sub(r"[^\w-]" if plain else r"[/+#\x00]", "_", text)[:200]


@dataclass(frozen=True, slots=True)
class Stream:
    """What the messages of one lane have in common."""

    agent: str
    name: str  # "<log>.<route>.<lane>"
    log: str
    boot: str
    confirm: str
    replayed: bool = False  # history: of a lane that no longer grows, or repeats something
    replay: str | None = None  # the id of the request that it answers


@dataclass(slots=True, eq=False)
class Message:
    """Records of one source and kind, ready but for the head. ``records`` is the inside of the JSON array."""

    source: str
    kind: str
    n: int  # of the first record
    last_n: int
    count: int  # records
    records: bytes
    sent_s: float | None = field(default=None)  # monotonic, of the last time it was handed over
    waiting: bool = field(default=True)  # in the queue to be sent, or being sent

    def payload(self, stream: Stream, after: int) -> bytes:
        """The whole message as JSON."""
        said: dict[str, object] = {
            "v": 1,
            "agent": stream.agent,
            "stream": stream.name,
            "log": stream.log,
            "boot": stream.boot,
            "source": self.source,
            "kind": self.kind,
            "n": self.n,
            "after": after,
            "confirm": stream.confirm,
        }
        if stream.replayed:
            said["replayed"] = True
        if stream.replay is not None:
            said["replay"] = stream.replay
        return b"".join((orjson.dumps(said)[:-1], b',"records":[', self.records, b"]}"))

    def numbers(self) -> list[int]:
        """The n of each record. Parses the message: for refusals and the like, not for the hot path."""
        return [record["n"] for record in orjson.loads(b"[" + self.records + b"]")]


class Unsendable(NamedTuple):
    """A record that cannot go out. A tombstone has its place already; it is to be made a dead letter."""

    n: int
    seq: int
    reason: str


@dataclass(slots=True)
class Batch:
    """What one read of the buffer became. Every n from the first to ``last_n`` is in one of the messages.

    ``numbers[i]`` and ``seqs[i]`` belong together, both ascending; of a tombstone they are the last it covers.
    """

    numbers: Sequence[int]
    seqs: Sequence[int]
    messages: list[Message]  # by first n
    unsendable: list[Unsendable]
    read_seq: int  # the lane was read up to here
    last_n: int

    def seq_of(self, n: int) -> int | None:
        """The seq of the record that carries n, or of the tombstone that covers it; None when it is beyond."""
        index = bisect_left(self.numbers, n)
        return self.seqs[index] if index < len(self.seqs) else None

    def mark(self, n: int) -> tuple[int, int] | None:
        """(seq, n) of the last record, or wholly covered tombstone, at or below n; None when there is none."""
        index = bisect_right(self.numbers, n) - 1
        return (self.seqs[index], self.numbers[index]) if index >= 0 else None


class _Open:
    """A message that still takes records."""

    __slots__ = ("n", "parts", "size")

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: list[bytes] = []
        self.size = 0


def build(
    rows: Sequence[Row],
    last_n: int,
    read_seq: int,
    limit_bytes: int,
    limit_records: int,
    dead: Mapping[int, str] = MappingProxyType({}),
    refused: Mapping[int, str] = MappingProxyType({}),
) -> Batch:
    """Number ``rows`` after ``last_n`` and pack them. ``limit_bytes`` is of the whole message, head included.

    ``dead`` (n → reason) are dead letters already: a tombstone goes out in their place. ``refused`` (seq → reason)
    are to become dead letters.
    """
    room = limit_bytes - HEAD_BYTES
    messages: list[Message] = []
    unsendable: list[Unsendable] = []
    numbers: list[int] = []
    note = numbers.append
    taking: dict[tuple[str, int], _Open] = {}
    key: tuple[str, int] = ("", -1)
    into = _Open(0)
    parts, size, n = into.parts, 0, last_n
    highest = max(rows[-1].seq, last_n + len(rows)) if rows else 0
    envelope = _ENVELOPE_BYTES + 2 * len(str(highest))
    for seq, kind, source, at_ns, mono_ns, synced, body in rows:
        n += 1
        if kind == 0:
            n = _tombstone(n, seq, body, messages)
            note(n)
            continue
        note(n)
        if dead and n in dead:
            messages.append(tombstone([(n, 1, dead[n])]))
            continue
        if refused and seq in refused:
            unsendable.append(Unsendable(n, seq, refused[seq]))
            messages.append(tombstone([(n, 1, refused[seq])]))
            continue
        if kind != key[1] or source != key[0]:
            into.size = size
            key = (source, kind)
            into = taking.get(key) or taking.setdefault(key, _Open(n))
            parts, size = into.parts, into.size
        its = len(body) + (envelope if synced else envelope + _NOT_SYNCED_BYTES)
        grown = size + its
        if grown > room or len(parts) >= limit_records:
            if its > room:
                unsendable.append(Unsendable(n, seq, f"{len(body)} bytes: larger than a message may be"))
                messages.append(tombstone([(n, 1, "larger than a message may be")]))
                continue
            if parts:
                messages.append(_closed(key, into))
            into = taking[key] = _Open(n)
            parts, grown = into.parts, its
        elif not parts:
            into.n = n
        size = grown
        parts.append((_SYNCED if synced else _NOT_SYNCED) % (n, seq, at_ns, mono_ns, body[1:]))
    messages += [_closed(key, into) for key, into in taking.items() if into.parts]
    messages.sort(key=lambda message: message.n)
    return Batch(numbers, [row[0] for row in rows], messages, unsendable, read_seq, n)


def _closed(key: tuple[str, int], into: _Open) -> Message:
    label = _LABELS.get(key[1], f"kind{key[1]}")
    last = into.parts[-1]
    last_n = int(last[5 : last.index(b",")])  # the record begins with {"n":
    return Message(key[0], label, into.n, last_n, len(into.parts), b",".join(into.parts))


def _tombstone(n: int, seq: int, body: bytes, messages: list[Message]) -> int:
    """A message for numbers that will not come, as the buffer recorded it; returns the last of them."""
    hole = orjson.loads(body)
    last_n: int = n + hole["count"] - 1
    messages.append(tombstone([(n, hole["count"], hole["reason"])]))
    return last_n


def tombstone(ranges: Sequence[tuple[int, int, str]]) -> Message:
    """The message that says these numbers will not come: (first n, how many, why), ascending."""
    records = [{"n": n, "count": count, "reason": reason} for n, count, reason in ranges]
    last_n = ranges[-1][0] + ranges[-1][1] - 1
    body = b",".join(orjson.dumps(record) for record in records)
    return Message("agent", TOMBSTONE, ranges[0][0], last_n, len(records), body)
