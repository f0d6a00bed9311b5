"""The answers that carry values, decoded from their bytes (OPC UA Binary, OPC 10000-6 part 5). Pure.

asyncua makes a tree of objects of every answer: 20 µs and more a notification, times cut to microseconds, one odd
structure spoils the whole answer, and a structure's layout is looked up in a table that all connections share. Here
the few answers that carry readings are decoded directly into tuples: a scalar with its times is one ``struct`` call,
what is in an ExtensionObject stays as bytes until the tag's own server has said what it means.

A *raw value* is what a Variant holds: bool, int, float, ``str``, ``bytes``, DateTime as its ticks, and for the rest the
small tuples below; a list for an array (nested for more dimensions). Bytes that are not what they should be raise
``Malformed``, never anything else.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from edge_agent_drivers.opcua.nodeid import Identifier

NULL, BOOLEAN, SBYTE, BYTE, INT16, UINT16, INT32, UINT32, INT64, UINT64, FLOAT, DOUBLE, STRING = range(13)
DATETIME, GUID, BYTESTRING, XML, NODEID, EXPANDED_NODEID, STATUSCODE, QUALIFIED_NAME, LOCALIZED_TEXT = range(13, 22)
EXTENSION_OBJECT, DATAVALUE, VARIANT, DIAGNOSTIC_INFO = range(22, 26)

BUILTIN_NAMES = (
    "Null", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    "String", "DateTime", "Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode",
    "QualifiedName", "LocalizedText", "ExtensionObject", "DataValue", "Variant", "DiagnosticInfo",
)  # fmt: skip

UNIX_EPOCH_TICKS = 116_444_736_000_000_000  # 1970 in the 100 ns since 1601 that OPC UA counts
MAX_DEPTH = 32  # of Variants in Variants: deeper ones are an attack, or a mistake
MAX_ELEMENTS = 1_000_000  # of one matrix
MAX_OBJECTS = (
    300_000  # of one answer, numbers in arrays not counted: a byte may announce an object a hundred times its size
)
MAX_DIMENSIONS = 16
FIRST_TICKS = UNIX_EPOCH_TICKS - 2**63 // 100  # 1677: what is before, or after 2262, is no time that anything
LAST_TICKS = UNIX_EPOCH_TICKS + (2**63 - 1) // 100  # happened at, but how a server says that it does not know


class Malformed(ValueError):
    """Bytes that are not what OPC UA says they should be."""


class NodeIdValue(NamedTuple):
    """A node id on the wire."""

    namespace: int
    identifier: Identifier
    uri: str | None = None
    server: int = 0


class QualifiedName(NamedTuple):
    """A name and the index of its namespace."""

    namespace: int
    name: str | None


class LocalizedText(NamedTuple):
    """Text in a language."""

    locale: str | None
    text: str | None


class Extension(NamedTuple):
    """A structure, not yet decoded: the id of its encoding says which."""

    encoding: NodeIdValue
    body: bytes
    xml: bool = False


class VariantValue(NamedTuple):
    """A value with its built-in type; an element of an array of Variants."""

    type: int
    is_array: bool
    raw: Any


class DataValue(NamedTuple):
    """What a server says of one node at one time. Times are UTC ns, None where it said none."""

    type: int
    is_array: bool
    raw: Any
    code: int = 0
    source_ns: int | None = None
    server_ns: int | None = None


_BYTE = struct.Struct("<B")
_UINT16 = struct.Struct("<H")
_INT32 = struct.Struct("<i")
_UINT32 = struct.Struct("<I")
_INT64 = struct.Struct("<q")
FORMATS = {BOOLEAN: "?", SBYTE: "b", BYTE: "B", INT16: "h", UINT16: "H", INT32: "i", UINT32: "I"} | {
    INT64: "q", UINT64: "Q", FLOAT: "f", DOUBLE: "d", DATETIME: "q", STATUSCODE: "I"
}  # fmt: skip
_SCALARS = {code: struct.Struct(f"<{letter}") for code, letter in FORMATS.items()}

_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 1, 2, 4, 8, 16, 32
_ARRAY, _DIMENSIONS, _TYPE = 0x80, 0x40, 0x3F


def ticks_to_ns(ticks: int) -> int | None:
    """UTC ns of a DateTime, which fit in 64 bits; None for one that means "no time"."""
    return (ticks - UNIX_EPOCH_TICKS) * 100 if FIRST_TICKS <= ticks <= LAST_TICKS else None


class Reader:
    """A place in the bytes of one answer."""

    __slots__ = ("at", "data", "objects")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.objects = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise Malformed(f"{size} bytes are missing at {self.at}")
        found = self.data[self.at : end]
        self.at = end
        return found

    def one(self, shape: struct.Struct) -> Any:
        """The one value of a struct."""
        try:
            (value,) = shape.unpack_from(self.data, self.at)
        except struct.error as error:
            raise Malformed(f"the answer ends at {len(self.data)}") from error
        self.at += shape.size
        return value

    def byte(self) -> int:
        """A Byte."""
        return int(self.one(_BYTE))

    def uint16(self) -> int:
        """A UInt16."""
        return int(self.one(_UINT16))

    def int32(self) -> int:
        """An Int32."""
        return int(self.one(_INT32))

    def uint32(self) -> int:
        """A UInt32."""
        return int(self.one(_UINT32))

    def length(self) -> int:
        """The length of an array, -1 for a null one. Never more than there are bytes left: each element has one."""
        count = self.int32()
        if count > len(self.data) - self.at:
            raise Malformed(f"an array of {count} where {len(self.data) - self.at} bytes are left")
        return max(count, -1)

    def count(self) -> int:
        """The length of an array of which each element becomes an object. Raises Malformed for more than are sane."""
        count = self.length()
        self.objects += max(count, 0)
        if self.objects > MAX_OBJECTS:
            raise Malformed(f"more than {MAX_OBJECTS} values in one answer")
        return count

    def bytestring(self) -> bytes | None:
        """A ByteString; None is null."""
        size = self.int32()
        return None if size < 0 else self.take(size)

    def string(self) -> str | bytes | None:
        """A String; its bytes where they are not UTF-8."""
        raw = self.bytestring()
        if raw is None:
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw

    def text(self) -> str | None:
        """A String of which only something legible is wanted."""
        raw = self.bytestring()
        return None if raw is None else raw.decode(errors="replace")

    def guid(self) -> uuid.UUID:
        """A Guid."""
        return uuid.UUID(bytes_le=self.take(16))

    def nodeid(self) -> NodeIdValue:
        """A NodeId or ExpandedNodeId."""
        encoding = self.byte()
        namespace: int = 0
        identifier: Identifier
        match encoding & _TYPE:
            case 0:
                identifier = self.byte()
            case 1:
                namespace, identifier = self.byte(), self.uint16()
            case 2:
                namespace, identifier = self.uint16(), self.uint32()
            case 3:
                namespace, identifier = self.uint16(), self.text() or ""
            case 4:
                namespace, identifier = self.uint16(), self.guid()
            case 5:
                namespace, identifier = self.uint16(), self.bytestring() or b""
            case other:
                raise Malformed(f"a node id of kind {other}")
        uri = self.text() if encoding & 0x80 else None
        return NodeIdValue(namespace, identifier, uri, self.uint32() if encoding & 0x40 else 0)

    def qualified_name(self) -> QualifiedName:
        """A QualifiedName."""
        return QualifiedName(self.uint16(), self.text())

    def localized_text(self) -> LocalizedText:
        """A LocalizedText."""
        mask = self.byte()
        locale = self.text() if mask & 1 else None
        return LocalizedText(locale, self.text() if mask & 2 else None)

    def extension(self) -> Extension | None:
        """An ExtensionObject, its body untouched; None for one that holds nothing."""
        encoding, form = self.nodeid(), self.byte()
        if form == 0:
            return None if encoding.identifier == 0 else Extension(encoding, b"")
        if form > 2:
            raise Malformed(f"an ExtensionObject of form {form}")
        return Extension(encoding, self.bytestring() or b"", form == 2)

    def diagnostic_info(self, depth: int = 0) -> None:
        """A DiagnosticInfo, passed over."""
        if depth > MAX_DEPTH:
            raise Malformed("diagnostics nested too deep")
        mask = self.byte()
        for bit in (1, 2, 4, 8):
            if mask & bit:
                self.int32()
        if mask & 16:
            self.bytestring()
        if mask & 32:
            self.uint32()
        if mask & 64:
            self.diagnostic_info(depth + 1)

    def scalar(self, code: int, depth: int = 0) -> Any:
        """One raw value of a built-in type."""
        shape = _SCALARS.get(code)
        if shape is not None:
            return self.one(shape)
        if code == VARIANT:
            return self.variant(depth + 1)
        if code == DATAVALUE:
            return self.datavalue(depth + 1)
        take = _COMPOSITE.get(code)
        if take is None:
            raise Malformed(f"built-in type {code}")
        return take(self)

    def array(self, code: int, depth: int = 0) -> list[Any] | None:
        """The raw values of an array; None for a null one."""
        letter = FORMATS.get(code)
        count = self.count() if letter is None else self.length()
        if count < 0:
            return None
        if letter is None:
            return [self.scalar(code, depth) for _ in range(count)]
        shape = struct.Struct(f"<{count}{letter}")
        try:
            values = shape.unpack_from(self.data, self.at)
        except struct.error as error:
            raise Malformed(f"an array of {count} is cut short") from error
        self.at += shape.size
        return list(values)

    def variant(self, depth: int = 0) -> VariantValue:
        """A Variant."""
        if depth > MAX_DEPTH:
            raise Malformed("Variants nested too deep")
        encoding = self.byte()
        code = encoding & _TYPE
        if not encoding & _ARRAY:
            if code == NULL:
                return VariantValue(NULL, False, None)
            return VariantValue(code, False, self.scalar(code, depth))
        raw = self.array(code, depth)
        if encoding & _DIMENSIONS:
            dimensions = self.array(INT32) or []
            raw = _shaped(raw, dimensions) if raw is not None and len(dimensions) > 1 else raw
        return VariantValue(code, True, raw)

    def datavalue(self, depth: int = 0) -> DataValue:
        """A DataValue."""
        mask = self.byte()
        code, is_array, raw = self.variant(depth) if mask & _VALUE else VariantValue(NULL, False, None)
        status = self.uint32() if mask & _STATUS else 0
        source, server = None, None
        if mask & _SOURCE:
            source = ticks_to_ns(self.one(_INT64))
        if mask & _SOURCE_PICO:
            source = _finer(source, self.uint16())
        if mask & _SERVER:
            server = ticks_to_ns(self.one(_INT64))
        if mask & _SERVER_PICO:
            server = _finer(server, self.uint16())
        return DataValue(code, is_array, raw, status, source, server)


_COMPOSITE: dict[int, Callable[[Reader], Any]] = {
    STRING: Reader.string,
    GUID: Reader.guid,
    BYTESTRING: Reader.bytestring,
    XML: Reader.string,
    NODEID: Reader.nodeid,
    EXPANDED_NODEID: Reader.nodeid,
    QUALIFIED_NAME: Reader.qualified_name,
    LOCALIZED_TEXT: Reader.localized_text,
    EXTENSION_OBJECT: Reader.extension,
    DIAGNOSTIC_INFO: Reader.diagnostic_info,
    **dict.fromkeys(range(26, 32), Reader.bytestring),  # reserved: decoded as ByteString (OPC 10000-6, 5.1.6)
}


def _finer(ns: int | None, tens_of_picoseconds: int) -> int | None:
    return None if ns is None else ns + tens_of_picoseconds // 100


def _shaped(flat: list[Any], dimensions: list[int]) -> list[Any]:
    """The flat values of a matrix, as lists of lists. Raises Malformed where they do not fill it."""
    total = 1
    if len(dimensions) > MAX_DIMENSIONS:
        raise Malformed(f"an array of {len(dimensions)} dimensions")
    for size in dimensions:
        if size < 0 or (total := total * size) > MAX_ELEMENTS:
            raise Malformed(f"an array of dimensions {dimensions[:8]}")
    if total != len(flat):
        raise Malformed(f"{len(flat)} values for the dimensions {dimensions[:8]}")
    for size in reversed(dimensions[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat
