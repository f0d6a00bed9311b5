"""The rules of this house that no linter knows, kept by reading the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import edge_agent
from edge_agent.driver import Settings, load_driver

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for top in ("edge_agent", "drivers") for path in (ROOT / top).rglob("*.py"))
DRIVERS = ROOT / "drivers" / "edge_agent_drivers"
DEF = ast.FunctionDef | ast.AsyncFunctionDef

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


TREES = {path: tree_of(path) for path in SOURCES}


def tracked() -> list[Path]:
    """Every text file that is in the repository, or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def test_there_is_source_to_read() -> None:
    assert len(SOURCES) > 20


# --- size and words -------------------------------------------------------------------------------------------


def test_a_file_is_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, DEF) and node.end_lineno is not None and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long


def test_modules_are_named_after_what_they_are() -> None:
    vague = re.compile(r"(^|_)(managers?|helpers?|utils?|bases?|commons?|misc|core)($|_)")
    assert not [name_of(path) for path in SOURCES if vague.search(path.stem)]


def test_classes_are_named_after_what_they_are() -> None:
    vague = re.compile(r"(Manager|Helper|Utils?|Base|Common|Impl)$")
    names = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and vague.search(node.name)
    ]
    assert not names


def test_every_module_explains_itself() -> None:
    assert not [name_of(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]


def test_public_functions_and_classes_have_a_docstring() -> None:
    bare = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in tree.body
        if isinstance(node, DEF | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not bare


def annotated(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, name, annotation) of every parameter and attribute outside the settings, whose durations carry a unit."""
    settings = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in settings:
            continue
        if isinstance(node, ast.arg) and node.annotation:
            yield node.lineno, node.arg, ast.unparse(node.annotation)
        elif isinstance(node, ast.AnnAssign):
            yield node.lineno, ast.unparse(node.target).rpartition(".")[2], ast.unparse(node.annotation)


def test_durations_and_sizes_name_their_unit() -> None:
    quantity = re.compile(
        r"(^|_)(timeout|interval|delay|period|duration|elapsed|deadline|age|wait|backoff|linger)$", re.I
    )
    bare = [
        f"{name_of(path)}:{line} {name}: {annotation}"
        for path, tree in TREES.items()
        for line, name, annotation in annotated(tree)
        if quantity.search(name) and re.match(r"(int|float)\b", annotation)
    ]
    assert not bare
    spelled_out = re.compile(r"(_in_|_)(seconds|secs|milliseconds|millis|nanoseconds|nanos|minutes|hours)$", re.I)
    long = [
        f"{name_of(path)}:{line} {name}"
        for path, tree in TREES.items()
        for line, name, _ in annotated(tree)
        if spelled_out.search(name)
    ]
    assert not long


def test_nothing_is_left_to_do_in_a_comment() -> None:
    mark = re.compile(r"#.*\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b")
    found = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path.suffix in {".py", ".toml", ".yaml", ".sh", ".service"}
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if mark.search(line)
    ]
    assert not found


# --- what may fail, and how -----------------------------------------------------------------------------------


def caught(node: ast.ExceptHandler) -> set[str]:
    """The names that a handler catches, the last word of each: asyncio.CancelledError -> CancelledError."""
    if node.type is None:
        return {"BaseException"}
    types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return {ast.unparse(kind).rpartition(".")[2] for kind in types}


def handlers() -> Iterator[tuple[Path, ast.ExceptHandler]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                yield path, node


def raises(node: ast.ExceptHandler) -> bool:
    return any(isinstance(inner, ast.Raise) for statement in node.body for inner in ast.walk(statement))


def test_everything_is_caught_only_where_a_device_is_isolated_and_at_the_end_of_the_command_line() -> None:
    allowed = {"edge_agent/collector.py", "edge_agent/cli/__init__.py"}
    broad = [
        (name_of(path), node.lineno)
        for path, node in handlers()
        if caught(node) & {"Exception", "BaseException"} and not raises(node)
    ]
    assert not [place for place in broad if place[0] not in allowed]
    assert len(broad) <= len(allowed), broad


def test_cancelling_is_never_swallowed() -> None:
    swallowed = [
        f"{name_of(path)}:{node.lineno}"
        for path, node in handlers()
        if caught(node) & {"CancelledError", "BaseException"} and not raises(node)
    ]
    assert not swallowed


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_only_the_command_line_and_the_demo_print() -> None:
    speaking = (ROOT / "edge_agent" / "cli", ROOT / "edge_agent" / "demo")
    printing = [
        f"{name_of(path)}:{line}"
        for path, tree in TREES.items()
        if not any(path.is_relative_to(place) for place in speaking)
        for line, call in calls(tree)
        if call in {"print", "sys.stdout.write"}
    ]
    assert not printing


def test_nothing_blocks_the_loop_by_sleeping() -> None:
    sleeping = [
        f"{name_of(path)}:{line}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
        for line, call in calls(node)
        if call in {"time.sleep", "os.fsync", "os.system", "subprocess.run"}
    ]
    assert not sleeping


def test_nothing_waits_by_spinning() -> None:
    spinning = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.While)
        and any(ast.unparse(inner) == "asyncio.sleep(0)" for inner in ast.walk(node) if isinstance(inner, ast.Call))
    ]
    assert not spinning


def test_only_the_clock_reads_the_wall_clock() -> None:
    # what is recorded has one source of time; what a person is shown, and a consumer, may ask for itself
    allowed = {"edge_agent/clock.py"}
    showing = [ROOT / "edge_agent" / name for name in ("cli", "demo", "receiver")]
    reading = [
        f"{name_of(path)}:{line} {call}"
        for path, tree in TREES.items()
        if name_of(path) not in allowed and not any(path.is_relative_to(place) for place in showing)
        for line, call in calls(tree)
        if call in {"time.time_ns", "time.time", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
    ]
    assert not reading


# --- what the repository says -----------------------------------------------------------------------------------


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    words = ["/wo" + "rk/", "/fa" + "rm/", "/ro" + "ot/", "py" + "pi.org", "pythonhos" + "ted", "/home/" + "runner"]
    pattern = re.compile("|".join(map(re.escape, words)))
    installer = ROOT / "deploy" / "install.sh"  # refuses interpreters in homes, and so names them
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        if path != installer
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_no_comment_cites_an_issue_number() -> None:
    cite = re.compile(r"(issue|ticket|pull request|PR|see|fixes)\s+#\d+", re.I)
    assert not [name_of(path) for path in SOURCES if cite.search(path.read_text())]


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in tracked():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.S)):
            file, _hash, heading = target.partition("#")
            page = path.parent / file if file else path
            if "://" in file:
                continue
            if not page.exists() or (heading and page.suffix == ".md" and heading not in anchors(page)):
                broken.append(f"{name_of(path)}: {target}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings, spelled as forges do."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_a_readme_leads_to_every_page(readme: str) -> None:
    text = (ROOT / readme).read_text()
    assert not [name_of(page) for page in (ROOT / "docs").glob("*.md") if f"({name_of(page)})" not in text]


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert edge_agent.__version__ == version
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog


def test_the_two_readmes_say_the_same_things() -> None:
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))

    def outline(text: str) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.S), re.M)]

    def commands(text: str) -> list[str]:
        blocks = re.findall(r"```(?:sh|bash|console|shell)\n(.*?)```", text, re.S)
        return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]

    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)


def test_the_program_and_the_module_end_with_the_same_exit_code(tmp_path: Path) -> None:
    # a script, systemd and the installer go by it
    arguments = ["--config", str(tmp_path / "missing.yaml"), "check"]
    program = subprocess.run(
        [Path(sys.executable).with_name("edge-agent"), *arguments], capture_output=True, check=False
    )
    module = subprocess.run([sys.executable, "-m", "edge_agent", *arguments], capture_output=True, check=False)
    assert program.returncode == module.returncode != 0


def test_make_helps_with_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())  # type: ignore[index]
    assert phony == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} == phony


# --- drivers and settings -----------------------------------------------------------------------------------------


def driver_folders() -> list[Path]:
    return sorted(path.parent for path in DRIVERS.glob("*/__init__.py") if path.parent.name != "stream")


@pytest.mark.parametrize("folder", driver_folders(), ids=lambda folder: folder.name)
def test_a_driver_brings_its_manual_and_a_sample(folder: Path) -> None:
    assert (folder / "README.md").is_file()
    assert (folder / "sample.yaml").is_file()
    assert folder.name in {entry.name for entry in entry_points(group="edge_agent.drivers")}


def models_of(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """The model and every settings model that its fields lead to."""
    if model in seen:
        return seen
    seen.add(model)

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            models_of(annotation, seen)
        for inner in getattr(annotation, "__args__", ()):
            visit(inner)

    for field in model.model_fields.values():
        visit(field.annotation)
    return seen


def every_settings_model() -> list[type[BaseModel]]:
    from edge_agent.config import settings as config_settings
    from edge_agent.config.load import SINKS

    roots = [item for item in vars(config_settings).values() if isinstance(item, type) and issubclass(item, Settings)]
    roots += [*SINKS.values(), *(load_driver(folder.name).settings() for folder in driver_folders())]
    found: set[type[BaseModel]] = set()
    for root in roots:
        models_of(root, found)
    return sorted(found, key=lambda model: model.__qualname__)


def test_every_key_of_the_config_is_in_a_manual_or_a_sample() -> None:
    texts = [path.read_text() for place in ("docs", "deploy", "drivers") for path in (ROOT / place).rglob("*.md")]
    texts += [path.read_text() for place in ("docs", "deploy", "drivers") for path in (ROOT / place).rglob("*.yaml")]
    words = set(re.findall(r"\w+", "\n".join([*texts, (ROOT / "README.md").read_text()])))
    missing = {
        f"{model.__name__}.{field.alias or name}"
        for model in every_settings_model()
        for name, field in model.model_fields.items()
        if (field.alias or name) not in words
    }
    assert not missing
