"""The Sink contract: six methods. A sink hands messages over and brings confirmations back; it retries nothing.

================  ==================================================================================================
``open()``        connect; returns the peer's :class:`Limits`. Raises BrokerUnavailable (back-off) or SinkRefused
                  (wrong credentials, certificate or address: long back-off, and the hint is shown).
``send(m)``       returns when the peer has the message: *handed over*, not delivered. Raises MessageRejected when
                  this message would be refused for ever (RecordsRejected: only these records of it, the rest was
                  taken), BrokerUnavailable when the connection is gone. Called by
                  at most ``Limits.in_flight`` tasks at once; messages leave in the order of the calls.
``confirmed()``   waits for the next confirmation and returns its bytes, as hostile as they come. Asking for the next
                  one acknowledges the one before, so none is lost between peer and progress. Raises BrokerUnavailable.
``ended()``       waits until the connection is gone, then raises BrokerUnavailable: an idle route notices by this.
``close()``       idempotent, safe after a failed open, bounded in time.
``status()``      what ``edge-agent status`` shows of it beside the route's own; ``warnings`` are Notices as dicts.
================  ==================================================================================================

The route calls ``open`` anew after every failure; a sink starts from nothing each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from edge_agent.errors import BrokerUnavailable, MessageRejected


@dataclass(frozen=True, slots=True)
class Limits:
    """What the peer takes: bytes a message, and messages handed over at once but not acknowledged."""

    message_bytes: int
    in_flight: int


@dataclass(slots=True)
class Outgoing:
    """One message as the sink sees it; ``payload`` is what goes over the wire.

    ``retried``: somebody mended the cause of a refusal, so the peer is to be asked, whatever it said before.
    ``put_off`` is the sink's to set: the peer has asked to be given it later, so if the connection ends now, it is not
    because of this one.
    """

    source: str
    kind: str
    payload: bytes
    retried: bool = False
    put_off: bool = False


class Notice(NamedTuple):
    """Something that works still and needs a person; ``hint`` says what to do."""

    what: str
    hint: str


class SinkAway(BrokerUnavailable):
    """The peer says what is wrong with it (a full disk, a lock, a missing folder): no message is to blame for that."""


class SinkRefused(SinkAway):
    """The peer answers but will not serve us: credentials, certificate, client id. Somebody must change something."""


class RecordsRejected(MessageRejected):
    """The sink took the message but for these records: each n with its reason. They alone are dead letters."""

    def __init__(self, refused: Mapping[int, str], *, hint: str = "") -> None:
        super().__init__(next(iter(refused.values())), hint=hint)
        self.refused = refused


class Sink(Protocol):
    """See the module docstring for what each method promises."""

    confirm_topic: str  # goes into every message as ``confirm``; "" when the sink has no way back
    commits: bool  # when ``send`` returns, the receiver itself has committed the message: delivered

    async def open(self) -> Limits: ...

    async def send(self, message: Outgoing) -> None: ...

    async def confirmed(self) -> bytes: ...

    async def ended(self) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> dict[str, Any]: ...
