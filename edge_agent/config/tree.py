"""YAML text to a tree of nodes that know their lines, and to the plain data that settings are made of.

One pass over the parser's events builds both: composing nodes and constructing data on top of them costs twice the
time, and a config of a thousand tags must not delay the agent's start. The dialect is YAML 1.2 core (``on``, ``no``
and ``12:30`` are texts), less what a technician's file does not need and what could surprise him: anchors, aliases,
merge keys, explicit types, several documents. Keys are always texts, as written. Bounded: 4 MiB, 20 levels.

Messages never show a value, only keys: the value might be a password.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from edge_agent.errors import ConfigError, Problem

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 20
INSTALLED_SAMPLE = Path("/etc/edge-agent/config.sample.yaml")

PathKey = str | int


@dataclass(slots=True)
class Node:
    """One value of the file. ``line`` is where its key stands (items of a list: where the item begins)."""

    value: Any  # plain data: dict, list, str, int, float, bool, None
    line: int  # 1-based
    text: str | None = None  # of a scalar: as written, without quotes
    children: dict[PathKey, Node] = field(default_factory=dict)
    file: str = ""  # where it stands, if that is another file than the configuration: a table of tags

    def has(self, path: Iterable[PathKey]) -> bool:
        """Whether something is written at ``path``."""
        node: Node | None = self
        for key in path:
            node = node.children.get(key) or node.children.get(str(key)) if node is not None else None
        return node is not None

    def find(self, path: Iterable[PathKey]) -> Node:
        """The node at ``path``, or the deepest one on the way there that exists."""
        node = self
        for key in path:
            child = node.children.get(key) or node.children.get(str(key))
            if child is None:
                break
            node = child
        return node


def read_text(path: Path) -> str:
    """The file's text. Raises ConfigError when it is missing, unreadable, too large or not UTF-8."""

    def refuse(what: str, hint: str, line: int = 0) -> ConfigError:
        return ConfigError([Problem(str(path), line, "", what, hint)])

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = f"begin with the sample: {_copied_to(path)}; or name another file with --config"
        raise refuse(f"cannot be read: {error.strerror}", hint) from error
    except PermissionError as error:
        raise refuse(f"cannot be read: {error.strerror}", "use sudo, or name another file with --config") from error
    except OSError as error:
        hint = "check the path, or name the file with --config"
        raise refuse(f"cannot be read: {error.strerror}", hint) from error
    if len(raw) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES // 2**20} MiB", "is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refuse("is not UTF-8 text", "save it with the encoding UTF-8", line) from error


def _copied_to(path: Path) -> str:
    """What to type to have the sample there: where the installer has put it, or that of the checkout."""
    places = (INSTALLED_SAMPLE, Path(__file__).parents[2] / "deploy" / "sample.yaml")
    sample = next((place for place in places if place.exists()), INSTALLED_SAMPLE)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    sudo = "" if os.access(folder, os.W_OK) else "sudo "
    return f"{sudo}install -D -m 640 {shlex.quote(str(sample))} {shlex.quote(str(path))}"


def parse(text: str, file: str, problems: list[Problem]) -> Node | None:
    """The tree of ``text``; None when its syntax is broken. Adds what it finds to ``problems``."""
    builder = _Builder(file, problems)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        problems.append(_syntax_problem(error, text.splitlines(), file))
        return None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(
            Problem(file, line, "syntax", "holds a character that is not text", "delete or retype the line")
        )
        return None
    except _Stop:
        return None
    return builder.root or Node({}, 1)


# --- building ------------------------------------------------------------------------------------------------

