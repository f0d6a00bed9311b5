"""The scanner driver on pseudo terminals: what it reads, what it drops, how it fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.bench import Heard
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Scan, ScanStatus
from edge_agent_drivers.scanner.bench import hear
from edge_agent_drivers.scanner.config import ScannerSettings
from edge_agent_drivers.scanner.driver import ScannerDriver
from edge_agent_drivers.stream import failure
from support.peers.scanner_tcp import ScannerTcpPeer
from support.pty_reader import PtyReader

SOON_S = 5.0


def driver_of(port: Path, **keys: Any) -> ScannerDriver:
    return ScannerDriver("gate", ScannerSettings.model_validate({"port": str(port), "baud": 115200, **keys}))


@asynccontextmanager
async def reader_at(port: Path, **keys: Any) -> AsyncIterator[tuple[PtyReader, ScannerDriver]]:
    """A reader plugged in, and its opened driver."""
    reader, driver = PtyReader(port), driver_of(port, **keys)
    await driver.open()
    try:
        yield reader, driver
    finally:
        await driver.close()
        reader.unplug()


async def scans_of(driver: ScannerDriver, count: int) -> list[Scan]:
    """So many scans, however many reads they take."""
    found: list[Scan] = []
    async with asyncio.timeout(SOON_S):
        while len(found) < count:
            found += await driver.read()
    return found


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(main())


# --- scans ---------------------------------------------------------------------------------------------------


def test_a_code_is_read_and_a_no_read_is_no_serial(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            reader.send(b"SN1\r\nNOREAD\r\n\x18\r\n ERROR \r\nNOREAD1\r\n")
            found = [(scan.raw, scan.status) for scan in await scans_of(driver, 5)]
            assert found == [
                (b"SN1", ScanStatus.READ),
                (b"NOREAD", ScanStatus.NO_READ),
                (b"\x18", ScanStatus.NO_READ),
                (b" ERROR ", ScanStatus.NO_READ),
                (b"NOREAD1", ScanStatus.READ),
            ]

    run(test())


def test_bytes_come_through_as_they_are(tmp_path: Path) -> None:
    raw = bytes(byte for byte in range(256) if byte != 3)  # a terminal in cooked mode would act on several of these

    async def test() -> None:
        async with reader_at(tmp_path / "gate", frame={"end": "\x03"}) as (reader, driver):
            reader.send(raw + b"\x03")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [raw]

    run(test())


def test_an_aim_identifier_is_split_off_only_when_the_reader_is_said_to_send_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate", aim=True) as (reader, driver):
            reader.send(b"]d2SN1\r\nSN2\r\n]C1NOREAD\r\n")
            found = [(scan.symbology, scan.raw, scan.status) for scan in await scans_of(driver, 3)]
            assert found == [
                ("]d2", b"SN1", ScanStatus.READ),
                ("", b"SN2", ScanStatus.READ),
                ("]C1", b"NOREAD", ScanStatus.NO_READ),
            ]
        async with reader_at(tmp_path / "other") as (reader, driver):
            reader.send(b"]d2SN1\r\n")
            assert [(scan.symbology, scan.raw) for scan in await scans_of(driver, 1)] == [("", b"]d2SN1")]

    run(test())


def test_without_a_terminator_a_pause_ends_a_code(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate", frame={"idle": "100ms"}) as (reader, driver):
            for code in (b"SN1", b"SN2"):
                reader.send(code)
                assert [(scan.raw, scan.status) for scan in await scans_of(driver, 1)] == [(code, ScanStatus.READ)]

    run(test())


def test_half_a_code_is_garbage_after_the_pause_and_never_joins_the_next(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate", frame={"end": "\r\n", "idle": "100ms"}) as (reader, driver):
            reader.send(b"SN0000")
            assert [(scan.raw, scan.status) for scan in await scans_of(driver, 1)] == [(b"SN0000", ScanStatus.GARBAGE)]
            reader.send(b"SN2\r\nSN3\r\n")  # the first may be the rest of the half
            scans = [(scan.raw, scan.status) for scan in await scans_of(driver, 2)]
            assert scans == [(b"SN2", ScanStatus.GARBAGE), (b"SN3", ScanStatus.READ)]

    run(test())


def test_a_flood_of_codes_arrives_whole_and_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            codes = [b"SN%08d" % number for number in range(5000)]
            sending = asyncio.ensure_future(asyncio.to_thread(reader.send, b"".join(code + b"\r\n" for code in codes)))
            assert [scan.raw for scan in await scans_of(driver, len(codes))] == codes
            await sending

    run(test())


def test_twenty_readers_that_speak_at_once_lose_nothing(tmp_path: Path) -> None:
    async def one(number: int) -> None:
        async with reader_at(tmp_path / f"gate{number}", profile="honeywell") as (reader, driver):
            codes = [b"P%02d-%06d" % (number, code) for code in range(500)]
            sending = asyncio.ensure_future(asyncio.to_thread(reader.send, b"".join(code + b"\r" for code in codes)))
            assert [scan.raw for scan in await scans_of(driver, len(codes))] == codes
            await sending

    async def test() -> None:
        await asyncio.gather(*map(one, range(20)))

    run(test())


def test_a_line_of_a_megabyte_is_one_garbage_and_the_next_code_is_read(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            sending = asyncio.ensure_future(asyncio.to_thread(reader.send, b"x" * 1_000_000 + b"\r\nSN1\r\n"))
            (garbage,) = await scans_of(driver, 1)
            with pytest.raises(ReadingRejected, match="64 KiB came"):
                await driver.read()
            (code,) = await scans_of(driver, 1)
            assert (garbage.raw, garbage.status) == (b"x" * 4096, ScanStatus.GARBAGE)
            assert (code.raw, code.status) == (b"SN1", ScanStatus.READ)
            await sending

    run(test())


def test_cancelling_in_mid_code_loses_no_byte(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            reading = asyncio.ensure_future(driver.read())
            reader.send(b"SN00")
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            reader.send(b"0001\r\n")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"SN000001"]

    run(test())


# --- triggered -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def keyence() -> AsyncIterator[tuple[ScannerTcpPeer, ScannerDriver]]:
    """A reader that answers commands, and its opened driver."""
    peer = ScannerTcpPeer(Path())
    await peer.start()
    driver = ScannerDriver("gate", ScannerSettings.model_validate(peer.settings))
    await driver.open()
    try:
        yield peer, driver
    finally:
        await driver.close()
        await peer.stop()


def test_a_trigger_is_sent_and_its_answer_is_no_code() -> None:
    async def test() -> None:
        async with keyence() as (peer, driver):
            await driver.write("trigger", value=True)  # nobody reads yet
            reading = asyncio.ensure_future(driver.read())
            await asyncio.sleep(0)
            await driver.write("trigger", value=False)  # beside a waiting read
            assert peer.commands == [b"LON", b"LOFF"]
            assert not reading.done()
            await peer.send(b"SN1\r")
            assert [scan.raw for scan in await reading] == [b"SN1"]

    run(test())


def test_codes_that_come_before_the_answer_are_kept_for_the_next_read() -> None:
    async def test() -> None:
        async with keyence() as (peer, driver):
            peer.answers[b"LON"] = b"SN1\rSN2\rOK,LON\rSN3"
            await driver.write("trigger", value=True)
            assert [scan.raw for scan in await scans_of(driver, 3)] == [b"SN1", b"SN2", b"SN3"]

    run(test())


def test_a_refused_trigger_says_why() -> None:
    async def test() -> None:
        async with keyence() as (peer, driver):
            peer.answers[b"LON"] = b"ER,LON,20"
            for waiting in (False, True):
                reading = asyncio.ensure_future(driver.read()) if waiting else None
                await asyncio.sleep(0)
                with pytest.raises(DeviceRefused, match=r"refuses LON: 20, it cannot do that now") as refused:
                    await driver.write("trigger", value=True)
                assert refused.value.hint
            assert reading is not None
            await peer.send(b"SN1\r")
            assert [scan.raw for scan in await reading] == [b"SN1"]

    run(test())


def test_a_trigger_that_nobody_answers_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent_drivers.scanner.driver.ANSWER_S", 0.2)

    async def test() -> None:
        async with keyence() as (peer, driver):
            peer.answers[b"LON"] = b"OK,LOFF"  # of another command
            with pytest.raises(DeviceLost, match="no answer to LON") as lost:
                await driver.write("trigger", value=True)
            assert "answers: false" in lost.value.hint

    run(test())


def test_a_reader_that_never_answers_is_triggered_by_the_bytes_of_its_profile(tmp_path: Path) -> None:
    async def test() -> None:
        for profile, commands in (
            ("honeywell", b"\x16T\r\x16U\r"),
            ("cognex", b"||>TRIGGER ON\r\n||>TRIGGER OFF\r\n"),
            ("omron", b"< >"),
        ):
            async with reader_at(tmp_path / profile, profile=profile) as (reader, driver):
                await driver.write("trigger", value=True)
                await driver.write("trigger", value=False)
                assert reader.received() == commands

    run(test())


def test_what_cannot_be_written_is_refused_with_a_hint(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (_, driver), keyence() as (_, other):
            for one, tag, value in ((driver, "trigger", True), (other, "trigger", 1), (other, "light", True)):
                with pytest.raises(DeviceRefused) as refused:
                    await one.write(tag, value)
                assert refused.value.hint

    run(test())


def test_a_damaged_character_voids_its_code_and_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            driver._port._parts.extend([b"SN1\r\nSN", None, b"2\r\nSN3\r\n"])  # as the port tells it
            assert [scan.raw for scan in await driver.read()] == [b"SN1"]
            with pytest.raises(ReadingRejected, match="parity"):
                await driver.read()
            reader.send(b"SN4\r\n")
            assert [scan.raw for scan in await scans_of(driver, 2)] == [b"SN3", b"SN4"]

    run(test())


# --- unplugged and plugged in again --------------------------------------------------------------------------


def test_what_came_while_the_port_was_closed_is_discarded(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            await driver.close()
            reader.send(b"STALE1\r\nSTALE2\r\nSTA")
            await driver.open()
            reader.send(b"SN1\r\n")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"SN1"]

    run(test())


def test_the_tail_of_a_code_under_way_at_opening_is_no_code(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate", baud=1200) as (
            reader,
            driver,
        ):  # at 1200 baud 20 characters take 167 ms
            await driver.close()
            opening = asyncio.ensure_future(driver.open())  # waits for 20 characters of quiet: 167 ms
            await asyncio.sleep(0.03)  # the port is open by now
            for piece in (b"0001\r\nSN00", b"00", b"02\r\n"):
                reader.send(piece)
                await asyncio.sleep(0.02)
            await opening
            reader.send(b"SN2\r\n")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"SN2"]

    run(test())


def test_a_line_that_never_falls_quiet_is_joined_at_the_next_terminator(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate", baud=9600) as (reader, driver):
            await driver.close()
            opening = asyncio.ensure_future(driver.open())
            while not opening.done():
                reader.send(b"SN00000001")  # no terminator yet: a code under way
                await asyncio.sleep(0.002)
            await opening
            reader.send(b"\r\nSN2\r\n")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"SN2"]

    run(test())


def test_the_half_code_before_an_unplug_never_joins_the_one_after(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            reading = asyncio.ensure_future(driver.read())
            reader.send(b"SN0000")
            await asyncio.sleep(0.05)
            reader.unplug()
            with pytest.raises(DeviceLost, match="unplugged"):
                await reading
            with pytest.raises(DeviceUnavailable):
                await driver.open()
            reader.plug()
            await driver.open()
            reader.send(b"0001\r\n")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"0001"]

    run(test())


def test_a_port_with_nothing_to_read_is_not_taken_for_an_unplugged_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            driver._port._read(driver._port._fd)  # as when another program was quicker
            reader.send(b"SN1\r\n")
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"SN1"]

    run(test())


# --- ports that do not open ----------------------------------------------------------------------------------


async def refusal(driver: ScannerDriver) -> DeviceRefused:
    with pytest.raises(DeviceRefused) as refused:
        await driver.open()
    await driver.close()
    return refused.value


@pytest.fixture
def plugged_in_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudo terminal is always new; what is told of an old port differs."""
    monkeypatch.setattr(failure, "UDEV_S", 0.0)


