"""What somebody types who does this for the first time, and what he is told."""

from __future__ import annotations

import shlex
import subprocess
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
