"""What of one lane has been read and is not settled yet. Pure: no I/O, no clock, no task.

Progress is one number, ``upto``: every n up to it is settled. With ``confirm: broker`` a message is settled by its
acknowledgement and ``upto`` ends before the oldest message that is not; with ``confirm: receiver`` the receiver names
``upto`` itself, and messages that lie below it are settled by that. Both say only what is contiguous, so a restart at
``progress()`` re-sends what was in flight, with the numbers it had.

The window is bounded by the route (``WINDOW_BYTES``), never by this class.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edge_agent.routes.message import Batch, Message


class Window:
    """The messages between what is settled and what was read, oldest first.

    ``seq`` and ``n`` are where the lane stood; ``sent_n`` is the highest n that was ever handed over, which outlives
    a reconnect and so may be above ``last_n``.
    """

    def __init__(self, seq: int, n: int, sent_n: int) -> None:
        self.read_seq = seq
        self.last_n = n
        self.upto = n
        self.sent_n = max(sent_n, n)
        self.bytes = 0
        self._mark = (seq, n)  # the last whole record or tombstone at or below upto
        self._messages: dict[int, Message] = {}  # by first n, ascending
        self._batches: deque[Batch] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    @property
    def head(self) -> Message | None:
        """The oldest message that is not settled."""
        return next(iter(self._messages.values()), None)

    def add(self, batch: Batch) -> None:
        """Take what was read next. Its messages are outstanding until they are settled."""
        self.read_seq = batch.read_seq
        self.last_n = batch.last_n
        if batch.numbers:
            self._batches.append(batch)
        for message in batch.messages:
            self._messages[message.n] = message
            self.bytes += len(message.records)
        self._advance_by_messages()

    def holds(self, message: Message) -> bool:
        """False once it is settled or replaced."""
        return self._messages.get(message.n) is message

    def sending(self, message: Message) -> None:
        """The sink gets it now; from here on a confirmation may name its numbers."""
        self.sent_n = max(self.sent_n, message.last_n)

    def settle(self, message: Message) -> None:
        """This message needs nothing more (``confirm: broker``)."""
        if self.holds(message):
            del self._messages[message.n]
            self.bytes -= len(message.records)
            self._advance_by_messages()

    def confirm(self, upto: int) -> None:
        """The receiver settled everything up to ``upto``; what is above ``sent_n`` is not believed."""
        upto = min(upto, self.sent_n, self.last_n)
        if upto <= self.upto:
            return
        for message in [message for message in self._messages.values() if message.last_n <= upto]:
            del self._messages[message.n]
            self.bytes -= len(message.records)
        self._move(upto)

    def replace(self, message: Message, tombstones: Message) -> None:
        """Put the tombstones of a refused message into its place. Both begin with the same n."""
        if self.holds(message):
            self._messages[message.n] = tombstones
            self.bytes += len(tombstones.records) - len(message.records)

    def seq_of(self, n: int) -> int | None:
        """The seq of the record with this n, if it is above ``upto`` and was read."""
        for batch in self._batches:
            if n <= batch.last_n:
                return batch.seq_of(n)
        return None

    def progress(self) -> tuple[int, int]:
        """(seq, n): everything of the lane up to seq is settled, and n was the last number used for it."""
        if self.upto == self.last_n:
            return self.read_seq, self.upto  # what followed does not pass the filter, and is settled too
        return self._mark

    def _advance_by_messages(self) -> None:
        head = self.head
        self._move(self.last_n if head is None else head.n - 1)

    def _move(self, upto: int) -> None:
        if upto <= self.upto:
            return
        self.upto = upto
        for batch in self._batches:
            self._mark = batch.mark(upto) or self._mark
            if batch.last_n >= upto:
                break
        while self._batches and self._batches[0].last_n <= upto:
            self._batches.popleft()
