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
    ],
)
def test_what_cannot_be_is_told_why(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ScannerSettings.model_validate(keys)
