"""The gate: from the bytes of a scan at the reader to the answer in the PLC's register.

The scanner is a pty, the PLC a pymodbus server in a process of its own; a second PLC gives 1,000 tags each 100 ms, a
backlog drains into a receiver, and the buffer is at its size limit, so that retention deletes what was delivered.
Beside it the fsync of the same disk, measured before and while the load runs. The same once more where the gate's PLC
is the one that the 1,000 tags are read from: then an answer waits for the read at hand.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from configs import head, plc, route, scanner
from gate_plc import ANSWER, BEAT, REASON, REQUEST, VERDICT
from peers import broker, look, peer_plc, receiver
from pymodbus.client import ModbusTcpClient
from rig import AGENT_CORE, HERE, PEER_CORE, Process, agent, child, free_port, output, wait_for

FSYNCS = 500
DECISIONS = 300
STATIONS = """\
stations:
  OP10:
    step: load
    identity: {{when: before, scan: first, pattern: '^(?P<serial>SN\\d{{8}})$'}}
    tags: ["{tags}"]
  OP20:
    step: press
    identity: {{when: before, scan: entry, pattern: '^(?P<serial>SN\\d{{8}})$'}}
    gate:
      previous: [load]
      max_attempts: 3
      exchange: {{request: press.request, answer: press.answer, verdict: press.verdict, reason: press.reason, heartbeat: press.beat}}
"""  # noqa: E501
PRESS = """\
      gate: {{poll: 50ms, tags: {{request: {{address: "holding:{request}", type: uint16}}}}}}
    tags:
