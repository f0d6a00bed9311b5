"""`check`, `schema`, `version` and how things are printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from edge_agent import cli, i18n
from edge_agent.cli import ExitCode, output

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample.yaml"
MISTAKES = """
agent: {idd: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
buffer: {keep: 72}
devices:
  press:
    driver: simulated
    groups: {state: {poll: 100ms, tags: {done: {wave: square}, temp: {unit: °C}}}}
stations:
  OP20:
    step: press-fit
    identity: {when: before, scan: gaet}
    cycle: {end: {tag: press.doen}}
    collect: {peak: {tag: press.temp, requird: true}}
"""


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.setenv("COLUMNS", "160")
    yield
    i18n.use("en")


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


@pytest.fixture
def right(tmp_path: Path) -> Path:
    """The sample config that is installed, its data_dir in a place of ours."""
    text = SAMPLE.read_text(encoding="utf-8").replace("/var/lib/edge-agent", str(tmp_path / "data"))
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.yaml"
    path.write_text(MISTAKES.replace("DATA", str(tmp_path / "data")), encoding="utf-8")
    return path


def test_every_mistake_is_told_at_once_with_line_key_and_hint(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check", str(wrong)) == ExitCode.CONFIG
    told = capsys.readouterr().err
    for place in (
        ":2: agent.idd: ",
        ":3: buffer.keep: ",
        ":11: ",
        ":12: ",
        ":13: stations.OP20.collect.peak.requird: ",
    ):
        assert f"{wrong}{place}" in told
    assert "did you mean press.done?" in told
    assert "did you mean required?" in told
    assert told.splitlines()[-1].startswith(f"{wrong}: ")


def test_mistakes_in_chinese_keep_lines_keys_and_names(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check", str(wrong), "--lang", "zh") == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert f"{wrong}:13: stations.OP20.collect.peak.requird: 未知的键" in told
    assert "press.done" in told
    assert "did you mean" not in told
    assert "处错误" in told


def test_mistakes_as_json(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check", str(wrong), "--json", "--lang", "zh") == ExitCode.CONFIG
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    found = {(problem["line"], problem["key"]): problem["what"] for problem in document["problems"]}
    assert found[13, "stations.OP20.collect.peak.requird"] == "unknown key"


def test_a_right_config_says_what_the_agent_takes_from_it(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check", str(right)) == ExitCode.OK
    told = capsys.readouterr().out
    assert "GB/day" in told
    assert "TB/year" in told
    assert "OK" in told.splitlines()[-1]
    assert _run("check", str(right), "--json") == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert document["estimate"]["gb_per_day"] > 0
    for name, station in document["stations"].items():
        assert name in told
        for position in station["positions"].values():
            assert all(tag in told for tags in position["claims"].values() for tag in tags)
    for name in (*document["devices"], *document["routes"]):
        assert name in told


def test_what_speaks_by_itself_is_not_said_to_wait_for_a_trigger(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = "{pattern: '(?P<force>.+)', tags: {force: {}}}"
    tester = f"{{driver: instrument, port: /dev/ttyS1, protocol: line, groups: {{result: {group}}}}}"
    right.write_text(right.read_text().replace("devices:\n", f"devices:\n  tester: {tester}\n", 1))
    assert _run("--config", str(right), "check") == ExitCode.OK
    assert "result (by itself)" in capsys.readouterr().out


def test_a_data_dir_that_is_a_file_is_a_mistake(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = right.parent / "data"
    data.write_text("a file stands where the directory should be")
    assert _run("check", str(right)) == ExitCode.CONFIG
    lines = right.read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, 1) if str(data) in line)
    assert capsys.readouterr().err.startswith(
        f"{right}:{number}: agent.data_dir: {data} is not a directory\n    → set agent.data_dir to another path\n"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_dir_that_this_user_may_not_write_is_a_warning(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (right.parent / "data").mkdir(mode=0o500)
    assert _run("check", str(right)) == ExitCode.OK
    assert "cannot be written" in capsys.readouterr().out


def test_a_secret_that_is_not_there_is_a_warning(
    right: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = right.read_text(encoding="utf-8")
    route = (
        "routes:\n  mes: {{sink: mqtt, url: 'mqtts://mes', username: a, password: {}, start: now,"
        " send: [cycle_closed]}}\n"
    )
    text = re.split(r"^routes:", text, flags=re.MULTILINE)[0]
    monkeypatch.delenv("MES_PASSWORD", raising=False)
    right.write_text(text + route.format("{env: MES_PASSWORD}"), encoding="utf-8")
    assert _run("check", str(right)) == ExitCode.OK
    told = capsys.readouterr().out
    assert "routes.mes.password: environment variable MES_PASSWORD is not set" in told
    assert "export MES_PASSWORD=…; for the service write MES_PASSWORD=… into /etc/edge-agent/environment" in told
    monkeypatch.setenv("MES_PASSWORD", "secret")
    assert _run("check", str(right)) == ExitCode.OK
    assert "MES_PASSWORD" not in capsys.readouterr().out
    right.write_text(text + route.format("{file: /nope/mes}"), encoding="utf-8")
    assert _run("check", str(right)) == ExitCode.OK
    told = capsys.readouterr().out
    assert "routes.mes.password: /nope/mes: No such file or directory" in told
    (right.parent / "latin").write_bytes(b"\xfc\n")
    right.write_text(text + route.format(f"{{file: {right.parent / 'latin'}}}"), encoding="utf-8")
    assert _run("check", str(right)) == ExitCode.OK
    assert "latin holds no text" in capsys.readouterr().out


def test_check_leaves_no_trace(right: Path) -> None:
    before = sorted(right.parent.rglob("*"))
    assert _run("check", str(right)) == ExitCode.OK
    assert sorted(right.parent.rglob("*")) == before


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check", str(tmp_path / "none.yaml")) == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n")
    assert "Traceback" not in told


def test_schema_is_a_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("schema") == ExitCode.OK
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"agent", "devices", "stations", "routes"} <= schema["properties"].keys()


def test_version_names_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("version", "--json") == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert {"modbus", "scanner", "simulated"} <= set(facts["drivers"])
    assert _run("version") == ExitCode.OK
    told = capsys.readouterr().out
    assert facts["edge_agent"] in told
    assert "SQLAlchemy" in told
    assert facts["sqlite"] in told


# --- how it is printed -----------------------------------------------------------------------------------------


def test_what_a_label_holds_cannot_steer_the_terminal() -> None:
    assert output.plain("SN\x1b[2J\x07\x9b1") == "SN\\x1b[2J\\x07\\x9b1"
    assert output.plain("序列号 °C\n") == "序列号 °C\n"


def test_brackets_in_a_cell_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    rows = output.table("A", "B")
    output.add_row(rows, "SN[red]1", "x[/]")
    output.console().print(rows)
    assert "SN[red]1" in capsys.readouterr().out


def test_wide_signs_align(capsys: pytest.CaptureFixture[str]) -> None:
    rows = output.table("名称", "B")
    output.add_row(rows, "压机", "1")
    output.add_row(rows, "press", "2")
    output.console().print(rows)
    lines = capsys.readouterr().out.splitlines()
    assert {cell_len(line[: line.index(sign)]) for line, sign in zip(lines, "B12", strict=True)} == {7}


def test_a_long_line_is_not_cut_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(output.console(), "x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0424, "42 ms"), (61, "61 s"), (600, "10 min"), (7300, "2 h"), (3 * 86400, "3 d"), (None, "–")],
)
def test_a_length_of_time_in_words(seconds: float | None, text: str) -> None:
    assert output.span(seconds) == text


@pytest.mark.parametrize(("n_bytes", "text"), [(999, "999 B"), (1500, "1.5 kB"), (20e9, "20.0 GB"), (3e12, "3.0 TB")])
def test_a_size_in_words(n_bytes: float, text: str) -> None:
    assert output.size(n_bytes) == text


def test_an_instant_keeps_its_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert output.local_time("1795293977820854877") == "2026-11-22 04:46:17.820+08:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_how_units_come_and_go_is_told_of_every_strategy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        r"""
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /nowhere}
devices:
  dial: {driver: simulated, groups: {state: {poll: 50ms, tags: {index: {wave: square}}}}}
  entry: {driver: scanner, port: /dev/null}
  in: {driver: scanner, port: /dev/zero}
  out: {driver: scanner, port: /dev/full}
registers: {table: {index: dial.index, slots: 4, entry: entry}}
stations:
  SCREW: {step: screw, identity: {when: before, slot_of: table, slot: 2}}
  OVEN: {step: cure, capacity: 1, identity: {when: before, scan: in}, cycle: {end: {scan: out}}}
""".lstrip(),
        encoding="utf-8",
    )
    assert _run("check", str(path), "--json") == ExitCode.OK
    stations = json.loads(capsys.readouterr().out)["stations"]
    said = {name: station["positions"]["1"] for name, station in stations.items()}
    assert [(one["identified_by"], one["ends_with"], one["end_tag"]) for one in said.values()] == [
        ("table.2", "step", "dial.index"), ("in", "scan_out", "out"),
    ]  # fmt: skip
    assert _run("check", str(path)) == ExitCode.OK
    told = capsys.readouterr().out
    assert "the next step of dial.index" in told and "a scan of out" in told
