"""The wall clock steps while a backlog stands: nothing is re-timed, re-ordered, or deleted for its age."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

from edge_agent.demo.received import read_records
from fault.rig import Rig
from fault.scenarios import scenario

HOUR_S, DAY_S = 3600, 86400


async def stepped(rig: Rig, *steps_s: int, restart: bool = False) -> None:
    """Let records flow through each of the shifts, with the broker away in the middle of them."""
    shift = rig.directory / "shift"
    set_clock(shift, steps_s[0])
    library = build(rig.directory)
    world = rig.volume(writer={"rate": 200})
    world.environment |= {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(shift)}
    async with world:
        await world.until(lambda: world.confirmed() > 200, "some delivered")
        world.broker.stop()
        for step_s in steps_s[1:]:
            await world.promised(world.accepted() + 1500)
            set_clock(shift, step_s)
            if restart:
                await world.kill_agent()
                await world.start_agent()
        await world.promised(world.accepted() + 1500)
        await world.flow(3)  # retention looks about once a second
        world.broker.start()
        await world.flow(2)
    days = {record.at_ns // (DAY_S * 10**9) for record in read_records(world.receiver.database)}
    rig.check(len(days) > 1, "the clock was seen to step")


@scenario(cost_s=15)
async def clock_forward(rig: Rig) -> None:
    """Ten days ahead, past every age at which delivered records go, and back."""
    await stepped(rig, 0, 10 * DAY_S, 0)


@scenario(cost_s=15)
async def clock_back(rig: Rig) -> None:
    """Three days back, and an hour further."""
    await stepped(rig, 0, -3 * DAY_S, -3 * DAY_S - HOUR_S)


@scenario(cost_s=20)
async def clock_1970(rig: Rig) -> None:
    """A PC without a battery begins in 1970, is killed there, and learns the time later."""
    epoch = -int(time.time()) + 60
    await stepped(rig, epoch, epoch + 5, 0, restart=True)


def set_clock(path: Path, shift_s: int) -> None:
    """Shift the clock of who has the file mapped."""
    if not path.exists():
        path.write_bytes(bytes(8))
    with path.open("r+b") as file:
        file.write(struct.pack("<q", shift_s))


def build(directory: Path) -> Path:
    """Compile the library that shifts."""
    if shutil.which("cc") is None:
        raise RuntimeError("needs a C compiler: apt-get install gcc")
    library = directory / "clockshift.so"
    source = Path(__file__).parents[1] / "clockshift.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True, env=dict(os.environ))
    return library
