"""The mqtt driver against a real mosquitto: retained, doubted, flooding and refusing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import DeviceLost, DeviceRefused, ReadingRejected
from edge_agent.model import Sample
from edge_agent_drivers.mqtt.config import MqttSettings
from edge_agent_drivers.mqtt.driver import MqttDriver
from support.mosquitto import Mosquitto
from support.peers.mqtt import MqttPeer

CLIMATE = {"climate": {"tags": {"t": {"topic": "hall/t"}, "h": {"topic": "hall/+/h", "path": "/v"}}}}


def driver_for(url: str, **more: Any) -> MqttDriver:
    keys: dict[str, Any] = {"url": url, "groups": CLIMATE} | more
    return MqttDriver("tools", MqttSettings.model_validate(keys))


async def next_of(driver: MqttDriver) -> Sample:
    async with asyncio.timeout(10):
        (sample,) = await driver.read()
    assert isinstance(sample, Sample)
    return sample


def test_tags_with_topics_of_their_own_make_one_image(tmp_path: Path) -> None:
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        driver = driver_for(peer.broker.url)
        try:
            await driver.open()
            await peer.publish(b"21.5", topic="hall/t")
            sample = await next_of(driver)
            assert (sample.values, sample.status) == ((21.5, None), {1: "no value yet"})
            await peer.publish(b'{"v": 40}', topic="hall/7/h")
            sample = await next_of(driver)
            assert (sample.values, sample.status) == ((21.5, 40.0), None)
            await peer.publish(b"\xff\xfe", topic="hall/t")
            sample = await next_of(driver)
            assert (sample.values, sample.status) == ((None, 40.0), {0: "the message is not UTF-8"})
        finally:
            await driver.close()
            await peer.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(("retained", "status"), [("doubt", {0: "retained: may be old"}), ("take", None)])
def test_what_the_broker_kept_is_doubted_unless_it_is_believed(
    tmp_path: Path, retained: str, status: dict[int, str] | None
) -> None:
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        groups = {"g": {"tags": {"t": {"topic": "hall/t"}}}}
        driver = driver_for(peer.broker.url, retained=retained, groups=groups)
        try:
            await peer.publish(b"20", "-r", topic="hall/t")
            await driver.open()
            sample = await next_of(driver)
            assert (sample.values, sample.status) == ((20.0,), status)
            await peer.publish(b"21", "-r", topic="hall/t")
            sample = await next_of(driver)
            assert (sample.values, sample.status) == ((21.0,), None)
        finally:
            await driver.close()
            await peer.stop()

    asyncio.run(scenario())


def test_what_was_published_meanwhile_is_not_taken_for_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        driver = driver_for(peer.broker.url, client_id="line3", retained="drop")
        try:
            await driver.open()
            await driver.close()
            await peer.publish(b"1", topic="hall/t")
            await peer.publish(b"2", "-r", topic="hall/t")
            await driver.open()
            await peer.publish(b"3", topic="hall/t")
            assert (await next_of(driver)).values == (3.0, None)
        finally:
            await driver.close()
            await peer.stop()

    asyncio.run(scenario())


def test_ten_thousand_messages_of_qos_1_come_once_each_in_their_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        groups = {"g": {"topic": "n", "tags": {"n": {"type": "int64"}}}}
        driver = driver_for(peer.broker.url, groups=groups)
        try:
            await driver.open()
            lines = "".join(f"{number}\n" for number in range(10_000)).encode()
            command = ["mosquitto_pub", "-p", str(peer.broker.port), "-t", "n", "-q", "1", "-l"]
            tool = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
            sending = asyncio.create_task(tool.communicate(lines))
            seen: list[Any] = []
            async with asyncio.timeout(60):
                while len(seen) < 10_000:
                    seen += [sample.values[0] for sample in await driver.read()]
            await sending
            assert seen == list(range(10_000))
        finally:
            await driver.close()
            await peer.stop()

    asyncio.run(scenario())


def test_messages_of_qos_0_that_were_not_read_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        groups = {"g": {"topic": "n", "tags": {"n": {"type": "int64"}}}}
        driver = driver_for(peer.broker.url, groups=groups)
        try:
            await driver.open()
            lines = "".join(f"{number}\n" for number in range(500)).encode()
            command = ["mosquitto_pub", "-p", str(peer.broker.port), "-t", "n", "-q", "0", "-l"]
            tool = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
            await tool.communicate(lines)
            missing, seen = 0, 0
            async with asyncio.timeout(20):
                while missing + seen < 500:
                    try:
                        seen += len(await driver.read())
                    except ReadingRejected as rejected:
                        missing += int(str(rejected.args[0]).split()[1])
            assert missing + seen == 500
            assert seen >= 100
        finally:
            await driver.close()
            await peer.stop()

    asyncio.run(scenario())


def test_a_broker_that_does_not_know_us_refuses_and_one_that_dies_is_a_loss(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path, users={"line3": "secret"}) as broker:
            stranger = driver_for(broker.url)
            with pytest.raises(DeviceRefused) as refused:
                await stranger.open()
            assert refused.value.hint
            (tmp_path / "password").write_text("secret\n")
            driver = driver_for(broker.url, username="line3", password={"file": str(tmp_path / "password")})
            await driver.open()
            broker.kill()
            with pytest.raises(DeviceLost):
                async with asyncio.timeout(10):
                    await driver.read()
            await driver.close()

    asyncio.run(scenario())