"""


class Reporting(Protocol):
    """Takes a figure."""

    def say(self, name: str, value: float, text: str, digits: int = 2) -> None: ...


def gate(report: Reporting, folder: Path, options: argparse.Namespace) -> None:
    """(k) Scan bytes at the reader → answer in the PLC, beside 1,000 tags, a backlog and retention."""
    quiet_ms = percentiles(fsyncs(folder, FSYNCS))
    for name, one_plc, text in (
        ("gate", False, "the tags are another PLC's"),
        ("gate_one_plc", True, "one PLC for both"),
    ):
        place = folder / name
        place.mkdir()
        took, loaded, facts = measure(place, options, one_plc=one_plc)
        p50_ms, p99_ms = percentiles(took)
        disk_ms = percentiles(loaded)[1]
        report.say(f"{name}_p50_ms", p50_ms, f"scan bytes to answer written, {len(took)} decisions; {text}", 1)
        said = f"beside an fsync p99 of {disk_ms:.2f} ms under the same load ({quiet_ms[1]:.2f} ms at rest); {facts}"
        report.say(f"{name}_p99_ms", p99_ms, said, 1)
        report.say(f"{name}_fsync_p99_ms", disk_ms, f"aim: gate p99 at most 10 ms above; it is {p99_ms - disk_ms:.1f}")


def measure(folder: Path, options: argparse.Namespace, *, one_plc: bool) -> tuple[list[float], list[float], str]:
    """Milliseconds of each decision, of an fsync after each, and what else went on."""
    port, tags_port, log = free_port(), free_port(), folder / "answers"
    small = ("--tags", "5", "--readings", str(2 * options.readings))  # many records: it drains all the while
    size = int(output(str(HERE / "backlog.py"), str(folder / "data"), *small, core=AGENT_CORE))
    with ExitStack() as stack:
        plc_arguments = (str(HERE / "gate_plc.py"), str(port), str(log))
        stack.enter_context(child(*plc_arguments, core=PEER_CORE, ready=True, log=folder / "plc.log"))
        stack.enter_context(peer_plc(tags_port))
        broker_port = stack.enter_context(broker(folder))
        stack.enter_context(receiver(broker_port, folder / "received.db"))
        readers = [os.openpty() for _ in range(2)]
        for ends in readers:
            for end in ends:
                stack.callback(os.close, end)
        time.sleep(2)
        config = config_of(folder, size, port, port if one_plc else tags_port, broker_port, readers, one_plc)
        process = stack.enter_context(agent(config, folder))
        wait_for(
            lambda: all(d["state"] == "connected" for d in look(folder)["devices"].values()), 20, folder / "agent.log"
        )
        begin = look(folder)
        client = stack.enter_context(ModbusTcpClient("127.0.0.1", port=port))
        sent, disk = decide(client, [master for master, _ in readers], folder, log, process)
        end = look(folder)
    answers = {int(number): int(at) for number, at in map(str.split, log.read_text().splitlines())}
    took = [(answers[number] - at) / 1e6 for number, at in sent.items() if number in answers]
    assert len(took) == len(sent), f"{len(sent) - len(took)} requests were not answered"
    counts = end["stations"]["OP20"]["gate"]["counts"]
    assert counts == {"permit": len(sent)}, counts
    samples = sum(device["samples"] for device in end["devices"].values())
    backlog = [status["routes"]["mes"]["pending"] for status in (begin, end)]
    facts = f"{samples} samples, backlog {backlog[0]:,} → {backlog[1]:,}, rows {begin['buffer']['rows']:,} → "
    return took, disk, facts + f"{end['buffer']['rows']:,}"


def decide(
    client: Any, scanners: list[int], folder: Path, log: Path, process: Process
) -> tuple[dict[int, int], list[float]]:
    """One unit after the other: made at the step before, asked for by the PLC, scanned at a random instant."""
    chance, sent, disk = random.Random(1), {}, []
    first, entry = scanners
    for number in range(1, DECISIONS + 1):
        serial = b"SN%08d\r\n" % number
        os.write(first, serial)
        time.sleep(0.02)
        client.write_register(REQUEST, number)
        time.sleep(chance.uniform(0.07, 0.12))  # the agent has seen the request, and polls at another phase each time
        sent[number] = time.monotonic_ns()
        os.write(entry, serial)
        wait_for(lambda number=number: f"\n{number} " in "\n" + log.read_text(), 10, folder / "agent.log")
        disk += fsyncs(folder, 1)
        assert process.popen.poll() is None
    return sent, disk


def config_of(
    folder: Path, size: int, port: int, tags_port: int, broker_port: int, readers: list[Any], one_plc: bool
) -> str:
    """Two scanners, a PLC with the gate, 1,000 tags from it or from another; the buffer may hardly grow."""
    limit = max(64 * 2**20, size + 2 * 10**6)
    text = head(folder).replace("ballast: 1MiB", f"ballast: 1MiB, max_size: {limit}B")
    written = {"answer": ANSWER, "verdict": VERDICT, "reason": REASON, "beat": BEAT}
    lines = [f'      {tag}: {{address: "holding:{at}", type: uint16, write: true}}\n' for tag, at in written.items()]
    press = PRESS.format(request=REQUEST) + "".join(lines)
    block = plc("tags", tags_port, {"block": ("100ms", 1000, "float32")})
    if one_plc:
        text += "devices:\n" + block.replace("  tags:\n", "  press:\n", 1) + press
    else:
        text += "devices:\n" + block
        text += f'  press:\n    driver: modbus\n    connection: "tcp://127.0.0.1:{port}"\n    groups:\n' + press
    names = [os.ttyname(slave) for _, slave in readers]
    text += scanner("first", names[0]) + scanner("entry", names[1])
    text += STATIONS.format(tags="press.block*" if one_plc else "tags.*")
    return text + route(broker_port, "receiver", "sample, scan, cycle_opened, cycle_closed, binding, identifier, gate")


def fsyncs(folder: Path, count: int) -> list[float]:
    """Milliseconds of so many writes of a page with fsync."""
    took = []
    with (folder / "fsync").open("ab", buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(os.urandom(4096))
            os.fsync(file.fileno())
            took.append(1e3 * (time.perf_counter() - start))
    return took


def percentiles(values: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    return statistics.median(values), statistics.quantiles(values, n=100)[98]
