"""`trace` on a data_dir that the real binder and the real buffer have written, from a scripted shift."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import cli, i18n
from edge_agent.binding import Binder, ReadGroup
from edge_agent.buffer import open_buffer
from edge_agent.cli import ExitCode
from edge_agent.config import Config, load
from edge_agent.model import Instant, Kind, Record, Sample, Scan, Value

CONFIG = """
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
devices:
  press:
    driver: simulated
    groups:
      state: {poll: 100ms, tags: {done: {wave: square}, temp: {unit: °C, store: always}, order: {wave: count}}}
      result: {on_trigger: true, tags: {force: {unit: kN}, travel: {unit: mm}, ok: {wave: square}}}
  gate: {driver: scanner, port: /dev/null, frame: {end: "\\r"}}
stations:
  OP20:
    step: press-fit
    identity: {when: before, scan: gate, pattern: '^(?P<serial>SN[0-9]{8})$'}
    cycle: {end: {tag: press.done, read: press.result}, timeout: 5min}
    collect:
      peak_force: {tag: press.force, required: true, limits: [10, 20]}
      travel: {tag: press.travel, required: true}
    result: {tag: press.ok}
    context: {work_order: {tag: press.order}}
"""


class Shift:
    """Feeds a binder and a buffer as the agent's line does, at instants of its own."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.buffer = open_buffer(config.agent.data_path, config.agent.id, config.buffer)
        self.binder = Binder(config.plan, self.buffer.log, config.id, self.buffer.lookup, self.buffer.restored())
        self.now = Instant(time.time_ns() - 60 * 10**9, time.monotonic_ns() - 60 * 10**9)
        self.groups = {g.tagset.source: g.tagset for d in config.devices.values() for g in d.shape.groups.values()}
        records = [Record(Kind.CONFIG, "agent", self.now, config.describe())]
        for source, tagset in self.groups.items():
            records.append(Record(Kind.TAGSET, source, self.now, {"tagset": tagset.id} | tagset.describe()))
        self.buffer.append(records)
        self._take(self.binder.start(self.now, self.buffer.next_seq))

    def _take(self, outcome: object) -> list[str]:
        if outcome.records:  # type: ignore[attr-defined]
            self.buffer.append(outcome.records)  # type: ignore[attr-defined]
        return [effect.group for effect in outcome.effects if isinstance(effect, ReadGroup)]  # type: ignore[attr-defined]

    def wait(self, seconds: float = 0.1) -> None:
        step = int(seconds * 1e9)
        self.now = Instant(self.now.at_ns + step, self.now.mono_ns + step)

    def sample(self, source: str, *values: Value) -> None:
        self.wait()
        sample = Sample(self.groups[source], self.now, self.now.mono_ns - 5_000_000, values)
        self._take(self.binder.on_sample(sample, self.buffer.next_seq))

    def scan(self, text: str) -> None:
        self.wait()
        self._take(self.binder.on_scan(Scan("gate", self.now, text.encode()), self.buffer.next_seq))

    def unit(self, serial: str, force: Value, travel: Value, ok: bool) -> None:
        """One unit through the press: scanned, pressed, read."""
        self.scan(serial)
        self.sample("press.state", False, 21.5, 4711)
        for _ in range(6):
            self.wait(0.4)
            self.sample("press.state", False, 21.75, 4711)
        self.sample("press.state", True, 22.0, 4711)
        self.sample("press.result", force, travel, ok)
        self.sample("press.state", False, 22.0, 4711)


def _work(config: Config, story: Callable[[Shift], None]) -> None:
    async def run() -> None:
        shift = Shift(config)
        shift.sample("press.state", False, 21.0, 4711)
        story(shift)
        await shift.buffer.close()

    asyncio.run(run())


def _story(shift: Shift) -> None:
    shift.unit("SN00000017", 14.25, 3.5, True)
    shift.unit("SN00000018", 22.125, 3.5, False)
    shift.unit("SN00000019", 15.0, None, True)
    shift.unit("SN00000018", 15.5, 3.5, True)  # reworked
    shift.scan("a label of something else")
    shift.scan("SN00000020")
    shift.sample("press.state", False, 21.0, 4711)


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    path = folder / "config.yaml"
    path.write_text(CONFIG.replace("DATA", str(folder / "data")), encoding="utf-8")
    _work(load(path), _story)
    return path


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    i18n.use("en")
    monkeypatch.undo()
    time.tzset()


def _run(config_path: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["--config", str(config_path), *arguments])
    return int(end.value.code or 0)


def test_a_units_history_is_told_with_its_evidence(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "SN00000017") == ExitCode.OK
    told = capsys.readouterr().out
    assert "SN00000017" in told
    assert "OP20.1  press-fit" in told
    assert "Passed" in told
    assert "bound → SN00000017" in told
    assert "scan gate 'SN00000017'" in told  # the evidence, as it was read
    assert "work_order 4711" in told
    assert "+08:00" in told
    force = next(line for line in told.splitlines() if line.strip().startswith("peak_force"))
    assert force.split() == ["peak_force", "14.25", "kN", "10", "–", "20", "ok"]


def test_a_rework_shows_both_attempts_and_what_was_wrong(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "SN00000018") == ExitCode.OK
    told = capsys.readouterr().out
    assert told.index("Failed") < told.index("attempt 2") < told.index("Passed")
    assert "22.125" in told
    assert "high" in told


def test_an_incomplete_cycle_says_what_is_missing(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "SN00000019") == ExitCode.OK
    told = capsys.readouterr().out
    assert "incomplete" in told
    assert "missing_field" in told
    assert any(line.split() == ["missing", "travel"] for line in told.splitlines())


