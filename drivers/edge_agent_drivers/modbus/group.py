"""Reading one group: all its blocks, and what is done about a block that the device answers with an exception.

A Modbus device refuses a whole request when one address in it is wrong. Such a block is split, its halves are read
instead, and so on down to the tags to blame: those are None with status "exception 2", their neighbours are read as
ever. The splits are remembered, as a tree, so later reads pay nothing; whatever was refused is tried again after a
second, then two, four ... up to RETRY_MAX_S, and once a whole block answers again its splits are forgotten.
At most REFUSALS_MAX requests of one read may be refused; the rest waits for the next read.

A device that is busy says nothing of the addresses: the tags of that block are None with status "exception 6 (server
device busy)", and the next read asks for it as ever. A read that gives no value for that is rejected.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from edge_agent import clock
from edge_agent.driver import Group
from edge_agent.model import Sample, Value
from edge_agent_drivers.modbus.codec import Field, picker
from edge_agent_drivers.modbus.config import ModbusSettings
from edge_agent_drivers.modbus.frames import Request, read_request
from edge_agent_drivers.modbus.link import BUSY, GATEWAY, Link, exception_text
from edge_agent_drivers.modbus.plan import Block, plan, split
from edge_agent_drivers.modbus.values import Status

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
REFUSALS_MAX = 32
PROBES_MAX = 16


@dataclass(slots=True)
class _Node:
    """A block, and what came of it."""

    block: Block
    request: Request
    because: int = 0  # the exception that its parent was split for
    code: int = 0  # the exception it was last answered with; 0: good, or not tried
    tried: bool = False
    wait_s: float = 0.0
    retry_at_s: float = 0.0  # monotonic
    halves: list[_Node] = field(default_factory=list)

    def wanted(self, now_s: float, exhausted: bool) -> bool:
        """Whether to ask for it now: always while it is good; what may well be refused, only within the bound."""
        if self.tried and not self.code:
            return True
        return not exhausted and now_s >= self.retry_at_s

    def refuse(self, code: int, now_s: float) -> None:
        self.code, self.tried = code, True
        self.wait_s = min(2 * self.wait_s, RETRY_MAX_S) or RETRY_FIRST_S
        self.retry_at_s = now_s + self.wait_s

    def accept(self) -> None:
        self.code, self.tried, self.wait_s, self.halves = 0, True, 0.0, []


class GroupReader:
    """The compiled plan of one group, and its memory of what the device refuses."""

    def __init__(self, group: Group, fields: Sequence[Field], settings: ModbusSettings) -> None:
        self.tagset = group.tagset
        self._unit_id = settings.unit_id
        self._nodes = [self._node(block) for block in plan(fields, settings.quirks)]
        indexes = [index for node in self._nodes for index in node.block.indexes]
        ordered = indexes == list(range(len(indexes)))
        self._order = None if ordered else picker([indexes.index(place) for place in range(len(indexes))])
        self._whole = True  # every block answered last time

    async def read(self, link: Link) -> Sample:
        """A fresh sample. Raises what :meth:`Link.fetch` raises."""
        started_mono_ns = time.monotonic_ns()
        status: Status = {}
        heard: list[bytes | int] = []
        values = await self._read_whole(link, status, heard) if self._whole else None
        if values is None:
            status.clear()
            values = await self._read_around(link, status, heard)
        return Sample(self.tagset, clock.now(), started_mono_ns, tuple(values), status or None)

    async def refusals(self, link: Link) -> dict[int, int]:
        """Exception code → an address it came for, when nothing of this group is answered otherwise; {} when
        something is. Asks at most PROBES_MAX times. Raises what :meth:`Link.fetch` raises."""
        codes: dict[int, int] = {}
        waiting = [node.block for node in reversed(self._nodes)]
        for _ in range(PROBES_MAX):
            if not waiting:
                break
            block = waiting.pop()
            answer = await link.fetch(self._node(block).request, block.size)
            if isinstance(answer, bytes) or answer in BUSY:
                return {}
            codes.setdefault(answer, block.start)
            if len(block.fields) > 1 and answer not in GATEWAY:
                waiting[:0] = split(block)
        return codes

    async def _read_whole(self, link: Link, status: Status, heard: list[bytes | int]) -> Sequence[Value] | None:
        """All values in one go; None when a block is refused, which then needs the slower way. ``heard`` gets what was
        answered up to there."""
        parts: list[Sequence[Value]] = []
        for node in self._nodes:
            answer = await self._fetch(link, node)
            heard.append(answer)
            if isinstance(answer, int):
                return None
            parts.append(node.block.decode(answer, status))
        values = parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))
        return values if self._order is None else self._order(values)

    async def _read_around(self, link: Link, status: Status, heard: Sequence[bytes | int]) -> Sequence[Value]:
        """Block by block, going into the halves of what is refused. The first blocks were ``heard`` already: good ones,
        and one that is not."""
        values: list[Value] = [None] * len(self.tagset.tags)
        answers = iter(heard)
        refused, busy, any_good = 0, 0, False
        waiting = list(reversed(self._nodes))
        while waiting:
            node = waiting.pop()
            because = ""
            answer = next(answers, None)
            if answer is None and node.wanted(time.monotonic(), refused >= REFUSALS_MAX):
                answer = await self._fetch(link, node)
            if isinstance(answer, bytes):
                any_good = True
                node.accept()
                for index, value in zip(node.block.indexes, node.block.decode(answer, status), strict=True):
                    values[index] = value
                continue
            if answer in BUSY:
                busy, because = answer, exception_text(answer)
            elif answer is not None:
                refused += 1
                node.refuse(answer, time.monotonic())
                if not node.halves and len(node.block.fields) > 1:
                    node.halves = [self._node(half, answer) for half in split(node.block)]
            if node.halves:
                waiting += reversed(node.halves)
            else:
                because = because or f"exception {node.code or node.because}"
                status.update(dict.fromkeys(node.block.indexes, because))
        self._whole = not any(node.code for node in self._nodes)
        if busy and not any_good:
            raise link.busy(busy)
        return values

    async def _fetch(self, link: Link, node: _Node) -> bytes | int:
        answer = await link.fetch(node.request, node.block.size)
        return answer if isinstance(answer, bytes) else link.judge(answer)

    def _node(self, block: Block, because: int = 0) -> _Node:
        return _Node(block, read_request(block.table, block.start, block.count, self._unit_id), because)
