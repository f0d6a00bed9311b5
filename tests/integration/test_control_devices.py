"""What people may see of a device and write to it over the socket: roles, records, and what a station writes itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge_agent.binding.plan import Exchange, Gate, Handshake, TagRef
from edge_agent.control import Caller
from edge_agent.control.devices import DeviceVerbs
from edge_agent.control.roles import RoleRefused, Roles
from edge_agent.control.verbs import Refused
from edge_agent.driver import Shape
from edge_agent.errors import DeviceLost, DeviceRefused
from edge_agent.line import Line
from edge_agent.model import Kind, Tag
from support import binding_rig as bench
from support.scripted_device import Scripted, quick_retries, running, until

__all__ = ["quick_retries"]

NOBODY = Caller(54321, 54321, 1)
ADMIN = Caller(os.geteuid(), os.getegid(), 1)
READY = TagRef("plc.fast", 0, "plc.x")
STATION = bench.station(
    bench.position(end=Handshake(READY, "plc.ack", None, 16, "plc.slow")),
    gate=Gate(
        exchanges={1: Exchange(READY, "plc.answer", "plc.verdict", None, None)},
        permits={1: "plc.permit"},
        heartbeat="plc.beat",
    ),
)
OWN = ("ack", "answer", "verdict", "permit", "beat")


@contextlib.asynccontextmanager
async def verbs(folder: Path) -> AsyncIterator[tuple[DeviceVerbs, Scripted, Line]]:
    async with running(folder) as (item, driver, line):
        written = {name: Tag(name, "bool") for name in OWN} | {"target": Tag("target", "int16")}
        item.shape = Shape(item.shape.groups, frozenset(written), written=written)
        await until(lambda: item.status()["samples"] > 2)
        technician = {"technician": ["root"]}  # a group that exists: gid 0
        yield DeviceVerbs([item], [STATION], line.buffer, Roles(technician)), driver, line


def audits(line: Line) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(f"file:{line.buffer.files.db}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT body FROM record WHERE kind = ? ORDER BY seq", (int(Kind.AUDIT),)).fetchall()
    return [orjson.loads(body) for (body,) in rows]


def on(folder: Path, test: Callable[[DeviceVerbs, Scripted, Line], Awaitable[None]]) -> None:
    async def main() -> None:
        async with verbs(folder) as (asked, driver, line):
            await test(asked, driver, line)

    asyncio.run(main())


def request(tag: str, value: str = "1", **more: Any) -> dict[str, Any]:
    return {"device": "plc", "tag": tag, "value": value, "reason": "trial"} | more


def test_everybody_may_look_and_only_a_technician_write(tmp_path: Path) -> None:
    async def test(asked: DeviceVerbs, driver: Scripted, line: Line) -> None:
        shown = await asked.device_values(NOBODY, {"device": "plc"})
        assert shown["values"]["fast"][0]["tag"] == "x"
        with pytest.raises(RoleRefused, match="technician"):
            await asked.device_write(NOBODY, request("target"))
        assert (driver.written, audits(line)) == ([], [])
        technician = Caller(54321, 54321, 1, frozenset((0,)))
        await asked.device_write(technician, request("target"))
        assert driver.written[0][:2] == ("target", 1)

    on(tmp_path, test)


@pytest.mark.parametrize("tag", OWN)
def test_no_technician_passes_the_gate_or_acknowledges_by_writing(tmp_path: Path, tag: str) -> None:
    async def test(asked: DeviceVerbs, driver: Scripted, line: Line) -> None:
        technician = Caller(54321, 54321, 1, frozenset((0,)))
        for caller, more, error in [
            (ADMIN, {}, Refused),
            (technician, {}, Refused),
            (technician, {"force": True}, RoleRefused),
        ]:
            with pytest.raises(error):
                await asked.device_write(caller, request(tag, "true", **more))
        assert (driver.written, audits(line)) == ([], [])
        await asked.device_write(ADMIN, request(tag, "true", force=True))
        assert driver.written[0][:2] == (tag, True)
        assert [one["new"]["forced"] for one in audits(line)] == [True, True]

    on(tmp_path, test)


def test_the_record_is_durable_before_the_device_is_touched(tmp_path: Path) -> None:
    async def test(asked: DeviceVerbs, driver: Scripted, line: Line) -> None:
        answer = await asked.device_write(ADMIN, request("target", "7"))
        assert driver.written == [("target", 7, driver.written[0][2])]
        assert driver.written[0][2] >= answer["seq"]
        first, second = audits(line)
        assert (first["action"], second["action"], second["new"]["asked"]) == ("write", "written", answer["seq"])

    on(tmp_path, test)


@pytest.mark.parametrize("error", [DeviceRefused("plc", "is write-protected"), DeviceLost("plc", "cable pulled")])
def test_a_write_that_fails_is_on_record_as_such(tmp_path: Path, error: Exception) -> None:
    async def test(asked: DeviceVerbs, driver: Scripted, line: Line) -> None:
        driver.refuses["target"] = error  # type: ignore[assignment]
        with pytest.raises(type(error)):
            await asked.device_write(ADMIN, request("target", "7"))
        first, second = audits(line)
        assert (first["action"], second["action"]) == ("write", "not_written")
        assert second["new"]["error"] == str(error.args[0]).removeprefix("plc: ")

    on(tmp_path, test)


def test_what_would_be_done_can_be_asked_first(tmp_path: Path) -> None:
    async def test(asked: DeviceVerbs, driver: Scripted, line: Line) -> None:
        planned = await asked.device_write(ADMIN, request("target", "7", check=True))
        assert (planned["old"], planned["new"]) == (None, 7)
        with pytest.raises(RoleRefused):
            await asked.device_write(NOBODY, request("target", "7", check=True))
        assert (driver.written, audits(line)) == ([], [])

    on(tmp_path, test)


@pytest.mark.parametrize(
    "wrong",
    [
        request("target", "40000"), request("x"), request("nothing"), request("target", reason=" "),
        request("target", reason="x" * 600), request("target", "1" * 5000), request("target", device="none"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_a_hint(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def test(asked: DeviceVerbs, driver: Scripted, line: Line) -> None:
        with pytest.raises(Refused) as refused:
            await asked.device_write(ADMIN, wrong)
        assert refused.value.hint
        assert audits(line) == []
        for look in ({"names": ["nothing"]}, {"names": "x"}, {"names": ["x"] * 2000}):
            with pytest.raises(Refused):
                await asked.device_values(ADMIN, {"device": "plc"} | look)

    on(tmp_path, test)