def test_an_open_cycle_is_shown_as_open(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "SN00000020") == ExitCode.OK
    assert "… open" in capsys.readouterr().out


def test_readings_are_printed_on_demand(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "SN00000017") == ExitCode.OK
    assert "press.temp" not in capsys.readouterr().out
    assert _run(config_path, "trace", "SN00000017", "--readings") == ExitCode.OK
    told = capsys.readouterr().out
    assert any(line.split()[1:4] == ["press.temp", "21.75", "°C"] for line in told.splitlines())


def test_json_is_whole_and_alone(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "SN00000018", "--json", "--lang", "zh") == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    (unit,) = document["units"]
    assert [cycle["result"] for cycle in unit["cycles"]] == ["Failed", "Passed"]
    assert [cycle["attempt"] for cycle in unit["cycles"]] == [1, 2]
    (force,) = [item for item in unit["cycles"][0]["collected"] if item["name"] == "peak_force"]
    assert (force["value"], force["judgement"]) == (22.125, "high")
    assert int(unit["cycles"][0]["opened_at_ns"]) < int(unit["cycles"][1]["opened_at_ns"])
    assert isinstance(unit["cycles"][0]["opened_at_ns"], str)


@pytest.mark.parametrize("asked", ["SN0000017", "sn00000017", "0017"])
def test_an_unknown_serial_names_those_like_it(
    config_path: Path, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    assert _run(config_path, "trace", asked) == ExitCode.PROBLEM
    told = capsys.readouterr()
    assert told.out == ""
    assert "SN00000017" in told.err


def test_an_unknown_serial_in_json(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "trace", "%", "--json") == ExitCode.PROBLEM
    assert json.loads(capsys.readouterr().out) == {"serial": "%", "units": [], "similar": []}


def test_chinese_columns_stand_below_each_other(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.cells import cell_len

    assert _run(config_path, "trace", "SN00000017", "--lang", "zh") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "kN" in line or line.strip().startswith("travel")]
    head = lines[lines.index(rows[0]) - 1]
    assert "限" in head
    limits = head.index("限")
    assert cell_len(head[:limits]) == cell_len(rows[0][: rows[0].index("10 –")])


def test_no_colour_and_no_box_when_piped(config_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "--config", str(config_path), "trace", "SN00000017"],
        capture_output=True, text=True, timeout=30, check=True, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    assert "\x1b" not in done.stdout


def test_trace_leaves_the_data_dir_as_it_was(config_path: Path) -> None:
    data = config_path.parent / "data"
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    assert _run(config_path, "trace", "SN00000017") == ExitCode.OK
    assert {path.name: path.stat().st_mtime_ns for path in data.iterdir()} == before


def test_status_of_a_stopped_agent(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "status") == ExitCode.UNAVAILABLE
    told = capsys.readouterr().out
    assert told.startswith("DOWN  l3-pc1  stopped since ")
    assert "1 cycle was open" in told
    assert _run(config_path, "status", "--json") == ExitCode.UNAVAILABLE
    facts = json.loads(capsys.readouterr().out)
    assert (facts["overall"], facts["last_run"]["orderly"], facts["last_run"]["open_cycles"]) == ("DOWN", True, 1)


def test_buffer_stats_of_a_stopped_agent(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config_path, "buffer", "stats", "--json") == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["agent_running"] is False
    assert facts["rows"] == facts["last_seq"] > 20
    assert facts["limit_bytes"]
    assert _run(config_path, "buffer", "stats") == ExitCode.OK
    assert str(facts["rows"]) in capsys.readouterr().out


def test_status_works_while_the_config_has_mistakes(
    config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(config_path.read_text().replace("driver: simulated", "driver: simulatde"))
    assert _run(broken, "check") == ExitCode.CONFIG
    assert _run(broken, "status") == ExitCode.UNAVAILABLE
    assert "stopped since" in capsys.readouterr().out


def test_no_buffer_says_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["status"], ["trace", "SN1"], ["buffer", "stats"]):
        assert _run(Path("/nonexistent"), *verb, "--data-dir", str(tmp_path / "empty")) == ExitCode.UNAVAILABLE
        told = capsys.readouterr().err
        assert f"there is no buffer in {tmp_path / 'empty'}" in told
        assert "→" in told


def _taken_up(shift: Shift) -> None:
    shift.scan("SN00000031")
    shift.sample("press.state", False, 21.0, 4711)


def _swapped_while_down(shift: Shift) -> None:
    """The unit of the run before was taken out while nobody watched; the end that is seen is of nobody knows whom."""
    shift.sample("press.state", False, 21.0, 4711)
    shift.sample("press.state", True, 22.0, 4711)
    shift.sample("press.result", 13.0, 3.5, True)


def test_a_cycle_that_nobody_may_claim_is_shown_to_its_candidate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("DATA", str(tmp_path / "data")), encoding="utf-8")
    _work(load(path), _taken_up)
    _work(load(path), _swapped_while_down)
    assert _run(path, "trace", "SN00000031") == ExitCode.OK
    told = capsys.readouterr().out
    assert "observation_gap" in told
    assert "(interrupted)" in told  # its own cycle ends with the gap
    assert "perhaps also: OP20.1 at " in told
    assert "orphan" in told
    assert "13" not in [line.split()[1] for line in told.splitlines() if line.strip().startswith("peak_force")]
    assert _run(path, "trace", "SN00000031", "--json") == ExitCode.OK
    (unit,) = json.loads(capsys.readouterr().out)["units"]
    (undecided,) = unit["undecided"]
    assert (undecided["station"], undecided["binding_state"]) == ("OP20", "orphan")
