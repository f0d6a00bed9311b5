"""The RFID driver on pseudo terminals: arrival and departure, two at once, memory, and readers that go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected, ValueNotKept
from edge_agent.model import Sample, Scan, ScanStatus
from edge_agent_drivers.rfid.config import RfidSettings, describe
from edge_agent_drivers.rfid.driver import RfidDriver
from support.feig_reader import FeigReaderPty, until
from support.pty_reader import PtyReader

SOON_S = 10.0
FIRST, SECOND = "E004015012345678", "E007000001ABCDEF"
FIELD = {"field": {"tags": {"present": {}, "count": {}, "transponder": {}, "transponders": {}}}}
MEMORY = {
    "carried": {
        "on_trigger": True,
        "tags": {
            "who": {"field": "transponder"},
            "part": {"memory": {"block": 0, "count": 4}, "write": True},
            "run": {"memory": {"block": 4, "type": "uint"}, "write": True},
        },
    }
}
A = b"\x02010063E9AE25\x03"
B = b"\x024A00B1C2D3EA\x03"


def driver_of(port: Path, **keys: Any) -> RfidDriver:
    return RfidDriver("pallets", RfidSettings.model_validate({"port": str(port), "baud": 115200, **keys}))


@asynccontextmanager
async def em4100_at(port: Path, **keys: Any) -> AsyncIterator[tuple[PtyReader, RfidDriver]]:
    reader, driver = PtyReader(port), driver_of(port, protocol="em4100", groups=FIELD, **keys)
    await driver.open()
    try:
        yield reader, driver
    finally:
        await driver.close()
        reader.unplug()


@asynccontextmanager
async def feig_at(port: Path, size: int = 4, **keys: Any) -> AsyncIterator[tuple[FeigReaderPty, RfidDriver]]:
    """A reader that is asked every 20 ms; the driver is not open yet."""
    reader = FeigReaderPty(port, size)
    keys = {"protocol": "feig", "poll": "20ms", "timeout": "500ms", "groups": FIELD | MEMORY} | keys
    driver = driver_of(port, **keys)
    try:
        yield reader, driver
    finally:
        await driver.close()
        reader.unplug()


async def told(driver: RfidDriver) -> tuple[list[tuple[bytes, ScanStatus]], list[tuple[Any, ...]]]:
    """(scans, values of the field's samples) of one read."""
    async with asyncio.timeout(SOON_S):
        items = await driver.read()
    scans = [(item.raw, item.status) for item in items if isinstance(item, Scan)]
    return scans, [item.values for item in items if isinstance(item, Sample)]


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(main())


# --- readers that send by themselves ---------------------------------------------------------------------------


def test_one_scan_while_it_stays_and_its_departure_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with em4100_at(tmp_path / "reader", absent_after="300ms") as (reader, driver):
            assert await told(driver) == ([], [(False, 0, None, [])])  # nothing there: said once
            reader.send(A * 3)
            here = (True, 1, "0006547886", ["0006547886"])
            assert await told(driver) == ([(b"010063E9AE25", ScanStatus.READ)], [here])
            reader.send(A)
            assert await told(driver) == ([], [(False, 0, None, [])])
            reader.send(A)
            assert await told(driver) == ([(b"010063E9AE25", ScanStatus.READ)], [here])

    run(test())


def test_a_transponder_whose_telegrams_wait_to_be_read_has_not_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with em4100_at(tmp_path / "reader", absent_after="300ms") as (reader, driver):
            reader.send(A)
            assert [raw for raw, _ in (await told(driver))[0]] == [b"010063E9AE25"]
            for _ in range(8):  # nobody reads: the disk is behind
                await asyncio.sleep(0.05)
                reader.send(A)
            reading = asyncio.ensure_future(told(driver))
            for _ in range(8):
                await asyncio.sleep(0.05)
                reader.send(A)
            assert not reading.done(), reading.result()
            assert await reading == ([], [(False, 0, None, [])]), "and now it has"

    run(test())


def test_two_at_once_are_two_scans_and_no_single_transponder(tmp_path: Path) -> None:
    async def test() -> None:
        async with em4100_at(tmp_path / "reader", absent_after="30s") as (reader, driver):
            reader.send(A + B + A)
            scans, (values,) = await told(driver)
            assert [raw for raw, _ in scans] == [b"010063E9AE25", b"4A00B1C2D3EA"]
            assert values == (True, 2, None, ["0006547886", "0011649747"])
            (sample,) = await driver.read("field")
            assert isinstance(sample, Sample)
            assert sample.status == {2: "2 transponders"}

    run(test())


def test_a_damaged_telegram_is_garbage_and_tells_no_arrival(tmp_path: Path) -> None:
    async def test() -> None:
        async with em4100_at(tmp_path / "reader", absent_after="30s") as (reader, driver):
            damaged = A.replace(b"E9", b"E8")
            reader.send(damaged + A)
            scans, samples = await told(driver)
            assert scans == [(damaged, ScanStatus.GARBAGE), (b"010063E9AE25", ScanStatus.READ)]
            assert len(samples) == 1
            reader.send(A[:8])
            assert await told(driver) == ([(A[:8], ScanStatus.GARBAGE)], [])

    run(test())


def test_whoever_is_still_there_after_a_replug_arrives_anew(tmp_path: Path) -> None:
    async def test() -> None:
        async with em4100_at(tmp_path / "reader", absent_after="30s") as (reader, driver):
            reader.send(A)
            await told(driver)
            reader.unplug()
            with pytest.raises(DeviceLost):
                await told(driver)
            await driver.close()
            reader.plug()
            await driver.open()
            (sample,) = await driver.read("field")
            assert isinstance(sample, Sample)
            assert sample.values == (None, None, None, None)
            assert set((sample.status or {}).values()) == {"not known yet"}
            reader.send(A)
            assert (await told(driver))[0] == [(b"010063E9AE25", ScanStatus.READ)]

    run(test())


def test_any_framed_reader_by_its_description(tmp_path: Path) -> None:
    async def test() -> None:
        reader = PtyReader(tmp_path / "reader")
        frame = {"start": "\xaa", "length_at": 1, "length_adds": 2, "check": "sum", "id_from": 2, "id_to": -1}
        driver = driver_of(reader.port, protocol="frames", frame=frame, groups=FIELD, absent_after="30s")
        await driver.open()
        reader.send(bytes.fromhex("AA 05 DEADBEEF") + bytes([(0xAA + 5 + 0xDE + 0xAD + 0xBE + 0xEF) & 0xFF]))
        assert await told(driver) == ([(b"DEADBEEF", ScanStatus.READ)], [(True, 1, "DEADBEEF", ["DEADBEEF"])])
        await driver.close()
        reader.unplug()

    run(test())


# --- a reader that is asked ------------------------------------------------------------------------------------


def test_the_field_of_a_feig_reader_is_watched(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader", absent_after="100ms") as (reader, driver):
            await driver.open()
            assert await told(driver) == ([], [(False, 0, None, [])])
            first = reader.put(FIRST)
            assert await told(driver) == ([(FIRST.encode(), ScanStatus.READ)], [(True, 1, FIRST, [FIRST])])
            reader.put(SECOND)
            assert await told(driver) == ([(SECOND.encode(), ScanStatus.READ)], [(True, 2, None, [FIRST, SECOND])])
            del reader.memory[first]
            assert await told(driver) == ([], [(True, 1, SECOND, [SECOND])])

    run(test())


def test_a_damaged_answer_is_garbage_and_makes_nothing_leave(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader", absent_after="60ms", timeout="50ms") as (reader, driver):
            reader.put(FIRST)
            await driver.open()
            await told(driver)
            reader.damage = 8  # far longer than absent_after
            for _ in range(8):
                ((_, status),), samples = await told(driver)
                assert (status, samples) == (ScanStatus.GARBAGE, [])
            reading = asyncio.ensure_future(driver.read())
            await until(reader, 5)
            assert not reading.done()
            reading.cancel()
            await asyncio.wait([reading])

    run(test())


def test_what_comes_late_after_a_damaged_answer_is_not_the_next_transponders(tmp_path: Path) -> None:
    """The answers bear no number: only a pause tells whose a block is."""

    async def test() -> None:
        async with feig_at(tmp_path / "reader", poll="10s", absent_after="20s", timeout="300ms") as (reader, driver):
            uid = reader.put(FIRST, b"OF-THE-FIRST-ONE")
            await driver.open()
            answer = reader._answer
            late: list[bytes] = []

            def delayed(command: int, data: bytes) -> bytes:
                """The first read of blocks: noise first, its answer when the next one is there."""
                said = answer(command, data)
                if data[:1] != b"\x23" or late:
                    return said
                late.append(said)
                del reader.memory[uid]
                reader.put(SECOND, b"OF-THE-SECOND-ONE"[:16])
                asyncio.get_running_loop().call_later(0.25, reader.send, said)
                return b"\x07\x00\xff\xff\xff\xff\xff"

            reader._answer = delayed  # type: ignore[method-assign]
            with pytest.raises(ReadingRejected, match="damaged"):
                await driver.read("carried")
            await asyncio.sleep(0.03)
            asked = len(reader.requests)
            reading = asyncio.ensure_future(driver.read("carried"))
            await asyncio.sleep(0.1)
            assert len(reader.requests) == asked, "the line is left to itself for the time of one answer"
            (sample,) = await reading
            assert isinstance(sample, Sample)
            assert sample.values[:2] == (SECOND, "OF-THE-SECOND-ON")

    run(test())


@pytest.mark.parametrize("count", [26, 45])  # a long frame; two answers
def test_many_transponders_are_all_told(tmp_path: Path, count: int) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader") as (reader, driver):
            numbers = [f"E0040150{number:08X}" for number in range(count)]
            for number in numbers:
                reader.put(number)
            await driver.open()
            scans, ((_, found, _, transponders),) = await told(driver)
            assert found == count
            assert transponders == numbers
            assert [raw.decode() for raw, _ in scans] == numbers

    run(test())


def test_memory_is_read_and_written_while_the_field_is_watched(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader") as (reader, driver):
            uid = reader.put(FIRST, b"PN-4711\x00        " + (815).to_bytes(4, "big"))
            await driver.open()
            await told(driver)
            watching = asyncio.ensure_future(driver.read())
            await until(reader, 2)
            (sample,) = await driver.read("carried")
            assert isinstance(sample, Sample)
            assert (sample.values, sample.status) == ((FIRST, "PN-4711", 815), None)
            await driver.write("part", "PN-0815")
            await driver.write("run", 816)
            assert bytes(reader.memory[uid][:20]) == b"PN-0815".ljust(16, b"\x00") + (816).to_bytes(4, "big")
            (sample,) = await driver.read("carried")
            assert isinstance(sample, Sample)
            assert sample.values == (FIRST, "PN-0815", 816)
            await until(reader, 2)
            assert not watching.done()
            watching.cancel()
            await asyncio.wait([watching])

    run(test())


def test_memory_needs_one_transponder(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader") as (reader, driver):
            await driver.open()
            for there, why in ((), "no transponder"), ((FIRST, SECOND), "2 transponders"):
                for uid in there:
                    reader.put(uid)
                (sample,) = await driver.read("carried")
                assert isinstance(sample, Sample)
                assert (sample.values, sample.status) == ((None, None, None), {0: why, 1: why, 2: why})
                with pytest.raises(DeviceRefused, match=why):
                    await driver.write("run", 1)
            scans, _ = await told(driver)  # what the reads of memory noticed
            assert [raw for raw, _ in scans] == [FIRST.encode(), SECOND.encode()]

    run(test())


def test_a_transponder_that_leaves_in_mid_read_gives_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader") as (reader, driver):
            uid = reader.put(FIRST)
            await driver.open()
            carry_out = reader._carry_out

            def leaving(command: int, data: bytes) -> tuple[int, bytes]:
                answer = carry_out(command, data)
                if data[0] == 0x01 and reader.memory.pop(uid, None) is not None:
                    reader.put(SECOND)  # and another one takes its place
                return answer

            reader._carry_out = leaving  # type: ignore[method-assign]
            with pytest.raises(ReadingRejected, match="left while it was read"):
                await driver.read("carried")

    run(test())


def test_what_cannot_be_read_or_kept_is_said(tmp_path: Path) -> None:
    async def test() -> None:
        groups = {
            "far": {
                "on_trigger": True,
                "tags": {
                    "beyond": {"memory": {"block": 15, "count": 2}, "write": True},
                    "text": {"memory": {"block": 0}, "write": True},
                    "turned": {"memory": {"block": 1, "turned": True}, "write": True},
                },
            }
        }
        async with feig_at(tmp_path / "reader", groups=groups) as (reader, driver):
            reader.put(FIRST, b"\xff\xfe\xfd\xfcDCBA")
            await driver.open()
            (sample,) = await driver.read("far")
            assert isinstance(sample, Sample)
            assert sample.values == (None, None, "ABCD")
            assert sample.status == {0: "no such block (95 10)", 1: "the bytes are no text"}
            with pytest.raises(DeviceRefused, match="no such block"):
                await driver.write("beyond", "x")
            with pytest.raises(DeviceRefused, match="5 bytes of text, where the blocks have 4"):
                await driver.write("text", "ABCDE")
            await driver.write("turned", "WXYZ")
            assert bytes(reader.memory[bytes.fromhex(FIRST)][4:8]) == b"ZYXW"
            reader.kept = False
            with pytest.raises(ValueNotKept):
                await driver.write("text", "ABCD")
            with pytest.raises(DeviceRefused):
                await driver.write("field", "x")

    run(test())


def test_a_reader_that_does_not_answer_is_unavailable_and_then_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader", timeout="100ms") as (reader, driver):
            reader.silent = True
            with pytest.raises(DeviceUnavailable) as unavailable:
                await driver.open()
            assert unavailable.value.hint
            reader.silent = False
            await driver.open()
            await told(driver)
            reader.silent = True
            with pytest.raises(DeviceLost):
                await told(driver)

    run(test())


def test_a_reader_in_scan_mode_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader") as (reader, driver):
            reader.status = 0x82
            with pytest.raises(DeviceRefused, match=r"command not available \(82\)") as refused:
                await driver.open()
            assert "scan mode" in refused.value.hint
            with pytest.raises(DeviceLost):
                await driver.read()  # closed again

    run(test())


def test_the_field_is_reset_before_each_poll_where_that_is_wanted(tmp_path: Path) -> None:
    async def test() -> None:
        async with feig_at(tmp_path / "reader", reset_field=True, bus_address=0) as (reader, driver):
            reader.put(FIRST)
            await driver.open()
            await told(driver)
            assert [request[2] for request in reader.requests[:4]] == [0x69, 0xB0, 0x69, 0xB0]

    run(test())


# --- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"protocol": "em4100", "poll": "1s"}, "for protocol: feig only"),
        ({"protocol": "frames"}, "needs frame:"),
        ({"protocol": "feig", "poll": "1s", "absent_after": "500ms"}, "must be longer"),
        ({"protocol": "frames", "frame": {"start": "\x02", "id_from": 1, "id_to": 0}}, "must end somewhere"),
        ({"protocol": "feig", "groups": {"g": {"tags": {"m": {"memory": {"block": 1}}}}}}, "on_trigger: true"),
        ({"protocol": "feig", "groups": {"g": {"poll": "1s", "tags": {"present": {}}}}}, "leave poll out"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint):
        RfidSettings.model_validate({"port": "/dev/ttyUSB0", **keys})


@pytest.mark.parametrize(
    ("protocol", "tag", "its", "hint"),
    [
        ("feig", "odd", {}, "write field:"),
        ("em4100", "m", {"memory": {"block": 1}}, "reads no memory"),
        ("feig", "present", {"write": True}, "only memory can be written"),
        ("feig", "m", {"field": "count", "memory": {"block": 1}}, "not both"),
    ],
)
def test_tags_that_mean_nothing_are_refused(protocol: str, tag: str, its: dict[str, Any], hint: str) -> None:
    groups = {"g": {"on_trigger": True, "tags": {tag: its}}}
    settings = RfidSettings.model_validate({"port": "/dev/ttyUSB0", "protocol": protocol, "groups": groups})
    with pytest.raises(ValueError, match=hint):
        describe("pallets", settings)
