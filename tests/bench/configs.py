"""The configurations that are measured, as text: what a technician would write."""

from __future__ import annotations

from pathlib import Path

HEAD = """\
agent: {{id: bench, location: {{enterprise: acme, site: here, area: bench, line: L1}}, data_dir: {data}}}
buffer: {{min_free: 100MiB, ballast: 1MiB}}
"""
IDLE = """\
devices:
  nothing: {driver: simulated, groups: {all: {poll: 1h, tags: {a: {}}}}}
"""
ROUTE = """\
routes:
  mes: {{sink: mqtt, url: "mqtt://127.0.0.1:{broker}", confirm: {confirm}, start: oldest, send: [{send}]}}
"""


def head(folder: Path) -> str:
    """The agent section, with its data below ``folder``."""
    return HEAD.format(data=folder / "data")


def route(
    broker: int, confirm: str, send: str = "sample, scan, cycle_opened, cycle_closed, binding, identifier"
) -> str:
    """One MQTT route to a broker on loopback."""
    return ROUTE.format(broker=broker, confirm=confirm, send=send)


def plc(name: str, port: int, groups: dict[str, tuple[str, int, str]]) -> str:
    """A Modbus device; ``groups`` maps a group to (poll, number of tags, type)."""
    text = f'  {name}:\n    driver: modbus\n    connection: "tcp://127.0.0.1:{port}"\n    groups:\n'
    for group, (poll, count, kind) in groups.items():
        text += f"      {group}:\n        poll: {poll}\n        tags:\n"
        step = 2 if kind in ("float32", "uint32") else 1
        for index in range(count):
            text += f'          {group}{index}: {{address: "holding:{index * step}", type: {kind}, store: always}}\n'
    return text


def scanner(name: str, port: str) -> str:
    """A barcode reader on a pty."""
    return f'  {name}: {{driver: scanner, port: {port}, baud: 115200, frame: {{end: "\\r\\n"}}}}\n'


def station(name: str, reader: str, tags: str) -> str:
    """A station whose cycle is opened, and closed, by a scan."""
    return f"""\
  {name}:
    step: {name}
    identity: {{when: before, scan: {reader}, pattern: '^(?P<serial>SN\\d{{8}})$'}}
    cycle: {{end: {{next_scan: true}}, timeout: 2h}}
    tags: ["{tags}"]
"""
