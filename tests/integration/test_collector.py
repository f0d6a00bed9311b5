"""The collector with a real log and binder; its driver is scripted, since its subject is what drivers may do to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock, collector
from edge_agent.binding import ReadGroup
from edge_agent.driver import Cadence
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.line import WriteTag
from edge_agent.model import Instant, Sample, Scan
from support.scripted_device import FAST, SLOW, Scripted, count_up, quick_retries, running, sample, until

__all__ = ["quick_retries"]


def test_a_group_on_trigger_is_read_only_when_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, driver, _line):
            await until(lambda: item.status()["samples"] > 5)
            assert "read slow" not in driver.calls
            item._request(ReadGroup("plc.slow"))
            await until(lambda: "read slow" in driver.calls)

    asyncio.run(main())


def test_a_write_waits_for_the_commit_of_what_caused_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, driver, line):
            await until(lambda: item.status()["samples"] > 2)
            ahead = line.buffer.next_seq + 3  # not appended yet, let alone durable
            item._request(WriteTag("ack", True, after_seq=ahead))
            for _ in range(4):
                line.sample(sample(SLOW, 1))
            await until(lambda: bool(driver.written))
            assert driver.written[0][:2] == ("ack", True)
            assert driver.written[0][2] >= ahead

    asyncio.run(main())


def test_a_plc_that_clears_the_acknowledge_itself_costs_no_reconnect(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, driver, _line):
            await until(lambda: item.status()["samples"] > 2)
            item._request(WriteTag("not kept", True, after_seq=0))
            await until(lambda: item.status()["not_kept"] == 1)
            assert (item.status()["state"], driver.calls.count("open")) == ("connected", 1)
            item._request(WriteTag("not kept", False, after_seq=0))
            await until(lambda: item.status()["reconnects"] == 1)

    asyncio.run(main())


def test_a_lost_device_is_closed_reopened_and_reported_as_a_gap(tmp_path: Path) -> None:
    gaps: list[tuple[str, str]] = []

    async def lose_once(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if len(driver.calls) == 6:
            raise DeviceLost("plc", "cable pulled")
        return await count_up(driver, group)

    async def main() -> None:
        async with running(tmp_path, lose_once) as (item, driver, line):
            report = line.gap

            def heard(device: str, since: Instant, now: Instant, cause: str) -> int:
                gaps.append((device, cause))
                return report(device, since, now, cause)

            line.gap = heard  # type: ignore[method-assign]
            await until(lambda: item.status()["reconnects"] == 1 and item.status()["state"] == "connected")
            assert driver.calls.index("close") < len(driver.calls) - driver.calls[::-1].index("open")

    asyncio.run(main())
    assert gaps == [("plc", "lost")]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DeviceUnavailable("plc", "no route", hint="ping it"), "connecting"),
        (DeviceRefused("plc", "wrong unit id", hint="try 255"), "faulted"),
        (KeyError("a bug"), "isolated"),
    ],
)
def test_each_error_at_open_has_its_state_and_the_device_comes_back(
    tmp_path: Path, error: Exception, state: str
) -> None:
    seen: list[dict[str, Any]] = []

    async def main() -> None:
        async with running(tmp_path, opens=[error]) as (item, _driver, _line):
            set_state = item._state

            def note(*arguments: Any) -> None:
                set_state(*arguments)
                seen.append(item.status())

            item._state = note  # type: ignore[method-assign]
            await until(lambda: item.status()["state"] == "connected")

    asyncio.run(main())
    assert seen[0]["state"] == state
    assert seen[0]["error"] and seen[0]["hint"]


def test_what_has_no_value_is_told_until_it_has_one_again(tmp_path: Path) -> None:
    refused = True

    async def say(driver: Scripted, group: str | None) -> Sequence[Sample]:
        await asyncio.sleep(0.001)
        now = clock.now()
        return [Sample(FAST, now, now.mono_ns, (None if refused else 1,), {0: "exception 2"} if refused else None)]

    async def main() -> None:
        nonlocal refused
        async with running(tmp_path, say=say) as (item, _driver, _line):
            await until(lambda: item.status()["no_value"] == {"x": "exception 2"})
            refused = False
            await until(lambda: item.status()["no_value"] == {})

    asyncio.run(main())


def test_one_unusable_answer_is_counted_and_ten_in_a_row_are_a_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def nonsense(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if driver.calls.count("open") < 2 and len(driver.calls) > 4:
            raise ReadingRejected("plc", "half a reply", hint="ask for less")
        return await count_up(driver, group)

    async def main() -> None:
        async with running(tmp_path, nonsense) as (item, _driver, _line):
            await until(lambda: item.status()["reconnects"] == 1)
            assert item.status()["rejected"] == collector.REJECTED_IN_A_ROW

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (error,) = (error for record in caplog.records if isinstance(error := record.fields.get("error"), DeviceLost))  # type: ignore[attr-defined]
    assert str(error) == "plc: 10 unusable answers in a row, last: half a reply\n  → ask for less"


def test_a_fault_in_a_driver_while_reading_isolates_that_driver(tmp_path: Path) -> None:
    async def faulty(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if driver.calls.count("open") < 2:
            raise ZeroDivisionError
        return await count_up(driver, group)

    async def main() -> None:
        async with running(tmp_path, faulty) as (item, driver, _line):
            await until(lambda: item.status()["state"] == "connected" and item.status()["samples"] > 1)
            assert driver.calls.count("open") == 2

    asyncio.run(main())


@pytest.mark.parametrize("value", ["half a character: \ud800", 2**64, {"deep": [b"bytes"]}])
def test_a_value_that_no_record_can_hold_isolates_its_device_and_spares_the_agent(tmp_path: Path, value: Any) -> None:
    async def once(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if driver.calls.count("open") < 2:
            return [sample(FAST, value)]
        return await count_up(driver, group)

    async def main() -> None:
        async with running(tmp_path, once) as (item, _driver, _line):
            await until(lambda: item.status()["state"] == "connected" and item.status()["samples"] > 1)
            assert item.status()["errors"] == {"isolated": 1}

    asyncio.run(main())


def test_reading_ahead_of_the_disk_is_bounded(tmp_path: Path) -> None:
    async def flood(driver: Scripted, group: str | None) -> Sequence[Sample]:
        return [sample(FAST, 1)]

    async def main() -> None:
        async with running(tmp_path, flood, polls={"fast": 0.0}) as (item, _driver, line):
            most = 0
            for _ in range(200):
                await asyncio.sleep(0)
                most = max(most, line.buffer.next_seq - 1 - line.buffer.durable_seq)
            await until(lambda: item.status()["samples"] > 500)
            assert most <= collector.READ_AHEAD + 1

    asyncio.run(main())


def test_cancelling_ends_a_collector_inside_a_read(tmp_path: Path) -> None:
    async def hang(driver: Scripted, group: str | None) -> Sequence[Sample]:
        await asyncio.Event().wait()
        return []

    async def main() -> None:
        async with running(tmp_path, hang) as (_item, driver, _line):
            await until(lambda: "read fast" in driver.calls)
        assert driver.calls[-1] == "close"

    asyncio.run(main())


def test_an_event_device_is_stopped_while_its_read_waits(tmp_path: Path) -> None:
    async def silent(driver: Scripted, group: str | None) -> Sequence[Scan]:
        await asyncio.Event().wait()
        return []

    async def main() -> None:
        async with running(tmp_path, silent, cadence=Cadence.EVENT) as (item, driver, _line):
            await until(lambda: "read None" in driver.calls)
            item.stop()
            await until(lambda: item.status()["state"] == "stopped")

    asyncio.run(main())


def test_a_driver_that_fails_to_close_does_not_end_the_collector(tmp_path: Path) -> None:
    async def lost_once(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if driver.calls.count("open") < 2:
            raise DeviceLost("plc", "gone")
        return await count_up(driver, group)

    async def main() -> None:
        async with running(tmp_path, lost_once) as (item, driver, _line):

            async def fail() -> None:
                raise RuntimeError("the port is closed already")

            driver.close = fail  # type: ignore[method-assign]
            await until(lambda: item.status()["samples"] > 1)

    asyncio.run(main())


def test_the_back_off_grows_after_a_connection_that_lasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "STABLE_S", 0.05)
    monkeypatch.setattr(collector, "RETRY_S", (0.01, 10.0))
    monkeypatch.setattr(collector.random, "uniform", lambda _low, high: high)

    async def lost_later(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if len(driver.calls) > 20:
            raise DeviceLost("plc", "gone")
        return await count_up(driver, group)

    async def main() -> None:
        gone = [DeviceUnavailable("plc", "gone")] * 1000
        async with running(tmp_path, lost_later, opens=[None, *gone]) as (item, driver, _line):
            await until(lambda: item.status()["reconnects"] == 1)
            await asyncio.sleep(0.8)
            assert 3 <= driver.calls.count("open") <= 8, "10 ms, 20, 40 ... not 10 ms for ever"

    asyncio.run(main())


def test_no_write_is_dropped_and_a_newer_value_replaces_one_that_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (_item, driver, line):
            await until(lambda: "open" in driver.calls)
            request = line._requests["plc"]
            for number in range(100):
                request(WriteTag(f"ack{number}", False, 0))
            request(WriteTag("ack7", True, 0))
            await until(lambda: len(driver.written) == 100)
            await asyncio.sleep(0.05)
            assert len({tag for tag, _, _ in driver.written}) == len(driver.written) == 100
            assert driver.written[-1][:2] == ("ack7", True)

    asyncio.run(main())


def test_what_is_committed_is_still_acknowledged_at_a_stop(tmp_path: Path) -> None:
    async def main() -> None:
        reading = asyncio.Event()

        async def result(driver: Scripted, group: str | None) -> Sequence[Sample]:
            reading.set()
            await asyncio.sleep(0.05)
            line._requests["plc"](WriteTag("ack", True, line.buffer.next_seq))
            return [sample(FAST, 1)]

        async with running(tmp_path, result) as (item, driver, line):
            await reading.wait()
            item.stop()
            await until(lambda: item.status()["state"] == "stopped")
            assert [written[:2] for written in driver.written] == [("ack", True)]
            assert driver.calls[-1] == "close"

    asyncio.run(main())