@pytest.mark.usefixtures("plugged_in_long_ago")
def test_a_port_that_another_has_open_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate") as (reader, driver):
            refused = await refusal(driver_of(tmp_path / "gate"))
            assert "in use" in str(refused)
            assert f"fuser -v {tmp_path / 'gate'}" in refused.hint
            reader.send(b"SN1\r\n")  # the first one did not suffer
            assert [scan.raw for scan in await scans_of(driver, 1)] == [b"SN1"]

    run(test())


@pytest.mark.usefixtures("plugged_in_long_ago")
def test_a_port_without_permission_is_refused_and_the_hint_can_be_typed(tmp_path: Path) -> None:
    reader = PtyReader(tmp_path / "gate")
    terminal = reader.port.resolve()  # nobody else may look into tmp_path
    terminal.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        refused = asyncio.run(refusal(driver_of(terminal)))
    finally:
        if is_root:
            os.seteuid(0)
        reader.unplug()
    assert "permission denied" in str(refused)
    assert refused.hint.startswith("its group may not use it: sudo chgrp ")


def test_a_file_that_is_no_serial_port_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gate"
    file.write_text("not a terminal")

    async def test() -> None:
        assert "no serial port" in str(await refusal(driver_of(file)))

    run(test())
    assert file.read_text() == "not a terminal"


