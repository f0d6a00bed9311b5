"""The YAML dialect of the config: 1.2, with lines, and broken syntax told in plain words."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from edge_agent.config.tree import MAX_BYTES, Node, parse, plain_value, read_text
from edge_agent.errors import ConfigError, Problem


def parsed(text: str) -> tuple[Node | None, list[Problem]]:
    problems: list[Problem] = []
    return parse(text, "agent.yaml", problems), problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("no", "no"), ("yes", "yes"), ("12:30", "12:30"), ("1_000", "1_000"), ("~", None), ("", None),
        ("True", True), ("false", False), ("007", 7), ("0o17", 15), ("0x1F", 31), ("-3", -3), ("1e3", 1000.0),
        (".5", 0.5), ("-.inf", -math.inf), ("1.2.3", "1.2.3"), ("3.1.1", "3.1.1"), ("-", "-"),
        ("2026-01-01", "2026-01-01"), ("9" * 30, 1e30),
    ],
)  # fmt: skip
def test_an_unquoted_value_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_quotes_make_a_text_and_keys_are_always_texts() -> None:
    root, problems = parsed("a: '5'\n1: \"true\"\ntrue: 5\n")
    assert root is not None
    assert root.value == {"a": "5", "1": "true", "true": 5}
    assert not problems


def test_lines_are_those_of_the_keys() -> None:
    root, _ = parsed("a:\n  b:\n    - 1\n\n    - {c: 2,\n       d: 3}\n  e: |\n    text\n")
    assert root is not None
    lines = {path: root.find(path).line for path in [("a",), ("a", "b"), ("a", "b", 1), ("a", "b", 1, "d"), ("a", "e")]}
    assert list(lines.values()) == [1, 2, 5, 6, 7]
    assert root.find(("a", "nowhere", "below")).line == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\tb: 1\n", 2, "tab"),
        ('a: 1\nb: "^SN\\d+$"\n', 2, "single quotes"),
        ("a: 1\nb: 'open\nc: 2\n", 2, "not closed"),
        ("a: 1\nb: {c: 1\nd: 2\n", 2, "not closed"),
        ("a: 1\nb: c: d\n", 2, "colon"),
        ("a:\n    b: 1\n  c: 2\n", 3, "indentation"),
        ("a: 1\nb: @x\n", 2, "quotes"),
        ("a: 1\nb: x\0y\n", 2, "not text"),
        ("a: 1\nb: &x 1\n", 2, "anchors"),
        ("a: 1\nb: *x\n", 2, "aliases"),
        ("a: 1\nb: !!int 1\n", 2, "explicit types"),
        ("a: 1\n<<: {b: 2}\na: 2\n", 3, "twice (first on line 1)"),
        ("a: 1\n--- \nb: 2\n", 2, "second document"),
        ("a: 1\n? [x]\n: 1\n", 2, "key must be a text"),
        ("a: " + "[" * 3000, 1, "deep"),
    ],
)
def test_broken_syntax_is_told_in_plain_words(text: str, line: int, words: str) -> None:
    _, problems = parsed(text)
    assert [problem.line for problem in problems] == [line]
    assert words in f"{problems[0].what} → {problems[0].hint}"


def test_a_key_that_stands_twice_is_named_with_its_path() -> None:
    _, problems = parsed("a:\n  b:\n    c: 1\n    d: {e: 1, e: 2}\n    c: 2\n")
    assert [(problem.key, problem.line) for problem in problems] == [("a.b.d.e", 4), ("a.b.c", 5)]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: \xff\n", "UTF-8"), (b"#" * (MAX_BYTES + 1), "4 MiB")],
)
def test_a_file_that_cannot_be_a_config_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_text(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_text(path)


_SCALARS = st.one_of(st.booleans(), st.integers(-(10**9), 10**9), st.none(), st.text(st.characters(codec="ascii")))
_DATA = st.dictionaries(
    st.text("abcdefgh", min_size=1),
    st.recursive(
        _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner)
    ),
    min_size=1,
)


@given(_DATA)
@settings(max_examples=60, deadline=None)
def test_what_the_library_writes_is_read_back_as_it_was(data: dict[str, object]) -> None:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False  # its flow style writes {a: ?0}, which it cannot read back
    yaml.dump(data, stream)
    text = stream.getvalue()
    if "&" in text or "*" in text:
        return  # the library shortens repeated values by anchors, which the config does not take
    root, problems = parsed(text)
    assert not problems
    assert root is not None
    assert root.value == data
