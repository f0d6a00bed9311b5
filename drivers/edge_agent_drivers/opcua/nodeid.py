"""How the config names a node. Pure: knows no server, and so no index of a namespace that a server hands out.

``ns=2;s=Press.Force``, ``i=2258`` (namespace 0) or ``nsu=http://maker.example/press;s=Force``. The identifier is
``i=`` a number, ``s=`` text, ``g=`` a GUID or ``b=`` base64. A namespace named by its URI is looked up each time the
connection is opened: a server may number its namespaces anew after a download to the PLC, and an index would then
bind another node without a word.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from typing import NamedTuple

_NODE = re.compile(r"(?:ns=(?P<index>\d{1,5});|nsu=(?P<uri>[^;]+);)?(?P<kind>[isgb])=(?P<text>.+)", re.DOTALL)
_MAX_INDEX = 0xFFFF
_MAX_NUMBER = 0xFFFF_FFFF

Identifier = int | str | uuid.UUID | bytes


class NodeName(NamedTuple):
    """A node as the config names it: the namespace by index or by URI, and the identifier."""

    namespace: int | str
    identifier: Identifier


def parse_node(text: str) -> NodeName:
    """The parts of a node id. Raises ValueError with what to write instead."""
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError(
            f'{text!r} is no node id; write "ns=2;s=Press.Force", "ns=3;i=1001" or "nsu=http://maker/press;s=Force"'
        )
    namespace: int | str = _unescaped(match["uri"]) if match["uri"] else int(match["index"] or 0)
    if isinstance(namespace, int) and namespace > _MAX_INDEX:
        raise ValueError(f"{text!r}: a namespace index is at most {_MAX_INDEX}")
    return NodeName(namespace, _identifier(match["kind"], match["text"], text))


def _identifier(kind: str, written: str, text: str) -> Identifier:
    if kind == "s":
        return written
    try:
        if kind == "i":
            number = int(written) if written.isascii() and written.isdigit() else -1
            if not 0 <= number <= _MAX_NUMBER:
                raise ValueError(f"i= takes a number from 0 to {_MAX_NUMBER}")
            return number
        if kind == "g":
            return uuid.UUID(written)
        return base64.b64decode(written, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"{text!r}: {error}") from error


def _unescaped(uri: str) -> str:
    """A URI in a node id writes ; as %3B and % as %25 (OPC 10000-6, 5.3.1.11)."""
    return uri.replace("%3B", ";").replace("%3b", ";").replace("%25", "%")


def node_text(namespace: int, identifier: Identifier) -> str:
    """A node id of a server, as people and the config write it."""
    prefix = f"ns={namespace};" if namespace else ""
    match identifier:
        case int():
            return f"{prefix}i={identifier}"
        case str():
            return f"{prefix}s={identifier}"
        case bytes():
            return f"{prefix}b={base64.b64encode(identifier).decode()}"
        case _:
            return f"{prefix}g={identifier}"
