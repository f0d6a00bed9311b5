"""How cycles begin and end, as the config says it: what it means, and what is refused with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.binding.plan import Attempts, Commands, Edge, Handshake, Station
from edge_agent.config import load
from edge_agent.errors import ConfigError, Problem

FRAME = r"""
agent: {id: pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}
devices:
  press:
    driver: modbus
    connection: tcp://192.168.1.20:502
    groups:
      state: {poll: 100ms, tags: {ready: {address: "coil:10"}, busy: {address: "coil:11"}}}
      result: {on_trigger: true, tags: {count: {address: "holding:98", type: uint16}, sn: {address: "holding:1", type: string, length: 8}}}
    tags: {ack: {address: "coil:20", write: true}}
  gate: {driver: scanner, port: /dev/gate}
  exit: {driver: scanner, port: /dev/exit}
labels:
  unit: {format: pattern, pattern: '^(?P<serial>SN\d{8})$'}
  sheet: {format: command, prefix: "%"}
stations:
  OP20:
    step: press-fit
"""  # noqa: E501
SHAKE = "{handshake: {ready: press.ready, ack: press.ack, counter: press.count, read: press.result}}"


def station_of(tmp_path: Path, lines: str) -> Station:
    path = tmp_path / "agent.yaml"
    path.write_text(
        FRAME + "".join(f"    {line}\n" for line in lines.strip().splitlines()).replace("  \b\b", ""), encoding="utf-8"
    )
    (station,) = load(path).plan.stations
    return station


def problems_of(tmp_path: Path, lines: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        station_of(tmp_path, lines)
    return list(caught.value.problems)


def test_a_late_scan(tmp_path: Path) -> None:
    lines = f"""
identity: {{when: after, scan: gate, labels: [unit], max_wait: 20s, known: true}}
cycle: {{start: {{tag: press.busy, edge: falling}}, end: {SHAKE}, timeout: 5min}}
attempts: {{max: 3, flag: false}}
"""
    station = station_of(tmp_path, lines)
    (place,) = station.positions
    assert (station.identity, station.max_wait_s, station.known) == ("after", 20.0, True)
    assert isinstance(place.end, Handshake)
    assert place.start is not None
    assert (place.start.tag.name, place.start.rising, place.start.read) == ("press.busy", False, None)
    assert station.attempts == Attempts(3, False)
    assert "busy" in place.claims["press.state"]


def test_one_reader_may_serve_several_positions_after_the_work(tmp_path: Path) -> None:
    lines = """
positions: [1, 2]
identity: {when: after, scan: gate, labels: [unit]}
cycle: {end: {tag: {1: press.ready, 2: press.busy}}, timeout: 5min}
"""
    station = station_of(tmp_path, lines)
    assert [place.scanner for place in station.positions] == ["gate", "gate"]
    assert all(isinstance(place.end, Edge) for place in station.positions)


def test_scan_in_scan_out_with_commands(tmp_path: Path) -> None:
    lines = """
identity: {when: before, scan: gate, labels: [unit]}
cycle: {end: {scan: exit}, timeout: 5min}
commands: {scan: exit, labels: [sheet], operator: true}
"""
    station = station_of(tmp_path, lines)
    assert (station.positions[0].end, station.positions[0].out) == (None, "exit")
    assert station.commands == Commands({1: "exit"}, frozenset({"sheet"}), True)


BEFORE = "identity: {when: before, scan: gate, labels: [unit]}\n"
AFTER = "identity: {when: after, scan: gate, labels: [unit]}\n"
IN_DATA = "identity: {when: in_data, tag: press.sn}\n"


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        (AFTER, "identity.when", "after needs a trigger"),
        (AFTER + "cycle: {end: {scan: exit}}", "identity.when", "after needs a trigger"),
        (IN_DATA + "cycle: {end: {next_scan: true}}", "identity.when", "in_data needs a trigger"),
        (AFTER + "cycle: {end: {message: press.state}}", "cycle.end.message", "may come after the scan"),
        (BEFORE + f"cycle: {{start: {{tag: press.busy}}, end: {SHAKE}}}", "cycle.start", "a scan opens the cycle"),
        (BEFORE + "cycle: {end: {message: press.state}, min_time: 1s}", "cycle.end.message", "again and again"),
        (BEFORE + "cycle: {end: {message: press.state}}", "cycle.end.message", "may come after the next scan"),
        (BEFORE + "cycle: {end: {scan: gate}}", "cycle.end.scan", "scans the units in"),
        (BEFORE + "cycle: {end: {scan: exit, next_scan: true}}", "cycle.end", "exactly one way to end"),
        (BEFORE + "cycle: {end: {scan: exit, key: press.count}}", "cycle.end", "key belongs to message"),
        (BEFORE + "commands: {scan: gate, labels: [unit]}", "commands.labels.0", "gives no command"),
        (BEFORE + "commands: {scan: gate, labels: [shet]}", "commands.labels.0", "no label rule is named 'shet'"),
        (BEFORE + "commands: {scan: press, labels: [sheet]}", "commands.scan", "press is no scanner"),
        (BEFORE + "attempts: {max: 0}", "attempts.max", ""),
        ("identity: {when: before, scan: gate, max_wait: 3s}", "identity.max_wait", "belongs to when: after"),
        ("identity: {when: before, scan: gate, known: true}", "identity.known", "opens a cycle whoever"),
        ("identity: {when: after, labels: [unit], scan: gate, tag: press.sn}\n" + f"cycle: {{end: {SHAKE}}}",
         "identity.tag", "belongs to when: in_data"),
        (IN_DATA + f"cycle: {{start: {{tag: press.count}}, end: {SHAKE}}}", "cycle.start.tag", "must be polled"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told(tmp_path: Path, lines: str, key: str, words: str) -> None:
    found = [one for one in problems_of(tmp_path, lines) if one.key == f"stations.OP20.{key}"]
    assert [one for one in found if words in one.what], [(one.key, one.what) for one in problems_of(tmp_path, lines)]
    assert all(one.hint for one in found)


def test_two_stations_cannot_have_one_reader_of_commands(tmp_path: Path) -> None:
    commands = "commands: {scan: exit, labels: [sheet]}\n"
    second = ["step: test", *IN_DATA.splitlines(), f"cycle: {{end: {SHAKE}}}", commands]
    found = problems_of(tmp_path, BEFORE + commands + "\n".join(["\b\bOP30:", *second]))
    assert ["exit is the reader of commands" in one.what for one in found] == [True]
