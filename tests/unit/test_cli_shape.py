"""The command line as a whole: documented, light, and kind when something goes wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli, i18n
from edge_agent.cli import ExitCode

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def _commands(verb: str) -> Iterator[tuple[str, Any]]:
    """What of a verb does something: ("check", command), or ("buffer stats", command) ... for a verb with verbs."""
    command = cli.load(verb)
    children: Mapping[str, Any] = getattr(command, "commands", {})
    if children:
        yield from ((f"{verb} {name}", child) for name, child in children.items())
    else:
        yield verb, command


def _section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOC, re.DOTALL | re.MULTILINE)
    assert found, f"docs/cli.md has no section ## {heading}"
    return found[1]


def _documented(section: str) -> set[str]:
    """The options and arguments in the first column of the section's tables."""
    return {match[1] for match in re.finditer(r"^\| `(--[a-z-]+|[A-Z]+)[^`]*` \|", section, re.MULTILINE)}


def _declared(command: Any) -> set[str]:
    options = {name for param in command.params for name in param.opts if name.startswith("--")}
    arguments = {
        str(param.metavar or param.name).upper() for param in command.params if param.param_type_name == "argument"
    }
    return options | arguments


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_of_a_verb_is_documented_and_no_other(verb: str) -> None:
    for name, command in _commands(verb):
        assert _documented(_section(name)) == _declared(command)


def test_every_verb_has_a_section_and_every_section_a_verb() -> None:
    headings = set(re.findall(r"^## ([a-z].*)$", DOC, re.MULTILINE))
    assert headings == {name for verb in cli.VERBS for name, _command in _commands(verb)}


def test_the_global_options_are_documented() -> None:
    assert _documented(_section("Options of every verb")) == _declared(cli.root()) | {"--help"}


def test_the_exit_codes_are_documented() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", _section("Exit codes"), re.MULTILINE)}
    assert codes == {int(code) for code in ExitCode}


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert _main("--help") == ExitCode.OK
    listed = {line.strip("│ ").partition(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert set(cli.VERBS) <= listed


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_and_option_says_what_it_is(verb: str) -> None:
    for name, command in _commands(verb):
        assert command.help, name
        for param in command.params:
            assert getattr(param, "help", "x"), f"{name}: {param.opts}"


def test_help_in_chinese_is_not_cut_off() -> None:
    program = (
        "import contextlib, sys\n"
        "from edge_agent import cli\n"
        "for name in sys.argv[1:]:\n"
        "    print('=', name, flush=True)\n"
        "    sys.argv = ['edge-agent', *name.split(), '--help']\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main()\n"
    )
    names = [name for verb in cli.VERBS for name, _command in _commands(verb)]
    environment = os.environ | {"LANGUAGE": "zh", "COLUMNS": "80"}
    command = [sys.executable, "-c", program, *names]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout
    pages = dict(zip(names, shown.split("= ")[1:], strict=True))
    assert not [name for name, page in pages.items() if not re.search("[一-鿿]{3}", page)]
    assert not [name for name, page in pages.items() if "…" in page]


def test_run_loads_neither_rich_nor_the_other_verbs() -> None:
    program = (
        "import sys; from edge_agent import cli; cli.root(); cli.load('run');"
        "import edge_agent.agent, edge_agent.config;"
        "heavy = [name for name in sys.modules if name.split('.')[0] in ('rich', 'sqlite_utils', 'iotcore')];"
        "verbs = [name for name in sys.modules if name.startswith('edge_agent.cli.') and name != 'edge_agent.cli.run'];"
        "print(heavy, verbs)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[] []"


# --- the way in and out --------------------------------------------------------------------------------------


def _main(*arguments: str) -> int:
    """The exit code of one invocation in this process."""
    try:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
    finally:
        i18n.use("en")
    return int(end.value.code or 0)


def test_global_options_may_stand_before_or_after_the_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGUAGE", "en")
    missing = str(tmp_path / "nowhere.yaml")
    told = []
    for arguments in (
        ["--config", missing, "status"],
        ["status", "--config", missing],
        ["status", f"--config={missing}"],
    ):
        assert _main(*arguments) == ExitCode.CONFIG
        told.append(capsys.readouterr().err)
    assert missing in told[0]
    assert told[0] == told[1] == told[2]


def test_the_config_may_come_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_CONFIG", str(tmp_path / "from-env.yaml"))
    assert _main("check") == ExitCode.CONFIG
    assert "from-env.yaml" in capsys.readouterr().err


def test_a_misspelled_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("--lang", "en", "staus") == ExitCode.USAGE
    assert "did you mean `edge-agent status`?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--nope"], ["check", "--nope"], ["trace"], ["--lang", "fr", "version"]])
def test_a_wrong_command_line_exits_2(arguments: list[str]) -> None:
    assert _main(*arguments) == ExitCode.USAGE


def test_an_unexpected_error_is_one_line_and_a_way_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(verb: str) -> Any:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(cli, "load", broken)
    assert _main("--lang", "en", "version") == ExitCode.PROBLEM
    told = capsys.readouterr().err
    assert "ZeroDivisionError: a fault of ours" in told
    assert "--debug" in told
    assert "Traceback" not in told
    assert _main("--debug", "version") == ExitCode.PROBLEM
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error() -> None:
    """`edge-agent schema | head -1`: the schema is longer than a pipe holds."""
    command = f"{sys.executable} -m edge_agent schema | head -c 10"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("{")


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "nope"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == ExitCode.USAGE
