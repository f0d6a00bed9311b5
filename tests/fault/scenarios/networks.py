"""The network: cut both ways, cut one way, not there at the start.

Where it is permitted (root, `unshare`), agent and broker stand in network namespaces of their own with a router
between them, which drops silently; elsewhere the proxy stops forwarding. ``via=`` says which it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fault.rig import LineWorld, Rig
from fault.scenarios import scenario
from support import namespaces
from support.namespaces import Cable


class Network:
    """The way between the agent and its broker."""

    def __init__(self, world: LineWorld, cable: Cable | None) -> None:
        self._world, self._cable = world, cable

    def cut(self, *, out: bool, back: bool) -> None:
        """Drop what the agent sends, and what comes to it. ``cut(out=False, back=False)`` mends."""
        if self._cable is not None:
            self._cable.cut(out=out, back=back)
        else:
            self._world.proxy.out.stalled, self._world.proxy.back.stalled = out, back


@asynccontextmanager
async def networked(rig: Rig, **options: Any) -> AsyncIterator[tuple[LineWorld, Network]]:
    """The line here, broker and receiver beyond a router (or a proxy)."""
    if not namespaces.entered():
        rig.notes["via"] = "proxy"
        async with rig.line(proxied="agent", **options) as world:
            yield world, Network(world, None)
        return
    rig.notes["via"] = "namespaces"
    with Cable() as cable:
        broker = {"address": namespaces.THERE}
        async with rig.line(broker=broker, prefix=cable.prefix, **options) as world:
            yield world, Network(world, cable)


@scenario(cost_s=18, own_network=True)
async def network_cut_both(rig: Rig) -> None:
    """Nothing passes for some seconds, twice; nobody is told."""
    async with networked(rig) as (world, network):
        for _ in range(2):
            await world.flow(2)
            network.cut(out=True, back=True)
            await world.backlog(200)
            network.cut(out=False, back=False)
        await world.flow(3)


@scenario(cost_s=18, own_network=True)
async def network_cut_one_way_out(rig: Rig) -> None:
    """What the agent sends is lost, what comes to it is not."""
    async with networked(rig) as (world, network):
        await world.flow(2)
        network.cut(out=True, back=False)
        await world.backlog(300)
        network.cut(out=False, back=False)
        await world.flow(3)


@scenario(cost_s=18, own_network=True)
async def network_cut_one_way_in(rig: Rig) -> None:
    """What the agent sends arrives; no acknowledgement and no confirmation ever comes back."""
    async with networked(rig) as (world, network):
        await world.flow(2)
        network.cut(out=False, back=True)
        await world.backlog(300)
        network.cut(out=False, back=False)
        await world.flow(3)


@scenario(cost_s=18, own_network=True)
async def network_starts_offline(rig: Rig) -> None:
    """No network when it starts; it is killed, starts again, and then the network comes."""
    async with networked(rig, starts=("broker", "receiver")) as (world, network):
        network.cut(out=True, back=True)
        await world.start_agent()
        await world.backlog(150)
        await world.kill_agent()
        await world.swap_some()
        await world.start_agent()
        await world.flow(3)
        rig.check(world.confirmed() == 0, "nothing came through while there was no network")
        network.cut(out=False, back=False)
        await world.flow(3)
