"""One message off the wire → its records, or a reason why not. Nothing of it is believed before it is checked.

What is checked is what the receiver itself relies on: the envelope. Bodies are objects, stored as they came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import orjson

from edge_agent.receiver.tracker import Range

MAX_RECORDS = 1_000_000
TOMBSTONE = "tombstone"
_NAME_CHARS = 200
_KIND = re.compile(r"[a-z][a-z0-9_]{0,40}")
_LOG = re.compile(r"[0-9a-f]{12}")


class BadMessage(ValueError):
    """This is no message of an agent; the text says why."""


@dataclass(frozen=True, slots=True)
class Received:
    """One record. The key that never repeats is (agent, log, seq)."""

    agent: str
    log: str
    seq: int
    kind: str
    source: str
    at_ns: int
    mono_ns: int
    synced: bool
    body: dict[str, Any]
    stream: str
    n: int


@dataclass(frozen=True, slots=True)
class Message:
    """A checked envelope. ``ranges`` are the numbers it settles, ascending, inclusive at both ends.

    ``replay`` is the id of the request that it answers, "" if it answers none.
    """

    agent: str
    stream: str
    log: str
    kind: str
    source: str
    after: int
    confirm: str  # topic, "" if the sender wants no confirmation
    records: list[dict[str, Any]]
    ranges: list[Range]
    replay: str = ""

    @property
    def low_seq(self) -> int:
        """The lowest seq of its records; 0 of tombstones."""
        return self.ranges[0].low_seq


def route_of(stream: str) -> str:
    """The route's name: a stream is "<log>.<route>.<lane>"."""
    return stream.partition(".")[2].rpartition(".")[0]


class Row(NamedTuple):
    """One record as a row of the table ``record``; ``body`` is its canonical JSON."""

    agent: str
    log: str
    seq: int
    kind: str
    source: str
    at_ns: int
    mono_ns: int
    synced: bool
    body: str


def parse(payload: bytes) -> Message:
    """Read one. Raises BadMessage."""
    try:
        head = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"no JSON: {error}") from error
    if not isinstance(head, dict) or not _is_count(head.get("v")) or head["v"] != 1:
        raise BadMessage("not an object with v = 1")
    agent, stream, source = (_name(head, key) for key in ("agent", "stream", "source"))
    kind, log = _matched(head, "kind", _KIND), _matched(head, "log", _LOG)
    after, confirm = head.get("after", 0), head.get("confirm", "")
    if not _is_count(after):
        raise BadMessage("after is no whole number")
    if confirm != "" and not (isinstance(confirm, str) and confirm.endswith(f"/_agent/{agent}/confirm")):
        raise BadMessage("confirm is not the agent's topic")
    if re.search(r"[+#\x00]", confirm):
        raise BadMessage("confirm has a wildcard")
    records = head.get("records")
    if not isinstance(records, list) or not 0 < len(records) <= MAX_RECORDS:
        raise BadMessage("records is no list, or empty")
    ranges = _tombstones(records) if kind == TOMBSTONE else _numbers(records)
    replay = head.get("replay", "")
    if not isinstance(replay, str) or len(replay) > _NAME_CHARS:
        raise BadMessage("replay is no name")
    return Message(agent, stream, log, kind, source, after, confirm, records, ranges, replay)


def rows(message: Message) -> list[Row]:
    """The records as rows of the table ``record``; takes the envelope out of them. Raises BadMessage."""
    agent, log, kind, source = message.agent, message.log, message.kind, message.source
    found: list[Row] = []
    dumps = orjson.dumps
    try:
        for record in message.records:
            take = record.pop
            take("n")
            seq, at, mono, synced = take("seq"), take("at_ns"), take("mono_ns"), take("synced", True)
            at_ns, mono_ns = int(at), int(mono)
            if (
                kind == "clock_offset" and "clock_synced" not in record
            ):  # of an agent that called it as the envelope does
                record["synced"] = synced
            if type(seq) is not int or not 0 < seq < 2**63 or type(at) is not str or type(mono) is not str:
                raise BadMessage("seq is a whole number, at_ns and mono_ns are decimal text")
            if not -(2**63) < at_ns < 2**63 or not 0 <= mono_ns < 2**63:
                raise BadMessage("at_ns or mono_ns is out of range")
            body = dumps(record).decode()
            found.append(Row(agent, log, seq, kind, source, at_ns, mono_ns, synced is not False, body))
    except (KeyError, ValueError, TypeError) as error:
        raise BadMessage(f"a record lacks or spoils {error}") from error
    return found


def _numbers(records: list[Any]) -> list[Range]:
    try:
        numbers = [record["n"] for record in records]
    except (KeyError, TypeError) as error:
        raise BadMessage("a record has no n") from error
    if not all(map(_is_count, numbers)) or numbers[0] < 1 or numbers[-1] >= 2**63:
        raise BadMessage("n is a whole number from 1 on")
    if numbers[-1] - numbers[0] == len(numbers) - 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return [Range(numbers[0], numbers[-1], _seq(records[0]), _seq(records[-1]))]
    return _joined([Range(n, n, _seq(record), _seq(record)) for n, record in zip(numbers, records, strict=True)])


def _seq(record: dict[str, Any]) -> int:
    """The record's seq; 0 if that is nonsense, for which ``rows`` will refuse it by its number."""
    seq = record.get("seq")
    return seq if _is_count(seq) and seq < 2**63 else 0


def _tombstones(records: list[Any]) -> list[Range]:
    ranges = []
    for record in records:
        n, count = (record.get("n"), record.get("count")) if isinstance(record, dict) else (None, None)
        if not _is_count(n) or not _is_count(count) or n < 1 or count < 1 or n + count >= 2**63:
            raise BadMessage("a tombstone is {n, count, reason}")
        ranges.append(Range(n, n + count - 1))
    return _joined(ranges)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Neighbours made one. Raises BadMessage unless they ascend."""
    found = [ranges[0]]
    for each in ranges[1:]:
        last = found[-1]
        if each.first <= last.last:
            raise BadMessage("the numbers do not ascend")
        if each.first == last.last + 1:
            found[-1] = Range(last.first, each.last, last.low_seq, each.high_seq)
        else:
            found.append(each)
    return found


def _name(head: dict[str, Any], key: str) -> str:
    value = head.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_CHARS or not value.isprintable():
        raise BadMessage(f"{key} is no name")
    return value


def _matched(head: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = head.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadMessage(f"{key} is none")
    return value


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0
