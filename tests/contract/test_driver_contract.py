"""The promises of edge_agent.driver, kept by every registered driver, each against a peer that can be bad.

To try a new driver, give it a peer in ``support.peers``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from edge_agent.driver import Cadence, Driver, DriverSpec, Shape, driver_names, load_driver
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected
from edge_agent.model import Sample, Scan, ScanStatus
from support.peers import PEERS, driver_of

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 5.0  # nothing here takes so long unless it hangs


BREAKABLE = [name for name, peer in PEERS.items() if peer.breakable]
every_driver = pytest.mark.parametrize("name", list(PEERS))
every_breakable = pytest.mark.parametrize("name", BREAKABLE)


class Rig:
    """A driver and its peer, and the moves of the battery."""

    def __init__(self, name: str, folder: Path) -> None:
        self.peer = PEERS[name](folder)
        self.spec: DriverSpec = load_driver(driver_of(name))
        self.settings = self.spec.settings().model_validate(self.peer.settings)
        self.shape: Shape = self.spec.describe("device", self.settings)
        self.driver: Driver = self.spec.create("device", self.settings)

    async def open(self) -> None:
        """Open the driver, and hear what a device says of its state before anything happens."""
        await self.driver.open()
        while self.peer.tells_level:
            hearing = asyncio.ensure_future(self.driver.read())
            done, _ = await asyncio.wait([hearing], timeout=0.1)
            if not done:
                hearing.cancel()
                await asyncio.wait([hearing])
                return
            self.peer.expect(hearing.result())

    async def ask(self) -> Sequence[Sample | Scan]:
        """One read; a device that speaks by itself is made to, once the driver listens."""
        reading = asyncio.ensure_future(self.driver.read())
        if self.spec.cadence is Cadence.EVENT:
            await asyncio.sleep(0.02)
            await self.peer.speak()
        async with asyncio.timeout(SOON_S):
            return await reading

    async def works(self) -> None:
        """The device is as it should be."""
        self.peer.expect(await self.ask())

    async def reopens(self) -> None:
        """What the collector does after a loss."""
        await self.peer.behave()
        await self.driver.close()
        await self.open()
        await self.works()


@contextlib.asynccontextmanager
async def rig_of(name: str, folder: Path, *, started: bool = True) -> AsyncIterator[Rig]:
    rig = Rig(name, folder)
    try:
        if started:
            await rig.peer.start()
            await rig.open()
        yield rig
    finally:
        await rig.driver.close()
        await rig.peer.stop()


def run(battery: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await battery

    asyncio.run(main())


# --- without a device ----------------------------------------------------------------------------------------


def test_every_registered_driver_has_a_peer() -> None:
    assert sorted({driver_of(peer) for peer in PEERS}) == driver_names()


def test_knowing_the_drivers_and_their_settings_loads_no_protocol_library() -> None:
    program = """
import sys
from edge_agent.driver import driver_names, load_driver
for name in driver_names():
    load_driver(name).settings().model_json_schema()