_NUMBER_START = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def plain_value(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Stop(Exception):
    """The rest of the file cannot be understood; the problem is already noted."""


class _Builder:
    """Takes the parser's events in their order; the open containers are on a stack."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.root: Node | None = None
        self._file = file
        self._problems = problems
        self._open: list[Node] = []
        self._keys: list[tuple[str, int] | None] = []  # per open container: the key that waits for its value
        self._trail: list[str] = []  # per open container: the key it stands under
        self._take: dict[str, Callable[[Any], None]] = {
            "ScalarEvent": self._scalar,
            "MappingStartEvent": lambda event: self._begin(event, {}),
            "SequenceStartEvent": lambda event: self._begin(event, []),
            "MappingEndEvent": lambda event: self._end(),
            "SequenceEndEvent": lambda event: self._end(),
            "AliasEvent": self._alias,
            "DocumentStartEvent": self._document,
        }

    def take(self, event: Any) -> None:
        action = self._take.get(type(event).__name__)
        if action is not None:
            action(event)

    def _scalar(self, event: Any) -> None:
        line = event.start_mark.line + 1
        self._check(event, line)
        text: str = event.value
        if self._open and self._keys[-1] is None and isinstance(self._open[-1].value, dict):
            self._key(text, line)
        else:
            self._add(Node(plain_value(text) if event.implicit[0] else text, line, text))

    def _begin(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        line = event.start_mark.line + 1
        self._check(event, line)
        if self._open and self._keys[-1] is None and isinstance(self._open[-1].value, dict):
            self._stop(line, "a key must be a text", "put the key in quotes, or check the brackets")
        if len(self._open) >= MAX_DEPTH:
            self._stop(line, f"is nested more than {MAX_DEPTH} levels deep", "check the brackets")
        node = Node(value, line)
        waiting = self._keys[-1] if self._keys else None
        self._trail.append(waiting[0] if waiting else str(len(self._open[-1].value)) if self._open else "")
        self._add(node)
        self._open.append(node)
        self._keys.append(None)

    def _end(self) -> None:
        self._open.pop()
        self._keys.pop()
        self._trail.pop()

    def _key(self, text: str, line: int) -> None:
        known = self._open[-1].children.get(text)
        if known is not None:
            what = f"the key stands here twice (first on line {known.line})"
            self._report(line, what, "delete or rename one of them", text)
        self._keys[-1] = (text, line)

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.children[len(parent.value)] = node
            parent.value.append(node.value)
            return
        key, line = self._keys[-1] or ("", node.line)
        node.line = line
        self._keys[-1] = None
        if key not in parent.children:  # of two the first counts; the other is reported
            parent.children[key] = node
            parent.value[key] = node.value

    def _check(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            self._report(line, "anchors (&name) are not used here", "write the value out")
        if event.tag is not None:
            self._report(line, "explicit types (!name) are not used here", "write the plain value")

    def _alias(self, event: Any) -> None:
        self._stop(event.start_mark.line + 1, "aliases (*name) are not used here", "write it out, or put it in quotes")

    def _document(self, event: Any) -> None:
        if self.root is not None:
            self._stop(event.start_mark.line + 1, "a second document begins (---)", "keep one document a file")

    def _report(self, line: int, what: str, hint: str, *more: str) -> None:
        waiting = self._keys[-1] if self._keys else None
        path = [*self._trail[1:], *((waiting[0],) if waiting else ()), *more]
        self._problems.append(Problem(self._file, line, ".".join(path) or "file", what, hint))

    def _stop(self, line: int, what: str, hint: str) -> None:
        self._report(line, what, hint)
        raise _Stop


# --- syntax errors in plain words ----------------------------------------------------------------------------

_SYNTAX: Sequence[tuple[str, str, str]] = (
    ("unknown escape", "a backslash in double quotes begins an escape", r"use single quotes: '^SN\d{8}$'"),
    ("found unexpected end of stream", "a quote is opened and not closed", "close the quote on the same line"),
    ("mapping values are not allowed", "a colon stands where none can",
     "check the indentation here and above; put a text that holds ': ' in quotes"),
    ("expected ',' or '}'", "a { is not closed, or a comma is missing", "separate by commas and close with }"),
    ("expected ',' or ']'", "a [ is not closed, or a comma is missing", "separate by commas and close with ]"),
    ("did not find expected ',' or '}'", "a { is not closed, or a comma is missing", "close with }"),
    ("expected <block end>", "the indentation fits no line above", "align it with its neighbours, using spaces"),
    ("could not find expected ':'", "a key without its colon", "write `key: value`"),
    ("cannot start any token", "a text begins with a special character", "put it in quotes"),
    ("expected the node content", "a value is missing or begins with a special character", "put it in quotes"),
)  # fmt: skip


def _syntax_problem(error: MarkedYAMLError, lines: list[str], file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    text = f"{error.problem or ''} {error.context or ''}"
    opened = ("quoted scalar" in text and "end of stream" in text) or "expected ',' or" in text
    if opened and error.context_mark is not None:
        mark = error.context_mark  # where the quote or bracket was opened: the end is only noticed far below
    number = mark.line + 1 if mark is not None else 0
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or ("token" in text and "\\t" in text):
        return Problem(file, number, "syntax", "a tab in the indentation", "use spaces only")
    for pattern, what, hint in _SYNTAX:
        if pattern in text:
            return Problem(file, number, "syntax", what, hint)
    return Problem(file, number, "syntax", error.problem or "is not YAML", "check this line and the one above")
