"""The receiver: dead, slow, picky, late, repetitive; and messages that nobody kept for it."""

from __future__ import annotations

from collections.abc import Iterable

from edge_agent.demo.processes import free_port
from fault.rig import Rig
from fault.scenarios import scenario
from support import proxy
from support.mosquitto import Mosquitto

LIMITED = {"options": ("max_queued_messages 1000",)}  # what mosquitto does if nobody says otherwise
MANY = 100_000


@scenario(cost_s=14)
async def receiver_dead(rig: Rig) -> None:
    """It is killed and stays away for a while; the broker keeps what comes."""
    async with rig.line() as world:
        await world.flow(2)
        await world.receiver.kill()
        await world.backlog(200)
        await world.receiver.start()
        await world.flow(2)


@scenario(cost_s=16)
async def receiver_killed(rig: Rig) -> None:
    """It is killed again and again, in the midst of its commits."""
    async with rig.volume(writer={"rate": 150}) as world:
        for _ in range(8):
            await world.flow(rig.chance.uniform(0.8, 1.6))
            await world.receiver.kill()
            rig.kills += 1
            await world.receiver.start()
        await world.flow(1)


@scenario(cost_s=16)
async def receiver_slow(rig: Rig) -> None:
    """Every record takes it 3 ms: less than is made, for a while."""
    async with rig.volume(receiver=("--slow-ms", "3"), writer={"rate": 60}) as world:
        await world.backlog(500)
        await world.flow(3)


@scenario(cost_s=8)
async def receiver_rejects_one(rig: Rig) -> None:
    """One record is refused for good: a dead letter, and the rest goes on."""
    async with rig.volume(receiver=("--reject-seq", "100")) as world:
        await world.promised(1000)
        world.expect(dead=1)


@scenario(cost_s=40)
async def behind_one_rejected(rig: Rig) -> None:
    """100,000 records behind one that is refused."""
    writer = {"rate": 0, "batch": 50, "units": MANY // 9 + 2}
    async with rig.volume(receiver=("--reject-seq", "50"), writer=writer, starts=("broker", "agent")) as world:
        await world.promised(MANY, 60)
        await world.receiver.start()
        world.expect(dead=1)
    rig.check(rig.tally.confirmed >= MANY, f"{MANY} records came behind it")


@scenario(cost_s=14)
async def receiver_confirms_late(rig: Rig) -> None:
    """Its confirmations take longer than the agent waits, and overtake each other."""
    late = 0

    def delay(packet: bytes) -> Iterable[tuple[float, bytes]]:
        nonlocal late
        if proxy.kind(packet) != proxy.PUBLISH or not proxy.topic(packet).endswith("/confirm"):
            return [(0.0, packet)]
        late += 1
        return [(rig.chance.uniform(2.5, 5.0), packet)]

    async with rig.line(proxied="receiver") as world:
        world.proxy.out.rule = delay
        await world.flow(10)
        world.proxy.out.rule = None
        rig.check(late > 5, "confirmations were late")


@scenario(cost_s=12)
async def receiver_confirms_twice(rig: Rig) -> None:
    """Every confirmation comes twice, the second one late; old ones come after new ones."""
    twice = 0

    def repeat(packet: bytes) -> Iterable[tuple[float, bytes]]:
        nonlocal twice
        if proxy.kind(packet) != proxy.PUBLISH or not proxy.topic(packet).endswith("/confirm"):
            return [(0.0, packet)]
        twice += 1
        return [(0.0, packet), (rig.chance.uniform(0.0, 1.5), packet)]

    async with rig.line(proxied="receiver") as world:
        world.proxy.out.rule = repeat
        await world.flow(8)
        rig.check(twice > 10, "confirmations came twice")


@scenario(cost_s=25)
async def broker_discards(rig: Rig) -> None:
    """The receiver is away; the broker acknowledges everything, and silently discards beyond 1,000 messages."""
    route = {"message_size": "4KiB", "confirm_timeout": "15s"}  # so long it goes on handing over
    async with rig.volume(broker=LIMITED, route=route, writer={"rate": 300}) as world:
        await world.promised(1000)
        await world.receiver.kill()
        await world.promised(20_000, 60)
        said = (world.broker.folder / "mosquitto.log").read_text()
        rig.check("messages are being dropped" in said, "the broker discarded what nobody took")
        await world.receiver.start()
        await world.flow(2)


@scenario(cost_s=14)
async def broker_without_subscriber(rig: Rig) -> None:
    """Nobody ever subscribed: the broker acknowledges and forgets. Then the receiver comes for the first time."""
    async with rig.line(starts=("broker", "agent")) as world:
        await world.flow(6)
        await world.backlog(200)
        await world.receiver.start()
        await world.flow(2)


@scenario(cost_s=14)
async def broker_restarts_without_session(rig: Rig) -> None:
    """The receiver is away; the broker, which keeps its messages, restarts and has forgotten them."""
    async with rig.line() as world:
        await world.flow(2)
        await world.receiver.kill()
        await world.backlog(150)
        world.broker.kill()
        world.broker.start()
        await world.flow(2)
        await world.receiver.start()
        await world.flow(2)


@scenario(cost_s=20)
async def two_routes(rig: Rig) -> None:
    """Two routes, each with a broker and a receiver of its own; the second's is dead for a while, the first goes on."""
    with Mosquitto(rig.directory / "second-broker", port=free_port()) as second:
        async with rig.volume(second={"url": second.url}, writer={"rate": 100}) as world:
            assert world.second_receiver is not None
            await world.second_receiver.start()
            await world.flow(2)
            second.kill()
            await world.until(lambda: world.buffer.pending("second") > 2000, "a backlog of the second route")
            rig.check(world.pending() < 500, "the first route goes on beside it")
            second.start()
            await world.flow(2)


@scenario(cost_s=30)
async def live_first_second_outage(rig: Rig) -> None:
    """A backlog drains slowly beside fresh records; the broker goes again, and fresh ones still go first."""
    route = {"order": "live_first", "max_rate": "60KiB"}
    async with rig.volume(route=route, writer={"rate": 12}) as world:
        for _ in range(2):
            await world.flow(1)
            world.broker.kill()
            await world.promised(world.accepted() + 800)
            world.broker.start()
            await world.until(world.is_ahead, "fresh records beside a backlog")


@scenario(cost_s=8)
async def two_samples_same_millisecond(rig: Rig) -> None:
    """All samples of a tag within a unit carry the same nanosecond: none may be taken for another's double."""
    async with rig.volume(writer={"same_instant": True, "rate": 200}) as world:
        await world.promised(5000)
