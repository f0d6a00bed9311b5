"""A server's address space as a tree of nodes with their values, for a technician to pick tags from.

Depth first, so that what is printed reads as a tree, with one Browse and few Reads for the children of a node. A node
that was met is not met again: address spaces have cycles, and show one variable at several places. The object
``Server`` and methods are entered only when they are asked for. Bounded in nodes, depth and text; a branch that the
server refuses is shown with its status, and its neighbours go on.

Values pass through the same hands as those of the running driver, by the type that is proposed for the tag: what is
shown here is what a sample will carry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from edge_agent.bench import Node
from edge_agent.errors import DeviceRefused
from edge_agent.model import Value
from edge_agent_drivers.opcua import binary
from edge_agent_drivers.opcua.binary import DataValue
from edge_agent_drivers.opcua.codes import is_bad, words
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.faults import Refused
from edge_agent_drivers.opcua.link import Link, node_id
from edge_agent_drivers.opcua.nodeid import node_text, parse_node
from edge_agent_drivers.opcua.typebook import TypeBook
from edge_agent_drivers.opcua.values import Taker

MAX_NODES = 20_000
MAX_DEPTH = 20
MAX_CHILDREN = 10_000  # of one node
MAX_ITEMS = 100  # of an array or a structure; more is for a program to read
MAX_TEXT = 2000
READ_AT_ONCE = 200  # values; of arrays and structures they may be long
REFERENCES_AT_ONCE = 1000  # in one answer; the rest comes by continuation points

_WRITABLE = 0x02
_KINDS = {ua.NodeClass.Object: "object", ua.NodeClass.Variable: "variable", ua.NodeClass.Method: "method"}
_MASK = ua.NodeClass.Object | ua.NodeClass.Variable | ua.NodeClass.Method | ua.NodeClass.View
_OBJECTS, _SERVER = node_id(0, ObjectIds.ObjectsFolder), node_id(0, ObjectIds.Server)
_FOLDER = node_id(0, ObjectIds.FolderType)
_TYPES = {
    binary.BOOLEAN: "bool", binary.SBYTE: "int8", binary.BYTE: "uint8", binary.INT16: "int16",
    binary.UINT16: "uint16", binary.INT32: "int32", binary.UINT32: "uint32", binary.INT64: "int64",
    binary.UINT64: "uint64", binary.FLOAT: "float32", binary.DOUBLE: "float64", binary.DATETIME: "datetime",
    binary.BYTESTRING: "bytes", binary.EXTENSION_OBJECT: "object",
    **dict.fromkeys((binary.STRING, binary.GUID, *range(binary.XML, binary.EXTENSION_OBJECT)), "string"),
}  # fmt: skip
_MIXED = (binary.VARIANT, binary.DATAVALUE)  # on the wire only as elements of an array


async def browse(settings: OpcuaSettings, start: str, depth: int) -> AsyncIterator[Node]:
    """The nodes below ``start`` down to ``depth``, itself first. "" is the Objects folder, which is not shown."""
    link = Link(settings.connection, settings)
    await link.open()
    try:
        walk = _Walk(link)
        async for node in walk.from_node(_start(link, start), min(depth, MAX_DEPTH), shown=bool(start)):
            yield node
    except Refused as error:
        raise DeviceRefused(settings.connection, str(error), hint=_HINT) from error
    finally:
        await link.close()


_HINT = "`edge-agent browse opcua` without a node shows what is there from the top"


def _start(link: Link, text: str) -> ua.NodeId:
    """Raises DeviceRefused for what is no node id, or is of a namespace that the server does not have."""
    if not text:
        return _OBJECTS
    try:
        name = parse_node(text)
    except ValueError as error:
        raise DeviceRefused(link.device, str(error)) from error
    found = link.node(name)
    if found is None:
        hint = f"it has {', '.join(link.namespaces[1:]) or 'none but that of OPC UA itself'}"
        raise DeviceRefused(link.device, f"the server has no namespace {name.namespace}", hint=hint)
    return found


@dataclass(frozen=True, slots=True)
class _Met:
    """A node that a reference led to."""

    id: ua.NodeId
    path: tuple[str, ...]
    node_class: ua.NodeClass
    is_folder: bool = False


class _Walk:
    """One way through one server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._met: set[ua.NodeId] = set()
        self._book = TypeBook(link)

    async def from_node(self, start: ua.NodeId, depth: int, *, shown: bool) -> AsyncIterator[Node]:
        """``start`` (if it is ``shown``) and what is below it."""
        self._met |= {start, _SERVER}
        first = _Met(start, (), ua.NodeClass.Object)
        if shown:
            first = await self._named(start)
            yield (await self._described([first]))[0]
        async for node in self._below(first, depth):
            yield node

    async def _below(self, here: _Met, depth: int) -> AsyncIterator[Node]:
        if depth <= 0:
            return
        children, status = await self._children(here)
        for child, node in zip(children, await self._described(children), strict=True):
            yield node
            if child.id != _SERVER and child.node_class != ua.NodeClass.Method:
                async for inner in self._below(child, depth - 1):
                    yield inner
        if status:
            yield Node(self._text(here.id), (*here.path, "…"), "folder", status=status)

    async def _named(self, start: ua.NodeId) -> _Met:
        (node_class,) = await self._link.read([start], AttributeIds.NodeClass)
        if is_bad(node_class.code) or not isinstance(node_class.raw, int):
            raise DeviceRefused(self._link.device, f"{self._text(start)}: {words(node_class.code)}", hint=_HINT)
        (name,) = await self._link.read([start], AttributeIds.BrowseName)
        text = name.raw.name if isinstance(name.raw, binary.QualifiedName) else None
        return _Met(start, (text or str(start.Identifier),), ua.NodeClass(node_class.raw))

    # --- references ---------------------------------------------------------------------------------------

    async def _children(self, here: _Met) -> tuple[list[_Met], str]:
        """The nodes below, those met already left out; and why there may be more."""
        found: list[_Met] = []
        try:
            result = await self._browse(here.id)
            while not is_bad(result.StatusCode.value):
                for reference in result.References or ():
                    met = self._reached(here, reference)
                    found += [met] if met is not None else []
                    if len(found) >= MAX_CHILDREN or len(self._met) >= MAX_NODES:
                        return found, "there are more: name a node further down"
                if not result.ContinuationPoint:
                    return found, ""
                request = ua.BrowseNextRequest()
                request.Parameters.ContinuationPoints = [result.ContinuationPoint]
                answer: Any = await self._link.request(ua.BrowseNextResponse, request)
                (result,) = answer.Parameters.Results
            return found, words(result.StatusCode.value)
        except Refused as error:
            return found, str(error)

    async def _browse(self, node: ua.NodeId) -> ua.BrowseResult:
        one = ua.BrowseDescription()
        one.NodeId = node
        one.BrowseDirection = ua.BrowseDirection.Forward
        one.ReferenceTypeId = node_id(0, ObjectIds.HierarchicalReferences)
        one.IncludeSubtypes = True
        one.NodeClassMask = ua.UInt32(_MASK)
        one.ResultMask = ua.UInt32(ua.BrowseResultMask.All)
        request = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = ua.UInt32(REFERENCES_AT_ONCE)
        request.Parameters.NodesToBrowse = [one]
        answer: Any = await self._link.request(ua.BrowseResponse, request)
        result: ua.BrowseResult = answer.Results[0]
        return result

    def _reached(self, here: _Met, reference: ua.ReferenceDescription) -> _Met | None:
        """None for a node met before, or one of another server."""
        target = reference.NodeId
        if getattr(target, "ServerIndex", 0):
            return None
        node = node_id(target.NamespaceIndex, target.Identifier)
        if node in self._met and not (node == _SERVER and here.id == _OBJECTS):
            return None
        self._met.add(node)
        name = reference.BrowseName.Name if reference.BrowseName else None
        kind = reference.TypeDefinition
        is_folder = kind is not None and (kind.NamespaceIndex, kind.Identifier) == (0, _FOLDER.Identifier)
        return _Met(node, (*here.path, name or str(node.Identifier)), reference.NodeClass, is_folder)

    # --- what the nodes are ---------------------------------------------------------------------------------

    async def _described(self, met: Sequence[_Met]) -> list[Node]:
        """With values, types and rights of the variables, read together."""
        variables = [one.id for one in met if one.node_class == ua.NodeClass.Variable]
        values: list[DataValue] = []
        for begin in range(0, len(variables), READ_AT_ONCE):
            values += await self._read(variables[begin : begin + READ_AT_ONCE], AttributeIds.Value)
        types = await self._read(variables, AttributeIds.DataType)
        ranks = await self._read(variables, AttributeIds.ValueRank)
        rights = await self._read(variables, AttributeIds.UserAccessLevel)
        read = dict(zip(variables, zip(values, types, ranks, rights, strict=True), strict=True))
        return [await self._variable(one, *read[one.id]) if one.id in read else self._other(one) for one in met]

    async def _read(self, nodes: Sequence[ua.NodeId], attribute: AttributeIds) -> list[DataValue]:
        """One node that the server fails over must not take its neighbours along."""
        if not nodes:
            return []
        try:
            return await self._link.read(nodes, attribute)
        except Refused as error:
            if len(nodes) == 1:
                return [DataValue(binary.NULL, False, None, error.code)]
        half = len(nodes) // 2
        return [*await self._read(nodes[:half], attribute), *await self._read(nodes[half:], attribute)]

    def _other(self, met: _Met) -> Node:
        kind = "folder" if met.is_folder else _KINDS.get(met.node_class, "folder")
        return Node(self._text(met.id), met.path, kind)

    async def _variable(
        self, met: _Met, said: DataValue, data_type: DataValue, rank: DataValue, rights: DataValue
    ) -> Node:
        name = "object" if said.type in _MIXED else _TYPES.get(said.type, "") or await self._type(data_type.raw)
        no_value = said.type == binary.NULL
        is_array = isinstance(rank.raw, int) and rank.raw >= 0 if no_value else said.is_array
        type_name = name + ("[]" if name and is_array else "")
        taker = Taker(type_name, self._book.structures)
        value, status = taker.take(said)
        if self._book.structures.unknown:
            await self._book.learn_unknown()
            value, status = taker.take(said)
        writable = isinstance(rights.raw, int) and rights.raw & _WRITABLE != 0
        tag = {"node": self._lasting(met.id), "type": type_name} if type_name else {}
        return Node(self._text(met.id), met.path, "variable", type_name, _cut(value), status, writable, tag)

    async def _type(self, data_type: object) -> str:
        """Of a variable that has no value now: the built-in type that its data type is made of; "" for any."""
        if not isinstance(data_type, binary.NodeIdValue):
            return ""
        return _TYPES.get(await self._book.base_of((data_type.namespace, data_type.identifier)), "")

    def _text(self, node: ua.NodeId) -> str:
        return node_text(node.NamespaceIndex, node.Identifier)

    def _lasting(self, node: ua.NodeId) -> str:
        """With the namespace's URI, which stays when the server numbers its namespaces anew."""
        index = node.NamespaceIndex
        if not 0 < index < len(self._link.namespaces) or not self._link.namespaces[index]:
            return self._text(node)
        uri = self._link.namespaces[index].replace("%", "%25").replace(";", "%3B")
        return f"nsu={uri};{node_text(0, node.Identifier)}"


def _cut(value: Value) -> Value:
    """What is very long is cut, and says so."""
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return value[:MAX_TEXT] + "…"
    if isinstance(value, list):
        more = [f"… {len(value) - MAX_ITEMS} more"] if len(value) > MAX_ITEMS else []
        return [*map(_cut, value[:MAX_ITEMS]), *more]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in list(value.items())[:MAX_ITEMS]}
    return value
