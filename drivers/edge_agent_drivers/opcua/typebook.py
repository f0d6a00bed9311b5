"""What one server's own types are, asked of that server: the layouts of its structures, the names of its enumerations.

Asked for when the connection opens, for the tags that need it, and when a structure is met that nobody knows yet (a
node of an abstract type). A server of before OPC UA 1.04 does not describe its structures so; their values then are
kept as bytes with a status. Each question is put once a connection, and each way up or down the types is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from edge_agent_drivers.opcua import binary as b
from edge_agent_drivers.opcua.config import OpcuaTag
from edge_agent_drivers.opcua.faults import Refused
from edge_agent_drivers.opcua.link import Link, node_id
from edge_agent_drivers.opcua.standard import learn_standard
from edge_agent_drivers.opcua.structures import Form, Layout, Member, Structures, TypeId

_STRUCTURE, _ENUMERATION = 122, 123  # encodings of StructureDefinition and EnumDefinition
_HAS_ENCODING, _HAS_SUBTYPE, _HAS_PROPERTY = 38, 45, 46
_BASES = {**{code: code for code in range(1, 26)}, 22: b.EXTENSION_OBJECT, 24: b.VARIANT, 26: b.VARIANT} | {
    27: b.VARIANT, 28: b.VARIANT, 29: b.INT32
}  # fmt: skip
"""Namespace 0's data types that say how a value is encoded: the built-in ones, and the abstract ones above them."""
_FORMS = {0: Form.PLAIN, 1: Form.OPTIONAL, 2: Form.UNION, 3: Form.PLAIN, 4: Form.UNION}
_WITH_SUBTYPES = (3, 4)  # there "optional" means: may be of a subtype, and so stands with its own encoding
MOST_STEPS = 32  # up the types, or of structures within structures
MOST_TYPES = 1000


