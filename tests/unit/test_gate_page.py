"""docs/gate.md: its samples load, its codes are the agent's, its PLC program uses the sample's tags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from edge_agent.binding.gate import CODES
from edge_agent.binding.plan import Gate
from edge_agent.config import load
from edge_agent.config.gate import ExchangeSettings, GateSettings
from edge_agent.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "gate.md"
TEXT = PAGE.read_text(encoding="utf-8")
SAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
AROUND = """\
agent: {id: l3-pc1, location: {enterprise: acme, site: here, area: hall, line: L3}, data_dir: /var/lib/edge-agent}
devices:
  press:
    driver: modbus
    connection: tcp://192.168.1.20
    groups:
      gate: {poll: 50ms, tags: {gate_request: {address: "holding:0", type: uint16}, gate_serial: {address: "holding:20", type: string, length: 12}, fixed: {address: "holding:9", type: uint16}}}
      late: {on_trigger: true, tags: {sn: {address: "holding:40", type: string, length: 12}, other: {address: "holding:50", type: float32}}}
    tags:
      gate_answer: {address: "holding:1", type: uint16, write: true}
      gate_verdict: {address: "holding:2", type: uint16, write: true}
      gate_reason: {address: "holding:3", type: uint16, write: true}
      gate_beat: {address: "holding:4", type: uint16, write: true}
      permit: {address: "coil:0", write: true}
  other: {driver: modbus, connection: tcp://192.168.1.21, groups: {a: {poll: 1s, tags: {a: {address: "holding:0", type: uint16}}}}, tags: {answer: {address: "holding:1", type: uint16, write: true}}}
  entry: {driver: scanner, port: /dev/ttyUSB0, frame: {end: "\\r\\n"}}
  gate2: {driver: scanner, port: /dev/ttyUSB1, frame: {end: "\\r\\n"}}
"""  # noqa: E501


def gate_of(tmp_path: Path, sample: str) -> Gate:
    path = tmp_path / "agent.yaml"
    path.write_text(AROUND + sample, encoding="utf-8")
    gate = load(path).plan.stations[0].gate
    assert gate is not None
    return gate


def problems(tmp_path: Path, sample: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as refused:
        gate_of(tmp_path, sample)
    return [(one.key.removeprefix("stations."), one.what) for one in refused.value.problems]


def section(**changes: Any) -> str:
    """The first sample with keys of ``exchange`` changed; None takes one away."""
    exchange = {
        "request": "press.gate_request",
        "answer": "press.gate_answer",
        "verdict": "press.gate_verdict",
    } | changes
    inside = ", ".join(f"{key}: {value}" for key, value in exchange.items() if value is not None)
    station = "stations:\n  OP20:\n    step: p\n    identity: {when: before, scan: entry}\n"
    return station + "    gate: {exchange: {" + inside + "}}\n"


def test_the_samples_load(tmp_path: Path) -> None:
    by_number, by_bit = (gate_of(tmp_path, sample) for sample in SAMPLES)
    assert by_number.exchanges[1].answer == "press.gate_answer"
    assert (by_number.previous, by_number.max_attempts, by_number.fail_open) == (("load",), 3, False)
    assert by_bit.permits == {1: "press.permit"}


def test_the_codes_are_the_programs() -> None:
    assert {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", TEXT, re.M)} == dict(CODES)


def test_the_plc_program_uses_the_samples_tags() -> None:
    program = TEXT.partition("CASE iStep OF")[2].partition("END_CASE")[0]
    sample = YAML(typ="safe").load(SAMPLES[0])["stations"]["OP20"]["gate"]["exchange"]
    tags = {str(value).partition(".")[2] for value in sample.values()}
    assert set(re.findall(r"\bgate_\w+", program)) == tags


def test_every_key_is_in_the_configuration_page() -> None:
    page = (PAGE.parent / "config.md").read_text(encoding="utf-8")
    assert not [key for key in GateSettings.model_fields if f"gate.{key}" not in page]
    assert not [key for key in ExchangeSettings.model_fields if not re.search(rf"`(exchange\.)?{key}`", page)]


@pytest.mark.parametrize(
    ("changes", "key", "what"),
    [
        ({"verdict": None}, "OP20.gate.exchange", "says nothing to the PLC"),
        ({"answer": "press.fixed"}, "OP20.gate.exchange.answer", "may not be written"),
        ({"answer": "press.gate_verdict"}, "OP20.gate.exchange.verdict", "is written for"),
        ({"answer": "other.answer"}, "OP20.gate.exchange.answer", "another device"),
        ({"request": "press.other"}, "OP20.gate.exchange.request", "only read on a trigger"),
        ({"request": "press.gate_serial"}, "OP20.gate.exchange.request", "does not fit"),
        ({"serial": "press.gate_serial"}, "OP20.gate.exchange.serial", "known by its scan"),
        ({"wait": "0s"}, "OP20.gate.exchange.wait", ""),
    ],
)
def test_what_cannot_work_is_told(tmp_path: Path, changes: dict[str, Any], key: str, what: str) -> None:
    found = problems(tmp_path, section(**changes))
    assert any(one == key and what in text for one, text in found), found


def test_a_serial_is_read_with_the_request(tmp_path: Path) -> None:
    text = section(serial="press.sn").replace("when: before, scan: entry", "when: in_data, tag: press.sn")
    text += "    cycle: {end: {tag: press.gate_request, read: press.late}}\n"
    assert ("OP20.gate.exchange.serial", "press.sn is in press.late, but must be read together with the request") in (
        problems(tmp_path, text)
    )
    assert gate_of(tmp_path, text.replace("serial: press.sn}", "serial: press.gate_serial}")).exchanges[1].serial
    assert any("must name it" in what for _, what in problems(tmp_path, text.replace(", serial: press.sn}", "}")))


AFTER = """stations:
  OP20:
    step: p
    identity: {when: after, scan: entry}
    cycle: {end: {tag: press.gate_request, read: press.late}}
"""


def test_a_unit_that_is_scanned_after_the_work_is_named_by_the_plc_before_it(tmp_path: Path) -> None:
    for inside in (
        "",
        "exchange: {request: press.gate_request, answer: press.gate_answer, verdict: press.gate_verdict}",
    ):
        with pytest.raises(ConfigError) as refused:
            gate_of(tmp_path, f"{AFTER}    gate: {{{inside}}}\n")
        (one,) = refused.value.problems
        assert one.what == (
            "the gate decides before the work, and this identity names the unit only later: the PLC must name it"
        )
        assert "serial: <device.tag>" in one.hint
    named = section(serial="press.gate_serial").rpartition("    gate: ")[2]
    assert gate_of(tmp_path, f"{AFTER}    gate: {named}").exchanges[1].serial is not None


def test_positions_do_not_share_an_answer(tmp_path: Path) -> None:
    text = section().replace("step: p", "step: p\n    positions: [1, 2]")
    text = text.replace("scan: entry", "scan: {1: entry, 2: gate2}")
    found = problems(tmp_path, text)
    assert any(key == "OP20.gate.exchange.answer" and "is written for" in what for key, what in found), found


def test_two_ways_and_shared_tags_are_refused(tmp_path: Path) -> None:
    both = section().replace("gate: {", "gate: {permit: press.permit, ")
    assert any("in two ways" in what for _, what in problems(tmp_path, both))
    second = section().removeprefix("stations:\n").replace("OP20", "OP30").replace("scan: entry", "scan: gate2")
    assert any("is the answer of" in what for _, what in problems(tmp_path, section() + second))


def test_a_permit_bit_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(AROUND + SAMPLES[1], encoding="utf-8")
    assert any("no interlock" in one.what for one in load(path).warnings)
