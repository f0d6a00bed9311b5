"""Writing one tag: with the type that the node has, then read back and compared.

The type is asked of the server, not of the config: asyncua encodes what it is told, and a server refuses a Double where
it has a Float. Only the value goes out: with a status or a time beside it, many servers answer Bad_WriteNotSupported.
A server that only promises (*Good_CompletesAsynchronously*) is read back until its time-out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import struct
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from edge_agent.errors import DeviceRefused, ReadingRejected, ValueNotKept
from edge_agent.model import Value
from edge_agent_drivers.opcua import binary as b
from edge_agent_drivers.opcua.codes import is_bad, words
from edge_agent_drivers.opcua.config import OpcuaTag
from edge_agent_drivers.opcua.faults import Refused
from edge_agent_drivers.opcua.link import Link
from edge_agent_drivers.opcua.typebook import TypeBook
from edge_agent_drivers.opcua.values import Taker

LATER_S = 0.1  # between two looks at a value that the server only promised to write

_HINTS = {
    StatusCodes.BadNodeIdUnknown: "look at the node id; the nodes of the server: edge-agent browse opcua",
    StatusCodes.BadNotWritable: "make the node writable on the server",
    StatusCodes.BadUserAccessDenied: "give the user of this session the right to write it, on the server",
    StatusCodes.BadTypeMismatch: "the server says one type and wants another; look at the node's data type there",
    StatusCodes.BadOutOfRange: "the server has a smaller range for it",
    StatusCodes.BadWriteNotSupported: "the server takes no value alone for this node",
}
_RANGES = {b.SBYTE: (8, True), b.BYTE: (8, False), b.INT16: (16, True), b.UINT16: (16, False)} | {
    b.INT32: (32, True), b.UINT32: (32, False), b.INT64: (64, True), b.UINT64: (64, False)
}  # fmt: skip


Names = Mapping[int, str] | None
"""What an enumeration calls its values."""


class Writer:
    """Writes the tags of one connection."""

    def __init__(self, link: Link, types: TypeBook) -> None:
        self._link = link
        self._types = types
        self._kinds: dict[ua.NodeId, tuple[int, Names]] = {}  # of each node that was written, and its values' names

    async def write(self, name: str, tag: OpcuaTag, value: Value) -> None:
        """Raises DeviceLost, DeviceRefused, ValueNotKept."""
        node = self._link.node(tag.name)
        if node is None:
            what = f"{name}: the server has no namespace {tag.name.namespace}"
            raise self._refusal(what, f"its namespaces are {', '.join(self._link.namespaces[1:6])}")
        try:
            kind, names = self._kinds.get(node) or await self._kind(name, node, tag)
            raw = encodable(kind, tag.type, numbered(names, value) if names else value)
            if kind == b.LOCALIZED_TEXT:
                raw = in_locale_of((await self._link.read([node]))[0], raw)
            taker = Taker(tag.type, self._types.structures, names)
            wanted = plain_of(raw, taker)
            later = await self._write(name, node, kind, raw)
            await self._read_back(name, node, taker, wanted, later)
        except ValueError as error:
            raise self._refusal(f"{name}: {error}", "look at the tag's type, and at the node's") from error
        except Refused as error:
            raise self._refusal(f"{name}: the server answers {error}", "look at the server's own log") from error
        except ReadingRejected as error:
            raise self._refusal(f"{name}: {error.args[0]}", error.hint) from error

    async def _kind(self, name: str, node: ua.NodeId, tag: OpcuaTag) -> tuple[int, Names]:
        (said,) = await self._link.read([node])
        kind = said.type
        if kind == b.NULL:  # no value yet, or none to be read
            (data_type,) = await self._link.read([node], AttributeIds.DataType)
            if not isinstance(data_type.raw, b.NodeIdValue):
                why = words(data_type.code)
                hint = _HINTS.get(data_type.code, "look at the node on the server")
                raise self._refusal(f"{name}: its type cannot be read: {why}", hint)
            kind = await self._types.base_of((data_type.raw.namespace, data_type.raw.identifier))
        is_named = kind == b.INT32 and tag.type.startswith("string")
        (names,) = await self._types.names_of([(node, tag)]) if is_named else [None]
        self._kinds[node] = kind, names
        return kind, names

    async def _write(self, name: str, node: ua.NodeId, kind: int, raw: b.VariantValue) -> bool:
        """True when the server will do it later."""
        wanted = ua.WriteValue()
        wanted.NodeId = node
        wanted.AttributeId = AttributeIds.Value
        variant: Any = ua.Variant
        made = variant(_for_asyncua(kind, raw.raw), ua.VariantType(kind), is_array=raw.is_array)
        wanted.Value = ua.DataValue(made, None)  # neither status nor time
        request = ua.WriteRequest()
        request.Parameters.NodesToWrite = [wanted]
        answer = await self._link.request(ua.WriteResponse, request)
        code = answer.Results[0].value if answer.Results else StatusCodes.BadUnexpectedError
        if is_bad(code):
            self._kinds.pop(node, None)  # it may have another type by now
            what = f"{name}: writing answered with {words(code)}"
            raise self._refusal(what, _HINTS.get(code, "look at the server's own log"))
        return bool(code == StatusCodes.GoodCompletesAsynchronously)

    async def _read_back(self, name: str, node: ua.NodeId, taker: Taker, wanted: Value, later: bool) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + (self._link.settings.timeout if later else 0.0)
        while True:
            (said,) = await self._link.read([node])
            if is_bad(said.code):
                what = f"{name}: reading it back answered with {words(said.code)}"
                raise self._refusal(what, "the tag must be readable where it is written")
            shown, why = taker.take(said)
            if shown == wanted:
                return
            if loop.time() >= until:
                break
            await asyncio.sleep(LATER_S)
        hint = "the PLC's program writes there too, or corrects the value; look at its limits"
        raise ValueNotKept(
            self._link.device, f"{name}: {wanted!r} was written, and it shows {shown!r} {why}".rstrip(), hint=hint
        )

    def _refusal(self, what: str, hint: str) -> DeviceRefused:
        return DeviceRefused(self._link.device, what, hint=hint)


def plain_of(raw: b.VariantValue, taker: Taker) -> Value:
    """What the server must show then: the value as it went out, in the tag's own form."""
    shown, why = taker.take(b.DataValue(*raw))
    if shown is None and why:
        raise ValueError(why)
    return shown


