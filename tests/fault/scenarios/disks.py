"""The disk: full, limited, and with room again. Units are all of one cycle each, so nothing may be given up."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess

from fault.rig import Rig, VolumeWorld
from fault.scenarios import scenario

MEGABYTE = 2**20
_CLONE_NEWNS = 0x00020000
FAST = {"rate": 0, "batch": 20}


@scenario(cost_s=25)
async def disk_full(rig: Rig) -> None:
    """A small disk of its own (tmpfs) runs full while the broker is away, then somebody makes room."""
    data_dir = rig.directory / "data"
    data_dir.mkdir()
    if not own_mounts():
        rig.notes["via"] = "file-limit"  # no right to mount here: what SQLite sees of a full disk stands for it
        await limited(rig)
        return
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data_dir))
    async with rig.volume(writer=FAST, starts=("receiver", "agent")) as world:
        await stalled(world)
        free = shutil.disk_usage(data_dir).free
        rig.check(free < 8 * MEGABYTE, f"the disk is nearly full, not {free} bytes free")
        mount("-o", "remount,size=200m", str(data_dir))
        await world.promised(world.accepted() + 500)
        world.broker.start()
        await world.until(lambda: world.confirmed() > 1000, "delivery after the full disk")


@scenario(cost_s=25)
async def file_limit(rig: Rig) -> None:
    """Writes fail beyond a file size (RLIMIT_FSIZE), then no longer."""
    await limited(rig)


async def limited(rig: Rig) -> None:
    world = rig.volume(writer=FAST, starts=("receiver",))
    world.agent.prefixed("prlimit", f"--fsize={12 * MEGABYTE}:unlimited")
    async with world:
        await world.start_agent()
        await stalled(world)
        await asyncio.to_thread(run, "prlimit", "--pid", str(world.agent.pid), "--fsize=unlimited")
        await world.promised(world.accepted() + 500)
        world.broker.start()
        await world.until(lambda: world.confirmed() > 1000, "delivery after the limit")


@scenario(cost_s=25)
async def byte_cap(rig: Rig) -> None:
    """The buffer reaches max_size with nothing delivered: collecting waits, nothing goes; then everything does."""
    writer = {**FAST, "buffer": {"max_size": 12 * MEGABYTE}}
    async with rig.volume(writer=writer, starts=("receiver", "agent")) as world:
        await stalled(world)
        size = world.buffer.path.stat().st_size
        rig.notes["file_mb"] = round(size / MEGABYTE, 1)
        rig.check(size < 32 * MEGABYTE, f"the file stays within a second's writing of its cap, not {size} bytes")
        world.broker.start()
        await world.promised(world.accepted() + 500, 60)


@scenario(cost_s=20)
async def max_backlog(rig: Rig) -> None:
    """A route may hold back one megabyte: the oldest beyond go, each in a recorded drop, and the line goes on."""
    async with rig.volume(writer={"rate": 400}, route={"max_backlog": "1MiB"}, starts=("receiver", "agent")) as world:
        world.expect(dropped_recorded=True)
        await world.promised(12_000, 60)
        await world.flow(2)
        world.broker.start()
        await world.flow(2)


@scenario(cost_s=15)
async def old_backlog(rig: Rig) -> None:
    """Delivered records go at once (keep: 0); what was never delivered stays, however old."""
    async with rig.volume(writer={"rate": 200, "buffer": {"keep": 0.0}}) as world:
        await world.until(lambda: world.confirmed() > 500, "some delivered")
        for _ in range(2):
            await world.receiver.kill()
            await world.flow(1)
            world.broker.kill()  # with what it had acknowledged: the next record is with nobody but us
            await world.kill_agent()  # a route that never connected has nothing in its hands
            await world.start_agent()
            await world.backlog(1000)
            await world.flow(3)  # retention looks about once a second
            world.broker.start()
            await world.receiver.start()
            await world.until(lambda: world.pending() < 200, "the backlog delivered")
            await world.flow(2)
        gone = world.buffer.query("SELECT sum(last_seq - first_seq + 1) FROM gap WHERE reason = 'delivered'")[0][0]
        rig.check((gone or 0) > 1000, "delivered records were deleted meanwhile")


@scenario(cost_s=12)
async def read_only_disk(rig: Rig) -> None:
    """The disk is read-only at a start, as after an error of its file system: a clear refusal; then it is repaired."""
    data_dir = rig.directory / "data"
    data_dir.mkdir()
    permitted = own_mounts()
    async with rig.volume(writer={"rate": 200}) as world:
        await world.until(lambda: world.confirmed() > 500, "some delivered")
        world.broker.stop()
        await world.backlog(500)
        await world.kill_agent()
        if not permitted:
            rig.notes["via"] = "nothing: no right to mount here"
        else:
            mount("--bind", str(data_dir), str(data_dir))
            mount("-o", "remount,bind,ro", str(data_dir))
            await world.start_agent()
            code = await world.agent.wait(15)
            rig.check(code not in (0, -9), f"the start is refused, not {code}")
            words = world.agent.log.read_text().lower()
            rig.check("read-only" in words or "readonly" in words, "and says that the disk is read-only")
            run("umount", str(data_dir))
        world.broker.start()
        await world.start_agent()
        await world.flow(2)


async def stalled(world: VolumeWorld, quiet_s: float = 2.0) -> None:
    """Wait until the writer was promised nothing for a while, and was promised a lot before."""
    before = -1
    while (now := world.accepted()) != before or now < 1000:
        before = now
        await asyncio.sleep(quiet_s)
        if not world.agent.running:
            raise world.agent.failed("ended instead of waiting for room")


def own_mounts() -> bool:
    """Give this process mounts of its own, which end with it. False where that is not permitted."""
    if os.getuid() != 0 or ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        return False
    mount("--make-rprivate", "/")
    return True


def mount(*arguments: str) -> None:
    run("mount", *arguments)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
