"""Durations and sizes as they are written, the registry, and what every tag and group may say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edge_agent.driver import (
    GroupSettings,
    Settings,
    TagSettings,
    UnknownDriver,
    load_driver,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("0s", 0.0), ("1.5 s", 1.5), ("5min", 300.0), ("72h", 259200.0)],
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [5, 5.0, None, "5", "ms", "-5s", "5 sec", "5m", "1e3s", "5s "])
def test_what_is_no_duration_is_told_how_to_write_one(text: object) -> None:
    with pytest.raises(ValueError, match="100ms, 5s, 2min"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("512MiB", 512 * 2**20), ("20GB", 20 * 10**9), ("1.5 KB", 1500), ("7B", 7)])
def test_a_size_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", [5, "5", "GB", "-5GB", "5G", "5 gb"])
def test_what_is_no_size_is_told_how_to_write_one(text: object) -> None:
    with pytest.raises(ValueError, match="512MiB, 20GB"):
        parse_size(text)


def test_an_unknown_driver_is_told_which_there_are() -> None:
    with pytest.raises(UnknownDriver) as unknown:
        load_driver("modbsu")
    assert "modbus" in unknown.value.hint


@pytest.mark.parametrize("name", ["a.b", "a b", "a/b", "", "-a", "a#"])
def test_a_tag_name_must_fit_into_a_topic_and_after_a_dot(name: str) -> None:
    with pytest.raises(ValidationError):
        GroupSettings[TagSettings].model_validate({"poll": "1s", "tags": {name: {}}})


def test_settings_are_strict_frozen_and_know_their_keys() -> None:
    class Sample(Settings):
        number: int = 1

    for wrong in ({"number": "1"}, {"numbr": 1}):
        with pytest.raises(ValidationError):
            Sample.model_validate(wrong)
    with pytest.raises(ValidationError):
        Sample().number = 2  # type: ignore[misc]


def test_a_group_without_tags_is_none() -> None:
    with pytest.raises(ValidationError, match="tags"):
        GroupSettings[TagSettings].model_validate({"poll": "1s", "tags": {}})
