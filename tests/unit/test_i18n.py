"""The Chinese catalogue is whole, and translating never breaks a message.

What has to be in it is read from the source: what `_()` and `ngettext()` wrap, the words that are translated by value
(states, results, kinds ...), and the texts of errors, hints, reasons and findings, f-strings as templates with ``{}``
for each hole. ``python tests/unit/test_i18n.py`` prints what is missing, ready to be pasted into the catalogue.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edge_agent import i18n
from edge_agent.errors import ConfigError, DeviceRefused, EdgeAgentError, Problem
from edge_agent.model import BindingState, Kind, Result

ROOT = Path(__file__).parents[2]
PO = i18n.po_path("zh_CN")

# Modules in which every text of several words is meant for people.
WORDY = (
    "edge_agent/binding",
    "edge_agent/config",
    "edge_agent/routes/settings.py",
    "edge_agent/routes/tls.py",
    "edge_agent/routes/verdicts.py",
    "edge_agent/buffer/settings.py",
    "edge_agent/driver.py",
    "drivers",
)
# Modules of which errors, hints, reasons and findings are.
ERRORS = ("edge_agent",)
NOT_FOR_PEOPLE = re.compile(
    r"^(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|PRAGMA|BEGIN|WITH) |^https?://|\n|^\| "
    # what ruamel says, to be recognised:
    r"|^%Y-|^SSL: |^not yet valid$"  # for strftime, and what OpenSSL says
    r"|^(unknown escape|found unexpected end of stream|mapping values are not allowed|expected ',' or|end of stream"
    r"|did not find expected|expected <block end>|could not find expected|cannot start any token|quoted scalar"
    r"|expected the node content|NO READ|No response)"
)
_ERROR = re.compile(
    r"(Error|Problem|Missing|Rejected|Refused|Lost|Unavailable|Corrupt|Displaced|Busy|Full|Unread|Isolated|NotRunning|UnknownDriver|Notice)$"
)
_TEXT_NAMES = {"what", "hint", "reason", "torn", "text"}
_TEXT_CALLS = {"add", "_report", "_stop", "refuse", "_error", "report", "note"}

# Words that reach `_()` as values, by where they come from.
STATES = (
    "running", "stopping", "stopped", "connected", "connecting", "faulted", "isolated",  # agent, devices
    "open", "interrupted", "closed",  # cycles
    "starting", "waiting", "refused", "detached", "delivered", "handed over",  # routes
    "cycles", "scans", "rescans", "bounces", "no_read", "garbage", "unmatched", "doubles", "resumed", "empty",  # counts
    "unknown", "idle", "reading", "committing", "acknowledged",  # handshake
    "handshake", "edge", "next_scan", "timeout", "interrupted",  # what closed a cycle
    "scan_out", "message", "command", "cancelled", "index", "start", "blocked",  # the same
    "commands", "late_scans", "listening",  # counts, and a tester that is waited for
    "ok", "low", "high", "missing", "bad", "unjudged",  # judgements
    "dropped", "lost", "damaged", "aside", "salvage",  # why records are not there any more
    "OK", "DEGRADED", "DOWN", "device", "route", "buffer", "station",
    "hold", "release", "scrap", "rework", "concession", "released",  # decisions, and what became of one
    "serial", "lot", "package", "part_number", "carrier",  # what is on hold
    "inbound",
    "permit", "block", "live", "cached", "policy", "override",
    "unavailable", "rejected", "flood",  # errors of a device, beside "lost", "refused" and "isolated"
)  # fmt: skip


def _modules(*where: str) -> Iterator[Path]:
    for name in where:
        path = ROOT / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _template(node: ast.AST) -> str | None:
    """The text of a string constant or f-string, ``{}`` for each hole; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def _texts(node: ast.AST) -> Iterator[str]:
    """The texts that an expression may give: itself, the branches of a condition, the parts of a sum."""
    text = _template(node)
    if text is not None:
        yield text
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _texts(node.left)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def wrapped(path: Path) -> Iterator[str]:
    """What `_()` and `ngettext()` translate in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _called(node) == "_":
            yield from _texts(node.args[0])
        elif isinstance(node, ast.Call) and _called(node) == "ngettext":
            yield "\0".join(text for argument in node.args[:2] for text in _texts(argument))


def described(path: Path) -> Iterator[str]:
    """What `--help` says of a verb: the docstring of its command."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            yield ast.get_docstring(node) or ""


def raised(path: Path) -> Iterator[str]:
    """The texts of errors, hints, reasons and findings that a module makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[ast.AST] = []
        if isinstance(node, ast.Call):
            found += [word.value for word in node.keywords if word.arg in _TEXT_NAMES]
            if _ERROR.search(_called(node)) or _called(node) in _TEXT_CALLS:
                found += node.args
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3:
            found += node.value.elts[1:]  # (about, what, hint) of `status`
        elif isinstance(node, ast.Assign) and any(getattr(name, "id", "") in _TEXT_NAMES for name in node.targets):
            found.append(node.value)
        for expression in found:
            yield from _texts(expression)


def spelled(path: Path) -> Iterator[str]:
    """Every text of several words in a module, docstrings aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = _template(node)
        if text is not None and id(node) not in inner | docstrings:
            yield text


def sentences(text: str) -> Iterator[str]:
    """The clauses of a message, which are translated one by one; nothing for what is no sentence."""
    for part in text.split("; "):
        letters = re.sub(r"\{\}|[^A-Za-z]", "", part)
        if " " in part.strip() and len(letters) > 4 and not part.startswith(" ") and not NOT_FOR_PEOPLE.search(part):
            yield part


