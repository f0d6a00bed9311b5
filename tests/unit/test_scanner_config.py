"""What a scanner's section may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent_drivers.scanner.config import ScannerSettings, describe


def test_the_port_alone_is_enough_and_the_shape_is_scans() -> None:
    settings = ScannerSettings.model_validate({"port": "/dev/ttyACM0"})
    assert settings.baud == 9600
    shape = describe("gate", settings)
    assert shape.scans
    assert not shape.groups
    assert not shape.writable


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "port"),
        ({"port": ""}, "port"),
        ({"port": "/dev/x", "frame": {}}, "must end somewhere"),
        ({"port": "/dev/x", "frame": {"end": ""}}, "end"),
        ({"port": "/dev/x", "frame": {"end": "→"}}, "more than bytes"),
        ({"port": "/dev/x", "frame": {"idle": "0s"}}, "idle"),
        ({"port": "/dev/x", "frame": {"end": "\r", "max_length": 10**9}}, "max_length"),
        ({"port": "/dev/x", "no_read": ["没有"]}, "more than bytes"),
        ({"port": "/dev/x", "parity": "mark"}, "parity"),
        ({"port": "/dev/x", "baud": "9600"}, "baud"),
        ({"port": "/dev/x", "baudrate": 9600}, "baudrate"),
        ({"port": "/dev/x", "profile": "acme"}, "profile"),
        ({"port": "/dev/x", "code": "("}, "no regular expression"),
        ({"port": "/dev/x", "code": "SN.*"}, "0 groups"),
        ({"port": "/dev/x", "separator": "→"}, "more than bytes"),
        ({"port": "/dev/x", "trigger": {"off": "x"}}, "no command that begins"),
        ({"port": "/dev/x", "trigger": {"on": "x", "answers": True}}, "answers that can be judged"),
        ({"port": "/dev/x", "profile": "keyence", "frame": {"end": "\r\n"}}, "answers: false"),
    ],
)
def test_what_cannot_be_is_told_why(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ScannerSettings.model_validate(keys)


def settings_of(**keys: Any) -> ScannerSettings:
    return ScannerSettings.model_validate({"port": "/dev/x", **keys})


def test_a_profile_with_a_command_makes_the_trigger_writable() -> None:
    assert describe("gate", settings_of(profile="keyence")).writable == {"trigger"}
    assert describe("gate", settings_of(trigger={"on": "T\r"})).writable == {"trigger"}
    assert not describe("gate", settings_of(profile="datalogic")).writable


def test_what_is_written_replaces_the_profiles() -> None:
    keyence = settings_of(profile="keyence")
    assert (keyence.command_on, keyence.command_off, keyence.awaits_answer) == (b"LON\r", b"LOFF\r", True)
    own = settings_of(profile="keyence", trigger={"on": "GO\r", "answers": False})
    assert (own.command_on, own.command_off, own.awaits_answer) == (b"GO\r", b"LOFF\r", False)


def test_commands_go_in_the_frame_that_answers_shall_come_in() -> None:
    framed = settings_of(profile="keyence", frame={"start": "\x02", "end": "\x03"})
    assert (framed.command_on, framed.command_off) == (b"\x02LON\x03", b"\x02LOFF\x03")


def test_two_devices_never_share_a_port() -> None:
    assert describe("gate", settings_of()).port == ("/dev/x", "")
