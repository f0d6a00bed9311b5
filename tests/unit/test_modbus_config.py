"""What a Modbus section may say, and what it is told when it says something else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent_drivers.modbus.config import ModbusSettings, ModbusTag, Quirks, describe
from edge_agent_drivers.modbus.connection import Connection


def settings(**keys: Any) -> ModbusSettings:
    return ModbusSettings.model_validate({"connection": "tcp://plc:502", **keys})


def group(**tags: dict[str, Any]) -> dict[str, Any]:
    return {"poll": "100ms", "tags": tags}


def test_host_and_port_come_from_the_connection() -> None:
    assert (settings().host, settings().port) == ("plc", 502)
    six = settings(connection="tcp://[::1]:1502")
    assert (six.host, six.port) == ("::1", 1502)
    assert settings(connection="tcp://10.0.0.1").port == 502


@pytest.mark.parametrize(
    ("connection", "parsed"),
    [
        ("tls://plc", Connection("mbap", "plc", 802, tls=True)),
        ("tls://plc:8020", Connection("mbap", "plc", 8020, tls=True)),
        ("rtu+tcp://10.0.0.1:4001", Connection("rtu", "10.0.0.1", 4001)),
        ("ascii+tcp://[::1]:4001", Connection("ascii", "::1", 4001)),
        ("rtu:///dev/ttyS0", Connection("rtu", "", 0, tty="/dev/ttyS0")),
        ("ascii:///dev/serial/by-id/usb-X-if00", Connection("ascii", "", 0, tty="/dev/serial/by-id/usb-X-if00")),
        ("rtu://usb:0403:6001", Connection("rtu", "", 0, tty="usb:0403:6001")),
        ("rtu://usb:0403:6001:FT4X", Connection("rtu", "", 0, tty="usb:0403:6001:FT4X")),
    ],
)
def test_every_transport_is_named_by_its_connection(connection: str, parsed: Connection) -> None:
    assert settings(connection=connection).parsed == parsed


@pytest.mark.parametrize(
    ("connection", "told"),
    [
        *[(wrong, "connection") for wrong in ("plc:502", "tcp://", "tcp://plc:port", "tcp://plc:99999", "tcp://u@plc")],
        ("udp://plc", "connection"),
        ("rtu+tls://plc:4001", "connection"),
        ("rtu+tcp://plc", "needs the port of the serial server"),
        ("rtu://usb:0403", "names no serial port"),
        ("rtu://ttyUSB0", "connection"),
    ],
)
def test_a_connection_that_is_none_is_refused(connection: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(connection=connection)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"serial": {"baud": 9600}}, "this connection has none"),
        ({"tls": {"ca_file": "/ca.pem"}}, "write tls://"),
        ({"connection": "tls://plc", "tls": {"cert_file": "/a.pem"}}, "go together"),
        ({"connection": "rtu:///dev/ttyS0", "unit_id": 0}, "broadcast"),
        ({"connection": "rtu:///dev/ttyS0", "quirks": {"closes_idle": True}}, "leave closes_idle out"),
    ],
)
def test_sections_that_do_not_fit_the_connection_are_told(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(**keys)


def test_devices_of_one_line_must_agree_how_it_is_set() -> None:
    line = settings(connection="rtu:///dev/ttyS0", serial={"baud": 19200, "parity": "even"})
    assert describe("oven", line).port == ("/dev/ttyS0", "modbus rtu 19200 8E1")
    assert describe("oven", settings(connection="rtu+tcp://oven:4001")).port is None


def test_devices_of_one_host_must_agree_whether_it_takes_one_connection() -> None:
    alone = settings(connection="tcp://PLC", quirks={"single_connection": True})
    assert describe("oven", alone).port == ("tcp://plc:502", "modbus-single")
    assert describe("plc", settings()).port == ("tcp://plc:502", "modbus")
    assert describe("plc", settings(connection="tls://[::1]")).port == (
        "tls://[::1]:802",
        "modbus",
    )


def test_the_quirks_limit_each_table() -> None:
    assert Quirks().limits("holding") == (125, 124)
    assert Quirks().limits("coil") == (2000, 16 * 124)
    assert Quirks(max_pdu=64).limits("input") == (31, 124)
    assert Quirks(max_pdu=64).most_written == 29
    own = Quirks.model_validate({"max_gap": 8, "tables": {"input": {"max_registers": 32, "max_gap": 0}}})
    assert own.limits("input") == (32, 0)
    assert own.limits("holding") == (125, 8)
    assert Quirks(max_bits=100).limits("discrete") == (100, 16 * 124)


def test_what_one_write_cannot_carry_is_refused() -> None:
    long = {"address": "holding:0", "type": "float32", "count": 20, "write": True}
    with pytest.raises(ValueError, match="longer than one write"):
        describe("plc", settings(quirks={"max_pdu": 64}, tags={"curve": long}))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"address": "40101"}, "holding:100"),
        ({"address": "holding:70000"}, "beyond the last address"),
        ({"address": "holding:65535", "type": "float32"}, "reach beyond"),
        ({"address": "holding:1.16"}, "0 to 15"),
        ({"address": "coil:1.1"}, "only registers have bits"),
        ({"address": "coil:1", "type": "int16"}, "can only be bool"),
        ({"address": "holding:1.1", "type": "uint16"}, "can only be bool"),
        ({"address": "holding:1", "type": "string"}, "length: 16"),
        ({"address": "holding:1", "type": "int16", "length": 3}, "nothing else has one"),
        ({"address": "holding:1", "type": "bool", "scale": 2.0}, "no scale"),
        ({"address": "holding:1", "scale": 0.0}, "other than 0"),
        ({"address": "holding:1", "scale": float("nan")}, "other than 0"),
        ({"address": "holding:1", "offset": float("inf")}, "offset"),
        ({"address": "input:1", "write": True}, "can only be read"),
        ({"address": "input:1.1", "write": True}, "can only be read"),
        ({"address": "holding:1.10", "count": 8, "write": True}, "in one register"),
        ({"address": "holding:1.high", "type": "int16"}, "is one byte"),
        ({"address": "holding:1.low", "count": 2}, "is one byte"),
        ({"address": "holding:1", "type": "uint8", "order": "BADC"}, "holding:1.high for the upper"),
        ({"address": "coil:1.high"}, "only registers have bits"),
        ({"address": "holding:1", "type": "string", "length": 4, "count": 2}, "a tag for each"),
        ({"address": "holding:1", "type": "float64", "count": 32}, "128 at a time are more than one request reads"),
        ({"address": "coil:1", "count": 1999, "write": True}, "more than one request writes, 1968"),
        ({"address": "holding:1", "type": "float32", "enum": {0: "idle"}}, "only whole numbers"),
        ({"address": "holding:1", "scale": 2.0, "enum": {0: "idle"}}, "takes the place of scale"),
        ({"address": "holding:1", "enum": {0: "idle", 1: "idle"}}, "the same name"),
        ({"address": "holding:1", "read_back": False}, "add write: true"),
        ({"address": "holding:1", "order": "DCAB"}, "order"),
        ({"address": "holding:1", "adress": "holding:1"}, "adress"),
    ],
)
def test_a_tag_that_cannot_be_is_told_why(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ModbusTag.model_validate(keys)


def test_types_have_defaults_that_fit_the_table() -> None:
    assert ModbusTag(address="coil:1").value_type == "bool"
    assert ModbusTag(address="holding:1.3").value_type == "bool"
    assert ModbusTag(address="holding:1").value_type == "uint16"


def test_codes_may_be_written_as_yaml_gives_them() -> None:
    its = ModbusTag.model_validate({"address": "holding:1", "type": "int16", "enum": {"0": "idle", "-1": "fault"}})
    assert its.enum == {0: "idle", -1: "fault"}
    with pytest.raises(ValidationError, match="integer"):
        ModbusTag.model_validate({"address": "holding:1", "enum": {"idle": "0"}})


def test_the_recorded_type_says_what_scaling_makes_of_a_value() -> None:
    assert ModbusTag(address="holding:1", type="int16", scale=0.1).recorded_type == "float64"
    assert ModbusTag(address="holding:1", type="int16", scale=10.0).recorded_type == "int64"
    assert ModbusTag(address="holding:1", type="float32").recorded_type == "float32"
    assert ModbusTag(address="holding:1", type="bcd32").recorded_type == "uint32"
    assert ModbusTag(address="holding:1", enum={0: "idle"}).recorded_type == "string"
    assert ModbusTag(address="holding:1", type="int16", scale=0.1, count=4).recorded_type == "float64[]"
    assert ModbusTag(address="coil:1", count=4).recorded_type == "bool[]"


def test_a_group_is_polled_or_triggered_not_both_and_not_neither() -> None:
    tags = {"a": {"address": "coil:1"}}
    for pace in ({}, {"poll": "1s", "on_trigger": True}):
        with pytest.raises(ValidationError, match="write either poll"):
            settings(groups={"state": {**pace, "tags": tags}})
    assert describe("plc", settings(groups={"state": {"poll": "0s", "tags": tags}})).groups["state"].poll_s == 0


def test_the_shape_lists_groups_in_order_and_what_may_be_written() -> None:
    shape = describe(
        "plc",
        settings(
            groups={"state": group(b={"address": "coil:1", "write": True}, a={"address": "input:1", "unit": "kN"})},
            tags={"ack": {"address": "coil:2", "write": True}},
        ),
    )
    assert [tag.name for tag in shape.groups["state"].tagset.tags] == ["b", "a"]
    assert shape.groups["state"].tagset.tags[1].unit == "kN"
    assert shape.writable == {"ack", "b"}
    assert not shape.scans


def test_a_name_used_twice_and_a_tag_of_no_use_are_told_together() -> None:
    twice = settings(
        groups={"state": group(a={"address": "coil:1"}), "result": group(a={"address": "coil:2"})},
        tags={"b": {"address": "coil:3"}},
    )
    with pytest.raises(ValueError, match=r"'b' is in no group and not writable; tag 'a' of group 'result'"):
        describe("plc", twice)


def test_a_tag_longer_than_the_quirk_allows_is_refused() -> None:
    long = settings(
        quirks={"max_registers": 4}, groups={"state": group(a={"address": "holding:1", "type": "string", "length": 9})}
    )
    with pytest.raises(ValueError, match="max_registers"):
        describe("plc", long)
