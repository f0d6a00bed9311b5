"""The benchmarks of storing and forwarding: live records beside a backlog, a large file opened, two routes at once."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import orjson
from configs import head, plc, route, scanner, station
from peers import Readers, broker, look, peer_plc, receiver, samples, subscriber
from rig import AGENT_CORE, HERE, PEER_CORE, agent, free_port, output

from edge_agent.buffer import BufferSettings, open_buffer

LINE = "acme/here/bench/L1"
BACKLOG_READINGS = 50_000_000
FILE_BYTES = 10 * 10**9
OLD = orjson.dumps({"tagset": "0" * 12, "took_us": 812, "values": [12.34] * 125})


class Reporting(Protocol):
    """Takes a figure."""

    def say(self, name: str, value: float, text: str, digits: int = 2) -> None: ...


def beside_backlog(report: Reporting, folder: Path, options: argparse.Namespace) -> None:
    """(h) A PLC's changes, live, while a backlog of 50 million readings drains into the receiver."""
    port, changes, arrivals = free_port(), folder / "changes", {}
    readings = min(BACKLOG_READINGS, 10 * options.readings)
    output(str(HERE / "backlog.py"), str(folder / "data"), "--readings", str(readings), core=AGENT_CORE)

    def on_sample(payload: bytes) -> None:
        now = time.monotonic_ns()
        for record in orjson.loads(payload)["records"]:
            arrivals.setdefault(record["values"][0], now)

    with ExitStack() as stack:
        stack.enter_context(peer_plc(port, "--change-ms", "100", "--log", str(changes)))
        broker_port = stack.enter_context(broker(folder))
        stack.enter_context(receiver(broker_port, folder / "received.db"))
        stack.enter_context(subscriber(broker_port, f"{LINE}/plc.fast/sample", on_sample))
        time.sleep(2)
        config = head(folder) + "devices:\n" + plc("plc", port, {"fast": ("50ms", 1, "uint32")})
        process = stack.enter_context(agent(config + "stations: {}\n" + route(broker_port, "receiver"), folder))
        begin = time.monotonic_ns()
        early_mb = peak_mb = process.rss_mb
        pending = first = look(folder)["routes"]["mes"]["pending"]
        while pending > 1000:
            time.sleep(0.25)
            pending = look(folder)["routes"]["mes"]["pending"]
            peak_mb = max(peak_mb, process.rss_mb)
        end = time.monotonic_ns()
        time.sleep(1)
    pairs = [tuple(map(int, line.split())) for line in changes.read_text().splitlines()]
    seen = [(arrivals[number] - at) / 1e6 for number, at in pairs if number in arrivals and begin < at < end - 10**9]
    took_s = (end - begin) / 1e9
    report.say("backlog_s", took_s, f"to drain {first:,} records, {readings:,} readings", 1)
    report.say("live_p99_ms", statistics.quantiles(seen, n=100)[98], f"beside it, {len(seen)} changes", 0)
    report.say("backlog_rss_mb", peak_mb, f"at the most; {early_mb:.0f} MB at the beginning", 0)


def opening(report: Reporting, folder: Path, options: argparse.Namespace) -> None:
    """(i) A buffer of 10 GB, opened: until its new log is durable."""
    data = folder / "data"
    output(str(HERE / "backlog.py"), str(data), "--readings", "125000", core=PEER_CORE)
    size = _grow(data / "buffer.db", FILE_BYTES if options.readings >= 5_000_000 else FILE_BYTES // 10)
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import storing; storing.open_once({str(data)!r})"
    took = [float(output("-c", code, core=AGENT_CORE)) for _ in range(3)]
    report.say("open_s", statistics.median(took), f"a buffer of {size / 1e9:.1f} GB, {[round(t, 2) for t in took]}")


def open_once(data: str) -> None:
    """Open and print the seconds it took; in a process of its own."""

    async def run() -> None:
        start = time.perf_counter()
        buffer = open_buffer(Path(data), "bench", BufferSettings.model_validate({"max_size": "100GB"}))
        sys.stdout.write(f"{time.perf_counter() - start}\n")
        await buffer.close()

    asyncio.run(run())


def _grow(path: Path, size: int) -> int:
    """Append records by SQL alone; their hashes say nothing, and opening does not ask."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        sql = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
            " INSERT INTO record SELECT (SELECT max(seq) FROM record) + i, 4, 1, 1795293977820854877, i, 1, ?,"
            " zeroblob(32) FROM n"
        )
        while path.stat().st_size < size:
            db.execute(sql, (OLD,))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path.stat().st_size


def two_routes(report: Reporting, folder: Path, options: argparse.Namespace) -> None:
    """(j) Full speed again, with one route and with two, in turn."""
    port, rates, costs = free_port(), {1: [], 2: []}, {1: [], 2: []}
    with ExitStack() as stack:
        stack.enter_context(peer_plc(port))
        broker_port = stack.enter_context(broker(folder))
        readers = stack.enter_context(closing(Readers("gate")))
        config = head(folder) + "devices:\n" + plc("plc", port, {"block": ("0s", 125, "uint16")})
        config += scanner("gate", readers.paths["gate"]) + "stations:\n" + station("OP10", "gate", "plc.*")
        config += route(broker_port, "broker")
        second = route(broker_port, "broker").split("\n", 1)[1].replace("mes:", "qms:")
        for _ in range(options.pairs):
            for count in (1, 2):
                with agent(config + (second if count == 2 else ""), folder) as process:
                    readers.open_cycles(folder)
                    time.sleep(1)
                    done, cpu_s, start = samples(folder), process.cpu_s, time.monotonic()
                    time.sleep(options.seconds)
                    done, took_s = samples(folder) - done, time.monotonic() - start
                    rates[count].append(125 * done / took_s)
                    costs[count].append(1e6 * (process.cpu_s - cpu_s) / (125 * done))
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    report.say("two_routes_ratio", ratio, "of the readings/s with one route")
    report.say(
        "two_routes_cpu_us", statistics.median(costs[2]), f"µs a reading; one: {statistics.median(costs[1]):.2f}"
    )
