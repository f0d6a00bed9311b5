"""Structures: the layouts that one server states, and the bytes of an ExtensionObject read by them. Pure.

Each connection has layouts of its own: two servers may well give one id to different structures, and a PLC changes
its structures with a download. What the server has not described is kept as its bytes, and asked for (``unknown``).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge_agent_drivers.opcua.binary import MAX_DEPTH, MAX_DIMENSIONS, Extension, Malformed, NodeIdValue, Reader
from edge_agent_drivers.opcua.nodeid import node_text

TypeId = tuple[int, Any]
"""(namespace, identifier) of a data type or of its encoding."""
UNKNOWN = "the server does not describe this structure"
MAX_FIELDS = 100_000  # of one value, all its nested structures counted


class Form(Enum):
    """How the fields of a structure stand in its bytes."""

    PLAIN = "plain"
    OPTIONAL = "optional"  # a mask says which of the optional fields are there
    UNION = "union"  # a number says which one field is there


@dataclass(frozen=True, slots=True)
class Member:
    """One field: of a built-in type, or a structure in place (``layout``)."""

    name: str
    builtin: int
    layout: TypeId | None = None
    dimensions: int = 0  # 0: a scalar; 1: an array; more: a matrix
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of one structure, in their order."""

    form: Form
    members: tuple[Member, ...]


@dataclass(slots=True)
class Structures:
    """The layouts of one server, by the id of their encoding and by that of their data type."""

    by_encoding: dict[TypeId, Layout] = field(default_factory=dict)
    by_type: dict[TypeId, Layout] = field(default_factory=dict)
    unknown: set[TypeId] = field(default_factory=set)  # encodings that were met and may still be asked for
    hopeless: set[TypeId] = field(default_factory=set)  # those the server was asked for in vain

    def fields_of(self, extension: Extension, plain: Plain) -> dict[str, Any]:
        """The fields of a structure, each made plain by ``plain(built-in type, raw)``.

        Raises Malformed for bytes that do not fit the layout, Undescribed where there is none.
        """
        encoding = (extension.encoding.namespace, extension.encoding.identifier)
        layout = self.by_encoding.get(encoding)
        if layout is None or extension.xml:
            if not extension.xml and encoding not in self.hopeless:
                self.unknown.add(encoding)
            raise Undescribed(UNKNOWN)
        return _Walk(self, plain, Reader(extension.body)).structure(layout)


class Undescribed(Exception):
    """No layout for this structure."""


Plain = Callable[[int, Any], Any]


def as_bytes(extension: Extension) -> dict[str, Any]:
    """A structure that nobody can read, kept as it came."""
    return {"encoding": _text(extension.encoding), "body": base64.b64encode(extension.body).decode()}


def _text(node: NodeIdValue) -> str:
    return node_text(node.namespace, node.identifier)


class _Walk:
    """One value's way through the layouts; bounded in depth and in fields."""

    def __init__(self, structures: Structures, plain: Plain, reader: Reader) -> None:
        self._structures = structures
        self._plain = plain
        self._reader = reader
        self._left = MAX_FIELDS

    def structure(self, layout: Layout, depth: int = 0) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise Malformed("structures nested too deep")
        members = layout.members
        if layout.form is Form.UNION:
            choice = self._reader.uint32()
            if choice > len(members):
                raise Malformed(f"a union's field {choice} of {len(members)}")
            members = members[choice - 1 : choice] if choice else ()
        elif layout.form is Form.OPTIONAL:
            mask = self._reader.uint32()
            bits = iter(range(32))
            members = tuple(each for each in members if not each.optional or mask >> next(bits, 32) & 1)
        return {member.name: self._member(member, depth) for member in members}

    def _member(self, member: Member, depth: int) -> Any:
        if not member.dimensions:
            return self._one(member, depth)
        if member.dimensions == 1:
            return self._many(member, self._reader.length(), depth)
        rank = max(self._reader.length(), 0)
        if rank > MAX_DIMENSIONS:
            raise Malformed(f"a matrix of {rank} dimensions")
        sizes = [self._reader.int32() for _ in range(rank)]
        count = 1
        for size in sizes:
            count *= max(size, 0)
        if count > MAX_FIELDS:
            raise Malformed(f"a matrix of {count}")
        flat = self._many(member, count if sizes else 0, depth) or []
        for size in reversed(sizes[1:]):
            flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size > 0 else []
        return flat

    def _many(self, member: Member, count: int, depth: int) -> list[Any] | None:
        return None if count < 0 else [self._one(member, depth) for _ in range(count)]

    def _one(self, member: Member, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"more than {MAX_FIELDS} fields")
        if member.layout is None:
            return self._plain(member.builtin, self._reader.scalar(member.builtin, depth))
        layout = self._structures.by_type.get(member.layout)
        if layout is None:
            raise Undescribed(UNKNOWN)
        return self.structure(layout, depth + 1)
