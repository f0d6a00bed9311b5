"""The buffer: one append-only log in SQLite, the registry beside it, and every route's progress."""

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
