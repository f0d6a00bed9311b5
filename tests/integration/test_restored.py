"""What a restart knows: the binder's and the buffer's sides of an interruption, put together on a real file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge_agent.buffer import Buffer, BufferSettings, open_buffer
from edge_agent.model import Instant, Kind, Record, Tag, TagSet

TAGSET = TagSet("press", "state", (Tag("x", "int16"),))


def open_(folder: Path) -> Buffer:
    return open_buffer(folder, "test", BufferSettings.model_validate({"min_free": "1MiB", "ballast": "1MiB"}))


def at(second: int) -> Instant:
    return Instant(1_795_000_000_000_000_000 + second * 10**9, second * 10**9)


def opened(cycle: str) -> Record:
    body = {"cycle": cycle, "config": "c", "station": "OP20", "step": "press", "position": 1, "opened_by": "scan"}
    return Record(Kind.CYCLE_OPENED, "OP20", at(1), body | {"context": {}, "evidence": []})


def sample(second: int, *cycles: str) -> Record:
    body = {"tagset": TAGSET.id, "took_us": 1, "values": [second]}
    return Record(Kind.SAMPLE, TAGSET.source, at(second), body, cycles)


def test_readings_that_a_late_noticed_gap_takes_back_stay_out_after_a_kill(tmp_path: Path) -> None:
    async def main() -> None:
        buffer = open_(tmp_path)
        cycle = f"{buffer.log}-{buffer.next_seq}"
        buffer.append([opened(cycle)])
        first = buffer.next_seq
        for second in range(2, 12):
            buffer.append([sample(second, cycle)])
        details = {"cause": "stall", "cycles": [cycle], "windows": {TAGSET.source: [[first, first + 3]]}}
        body = {"finding": f"{buffer.log}-{buffer.next_seq}", "code": "observation_gap", "severity": "warning"}
        last = buffer.append(
            [Record(Kind.FINDING, "OP20", at(12), body | {"text": "", "evidence": [], "details": details})]
        )
        await buffer.committed(last)
        await buffer.close()
        again = open_(tmp_path)
        (restored,) = again.restored().cycles
        assert restored.windows == {TAGSET.source: ((first, first + 3),)}
        assert again.restored().until_ns is not None and again.restored().until_ns >= at(12).at_ns
        await again.close()

    asyncio.run(main())


def test_whether_the_gate_let_a_unit_in_is_known_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        buffer = open_(tmp_path)
        cycles = [f"{buffer.log}-{buffer.append([opened(f'{buffer.log}-{buffer.next_seq}')])}" for _ in range(3)]
        last = 0
        for cycle, verdict in ((cycles[1], "block"), (cycles[2], "block"), (cycles[2], "permit"), (cycles[2], "block")):
            body = {"gate": f"{buffer.log}-{buffer.next_seq}", "station": "OP20", "position": 1, "cycle": cycle}
            body |= {"verdict": verdict, "code": 0, "reasons": [], "basis": "live"}
            last = buffer.append([Record(Kind.GATE, "OP20", at(2), body)])
        await buffer.committed(last)
        await buffer.close()
        again = open_(tmp_path)
        assert {one.cycle: one.let_in for one in again.restored().cycles} == dict(
            zip(cycles, (None, False, True), strict=True)
        )
        await again.close()

    asyncio.run(main())


def test_one_append_is_one_transaction_even_where_a_batch_is_full(tmp_path: Path) -> None:
    async def main() -> None:
        from edge_agent.buffer import writer

        buffer = open_(tmp_path)
        heads: set[int] = set()
        notify = buffer.writer.on_commit
        buffer.writer.on_commit = lambda seq: (heads.add(seq), notify(seq))[1]  # type: ignore[func-returns-value]
        size = writer.BATCH_ROWS - 1
        ends = {buffer.append([sample(second) for second in range(size)]) for _ in range(3)}
        await buffer.committed(max(ends))
        assert heads <= ends, "a commit ended inside an append"
        await buffer.close()

    asyncio.run(main())
