"""A device's numbers: rates of the last seconds, round trips, and what changed while somebody watched."""

from __future__ import annotations

from typing import Any

from edge_agent.model import Instant, Sample, Scan, ScanStatus, Tag, TagSet, Value
from edge_agent.traffic import CHANGES_KEPT, RATE_S, SCANS_KEPT, WATCHED_S, Traffic

STATE = TagSet("press", "state", (Tag("force", "float32", "kN"), Tag("ok", "bool")))
SLOW = TagSet("press", "slow", (Tag("temp", "int16"),))


def at(seconds: float) -> Instant:
    return Instant(1_700_000_000_000_000_000 + round(seconds * 1e9), round(seconds * 1e9))


def sample(seconds: float, *values: Value, tagset: TagSet = STATE, trip_ms: float = 1.0, **more: Any) -> Sample:
    now = at(seconds)
    return Sample(tagset, now, now.mono_ns - round(trip_ms * 1e6), values, **more)


def test_rates_are_of_the_last_ten_seconds() -> None:
    traffic = Traffic(at(0))
    for step in range(1, 301):  # 10 a second for 30 s
        traffic.read(at(step / 10))
        traffic.sample(sample(step / 10, step, True), asked=True)
    assert abs(traffic.numbers(at(30))["rates"]["samples_per_s"] - 10) < 0.2
    assert traffic.numbers(at(30 + RATE_S))["rates"]["samples_per_s"] < 1.1, "it has fallen silent"
    assert traffic.numbers(at(300))["rates"] == {"samples_per_s": 0.0, "scans_per_s": 0.0}
    assert traffic.samples == 300


def test_a_device_that_has_just_begun_has_a_rate_too() -> None:
    traffic = Traffic(at(100))
    for step in range(5):
        traffic.scan(Scan("gate", at(100 + step / 10), b"A"))
    assert traffic.numbers(at(100.5))["rates"]["scans_per_s"] == 10.0


def test_round_trips_are_of_what_was_asked_for() -> None:
    traffic = Traffic(at(0))
    assert traffic.numbers(at(0))["round_trip"] is None
    for milliseconds in [1.0] * 95 + [20.0] * 5:
        traffic.sample(sample(1, 1, True, trip_ms=milliseconds), asked=True)
    traffic.sample(sample(1, 1, True, trip_ms=500), asked=False)
    trip = traffic.numbers(at(1))["round_trip"]
    assert (trip["p95_ms"], trip["max_ms"], trip["last_ms"], trip["reads"]) == (1.0, 20.0, 20.0, 100)
    assert trip["mean_ms"] == 1.95


def test_values_are_shown_with_their_times_and_why_there_is_none() -> None:
    traffic = Traffic(at(0))
    traffic.sample(sample(1, None, True, status={0: "exception 2"}, source_ns={1: 7}), asked=True)
    traffic.sample(sample(2, 5, tagset=SLOW), asked=True)
    traffic.sample(sample(3, 9, tagset=SLOW, history=True), asked=False)
    shown = traffic.watched(at(3), (), 0, 0)["values"]
    assert [one["value"] for one in shown["state"]] == [None, True]
    assert (shown["state"][0]["status"], shown["state"][0]["unit"]) == ("exception 2", "kN")
    assert shown["state"][1]["source_ns"] == "7"
    assert shown["slow"][0]["value"] == 5, "history is old news"
    assert traffic.no_value() == {"force": "exception 2"}
    for names, found in [(("slow",), ["temp"]), (("force",), ["force"]), (("state.ok", "temp"), ["ok", "temp"])]:
        values = traffic.watched(at(3), names, 0, 0)["values"]
        assert [one["tag"] for tags in values.values() for one in tags] == found
    traffic.closed()
    assert traffic.watched(at(3), (), 0, 0)["values"] == {}


def test_each_change_is_seen_once_by_each_watcher_and_noted_only_while_one_is_there() -> None:
    traffic = Traffic(at(0))
    traffic.sample(sample(0.1, 0, True), asked=True)
    first = traffic.watched(at(0.2), (), 0, 0)
    assert (first["changes"], first["change"]) == ([], 0)
    for step in range(1, 5):
        traffic.sample(sample(step / 2, step // 2, True), asked=True)  # 0 1 1 2
    second = traffic.watched(at(3), (), first["change"], 0)
    assert [(one["tag"], one["value"]) for one in second["changes"]] == [("force", 1), ("force", 2)]
    assert second["values"]["state"][0]["changes"] == 2
    assert traffic.watched(at(3), (), second["change"], 0)["changes"] == []
    assert len(traffic.watched(at(3), (), 0, 0)["changes"]) == 2, "another watcher"
    assert traffic.watched(at(3), ("ok",), 0, 0)["changes"] == []
    traffic.read(at(3 + WATCHED_S + 1))  # nobody has looked since
    traffic.sample(sample(10, 77, False), asked=True)
    assert traffic.watched(at(10), (), 0, 0)["changes"] == []


def test_who_looks_too_seldom_is_told_how_much_he_missed() -> None:
    traffic = Traffic(at(0))
    traffic.watched(at(0), (), 0, 0)
    for step in range(CHANGES_KEPT + 10):
        traffic.sample(sample(1, step, tagset=SLOW), asked=True)
        traffic.scan(Scan("press", at(1), b"%d" % step))
    seen = traffic.watched(at(1), (), 0, 0)
    assert (len(seen["changes"]), seen["missed"]) == (CHANGES_KEPT, 10)
    assert [one["n"] for one in seen["scanned"]] == list(range(traffic.scans - SCANS_KEPT + 1, traffic.scans + 1))
    assert [one["n"] for one in traffic.watched(at(1), (), seen["change"], traffic.scans - 1)["scanned"]] == [
        traffic.scans
    ]


def test_a_scan_is_shown_though_it_is_no_text() -> None:
    traffic = Traffic(at(0))
    traffic.scan(Scan("gate", at(1), b"\xff" * 4096, ScanStatus.GARBAGE))
    (shown,) = traffic.watched(at(1), (), 0, 0)["scanned"]
    assert (shown["status"], shown["bytes"], shown["text"][:8]) == ("garbage", 4096, "\\xff\\xff")
    assert len(shown["raw"]) < 2000


def test_errors_are_counted_by_kind_and_the_last_is_kept() -> None:
    traffic = Traffic(at(0))
    for kind in ("lost", "rejected", "lost"):
        traffic.failed(kind, f"it was {kind}", "look", at(5))
    numbers = traffic.numbers(at(6))
    assert numbers["errors"] == {"lost": 2, "rejected": 1}
    assert numbers["last_error"] == {
        "kind": "lost", "at_ns": str(at(5).at_ns), "text": "it was lost", "hint": "look",
    }  # fmt: skip
