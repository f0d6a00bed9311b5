"""What a broker's answers mean for a route: every reason code of MQTT 5 (section 2.4) is judged here, and only here.

==================  ==============================================================================================
this topic          PUBACK 0x87, 0x90: refused whatever the message. A dead letter; not asked again for a minute.
this message        PUBACK 0x99, 0x95: would be refused again. A dead letter, the rest goes on.
not now             PUBACK 0x97 (quota): waited for on the same connection. Never a dead letter.
nobody there        PUBACK 0x10: handed over all the same, but counted and shown.
anything else       transport trouble: the connection is given up, back-off. Of a single message that is answered so
                    each time, halving finds the record (see suspicion).
a CONNACK,          a hint where a person must change something (then the long back-off), else back-off.
a DISCONNECT
==================  ==============================================================================================

The texts of 3.1.1's five refusals come under the codes of version 5, as paho translates them.
"""

from __future__ import annotations

from edge_agent.errors import BrokerUnavailable, MessageRejected
from edge_agent.routes.sink import SinkRefused

NO_SUBSCRIBERS = 0x10
RETAIN_NOT_SUPPORTED = 0x9A
QOS_NOT_SUPPORTED = 0x9B
TAKEN_OVER = 0x8E

_TOPIC = {0x87: "not authorized to publish on this topic", 0x90: "the broker takes no such topic"}
_MESSAGE = {0x95: "larger than the broker takes", 0x99: "the broker finds the payload invalid"}
_QUOTA = 0x97
_CREDENTIALS = {0x86, 0x87, 0x8A, 0x8C}
_CREDENTIALS_HINT = "check `username`{} and `password` of the route, and the broker's list of users"
_HINTS = {  # what a person must change; anything else passes by itself
    0x84: "the broker does not speak this version: set `version: 3.1.1` in the route",
    0x85: "the broker refuses this client id: set `client_id` in the route",
    TAKEN_OVER: "another client uses the same client id: give each agent its own `agent.id`, or set `client_id`",
    RETAIN_NOT_SUPPORTED: "let the broker keep retained messages: the agent's state and last will are retained",
    QOS_NOT_SUPPORTED: "let the broker take QoS 1 (its maximum QoS is 0): without it nothing is ever acknowledged",
    0x9D: "the broker has moved for good: set `url` to its new address",
}
_MOVED = {0x9C, 0x9D}


class TopicRefused(MessageRejected):
    """The broker denies this topic, whatever the message."""


class NothingRetained(SinkRefused):
    """The broker takes no retained message, so neither our last will."""


class QuotaExceeded(BrokerUnavailable):
    """The broker takes no more for now; the connection stays."""


def publish_refused(topic: str, code: int, name: str) -> BrokerUnavailable | MessageRejected:
    """What a PUBACK's failure means."""
    if code in _TOPIC:
        return TopicRefused(f"{topic}: {_TOPIC[code]} (0x{code:02X})", hint=f"allow {topic} on the broker")
    if code in _MESSAGE:
        return MessageRejected(f"{topic}: {_MESSAGE[code]} (0x{code:02X})")
    if code == _QUOTA:
        hint = "see why the broker's queue is full: does every subscriber fetch its messages?"
        return QuotaExceeded("the broker takes no more for now: quota exceeded", hint=hint)
    return BrokerUnavailable(f"{topic}: refused for now: {name} (0x{code:02X})")


def connect_refused(code: int, name: str, username: str | None, moved_to: str | None = None) -> BrokerUnavailable:
    """What a CONNACK's failure means."""
    if code == RETAIN_NOT_SUPPORTED:
        return NothingRetained("the broker keeps no retained messages", hint=_HINTS[code])
    hint = _HINTS.get(code, "")
    if code in _CREDENTIALS:
        hint = _CREDENTIALS_HINT.format(f" {username!r}" if username else "")
    refused = f"the broker refuses the connection: {name}"
    if code in _MOVED and moved_to:
        hint = f"set `url` to {moved_to}: the broker names it"
    return SinkRefused(refused, hint=hint) if hint else BrokerUnavailable(refused)


def disconnected(code: int, name: str, moved_to: str | None = None) -> BrokerUnavailable:
    """What a DISCONNECT that the broker sent means."""
    ended = f"the broker closed the connection: {name}"
    if code in _MOVED and moved_to:
        return SinkRefused(ended, hint=f"set `url` to {moved_to}: the broker names it")
    hint = _HINTS.get(code, "")
    return SinkRefused(ended, hint=hint) if hint else BrokerUnavailable(ended)


def subscription_refused(name: str) -> SinkRefused:
    """What a SUBACK's failure means."""
    return SinkRefused(f"the broker denies the subscription: {name}", hint="allow it in the broker's ACL")
