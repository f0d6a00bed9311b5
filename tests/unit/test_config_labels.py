"""The section `labels:`: what is refused, with which line and which hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import Config, load
from edge_agent.errors import ConfigError, Problem

HEAD = r"""
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /nowhere}
devices: {gate: {driver: scanner, port: /dev/null}, other: {driver: scanner, port: /dev/zero}}
labels:
  unit: {format: pattern, pattern: '^(?P<serial>SN\d{8})$'}
"""
STATION = "\nstations:\n  OP10:\n    step: s\n    identity: "


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load(path)


def problems(tmp_path: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    return list(refused.value.problems)


@pytest.mark.parametrize(
    ("later", "shown"),
    [
        (r"{format: pattern, pattern: '(?P<lot>[A-Z]{2}\d+)'}", "SN00000000"),
        ("{format: pattern, pattern: '(?P<lot>.+)'}", "SN00000000"),
        (r"{format: pattern, pattern: 'SN(?P<serial>\d+)'}", "SN"),
        (r"{format: pattern, pattern: '(?P<serial>SN\d{6})(?P<year>\d\d)'}", "SN"),
    ],
)
def test_a_label_with_two_meanings_is_refused_with_both_lines(later: str, shown: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, f"  lot: {later}")
    assert (problem.line, problem.key) == (6, "labels.lot")
    assert shown in problem.what and "a label of unit (line 5)" in problem.what and problem.hint


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("{format: gs1}", '{format: gs1, map: {"10": package}}'),
        ("{format: iso15434}", "{format: iso15434, map: {S: package}}"),
        ("{format: gs1}", r"{format: pattern, pattern: '(?P<order>10\w+)'}"),
        ("{format: command}", "{format: pattern, pattern: '(?P<lot>[A-Z]{3,6})'}"),
        ("{format: em4100}", "{format: em4100, is: operator}"),
        ("{format: em4100}", "{format: pattern, pattern: '(?P<lot>[0-9A-F]{12})'}"),
        ("{format: iso15693}", "{format: pattern, pattern: '(?P<lot>E0[0-9A-F]+)'}"),
    ],
)
def test_formats_overlap_too(one: str, two: str, tmp_path: Path) -> None:
    for text in (f"  one: {one}\n  two: {two}", f"  one: {two}\n  two: {one}"):
        (problem,) = problems(tmp_path, text)
        assert problem.key == "labels.two" and "one (line 6)" in problem.what


@pytest.mark.parametrize(
    "more",
    [
        "  box: {format: gs1, needs: [serial]}\n  reel: {format: iso15434}\n  codes: {format: command}\n"
        "  pallet: {format: em4100}\n  tag: {format: iso15693}",
        r"  again: {format: pattern, pattern: '(?P<serial>SN\d+)'}",  # says the same of it
        r"  old: {format: pattern, pattern: '(?P<lot>SN\d{7})'}",
    ],
)
def test_rules_that_can_be_told_apart_or_agree_are_taken(more: str, tmp_path: Path) -> None:
    assert len(read(tmp_path, more).plan.labels) == 1 + more.count("format")


def test_a_pattern_of_the_station_and_a_rule_at_its_scanner(tmp_path: Path) -> None:
    context = "\n    context: {order: {scan: gate, pattern: '(?P<order>SN0.*)'}}"
    (problem,) = problems(tmp_path, STATION + "{when: before, scan: gate, labels: [unit]}" + context)
    assert problem.key == "stations.OP10.context.order.pattern"
    assert "a label of unit (line 5)" in problem.what
    other = context.replace("scan: gate", "scan: other")
    read(tmp_path, STATION + "{when: before, scan: gate, labels: [unit]}" + other)


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        ("  x: {format: gs2}", "labels.x.format", "no format is named 'gs2'"),
        ("  x: {map: {S: serial}}", "labels.x.format", "is missing"),
        ("  x: 7", "labels.x", "section"),
        ("  x: {format: pattern}", "labels.x.pattern", "is missing"),
        ("  x: {format: pattern, pattern: '('}", "labels.x.pattern", "no regular expression"),
        ("  x: {format: pattern, pattern: 'L.'}", "labels.x.pattern", "names no group"),
        ("  x: {format: pattern, pattern: '(?P<Lot>L.)'}", "labels.x.pattern", "cannot be an identifier"),
        ("  x: {format: pattern, pattern: '(?P<lot>(L+)+)'}", "labels.x.pattern", "a repeat stands in a repeat"),
        ("  x: {format: pattern, pattern: '(?P<lot>L.)', check: {serial: luhn}}", "labels.x", "no group"),
        ("  x: {format: pattern, pattern: '(?P<lot>L.)', check: {lot: crc}}", "labels.x.check.lot", "not allowed"),
        ('  x: {format: gs1, map: {"9": lot}}', "labels.x.map", "no application identifier '9'"),
        ('  x: {format: gs1, map: {"10": lot}, needs: [serial]}', "labels.x", "needs serial"),
        ("  x: {format: iso15434, map: {1t: lot}}", "labels.x.map", "no data identifier"),
        ("  x: {format: iso15434, map: {}}", "labels.x.map", "too few"),
        ("  x: {format: em4100, as: carrier}", "labels.x.as", "unknown key"),
        ("  x: {format: command, defects: {'D 1': dent}}", "labels.x", "no defect code"),
        ("  x: {format: command, prefix: 零}", "labels.x", "not every reader sends"),
        (STATION + "{when: before, scan: gate, labels: [unti]}", "stations.OP10.identity.labels.0", "no label rule"),
        (STATION + "{when: before, scan: gate, labels: [unit], pattern: '(?P<serial>.)'}", "stations.OP10.identity",
         "in place of pattern"),
        ("  x: {format: em4100}" + STATION + "{when: before, scan: gate, labels: [x]}",
         "stations.OP10.identity.labels.0", "gives no serial"),
    ],
)  # fmt: skip
def test_mistakes_are_told_where_they_are(text: str, key: str, what: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.key.startswith(key) and what in problem.what and problem.hint, problem


def test_a_context_may_be_read_by_rules_that_give_it(tmp_path: Path) -> None:
    text = (
        "  badge: {format: em4100, is: operator}"
        + STATION
        + "{when: before, scan: gate, labels: [unit]}\n    context: "
    )
    (station,) = read(tmp_path, text + "{operator: {scan: gate, labels: [badge]}}").plan.stations
    assert station.context[0].rules == {"badge"}
    (problem,) = problems(tmp_path, text + "{order: {scan: gate, labels: [badge]}}")
    assert problem.what == "the label rule badge gives no order"


def test_without_the_section_there_are_no_rules(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD.partition("labels:")[0], encoding="utf-8")
    assert load(path).plan.labels.names == ()


def test_a_rule_with_a_mistake_is_told_once_and_not_as_unknown(tmp_path: Path) -> None:
    rule = r"  box: {format: pattern, pattern: '^(?P<serial>B\d+'}"
    (problem,) = problems(tmp_path, f"{rule}{STATION}{{when: before, scan: gate, labels: [unit, box]}}")
    assert problem.key == "labels.box.pattern"


def dial(tmp_path: Path, kind: str, text: str) -> Config:
    """A configuration with a polled tag dial.i of this kind."""
    device = f"{{driver: modbus, connection: tcp://127.0.0.1, groups: {{s: {{poll: 50ms, tags: {{i: {kind}}}}}}}}}"
    path = tmp_path / "config.yaml"
    path.write_text(HEAD.replace("devices: {", f"devices: {{dial: {device}, ") + text, encoding="utf-8")
    return load(path)


def test_a_late_scan_that_is_waited_for_as_long_as_a_cycle_lasts_is_risky(tmp_path: Path) -> None:
    end = "\n    cycle: {end: {tag: dial.i}, timeout: 20s}\n"
    for wait, warned in (("20s", True), ("5s", False)):
        text = f"{STATION}{{when: after, scan: gate, labels: [unit], max_wait: {wait}}}{end}"
        found = dial(tmp_path, '{address: "coil:1"}', text).warnings
        assert any(one.key == "stations.OP10.identity.max_wait" for one in found) is warned


def test_a_dictionary_needs_a_word_for_each_defect_of_the_sheet(tmp_path: Path) -> None:
    sheet = "  sheet: {format: command, prefix: '%', defects: {D12: scratch, D13: dent}}\n"
    words = "dictionaries: {qms: {version: '1', codes: {defects: {D12: SCRATCH%s}}}}\n"
    (problem,) = problems(tmp_path, sheet + words % "")
    assert (problem.key, problem.what) == ("dictionaries.qms.codes.defects", "has no word for D13")
    read(tmp_path, sheet + words % ", D13: DENT")
