"""What a receiver says, checked as strictly as anything that comes from a network.

After its own commit: ``{"v": 1, "agent": …, "stream": …, "upto": 118, "nack": [{"n": 97, "reason": "…"}]}``. After it
(re)connected: ``{"v": 1, "agent": …, "resume": true}``, since what was handed over while it was away may be gone. And
when it misses a range: ``{"v": 1, "agent": …, "replay": {"id": …, "route": …, "log": …, "first_seq": …, "last_seq":
…}}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import orjson

MAX_BYTES = 2**20
MAX_NACKS = 10_000
_REASON_CHARS = 500
_NAME_CHARS = 64  # of a request's id, a route, a log: what goes back in each message's head


class BadConfirmation(ValueError):
    """This is no confirmation; the text says why."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Everything of ``stream`` up to ``upto`` is settled; ``nack`` maps each refused n to its reason."""

    agent: str
    stream: str
    upto: int
    nack: dict[int, str]


@dataclass(frozen=True, slots=True)
class Resume:
    """The receiver is (back) there: send again what it has not confirmed, without waiting for the time-out."""

    agent: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The receiver wants a range of ``log`` once more; ``id`` comes back in its messages."""

    agent: str
    id: str
    route: str
    log: str
    first_seq: int
    last_seq: int


def parse(payload: bytes) -> Confirmation | Resume | Ask:
    """Read one. Raises BadConfirmation."""
    if len(payload) > MAX_BYTES:
        raise BadConfirmation(f"{len(payload)} bytes")
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadConfirmation(f"no JSON: {error}") from error
    if not isinstance(body, dict) or type(body.get("v")) is not int or body["v"] != 1:
        raise BadConfirmation("not an object with v = 1")
    agent, stream, upto, nacks = (body.get(key) for key in ("agent", "stream", "upto", "nack"))
    if isinstance(agent, str) and body.get("resume") is True:
        return Resume(agent)
    if isinstance(agent, str) and "replay" in body:
        return _ask(agent, body["replay"])
    if not isinstance(agent, str) or not isinstance(stream, str) or not _is_count(upto):
        raise BadConfirmation("agent and stream must be text, upto a whole number")
    if nacks is None:
        nacks = []
    if not isinstance(nacks, list) or len(nacks) > MAX_NACKS:
        raise BadConfirmation(f"nack must be a list of at most {MAX_NACKS}")
    return Confirmation(agent, stream, upto, dict(_nack(item) for item in nacks))


def _ask(agent: str, wanted: Any) -> Ask:
    if not isinstance(wanted, dict):
        raise BadConfirmation("replay must be an object")
    id, route, log = (wanted.get(key) for key in ("id", "route", "log"))
    first, last = wanted.get("first_seq"), wanted.get("last_seq")
    if not (_is_name(id) and _is_name(route) and _is_name(log)):
        raise BadConfirmation(f"id, route and log must be text of at most {_NAME_CHARS} characters")
    if not (_is_count(first) and _is_count(last) and 0 < first <= last):
        raise BadConfirmation("first_seq and last_seq must be whole numbers in order")
    return Ask(agent, id, route, log, first, last)


def _nack(item: Any) -> tuple[int, str]:
    if not isinstance(item, dict) or not _is_count(item.get("n")) or not isinstance(item.get("reason"), str):
        raise BadConfirmation("a nack is {n: whole number, reason: text}")
    return item["n"], item["reason"][:_REASON_CHARS]


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _NAME_CHARS and value.isprintable()


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63
