"""Requests for tags: as few as the limits allow, none beyond them, and how a refused one is split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent_drivers.modbus.codec import field_of
from edge_agent_drivers.modbus.config import ModbusTag, Quirks
from edge_agent_drivers.modbus.plan import Block, plan, split


def planned(*addresses: str, quirks: Quirks | None = None, kind: str | None = None) -> list[tuple[str, int, int]]:
    """(table, start, count) of each block."""
    return [(block.table, block.start, block.count) for block in blocks(*addresses, quirks=quirks, kind=kind)]


def blocks(*addresses: str, quirks: Quirks | None = None, kind: str | None = None) -> tuple[Block, ...]:
    tags = [ModbusTag.model_validate({"address": address, "type": kind}) for address in addresses]
    return plan([field_of(index, tag) for index, tag in enumerate(tags)], quirks or Quirks())


def test_a_thousand_float32_tags_take_17_requests_of_at_most_124_registers() -> None:
    found = planned(*[f"holding:{2 * number}" for number in range(1000)], kind="float32")
    assert len(found) == 17  # 62 of them, 124 registers, fit one request: none is cut in two
    assert max(count for _, _, count in found) == 124


def test_each_table_has_its_own_requests() -> None:
    assert planned("coil:10", "input:5", "holding:7", "coil:12", "discrete:1") == [
        ("coil", 10, 3),
        ("input", 5, 1),
        ("holding", 7, 1),
        ("discrete", 1, 1),
    ]


def test_bits_go_up_to_2000_a_request() -> None:
    assert planned("coil:0", "coil:1000", "coil:1999", "coil:2000") == [("coil", 0, 2000), ("coil", 2000, 1)]


def test_unused_registers_are_read_across_up_to_the_gap() -> None:
    assert planned("holding:0", "holding:9") == [("holding", 0, 10)]
    assert planned("holding:0", "holding:9", quirks=Quirks(max_gap=8)) == [("holding", 0, 10)]
    assert planned("holding:0", "holding:9", quirks=Quirks(max_gap=7)) == [("holding", 0, 1), ("holding", 9, 1)]
    assert planned("holding:0", "holding:1", quirks=Quirks(max_gap=0)) == [("holding", 0, 2)]


def test_the_quirk_limits_the_request() -> None:
    found = planned(*[f"holding:{number}" for number in range(100)], quirks=Quirks(max_registers=32))
    assert [count for _, _, count in found] == [32, 32, 32, 4]


def test_a_refused_block_is_split_at_its_widest_gap_else_in_the_middle() -> None:
    (gapped,) = blocks("holding:0", "holding:1", "holding:5", "holding:20")
    assert [(half.start, half.count) for half in split(gapped)] == [(0, 6), (20, 1)]
    (dense,) = blocks(*[f"holding:{number}" for number in range(8)])
    assert [(half.start, half.count) for half in split(dense)] == [(0, 4), (4, 4)]
    (stacked,) = blocks("holding:0.1", "holding:0.2")
    assert [(half.start, half.count) for half in split(stacked)] == [(0, 1), (0, 1)]


@st.composite
def addressed(draw: st.DrawFn) -> list[ModbusTag]:
    tags = []
    for _ in range(draw(st.integers(1, 40))):
        table = draw(st.sampled_from(["coil", "discrete", "input", "holding"]))
        kind = draw(st.sampled_from(["int16", "int32", "float64"])) if table in ("input", "holding") else None
        tags.append(ModbusTag.model_validate({"address": f"{table}:{draw(st.integers(0, 3000))}", "type": kind}))
    return tags


@given(tags=addressed(), registers=st.integers(4, 125), gap=st.integers(0, 124))
def test_every_tag_lies_whole_in_exactly_one_block_within_the_limits(
    tags: list[ModbusTag], registers: int, gap: int
) -> None:
    found = plan([field_of(index, tag) for index, tag in enumerate(tags)], Quirks(max_registers=registers, max_gap=gap))
    assert sorted(index for block in found for index in block.indexes) == list(range(len(tags)))
    for block in found:
        unit = 16 if block.table in ("coil", "discrete") else 1
        assert block.count <= registers * unit
        for field in block.fields:
            assert block.table == field.table
            assert block.start <= field.start < field.end <= block.start + block.count


@given(tags=addressed())
def test_splitting_on_finds_every_tag_alone(tags: list[ModbusTag]) -> None:
    waiting, alone = list(plan([field_of(index, tag) for index, tag in enumerate(tags)], Quirks())), []
    while waiting:
        block = waiting.pop()
        if len(block.fields) == 1:
            alone += block.indexes
        else:
            waiting += split(block)
    assert sorted(alone) == list(range(len(tags)))
