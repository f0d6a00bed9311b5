"""Which requests read a group, compiled once: as few as the protocol and the device's quirks allow. Pure.

A *block* is one request and the decoder of its reply. Tags of one table are taken in the order of their addresses;
a block grows while it keeps within the table's limit (``Quirks.limits``) and crosses no more unused registers in a row
than ``max_gap``. No tag is ever cut in two.

A block that the device answers with an exception can be ``split``: at its widest gap, as reading across a hole is the
commonest reason, else in the middle. Splitting on finds the tags that are to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edge_agent.model import Value
from edge_agent_drivers.modbus.codec import Field, Layer, compile_layers, decode
from edge_agent_drivers.modbus.config import Quirks, Table
from edge_agent_drivers.modbus.values import Status


@dataclass(frozen=True, slots=True)
class Block:
    """One request: ``count`` registers (or bits) of ``table`` from ``start`` on, and what they mean."""

    table: Table
    start: int
    count: int
    fields: tuple[Field, ...]  # by address
    layers: tuple[Layer, ...] = field(init=False)
    indexes: tuple[int, ...] = field(init=False)  # of the sample, in the order of decode()
    size: int = field(init=False)  # bytes of a complete reply

    def __post_init__(self) -> None:
        layers = compile_layers(self.fields, self.start, self.count)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "indexes", tuple(index for layer in layers for index in layer.indexes))
        bits = self.table in ("coil", "discrete")
        object.__setattr__(self, "size", (self.count + 7) // 8 if bits else 2 * self.count)

    def decode(self, payload: bytes, status: Status) -> Sequence[Value]:
        """The values, in the order of ``indexes``; adds to ``status``. ``payload`` has ``size`` bytes."""
        return decode(self.layers, payload, status)


def plan(fields: Sequence[Field], quirks: Quirks) -> tuple[Block, ...]:
    """The blocks that read these tags, table by table."""
    blocks: list[Block] = []
    for table in dict.fromkeys(each.table for each in fields):
        most, gap = quirks.limits(table)
        run: list[Field] = []
        end = 0
        for each in sorted((each for each in fields if each.table == table), key=lambda each: (each.start, each.end)):
            if run and (max(end, each.end) - run[0].start > most or each.start - end > gap):
                blocks.append(_block(run))
                run, end = [], 0
            run.append(each)
            end = max(end, each.end)
        blocks.append(_block(run))
    return tuple(blocks)


def split(block: Block) -> tuple[Block, Block]:
    """Two blocks with the same tags, for a block with two tags or more."""
    ends, reach = [], 0
    for each in block.fields:
        ends.append(reach := max(reach, each.end))
    gaps = [after.start - end for end, (_, after) in zip(ends, pairwise(block.fields), strict=False)]
    cut = gaps.index(max(gaps)) + 1 if max(gaps) > 0 else len(block.fields) // 2
    return _block(block.fields[:cut]), _block(block.fields[cut:])


def _block(run: Sequence[Field]) -> Block:
    start = run[0].start
    return Block(run[0].table, start, max(each.end for each in run) - start, tuple(run))
