"""The broker: stopped, killed, hung, slow, refusing, forgetful."""

from __future__ import annotations

from collections.abc import Iterable

from fault.rig import LineWorld, NotHere, Rig
from fault.scenarios import scenario
from support import nats, proxy, rabbitmq
from support.broker import Broker

V311 = 'confirm: receiver\n    version: "3.1.1"'
PLAIN = f"{V311}\n    plain_topics: true"  # NATS takes no dot in a topic


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
        rig.check(swallowed > 1, "PUBACKs were swallowed")
        rig.check(world.proxy.connections > 1, "the agent connected anew")


@scenario(cost_s=20)
async def broker_refusing(rig: Rig) -> None:
    """Whoever connects is turned away; later it lets them in but not publish; then all is well again."""
    async with rig.line(proxied="agent", broker={"acl": "topic readwrite acme/#"}) as world:
        await world.flow(2)
        world.proxy.refusing = True
        world.proxy.cut()
        await world.backlog(150)
        world.proxy.refusing = False
        await world.flow(3)
        acl = world.broker.folder / "acl"
        acl.write_text("topic read acme/#")
        world.broker.kill()
        world.broker.start()
        await world.backlog(150)
        acl.write_text("topic readwrite acme/#")
        world.broker.kill()
        world.broker.start()
        await world.flow(2)


async def outages(world: LineWorld) -> None:
    """What every make of broker has to go through: stopped, killed, hung, the receiver away."""
    await world.flow(2)
    world.broker.stop()
    await world.backlog(100)
    world.broker.start()
    await world.flow(2)
    world.broker.kill()
    await world.backlog(100)
    world.broker.start()
    await world.flow(2)
    world.broker.hang()
    await world.backlog(100)
    world.broker.wake()
    await world.flow(2)
    await world.receiver.kill()
    await world.flow(2)
    await world.receiver.start()
    await world.flow(2)


async def another_make(rig: Rig, broker: Broker, installed: bool, said: str) -> None:
    """The outages with a broker that speaks MQTT 3.1.1 only."""
    if not installed:
        raise NotHere(f"sudo apt-get install {broker.name}-server")
    async with rig.line(broker=broker, receiver=("--version", "3.1.1"), replace={"confirm: receiver": said}) as world:
        await outages(world)


@scenario(cost_s=50)
async def rabbitmq_outage(rig: Rig) -> None:
    """RabbitMQ with its MQTT plugin: stopped, killed, hung."""
    await another_make(rig, rabbitmq.RabbitMq(rig.directory), rabbitmq.installed, V311)


@scenario(cost_s=30)
async def nats_outage(rig: Rig) -> None:
    """The NATS server's MQTT: stopped, killed, hung."""
    await another_make(rig, nats.Nats(rig.directory), nats.installed, PLAIN)
