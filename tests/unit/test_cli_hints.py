"""What somebody types who does this for the first time, and what he is told."""

from __future__ import annotations

import errno
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import cli, i18n
from edge_agent.config import tree

CONFIG = """\
agent: {id: pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
devices:
  press:
    driver: modbus
    connection: tcp://127.0.0.1:1
    groups:
      state: {poll: 100ms, tags: {count: {address: "holding:1"}}}
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("DATA", str(tmp_path)))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The exit code and all that is printed."""
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: object, lang: str = "en") -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["--lang", lang, *map(str, arguments)])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    yield invoke
    i18n.use("en")


def test_a_certificate_is_turned_away_and_not_unreadable(run: Run, tmp_path: Path) -> None:
    code, said = run("opcua", "list", "--pki", tmp_path, lang="zh")
    assert code == 0
    assert "已拒绝" in said
    assert "无法解读" not in said


def test_without_a_file_it_is_told_how_to_begin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fresh PC: what is told can be typed as it stands, and then there is a configuration."""
    path = tmp_path / "edge agent" / "config.yaml"
    code, said = run("--config", path, "check")
    assert code == cli.ExitCode.CONFIG
    typed = said.partition("begin with the sample: ")[2].partition("; or name another file")[0]
    subprocess.run(shlex.split(typed), check=True)
    assert run("--config", path, "check")[0] == cli.ExitCode.OK
    installed = tmp_path / "config.sample.yaml"
    installed.touch()
    monkeypatch.setattr(tree, "INSTALLED_SAMPLE", installed)
    assert f"-m 640 {installed} " in run("--config", tmp_path / "other.yaml", "check")[1]


@pytest.mark.parametrize("group", ["state", "fresh"])
def test_a_mistake_in_a_column_is_told_with_the_tables_line(run: Run, config: Path, tmp_path: Path, group: str) -> None:
    """It was told as a line of the configuration, which nobody had written."""
    table, before = tmp_path / "press.csv", config.read_text()
    table.write_text("name;address;type\nforce;holding:3;int16\n\ntemp;hlding:4;int61\n")
    code, said = run("--config", config, "tags", "import", "press", group, table)
    assert code == cli.ExitCode.CONFIG
    assert f"{table}:4: temp.address: 'hlding:4' is no address" in said
    assert f"{table}:4: temp.type: 'int61' is not allowed here" in said
    assert "config.yaml" not in said
    assert config.read_text() == before
    table.write_text("name;address\ncount;holding:3\n")  # what the configuration has already is its own line
    assert (
        f"{config}: devices.press.groups.state" in run("--config", config, "tags", "import", "press", "state", table)[1]
    )


def test_a_table_whose_every_row_is_wrong_is_not_told_row_by_row(run: Run, config: Path, tmp_path: Path) -> None:
    table = tmp_path / "press.csv"
    table.write_text("name;address;type\n" + "".join(f"t{n};holding:{n};int61\n" for n in range(50)))
    said = run("--config", config, "tags", "import", "press", "state", table)[1]
    assert (said.count("'int61'"), "40 more mistakes" in said) == (10, True)


@pytest.mark.parametrize("verb", [["export", "press"], ["import", "press", "state", "none.csv"]])
def test_an_encoding_that_is_not_known_is_told_in_words(run: Run, config: Path, verb: list[str]) -> None:
    code, said = run("--config", config, "tags", *verb, "--encoding", "gbk")
    assert code in (cli.ExitCode.USAGE, cli.ExitCode.CONFIG)
    assert "no encoding is named 'gbk' here" in said
    assert "Value error" not in said


def test_a_device_of_which_nothing_is_read_is_a_warning(run: Run, config: Path) -> None:
    with config.open("a") as file:
        file.write("  oven: {driver: modbus, connection: tcp://127.0.0.1:2}\n")
        file.write("  cell: {driver: opcua, connection: 'opc.tcp://127.0.0.1:3', security: {policy: None}}\n")
        file.write("  gate: {driver: scanner, port: 'usb:0001:0002'}\n")
        file.write("  lamp: {driver: modbus, connection: tcp://127.0.0.1:4, ")
        file.write("tags: {red: {address: 'coil:1', write: true}}}\n")
    code, said = run("check", config)
    assert code == 0
    assert said.count("nothing is read of it and nothing written") == 2
    assert "edge-agent probe oven ADDRESS --add oven.GROUP.TAG" in said
    assert "edge-agent browse opcua cell" in said


STATION = """\
  robot: {driver: modbus, connection: "tcp://127.0.0.1:2", groups: {state: {poll: 1s, tags: {speed: {address: "input:1"}, n: {address: "input:2"}}}}}
stations:
  OP20:
    step: press-fit
    identity: {when: before, scan: gate}
    cycle: {end: {handshake: {ready: press.count, ack: press.ack, read: press.state, counter: robot.n}}}
    collect: {speed: {tag: robot.speed}}
"""  # noqa: E501


def test_a_tag_is_not_moved_to_another_device(run: Run, config: Path) -> None:
    text = config.read_text() + "    tags: {ack: {address: 'coil:1', write: true}}\n"
    text += "  gate: {driver: scanner, port: 'usb:0001:0002'}\n" + STATION
    config.write_text(text)
    said = run("check", config)[1]
    assert "it is on another device: name a tag of press.state" in said
    config.write_text(text.replace(", counter: robot.n", ""))
    code, said = run("check", config)
    assert code == 0
    assert "it is on another device: have the value copied there, into a tag of press.state" in said
    assert "move " not in said


@pytest.mark.parametrize(("number", "told"), [(errno.EACCES, "with sudo in front"), (errno.ENOSPC, "df -h ")])
def test_a_file_that_cannot_be_written(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    def refuse(**how: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    table = tmp_path / "press.csv"
    table.write_text("name;address\nforce;holding:3\n")
    code, said = run("--config", config, "tags", "import", "press", "state", table)
    assert (code, told in said) == (cli.ExitCode.CONFIG, True)


@pytest.mark.parametrize("address", ["40101", "100.3"])
def test_a_bare_number_is_told_to_be_no_address_at_once(run: Run, config: Path, address: str) -> None:
    """It was first to be put into quotes, and then no address."""
    config.write_text(config.read_text().replace('"holding:1"', address))
    code, said = run("check", config)
    assert code == cli.ExitCode.CONFIG
    assert f"'{address}' is no address" in said
    assert "40101 in a manual is holding:100" in said
    assert "quotes" not in said


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["probe", "modbus", "tpc://1.2.3.4", "100"], "connection: 'tpc://1.2.3.4' does not have the right form"),
        (["probe", "modbus", "tcp://127.0.0.1:99999", "100"], "connection: "),
        (["browse", "opc.tcp://192.168.1.20"], "edge-agent browse opcua opc.tcp://192.168.1.20"),
        (["browse", "press"], "edge-agent browse opcua press"),
        (["browse", "opcua"], "edge-agent browse opcua opc.tcp://192.168.1.20"),
        (["browse", "opcua", "127.0.0.1:1"], "opc.tcp://127.0.0.1:1"),
        (["scan"], "did you mean `edge-agent devices scan`?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_typed_wrong_is_told_with_what_to_type(run: Run, config: Path, typed: list[str], told: str) -> None:
    code, said = run("--config", config, *typed)
    assert code in (cli.ExitCode.USAGE, cli.ExitCode.PROBLEM)
    assert told in said
    assert "→" in said
    assert "pattern" not in said
    assert "no device is named" not in said
