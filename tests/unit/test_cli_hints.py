"""What somebody types who does this for the first time, and what he is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import cli, i18n

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
