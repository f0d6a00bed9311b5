"""What people ask of a collector, and devices that would take its time: a real log and binder, a scripted driver."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import clock, collector, flood
from edge_agent.binding import ReadGroup
from edge_agent.collector import Collector
from edge_agent.driver import Cadence
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected, ValueNotKept
from edge_agent.line import WriteTag
from edge_agent.model import Sample, Scan, ScanStatus, Value
from support.scripted_device import FAST, SLOW, Scripted, count_up, quick_retries, running, sample, until

__all__ = ["quick_retries"]


async def connected(item: Collector) -> None:
    await until(lambda: item.status()["state"] == "connected")


# --- asked writes --------------------------------------------------------------------------------------------


def test_an_asked_write_is_carried_out_and_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, driver, _line):
            await connected(item)
            await item.ask_write("target", 12)
            assert driver.written[-1][:2] == ("target", 12)

    asyncio.run(main())


@pytest.mark.parametrize("error", [DeviceRefused("plc", "is write-protected"), ValueNotKept("plc", "shows 3")])
@pytest.mark.parametrize("cadence", list(Cadence))
def test_a_refused_value_is_the_askers_and_no_loss(tmp_path: Path, error: DriverError, cadence: Cadence) -> None:
    async def main() -> None:
        async with running(tmp_path, cadence=cadence) as (item, driver, line):
            gaps: list[object] = []
            line.gap = lambda *told: gaps.append(told)  # type: ignore[method-assign]
            await connected(item)
            driver.refuses["target"] = error
            with pytest.raises(type(error)):
                await item.ask_write("target", 12)
            before = item.status()["samples"]
            await until(lambda: item.status()["samples"] > before + 3)
            assert (item.status()["state"], driver.calls.count("open")) == ("connected", 1)
            assert item.status()["errors"] == {"refused": 1}
            assert (item.status()["reconnects"], gaps) == (0, [])
            del driver.refuses["target"]
            await item.ask_write("target", 12)
            assert driver.written[-1][:2] == ("target", 12)

    asyncio.run(main())


def test_a_device_lost_by_a_write_is_lost_and_the_asker_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, driver, _line):
            await connected(item)
            driver.refuses["target"] = DeviceLost("plc", "cable pulled")
            with pytest.raises(DeviceLost):
                await item.ask_write("target", 12)
            await until(lambda: item.status()["reconnects"] == 1)
            assert item.status()["errors"] == {"lost": 1}
            assert item.status()["last_error"]["text"] == "cable pulled"

    asyncio.run(main())


def test_nothing_is_asked_of_a_device_that_is_away_and_what_waits_is_told(tmp_path: Path) -> None:
    async def lost_later(driver: Scripted, group: str | None) -> Sequence[Sample]:
        await driver.gate.wait()
        raise DeviceLost("plc", "cable pulled", hint="plug it in")

    async def main() -> None:
        opens = [None, *itertools.repeat(DeviceUnavailable("plc", "no route", hint="ping it"), 1000)]
        async with running(tmp_path, lost_later, opens=opens) as (item, driver, _line):
            await until(lambda: "read fast" in driver.calls)
            asked = asyncio.create_task(item.ask_write("target", 1))
            await asyncio.sleep(0.01)
            driver.gate.set()
            with pytest.raises(DeviceUnavailable, match="nothing was written"):
                await asked
            await until(lambda: item.status()["error"] != "")
            with pytest.raises(DeviceUnavailable, match="not connected"):
                await item.ask_write("target", 1)
            assert driver.written == []

    asyncio.run(main())


def test_an_asked_write_is_bounded_in_time_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "ASKED_TIMEOUT_S", 0.1)

    async def hang(driver: Scripted, group: str | None) -> Sequence[Sample]:
        await driver.gate.wait()
        return await count_up(driver, group)

    async def main() -> None:
        async with running(tmp_path, hang) as (item, driver, _line):
            await until(lambda: "read fast" in driver.calls)
            asked = [asyncio.create_task(item.ask_write(f"t{n}", n)) for n in range(collector.ASKED_MAX)]
            await asyncio.sleep(0)
            for tag in ("t0", "other"):
                with pytest.raises(DeviceUnavailable, match="wait already"):
                    await item.ask_write(tag, 1)
            for done in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(done, DeviceUnavailable)
                assert "nothing was written" in str(done)
            driver.gate.set()
            await until(lambda: item.status()["samples"] > 2)
            assert driver.written == [], "what nobody waits for any more is not written later"
            await item.ask_write("t1", 5)

    asyncio.run(main())


def test_a_write_that_hangs_in_the_driver_may_have_been_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "ASKED_TIMEOUT_S", 0.1)

    async def main() -> None:
        async with running(tmp_path) as (item, driver, _line):
            await connected(item)

            async def hang(tag: str, value: Value) -> None:
                await asyncio.Event().wait()

            driver.write = hang  # type: ignore[method-assign]
            with pytest.raises(DeviceUnavailable, match="may have been written"):
                await item.ask_write("target", 1)

    asyncio.run(main())


def test_the_binders_writes_and_a_persons_do_not_replace_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, driver, line):
            await connected(item)
            line._requests["plc"](WriteTag("ack", True, 0))
            await item.ask_write("ack", False)
            assert [one[:2] for one in driver.written] == [("ack", True), ("ack", False)]

    asyncio.run(main())


# --- an event driver, asked while its read() waits --------------------------------------------------------------


async def speaks_when_told(driver: Scripted, group: str | None) -> Sequence[Sample | Scan]:
    """read() waits for the device, read(group) answers at once."""
    if group is not None:
        return [sample(SLOW, len(driver.calls))]
    await driver.gate.wait()
    driver.gate.clear()
    return [Scan("plc", clock.now(), b"SN1")]


def test_groups_and_writes_are_asked_for_beside_a_waiting_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, speaks_when_told, cadence=Cadence.EVENT) as (item, driver, line):
            await until(lambda: "read None" in driver.calls)
            line._requests["plc"](ReadGroup("plc.slow"))
            await until(lambda: item.status()["samples"] == 1)
            await item.ask_write("target", 1)
            assert item.latest("x") is not None
            driver.gate.set()
            await until(lambda: item.status()["scans"] == 1)
            assert driver.calls.count("read None") == 2, "the waiting read was left in peace"
            assert item.status()["round_trip"]["reads"] == 1, "a scan that the device sends has no round trip"

    asyncio.run(main())


@pytest.mark.parametrize("where", ["slow", None])
@pytest.mark.parametrize("error", [DeviceLost("plc", "gone"), KeyError("a bug")])
def test_an_error_of_either_ends_both_and_the_device_comes_back(
    tmp_path: Path, where: str | None, error: Exception
) -> None:
    pending: set[int] = set()

    async def say(driver: Scripted, group: str | None) -> Sequence[Sample | Scan]:
        call = len(driver.calls)
        pending.add(call)
        try:
            if group == where and driver.calls.count("open") == 1:
                await asyncio.sleep(0.01)
                raise error
            return await speaks_when_told(driver, group)
        finally:
            pending.remove(call)

    async def main() -> None:
        async with running(tmp_path, say, cadence=Cadence.EVENT) as (item, driver, line):
            await until(lambda: "read None" in driver.calls)
            line._requests["plc"](ReadGroup("plc.slow"))
            await until(lambda: "close" in driver.calls)
            assert not pending, "no call is left behind in a driver that is closed"
            await until(lambda: driver.calls.count("open") == 2 and item.status()["state"] == "connected")
            line._requests["plc"](ReadGroup("plc.slow"))
            driver.gate.set()
            await until(lambda: item.status()["samples"] >= 1 and item.status()["scans"] >= 1)
            assert len(asyncio.all_tasks()) < 10

    asyncio.run(main())


def test_an_unusable_answer_to_a_group_leaves_the_waiting_read_alone(tmp_path: Path) -> None:
    async def say(driver: Scripted, group: str | None) -> Sequence[Sample | Scan]:
        if group is not None:
            raise ReadingRejected("plc", "half a reply")
        return await speaks_when_told(driver, group)

    async def main() -> None:
        async with running(tmp_path, say, cadence=Cadence.EVENT) as (item, driver, line):
            await until(lambda: "read None" in driver.calls)
            line._requests["plc"](ReadGroup("plc.slow"))
            await until(lambda: item.status()["rejected"] == 1)
            driver.gate.set()
            await until(lambda: item.status()["scans"] == 1)
            assert driver.calls.count("open") == 1

    asyncio.run(main())


# --- devices that would take everybody's time --------------------------------------------------------------------


@pytest.mark.parametrize("cadence", [Cadence.POLL, Cadence.EVENT])
@pytest.mark.parametrize("unusable", [False, True])
def test_a_driver_that_never_waits_lets_others_run(
    tmp_path: Path, cadence: Cadence, unusable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "REJECTED_IN_A_ROW", 10**9)

    async def at_once(driver: Scripted, group: str | None) -> Sequence[Sample]:
        if unusable:
            raise ReadingRejected("plc", "nonsense")
        return []

    async def main() -> None:
        async with running(tmp_path, at_once, polls={"fast": 0.0}, cadence=cadence) as (item, driver, _line):
            await connected(item)
            turns = 0
            while len(driver.calls) < 20_000:
                await asyncio.sleep(0)
                turns += 1
            assert turns > 10, "one turn for the others each millisecond or so"

    asyncio.run(main())


@pytest.mark.parametrize("good", [True, False])
def test_a_reader_that_babbles_is_left_alone_and_the_log_is_spared(
    tmp_path: Path, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    burst = 400
    monkeypatch.setattr(flood, "SCANS_BURST", burst)
    monkeypatch.setattr(flood, "SCANS_PER_S", 10)
    monkeypatch.setattr(collector, "REFUSED_RETRY_S", (30.0, 60.0))
    numbers = itertools.count()

    async def babble(driver: Scripted, group: str | None) -> Sequence[Scan]:
        await asyncio.sleep(0.001)
        status = ScanStatus.READ if good else ScanStatus.GARBAGE
        return [Scan("plc", clock.now(), b"SN%d" % next(numbers), status) for _ in range(7)]

    async def main() -> None:
        async with running(tmp_path, babble, cadence=Cadence.EVENT) as (item, driver, line):
            await until(lambda: item.status()["state"] == "faulted")
            status = item.status()
            assert status["scans"] < 2 * (burst if good else burst / flood.GARBAGE_COST)
            assert (status["errors"], driver.calls[-1]) == ({"flood": 1}, "close")
            assert "edge-agent" in status["hint"]
            await until(lambda: line.findings["observation_gap"] == 1)

    asyncio.run(main())


def test_a_device_that_sends_samples_without_an_end_is_left_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "SAMPLES_BURST", 400)
    monkeypatch.setattr(flood, "SAMPLES_PER_S", 10)
    monkeypatch.setattr(collector, "REFUSED_RETRY_S", (30.0, 60.0))

    async def babble(driver: Scripted, group: str | None) -> Sequence[Sample]:
        await asyncio.sleep(0.001)
        return [sample(FAST, number) for number in range(7)]

    async def main() -> None:
        async with running(tmp_path, babble, cadence=Cadence.EVENT) as (item, driver, line):
            await until(lambda: item.status()["state"] == "faulted")
            status = item.status()
            assert status["samples"] < 800
            assert (status["errors"], driver.calls[-1]) == ({"flood": 1}, "close")
            assert "samples a second" in status["error"]
            await until(lambda: line.findings["observation_gap"] == 1)

    asyncio.run(main())


@pytest.mark.parametrize("history", [True, False])
def test_samples_that_were_asked_for_or_remembered_are_no_flood(
    tmp_path: Path, history: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "SAMPLES_BURST", 20)
    monkeypatch.setattr(flood, "SAMPLES_PER_S", 10)

    async def fast(driver: Scripted, group: str | None) -> Sequence[Sample]:
        await asyncio.sleep(0.001)
        return [replace(sample(FAST, number), history=history) for number in range(7)]

    async def main() -> None:
        cadence = Cadence.EVENT if history else Cadence.POLL
        async with running(tmp_path, fast, cadence=cadence, polls={"fast": 0.0}) as (item, driver, _line):
            await until(lambda: item.status()["samples"] > 100)
            assert driver.calls.count("open") == 1

    asyncio.run(main())


def test_the_busiest_honest_server_is_no_flood() -> None:
    begin, one = clock.now(), sample(FAST, 1)
    bucket = flood.Flood("plc", begin)
    for tick in range(200):  # twenty seconds of 120 groups at 10 Hz, after a broker's backlog
        now = begin._replace(mono_ns=begin.mono_ns + tick * 100_000_000)
        for _ in range(30_000 if not tick else 120):
            bucket.sample(one, now, asked=False)


def test_a_fast_reader_is_no_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "SCANS_BURST", 10)
    sent = 0

    async def sorter(driver: Scripted, group: str | None) -> Sequence[Scan]:
        nonlocal sent
        await asyncio.sleep(0.02)
        sent += 1
        return [Scan("plc", clock.now(), b"SN%d" % sent)]

    async def main() -> None:
        async with running(tmp_path, sorter, cadence=Cadence.EVENT) as (item, driver, _line):
            await until(lambda: item.status()["scans"] > 30)
            assert driver.calls.count("open") == 1

    asyncio.run(main())


def test_a_long_batch_gives_way_and_is_taken_whole_though_the_agent_stops(tmp_path: Path) -> None:
    given = 3000

    async def batch(driver: Scripted, group: str | None) -> Sequence[Sample | Scan]:
        if len(driver.calls) > 2:
            await asyncio.Event().wait()
        return [sample(FAST, number) for number in range(given)]

    async def main() -> None:
        async with running(tmp_path, batch, cadence=Cadence.EVENT) as (item, _driver, line):
            await until(lambda: item.status()["samples"] > 0)
            partly = item.status()["samples"]
            assert partly < given, "others have a turn before it is done"
            item.stop()
            await until(lambda: item.status()["state"] == "stopped")
            assert item.status()["samples"] == given
            assert line.buffer.next_seq > given

    asyncio.run(main())


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_status_tells_rates_round_trips_and_values(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (item, _driver, _line):
            await until(lambda: item.status()["samples"] > 5)
            status = item.status()
            assert status["rates"]["samples_per_s"] > 0
            assert status["round_trip"]["reads"] > 5
            shown = item.watched()
            assert shown["unread"] == ["slow"]
            assert [one["tag"] for one in shown["values"]["fast"]] == ["x"]
            latest = item.latest("x")
            assert latest is not None
            assert latest[0].tagset is FAST
            assert item.latest("y") is None

    asyncio.run(main())
