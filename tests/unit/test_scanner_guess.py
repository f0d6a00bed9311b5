"""What a stream may be: recorded streams of every protocol, and nothing that anybody could hear breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from edge_agent.bench import Heard
from edge_agent.driver import load_driver
from edge_agent_drivers.scanner.bench import found_in, score
from edge_agent_drivers.scanner.config import ScannerSettings
from edge_agent_drivers.scanner.guess import SURE, recognize
from edge_agent_drivers.stream.names import Plugged

STREAMS = YAML(typ="safe").load((Path(__file__).parents[1] / "data" / "frames" / "streams.yaml").read_text("utf-8"))
KNOWN = [stream for stream in STREAMS if stream["section"]]
by_name = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream["name"])


def heard_in(stream: dict[str, Any]) -> list[Heard]:
    return [
        Heard(at_s, bytes.fromhex(data["hex"]) if isinstance(data, dict) else data.encode("latin-1"))
        for at_s, data in stream["bursts"]
    ]


def settings_of(**keys: Any) -> ScannerSettings:
    return ScannerSettings.model_validate({"port": "/dev/ttyS1", **keys})


@by_name
def test_a_protocol_is_recognised_first(stream: dict[str, Any]) -> None:
    first = recognize(settings_of(), b"", heard_in(stream))[0]
    assert first.what == stream["guess"]
    assert first.section.items() >= stream["section"].items()


@pytest.mark.parametrize("stream", KNOWN, ids=lambda stream: stream["name"])
@pytest.mark.parametrize("where", [{"port": "/dev/ttyS1", "baud": 19200}, {"port": "tcp://10.0.0.5:4001"}])
def test_every_section_is_one_that_its_driver_takes(stream: dict[str, Any], where: dict[str, Any]) -> None:
    for sent in (b"", b"S\r\n"):
        for likely in recognize(settings_of(**where), sent, heard_in(stream)):
            spec = load_driver(likely.section["driver"])
            spec.describe("device", spec.settings().model_validate(dict(likely.section)))


def test_a_checksum_must_fit() -> None:
    wrong = [Heard(0.1, b"\x02010063E9AE26\x03")]
    assert recognize(settings_of(), b"", wrong)[0].section["driver"] == "scanner"
    wrong = [Heard(0.1, bytes.fromhex("110300000001869B"))]
    assert not recognize(settings_of(), b"", wrong)[0].section


def test_what_else_is_seen_is_told() -> None:
    seven = bytes(byte | (byte.bit_count() % 2) << 7 for byte in b"+0012.50 kg\r\n+0012.55 kg\r\n")
    assert (
        "seven bits and even parity: try data_bits: 7, parity: even"
        in recognize(settings_of(), b"", [Heard(0.1, seven)])[0].notes
    )
    body = (b"AB12", b"XY7Q")
    summed = b"".join(text + b"%02X" % (sum(text) & 0xFF) + b"\r\n" for text in body)
    notes = recognize(settings_of(), b"", [Heard(0.1, summed)])[0].notes
    assert "the last characters look like a checksum: sum, two hexadecimal digits" in notes
    assert "messages end with CR LF" in notes


def test_nothing_heard_is_no_guess() -> None:
    (nothing,) = recognize(settings_of(), b"", [])
    assert (nothing.what, nothing.section) == ("nothing was heard", {})


def test_the_right_baud_rate_scores_better_than_the_wrong() -> None:
    right = score(settings_of(), [Heard(0.1, b"SN00000001\r\n")])
    wrong = score(settings_of(), [Heard(0.1, b"\xf8\x00\xe0\x80\xfe\x00\xc0"), Heard(0.2, b"", error="framing")])
    assert right >= SURE > wrong


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.binary(max_size=60) | st.text("S \x02\x03\r\n0.:", max_size=40).map(str.encode)),
        max_size=6,
    )
)
def test_nothing_heard_breaks_it(bursts: list[tuple[float, bytes]]) -> None:
    heard = [Heard(at_s, data) for at_s, data in sorted(bursts)]
    likely = recognize(settings_of(), b"", heard)
    assert likely
    assert all(0 <= one.score <= 1 for one in likely)


@pytest.mark.parametrize(
    ("port", "driver", "keys"),
    [
        (
            Plugged("/dev/serial/by-id/a", "/dev/ttyACM0", vendor_id="0c2e", product_id="0b6a"),
            "scanner",
            {"profile": "honeywell"},
        ),
        (
            Plugged("/dev/serial/by-id/b", "/dev/ttyACM1", vendor_id="ffff", vendor="COGNEX"),
            "scanner",
            {"profile": "cognex"},
        ),
        (Plugged("/dev/serial/by-id/c", "/dev/ttyACM2", vendor_id="0eb8"), "instrument", {"protocol": "mt-sics"}),
        (Plugged("/dev/serial/by-id/d", "/dev/ttyUSB0", vendor_id="0403", product="FT232R"), "serial", {}),
        (Plugged("/dev/ttyS0", "/dev/ttyS0"), "serial", {}),
    ],
)
def test_a_port_is_found_by_the_maker_of_what_is_in_it(port: Plugged, driver: str, keys: dict[str, Any]) -> None:
    found = found_in(port)
    assert found.driver == driver
    assert found.section.items() >= keys.items()
    if found.section:
        assert found.section["port"] == port.name
    else:
        assert "listen-serial" in found.what
