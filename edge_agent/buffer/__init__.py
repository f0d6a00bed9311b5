"""The buffer: one append-only log in SQLite, the registry beside it, and every route's progress.

What it promises
    A record is *accepted* when ``committed(seq)`` returns: its transaction is on the disk (WAL, ``synchronous=FULL``).
    Seqs become durable strictly in order. What was accepted is pending, done by every route, dead-lettered, or in a
    drop that is itself a record. Every record is chained to the one before by its hash.

Limits
    The inbox holds 4096 records or 8 MiB (``room()`` waits beyond); a commit takes at most 4096; a slice of retention
    some 8 ms; the file ``max_size``. Nothing is read back whole. One process owns a data_dir.

The surface, all of it for the event loop unless said otherwise
    ``open_buffer(data_dir, agent, settings) -> Buffer``      blocking, under 2 s; owns the directory, begins a new log
    ``buffer.append(records) -> last seq``                    numbers and hands over; never blocks
    ``await committed(seq)``, ``beyond(seq)``, ``room()``     acceptance, news, back-pressure
    ``lookup``, ``restored()``                                what the binder asks
    ``lanes(route, start, filter, max_backlog=)``             a route's ranges with their cursors; any thread
    ``progress(lane, seq, n)``, ``dead_letter(...)``          non-blocking, durable within 200 ms
    ``replay(route, ...)``, ``split(lane)``                   more lanes: a range once more, a backlog apart; worker
                                                              threads; ``offer(lanes)``, ``await offered(route)``
    ``await rename_route(old, new)``, ``pending_of(route)``   a route's other name; what each lane has left
    ``reader() -> Reader``; ``reader.rows(lane, ...)``        on the route's worker thread
    ``stats()``, ``answers()``                                cheap
    ``await maintain()``                                      checkpoints, retention, witness; one task, runs until
                                                              cancelled, raises StorageError once the writer has failed
    ``await close()``                                         commits what waits, last checkpoint, gives the lock back
    ``open_readonly(data_dir) -> Archive``                    trace, stats, dead letters, verify; any process

The rooms
    ``log`` the Buffer; ``writer`` its thread; ``projection`` records → registry; ``lanes``, ``replays`` and ``holes``
    progress; ``retention`` and ``tidy`` what goes; ``ledger`` the chain; ``witness`` the second file; ``opening``,
    ``wal`` and ``recovery`` starts and damage; ``salvage``, ``chunks`` and ``salvaging`` what is taken over afterwards;
    ``queries``, ``stats`` and ``trace`` reading; ``schema``, ``files``, ``settings``.

Why this way
    One table that only grows at its end is the cheapest thing SQLite can write; windows of seq say which samples are
    a cycle's, so no index on samples is needed and a late scan touches none. The registry is in the same transaction,
    so no crash can part a fact from its projection. Numbers are given by the one appender before the commit, so
    records can name each other and the binder needs no answer from the disk.
"""

from __future__ import annotations

from edge_agent.buffer.lanes import Lane, RouteFilter
from edge_agent.buffer.log import Buffer
from edge_agent.buffer.opening import open_buffer
from edge_agent.buffer.queries import TOMBSTONE, Reader, Row
from edge_agent.buffer.settings import BufferSettings
from edge_agent.buffer.trace import Archive, open_readonly

__all__ = [
    "TOMBSTONE",
    "Archive",
    "Buffer",
    "BufferSettings",
    "Lane",
    "Reader",
    "RouteFilter",
    "Row",
    "open_buffer",
    "open_readonly",
]
