"""docs/verdicts.md, the agent's models and its JSON Schema say the same of what a QMS or a MES may send."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from edge_agent.binding.holds import OPEN_MAX
from edge_agent.config import load
from edge_agent.inbound import messages
from edge_agent.inbound.messages import BadMessage
from edge_agent.records import HoldAck
from edge_agent.wire import json_schema

PAGE = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
NAMES = ["verdict", "heartbeat", "snapshot_request", "snapshot", "status"]
SCHEMA = json_schema()
READ = {"verdict": messages.decision, "heartbeat": messages.decision, "snapshot": messages.snapshot,
        "status": messages.status}  # fmt: skip


def valid(name: str, example: Any) -> bool:
    return Draft202012Validator(SCHEMA | {"anyOf": [{"$ref": f"#/$defs/{name}"}]}).is_valid(example)


@pytest.mark.parametrize(("name", "example"), [*zip(NAMES, EXAMPLES, strict=True)], ids=NAMES)
def test_every_message_of_the_page_is_one(name: str, example: dict[str, Any]) -> None:
    assert valid(name, example)
    if name in READ:
        READ[name](json.dumps(example).encode())
    else:
        assert messages.SnapshotRequest.model_validate(example)


@pytest.mark.parametrize(("name", "example"), [(n, e) for n, e in zip(NAMES, EXAMPLES, strict=True) if n in READ])
def test_a_field_more_or_of_another_type_is_refused_by_both(name: str, example: dict[str, Any]) -> None:
    wrong = [example | {"expires_at": "1"}, example | {"v": 2}, example | {"v": "1"}]
    wrong += [example | {key: {"not": "this"}} for key in example if key != "subject"]
    for one in wrong:
        assert not valid(name, one), one
        with pytest.raises(BadMessage):
            READ[name](json.dumps(one).encode())


@pytest.mark.parametrize(
    ("heading", "model"), [("## A verdict", messages.VerdictMessage), ("## Status of units", messages.StatusMessage)]
)
def test_the_tables_name_every_field(heading: str, model: Any) -> None:
    part = PAGE.partition(heading + "\n")[2].partition("\n#")[0]
    rows = [row.partition("|")[0] for row in re.findall(r"^\| (`.*)", part, re.MULTILINE)]
    named = {(name.rstrip("?"), name.endswith("?")) for row in rows for name in re.findall(r"`([a-z_]+\??)`", row)}
    fields = {(name, not field.is_required()) for name, field in model.model_fields.items() if name != "v"}
    assert named == fields


def test_the_page_names_every_state_and_the_bounds() -> None:
    table = PAGE.partition("| state | when |")[2].partition("\n\n")[0]
    states = get_args(HoldAck.model_fields["state"].annotation)
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(states)
    assert f"{OPEN_MAX:,} holds" in PAGE
    assert f"at most {messages.SNAPSHOT_PARTS}" in PAGE
    assert f"at most {messages.SNAPSHOT_PART}:" in PAGE


def test_the_configuration_of_the_page_loads(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "config.yaml"
    location = "{enterprise: acme, site: suzhou, area: assembly, line: L3}"
    agent = f"agent: {{id: l3-pc1, location: {location}, data_dir: {tmp_path}}}\n"
    path.write_text(agent + "devices: {wave: {driver: simulated, groups: {g: {poll: 1s, tags: {a: {}}}}}}\n" + sample)
    loaded = load(path).inbound
    assert loaded["qms"].verdicts == "acme/qms/verdicts"
    assert loaded["line"].status[-1] == "acme/mes/status"
