"""The Sink contract: five methods. A sink hands messages over and brings confirmations back; it retries nothing.

================  ==================================================================================================
``open()``        connect; returns the peer's :class:`Limits`. Raises BrokerUnavailable (back-off) or SinkRefused
                  (wrong credentials, certificate or address: long back-off, and the hint is shown).
``send(m)``       returns when the peer has the message: *handed over*, not delivered. Raises MessageRejected when
                  this message would be refused for ever, BrokerUnavailable when the connection is gone. Called by
                  at most ``Limits.in_flight`` tasks at once; messages leave in the order of the calls.
``confirmed()``   waits for the next confirmation and returns its bytes, as hostile as they come. Asking for the next
                  one acknowledges the one before, so none is lost between peer and progress. Raises BrokerUnavailable.
``ended()``       waits until the connection is gone, then raises BrokerUnavailable: an idle route notices by this.
``close()``       idempotent, safe after a failed open, bounded in time.
================  ==================================================================================================

The route calls ``open`` anew after every failure; a sink starts from nothing each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge_agent.errors import BrokerUnavailable


@dataclass(frozen=True, slots=True)
class Limits:
    """What the peer takes: bytes a message, and messages handed over at once but not acknowledged."""

    message_bytes: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message as the sink sees it; ``payload`` is what goes over the wire."""

    source: str
    kind: str
    payload: bytes


class SinkRefused(BrokerUnavailable):
    """The peer answers but will not serve us: credentials, certificate, client id. Somebody must change something."""


class Sink(Protocol):
    """See the module docstring for what each method promises."""

    confirm_topic: str  # goes into every message as ``confirm``; "" when the sink has no way back

    async def open(self) -> Limits: ...

    async def send(self, message: Outgoing) -> None: ...

    async def confirmed(self) -> bytes: ...

    async def ended(self) -> None: ...

    async def close(self) -> None: ...
