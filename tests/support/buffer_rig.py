"""A buffer on a real data_dir for tests, and records as the binder makes them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ParamSpec

from edge_agent import clock
from edge_agent.buffer import Buffer, BufferSettings, RouteFilter, Row, open_buffer
from edge_agent.model import Kind, Record, Tag, TagSet

P = ParamSpec("P")


def asynchronous(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an ``async def`` test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        asyncio.run(main())

    return run


ALL = RouteFilter(frozenset(Kind))
PRESS = TagSet("press", "result", (Tag("force", "float32", "kN"), Tag("ok", "bool"), Tag("temp", "int16", "°C")))


@contextlib.asynccontextmanager
async def opened(data_dir: Path, agent: str = "l3-pc1", **settings: Any) -> AsyncIterator[Buffer]:
    buffer = open_buffer(data_dir, agent, BufferSettings(min_free="1MB", ballast="1MiB", **settings))
    try:
        yield buffer
    finally:
        await buffer.close()


async def salvaged(buffer: Buffer) -> None:
    """Let the buffer take over what it can from the file that was set aside."""
    maintaining = asyncio.create_task(buffer.maintain())
    while buffer.salvaging is not None and not maintaining.done():  # noqa: ASYNC110 - a test may look
        await asyncio.sleep(0.01)
    maintaining.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await maintaining


def record(kind: Kind, source: str, body: dict[str, Any], *cycles: str) -> Record:
    return Record(kind, source, clock.now(), body, cycles)


def sample(values: list[Any], *cycles: str, status: dict[str, str] | None = None) -> Record:
    body: dict[str, Any] = {"tagset": PRESS.id, "took_us": 812, "values": values}
    return record(Kind.SAMPLE, PRESS.source, body | ({"status": status} if status else {}), *cycles)


def preamble() -> list[Record]:
    claims = {PRESS.source: ["force", "ok"]}
    stations = {"OP20": {"step": "press-fit", "identity": "before", "positions": {"1": {"claims": claims}}}}
    return [
        record(Kind.CONFIG, "agent", {"config": "c0ffee", "stations": stations, "devices": {"press": "modbus"}}),
        record(Kind.TAGSET, PRESS.source, {"tagset": PRESS.id} | PRESS.describe()),
    ]


def opening(buffer: Buffer, serial: str) -> tuple[list[Record], str, str]:
    """What the binder says when a new unit is scanned: identifier, cycle, binding."""
    seq, unit, cycle = buffer.next_seq, f"{buffer.log}-{buffer.next_seq}", f"{buffer.log}-{buffer.next_seq + 1}"
    return [
        record(
            Kind.IDENTIFIER, "OP20", {"unit": unit, "op": "add", "kind": "serial", "value": serial, "evidence": [seq]}
        ),
        record(
            Kind.CYCLE_OPENED,
            "OP20",
            {
                "cycle": cycle, "config": "c0ffee", "station": "OP20", "step": "press-fit", "position": 1,
                "opened_by": "scan", "attempt": 1, "evidence": [seq],
                "context": {"order": {"value": "WO1", "source": "scan", "since_ns": "1"}},
            },
        ),
        record(Kind.BINDING, "OP20", binding(f"{buffer.log}-{seq + 2}", cycle, unit, serial)),
    ], cycle, unit  # fmt: skip


def binding(id: str, cycle: str, unit: str | None, serial: str | None, **more: Any) -> dict[str, Any]:
    body = {"binding": id, "cycle": cycle, "state": "bound", "unit": unit, "serial": serial, "rule": "scan"}
    return body | {"candidates": [], "evidence": [], "by": "agent"} | more


def closing(cycle: str, windows: dict[str, list[list[int]]], **more: Any) -> Record:
    body = {
        "cycle": cycle, "config": "c0ffee", "station": "OP20", "step": "press-fit", "position": 1,
        "opened_at_ns": "1000", "ended_at_ns": "2000", "closed_by": "handshake", "result": "Passed", "complete": True,
        "missing": [], "context": {}, "attempt": 1, "counter": 17, "epoch": 0, "windows": windows,
        "collected": [{"name": "peak", "value": 12.5, "unit": "kN", "low": 10, "high": 20, "judgement": "ok"}],
        "binding": {"state": "bound"},
    }  # fmt: skip
    return record(Kind.CYCLE_CLOSED, "OP20", body | more)


def read_all(buffer: Buffer, lane: Any, max_rows: int = 1000) -> list[Row]:
    """Every row that ``lane`` still has, in as many reads as it takes."""
    reader, rows, after = buffer.reader(), [], lane.seq
    while more := reader.rows(lane, after, buffer.durable_seq, max_rows, 2**20):
        rows += more
        after = more[-1].seq
    reader.close()
    return rows
