"""`make bench`: what the agent costs, beside the bare pymodbus loop, and other bare loops, of the same minute.

Every figure comes from outside the agent: /proc for CPU, memory and bytes written, subscribers for delivery, a PLC
process that writes down when it changed what. The agent has one core, its peers the other. These machines are
noisy: the ratio is the median of interleaved pairs, latency stands beside the fsync time of the same disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
from camera import camera
from configs import IDLE, head, plc, route, scanner, station
from gate import gate
from isolation import isolation
from opcua import subscriptions
from peers import Readers, broker, look, peer_plc, receiver, samples, subscriber
from rig import AGENT_CORE, HERE, PEER_CORE, agent, free_port, output, wait_for
from storing import beside_backlog, opening, two_routes
from streams import serial

LINE = "acme/here/bench/L1"
LAST_LINE = (
    "ratio", "cpu_us_per_reading", "cpu_us_at_1000_tags", "drain_per_s", "receive_per_s",
    "start_s", "p99_ms", "rss_mb", "idle_pct", "bytes_per_reading", "two_routes_ratio", "live_p99_ms", "open_s",
    "gate_p50_ms", "gate_p99_ms", "gate_fsync_p99_ms", "opcua_ratio", "opcua_cpu_us", "opcua_missing",
    "camera_datamatrix", "camera_datamatrix_region", "serial_lost", "serial_agent_lost", "isolation_kept",
)  # fmt: skip


class Report:
    """Prints a figure as it is measured, and all of them in the last line."""

    def __init__(self) -> None:
        self._figures: dict[str, str] = {}

    def say(self, name: str, value: float, text: str, digits: int = 2) -> None:
        self._figures[name] = f"{value:.{digits}f}"
        print(f"  {name:22} {value:14,.{digits}f}  {text}", flush=True)

    def last_line(self) -> str:
        return "bench: " + " ".join(f"{name}={self._figures.get(name, 'not-run')}" for name in LAST_LINE)


def full_speed(report: Report, folder: Path, options: argparse.Namespace) -> None:
    """(a) 125 registers a request, read → bind → commit (FULL, ledger) → QoS 1, in turn with the bare loop."""
    port, ratios, costs, rates = free_port(), [], [], []
    with ExitStack() as stack:
        stack.enter_context(peer_plc(port))
        broker_port = stack.enter_context(broker(folder))
        readers = stack.enter_context(closing(Readers("gate")))
        config = head(folder) + "devices:\n" + plc("plc", port, {"block": ("0s", 125, "uint16")})
        config += scanner("gate", readers.paths["gate"]) + "stations:\n" + station("OP10", "gate", "plc.*")
        config += route(broker_port, "broker")
        for _ in range(options.pairs):
            bare = float(output(str(HERE / "bare.py"), str(port), str(options.seconds), core=AGENT_CORE))
            with agent(config, folder) as process:
                readers.open_cycles(folder)
                time.sleep(1)
                count, cpu_s, start = samples(folder), process.cpu_s, time.monotonic()
                time.sleep(options.seconds)
                count, took_s = samples(folder) - count, time.monotonic() - start
                cpu_s = process.cpu_s - cpu_s
            ratios.append(count / took_s / bare)
            rates.append(125 * count / took_s)
            costs.append(1e6 * cpu_s / (125 * count))
    report.say("ratio", statistics.median(ratios), f"of the bare loop; pairs {[round(r, 2) for r in ratios]}")
    report.say("readings_per_s", statistics.median(rates), "at full speed", 0)
    report.say("cpu_us_per_reading", statistics.median(costs), "CPU at full speed, µs a reading")


def thousand_tags(report: Report, folder: Path, options: argparse.Namespace) -> None:
    """(b) 1,000 float32 tags each 100 ms, configured one by one, three stations with a unit in each."""
    port, names = free_port(), ("gate1", "gate2", "gate3")
    with ExitStack() as stack:
        stack.enter_context(peer_plc(port))
        broker_port = stack.enter_context(broker(folder))
        readers = stack.enter_context(closing(Readers(*names)))
        config = head(folder) + "devices:\n" + plc("plc", port, {"block": ("100ms", 1000, "float32")})
        config += "".join(scanner(name, readers.paths[name]) for name in names) + "stations:\n"
        config += "".join(station(f"OP{n}0", f"gate{n}", f"plc.block{n}*") for n in (1, 2, 3))
        config += route(broker_port, "broker")
        with agent(config, folder) as process:
            readers.open_cycles(folder)
            time.sleep(2)
            count, cpu_s, written = samples(folder), process.cpu_s, process.written_bytes
            start = time.monotonic()
            time.sleep(2 * options.seconds)
            count, took_s = samples(folder) - count, time.monotonic() - start
            report.say("cpu_us_at_1000_tags", 1e6 * (process.cpu_s - cpu_s) / (1000 * count), "µs a reading")
            report.say("period_error_pct", 100 * abs(took_s / count / 0.1 - 1), "of 100 ms")
            megabytes = (process.written_bytes - written) / 1e6 * 3600 / took_s
            report.say("mb_written_per_hour", megabytes, "from /proc/self/io", 0)


def drain(folder: Path, tags: int, readings: int, into: str) -> float:
    """(c) Readings a second out of a backlog: to the broker's PUBACK, or into the receiver's SQLite and back."""
    data = folder / "data"
    output(str(HERE / "backlog.py"), str(data), "--tags", str(tags), "--readings", str(readings), core=AGENT_CORE)
    with ExitStack() as stack:
        broker_port = stack.enter_context(broker(folder))
        if into == "receiver":
            stack.enter_context(receiver(broker_port, folder / "received.db"))
            time.sleep(2)
        config = head(folder) + IDLE + "stations: {}\n"
        process = stack.enter_context(agent(config + route(broker_port, into, "sample"), folder))
        pending, start = 0, time.monotonic()
        while not pending:  # until the route has its lanes
            pending, start = look(folder)["routes"]["mes"]["pending"], time.monotonic()
        peak_mb = process.rss_mb
        while look(folder)["routes"]["mes"]["pending"] > 0:
            peak_mb = max(peak_mb, process.rss_mb)
            time.sleep(0.02)
        rate, cpu_us = pending * tags / (time.monotonic() - start), 1e6 * process.cpu_s / (pending * tags)
    said = f"{rate:12,.0f} readings/s, {cpu_us:.3f} µs CPU each, peak {peak_mb:.0f} MB"
    print(f"    {into:9} {tags:4} tags a sample: {said}", flush=True)
    return rate


def start_up(report: Report, folder: Path, options: argparse.Namespace) -> None:
    """(d) From exec to the first confirmation by the receiver, and (f) memory and idle CPU once it runs."""
    port, confirmed = free_port(), []
    with ExitStack() as stack:
        stack.enter_context(peer_plc(port))
        broker_port = stack.enter_context(broker(folder))
        readers = stack.enter_context(closing(Readers("gate")))
        stack.enter_context(receiver(broker_port, folder / "received.db"))
        time.sleep(2)
        on_confirm = lambda payload: confirmed.append(time.monotonic())  # noqa: E731
        stack.enter_context(subscriber(broker_port, f"{LINE}/_agent/bench/confirm", on_confirm))
        config = head(folder) + "devices:\n" + plc("plc", port, {"state": ("1s", 10, "uint16")})
        config += scanner("gate", readers.paths["gate"]) + "stations:\n" + station("OP10", "gate", "plc.*")
        start = time.monotonic()
        process = stack.enter_context(agent(config + route(broker_port, "receiver"), folder))
        wait_for(lambda: confirmed, 20, folder / "agent.log")
        report.say("start_s", confirmed[0] - start, "from exec to the first confirmed record")
        time.sleep(3)
        cpu_s, begin = process.cpu_s, time.monotonic()
        time.sleep(10)
        report.say("idle_pct", 100 * (process.cpu_s - cpu_s) / (time.monotonic() - begin), "of a core, 1 s poll")
        report.say("rss_mb", process.rss_mb, "with modbus and scanner")


def latency(report: Report, folder: Path, options: argparse.Namespace) -> None:
    """(e) From the PLC's change to the receiver's hands, at a 100 ms poll, beside the fsync of this disk."""
    port, changes, arrivals = free_port(), folder / "changes", {}

    def on_sample(payload: bytes) -> None:
        now = time.monotonic_ns()
        for record in orjson.loads(payload)["records"]:
            arrivals.setdefault(record["values"][0], now)

    with ExitStack() as stack:
        stack.enter_context(peer_plc(port, "--change-ms", "300", "--log", str(changes)))
        broker_port = stack.enter_context(broker(folder))
        stack.enter_context(subscriber(broker_port, f"{LINE}/plc.fast/sample", on_sample))
        config = head(folder) + "devices:\n" + plc("plc", port, {"fast": ("100ms", 1, "uint32")})
        stack.enter_context(agent(config + "stations: {}\n" + route(broker_port, "broker"), folder))
        time.sleep(1.5)
        begin = time.monotonic_ns()
        time.sleep(10 * options.seconds)
    pairs = [tuple(map(int, line.split())) for line in changes.read_text().splitlines()]
    seen = [(arrivals[number] - at) / 1e6 for number, at in pairs if number in arrivals and at > begin]
    cuts = statistics.quantiles(seen, n=100)
    report.say("p50_ms", statistics.median(seen), f"PLC change to receiver, {len(seen)} changes", 1)
    report.say("p99_ms", cuts[98], f"beside an fsync p99 of {fsync_p99_ms(folder):.2f} ms", 1)


def fsync_p99_ms(folder: Path) -> float:
    """The 99th percentile of 500 writes of a page with fsync."""
    took = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(500):
            start = time.perf_counter()
            file.write(os.urandom(4096))
            os.fsync(file.fileno())
            took.append(1e3 * (time.perf_counter() - start))
    return statistics.quantiles(took, n=100)[98]


def on_disk(report: Report, folder: Path, options: argparse.Namespace) -> None:
    """(g) Bytes on disk a reading, WAL folded in, for samples of 1, 10 and 125 float32 values."""
    for tags in (1, 10, 125):
        readings = 20_000 * min(tags, 10)
        arguments = (str(folder / f"size{tags}"), "--tags", str(tags), "--readings", str(readings))
        size = int(output(str(HERE / "backlog.py"), *arguments, core=PEER_CORE))
        name = "bytes_per_reading" if tags == 125 else f"bytes_at_{tags}_tags"
        report.say(name, size / readings, f"on disk, {tags} tags a sample", 1)


def drains(report: Report, folder: Path, options: argparse.Namespace) -> None:
    """(c) All four drains, each from a fresh backlog."""
    rates = {}
    for tags, into in ((125, "broker"), (5, "broker"), (125, "receiver"), (5, "receiver")):
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            rates[tags, into] = drain(Path(fresh), tags, options.readings, into)
    report.say("drain_per_s", rates[125, "broker"], "readings/s to the broker, 125 tags a sample", 0)
    report.say("drain_5_tags_per_s", rates[5, "broker"], "readings/s to the broker, 5 tags a sample", 0)
    report.say("receive_per_s", rates[125, "receiver"], "readings/s into the receiver and confirmed, 125 tags", 0)
    report.say("receive_5_tags_per_s", rates[5, "receiver"], "the same, 5 tags a sample", 0)


def main() -> None:
    """Run the benchmarks named, or all of them."""
    devices = (subscriptions, camera, serial, isolation)
    storing = (two_routes, beside_backlog, opening)
    every = (full_speed, thousand_tags, *devices, drains, start_up, latency, on_disk, *storing, gate)
    benches = {bench.__name__: bench for bench in every}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(benches)}")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--readings", type=int, default=5_000_000)
    options = parser.parse_args()
    report = Report()
    for name in options.names or benches:
        began_s = time.monotonic()
        print(f"{name}: {(benches[name].__doc__ or '').strip()}", flush=True)
        with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
            benches[name](report, Path(folder), options)
        print(f"  {name} took {time.monotonic() - began_s:.0f} s", flush=True)
    print(report.last_line())


if __name__ == "__main__":
    main()
