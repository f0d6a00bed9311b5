"""The tags of one group on an open connection: their nodes, what makes values of them, and the image they form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asyncua import ua

from edge_agent import clock
from edge_agent.driver import Group
from edge_agent.model import Instant, Sample
from edge_agent_drivers.opcua.binary import DataValue
from edge_agent_drivers.opcua.config import OpcuaGroup, OpcuaTag
from edge_agent_drivers.opcua.images import GroupImage, Memory, News
from edge_agent_drivers.opcua.link import Link
from edge_agent_drivers.opcua.typebook import TypeBook
from edge_agent_drivers.opcua.values import Taker


class BoundGroup:
    """One group, its nodes looked up on this server."""

    def __init__(self, group: Group, settings: OpcuaGroup, link: Link) -> None:
        self.settings = settings
        self.name = group.tagset.group
        self.tags: list[OpcuaTag] = list(settings.tags.values())
        self.image = GroupImage(group.tagset)
        self.memory: Memory | None = None  # for the history of the next gap
        self.nodes: list[tuple[int, ua.NodeId]] = []  # (place in the group, node)
        self.takers: list[Taker] = []
        self._link = link
        self._nowhere: list[News] = []
        for place, tag in enumerate(self.tags):
            node = link.node(tag.name)
            if node is None:
                what = f"the server has no namespace {tag.name.namespace}"
                self._nowhere.append(News(place, None, what, None, None))
            else:
                self.nodes.append((place, node))

    async def learn(self, types: TypeBook) -> None:
        """Ask for the structures and enumerations that its tags need."""
        known = await types.names_of([(node, self.tags[place]) for place, node in self.nodes])
        by_place = {place: names for (place, _), names in zip(self.nodes, known, strict=True)}
        self.takers = [Taker(tag.type, types.structures, by_place.get(place)) for place, tag in enumerate(self.tags)]

    async def fresh(self, types: TypeBook, image: GroupImage | None = None) -> Sample:
        """A read of all its tags now. ``image``: take it in there, as what is known from now on."""
        started = clock.now()
        values = await self._link.read([node for _, node in self.nodes]) if self.nodes else []
        at = clock.now()
        said = [(place, value) for (place, _), value in zip(self.nodes, values, strict=True)]
        news = await self.understood(said, types)
        (sample,) = (image or GroupImage(self.image.tagset)).samples([*news, *self._nowhere], at, started.mono_ns)
        return sample

    async def understood(self, said: Sequence[tuple[int, DataValue]], types: TypeBook) -> list[News]:
        """The values of what was said; structures that are met for the first time are asked for."""
        news = self.news(said)
        if types.structures.unknown:
            await types.learn_unknown()
            news = self.news(said)
        return news

    def news(self, said: Iterable[tuple[int, DataValue]]) -> list[News]:
        """(place, what the server says) → values."""
        takers = self.takers
        return [News(place, *takers[place].take(value), value.source_ns, value.server_ns) for place, value in said]

    def samples(self, news: Sequence[News], at: Instant, interval_s: float) -> list[Sample]:
        """What was notified: sampled by the server at some moment of the last interval."""
        return self.image.samples(news, at, at.mono_ns - int(interval_s * 1e9))
