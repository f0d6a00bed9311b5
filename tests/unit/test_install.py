"""The installer without a network: its syntax, its refusals, what it removes; and the locks it trusts.

A whole installation (packages, service files, upgrade, rollback) takes a minute: `make test-install`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
INSTALL = DEPLOY / "install.sh"
SCRIPTS = [*sorted(DEPLOY.glob("*.sh")), *(ROOT / ".ci" / name for name in ("need", "venv", "run"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_can_be_run(script: Path) -> None:
    shell = script.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    assert shell in {"sh", "bash"}
    assert run(shell, "-n", script).stderr == ""
    assert script.stat().st_mode & 0o111


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    assert run("shellcheck", *SCRIPTS).stdout == ""


# --- install.sh -------------------------------------------------------------------------------------------------


def test_help_says_what_goes_where() -> None:
    done = run(INSTALL, "--help")
    assert done.returncode == 0
    for word in ("--wheels", "--python", "--root", "--rollback", "--remove", "--purge", "/opt/edge-agent/", "/var/lib"):
        assert word in done.stdout
    assert "set -eu" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--frobnicate"], "unknown option: --frobnicate"),
        (["--root"], "--root needs a value"),
        (["--purge"], "--purge goes with --remove only"),
        (["--root", "{tmp}", "--python", "/nonexistent/python3"], "no Python at /nonexistent/python3"),
        (["--root", "{tmp}", "--python", "/bin/false"], "needs Python 3.11 or newer"),
        (["--root", "{tmp}", "--wheels", "{tmp}/nowhere"], "no such folder"),
        (["--root", "{tmp}", "--rollback"], "there is no version before"),
    ],
)
def test_a_refusal_says_why_and_leaves_nothing(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run(INSTALL, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    done = run(INSTALL, "--root", tmp_path / "root", "--wheels", tmp_path / "wheels")
    assert done.returncode == 1
    assert "expected exactly one edge_agent-*.whl" in done.stderr


def installed(root: Path) -> Path:
    """What an installation leaves, without the packages."""
    version = root / "opt/edge-agent/0.1.0-12345678"
    files = [
        version / "bin/edge-agent",
        root / "etc/systemd/system/edge-agent.service",
        root / "etc/udev/rules.d/70-edge-agent.rules",
        root / "etc/sysusers.d/edge-agent.conf",
        root / "etc/tmpfiles.d/edge-agent.conf",
        root / "etc/edge-agent/config.yaml",
        root / "var/lib/edge-agent/buffer.db",
        root / "etc/systemd/system/other.service",
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("something")
    (root / "opt/edge-agent/current").symlink_to(version.name)
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/edge-agent").symlink_to("/opt/edge-agent/current/bin/edge-agent")
    return root


def left(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}


def test_removing_keeps_configuration_and_data(tmp_path: Path) -> None:
    done = run(INSTALL, "--remove", "--root", installed(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert left(tmp_path) == {
        "etc/edge-agent/config.yaml",
        "var/lib/edge-agent/buffer.db",
        "etc/systemd/system/other.service",
    }


def test_purging_keeps_only_what_belongs_to_others(tmp_path: Path) -> None:
    done = run(INSTALL, "--remove", "--purge", "--root", installed(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert left(tmp_path) == {"etc/systemd/system/other.service"}


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(INSTALL, "--remove", "--root", tmp_path).returncode == 0
    assert left(tmp_path) == set()


def version(root: Path, name: str) -> None:
    """An installed version, without its packages: the files that come with it say its name."""
    folder = root / "opt/edge-agent" / name
    (folder / "system").mkdir(parents=True)
    (folder / ".complete").touch()
    for file in ("edge-agent.service", "70-edge-agent.rules"):
        (folder / "system" / file).write_text(name)


def test_rollback_swaps_the_two_versions_and_their_service_files(tmp_path: Path) -> None:
    opt = tmp_path / "opt/edge-agent"
    old, new = "0.1.0-aaaaaaaa", "0.2.0-bbbbbbbb"
    version(tmp_path, old)
    version(tmp_path, new)
    (opt / "current").symlink_to(new)
    (opt / "previous").symlink_to(old)
    for current, previous in ((old, new), (new, old)):
        assert run(INSTALL, "--rollback", "--root", tmp_path).returncode == 0
        assert (opt / "current").readlink() == Path(current)
        assert (opt / "previous").readlink() == Path(previous)
        assert (tmp_path / "etc/systemd/system/edge-agent.service").read_text() == current
        assert (tmp_path / "etc/udev/rules.d/70-edge-agent.rules").read_text() == current


@pytest.mark.parametrize("spoil", ["incomplete", "gone", "the same"])
def test_it_does_not_roll_back_to_nothing(spoil: str, tmp_path: Path) -> None:
    opt = tmp_path / "opt/edge-agent"
    old, new = "0.1.0-aaaaaaaa", "0.2.0-bbbbbbbb"
    version(tmp_path, old)
    version(tmp_path, new)
    (opt / "current").symlink_to(new)
    (opt / "previous").symlink_to(new if spoil == "the same" else old)
    if spoil == "incomplete":
        (opt / old / ".complete").unlink()
    if spoil == "gone":
        shutil.rmtree(opt / old)
    done = run(INSTALL, "--rollback", "--root", tmp_path)
    assert done.returncode == 1
    assert "there is no version before" in done.stderr
    assert (opt / "current").readlink() == Path(new)


def test_every_file_that_it_places_is_there_and_is_removed_again() -> None:
    text = INSTALL.read_text()
    placed = re.findall(r"^ +place \S+/system/(\S+)\" (/etc/(?!edge-agent/)\S+)$", text, re.M)
    assert len(placed) == 4
    sources = {path.name for place in (DEPLOY, DEPLOY / "udev", ROOT / "systemd") for path in place.iterdir()}
    removal = text[text.index("do_remove()") :]
    for source, target in placed:
        assert source in sources
        assert f'"$root{target}"' in removal


def test_udev_rules_are_well_formed() -> None:
    assignment = re.compile(
        r'^(ACTION|SUBSYSTEMS?|GOTO|LABEL|GROUP|MODE|SYMLINK|OPTIONS|ENV\{[\w.]+\})(==|!=|\+=|=)"[^"]*"$'
    )
    text = (DEPLOY / "udev" / "70-edge-agent.rules").read_text()
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not [part for rule in rules for part in rule.split(", ") if not assignment.match(part)]
    assert set(re.findall(r'GOTO="(\w+)"', text)) == set(re.findall(r'LABEL="(\w+)"', text))


# --- the locks ----------------------------------------------------------------------------------------------------


def pins(lock: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """(name==version; marker, its hashes) of each entry."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#"))
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = entry.split("--hash=")
            yield Requirement(requirement), [one.strip() for one in hashes]


EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    DEPLOY / "requirements.lock": [*PROJECT["project"]["dependencies"], *EXTRAS["demo"]],
    DEPLOY / "build.lock": PROJECT["build-system"]["requires"],
    ROOT / ".ci" / "dev.lock": [*PROJECT["project"]["dependencies"], *EXTRAS["demo"], *EXTRAS["dev"]],
}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_exact_versions_by_hash_and_names_no_host(lock: Path) -> None:
    for requirement, hashes in pins(lock):
        assert re.fullmatch(r"==[\w.!+]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
    assert "://" not in lock.read_text()
    assert "--index" not in lock.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_a_lock_satisfies_the_project(lock: Path, python: str) -> None:
    machine = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    versions: dict[str, str] = {}
    for requirement, _ in pins(lock):
        if requirement.marker is None or requirement.marker.evaluate(machine):
            name = canonicalize_name(requirement.name)
            assert name not in versions, f"{name} is pinned twice"
            versions[name] = str(requirement.specifier).removeprefix("==")
    for wanted in map(Requirement, LOCKS[lock]):
        if wanted.name != PROJECT["project"]["name"]:
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted


def test_what_is_tested_is_what_is_deployed() -> None:
    tested = {(str(requirement), *hashes) for requirement, hashes in pins(ROOT / ".ci" / "dev.lock")}
    deployed = {(str(requirement), *hashes) for requirement, hashes in pins(DEPLOY / "requirements.lock")}
    assert deployed <= tested
