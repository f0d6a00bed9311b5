"""docs/contracts.md §2 and §6 against the code: envelope, confirmation, state, the columns of ``reading``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edge_agent.buffer import Row
from edge_agent.model import Kind
from edge_agent.receiver.message import parse as parse_message
from edge_agent.receiver.store import Store
from edge_agent.routes.confirmation import parse as parse_confirmation
from edge_agent.routes.message import AgentIdentity, Stream, build
from edge_agent.routes.mqtt import MqttSink
from edge_agent.routes.presence import Presence
from edge_agent.routes.route import route_filter
from edge_agent.routes.settings import MqttRouteSettings

PAGE = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
ENVELOPE, CONFIRMATION = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[:2])
IDENTITY = AgentIdentity("l3-pc1", "acme", "suzhou", "assembly", "L3", "0.1.0")


def settings(**more: object) -> MqttRouteSettings:
    given = {"sink": "mqtt", "url": "mqtt://localhost:1883", "start": "now", "send": ["cycle_closed"]} | more
    return MqttRouteSettings.model_validate(given)


def sink(**more: object) -> MqttSink:
    unused: Any = None
    return MqttSink("mes", settings(**more), IDENTITY, Presence(IDENTITY, unused, unused), announces=True)


def test_a_message_has_exactly_the_documented_fields() -> None:
    body = b'{"...":"the body\'s fields"}'
    row = Row(90211, Kind.CYCLE_CLOSED, "OP20", 1795293977820854877, 773254142335, 1, body)
    (message,) = build([row], 117, 90211, 131072, 1000).messages
    stream = Stream("l3-pc1", "9f2c41d07ab3.mes.1", "9f2c41d07ab3", "606d45f1", sink().confirm_topic)
    made = json.loads(message.payload(stream, 90))
    (record,), (documented,) = made.pop("records"), ENVELOPE["records"]
    assert record.keys() - {"..."} == documented.keys() - {"…"}
    assert {key: record[key] for key in ("n", "seq", "at_ns", "mono_ns")} == {
        key: documented[key] for key in ("n", "seq", "at_ns", "mono_ns")
    }
    expected = {key: value for key, value in ENVELOPE.items() if key != "records"}
    assert made.pop("boot") and expected.pop("boot")
    assert made == expected


def test_the_documented_message_and_confirmation_are_accepted() -> None:
    assert parse_message(json.dumps(ENVELOPE).encode()).ranges == [(118, 118, 90211, 90211)]
    assert parse_confirmation(json.dumps(CONFIRMATION).encode()).nack == {97: "unknown part number"}


def test_topics_are_as_documented_and_no_source_makes_levels_of_its_own() -> None:
    assert sink().topic("OP20", "cycle_closed") == "acme/suzhou/assembly/L3/OP20/cycle_closed"
    assert sink().confirm_topic == ENVELOPE["confirm"]
    assert sink(confirm="broker").confirm_topic == ""
    assert sink().topic("a/b+#", "scan") == "acme/suzhou/assembly/L3/a_b__/scan"


def test_what_every_route_sends() -> None:
    always = re.search(r"- (`log_opened`.*?) are sent on every route", PAGE, re.DOTALL)
    assert always
    named = {Kind[name.upper()] for name in re.findall(r"`(\w+)`", always[1])}
    assert route_filter(settings(send=["sample"])).kinds == named | {Kind.SAMPLE}
    assert route_filter(settings(send=["finding"])).kinds == named - {Kind.TAGSET} | {Kind.FINDING}


def test_the_view_reading_has_the_documented_columns() -> None:
    columns = re.search(r"view `reading` shows it flat:\s*`([^`]*)`", PAGE)
    assert columns
    store = Store(None)
    made = [item[0] for item in store.connection.execute("SELECT * FROM reading").description]
    store.close()
    assert made == [*(name.strip() for name in columns[1].split(",")), "agent"]
