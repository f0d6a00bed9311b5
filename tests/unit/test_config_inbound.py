"""What the section inbound: may say, and how a mistake in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import Config, load
from edge_agent.errors import ConfigError

HEAD = """
agent: {id: pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}
devices:
  gate: {driver: scanner, port: /dev/ttyS0, baud: 9600, frame: {end: "\\r\\n"}}
inbound:
""".lstrip()


def config_of(folder: Path, text: str) -> Config:
    path = folder / "agent.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load(path)


def test_defaults(tmp_path: Path) -> None:
    source = config_of(tmp_path, "  qms: {url: mqtt://127.0.0.1, verdicts: acme/qms}\n").inbound["qms"]
    assert source.broker == (False, "127.0.0.1", 1883)
    assert (source.heartbeat, source.status, source.version) == (30.0, [], "5")


@pytest.mark.parametrize(
    ("entry", "key", "says"),
    [
        ("{url: mqtt://h}", "inbound.qms", "hears nothing"),
        ("{url: mqtt://h, verdicts: acme/#}", "inbound.qms.verdicts", "is no topic"),
        ("{url: mqtt://h, verdicts: /acme}", "inbound.qms.verdicts", "is no topic"),
        ("{url: mqtt://h, status: [acme/a+]}", "inbound.qms.status", "is no topic filter"),
        ("{url: mqtt://h, status: ['acme/#/x']}", "inbound.qms.status", "is no topic filter"),
        ("{url: http://h, verdicts: a}", "inbound.qms.url", "url"),
        ("{url: mqtt://h, verdicts: a, heartbeat: 5}", "inbound.qms.heartbeat", "unit"),
        ("{url: mqtt://h, verdicts: a, topic: b}", "inbound.qms.topic", "unknown"),
        ("{url: mqtt://h, verdicts: a, username: u, password: secret}", "inbound.qms.password", "secret"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, entry: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        config_of(tmp_path, f"  qms: {entry}\n")
    (problem,) = told.value.problems
    assert problem.line == 5
    assert problem.key.startswith(key)
    assert problem.hint
    assert says in str(problem)


@pytest.mark.parametrize("name", ["local", "agent", "q/ms"])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as told:
        config_of(tmp_path, f"  {name}: {{url: mqtt://h, verdicts: a}}\n")
    assert told.value.problems[0].key == f"inbound.{name}"
