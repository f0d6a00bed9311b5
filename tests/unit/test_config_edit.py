"""Adding to the config file: what was there stays byte for byte, what was added means what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.config import load
from edge_agent.config.edit import append_device, append_tags
from edge_agent.config.render import as_yaml
from edge_agent.config.tree import parse
from edge_agent.errors import ConfigError

OVEN = {"driver": "simulated", "groups": {"state": {"poll": "1s", "tags": {"temp": {"low": 20, "high": 30}}}}}
LAMP = {"lamp": {"low": 0, "high": 1, "unit": "°C"}}
AGENT = """\
agent:
  id: test
  location: {enterprise: acme, site: 苏州, area: a, line: l} # 第三条线
  data_dir: /tmp/nowhere
"""
PRESS = """\
  press:   # the old one
    driver: 'simulated'
    groups:
      state:
        poll:   100ms
        tags:
          force: {low: 0, high: 5}   # 力
          # more: {low: 0, high: 1}
"""
REST = """
# what comes after
stations: {}
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "line.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def common(one: bytes, other: bytes) -> int:
    """How many bytes they begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def added_lines(before: bytes, after: bytes) -> bytes:
    """What was put into ``before`` to make ``after``; fails unless that is one piece, and all else as it was."""
    head = common(before, after)
    tail = common(before[head:][::-1], after[::-1])
    assert head + tail == len(before), "something was changed that was there"
    return after[head : len(after) - tail]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("rest", [REST, ""])
@pytest.mark.parametrize("ends", [True, False])
def test_a_device_goes_below_the_others_and_nothing_else_changes(
    tmp_path: Path, newline: str, bom: bytes, rest: str, ends: bool
) -> None:
    text = AGENT + "\n# 设备\ndevices:\n" + PRESS + rest
    before = bom + (text if ends else text.rstrip("\n")).replace("\n", newline).encode()
    path = write(tmp_path, before)
    shown = append_device(path, "oven", OVEN)
    added = added_lines(before, path.read_bytes())
    assert added.strip() == shown.replace("\n", newline).encode().strip()
    assert shown.startswith("  oven:\n    driver: simulated\n")
    after = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    assert after.index("# more:") < after.index("  oven:")
    assert not rest or after.index("  oven:") < after.index("# what comes after")
    assert (b"\r\n" in added) == (newline == "\r\n")
    assert list(load(path).devices) == ["press", "oven"]


@pytest.mark.parametrize(
    "section", ["", "devices:\n", "devices:  # none yet\n  # really\n", "devices: {}\n", "devices: null # none\n"]
)
def test_the_section_is_made_or_filled(tmp_path: Path, section: str) -> None:
    path = write(tmp_path, AGENT + section + REST)
    append_device(path, "oven", OVEN)
    text = path.read_text()
    assert text.startswith(AGENT)
    for line in [*REST.splitlines(), *(one for one in section.splitlines() if one.lstrip().startswith("#"))]:
        assert line in text
    assert list(load(path).devices) == ["oven"]


def test_a_section_in_braces_gets_its_entry_inside_them(tmp_path: Path) -> None:
    path = write(
        tmp_path, AGENT + "devices: {a: {driver: simulated, groups: {g: {poll: 1s, tags: {t: {high: 1}}}},}} # x\n"
    )
    before = path.read_bytes()
    append_device(path, "oven", OVEN)
    middle = path.read_bytes()
    assert added_lines(before, middle)
    append_tags(path, "a", "g", LAMP)
    assert added_lines(middle, path.read_bytes())
    assert path.read_text().endswith("}} # x\n")
    assert list(load(path).devices["a"].shape.groups["g"].tags) == ["t", "lamp"]


def test_tags_go_below_those_of_their_group_or_into_a_new_one(tmp_path: Path) -> None:
    path = write(tmp_path, AGENT + "devices:\n" + PRESS + REST)
    before = path.read_bytes()
    shown = append_tags(path, "press", "state", LAMP)
    assert shown == "          lamp: {low: 0, high: 1, unit: °C}\n"
    assert added_lines(before, path.read_bytes()).decode().strip() == shown.strip()
    shown = append_tags(path, "press", "slow", {"other": {"low": 1, "high": 2}}, "5s")
    assert shown == "      slow:\n        poll: 5s\n        tags:\n          other: {low: 1, high: 2}\n"
    groups = load(path).devices["press"].shape.groups
    assert {name: list(group.tags) for name, group in groups.items()} == {"state": ["force", "lamp"], "slow": ["other"]}
    assert (groups["state"].poll_s, groups["slow"].poll_s) == (0.1, 5.0)


def test_the_indentation_and_the_gaps_of_the_file_are_followed(tmp_path: Path) -> None:
    devices = "devices:\n    a:\n        driver: simulated\n        groups: {g: {poll: 1s, tags: {t: {high: 1}}}}\n"
    path = write(tmp_path, AGENT + devices + "\n" + devices.replace("devices:\n", "").replace(" a:", " b:"))
    shown = append_device(path, "oven", OVEN)
    assert shown.splitlines()[:3] == ["    oven:", "        driver: simulated", "        groups:"]
    assert path.read_text().endswith("\n\n" + shown)


@pytest.mark.parametrize(
    ("name", "section", "what"),
    [
        ("press", OVEN, "stands in the file already"),
        ("agent", OVEN, "a name the agent uses itself"),
        ("a b", OVEN, "cannot be the name"),
        ("oven", {"driver": "simulatd"}, "no driver is named"),
        ("oven", OVEN | {"password": "x"}, "unknown key"),
    ],
)
def test_what_is_wrong_is_refused_and_the_file_stays(tmp_path: Path, name: str, section: Any, what: str) -> None:
    path = write(tmp_path, AGENT + "devices:\n" + PRESS)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=what):
        append_device(path, name, section)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_tags_that_stand_there_or_have_no_device_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, AGENT + "devices:\n" + PRESS)
    for device, group, tags, what in [
        ("press", "state", {"force": {"high": 1}}, "stands in the file already"),
        ("press", "slow", {"force": {"high": 1}}, "poll"),
        ("oven", "state", LAMP, "no such device"),
        ("press", "state", {"a.b": {"high": 1}}, "cannot be the name"),
    ]:
        with pytest.raises(ConfigError, match=what):
            append_tags(path, device, group, tags)
    assert path.read_text() == AGENT + "devices:\n" + PRESS


def test_old_mistakes_forbid_nothing_and_new_ones_have_the_lines_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, AGENT + "devices:\n" + PRESS + "stations:\n  oven: {stepp: 1}\n")
    append_device(path, "kiln", OVEN)
    with pytest.raises(ConfigError) as refused:
        append_device(path, "oven", OVEN)  # there is a station of this name
    (problem,) = refused.value.problems
    assert (problem.file, problem.key) == (str(path), "stations.oven")
    assert path.read_text().splitlines()[problem.line - 1].startswith("  oven:")


def test_mode_and_links_stay(tmp_path: Path) -> None:
    real = write(tmp_path, AGENT + "devices:\n" + PRESS)
    real.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(real.name)
    append_device(link, "oven", OVEN)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "oven" in load(real).devices


@pytest.mark.parametrize("text", ["a: [", "- a\n", "", "a: *b\n"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError):
        append_tags(path, "press", "state", LAMP)
    assert path.read_text() == text
    with pytest.raises(ConfigError, match="cannot be read"):
        append_device(tmp_path / "none.yaml", "oven", OVEN)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@given(st.dictionaries(texts, values, max_size=4), st.integers(0, 6), st.integers(1, 4))
def test_what_is_rendered_reads_as_it_was(entries: dict[str, Any], column: int, step: int) -> None:
    found: list[Any] = []
    root = parse(as_yaml({"x": entries}, column, step), "x", found)
    assert not found
    assert root is not None
    assert root.value == {"x": entries}


comment = st.sampled_from(["", "  # 注释", "   # devices: {", " # 'quote"])
blank = st.sampled_from(["", "\n", "\n\n", "# 在边上\n", "      # deep\n", "  # shallow\n"])


@st.composite
def layouts(draw: st.DrawFn) -> bytes:
    """A file with two devices, one indented and one perhaps in braces, laid out in any way."""
    step, gap = draw(st.integers(1, 5)), draw(blank)
    one = as_yaml({"one": OVEN}, step, draw(st.integers(1, 4))).splitlines()
    inside = " " * (step + 3)
    two = [" " * step + "two:", inside + "driver: simulated", inside + 'groups: {"state": {poll: 1s,']
    two[-1] += draw(st.sampled_from(["", "\n          "])) + " tags: {t: {high: 1}}}}"
    text = "# 头\n" + AGENT + f"devices:{draw(comment)}\n" + gap
    text += "\n".join(f"{line}{draw(comment)}" for line in one) + "\n" + draw(blank) + "\n".join(two)
    text += draw(comment) + "\n" + draw(blank) + draw(st.sampled_from(["", "stations: {}\n", "labels:\n"]))
    text = text.rstrip("\n") if draw(st.booleans()) else text
    text = text.replace("\n", "\r\n") if draw(st.booleans()) else text
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(layouts())
def test_every_byte_outside_of_what_was_added_stays(tmp_path: Path, before: bytes) -> None:
    path = write(tmp_path, before)
    append_device(path, "kiln", OVEN)
    middle = path.read_bytes()
    assert b"kiln:" in added_lines(before, middle)
    for device in ("one", "two", "kiln"):
        middle = path.read_bytes()
        append_tags(path, device, "state", LAMP)
        assert b"lamp:" in added_lines(middle, path.read_bytes())
    assert sorted(load(path).devices) == ["kiln", "one", "two"]
