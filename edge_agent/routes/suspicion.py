"""Which record breaks the connection, when one does: found by halving, never by guessing.

A broker (or something between) that dies of one message would die of it for ever, and the line behind it would wait.
So the oldest message of a lane that was not acknowledged when a connection ended is remembered. After ``DEATHS`` ends
in a row with the same one, messages go out one at a time and of half the size, then half again; when a single record
has ended the connection ``CERTAIN`` times by itself, it is condemned: the route makes it a dead letter, and the rest
goes on.

Several lanes may share a connection, and each suspects its own: as long as one does, all of them together send one
message at a time, so that the innocent ones pass and are forgiven.

A broker that dies of everything must not cost us everything: after ``ROW`` condemned records with nothing
acknowledged between them, in whatever lanes, nobody is condemned any more.
"""

from __future__ import annotations

from edge_agent.routes.message import Message

DEATHS = 3
CERTAIN = 2
ROW = 3
_NO_CAP = 2**31


class Condemned:
    """What the lanes of a route share: how many were condemned with nothing acknowledged between them."""

    def __init__(self) -> None:
        self.in_a_row = 0


class Suspicion:
    """The memory of one lane over the connections of its route."""

    def __init__(self, shared: Condemned | None = None) -> None:
        self._shared = shared or Condemned()
        self.cap = _NO_CAP  # records a message may hold for now
        self.condemned: int | None = None  # an n that is to become a dead letter
        self._key = ("", "")
        self._first_n = self._last_n = 0
        self._deaths = 0
        self._alone_n = self._alone = 0

    @property
    def active(self) -> bool:
        """While true, the last connection ended over something that has not been taken yet."""
        return self._deaths > 0

    @property
    def careful(self) -> bool:
        """While true, messages go one at a time."""
        return self.cap < _NO_CAP

    def connection_ended(self, oldest: Message | None) -> None:
        """``oldest``: the first message that was being handed over at that moment."""
        if oldest is None:
            return
        if not self._first_n <= oldest.n <= self._last_n:
            self._clear()
            self._key = (oldest.source, oldest.kind)
            self._first_n, self._last_n, self._deaths = oldest.n, oldest.last_n, 1
            return
        self._deaths += 1
        if self._deaths < DEATHS:
            return
        if not self.careful or oldest.count > 1:
            self.cap = max(1, min(self.cap, oldest.count) // 2)
            return
        self._alone = self._alone + 1 if oldest.n == self._alone_n else 1
        self._alone_n = oldest.n
        if self._alone >= CERTAIN and self._shared.in_a_row < ROW:
            self.condemned = oldest.n
            self._shared.in_a_row += 1

    def handed_over(self, message: Message) -> None:
        """The peer took this one."""
        self._shared.in_a_row = 0
        if (message.source, message.kind) == self._key and message.last_n >= self._last_n:
            self._clear()

    def buried(self) -> None:
        """The condemned record is a dead letter now."""
        if self.condemned is not None and self.condemned >= self._last_n:
            self._clear()
        self.condemned = None

    def _clear(self) -> None:
        self.cap = _NO_CAP
        self.condemned = None
        self._key = ("", "")
        self._deaths = self._alone_n = self._alone = self._first_n = self._last_n = 0