@cache
def wanted() -> set[str]:
    """Every message that the catalogue must have; plural forms joined by NUL."""
    found = {text for path in _modules("edge_agent/cli", "edge_agent/demo") for text in wrapped(path)}
    found |= {help_ for path in _modules("edge_agent/cli") for help_ in described(path)}
    found |= {part for path in _modules(*WORDY) for text in spelled(path) for part in sentences(text)}
    found |= {part for path in _modules(*ERRORS) for text in raised(path) for part in sentences(text)}
    found |= {*STATES, *(result.value for result in Result), *(state.value for state in BindingState)}
    found |= {kind.label for kind in Kind}
    return found - {""}


@pytest.fixture
def chinese() -> Iterator[None]:
    i18n.use("zh")
    yield
    i18n.use("en")


def test_everything_that_people_read_is_translated() -> None:
    entries = i18n.read_po(PO.read_text(encoding="utf-8"))
    missing = sorted(text for text in wanted() if not entries.get(text))
    assert not missing, "\n".join(missing)


def test_nothing_is_translated_that_nobody_says() -> None:
    entries = i18n.read_po(PO.read_text(encoding="utf-8"))
    assert sorted(set(entries) - wanted() - {""}) == []


def test_a_translation_has_the_holes_of_its_message() -> None:
    named = re.compile(r"\{[a-z_]+(?::[^}]*)?\}")
    for message, translation in i18n.read_po(PO.read_text(encoding="utf-8")).items():
        if "\0" in message:
            assert set(named.findall(message)) == set(named.findall(translation)), message
        elif (count := message.count("{}")) and "{}" in translation:
            assert len(re.findall(r"\{[0-5]?\}", translation)) == count <= 6, message
        elif count:
            assert set(re.findall(r"\{([0-5])\}", translation)) == set(map(str, range(count))), message
        if re.search(r"\{[a-z_]+\}", message) and message in _formatted():
            assert set(named.findall(message)) == set(named.findall(translation)), message


@cache
def _formatted() -> set[str]:
    """Messages that go through str.format, where a misspelled name would raise."""
    return {text for path in _modules("edge_agent/cli", "edge_agent/demo") for text in wrapped(path)}


def test_gettext_accepts_the_catalogue(tmp_path: Path) -> None:
    """GNU's own compiler reads the file as ours does."""
    if shutil.which("msgfmt") is None:
        pytest.skip("msgfmt (Debian's gettext) is not installed")
    done = subprocess.run(
        ["msgfmt", "--check", "-o", str(tmp_path / "zh.mo"), str(PO)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    import gettext

    with (tmp_path / "zh.mo").open("rb") as file:
        theirs = gettext.GNUTranslations(file)
    ours = i18n.catalogue("zh_CN")
    for message in wanted():
        if "\0" not in message:
            assert ours.gettext(message) == theirs.gettext(message)


# --- choosing and translating --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "zh:en"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
    ],
)
def test_the_locale_decides(environ: dict[str, str], language: str) -> None:
    assert i18n.preferred(environ) == language


def test_english_is_the_source_unchanged() -> None:
    i18n.use("fr")
    assert i18n._("STATION") == "STATION"
    assert i18n.ngettext("{count} mistake", "{count} mistakes", 2) == "{count} mistakes"
    assert i18n.translate("no driver named 'modbsu'") == "no driver named 'modbsu'"


@pytest.mark.usefixtures("chinese")
def test_a_finished_message_is_translated_by_its_template() -> None:
    error = EdgeAgentError("no driver named 'modbsu'", hint="installed drivers: modbus, scanner")
    told = i18n.explain(error)
    assert "'modbsu'" in told
    assert "modbus, scanner" in told
    assert "no driver named" not in told
    assert "installed drivers" not in told


@pytest.mark.usefixtures("chinese")
def test_what_stands_in_a_hole_may_look_like_a_hole() -> None:
    assert "'{0} {x}'" in i18n.translate("no driver named '{0} {x}'")


@pytest.mark.usefixtures("chinese")
def test_a_message_that_nobody_foresaw_stays_as_it_is() -> None:
    assert i18n.explain(EdgeAgentError("[Errno 5] ключ", hint="?")) == "[Errno 5] ключ\n  → ?"


@pytest.mark.usefixtures("chinese")
def test_a_device_error_keeps_the_devices_name() -> None:
    assert i18n.explain(DeviceRefused("press", "nobody foresaw this")) == "press: nobody foresaw this"


@pytest.mark.usefixtures("chinese")
def test_a_mistake_keeps_its_line_and_key() -> None:
    told = i18n.explain(ConfigError([Problem("a.yaml", 7, "agent.idd", "unknown key", "did you mean id?")]))
    assert told.startswith("a.yaml:7: agent.idd: ")
    assert "unknown key" not in told
    assert "id" in told


def test_po_strings_may_run_over_lines_and_hold_quotes() -> None:
    text = '#: a.py\nmsgid "a "\n"\\"b\\""\nmsgstr "甲"\n'
    assert i18n.read_po(text)['a "b"'] == "甲"


if __name__ == "__main__":
    known = i18n.read_po(PO.read_text(encoding="utf-8"))
    for entry in sorted(text for text in wanted() if not known.get(text)):
        single, _nul, plural = entry.partition("\0")
        quoted = [f'"{part}"' for part in (single.replace("\\", "\\\\").replace('"', '\\"'), plural)]
        print(f"msgid {quoted[0]}" + (f'\nmsgid_plural {quoted[1]}\nmsgstr[0] ""' if plural else '\nmsgstr ""') + "\n")  # noqa: T201


def test_a_key_that_is_missing_or_out_of_range_is_told_in_whole_sentences(chinese: None) -> None:
    assert i18n.translate("write line: … (production line, e.g. L3)") == "请写 line: …（产线，例如 L3）"
    assert i18n.translate("write a value of at most 255") == "请写至多 255 的值"
