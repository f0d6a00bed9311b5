"""A config is loaded whole, or every mistake in it is told with its line and what to type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.binding.plan import Edge, Handshake
from edge_agent.config import Config, load
from edge_agent.errors import ConfigError, Problem
from edge_agent.model import Result
from support.certificates import DAY, Authority

SAMPLE = r"""
agent:    {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}
devices:
  press:
    driver: modbus
    connection: tcp://192.168.1.20:502
    unit_id: 1
    groups:
      state:  {poll: 100ms, tags: {ready: {address: "coil:10"}, temp: {address: "input:5", type: int16, scale: 0.1, unit: °C}}}
      result: {on_trigger: true, tags: {count: {address: "holding:98", type: uint16}, force: {address: "holding:100", type: float32, order: ABCD, unit: kN}, ok: {address: "holding:102", type: bool}}}
    tags: {ack: {address: "coil:20", write: true}}
  gate:   {driver: scanner, port: /dev/serial/by-id/usb-..., baud: 115200, frame: {end: "\r\n"}}
stations:
  OP20:
    step: press-fit
    positions: [1]
    identity: {when: before, scan: gate, pattern: '^(?P<serial>SN\d{8})$'}
    cycle: {end: {handshake: {ready: press.ready, ack: press.ack, counter: press.count, read: press.result}}, timeout: 5min}
    collect: {peak_force: {tag: press.force, required: true, limits: [10, 20]}}
    result: {tag: press.ok}
routes:
  mes:    {sink: mqtt, url: "mqtts://broker:8883", confirm: receiver, start: now, send: [cycle_closed, binding, finding]}