assert not {"pymodbus", "serial", "asyncio", "asyncua", "cv2"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_modbus_line_loads_no_other_drivers_library() -> None:
    program = """
import sys
from edge_agent import agent, config
from edge_agent.driver import load_driver
spec = load_driver("modbus")
keys = {"connection": "tcp://127.0.0.1:1", "groups": {"all": {"poll": "1s", "tags": {"a": {"address": "holding:0"}}}}}
spec.create("plc", spec.settings().model_validate(keys))
assert "pymodbus" in sys.modules
assert not {"asyncua", "cv2", "numpy", "zxingcpp", "pyzbar", "cryptography"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@every_driver
def test_describing_and_creating_touch_nothing(name: str, tmp_path: Path) -> None:
    opened: list[str] = []
    watching = False

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("open", "socket.connect", "socket.__new__", "os.listdir", "subprocess.Popen"):
            opened.append(f"{event} {arguments}")

    rig = Rig(name, tmp_path)  # imports what is imported lazily
    sys.addaudithook(audit)
    watching = True
    again = rig.spec.describe("device", rig.settings)
    rig.spec.create("device", rig.settings)
    watching = False
    assert opened == []
    assert again == rig.shape


@pytest.mark.parametrize("name", sorted({driver_of(peer) for peer in PEERS}))
def test_the_sample_is_valid_and_stands_in_the_manual(name: str) -> None:
    folder = ROOT / "drivers" / "edge_agent_drivers" / name
    sample = (folder / "sample.yaml").read_text()
    assert f"```yaml\n{sample}```\n" in (folder / "README.md").read_text()
    spec = load_driver(name)
    devices = YAML(typ="safe").load(sample)["devices"]
    for device, keys in devices.items():
        assert keys["driver"] == name
        spec.describe(device, spec.settings().model_validate(keys))


# --- with a good device --------------------------------------------------------------------------------------


@every_driver
def test_a_read_is_whole_and_stamped(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            before_ns, before_mono_ns = time.time_ns(), time.monotonic_ns()
            answer = await rig.ask()
            rig.peer.expect(answer)
            for each in answer:
                assert before_ns <= each.at.at_ns <= time.time_ns()
                assert before_mono_ns <= each.at.mono_ns <= time.monotonic_ns()
                if isinstance(each, Sample):
                    assert before_mono_ns <= each.started_mono_ns <= each.at.mono_ns
                    assert each.tagset == rig.shape.groups[each.tagset.group].tagset
                    assert len(each.values) == len(each.tagset.tags)

    run(battery())


@every_driver
def test_each_group_can_be_read_by_itself(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            for group in [name for name, group in rig.shape.groups.items() if group.readable]:
                (sample,) = await rig.driver.read(group)
                assert isinstance(sample, Sample)
                assert sample.tagset.group == group

    run(battery())


@every_driver
def test_opening_twice_leaves_one_good_connection(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            await rig.open()
            await rig.works()

    run(battery())


@every_driver
def test_closing_is_idempotent_and_reading_a_closed_device_is_a_loss(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            await rig.driver.close()
            await rig.driver.close()
            with pytest.raises(DeviceLost):
                await rig.ask()
            await rig.open()
            await rig.works()

    run(battery())


@every_driver
def test_what_is_not_writable_is_refused_with_a_hint(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            with pytest.raises(DeviceRefused) as refused:
                await rig.driver.write("no-such-tag", value=True)
            assert refused.value.hint
            for tag in rig.shape.writable:
                await rig.driver.write(tag, value=True)
            await rig.works()

    run(battery())


# --- with a bad one ------------------------------------------------------------------------------------------


@every_breakable
def test_an_absent_device_is_unavailable_and_the_failed_open_can_be_closed(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path, started=False) as rig:
            for _ in range(2):
                with pytest.raises(DeviceUnavailable) as unavailable:
                    await rig.open()
                assert unavailable.value.hint
                await rig.driver.close()
            await rig.peer.start()
            await rig.open()
            await rig.works()

    run(battery())


@every_breakable
def test_cancelling_a_read_cancels_it_and_spoils_nothing(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            for patience_s in (0, 0.001, 0.05):
                await rig.peer.fall_silent()
                reading = asyncio.ensure_future(rig.driver.read())
                await asyncio.sleep(patience_s)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                await rig.reopens()

    run(battery())


@every_breakable
def test_vanishing_in_mid_answer_is_a_loss_at_once_and_the_half_is_never_seen(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            for _ in range(2):
                if rig.spec.cadence is Cadence.POLL:
                    await rig.peer.speak_half_and_vanish()
                reading = asyncio.ensure_future(rig.driver.read())
                if rig.spec.cadence is Cadence.EVENT:
                    await asyncio.sleep(0.02)
                    await rig.peer.speak_half_and_vanish()
                with pytest.raises(DeviceLost):
                    async with asyncio.timeout(SOON_S):
                        await reading
                await rig.driver.close()
                await rig.peer.stop()
                await rig.peer.start()
                await rig.reopens()

    run(battery())


@every_breakable
def test_an_answer_that_comes_byte_by_byte_is_whole(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            reading = asyncio.ensure_future(rig.driver.read()) if rig.spec.cadence is Cadence.EVENT else None
            await asyncio.sleep(0)
            await rig.peer.drip()
            async with asyncio.timeout(SOON_S):
                rig.peer.expect(await (reading or rig.driver.read()))

    run(battery())


async def endure(rig: Rig) -> None:
    """Read until the driver says something of it: one of our errors, or scans none of which is a serial."""
    try:
        async with asyncio.timeout(SOON_S):
            for each in await rig.driver.read():
                assert isinstance(each, Scan)
                assert each.status is ScanStatus.GARBAGE
    except DriverError as error:
        assert error.device == "device"  # whichever of ours it is


@every_breakable
def test_garbage_is_said_to_be_garbage_and_recovered_from(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            raving = asyncio.ensure_future(rig.peer.rave())
            await endure(rig)
            await raving
            await rig.reopens()

    run(battery())


async def swallow(rig: Rig) -> None:
    """Read on, as the collector does, whatever it is."""
    while True:
        with contextlib.suppress(ReadingRejected):
            await rig.driver.read()


@every_breakable
def test_a_flood_is_taken_whole_and_recovered_from(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            flooding = asyncio.ensure_future(rig.peer.flood())
            await endure(rig)
            swallowing = asyncio.ensure_future(swallow(rig))
            await asyncio.wait([flooding], timeout=SOON_S)
            assert flooding.done()
            swallowing.cancel()
            await asyncio.wait([swallowing])
            await rig.reopens()

    run(battery())


@every_breakable
def test_silence_never_gives_an_answer_and_never_hangs(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            await rig.peer.fall_silent()
            reading = asyncio.ensure_future(rig.driver.read())
            await asyncio.wait([reading], timeout=0.8)
            if rig.spec.cadence is Cadence.POLL:
                with pytest.raises(DeviceLost):
                    reading.result()
            else:
                assert not reading.done()  # waiting is what it is there for
                await rig.peer.speak()
                rig.peer.expect(await reading)
            await rig.reopens()

    run(battery())


@every_breakable
def test_a_device_that_restarts_is_lost_and_then_there_again(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            for _ in range(2):
                await rig.works()
                await rig.peer.stop()
                with pytest.raises(DeviceLost):
                    async with asyncio.timeout(SOON_S):
                        await rig.driver.read()
                with pytest.raises(DeviceUnavailable):
                    await rig.open()
                await rig.peer.start()
                await rig.open()

    run(battery())


@every_breakable
def test_reconnecting_leaves_no_descriptor_open(name: str, tmp_path: Path) -> None:
    async def battery() -> None:
        async with rig_of(name, tmp_path) as rig:
            await rig.reopens()
            await rig.driver.close()
            await asyncio.sleep(0.05)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(5):
                await rig.reopens()
                await rig.driver.close()
            await asyncio.sleep(0.05)
            assert len(os.listdir("/proc/self/fd")) <= before  # the first close may not have been through when counted

    run(battery())
