"""People correct a binding: a real binder, buffer and control socket; read as any tool that knows SQL reads it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli, clock
from edge_agent.binding import Binder
from edge_agent.buffer import open_readonly
from edge_agent.control import AgentRefused, Caller, Control, ask
from edge_agent.control.corrections import Corrections
from edge_agent.control.roles import RoleRefused, Roles
from edge_agent.line import Line
from edge_agent.model import Instant, Sample, Scan
from support import binding_rig as bench
from support.buffer_rig import asynchronous, opened

SCANNED_ONLY = bench.plan(bench.station(bench.position(end=None, claims={"press.state": ("temp",)}), bounce_s=0.0))


class Floor:
    """A line with a reader and a press, and its control socket."""

    def __init__(self, line: Line, data_dir: Path) -> None:
        self.line, self.data_dir = line, data_dir

    def scan(self, serial: str) -> str:
        """The cycle that it opens."""
        self.line.scan(Scan("gate", clock.now(), serial.encode()))
        cycle: str = self.line.snapshot()["OP20"]["positions"]["1"]["cycle"]  # type: ignore[index]
        return cycle

    async def reading(self, temp: float) -> None:
        now = clock.now()
        values = tuple(temp if tag.name == "temp" else 0 for tag in bench.STATE.tags)
        seq = self.line.sample(Sample(bench.STATE, Instant(now.at_ns, now.mono_ns), now.mono_ns, values))
        await self.line.buffer.committed(seq)

    async def asked(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ask, self.data_dir, verb, timeout_s=20.0, **arguments)

    async def refused(self, verb: str, **arguments: Any) -> str:
        with pytest.raises(AgentRefused) as caught:
            await self.asked(verb, **arguments)
        assert caught.value.hint, "every refusal says what to do"
        return str(caught.value.args[0])

    def readings(self) -> dict[str, list[float]]:
        """serial -> temperatures, as any tool that knows SQL sees them."""
        import sqlite3

        found: dict[str, list[float]] = {}
        with closing(sqlite3.connect(f"file:{self.line.buffer.files.db}?mode=ro", uri=True)) as db:
            for serial, value in db.execute("SELECT serial, value FROM reading WHERE tag = 'press.temp' ORDER BY seq"):
                found.setdefault(serial or "", []).append(value)
        return found

    def tell(self, *arguments: str) -> tuple[int, str]:
        """The command line on this data_dir: (exit code, what it printed)."""
        command = [sys.executable, "-m", "edge_agent", *arguments, "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        return done.returncode, done.stdout + done.stderr


@contextlib.asynccontextmanager
async def floor(data_dir: Path) -> AsyncIterator[Floor]:
    async with opened(data_dir) as buffer:
        line = Line(Binder(SCANNED_ONLY, buffer.log, "c", buffer.lookup, buffer.restored()), buffer)
        line.attach("press", lambda request: None)
        line.record(_tagset())
        line.start(clock.now())
        control = Control(data_dir / "control.sock", Corrections(line, Roles({})).handlers())
        task = asyncio.create_task(control.serve())
        while not (data_dir / "control.sock").exists():  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(0.005)
        try:
            yield Floor(line, data_dir)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _tagset() -> Sequence[Any]:
    from edge_agent.model import Kind, Record

    claims = {"press.state": ["temp"]}
    station = {"step": "press-fit", "identity": "before", "positions": {"1": {"claims": claims, "characteristics": []}}}
    body = {"config": "c", "stations": {"OP20": station}, "devices": {}}
    tagset = {"tagset": bench.STATE.id} | bench.STATE.describe()
    return [
        Record(Kind.CONFIG, "agent", clock.now(), body),
        Record(Kind.TAGSET, bench.STATE.source, clock.now(), tagset),
    ]


@asynchronous
async def test_a_rebind_moves_the_readings_and_says_who_and_why(tmp_path: Path) -> None:
    async with floor(tmp_path) as here:
        first = here.scan("SN1")
        await here.reading(1.0)
        here.scan("SN2")
        await here.reading(2.0)
        assert here.readings() == {"SN1": [1.0], "SN2": [2.0]}
        answer = await here.asked("bind", cycle=first, serial="SN2", reason="label swapped", again=True)
        assert answer == {"cycle": first, "was": "SN1", "serial": "SN2", "station": "OP20"}
        assert here.readings() == {"SN2": [1.0, 2.0]}
        with closing(open_readonly(tmp_path)) as archive:
            (unit,) = archive.trace("SN2")
        (cycle,) = [one for one in unit.cycles if one.cycle == first]
        bindings = {one.state: one for one in cycle.bindings}
        assert bindings["superseded"].serial == "SN1"
        assert bindings["bound"].rule == "manual" and bindings["bound"].reason == "label swapped"
        assert f"(uid {os.geteuid()})" in str(bindings["bound"].by)


@asynchronous
async def test_an_unbound_cycle_is_listed_until_somebody_binds_it(tmp_path: Path) -> None:
    async with floor(tmp_path) as here:
        cycle = here.scan("SN1")
        await here.reading(1.0)
        here.scan("SN2")
        await here.asked("unbind", cycle=cycle, reason="the label was another one's")
        assert here.readings() == {"": [1.0]}
        code, output = await asyncio.to_thread(here.tell, "unbound")
        assert code == cli.ExitCode.PROBLEM and cycle in output
        assert "not bound" in await here.refused("bind", cycle=cycle, serial="SN2", reason="x", again=True)
        await here.asked("bind", cycle=cycle, serial="SN2", reason="photo")
        assert here.readings() == {"SN2": [1.0]}
        code, output = await asyncio.to_thread(here.tell, "unbound")
        assert code == cli.ExitCode.OK, output
        for misspelt in (("unbound", "--station", "OP21"), ("findings", "list", "--code", "skiped_scan")):
            code, output = await asyncio.to_thread(here.tell, *misspelt)
            assert code == cli.ExitCode.USAGE and ("OP20" in output or "skipped_scan?" in output), output


@asynchronous
async def test_an_open_cycle_is_corrected_too_and_goes_on(tmp_path: Path) -> None:
    async with floor(tmp_path) as here:
        cycle = here.scan("SN1")
        await here.reading(1.0)
        await here.asked("bind", cycle=cycle, serial="SN7", reason="wrong label", again=True, new=True)
        await here.reading(1.5)
        here.scan("SN2")
        await here.reading(2.0)
        assert here.readings() == {"SN7": [1.0, 1.5], "SN2": [2.0]}


@asynchronous
async def test_what_cannot_be_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    async with floor(tmp_path) as here:
        cycle = here.scan("SN1")
        here.scan("SN2")
        head = here.line.buffer.next_seq
        refusals = [
            await here.refused("bind", cycle=cycle, serial="SN2", reason="x"),
            await here.refused("bind", cycle=cycle, serial="SN9", reason="x", again=True),
            await here.refused("bind", cycle=cycle, serial="SN1", reason="x", again=True),
            await here.refused("bind", cycle="000000000000-1", serial="SN1", reason="x"),
            await here.refused("bind", cycle=cycle, serial="SN2\n", reason="x", again=True, new=True),
            await here.refused("bind", cycle=cycle, serial="SN2", reason=" ", again=True),
            await here.refused("bind", cycle=cycle, serial=["SN2"], reason="x", again=True),
            await here.refused("unbind", cycle=cycle),
            await here.refused("findings_ack", findings=["000000000000-1"], reason="x"),
            await here.refused("findings_ack", findings=[], reason="x"),
        ]
        assert len(set(refusals)) >= 8, refusals
        assert here.line.buffer.next_seq == head


@asynchronous
async def test_a_finding_stands_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with floor(tmp_path) as here:
        here.line.scan(Scan("gate", clock.now(), b"no label of a unit"))
        await here.line.buffer.committed(here.line.buffer.next_seq - 1)
        _code, output = await asyncio.to_thread(here.tell, "findings", "list")
        assert "unmatched_scan" in output
        code, output = await asyncio.to_thread(
            here.tell, "findings", "ack", "--code", "unmatched_scan", "--reason", "a carton"
        )
        assert code == 0, output
        _code, output = await asyncio.to_thread(here.tell, "findings", "list")
        assert "unmatched_scan" not in output
        _code, output = await asyncio.to_thread(here.tell, "findings", "list", "--all", "--json")
        assert '"acknowledged_reason": "a carton"' in output


@asynchronous
async def test_a_role_is_a_group_of_the_process_that_asks() -> None:
    import grp

    group = next(one for one in grp.getgrall() if one.gr_gid > 0)
    roles = Roles({"quality": [group.gr_name], "technician": ["no-such-group-here"], "admin": []})
    li = Caller(uid=12345, gid=100_000, pid=1, groups=frozenset({group.gr_gid}))
    wang = Caller(uid=12346, gid=100_000, pid=1, groups=frozenset({100_000}))
    assert roles.of(li) == {"viewer", "quality"}
    assert roles.of(wang) == {"viewer"}
    assert "admin" in roles.of(Caller(uid=0, gid=0, pid=1))
    assert await roles.require(li, "quality") == "12345 (uid 12345)"
    for caller, role in ((li, "technician"), (li, "admin"), (wang, "quality")):
        with pytest.raises(RoleRefused) as caught:
            await roles.require(caller, role)  # type: ignore[arg-type]
        assert "usermod" in caught.value.hint