class TypeBook:
    """See the module docstring. One a connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.structures = Structures()
        self._bases: dict[TypeId, int] = {}
        self._names: dict[TypeId, Mapping[int, str] | None] = {}

    async def names_of(self, nodes: Sequence[tuple[ua.NodeId, OpcuaTag]]) -> list[Mapping[int, str] | None]:
        """Learn what these nodes need; for each that is read as text, the names of its enumeration, if it has one."""
        wanted = [place for place, (_, tag) in enumerate(nodes) if tag.type.startswith(("object", "string"))]
        types = await self._link.read([nodes[place][0] for place in wanted], AttributeIds.DataType) if wanted else []
        found: list[Mapping[int, str] | None] = [None] * len(nodes)
        for place, said in zip(wanted, types, strict=True):
            if not isinstance(said.raw, b.NodeIdValue):
                continue  # the node's own status will say why
            data_type = (said.raw.namespace, said.raw.identifier)
            if nodes[place][1].type.startswith("object"):
                await self._learn(data_type)
            elif await self.base_of(data_type) == b.INT32:
                found[place] = await self._enumeration(nodes[place][0], data_type)
        return found

    async def learn_unknown(self) -> None:
        """Ask for the structures that were met in values and are not known yet."""
        structures = self.structures
        while structures.unknown and len(structures.by_encoding) < MOST_TYPES:
            encoding = structures.unknown.pop()
            for data_type in await self._related(encoding, _HAS_ENCODING, forward=False):
                await self._learn(data_type, encoding)
            if encoding not in structures.by_encoding and not learn_standard(structures, encoding):
                structures.hopeless.add(encoding)
        structures.unknown.clear()

    async def base_of(self, data_type: TypeId) -> int:
        """The built-in type that values of this data type are encoded as; NULL when the server does not say."""
        way: list[TypeId] = []
        found = b.NULL
        step: TypeId | None = data_type
        while step is not None and len(way) < MOST_STEPS:
            if step[0] == 0 and step[1] in _BASES:
                found = _BASES[step[1]]
                break
            if step in self._bases:
                found = self._bases[step]
                break
            way.append(step)
            step = next(iter(await self._related(step, _HAS_SUBTYPE, forward=False)), None)
        self._bases.update(dict.fromkeys(way, found))
        return found

    # --- structures ------------------------------------------------------------------------------------------

    async def _learn(self, data_type: TypeId, encoding: TypeId | None = None, depth: int = 0) -> None:
        structures = self.structures
        if depth > MOST_STEPS or len(structures.by_type) > MOST_TYPES:
            return
        if data_type not in structures.by_type:
            definition = await self._definition(data_type, _STRUCTURE)
            if definition is None:
                return
            try:
                default, kind, fields = _structure(b.Reader(definition))
            except b.Malformed:
                return
            structures.by_type[data_type] = Layout(_FORMS[kind], ())  # known to those that hold their own kind
            members = [await self._member(*field, kind, depth) for field in fields]
            structures.by_type[data_type] = Layout(_FORMS[kind], tuple(members))
            structures.by_encoding[default] = structures.by_type[data_type]
        if encoding is not None:
            structures.by_encoding[encoding] = structures.by_type[data_type]

    async def _member(self, name: str, data_type: TypeId, rank: int, optional: bool, kind: int, depth: int) -> Member:
        dimensions = max(rank, 0) if rank != 0 else 1  # 0: one or more dimensions, encoded as an array
        own_encoding = optional and kind in _WITH_SUBTYPES
        optional = optional and kind not in _WITH_SUBTYPES
        builtin = await self.base_of(data_type)
        if builtin != b.EXTENSION_OBJECT or data_type == (0, 22) or own_encoding:
            return Member(name, builtin, None, dimensions, optional)
        await self._learn(data_type, depth=depth + 1)
        return Member(name, builtin, data_type, dimensions, optional)

    # --- enumerations ----------------------------------------------------------------------------------------

    async def _enumeration(self, node: ua.NodeId, data_type: TypeId) -> Mapping[int, str] | None:
        if data_type == (0, b.INT32):  # a plain integer; the names may stand at the variable itself
            return await self._strings(_type_id(node))
        if data_type not in self._names:
            definition = await self._definition(data_type, _ENUMERATION)
            self._names[data_type] = _enumeration(definition) if definition else await self._strings(data_type)
        return self._names[data_type]

    async def _strings(self, owner: TypeId) -> Mapping[int, str] | None:
        """The names in the owner's property EnumStrings or EnumValues."""
        properties = await self._related(owner, _HAS_PROPERTY, forward=True, names=("EnumStrings", "EnumValues"))
        if not properties:
            return None
        (said,) = await self._link.read([node_id(*properties[0])])
        names: dict[int, str] = {}
        for number, each in enumerate(said.raw if isinstance(said.raw, list) else []):
            if isinstance(each, b.LocalizedText):
                names[number] = each.text or ""
            elif isinstance(each, b.Extension):
                names |= _value_type(each.body)
        return names or None

    # --- questions -------------------------------------------------------------------------------------------

    async def _definition(self, data_type: TypeId, encoding: int) -> bytes | None:
        (said,) = await self._link.read([node_id(*data_type)], AttributeIds.DataTypeDefinition)
        raw = said.raw
        if isinstance(raw, b.Extension) and (raw.encoding.namespace, raw.encoding.identifier) == (0, encoding):
            return raw.body
        return None

    async def _related(self, node: TypeId, reference: int, *, forward: bool, names: Sequence[str] = ()) -> list[TypeId]:
        """The nodes that this one refers to, or is referred to by; none when the server does not let us look."""
        wanted = ua.BrowseDescription()
        wanted.NodeId = node_id(*node)
        wanted.BrowseDirection = ua.BrowseDirection.Forward if forward else ua.BrowseDirection.Inverse
        wanted.ReferenceTypeId = node_id(0, reference)
        wanted.IncludeSubtypes = True
        wanted.ResultMask = ua.BrowseResultMask.All
        request = ua.BrowseRequest()
        request.Parameters.NodesToBrowse = [wanted]
        request.Parameters.RequestedMaxReferencesPerNode = 0
        try:
            answer = await self._link.request(ua.BrowseResponse, request)
        except Refused:
            return []
        found = [each for result in answer.Results or [] for each in result.References or []]
        return [_type_id(each.NodeId) for each in found if not names or each.BrowseName.Name in names]


def _type_id(node: ua.NodeId) -> TypeId:
    return int(node.NamespaceIndex), node.Identifier


def _structure(reader: b.Reader) -> tuple[TypeId, int, list[tuple[str, TypeId, int, bool]]]:
    """A StructureDefinition: its encoding's id, its kind, and (name, data type, value rank, optional) of its fields."""
    encoding = reader.nodeid()
    reader.nodeid()
    kind = reader.int32()
    if kind not in _FORMS:
        raise b.Malformed(f"a structure of kind {kind}")
    fields = []
    for _ in range(reader.length()):
        name = reader.text() or ""
        reader.localized_text()
        data_type = reader.nodeid()
        rank = reader.int32()
        reader.array(b.UINT32)
        reader.uint32()
        optional = reader.byte() != 0
        fields.append((name, (data_type.namespace, data_type.identifier), rank, optional))
    return (encoding.namespace, encoding.identifier), kind, fields


def _value_type(body: bytes) -> dict[int, str]:
    """An EnumValueType: number → name."""
    reader = b.Reader(body)
    try:
        return {reader.scalar(b.INT64): reader.localized_text().text or ""}
    except b.Malformed:
        return {}


def _enumeration(definition: bytes) -> dict[int, str]:
    """An EnumDefinition: number → name."""
    reader, names = b.Reader(definition), {}
    try:
        for _ in range(reader.length()):
            number = reader.scalar(b.INT64)
            shown = reader.localized_text()
            reader.localized_text()
            names[number] = reader.text() or shown.text or ""
    except b.Malformed:
        return {}
    return names
