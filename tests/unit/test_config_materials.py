"""What the config says of materials, components and completeness: read whole, and every mistake with what to type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.binding.needs import Required, Variant
from edge_agent.config import Config, load
from edge_agent.errors import ConfigError

DEVICES = r"""
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}
labels:
  reel:  {format: pattern, pattern: 'R:(?P<lot>\w+)/(?P<package>\w+)/(?P<part_number>[\w-]+)'}
  board: {format: pattern, pattern: 'B:(?P<serial>\w+)/(?P<part_number>[\w-]+)'}
devices:
  press:
    driver: modbus
    connection: tcp://192.168.1.20
    groups:
      state:  {poll: 100ms, tags: {done: {address: "coil:10"}, spliced: {address: "coil:11"}}}
      result: {on_trigger: true, tags: {force: {address: "holding:100", type: float32}}}
  gate: {driver: scanner, port: /dev/serial/by-id/usb-gate}
  desk: {driver: scanner, port: /dev/serial/by-id/usb-desk}
"""
STATION: dict[str, Any] = {
    "step": "solder",
    "identity": {"when": "before", "scan": "gate", "pattern": r"(?P<serial>SN\d+)"},
    "cycle": {"end": {"tag": "press.done", "read": "press.result"}},
    "collect": {"force": {"tag": "press.force", "limits": [10, 20], "identical": 5}},
    "context": {
        "operator": {"scan": "desk", "pattern": r"OP:\w+"}, "part_number": {"scan": "desk", "pattern": "PN:.+"},
    },
    "materials": {
        "solder": {"scan": "desk", "labels": ["reel"], "splice": True, "splice_done": "press.spliced"},
        "glue": {"scan": "desk", "pattern": r"G:(?P<lot>\w+)", "required": False, "quantity_per_unit": 0.5},
    },
    "components": {"pcb": {"scan": "desk", "labels": ["board"], "part_number": ["AB-1"], "count": 2}},
    "require": {"context": ["operator"]},
    "previous": ["weld"],
    "parts": {
        "1234-A": {
            "limits": {"force": [30, None]}, "require": {"materials": ["glue"]}, "components": {"pcb": ["AB-2"]},
            "materials": {"solder": ["S-1"]},
        },
        "5678-B": {},
    },
}  # fmt: skip


def config_of(tmp_path: Path, **changes: Any) -> Config:
    path = tmp_path / "agent.yaml"
    station = STATION | changes
    stations = f"stations: {json.dumps({'OP10': station})}\n"  # JSON is YAML
    path.write_text(DEVICES.lstrip() + stations, encoding="utf-8")
    return load(path)


def mistakes(tmp_path: Path, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, **changes)
    return [f"{one.key.removeprefix('stations.OP10.')}: {one.what} | {one.hint}" for one in caught.value.problems]


def test_everything_is_read(tmp_path: Path) -> None:
    needs = config_of(tmp_path).plan.stations[0].needs
    solder, glue = needs.materials
    assert (solder.splice, solder.splice_done.name if solder.splice_done else "") == (True, "press.spliced")
    assert [(reads.kind, reads.rules) for reads in solder.reads] == [
        ("lot", frozenset({"reel"})), ("package", frozenset({"reel"})),
    ]  # fmt: skip
    assert [reads.kind for reads in glue.reads] == ["lot"]
    assert (glue.required, glue.per_unit) == (False, 0.5)
    (pcb,) = needs.components
    assert (pcb.count, pcb.part_numbers, list(pcb.reads)) == (2, frozenset({"AB-1"}), [1])
    assert needs.required == Required(frozenset({"operator"}), frozenset({"solder"}), frozenset({"pcb"}))
    assert needs.previous == ("weld",)
    assert needs.identical == {"force": 5}
    assert needs.variants["5678-B"] == Variant()
    one = needs.variants["1234-A"]
    assert (one.limits, one.require.materials) == ({"force": (30.0, None)}, frozenset({"glue"}))
    assert (one.materials, one.components) == ({"solder": frozenset({"S-1"})}, {"pcb": frozenset({"AB-2"})})


def test_a_splice_says_when_the_old_package_is_through(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, materials={"solder": {"scan": "desk", "labels": ["reel"], "splice": True}}, parts={})
    assert "splice_units" in told
    (told,) = mistakes(
        tmp_path, materials={"solder": {"scan": "desk", "labels": ["reel"], "splice_units": 5}}, parts={}
    )
    assert "splice: true" in told


def test_names_must_be_the_stations(tmp_path: Path) -> None:
    parts = {"1234-A": {"limits": {"forse": [1, 2]}, "require": {"components": ["pcbs"]}, "materials": {"gleu": ["X"]}}}
    told = mistakes(tmp_path, parts=parts, require={"context": ["operater"]})
    assert len(told) == 4
    for name in ("force", "pcb", "glue", "operator"):
        assert any(f"did you mean {name}?" in one for one in told), name


def test_labels_that_would_be_taken_for_others_need_a_pattern(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, materials={"solder": {"scan": "gate"}}, parts={})
    assert "reads other labels too" in told
    assert config_of(tmp_path, materials={"solder": {"scan": "desk", "labels": ["reel"]}}, parts={})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"materials": {"solder": {"scan": "desk", "pattern": r"S:(?P<serial>\w+)"}}, "parts": {}}, "lot or package"),
        ({"materials": {"solder": {"scan": "desk", "labels": ["board"]}}, "parts": {}}, "gives no lot or package"),
        ({"materials": {"solder": {"scan": "desk", "labels": ["real"]}}, "parts": {}}, "did you mean reel?"),
        ({"materials": {"solder": {"scan": "dask", "labels": ["reel"]}}, "parts": {}}, "did you mean desk?"),
        ({"components": {"pcb": {"scan": "desk", "labels": ["reel"]}}, "parts": {}}, "gives no serial"),
        (
            {"components": {"pcb": {"scan": "desk", "labels": ["board"], "pattern": "(?P<serial>.)"}}, "parts": {}},
            "labels",
        ),
        ({"remove": {"scan": "desk"}}, "reads other labels too"),
    ],
)
def test_labels_must_say_what_is_meant(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    assert any(what in one for one in mistakes(tmp_path, **changes))


SN = r"(?P<serial>SN\d+)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"components": {"pcb": {"scan": "gate", "pattern": SN}}},
            "components.pcb: 'SN0' is also a label of identity (line 14) at this scanner",
        ),
        (
            {"remove": {"scan": "desk", "labels": ["board"]}},
            "components.pcb: 'B:0/0' is also a label of remove (line 14) at this scanner",
        ),
        (
            {"materials": {name: {"scan": "desk", "labels": ["reel"]} for name in ("solder", "glue")}},
            "materials.glue: 'R:0/0/0' is also a label of materials.solder (line 14) at this scanner",
        ),
    ],
)
def test_one_label_at_one_scanner_has_one_meaning(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    told = mistakes(tmp_path, parts={}, **changes)
    assert told == [f"{words} | name another scanner, or labels that only these are"]


def test_components_that_only_the_part_number_tells_apart_share_scanner_and_label(tmp_path: Path) -> None:
    two = {name: {"scan": "desk", "labels": ["board"], "part_number": [name]} for name in ("AB-1", "AB-2")}
    assert len(config_of(tmp_path, components=two, parts={}).plan.stations[0].needs.components) == 2


def test_what_the_station_requires_by_name_is_required(tmp_path: Path) -> None:
    pcb = {"pcb": {"scan": "desk", "labels": ["board"], "required": False}}
    require = {"materials": ["glue"], "components": ["pcb"]}
    needs = config_of(tmp_path, components=pcb, require=require, parts={}).plan.stations[0].needs
    assert needs.required == Required(frozenset(), frozenset({"solder", "glue"}), frozenset({"pcb"}))
    told = mistakes(tmp_path, require={"materials": ["gleu"], "components": ["pbc"]})
    assert told == [
        "require.materials.0: the station has no material 'gleu' | did you mean glue?",
        "require.components.0: the station has no component 'pbc' | did you mean pcb?",
    ]


def test_a_step_that_nobody_does_and_a_part_number_that_nothing_tells_are_risky(tmp_path: Path) -> None:
    def told(**changes: Any) -> list[str]:
        warnings = config_of(tmp_path, **changes).warnings
        return [f"{one.key.removeprefix('stations.OP10.')}: {one.hint}" for one in warnings if "OP10." in one.key]

    assert "previous.0: hear who does it: inbound: {line: {url: ..., status: [...]}}" in told()
    assert "previous.0: did you mean solder?" in told(previous=["sodler"])
    assert "gate.previous.0: did you mean solder?" in told(gate={"previous": ["soldr"]})
    assert not [one for one in told(previous=["solder"]) if one.startswith("previous")]
    assert not [one for one in told() if one.startswith("parts")]
    operator = {"operator": STATION["context"]["operator"]}
    assert [one for one in told(context=operator) if one.startswith("parts: add context: {part_number")]


def test_components_need_a_unit_that_is_known_before_the_work(tmp_path: Path) -> None:
    identity = {"when": "in_data", "tag": "press.force"}
    told = mistakes(tmp_path, identity=identity)
    assert any(one.startswith("components: need a unit that is known") for one in told)
