"""What `browse --pick` calls the tags of the nodes that were picked."""

from __future__ import annotations

from edge_agent.bench import Node
from edge_agent.cli.browse import _tags
from edge_agent.config.settings import NAME


def node(*path: str) -> Node:
    return Node(id=f"ns=2;s={'.'.join(path)}", path=path, kind="variable", type="float64", tag={"node": "/".join(path)})


def test_every_name_is_one_that_the_configuration_takes() -> None:
    """Nodes with Chinese names were proposed under these, and the whole pick was refused."""
    nodes = [
        node("Press", "Force"),
        node("压机", "温度"),
        node("压机", "压力1"),
        node("Oven", "Force"),
        node("压机", "Force"),
    ]
    named = _tags(nodes)
    assert [*named] == ["force", "tag_2", "tag_3", "oven_force", "tag_5"]
    assert [tag["node"] for tag in named.values()] == ["/".join(one.path) for one in nodes]
    assert all(NAME.fullmatch(name) for name in named)