# --- values to raw values ------------------------------------------------------------------------------------


def encodable(kind: int, type_name: str, value: Value) -> b.VariantValue:
    """The raw value of a built-in type that this value is. Raises ValueError for one that does not fit."""
    if kind not in _ENCODE and kind not in _RANGES:
        name = b.BUILTIN_NAMES[kind] if kind else "no known type"
        raise ValueError(f"the node has {name}, which cannot be written")
    if type_name.endswith("[]"):
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is no array")
        return b.VariantValue(kind, True, [_raw(kind, each) for each in value])
    return b.VariantValue(kind, False, _raw(kind, value))


def numbered(names: Mapping[int, str], value: Value) -> Value:
    """The number of an enumeration's name; a number stays what it is. Raises ValueError for a name that it lacks."""
    if isinstance(value, list):
        return [numbered(names, each) for each in value]
    if not isinstance(value, str):
        return value
    found = [number for number, name in names.items() if name == value]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"the enumeration says {value!r} to several numbers: write one of {found[:5]}")
    if value.removeprefix("-").isdecimal():
        return value
    raise ValueError(f"{value!r} is none of the enumeration's names: {', '.join(list(names.values())[:20])}")


def in_locale_of(shown: b.DataValue, raw: b.VariantValue) -> b.VariantValue:
    """The texts to write, in the locale of those that stand there."""

    def kept(text: Any, before: Any) -> Any:
        both = isinstance(text, b.LocalizedText) and isinstance(before, b.LocalizedText)
        return b.LocalizedText(before.locale, text.text) if both else text

    if not raw.is_array:
        return raw._replace(raw=kept(raw.raw, shown.raw))
    before = chain(shown.raw if isinstance(shown.raw, list) else [], repeat(None))
    return raw._replace(raw=[kept(*pair) for pair in zip(raw.raw, before, strict=False)])


def _raw(kind: int, value: Any) -> Any:
    if isinstance(value, list):
        return [_raw(kind, each) for each in value]
    if kind in _RANGES:
        return _integer(value, *_RANGES[kind])
    return _ENCODE[kind](value)


def _integer(value: Any, bits: int, signed: bool) -> int:
    if isinstance(value, str) and value.removeprefix("-").isdecimal():
        value = int(value)  # beyond 2**53, as samples carry them
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)  # a gate's verdict and an acknowledge are true and false, also where the PLC has a Word
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is no integer from {low} to {high}")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    raise ValueError(f"{value!r} is neither true nor false")


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _float(value: Any) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", _double(value)))
    except OverflowError as error:
        raise ValueError(f"{value!r} is too large for a Float") from error
    return float(rounded)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{value!r} is no text") from error
    return value


def _ticks(value: Any) -> int:
    try:
        at = datetime.fromisoformat(_string(value))
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        whole = at - datetime(1601, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f'{value!r} is no time; write "2026-11-22T05:41:04Z"') from error
    return (whole.days * 86400 + whole.seconds) * 10_000_000 + whole.microseconds * 10


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_string(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{value!r} is no base64") from error


def _guid(value: Any) -> uuid.UUID:
    return uuid.UUID(_string(value))


_ENCODE: dict[int, Callable[[Any], Any]] = {
    b.BOOLEAN: _boolean, b.FLOAT: _float, b.DOUBLE: _double, b.STRING: _string, b.XML: _string, b.DATETIME: _ticks,
    b.GUID: _guid, b.BYTESTRING: _bytes, b.LOCALIZED_TEXT: lambda value: b.LocalizedText(None, _string(value)),
}  # fmt: skip


def _for_asyncua(kind: int, raw: Any) -> Any:
    """A raw value as asyncua's encoder wants it."""
    if isinstance(raw, list):
        return [_for_asyncua(kind, each) for each in raw]
    if kind == b.DATETIME:
        return ua.win_epoch_to_datetime(raw)
    if kind == b.LOCALIZED_TEXT:
        return ua.LocalizedText(raw.text, raw.locale)
    if kind == b.XML:
        return ua.XmlElement(raw)
    return raw