def test_a_cancelled_open_leaves_the_port_free(tmp_path: Path) -> None:
    async def test() -> None:
        reader = PtyReader(tmp_path / "gate")
        for patience_s in (0, 0.001, 0.003):
            driver = driver_of(tmp_path / "gate", baud=1200)
            opening = asyncio.ensure_future(driver.open())
            await asyncio.sleep(patience_s)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await driver.close()
            await asyncio.sleep(0.05)  # a thread may still be opening it
        driver = driver_of(tmp_path / "gate")
        await driver.open()
        await driver.close()
        reader.unplug()

    run(test())


def test_listening_tells_each_burst_and_then_the_loss(tmp_path: Path) -> None:
    async def test() -> None:
        reader = PtyReader(tmp_path / "gate")
        settings = ScannerSettings.model_validate({"port": str(reader.port), "baud": 115200})
        heard: list[Heard] = []
        async with asyncio.timeout(SOON_S):
            listening = hear(settings, b"T\r", 30.0)
            asking = asyncio.ensure_future(anext(listening))
            assert await asyncio.to_thread(reader.received) == b"T\r"  # it is open, and what was stale is discarded
            reader.send(b"SN1\r\n")
            heard.append(await asking)
            reader.send(b"SN2\r\n")
            heard.append(await anext(listening))
            reader.unplug()
            heard += [one async for one in listening]
        assert [one.data for one in heard] == [b"SN1\r\n", b"SN2\r\n", b""]
        assert heard[2].error == f"{reader.port}: unplugged"
        assert heard[0].after_s <= heard[1].after_s <= heard[2].after_s

    run(test())


def test_a_stream_that_never_ends_a_code_is_said_once_a_burst(tmp_path: Path) -> None:
    async def test() -> None:
        async with reader_at(tmp_path / "gate", frame={"end": "\r\n", "idle": "200ms"}) as (reader, driver):
            reading = asyncio.ensure_future(scans_of(driver, 2))
            for _ in range(40):  # 80 KiB
                await asyncio.to_thread(reader.send, b"\x00\xf8" * 1024)
            with pytest.raises(ReadingRejected, match="64 KiB came without the end of one message") as endless:
                await reading
            assert "baud" in endless.value.hint
            reading = asyncio.ensure_future(scans_of(driver, 1))
            for _ in range(40):
                await asyncio.to_thread(reader.send, b"\x00\xf8" * 1024)
            assert not reading.done(), "once a burst"
            reader.send(b"\r\nSN1\r\n")
            assert [scan.raw for scan in await reading] == [b"SN1"]

    run(test())
