"""What `status` takes for a trouble, from what an agent says of itself."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from edge_agent import i18n
from edge_agent.cli import status
from edge_agent.cli.status import collect_running

REFUSED = {"ready": "exception 2"}


def facts(handshake: str, no_value: dict[str, str], **route: Any) -> dict[str, Any]:
    return collect_running(
        {
            "devices": {"press": {"state": "connected", "no_value": no_value}},
            "stations": {"OP20": {"positions": {"1": {"handshake": handshake}}}},
            "routes": {"mes": {"state": "connected"} | route},
        }
    )


def test_a_station_that_cannot_see_the_ends_of_its_cycles_is_no_line_that_is_traced() -> None:
    found = facts("unknown", REFUSED)
    assert found["overall"] == "DEGRADED"
    (trouble,) = found["troubles"]
    assert trouble["about"] == "station OP20" and trouble["hint"]


def test_a_tag_without_a_value_that_ends_nothing_and_a_start_are_no_troubles() -> None:
    assert facts("idle", REFUSED)["overall"] == facts("unknown", {})["overall"] == "OK"


def test_dead_letters_say_why_the_last_one_was_refused() -> None:
    (trouble,) = facts("idle", {}, dead=3, last_error="a/b: not authorized", hint="allow a/b")["troubles"]
    assert trouble["what"] == "dead letters: 3; a/b: not authorized"
    assert trouble["hint"] == "allow a/b"
    (trouble,) = facts("idle", {}, dead=3)["troubles"]
    assert trouble["what"] == "dead letters: 3" and "deadletter list mes" in trouble["hint"]


def test_what_a_start_found_damaged_is_not_passed_over() -> None:
    found = collect_running({"buffer": {"damage": ["records 17 to 20 at least were committed and are not there"]}})
    (trouble,) = found["troubles"]
    assert found["overall"] == "DEGRADED"
    assert "records 17 to 20" in trouble["what"] and "buffer verify" in trouble["hint"]


def test_a_buffer_that_is_nearly_full_says_what_makes_room() -> None:
    def told(**buffer: Any) -> list[tuple[str, str]]:
        return [(trouble["what"], trouble["hint"]) for trouble in collect_running({"buffer": buffer})["troubles"]]

    ((what, hint),) = told(hours_left=0.15, limited_by="disk")
    assert what == "full in 9 min at the present rate" and hint.startswith("free disk space")
    ((_what, hint),) = told(hours_left=0.15, limited_by="max_size")
    assert "max_size" in hint
    full = {"error": "the buffer cannot be written: database or disk is full", "hint": "free disk space"}
    assert told(hours_left=0.0, limited_by="disk", trouble=full) == [(full["error"], full["hint"])]
    i18n.use("zh")
    try:
        for text in (
            "dead letters: 3",
            what,
            hint,
            "the broker takes the records, but the receiver does not confirm them",
        ):
            assert i18n.translate(text) != text
    finally:
        i18n.use("en")


def test_chinese_lists_have_chinese_commas() -> None:
    i18n.use("zh")
    try:
        file = io.StringIO()
        out = Console(file=file, width=160)
        position = {"serial": "SN1", "counts": {"cycles": 3, "scans": 2}}
        status._show_stations(out, {"OP20": {"positions": {"1": position}}})
        status._show_buffer(out, {"rows": 5, "bytes": 10, "hours_left": 9.0})
    finally:
        i18n.use("en")
    assert ", " not in file.getvalue()
    assert file.getvalue().count("，") >= 2
