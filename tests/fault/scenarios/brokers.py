"""The broker: stopped, killed, hung, slow, refusing, forgetful."""

from __future__ import annotations

from collections.abc import Iterable

from fault.rig import Rig
from fault.scenarios import scenario
from support import proxy


@scenario(cost_s=14)
async def broker_stopped(rig: Rig) -> None:
    """It ends in order and comes back, twice."""
    async with rig.line() as world:
        for _ in range(2):
            await world.flow(2)
            world.broker.stop()
            await world.backlog(100)
            world.broker.start()
        await world.flow(2)


@scenario(cost_s=14)
async def broker_killed(rig: Rig) -> None:
    """It is killed and comes back without its memory, twice."""
    async with rig.line() as world:
        for _ in range(2):
            await world.flow(2)
            world.broker.kill()
            await world.backlog(100)
            world.broker.start()
        await world.flow(2)


@scenario(cost_s=16)
async def broker_hung(rig: Rig) -> None:
    """SIGSTOP: its sockets stay open, the kernel still accepts, nobody answers."""
    async with rig.line() as world:
        await world.flow(2)
        world.broker.hang()
        await world.backlog(200)
        await world.flow(3)
        world.broker.wake()
        await world.flow(3)


@scenario(cost_s=16)
async def broker_slow(rig: Rig) -> None:
    """It takes a few kilobytes a second for a while, less than is made."""
    async with rig.line(proxied="agent") as world:
        await world.flow(2)
        world.proxy.out.bytes_per_s = 3000
        await world.backlog(100)
        await world.flow(3)
        world.proxy.out.bytes_per_s = None
        await world.flow(2)


@scenario(cost_s=14)
async def broker_drops_pubacks(rig: Rig) -> None:
    """What the agent publishes arrives; that it did is never said. Then it is."""
    swallowed = 0

    def swallow(packet: bytes) -> Iterable[tuple[float, bytes]]:
        nonlocal swallowed
        if proxy.kind(packet) == proxy.PUBACK:
            swallowed += 1
            return []
        return [(0.0, packet)]

    async with rig.line(proxied="agent") as world:
        await world.flow(2)
        world.proxy.back.rule = swallow
        await world.flow(6)
        world.proxy.back.rule = None
        await world.flow(2)
        rig.check(swallowed > 5, "PUBACKs were swallowed")
        rig.check(world.proxy.connections > 1, "the agent connected anew")
