"""The agent is killed: at random moments, at the worst ones, and at every step that has a name."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.buffer import steps
from fault.rig import LineWorld, Rig, VolumeWorld
from fault.scenarios import scenario

PLC_STEPS = ("plc_ack", "plc_result")  # the PLC kills the agent when it is acknowledged, or when its result is read
STEP_WAIT_S = 5.0
VERSION_1 = Path(__file__).parents[1] / "version1.sql"
LINES, KILLS_A_LINE = 4, 200  # at most so many lines at a time; another one from so many kills on
LINE_STEPS = {
    "before_begin": 40, "after_insert": 40, "after_projection": 40, "before_commit": 40, "after_commit": 40,
    "before_notify": 40, "progress_before": 6, "progress_after": 6, "witness_before_replace": 1,
    "witness_after_replace": 1, "log_open_before": 1, "log_open_after": 1,
}  # fmt: skip
"""Reached on the line within seconds, and the most often each is passed before the kill."""


@scenario(cost_s=200)
async def kill_random(rig: Rig) -> None:
    """The line under a broker that comes, goes and hangs; the agent dies ``--kills`` times, units are swapped."""
    parts = rig.parts(min(LINES, 1 + rig.wanted_kills // KILLS_A_LINE))
    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(killed_again_and_again(part))
    for part in parts:
        rig.take(part)


async def killed_again_and_again(rig: Rig) -> None:
    """One line; a thousand kills are shared by some, or they would take an hour."""
    async with rig.line(pace=0.4, starts=("broker", "receiver")) as world:
        weather = asyncio.create_task(change_weather(rig, world))
        try:
            for number in range(rig.wanted_kills):
                await one_death(rig, world, number)
        finally:
            weather.cancel()
            await asyncio.gather(weather, return_exceptions=True)


async def one_death(rig: Rig, world: LineWorld, number: int) -> None:
    """Every other death at a step of the writer, every fourth at one that only the PLC knows, the rest at random."""
    chance = rig.chance
    step = chance.choice(sorted(LINE_STEPS)) if number % 2 == 0 else chance.choice(PLC_STEPS) if number % 4 == 1 else ""
    after_s, down_s = chance.uniform(0.2, 3.5), chance.uniform(0.2, 0.9)
    hit = chance.randint(1, LINE_STEPS.get(step, 1))
    if world.agent.running:
        await world.kill_agent()
    await world.start_agent(f"{step}:{hit}" if step in LINE_STEPS else "")
    if step in PLC_STEPS:
        await asyncio.sleep(after_s)
        await world.line.kill_at(world.agent, step.removeprefix("plc_"))
    try:
        code = await world.agent.wait(STEP_WAIT_S if step else after_s)
    except TimeoutError:
        await world.kill_agent()
        await world.line.kill_at(None)
    else:
        rig.check(code == -9, f"killed, not ended with {code}")
        rig.kills += 1
        rig.hits[step] += 1
    if number % 12 == 11:
        await world.receiver.kill()
    swapped = await world.swap_some()
    rig.say(f"kill {number + 1}: {step or f'{after_s:.1f} s'}, {swapped} swapped, {down_s:.1f} s down")
    await asyncio.sleep(down_s)
    if not world.receiver.running:
        await world.receiver.start()


async def change_weather(rig: Rig, world: LineWorld) -> None:
    """The broker is killed, or hangs, for some seconds, without end; whoever cancels this finds it up."""
    number = 0
    while True:
        await asyncio.sleep(rig.chance.uniform(3, 9))
        number += 1
        hung = number % 8 == 3
        rig.notes["hangs" if hung else "outages"] = rig.notes.get("hangs" if hung else "outages", 0) + 1
        try:
            if hung:
                world.broker.hang()
            else:
                world.broker.kill()
            await asyncio.sleep(rig.chance.uniform(0.5, 4))
        finally:
            if hung:
                world.broker.wake()
            else:
                world.broker.start()


# --- every step that has a name --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is reached: the writer's settings, and what is done to the files before it starts."""

    hits: tuple[int, ...] = (1, 7, 30)
    writer: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[VolumeWorld], None] | None = None


def damage(world: VolumeWorld) -> None:
    """What a run leaves that met a page it could not read."""
    (world.data_dir / "suspect").write_text("a page cannot be read")


def age(world: VolumeWorld) -> None:
    """Write the file anew as an agent of version 1 would have it: its tables, with what is in them now."""
    new, path = world.data_dir / "version1.db", world.buffer.path
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.executescript(VERSION_1.read_text())
        db.execute("ATTACH ? AS now", (str(path),))
        for (table,) in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall():
            names = ", ".join(name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,)))
            db.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM now.{table}")
        (application,) = db.execute("PRAGMA now.application_id").fetchone()
        db.execute("DETACH now")
        db.execute(f"PRAGMA application_id = {application}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA user_version = 1")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.rename(path)


SMALL = {"buffer": {"keep": 0.0}}
WAYS = {
    "before_": Way(), "after_": Way(), "progress_": Way((1, 4)), "witness_": Way((1,)),
    "retention_": Way((1, 2), SMALL), "log_open_": Way((1,)), "salvage_": Way((1,), before=damage),
    "migration_": Way((1,), before=age),
}  # fmt: skip
"""By the beginning of a step's name. A step that none of them reaches turns `kill_steps` red: add its way here."""


@scenario(cost_s=120)
async def kill_steps(rig: Rig) -> None:
    """The writer dies at every step that edge_agent.buffer.steps names, early and late; small buffers, damage, age."""
    async with rig.volume(starts=("broker", "receiver"), writer={"rate": 200}) as world:
        for name in steps.NAMES:
            way = next((way for start, way in WAYS.items() if name.startswith(start)), None)
            rig.check(way is not None, f"a way to reach step {name}: add it to WAYS in scenarios/kills.py")
            for hit in way.hits if way is not None else ():
                await die_at(rig, world, f"{name}:{hit}", way)


async def die_at(rig: Rig, world: VolumeWorld, step: str, way: Way) -> None:
    """Start the writer so that it reaches the step, and see it die there."""
    if way.before is not None:  # on what a sound run left
        await world.start_agent(buffer={})
        await world.at_work()
        await world.kill_agent()
        way.before(world)
    await world.start_agent(step, **{"buffer": {}, **way.writer})
    try:
        code = await world.agent.wait(20)
    except TimeoutError:
        rig.check(False, f"step {step} is reached within 20 s")
        await world.kill_agent()
        return
    rig.check(code == -9, f"killed at {step}, not ended with {code}")
    rig.kills += 1
    rig.hits[step.partition(":")[0]] += 1