""".lstrip()  # noqa: E501  # verbatim, as a technician may lay it out

FOUR_NESTS = """
agent: {id: l3-pc1, location: {enterprise: 奥克姆, site: 苏州, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}
devices:
  press:
    driver: modbus
    connection: tcp://192.168.1.20
    groups:
      state: {poll: 200ms, tags: {ready: {address: "coil:10"}, wo: {address: "input:9", type: string, length: 8}}}
      result:
        on_trigger: true
        tags:
          sn1: {address: "holding:0", type: string, length: 8}
          sn2: {address: "holding:4", type: string, length: 8}
          force1: {address: "holding:8", type: float32, deadband: 0.5}
          force2: {address: "holding:10", type: float32, store: change, heartbeat: 1min}
          verdict1: {address: "holding:12"}
          verdict2: {address: "holding:13"}
          nest1_a: {address: "holding:14"}
          nest2_a: {address: "holding:15"}
    tags: {ack: {address: "coil:20", write: true}}
stations:
  OP30:
    step: press
    positions: [1, 2]
    identity: {when: in_data, tag: {1: press.sn1, 2: press.sn2}}
    cycle: {end: {handshake: {ready: press.ready, ack: press.ack, read: press.result}}, timeout: 5min, min_time: 2s}
    collect: {force: {tag: {1: press.force1, 2: press.force2}, limits: [null, 20]}}
    result: {tag: {1: press.verdict1, 2: press.verdict2}, meaning: {1: Passed, 2: Failed}}
    context: {work_order: {tag: press.wo}}
    tags: {1: ["press.nest1_*"], 2: ["press.nest2_*"]}
"""


def config_of(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "agent.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def problems_of(tmp_path: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text)
    return list(caught.value.problems)


def changed(old: str, new: str) -> str:
    assert SAMPLE.count(old) == 1, old
    return SAMPLE.replace(old, new)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


# --- what is right -------------------------------------------------------------------------------------------


def test_the_sample_loads_and_means_what_it_says(tmp_path: Path) -> None:
    config = config_of(tmp_path, SAMPLE)
    (station,) = config.plan.stations
    (position,) = station.positions
    assert isinstance(position.end, Handshake)
    assert (position.end.ready.group, position.end.ready.index) == ("press.state", 0)
    assert (position.end.ack, position.end.read, position.end.counter_bits) == ("press.ack", "press.result", 16)
    assert position.end.counter is not None
    assert position.end.counter.name == "press.count"
    (force,) = position.collect
    assert (force.name, force.required, force.low, force.high, force.tag.unit) == ("peak_force", True, 10, 20, "kN")
    assert position.result is not None
    assert position.result.meaning == {True: Result.PASSED, False: Result.FAILED}
    assert (station.identity, station.timeout_s, station.bounce_s, position.scanner) == ("before", 300, 2, "gate")
    assert config.plan.gap_s == {"press.state": 1.0}
    assert config.devices["gate"].shape.scans
    assert config.agent.data_path == Path("/var/lib/edge-agent")
    assert config.describe() == {
        "config": config.id,
        "stations": {
            "OP20": {
                "step": "press-fit",
                "identity": "before",
                "positions": {
                    "1": {
                        "claims": {"press.state": ["ready", "temp"], "press.result": ["count", "force", "ok"]},
                        "characteristics": ["peak_force"],
                    }
                },
            }
        },
        "devices": {"press": "modbus", "gate": "scanner"},
    }


@pytest.mark.parametrize("sample", sorted(Path(__file__).parents[2].glob("deploy/*.yaml")), ids=lambda path: path.name)
def test_every_sample_that_is_shipped_loads(sample: Path) -> None:
    assert load(sample).plan.stations


def test_a_position_claims_what_it_names_and_shared_tags_belong_to_all_that_name_them(tmp_path: Path) -> None:
    config = config_of(tmp_path, FOUR_NESTS)
    first, second = config.plan.stations[0].positions
    assert first.claims == {"press.result": ("sn1", "force1", "verdict1", "nest1_a"), "press.state": ("ready", "wo")}
    assert second.claims == {"press.result": ("sn2", "force2", "verdict2", "nest2_a"), "press.state": ("ready", "wo")}
    assert (first.collect[0].low, first.collect[0].high) == (None, 20)
    assert first.result is not None
    assert first.result.meaning == {1: Result.PASSED, 2: Result.FAILED}
    assert (first.serial and first.serial.name, second.serial and second.serial.name) == ("press.sn1", "press.sn2")
    assert config.plan.gap_s == {"press.state": 2.0}
    assert config.agent.location.site == "苏州"
    store = config.plan.stores["press.result"]
    assert (store.cycle, store.always, store.deadbands, store.heartbeat_s) == (True, False, ((2, 0.5),), 60)
    assert store.exact == (0, 1, 3, 4, 5, 6, 7)


def test_a_device_that_two_stations_use_is_claimed_only_where_it_is_named(tmp_path: Path) -> None:
    second = """
  OP30:
    step: check
    identity: {when: before, scan: gate2}
    cycle: {end: {tag: press.ready, edge: falling, read: press.result}, timeout: 1min}
routes:"""
    text = changed("\nroutes:", second).replace(
        "stations:\n", "  gate2: {driver: scanner, port: /dev/ttyS9}\nstations:\n"
    )
    config = config_of(tmp_path, text)
    op20, op30 = (station.positions[0] for station in config.plan.stations)
    assert op30.claims == {"press.state": ("ready",)}
    assert op20.claims == {"press.state": ("ready",), "press.result": ("count", "force", "ok")}
    assert op30.end == Edge(op20.end.ready, False, "press.result")  # type: ignore[union-attr]
    assert any("no station claims temp" in warning.what for warning in config.warnings)


def test_the_id_follows_the_settings_and_not_their_layout(tmp_path: Path) -> None:
    before = config_of(tmp_path, SAMPLE).id
    assert re.fullmatch("[0-9a-f]{12}", before)
    moved = changed(
        "    step: press-fit\n    positions: [1]\n", "    positions:\n      - 1   # one\n    step: 'press-fit'\n"
    )
    assert config_of(tmp_path, moved).id == before
    assert config_of(tmp_path, changed("[10, 20]", "[10, 21]")).id != before


def test_words_that_older_yaml_took_for_booleans_are_texts(tmp_path: Path) -> None:
    config = config_of(tmp_path, changed("step: press-fit", "step: on").replace("unit: kN", "unit: no"))
    assert config.stations["OP20"].step == "on"
    assert config.plan.stations[0].positions[0].collect[0].tag.unit == "no"


# --- what is wrong -------------------------------------------------------------------------------------------

TEN = {  # what is right -> what stands there instead, the key path, and what the hint must name
    "site: suzhou": ("site: su/zhou", "agent.location.site", "/ + #"),
    "unit_id: 1": ("unitid: 1", "devices.press.unitid", "unit_id"),
    "poll: 100ms": ("poll: 100", "devices.press.groups.state.poll", "100ms"),
    "driver: scanner": ("driver: scaner", "devices.gate.driver", "scanner"),
    "step: press-fit": ("step: true", "stations.OP20.step", '"true"'),
    "(?P<serial>SN": ("(?P<number>SN", "stations.OP20.identity.pattern", "serial"),
    "ready: press.ready": ("ready: pres.ready", "stations.OP20.cycle.end.handshake.ready", "press"),
    "{tag: press.force,": ("{tag: press.froce,", "stations.OP20.collect.peak_force.tag", "press.force"),
    "ack: press.ack": ("ack: press.temp", "stations.OP20.cycle.end.handshake.ack", "write: true"),
    "cycle_closed,": ("cycle_close,", "routes.mes.send.0", "cycle_closed"),
}


def test_ten_different_mistakes_are_all_told_with_their_lines(tmp_path: Path) -> None:
    text = SAMPLE
    for right, (wrong, _, _) in TEN.items():
        assert right in text
        text = text.replace(right, wrong, 1)
    found = {problem.key: problem for problem in problems_of(tmp_path, text)}
    for wrong, key, hint in TEN.values():
        assert found[key].line == line_of(text, wrong), key
        assert hint in found[key].hint, found[key]
        assert found[key].file.endswith("agent.yaml")
    assert len(found) == len(TEN)


@pytest.mark.parametrize(
    ("right", "wrong", "key", "words"),
    [
        ("{id: l3-pc1, ", "{", "agent.id", "is missing"),
        ("id: l3-pc1", "id: 007", "agent.id", '"007"'),
        ("timeout: 5min", "timeout: ", "stations.OP20.cycle.timeout", "no value"),
        ("scan: gate", "scan: press", "stations.OP20.identity.scan", "no scanner"),
        ("scan: gate, ", "", "stations.OP20.identity.scan", "is missing"),
        (r"SN\d{8})$", r"SN\d{8}$", "stations.OP20.identity.pattern", "regular expression"),
        ("positions: [1]", "positions: [1, 1]", "stations.OP20.positions", "twice"),
        ("ready: press.ready", "ready: {2: press.ready}", "stations.OP20.cycle.end.handshake.ready.2", "no position 2"),
        ("ready: press.ready", "ready: {2: press.ready}", "stations.OP20.cycle.end.handshake.ready", "1 is missing"),
        ("ready: press.ready", "ready: press.ok", "stations.OP20.cycle.end.handshake.ready", "must be polled"),
        ("ready: press.ready", "ready: ready", "stations.OP20.cycle.end.handshake.ready", "press.ready"),
        ("counter: press.count", "counter: press.temp", "stations.OP20.cycle.end.handshake.counter", "uint16"),
        ("read: press.result", "read: press.results", "stations.OP20.cycle.end.handshake.read", "press.result?"),
        ("ack: press.ack, ", "", "stations.OP20.cycle.end.handshake.ack", "is missing"),
        ("limits: [10, 20]", "limits: [20, 10]", "stations.OP20.collect.peak_force.limits", "above"),
        ("limits: [10, 20]", "limits: [10, .inf]", "stations.OP20.collect.peak_force.limits.1", "finite"),
        ("limits: [10, 20]", "limits: 10", "stations.OP20.collect.peak_force.limits", "a list"),
        ("{tag: press.ok}", "{tag: press.count}", "stations.OP20.result", "meaning"),
        ("{tag: press.ok}", "{tag: press.ok, meaning: {maybe: Passed}}", "stations.OP20.result.meaning.maybe", "bool"),
        ("required: true", "required: yes", "stations.OP20.collect.peak_force.required", "true or false"),
        ("    result: {tag", "    tags: ['press.x*']\n    result: {tag", "stations.OP20.tags.0", "matches 'x*'"),
        ("  OP20:", "  OP.20:", "stations.OP.20", "cannot be a name"),
        ("  OP20:", "  press:", "stations.press", "device"),
        ("  OP20:", "  agent:", "stations.agent", "itself"),
        ("connection: tcp", "connection: udp", "devices.press.connection", "tcp://"),
        ('"coil:20", write: true', '"coil:20"', "devices.press.tags.ack", "add write: true"),
        ("{ack: {", "{ready: {", "devices.press", "twice"),
        ("start: now", "start: new", "routes.mes.start", "now"),
        ("start: now", "stations: [OP2], start: now", "routes.mes.stations.0", "OP20"),
        ("start: now", "topic: '{line}/{kind}', start: now", "routes.mes.topic", "{source}"),
        ("sink: mqtt", "sink: mqqt", "routes.mes.sink", "mqtt"),
        ("broker:8883", "broker:888x", "routes.mes.url", "8883"),
        ("routes:", "router:", "router", "routes"),
    ],
)
def test_a_mistake_is_told_once_at_its_line(tmp_path: Path, right: str, wrong: str, key: str, words: str) -> None:
    text = changed(right, wrong)
    at = [problem for problem in problems_of(tmp_path, text) if problem.key == key]
    assert len(at) == 1, at
    assert words in f"{at[0].what} → {at[0].hint}"
    pairs = zip(SAMPLE.splitlines(), text.splitlines(), strict=False)
    mistaken = next(number for number, (before, after) in enumerate(pairs, 1) if before != after)
    assert at[0].line == (line_of(text, "  press:") if key == "devices.press" else mistaken)


def test_two_stations_cannot_share_a_scanner_or_an_acknowledge(tmp_path: Path) -> None:
    second = """
  OP30:
    step: press-fit
    identity: {when: before, scan: gate}
    cycle: {end: {handshake: {ready: press.ready, ack: press.ack, read: press.result}}, timeout: 5min}
routes:"""
    text = changed("\nroutes:", second)
    found = problems_of(tmp_path, text)
    assert [problem.key for problem in found] == [
        "stations.OP30.identity.scan",
        "stations.OP30.cycle.end.handshake.ack",
    ]
    assert f"stations.OP20.identity.scan too (line {line_of(text, 'scan: gate, p')})" in found[0].what
    assert "stations.OP20.cycle.end.handshake.ack too" in found[1].what


def test_one_reader_cannot_stand_at_two_positions(tmp_path: Path) -> None:
    text = changed("positions: [1]", "positions: [1, 2]").replace("scan: gate", "scan: {1: gate, 2: gate}")
    (problem,) = problems_of(tmp_path, text)
    assert problem.key == "stations.OP20.identity.scan.2"
    (problem,) = problems_of(tmp_path, changed("positions: [1]", "positions: [1, 2]"))
    assert (problem.key, problem.hint[-31:]) == (
        "stations.OP20.identity.scan",
        "e.g. scan: {1: gate_a, 2: gate_b}"[-31:],
    )


def test_a_context_scan_that_every_label_would_match_is_refused(tmp_path: Path) -> None:
    text = changed("    result: {tag", "    context: {operator: {scan: gate}}\n    result: {tag")
    (problem,) = problems_of(tmp_path, text)
    assert (problem.key, problem.line) == ("stations.OP20.context.operator", line_of(text, "context:"))
    assert load_is_fine(tmp_path, text.replace("{scan: gate}", "{scan: gate, pattern: '^OP-'}"))


def load_is_fine(tmp_path: Path, text: str) -> bool:
    return bool(config_of(tmp_path, text).id)


def test_a_serial_that_is_not_read_with_the_result_is_refused(tmp_path: Path) -> None:
    text = FOUR_NESTS.replace("{1: press.sn1, 2: press.sn2}", "{1: press.sn1, 2: press.wo}")
    (problem,) = problems_of(tmp_path, text)
    assert (problem.key, "press.result" in problem.hint) == ("stations.OP30.identity.tag.2", True)


def test_mistakes_in_a_device_hide_none_in_the_station_that_uses_it(tmp_path: Path) -> None:
    text = changed("unit_id: 1", "unit_id: one").replace("counter: press.count", "counter: press.cuont")
    text = text.replace("type: float32", "type: real32")
    found = {problem.key: problem for problem in problems_of(tmp_path, text)}
    wrong = {"devices.press.unit_id", "devices.press.groups.result.tags.force.type"}
    assert set(found) == wrong | {"stations.OP20.cycle.end.handshake.counter"}
    assert found["stations.OP20.cycle.end.handshake.counter"].hint == "did you mean press.count?"


@given(
    name=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=12).map(lambda text: "x_" + text),
    index=st.integers(0, 7),
)
@settings(max_examples=40, deadline=None)
def test_any_unknown_key_anywhere_is_told_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, index: int
) -> None:
    places = [
        "agent:    {", "location: {", "    unit_id: 1\n    ", "{poll: 100ms, ", 'ready: {address: "coil:10", ',
        "    step: press-fit\n    ", "{handshake: {", "  mes:    {",
    ]  # fmt: skip
    place = places[index].replace(', address: "coil:10"', "")
    anchor = place if place in SAMPLE else 'ready: {address: "coil:10"'
    end = "\n    " if place.endswith("\n    ") else ", "
    added = f"{name}: 1{end}" if anchor == place else f", {name}: 1"
    text = SAMPLE.replace(anchor, anchor + added, 1)
    found = problems_of(tmp_path_factory.mktemp("unknown"), text)
    assert [problem.line for problem in found if problem.key.endswith(f".{name}")] == [line_of(text, f"{name}: 1")]
    assert all("unknown key" in problem.what and problem.hint for problem in found)


# --- secrets -------------------------------------------------------------------------------------------------

SECRET = "geheim-123"


@pytest.mark.parametrize(
    "text",
    [
        changed("start: now", f"start: now, username: x, password: {SECRET}"),
        changed("start: now", f"start: now, username: x, password: [{SECRET}]"),
        changed("start: now", f"start: now, username: x, password: {{value: {SECRET}}}"),
        changed("start: now", f"start: now, username: x, password: '{SECRET}"),
        changed("start: now", f"start: now, username: x, password: *{SECRET}"),
        changed("start: now", f"start: now, username: x, password: !{SECRET}"),
        changed("start: now", f"start: now, pasword: {SECRET}"),
        changed("broker:8883", f"me:{SECRET}@broker:8883"),
        changed("tcp://192", f"tcp://me:{SECRET}@192"),
        changed("unit_id: 1", f"api_key: {SECRET}"),
        changed("unit_id: 1", f"tls_private_key: |\n      {SECRET}"),
    ],
)
def test_a_secret_in_the_config_is_refused_and_never_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    shown = f"{caught.value}{caught.value!r}{caught.value.__cause__!r}"
    assert SECRET not in shown
    assert "geheim" not in shown


def test_the_place_of_a_secret_is_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass\n")
    config = config_of(tmp_path, changed("start: now", f"start: now, username: x, password: {{file: {secret}}}"))
    assert config.routes["mes"].password is not None
    assert config.routes["mes"].password.reveal() == "pass"
    assert not config.warnings


# --- warnings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "key", "words"),
    [
        ("confirm: receiver", "confirm: broker", "routes.mes.confirm", "anybody received"),
        ("start: now", "start: now, version: 3.1.1", "routes.mes.version", "refuses"),
        ("start: now", "start: now, version: 3.1.1", "routes.mes", "dot or a blank"),
        ("start: now", "start: now, tls: {ca: /no/such/ca.pem}", "routes.mes.tls", "ca.pem cannot be read"),
        ("start: now", "start: now, password: {env: HOME}", "routes.mes.password", "without a username"),
        ("mqtts://broker:8883", "mqtt://broker:1883", "routes.mes.url", "not encrypted"),
        ("send: [", "max_rate: 1KiB, send: [sample, ", "routes.mes.max_rate", "its backlog grows"),
        ("counter: press.count, ", "", "stations.OP20.cycle.end.handshake", "double"),
        (", timeout: 5min", "", "stations.OP20.cycle", "no timeout"),
        ("poll: 100ms", "poll: 5ms", "devices.press", "times a second"),
        ("{tag: press.force,", "{tag: press.temp,", "stations.OP20.collect.peak_force.tag", "previous unit"),
    ],
)
def test_what_is_risky_is_told(tmp_path: Path, right: str, wrong: str, key: str, words: str) -> None:
    config = config_of(tmp_path, changed(right, wrong))
    assert [warning for warning in config.warnings if warning.key == key and words in warning.what]
    quiet = config_of(tmp_path, SAMPLE)
    assert not [warning for warning in quiet.warnings if warning.key == key and words in warning.what]


def test_certificates_that_end_soon_are_told_before_they_do(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("line", good_for=20 * DAY)
    files = f"tls: {{ca: {authority.path}, cert: {cert}, key: {key}}}"
    (warning,) = [
        warning
        for warning in config_of(tmp_path, changed("start: now", f"start: now, {files}")).warnings
        if warning.key == "routes.mes.tls"
    ]
    assert "in 19 days" in warning.what
    assert str(cert) in warning.hint


def test_tls_files_of_a_url_in_clear_are_told(tmp_path: Path) -> None:
    text = changed("mqtts://broker:8883", "mqtt://broker:1883").replace("start: now", "start: now, tls: {ca: /x}")
    assert [one for one in config_of(tmp_path, text).warnings if "tls: is not used" in one.what]


def test_a_loopback_broker_needs_no_encryption(tmp_path: Path) -> None:
    for url in ("mqtt://127.0.0.1:1883", "mqtt://localhost:1883", "mqtt://[::1]:1883"):
        assert not config_of(tmp_path, changed("mqtts://broker:8883", url)).warnings


def test_what_is_said_of_a_host_must_hold_for_all_devices_on_it(tmp_path: Path) -> None:
    head = "agent: {id: a, location: {enterprise: e, site: s, area: a, line: l}, data_dir: /d}\ndevices:\n"
    one = "  %s: {driver: modbus, connection: %s, unit_id: %d%s, groups: "
    one += "{g: {poll: 1s, tags: {%s: {address: holding:1}}}}}\n"
    single = ", quirks: {single_connection: true}"
    path = tmp_path / "config.yaml"
    for first, second in (("", ""), (single, single)):
        path.write_text(
            head + one % ("oven", "tcp://gw", 1, first, "a") + one % ("press", "tcp://GW:502", 2, second, "b")
        )
        assert set(load(path).devices) == {"oven", "press"}
    path.write_text(head + one % ("oven", "tcp://gw", 1, single, "a") + one % ("press", "tcp://gw", 2, "", "b"))
    with pytest.raises(ConfigError) as refused:
        load(path)
    (problem,) = refused.value.problems
    assert (problem.line, problem.what) == (4, "tcp://gw:502 is used by oven too")
    assert "single_connection" in problem.hint
