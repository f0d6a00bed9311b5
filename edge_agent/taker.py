"""Who takes what a device says: the line of a running agent, or nobody, when a technician only looks.

The collector is the same in both cases: `watch` and `write` with no agent running connect, read and reconnect by the
rules that hold on the line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge_agent.line import Request
from edge_agent.model import Instant, Sample, Scan


class Disk(Protocol):
    """What a collector needs to know of the buffer."""

    @property
    def durable_seq(self) -> int: ...
    async def committed(self, seq: int) -> None: ...
    async def room(self) -> None: ...


class Taker(Protocol):
    """What a collector needs of the :class:`~edge_agent.line.Line`; see there."""

    @property
    def buffer(self) -> Disk: ...
    def attach(self, device: str, request: Callable[[Request], None]) -> None: ...
    def sample(self, sample: Sample) -> int: ...
    def scan(self, scan: Scan) -> int: ...
    def gap(self, device: str, since: Instant, now: Instant, cause: str) -> int: ...
    def opened(self, device: str, now: Instant) -> int: ...


class Nobody:
    """Keeps nothing and asks for nothing but reads: ``read(group)``."""

    def __init__(self) -> None:
        self.buffer = _NoDisk()
        self.request: Callable[[Request], None] = lambda _request: None

    def attach(self, device: str, request: Callable[[Request], None]) -> None:
        self.request = request

    def sample(self, sample: Sample) -> int:
        return 0

    def scan(self, scan: Scan) -> int:
        return 0

    def gap(self, device: str, since: Instant, now: Instant, cause: str) -> int:
        return 0

    def opened(self, device: str, now: Instant) -> int:
        return 0


class _NoDisk:
    """Always has room."""

    durable_seq = 0

    async def committed(self, seq: int) -> None:
        return

    async def room(self) -> None:
        return
