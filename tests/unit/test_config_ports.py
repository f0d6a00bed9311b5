"""One serial port, one user: also where it is named in two ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import load
from edge_agent.errors import ConfigError

AGENT = "{id: pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}"


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("driver: scanner, port: PORT", "is used by a too"),
        ("driver: modbus, connection: 'rtu://PORT', unit_id: 2", "is the port that a names"),
        ("driver: modbus, connection: 'rtu://PORT', unit_id: 2, serial: {baud: 19200}", "is used by a too"),
    ],
)
def test_a_link_and_what_it_leads_to_are_one_port(tmp_path: Path, second: str, told: str) -> None:
    """A by-id link beside /dev/ttyUSB0: two devices would have read each other's answers."""
    port, link = tmp_path / "ttyUSB0", tmp_path / "by-id"
    port.touch()
    link.symlink_to(port.name)
    groups = "groups: {g: {poll: 1s, tags: {x: {address: 'holding:1'}}}}"
    second = second.replace("PORT", str(port)) + (f", {groups}" if "modbus" in second else "")
    first = f"driver: modbus, connection: 'rtu://{link}', {groups}"
    path = tmp_path / "config.yaml"
    path.write_text(f"agent: {AGENT}\ndevices:\n  a: {{{first}}}\n  b: {{{second}}}\n")
    with pytest.raises(ConfigError) as refused:
        load(path)
    (problem,) = refused.value.problems
    assert (problem.key, told in problem.what) == ("devices.b", True), problem
