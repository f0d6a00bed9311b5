"""Which types of tags fit where: a number is due for limits and deadbands, a code for a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import Config, load
from edge_agent.errors import ConfigError
from edge_agent.model import Result

CONFIG = """
agent: {{id: a, location: {{enterprise: e, site: s, area: a, line: l}}, data_dir: {folder}}}
devices:
  press:
    driver: modbus
    connection: tcp://127.0.0.1
    groups:
      state: {{poll: 100ms, tags: {{ready: {{address: "holding:1.low"}}}}}}
      result: {{on_trigger: true, tags: {{seen: {{address: "holding:100", {tag}}}}}}}
    tags: {{ack: {{address: "coil:20", write: true}}}}
  gate: {{driver: scanner, port: /dev/serial/by-id/usb-x}}
stations:
  OP20:
    step: press-fit
    positions: [1]
    identity: {{when: before, scan: gate, pattern: '^(?P<serial>SN\\d{{8}})$'}}
    cycle: {{end: {{handshake: {{ready: press.ready, ack: press.ack, read: press.result}}}}, timeout: 5min}}
    collect: {{force: {{tag: press.seen{limits}}}}}
{more}
"""


def config(folder: Path, tag: str, limits: str = "", more: str = "") -> Config:
    path = folder / "agent.yaml"
    path.write_text(CONFIG.format(folder=folder, tag=tag, limits=limits, more=more), encoding="utf-8")
    return load(path)


def refusal(folder: Path, tag: str, limits: str = "", more: str = "") -> str:
    with pytest.raises(ConfigError) as refused:
        config(folder, tag, limits, more)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint16"])
def test_a_byte_is_a_number_too(tmp_path: Path, kind: str) -> None:
    more = "    result: {tag: press.seen, meaning: {1: Passed}}"
    (position,) = config(tmp_path, f"type: {kind}", ", limits: [1, 2]", more).plan.stations[0].positions
    assert position.result is not None
    assert position.result.meaning == {1: Result.PASSED}


@pytest.mark.parametrize("kind", ["float32, count: 4", "string, length: 4"])
def test_what_is_no_number_has_no_limits_nor_by_a_part_number(tmp_path: Path, kind: str) -> None:
    assert config(tmp_path, f"type: {kind}").plan.stations
    assert "does not fit here" in refusal(tmp_path, f"type: {kind}", ", limits: [1, 2]")
    by_part = "    parts: {A1: {limits: {force: [1, 2]}}}"
    assert "does not fit here" in refusal(tmp_path, f"type: {kind}", more=by_part)


def test_only_numbers_and_arrays_of_them_have_a_deadband(tmp_path: Path) -> None:
    for kind in ("float32", "uint8", "float32, count: 3"):
        loaded = config(tmp_path, f"type: {kind}, deadband: 0.5")
        assert loaded.plan.stores["press.result"].deadbands == ((0, 0.5),)
    assert "a string has no deadband" in refusal(tmp_path, "type: string, length: 4, deadband: 0.5")
    assert "a bool[] has no deadband" in refusal(tmp_path, "type: bool, count: 3, deadband: 0.5")
