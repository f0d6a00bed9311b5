"""Frames to codes: what the makers' readers say, recorded, and what must come of it however the bytes are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from edge_agent.model import ScanStatus
from edge_agent_drivers.scanner.codes import Answer, Code, Reading, framer_of
from edge_agent_drivers.scanner.config import ScannerSettings
from edge_agent_drivers.scanner.profiles import PROFILES

RECORDED = YAML(typ="safe").load((Path(__file__).parents[1] / "data" / "frames" / "readers.yaml").read_text("utf-8"))


def settings_of(keys: dict[str, Any]) -> ScannerSettings:
    return ScannerSettings.model_validate({"port": "/dev/ttyACM0", **keys})


def judged(keys: dict[str, Any], data: bytes, size: int) -> list[Code | Answer]:
    settings = settings_of(keys)
    framer, reading = framer_of(settings), Reading(settings)
    frames = [frame for at in range(0, len(data), size) for frame in framer.feed(data[at : at + size])]
    assert framer.gap() == []  # nothing is left over
    return [item for frame in frames for item in reading.judge(frame)]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["name"])
def test_what_readers_say_is_understood(recorded: dict[str, Any], size: int) -> None:
    found = judged(recorded["keys"], recorded["sent"].encode("latin-1"), size)
    scans = [
        [item.status.value, item.raw.decode("latin-1"), *filter(None, [item.symbology])]
        for item in found
        if isinstance(item, Code)
    ]
    assert scans == recorded["scans"]
    assert [item.refused for item in found if isinstance(item, Answer)] == recorded.get("answers", [])


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_a_recording(profile: str) -> None:
    assert any(recorded["keys"].get("profile", "generic") == profile for recorded in RECORDED)


def test_without_the_profile_an_answer_would_be_a_code() -> None:
    """So the recordings above do test something."""
    (code,) = judged({}, b"OK,LON\r\n", 100)
    assert code == Code(b"OK,LON", ScanStatus.READ)


@given(
    profile=st.sampled_from(sorted(PROFILES)),
    data=st.binary(max_size=80) | st.text("OKER,LN0|[]1E\r\n\x02\x03\x18", max_size=40).map(str.encode),
    separator=st.sampled_from(["", ","]),
)
def test_whatever_comes_is_codes_and_answers_and_none_is_empty(profile: str, data: bytes, separator: str) -> None:
    keys = {"profile": profile, "separator": separator}
    settings = settings_of(keys)
    framer, reading = framer_of(settings), Reading(settings)
    for frame in framer.feed(data) + framer.gap():
        for item in reading.judge(frame):
            assert isinstance(item, Answer) or item.raw or item.symbology


@given(st.binary(min_size=1, max_size=30))
def test_base64_of_a_dataman_is_taken_off_whole(code: bytes) -> None:
    import base64

    data = b"||[1]" + base64.b64encode(code) + b"\r\n"
    (found,) = judged({"profile": "cognex", "no_read": []}, data, 1000)
    assert found == Code(code, ScanStatus.READ)
